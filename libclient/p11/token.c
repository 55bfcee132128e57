/* The keys of a namespace, as csmd tells them. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libclient/base/name.h"
#include "libclient/p11/p11.h"

#define OWN_MAX 64u /* each holds a connection */

static _Atomic uint64_t tick;
static _Atomic unsigned n_own;

uint64_t token_now(void)
{
	return atomic_load(&tick);
}

uint64_t token_tick(void)
{
	return atomic_fetch_add(&tick, 1) + 1;
}

struct key *key_ref(struct key *k)
{
	atomic_fetch_add(&k->refs, 1);
	return k;
}

void key_unref(struct key *k)
{
	if (k == NULL || atomic_fetch_sub(&k->refs, 1) != 1)
		return;
	if (k->own != NULL) {
		/* in csmd the key goes with its connection; a child of fork closes a copy, and may have found the lock taken */
		csm_free(k->own);
		if (k->owner == getpid())
			lock_free(&k->own_lock);
		atomic_fetch_sub(&n_own, 1);
	}
	keyinfo_free(atomic_load(&k->info));
	free(k->certs);
	free(k);
}

static struct key *key_new(CK_SLOT_ID slot, const char *name, const char *alg, uint64_t created)
{
	const char *ns = slots[slot]->ns;
	size_t ns_len = strlen(ns), n = strlen(name);
	struct key *k;

	if (n == 0 || n > P11_NAME_MAX || ns_len > P11_NAMESPACE_MAX || strlen(alg) >= sizeof(k->alg))
		return NULL;
	k = calloc(1, sizeof(*k));
	if (k == NULL)
		return NULL;
	atomic_init(&k->refs, 1);
	memcpy(k->name, name, n + 1);
	memcpy(k->ref, ns, ns_len);
	k->ref[ns_len] = ':';
	memcpy(k->ref + ns_len + 1, name, n + 1);
	memcpy(k->alg, alg, strlen(alg) + 1);
	k->created = created;
	k->slot = slot;
	return k;
}

/* ---- the set of a slot: under the table's lock ---- */

/* Where the name is, or belongs. */
static bool key_find(const struct slot *s, const char *name, size_t *at)
{
	size_t low = 0, high = s->n_keys;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int d = strcmp(s->keys[mid]->name, name);

		if (d == 0) {
			*at = mid;
			return true;
		}
		if (d < 0)
			low = mid + 1;
		else
			high = mid;
	}
	*at = low;
	return false;
}

static CK_RV key_object(CK_SLOT_ID slot, struct key *k, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *ret)
{
	struct object *o = object_new(slot, class, 0, k);
	CK_RV rv;

	if (o == NULL)
		return CKR_HOST_MEMORY;
	o->local = true;
	rv = object_add_locked(o);
	if (rv == CKR_OK)
		*ret = o->handle;
	return rv;
}

static void drop_objects(struct key *k)
{
	object_drop_locked(k->private);
	object_drop_locked(k->public);
	certs_drop(k);
	k->private = k->public = 0;
}

static void take_out(struct slot *s, size_t at)
{
	struct key *k = s->keys[at];

	drop_objects(k);
	memmove(&s->keys[at], &s->keys[at + 1], (s->n_keys - at - 1) * sizeof(void *));
	s->n_keys--;
	key_unref(k);
}

/* Consumes k. */
static CK_RV put_in(CK_SLOT_ID id, struct slot *s, size_t at, struct key *k)
{
	if (s->n_keys == s->room) {
		size_t room = s->room == 0 ? 16 : 2 * s->room;
		struct key **more = realloc(s->keys, room * sizeof(void *));

		if (more == NULL)
			goto refuse;
		s->keys = more;
		s->room = room;
	}
	if (key_object(id, k, CKO_PRIVATE_KEY, &k->private) != CKR_OK ||
		key_object(id, k, CKO_PUBLIC_KEY, &k->public) != CKR_OK)
		goto refuse;
	memmove(&s->keys[at + 1], &s->keys[at], (s->n_keys - at) * sizeof(void *));
	s->keys[at] = k;
	s->n_keys++;
	return CKR_OK;
refuse:
	drop_objects(k);
	key_unref(k);
	return CKR_HOST_MEMORY;
}

