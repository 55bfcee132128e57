#include <errno.h>
#include <string.h>
#include <time.h>
#include "plugins/fake/script.h"

#define DELAY_MAX_MS 60000u

static const char *const slots[FAKE_SLOTS] = {
	[FAKE_OPEN] = "open",
	[FAKE_GENERATE] = "generate",
	[FAKE_LOAD] = "load",
	[FAKE_PUBLIC_KEY] = "public_key",
	[FAKE_SIGN] = "sign",
	[FAKE_DECRYPT] = "decrypt",
	[FAKE_DERIVE] = "derive",
	[FAKE_SEAL] = "seal",
	[FAKE_UNSEAL] = "unseal",
	[FAKE_COUNTER_READ] = "counter_read",
	[FAKE_COUNTER_INCREMENT] = "counter_increment",
	[FAKE_RANDOM] = "random",
	[FAKE_HEALTH] = "health",
};

/* The run of letters, digits and _ at the front. */
static struct csm_str word_take(struct csm_str *s)
{
	struct csm_str w = {s->p, 0};

	while (w.n < s->n &&
		((s->p[w.n] >= 'a' && s->p[w.n] <= 'z') || (s->p[w.n] >= 'A' && s->p[w.n] <= 'Z') ||
			(s->p[w.n] >= '0' && s->p[w.n] <= '9') || s->p[w.n] == '_'))
		w.n++;
	*s = (struct csm_str){s->p + w.n, s->n - w.n};
	return w;
}

static bool byte_take(struct csm_str *s, char c)
{
	if (s->n == 0 || s->p[0] != c)
		return false;
	*s = (struct csm_str){s->p + 1, s->n - 1};
	return true;
}

static void spaces_take(struct csm_str *s)
{
	while (byte_take(s, ' ') || byte_take(s, '\n') || byte_take(s, '\t'))
		;
}

static int number_take(struct csm_str *s, uint32_t *ret)
{
	uint32_t v = 0;
	size_t n = 0;

	while (n < s->n && n < 9 && s->p[n] >= '0' && s->p[n] <= '9')
		v = v * 10 + (uint32_t)(s->p[n++] - '0');
	if (n == 0)
		return CSM_EINVALID;
	*s = (struct csm_str){s->p + n, s->n - n};
	*ret = v;
	return 0;
}

static int error_take(struct csm_str *s, int *ret)
{
	struct csm_str w = word_take(s);

	if (w.n > 5 && memcmp(w.p, "CSM_E", 5) == 0)
		w = (struct csm_str){w.p + 5, w.n - 5};
#define X(sym, num, name, class, http, text) \
	if (csm_str_eq(w, #sym)) { \
		*ret = CSM_E##sym; \
		return 0; \
	}
#include "proto-spec/errors.def"
#undef X
	return CSM_EINVALID;
}

static int delay_take(struct csm_str *s, uint32_t *ret)
{
	uint32_t v = 0;
	struct csm_str unit;

	if (number_take(s, &v) != 0)
		return CSM_EINVALID;
	unit = word_take(s);
	if (csm_str_eq(unit, "s") && v <= DELAY_MAX_MS / 1000)
		v *= 1000;
	else if (!csm_str_eq(unit, "ms") || v > DELAY_MAX_MS)
		return CSM_EINVALID;
	*ret = v;
	return 0;
}

static int action_take(struct csm_str *s, struct fake_rule *rule)
{
	struct csm_str w = word_take(s);

	if (csm_str_eq(w, "down") && rule->slot == FAKE_HEALTH) {
		rule->down = true;
		return 0;
	}
	if (csm_str_eq(w, "spoil") && rule->slot == FAKE_SIGN) {
		rule->spoil = true;
		return 0;
	}
	if (!byte_take(s, ':') || rule->slot == FAKE_HEALTH)
		return CSM_EINVALID;
	if (csm_str_eq(w, "after"))
		return number_take(s, &rule->after);
	if (csm_str_eq(w, "delay"))
		return delay_take(s, &rule->delay_ms);
	if (!csm_str_eq(w, "fail") || error_take(s, &rule->fail) != 0)
		return CSM_EINVALID;
	if (byte_take(s, ':') && (number_take(s, &rule->times) != 0 || rule->times == 0))
		return CSM_EINVALID;
	return 0;
}

static int rule_take(struct csm_str *s, struct fake_rule *rule)
{
	struct csm_str w = word_take(s);

	for (rule->slot = 0; rule->slot < FAKE_SLOTS; rule->slot++)
		if (csm_str_eq(w, slots[rule->slot]))
			break;
	if (rule->slot == FAKE_SLOTS || !byte_take(s, '='))
		return CSM_EINVALID;
	do {
		if (action_take(s, rule) != 0)
			return CSM_EINVALID;
	} while (byte_take(s, ','));
	return 0;
}

int fake_script_parse(struct csm_str text, struct fake_script *ret, size_t *at)
{
	struct csm_str rest = text;
	struct fake_script s = {.n = 0};
	int r = CSM_EINVALID;

	spaces_take(&rest);
	while (rest.n > 0) {
		if (s.n == FAKE_RULES_MAX || rule_take(&rest, &s.rules[s.n]) != 0)
			goto out;
		s.n++;
		spaces_take(&rest);
		if (rest.n > 0 && !byte_take(&rest, ';'))
			goto out;
		spaces_take(&rest);
	}
	*ret = s;
	r = 0;
out:
	if (r != 0)
		*at = text.n - rest.n;
	return r;
}

static void sleep_ms(uint32_t ms)
{
	struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
		;
}

int fake_script_step(struct fake_script *s, enum fake_slot slot)
{
	uint64_t call = s->calls[slot]++;

	for (size_t i = 0; i < s->n; i++) {
		struct fake_rule *rule = &s->rules[i];

		if (rule->slot != slot || call < rule->after)
			continue;
		if (rule->delay_ms > 0)
			sleep_ms(rule->delay_ms);
		if (rule->fail != 0 && (rule->times == 0 || rule->failed < rule->times)) {
			rule->failed++;
			return rule->fail;
		}
	}
	return 0;
}

bool fake_script_down(const struct fake_script *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->rules[i].down)
			return true;
	return false;
}

bool fake_script_spoils(const struct fake_script *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->rules[i].spoil)
			return true;
	return false;
}
