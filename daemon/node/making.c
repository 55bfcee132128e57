#include "daemon/node/making.h"
#include <stdlib.h>
#include <string.h>
#include "daemon/node/broker.h"
#include "daemon/node/op.h"
#include "daemon/svc/log.h"

#define PIN_NAME "making"
/* id, and three texts with their zeros. */
#define ENTRY_MAX (CSM_KEY_ID_LEN + CSM_TOKEN_STR_MAX + CSM_NAMESPACE_MAX + CSM_NAME_MAX + 3)
#define TEXT_MAX (MAKING_MAX * ENTRY_MAX)

/* One entry as it is kept: id, then three texts, each ended by a zero. */

static size_t text_put(uint8_t *at, const char *text)
{
	size_t n = strlen(text) + 1;

	memcpy(at, text, n);
	return n;
}

static size_t encode(const struct making *m, uint8_t *out)
{
	size_t n = 0;

	for (size_t i = 0; i < MAKING_MAX; i++) {
		const struct making_entry *e = &m->entry[i];

		if (!e->used)
			continue;
		memcpy(out + n, e->id, sizeof(e->id));
		n += sizeof(e->id);
		n += text_put(out + n, e->backend);
		n += text_put(out + n, e->ns);
		n += text_put(out + n, e->name);
	}
	return n;
}

static bool text_get(const uint8_t *p, size_t n, size_t *at, char *out, size_t cap)
{
	size_t len = strnlen((const char *)p + *at, n - *at);

	if (len == n - *at || len >= cap)
		return false;
	memcpy(out, p + *at, len + 1);
	*at += len + 1;
	return true;
}

static void decode(struct making *m, const uint8_t *p, size_t n)
{
	struct making_entry e;
	size_t at = 0;

	for (size_t i = 0; i < MAKING_MAX && n - at > sizeof(e.id); i++) {
		memset(&e, 0, sizeof(e));
		memcpy(e.id, p + at, sizeof(e.id));
		at += sizeof(e.id);
		if (!text_get(p, n, &at, e.backend, sizeof(e.backend)) || !text_get(p, n, &at, e.ns, sizeof(e.ns)) ||
			!text_get(p, n, &at, e.name, sizeof(e.name)))
			return;
		e.used = e.left = true;
		m->entry[i] = e;
	}
}

void making_init(struct making *m)
{
	pthread_mutex_init(&m->lock, NULL);
}

bool making_needed(const struct csm_backend *be)
{
	return be->plugin->discard != NULL;
}

/* With the lock held; before anything is written, or it would be written over. */
static int read_left(struct making *m, struct csm_store *store)
{
	size_t n = TEXT_MAX;
	uint8_t *text;
	int r;

	if (m->read)
		return 0;
	if ((text = malloc(TEXT_MAX)) == NULL)
		return CSM_ENOMEM;
	r = csm_store_recall(store, PIN_NAME, text, &n);
	if (r == 0)
		decode(m, text, n);
	free(text);
	m->read = r == 0 || r == CSM_ENOT_FOUND;
	return m->read ? 0 : r;
}

static struct making_entry *entry_of(struct making *m, const uint8_t id[static CSM_KEY_ID_LEN])
{
	for (size_t i = 0; i < MAKING_MAX; i++)
		if (m->entry[i].used && memcmp(m->entry[i].id, id, CSM_KEY_ID_LEN) == 0)
			return &m->entry[i];
	return NULL;
}

static bool text_set(char *to, size_t cap, struct csm_str s)
{
	if (s.n >= cap)
		return false;
	memcpy(to, s.p, s.n);
	to[s.n] = '\0';
	return true;
}

static struct making_entry *entry_new(struct making *m)
{
	for (size_t i = 0; i < MAKING_MAX; i++)
		if (!m->entry[i].used)
			return &m->entry[i];
	return NULL;
}

static void noted(struct csm_store_op *sop)
{
	struct op *op = sop->arg;

	op->r = sop->r;
	if (op_post(op) != 0)
		abort();
}

/* The lock is kept over the submission: the last list that is written is the newest. */
static int note_submit(struct making *m, struct making_note *note, struct csm_store *store, struct op *op)
{
	if ((note->text = malloc(TEXT_MAX)) == NULL)
		return CSM_ENOMEM;
	note->sop = (struct csm_store_op){
		.kind = CSM_OP_REMEMBER,
		.name = csm_str_of(PIN_NAME),
		.payload = {note->text, encode(m, note->text)},
		.done = noted,
		.arg = op,
	};
	return csm_store_submit(store, &note->sop);
}