static void take_tag(struct key *k, struct csm_view v)
{
	size_t n = 0;
	const void *tag = csm_view_bin(v, "tag", &n);

	if (tag == NULL || n > sizeof(k->own_id))
		n = 0;
	if (n > 0)
		memcpy(k->own_id, tag, n);
	k->own_id_len = n;
}

/* One key as told; the one that is known stays if it is the same. *ret is not referenced. */
static CK_RV take_key(CK_SLOT_ID id, const char *name, struct csm_view v, struct key **ret)
{
	const char *alg = csm_view_str(v, "alg");
	uint64_t created = csm_view_u64(v, "created");
	struct slot *s = slots[id];
	struct key *k;
	size_t at;
	CK_RV rv;

	if (name == NULL || alg == NULL)
		return CKR_OK;
	if (key_find(s, name, &at)) {
		k = s->keys[at];
		if (strcmp(k->alg, alg) == 0 && (created == 0 || k->created == 0 || k->created == created)) {
			k->told = token_tick();
			*ret = k;
			return CKR_OK;
		}
		take_out(s, at);
	}
	k = key_new(id, name, alg, created);
	if (k == NULL)
		return CKR_HOST_MEMORY;
	k->told = token_tick();
	take_tag(k, v);
	rv = put_in(id, s, at, k);
	if (rv == CKR_OK)
		*ret = k;
	return rv;
}

/* ---- what csmd says of one key ---- */

static int ask_key(const char *method, const char *ref, struct csm_reply **ret)
{
	struct csm_request *req = NULL;
	int r = csm_request_new(method, &req);

	if (r == 0)
		r = csm_request_str(req, "key", ref);
	return p11_send(r, req, ret);
}

/* key.show; where policy gives only the public key, key.public, and what an algorithm's keys may do by default. Each refusal
 * is a line in the audit log: for a key that is known it is not asked for again. */
static int ask_info(const char *ref, bool *no_show, struct csm_reply **ret)
{
	int r = *no_show ? CSM_EDENIED : ask_key("key.show", ref, ret);

	if (r != CSM_EDENIED)
		return r;
	r = ask_key("key.public", ref, ret);
	*no_show = r == 0;
	return r;
}

static bool has_use(struct csm_view v, const char *use)
{
	const char *s;

	for (size_t i = 0; (s = csm_view_item(v, "use", i)) != NULL; i++)
		if (strcmp(s, use) == 0)
			return true;
	return false;
}

static CK_RV info_of(struct csm_view v, struct keyinfo **ret)
{
	const char *pem = csm_view_str(v, "public");
	struct keyinfo *i;
	CK_RV rv = pem == NULL ? CKR_DEVICE_ERROR : keyinfo_new_pem(pem, &i);

	if (rv != CKR_OK)
		return rv;
	i->sign = i->decrypt = i->derive = true;
	if (csm_view_count(v, "use") > 0) {
		i->sign = has_use(v, "sign");
		i->decrypt = has_use(v, "decrypt");
		i->derive = has_use(v, "derive");
	}
	i->decrypt &= i->alg->type == CKK_RSA;
	i->derive &= i->alg->type == CKK_EC;
	i->exportable = csm_view_bool(v, "exportable");
	*ret = i;
	return CKR_OK;
}

/* The info becomes the key's, unless another thread was first. */
static const struct keyinfo *info_set(struct key *k, struct keyinfo *i)
{
	struct keyinfo *none = NULL;

	if (atomic_compare_exchange_strong(&k->info, &none, i))
		return i;
	keyinfo_free(i);
	return none;
}

/* What a listing told of the key: another one of its name is not taken for it. */
static bool is_listed(const struct key *k, struct csm_view v)
{
	const char *alg = csm_view_str(v, "alg");
	uint64_t created = csm_view_u64(v, "created");

	return alg != NULL && strcmp(alg, k->alg) == 0 && (created == 0 || k->created == 0 || created == k->created);
}

