/* A back end's PIN: from a file, which the supervisor has read, or from a sealed secret of the store. */
#include <string.h>
#include "daemon/node/plug_int.h"
#include "daemon/svc/log.h"
#include "libclient/wire/dec.h"
#include "libclient/wire/msg.h"

/* The next part up to a character; the rest stays in *s. */
static bool cut(struct csm_str *s, char at, struct csm_str *part)
{
	const char *found = memchr(s->p, at, s->n);

	if (found == NULL)
		return false;
	*part = (struct csm_str){s->p, (size_t)(found - s->p)};
	*s = (struct csm_str){found + 1, s->n - part->n - 1};
	return true;
}

/* The value of one pair out of all. */
static int pick(struct csm_bin pairs, struct csm_str key, uint8_t *out, size_t *len)
{
	struct csm_msg_pair pair;
	struct csm_str bad;
	struct csm_dec d;
	uint32_t n;
	int r;

	csm_dec_init(&d, pairs.p, pairs.n);
	if ((r = csm_dec_array(&d, &n)) != 0)
		return r;
	for (; n > 0; n--) {
		const uint8_t *from = d.p;

		if ((r = csm_dec_skip(&d)) != 0 || (r = csm_msg_decode(CSM_DEF(pair), (struct csm_bin){from, (size_t)(d.p - from)},
							    CSM_UNKNOWN_SKIP, NULL, &pair, &bad)) != 0)
			return r;
		if (!csm_str_same(pair.name, key))
			continue;
		if (pair.value.n > *len)
			return CSM_ETOO_LARGE;
		memcpy(out, pair.value.p, pair.value.n);
		*len = pair.value.n;
		return 0;
	}
	return CSM_ENOT_FOUND;
}

/* secret:NAMESPACE:DOMAIN/NAME/KEY. A version has a mark of its own. out NULL: only the mark. */
static int from_store(struct host_arg *a, uint8_t *out, size_t *len, uint64_t *mark)
{
	struct csm_str key = csm_str_of(a->plug->c->pin_secret), ns, domain, name;
	struct csm_store *store = a->b->store;
	struct csm_reader *reader;
	struct csm_buf plain;
	uint64_t version = 0, created = 0;
	int r;

	if (!cut(&key, ':', &ns) || !cut(&key, '/', &domain) || !cut(&key, '/', &name))
		return CSM_ENOT_FOUND;
	/* The root key may come later than the back ends. */
	if (store == NULL || a->b->state != BROKER_READY)
		return CSM_EUNAVAILABLE;
	if ((r = csm_reader_new(store, &reader)) != 0)
		return r;
	csm_buf_init(&plain, CSM_MESSAGE_MAX, true);
	if ((r = csm_reader_begin(reader)) == 0) {
		r = csm_store_secret_get(reader, ns, domain, name, 0, &plain, &version, &created);
		if (r == 0 && out != NULL)
			r = pick((struct csm_bin){csm_buf_ptr(&plain), plain.len}, key, out, len);
		csm_reader_end(reader);
	}
	csm_buf_free(&plain);
	csm_reader_free(reader);
	*mark = version ^ created << 20;
	return r == CSM_ENOT_FOUND ? CSM_EUNAVAILABLE : r; /* it may come */
}

static int from_file(struct host_arg *a, uint8_t *out, size_t *len, uint64_t *mark)
{
	struct csm_bin pin = a->b->setup.pins[a->plug->number];

	*mark = a->b->setup.pin_marks[a->plug->number];
	if (pin.p == NULL)
		return CSM_ENOT_FOUND;
	if (out == NULL)
		return 0;
	if (pin.n > *len)
		return CSM_ETOO_LARGE;
	memcpy(out, pin.p, pin.n);
	*len = pin.n;
	return 0;
}

/* The mark of the PIN that was refused: as long as it is the same, it is not handed out. */
static bool was_refused(struct host_arg *a, uint64_t mark)
{
	char name[PLUG_RECORD_NAME_MAX];
	uint64_t refused = 0;
	size_t n = sizeof(refused);

	return plug_record_name(a->plug, "refused:pin", name) &&
		csm_store_recall(a->pins, name, (uint8_t *)&refused, &n) == 0 && n == sizeof(refused) && refused == mark;
}

static int read_pin(struct host_arg *a, uint8_t *out, size_t *len, uint64_t *mark)
{
	return a->plug->c->pin_secret != NULL ? from_store(a, out, len, mark) : from_file(a, out, len, mark);
}

int plug_secret(void *arg, const char *name, uint8_t *out, size_t *len)
{
	struct host_arg *a = arg;
	uint64_t mark;
	int r;

	if (strcmp(name, "pin") != 0)
		return CSM_ENOT_FOUND;
	if ((r = read_pin(a, NULL, len, &mark)) != 0)
		return r;
	if (was_refused(a, mark)) {
		a->plug->denied = true;
		return CSM_EDENIED;
	}
	return read_pin(a, out, len, &mark);
}

void plug_look(struct host_arg *a)
{
	uint64_t mark;
	size_t len = 0;

	if (a->plug->c->pin_secret == NULL || !a->plug->denied || read_pin(a, NULL, &len, &mark) != 0 || was_refused(a, mark))
		return;
	/* Its process has been told that there is none: the next one asks anew. */
	a->plug->denied = false;
	a->be->host.reset(a);
}

void plug_secret_refused(void *arg, const char *name)
{
	struct host_arg *a = arg;
	char full[PLUG_RECORD_NAME_MAX];
	uint64_t mark;
	size_t len = 0;

	if (strcmp(name, "pin") != 0 || read_pin(a, NULL, &len, &mark) != 0 || !plug_record_name(a->plug, "refused:pin", full))
		return;
	a->plug->denied = true;
	log_err("%s: the PIN was refused: it is not tried again before it is another one", a->plug->c->name);
	if (csm_store_remember_now(a->pins, full, (const uint8_t *)&mark, sizeof(mark)) != 0)
		log_err("%s: that the PIN was refused could not be written down", a->plug->c->name);
}