int making_begin(struct op *op, struct making_note *note, const struct csm_backend *be,
	const uint8_t id[static CSM_KEY_ID_LEN], struct csm_str ns, struct csm_str name, void (*apply)(struct op *))
{
	struct making *m = &op->loop->b->making;
	struct csm_store *store = op->loop->b->store;
	struct making_entry e = {.used = true}, *at;
	int r = CSM_EINTERNAL;

	if (store == NULL)
		return CSM_EUNAVAILABLE;
	memcpy(e.id, id, sizeof(e.id));
	if (!text_set(e.backend, sizeof(e.backend), csm_str_of(csm_backend_name(be))) ||
		!text_set(e.ns, sizeof(e.ns), ns) || !text_set(e.name, sizeof(e.name), name))
		return CSM_EINVALID;
	op->apply = apply;
	pthread_mutex_lock(&m->lock);
	if ((r = read_left(m, store)) != 0)
		goto out;
	r = CSM_EBUSY;
	if ((at = entry_new(m)) == NULL)
		goto out;
	*at = e;
	if ((r = note_submit(m, note, store, op)) != 0)
		memset(at, 0, sizeof(*at));
out:
	pthread_mutex_unlock(&m->lock);
	return r;
}

/* The list is not written anew for this: an entry whose key is stored, or of which nothing is in the device, does no
 * harm. */
void making_end(struct making *m, const uint8_t id[static CSM_KEY_ID_LEN])
{
	struct making_entry *e;

	pthread_mutex_lock(&m->lock);
	if ((e = entry_of(m, id)) != NULL)
		memset(e, 0, sizeof(*e));
	pthread_mutex_unlock(&m->lock);
}

void making_leave(struct making *m, const uint8_t id[static CSM_KEY_ID_LEN])
{
	struct making_entry *e;

	pthread_mutex_lock(&m->lock);
	if ((e = entry_of(m, id)) != NULL)
		e->left = true;
	pthread_mutex_unlock(&m->lock);
}

static bool next_left(struct making *m, const char *backend, size_t *at, struct making_entry *ret)
{
	bool found = false;

	pthread_mutex_lock(&m->lock);
	for (; *at < MAKING_MAX && !found; (*at)++) {
		const struct making_entry *e = &m->entry[*at];

		found = e->used && e->left && strcmp(e->backend, backend) == 0;
		if (found)
			*ret = *e;
	}
	pthread_mutex_unlock(&m->lock);
	return found;
}

/* 0: it is; CSM_ENOT_FOUND: it is not; else it cannot be told now. */
static int stored(struct csm_reader *reader, const struct making_entry *e)
{
	struct csm_key_record rec;
	int r;

	if ((r = csm_reader_begin(reader)) != 0)
		return r;
	r = csm_store_key_get(reader, csm_str_of(e->ns), csm_str_of(e->name), false, NULL, &rec);
	if (r == 0 && memcmp(rec.id, e->id, sizeof(e->id)) != 0)
		r = CSM_ENOT_FOUND;
	csm_reader_end(reader);
	return r;
}

static void settle(struct broker *b, struct csm_backend *be, struct csm_reader *reader, const struct making_entry *e)
{
	int r = stored(reader, e);

	if (r == CSM_ENOT_FOUND) {
		r = csm_be_discard(be, e->id);
		if (r == 0)
			log_info("back end %s: what was left of %s:%s is gone from the device", e->backend, e->ns, e->name);
		if (r == CSM_EUNSUPPORTED)
			r = 0;
	}
	if (r == 0)
		making_end(&b->making, e->id);
}

void making_look(struct broker *b, struct csm_backend *be)
{
	struct csm_store *store = b->store;
	struct csm_reader *reader = NULL;
	struct making_entry e;
	size_t at = 0;
	int r;

	if (store == NULL || b->state != BROKER_READY || be->ctx == NULL || !making_needed(be))
		return;
	pthread_mutex_lock(&b->making.lock);
	r = read_left(&b->making, store);
	pthread_mutex_unlock(&b->making.lock);
	while (r == 0 && next_left(&b->making, csm_backend_name(be), &at, &e)) {
		if (reader == NULL)
			r = csm_reader_new(store, &reader);
		if (r == 0)
			settle(b, be, reader, &e);
	}
	csm_reader_free(reader);
}