CK_RV key_load(struct key *k, const struct keyinfo **ret)
{
	const struct keyinfo *known = atomic_load(&k->info);
	bool no_show = atomic_load(&k->no_show);
	struct csm_reply *reply;
	struct keyinfo *i;
	CK_RV rv;
	int r;

	if (known != NULL) {
		*ret = known;
		return CKR_OK;
	}
	r = ask_info(k->ref, &no_show, &reply);
	atomic_store(&k->no_show, no_show);
	if (r != 0)
		return p11_rv(r, CKR_OBJECT_HANDLE_INVALID);
	rv = is_listed(k, csm_reply_view(reply)) ? info_of(csm_reply_view(reply), &i) : CKR_OBJECT_HANDLE_INVALID;
	csm_reply_free(reply);
	if (rv == CKR_OK)
		*ret = info_set(k, i);
	return rv;
}

static bool same_public(const struct keyinfo *a, const struct keyinfo *b)
{
	return a->spki_len == b->spki_len && memcmp(a->spki, b->spki, a->spki_len) == 0;
}

/* The key of the reply, with what the reply tells of it; a key made anew under its name is another one. */
static CK_RV take_reply(CK_SLOT_ID slot, const char *name, struct csm_view v, struct key **ret)
{
	const struct keyinfo *known;
	struct keyinfo *i;
	struct key *k = NULL;
	CK_RV rv = info_of(v, &i);
	size_t at;

	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	if (key_find(slots[slot], name, &at)) {
		known = atomic_load(&slots[slot]->keys[at]->info);
		if (known != NULL && !same_public(known, i))
			take_out(slots[slot], at);
	}
	rv = take_key(slot, name, v, &k);
	if (rv == CKR_OK && k == NULL)
		rv = CKR_DEVICE_ERROR;
	if (rv == CKR_OK) {
		(void)info_set(k, i);
		*ret = key_ref(k);
	} else {
		keyinfo_free(i);
	}
	lock_give(&lib.table);
	return rv;
}

struct key *token_key(CK_SLOT_ID slot, const char *name)
{
	size_t at;

	return key_find(slots[slot], name, &at) ? slots[slot]->keys[at] : NULL;
}

struct key *token_nth(CK_SLOT_ID slot, size_t n)
{
	struct key *k;

	lock_take(&lib.table);
	k = n < slots[slot]->n_keys ? key_ref(slots[slot]->keys[n]) : NULL;
	lock_give(&lib.table);
	return k;
}

CK_RV token_look(CK_SLOT_ID slot, const char *name, size_t n, bool certs)
{
	char ref[P11_REF_MAX + 1], *bare;
	struct csm_reply *reply;
	struct key *k = NULL;
	bool no_show;
	size_t at, ns;
	CK_RV rv;
	int r;

	if (!csm_name_valid((struct csm_str){name, n}))
		return CKR_OK;
	ns = strlen(slots[slot]->ns);
	memcpy(ref, slots[slot]->ns, ns);
	ref[ns] = ':';
	bare = ref + ns + 1;
	memcpy(bare, name, n);
	bare[n] = '\0';
	lock_take(&lib.table);
	no_show = key_find(slots[slot], bare, &at) && atomic_load(&slots[slot]->keys[at]->no_show);
	lock_give(&lib.table);
	r = ask_info(ref, &no_show, &reply);
	if (r == CSM_ENOT_FOUND) {
		lock_take(&lib.table);
		if (key_find(slots[slot], bare, &at))
			take_out(slots[slot], at);
		lock_give(&lib.table);
	}
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CKR_OK : p11_rv(r, CKR_OK);
	rv = take_reply(slot, bare, csm_reply_view(reply), &k);
	csm_reply_free(reply);
	if (rv == CKR_OK)
		atomic_store(&k->no_show, no_show);
	if (rv == CKR_OK && certs)
		rv = certs_look(slot, k);
	key_unref(k);
	return rv;
}

CK_RV token_take(CK_SLOT_ID slot, struct csm_view v, CK_OBJECT_HANDLE *private, CK_OBJECT_HANDLE *public)
{
	const char *name = csm_view_str(v, "name");
	struct key *k;
	CK_RV rv = name == NULL ? CKR_DEVICE_ERROR : take_reply(slot, name, v, &k);

	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	*private = k->private;
	*public = k->public;
	lock_give(&lib.table);
	key_unref(k);
	return CKR_OK;
}

