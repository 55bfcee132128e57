/* The table of objects: handles are never used twice. */
#include <stdlib.h>
#include <string.h>
#include "libclient/p11/p11.h"

#define INDEX_BITS 24
#define INDEX_MAX ((1UL << INDEX_BITS) - 1)

static struct object **table;
static size_t used, room, hole;
static CK_ULONG serial;

CK_RV objects_init(void)
{
	table = NULL;
	used = room = hole = 0;
	return CKR_OK;
}

void objects_free(void)
{
	for (size_t i = 0; i < used; i++)
		object_unref(table[i]);
	free(table);
	table = NULL;
	used = room = hole = 0;
}

struct object *object_new(CK_SLOT_ID slot, CK_OBJECT_CLASS class, CK_SESSION_HANDLE session, struct key *key)
{
	struct object *o = calloc(1, sizeof(*o));

	if (o == NULL)
		return NULL;
	atomic_init(&o->refs, 1);
	o->slot = slot;
	o->class = class;
	o->session = session;
	o->key = key != NULL ? key_ref(key) : NULL;
	return o;
}

struct object *object_ref(struct object *o)
{
	atomic_fetch_add(&o->refs, 1);
	return o;
}

void object_unref(struct object *o)
{
	if (o == NULL || atomic_fetch_sub(&o->refs, 1) != 1)
		return;
	key_unref(o->key);
	p11_wipe_free(o->value, o->value_len);
	free(o);
}

CK_RV object_add_locked(struct object *o)
{
	size_t at = hole;

	while (at < used && table[at] != NULL)
		at++;
	if (at == room) {
		size_t n = room == 0 ? 64 : 2 * room;
		struct object **more = n > INDEX_MAX ? NULL : realloc(table, n * sizeof(void *));

		if (more == NULL) {
			object_unref(o);
			return CKR_HOST_MEMORY;
		}
		table = more;
		room = n;
	}
	if (at == used)
		used++;
	hole = at + 1;
	table[at] = o;
	o->handle = (++serial << INDEX_BITS) | (at + 1);
	return CKR_OK;
}

CK_RV object_add(struct object *o)
{
	CK_RV rv;

	lock_take(&lib.table);
	rv = object_add_locked(o);
	lock_give(&lib.table);
	return rv;
}

static struct object *lookup(CK_OBJECT_HANDLE h)
{
	size_t at = (h & INDEX_MAX) - 1;

	return at < used && table[at] != NULL && table[at]->handle == h ? table[at] : NULL;
}

void object_drop_locked(CK_OBJECT_HANDLE h)
{
	struct object *o = lookup(h);
	size_t at = (h & INDEX_MAX) - 1;

	if (o == NULL)
		return;
	table[at] = NULL;
	if (at < hole)
		hole = at;
	object_unref(o);
}

void objects_drop_session(CK_SESSION_HANDLE session)
{
	for (size_t i = 0; i < used; i++)
		if (table[i] != NULL && table[i]->session == session)
			object_drop_locked(table[i]->handle);
}

struct object *object_get(const struct session *s, CK_OBJECT_HANDLE h)
{
	struct object *o;

	lock_take(&lib.table);
	o = lookup(h);
	o = o != NULL && o->slot == s->slot ? object_ref(o) : NULL;
	lock_give(&lib.table);
	return o;
}

CK_RV object_enter(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE object, const CK_ATTRIBUTE *t, CK_ULONG n, struct session **ret_s,
	struct object **ret)
{
	CK_RV rv = session_enter(h, ret_s);

	if (rv != CKR_OK)
		return rv;
	if (t == NULL && n != 0)
		return session_leave(*ret_s, CKR_ARGUMENTS_BAD);
	*ret = object_get(*ret_s, object);
	return *ret != NULL ? CKR_OK : session_leave(*ret_s, CKR_OBJECT_HANDLE_INVALID);
}

CK_RV object_leave(struct session *s, struct object *o, CK_RV rv)
{
	object_unref(o);
	return session_leave(s, rv);
}

CK_RV objects_of(CK_SLOT_ID slot, struct object ***ret, size_t *n)
{
	struct object **v;
	size_t k = 0;

	lock_take(&lib.table);
	v = malloc((used + 1) * sizeof(struct object *));
	if (v != NULL)
		for (size_t i = 0; i < used; i++)
			if (table[i] != NULL && table[i]->slot == slot)
				v[k++] = object_ref(table[i]);
	lock_give(&lib.table);
	if (v == NULL)
		return CKR_HOST_MEMORY;
	*ret = v;
	*n = k;
	return CKR_OK;
}
