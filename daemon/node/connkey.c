#include <stdlib.h>
#include <string.h>
#include "daemon/node/connkey.h"
#include "libclient/base/lockmem.h"

bool connkey_is_name(struct csm_str name)
{
	return name.n > 0 && name.p[0] == '.';
}

struct connkey *connkey_find(const struct conn *c, struct csm_str text)
{
	struct connkey *k = c->keys;

	while (k != NULL && !csm_str_same(k->text, text))
		k = k->next;
	return k;
}

int connkey_check(const struct conn *c, struct csm_str text)
{
	if (connkey_find(c, text) != NULL)
		return CSM_EEXISTS;
	return c->n_keys < CSM_CONNECTION_KEYS_MAX ? 0 : CSM_EBUSY;
}

static const uint8_t *put(uint8_t **at, const void *p, size_t n)
{
	uint8_t *to = *at;

	if (n > 0)
		memcpy(to, p, n);
	*at += n;
	return to;
}

/* The record's slices become the key's own. */
static void copy_record(struct connkey *k, struct csm_str text, const struct csm_key_record *rec)
{
	uint8_t *at = k->bytes, *private = k->private;
	struct csm_key_record *own = &k->rec;

	*own = *rec;
	k->text = (struct csm_str){(const char *)put(&at, text.p, text.n), text.n};
	own->backend.p = (const char *)put(&at, rec->backend.p, rec->backend.n);
	own->protection.p = (const char *)put(&at, rec->protection.p, rec->protection.n);
	own->spki.p = put(&at, rec->spki.p, rec->spki.n);
	own->pub.p = put(&at, rec->pub.p, rec->pub.n);
	own->tag.p = put(&at, rec->tag.p, rec->tag.n);
	own->priv.p = put(&private, rec->priv.p, rec->priv.n);
}

int connkey_put(struct conn *c, struct csm_str text, const struct csm_key_record *rec)
{
	size_t n = sizeof(struct connkey) + text.n + rec->backend.n + rec->protection.n + rec->spki.n + rec->pub.n + rec->tag.n;
	struct admit *admit = &c->loop->b->admit;
	struct connkey *k;
	int r = connkey_check(c, text);

	if (r != 0)
		return r;
	if (!admit_charge(admit, c->slot, n + rec->priv.n))
		return CSM_EBUSY;
	k = calloc(1, n);
	if (k == NULL || (k->private = csm_lock_alloc(rec->priv.n + 1)) == NULL) {
		free(k);
		admit_credit(admit, c->slot, n + rec->priv.n);
		return CSM_ENOMEM;
	}
	k->slot = c->slot;
	k->charged = n + rec->priv.n;
	copy_record(k, text, rec);
	k->next = c->keys;
	c->keys = k;
	c->n_keys++;
	return 0;
}

void connkey_drop(struct conn *c, struct connkey *k)
{
	struct broker *b = c->loop->b;
	struct connkey **at = &c->keys;

	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	c->n_keys--;
	csm_keycache_drop(&b->shared_keys, k->rec.id);
	csm_keycache_drop(&c->loop->keys, k->rec.id);
	csm_lock_free(k->private);
	admit_credit(&b->admit, k->slot, k->charged);
	free(k);
}

void connkey_drop_all(struct conn *c)
{
	while (c->keys != NULL)
		connkey_drop(c, c->keys);
}
