/* What names are asked for: templates of the configuration, and what callers may add. */
#include <string.h>
#include "daemon/node/enrol.h"

#define EXPANDED_MAX 1024u

/* Letters that mean nothing more in a host name, a path or a subject. */
static bool is_plain(struct csm_str s)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@";

	for (size_t i = 0; i < s.n; i++)
		if (strchr(letters, s.p[i]) == NULL)
			return false;
	return s.n > 0;
}

static bool is(const char *p, size_t n, const char *word)
{
	return strlen(word) == n && memcmp(p, word, n) == 0;
}

static int value_of(const char *p, size_t n, const struct enrol_who *who, struct csm_str *ret, const char **why)
{
	struct csm_str s = {NULL, 0};
	size_t tail = sizeof(".service") - 1;

	if (is(p, n, "hostname"))
		s = csm_str_of(who->hostname);
	else if (is(p, n, "name"))
		s = who->name;
	else if (is(p, n, "namespace"))
		s = who->ns;
	else if (is(p, n, "unit"))
		s = csm_str_of(who->unit);
	else if (is(p, n, "pod"))
		s = csm_str_of(who->pod);
	if (is(p, n, "unit") && s.n > tail && memcmp(s.p + s.n - tail, ".service", tail) == 0)
		s.n -= tail;
	*why = "the profile's names have something of the caller that this one has not: it is in no unit, or in no pod";
	if (s.n == 0)
		return CSM_EINVALID;
	*why = "what the profile's names take from the key or the caller has characters that a name cannot have";
	if (!is_plain(s))
		return CSM_EINVALID;
	*ret = s;
	return 0;
}

int enrol_expand(const char *text, const struct enrol_who *who, struct csm_pool *pool, struct csm_str *ret, const char **why)
{
	char *out = csm_pool_alloc(pool, EXPANDED_MAX + 1);
	size_t n = 0;
	int r;

	if (out == NULL)
		return CSM_ENOMEM;
	for (const char *p = text; *p != '\0'; p++) {
		const char *end = *p == '{' ? strchr(p, '}') : NULL;
		struct csm_str s = {p, 1};

		if (end != NULL && (r = value_of(p + 1, (size_t)(end - p) - 1, who, &s, why)) != 0)
			return r;
		*why = "a name becomes too long";
		if (n + s.n > EXPANDED_MAX)
			return CSM_EINVALID;
		memcpy(out + n, s.p, s.n);
		n += s.n;
		if (end != NULL)
			p = end;
	}
	*ret = (struct csm_str){out, n};
	return 0;
}

static bool matches(const struct csm_enrol_profile *p, struct csm_str name)
{
	for (size_t i = 0; p->names[i] != NULL; i++)
		if (csm_glob_match(csm_str_of(p->names[i]), name))
			return true;
	return false;
}

int enrol_allowed(const struct csm_enrol_profile *p, struct csm_str subject, const struct csm_str *sans, size_t n,
	const char **why)
{
	*why = "the profile's names do not let callers choose this subject";
	if (subject.p != NULL && !matches(p, subject))
		return CSM_EDENIED;
	*why = "the profile's names do not let callers ask for one of these alternative names";
	for (size_t i = 0; i < n; i++)
		if (!matches(p, sans[i]))
			return CSM_EDENIED;
	return 0;
}