int key_request(const char *method, const struct key *k, const struct keyinfo *i, struct csm_request **ret)
{
	int r = csm_request_new(method, ret);

	if (r == 0)
		r = csm_request_str(*ret, "key", k->ref);
	if (r == 0)
		r = csm_request_str(*ret, "spki_sha256", i->spki_sha256);
	return r;
}

static int own_send(int r, struct csm_request *req, struct key *k, struct csm_reply **ret)
{
	if (k->owner != getpid()) {
		csm_request_free(req);
		return CSM_ENOT_FOUND;
	}
	/* a second call at a time would go over a second connection */
	lock_take(&k->own_lock);
	r = p11_send_by(k->own, r, req, ret);
	lock_give(&k->own_lock);
	return r;
}

int key_send(int r, struct csm_request *req, struct key *k, struct csm_reply **ret)
{
	if (k->own != NULL)
		return own_send(r, req, k, ret);
	r = p11_send(r, req, ret);
	if (r == CSM_ECONFLICT)
		token_remove(k->slot, k);
	return r;
}

void token_remove(CK_SLOT_ID slot, struct key *k)
{
	size_t at;

	lock_take(&lib.table);
	if (key_find(slots[slot], k->name, &at) && slots[slot]->keys[at] == k)
		take_out(slots[slot], at);
	lock_give(&lib.table);
}

/* ---- a session's ---- */

static CK_RV own_new(CK_SLOT_ID slot, struct csm_view v, struct key **ret)
{
	const char *alg = csm_view_str(v, "alg");
	struct keyinfo *i;
	struct key *k;
	CK_RV rv = alg == NULL ? CKR_DEVICE_ERROR : info_of(v, &i);

	if (rv != CKR_OK)
		return rv;
	k = key_new(slot, P11_OWN_NAME, alg, csm_view_u64(v, "created"));
	if (k == NULL) {
		keyinfo_free(i);
		return CKR_HOST_MEMORY;
	}
	(void)info_set(k, i);
	*ret = k;
	return CKR_OK;
}

CK_RV key_of_session(CK_SLOT_ID slot, struct csm *own, struct csm_view v, struct key **private, struct key **public)
{
	struct key *k = NULL, *p = NULL;
	CK_RV rv = CKR_DEVICE_MEMORY;

	if (atomic_fetch_add(&n_own, 1) >= OWN_MAX)
		goto out;
	/* two, so that the private key ends with its own last object */
	if ((rv = own_new(slot, v, &k)) != CKR_OK || (rv = own_new(slot, v, &p)) != CKR_OK ||
		(rv = lock_init(&k->own_lock)) != CKR_OK)
		goto out;
	k->own = own;
	k->owner = getpid();
	*private = k;
	*public = p;
	return CKR_OK;
out:
	atomic_fetch_sub(&n_own, 1);
	key_unref(k);
	key_unref(p);
	return rv;
}

/* ---- all of them ---- */

static CK_RV take_page(CK_SLOT_ID slot, struct csm_view v)
{
	size_t n = csm_view_count(v, "keys");
	CK_RV rv = CKR_OK;
	struct key *k;

	lock_take(&lib.table);
	for (size_t i = 0; i < n && rv == CKR_OK; i++) {
		struct csm_view item = csm_view_at(v, "keys", i);

		rv = take_key(slot, csm_view_str(item, "name"), item, &k);
	}
	lock_give(&lib.table);
	return rv;
}

CK_RV token_list(CK_SLOT_ID slot)
{
	uint64_t begun = token_now();
	struct slot *s = slots[slot];
	bool whole;
	CK_RV rv = slot_list(slot, LIST_KEYS, take_page, &whole);

	lock_take(&lib.table);
	for (size_t i = s->n_keys; whole && i-- > 0;)
		if (s->keys[i]->told <= begun)
			take_out(s, i);
	lock_give(&lib.table);
	return rv;
}
