/* Sessions, and the login that no key of csm needs. */
#include <stdlib.h>
#include <string.h>
#include "libclient/p11/p11.h"

#define INDEX_BITS 20
#define INDEX_MAX ((1UL << INDEX_BITS) - 1)

/* Guarded by the table's lock. */
static struct session **table;
static size_t used, room;
static CK_ULONG serial;

CK_RV sessions_init(void)
{
	table = NULL;
	used = room = 0;
	return CKR_OK;
}

static void session_unref(struct session *s)
{
	if (atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	op_end(&s->op);
	lock_free(&s->lock);
	free(s);
}

void sessions_free(void)
{
	for (size_t i = 0; i < used; i++)
		if (table[i] != NULL)
			session_unref(table[i]);
	free(table);
	table = NULL;
	used = room = 0;
}

void sessions_after_fork(void)
{
	for (size_t i = 0; i < used; i++) {
		struct session *s = table[i];

		if (s == NULL)
			continue;
		lock_renew(&s->lock);
		atomic_store(&s->refs, 1);
		if (s->busy) /* half done by a thread that is not here: nothing in it can be relied on */
			memset(&s->op, 0, sizeof(s->op));
		s->busy = false;
	}
}

static struct session *lookup(CK_SESSION_HANDLE h)
{
	size_t at = (h & INDEX_MAX) - 1;

	return at < used && table[at] != NULL && table[at]->handle == h ? table[at] : NULL;
}

CK_RV session_enter(CK_SESSION_HANDLE h, struct session **ret)
{
	CK_RV rv = p11_enter();
	struct session *s;

	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	s = lookup(h);
	if (s != NULL)
		atomic_fetch_add(&s->refs, 1);
	lock_give(&lib.table);
	if (s == NULL) {
		p11_leave();
		return CKR_SESSION_HANDLE_INVALID;
	}
	lock_take(&s->lock);
	s->busy = true;
	if (!s->closed) {
		*ret = s;
		return CKR_OK;
	}
	return session_leave(s, CKR_SESSION_HANDLE_INVALID);
}

CK_RV session_leave(struct session *s, CK_RV rv)
{
	s->busy = false;
	lock_give(&s->lock);
	session_unref(s);
	p11_leave();
	return rv;
}

bool session_writes(const struct session *s)
{
	return (s->flags & CKF_RW_SESSION) != 0;
}

/* ---- open and close ---- */

static CK_RV put_in(struct session *s)
{
	struct slot *slot = slots[s->slot];
	size_t at = 0;

	/* a token that was here once is one that may be back: see slots.c */
	if (!slot->present && slot->ns[0] == '\0')
		return CKR_TOKEN_NOT_PRESENT;
	if (slot->user == CKU_SO && !session_writes(s))
		return CKR_SESSION_READ_WRITE_SO_EXISTS;
	while (at < used && table[at] != NULL)
		at++;
	if (at == room) {
		size_t n = room == 0 ? 64 : 2 * room;
		struct session **more = n > INDEX_MAX ? NULL : realloc(table, n * sizeof(void *));

		if (more == NULL)
			return CKR_SESSION_COUNT;
		table = more;
		room = n;
	}
	if (at == used)
		used++;
	table[at] = s;
	s->handle = (++serial << INDEX_BITS) | (at + 1);
	slot->sessions++;
	slot->rw_sessions += session_writes(s);
	return CKR_OK;
}

CK_RV C_OpenSession(CK_SLOT_ID id, CK_FLAGS flags, CK_VOID_PTR application, CK_NOTIFY notify,
	CK_SESSION_HANDLE_PTR ret)
{
	CK_RV rv = p11_enter();
	struct session *s = NULL;

	(void)application;
	(void)notify;
	if (rv != CKR_OK)
		return rv;
	rv = CKR_ARGUMENTS_BAD;
	if (ret == NULL)
		goto out;
	rv = CKR_SESSION_PARALLEL_NOT_SUPPORTED;
	if ((flags & CKF_SERIAL_SESSION) == 0)
		goto out;
	slots_refresh(false);
	rv = CKR_HOST_MEMORY;
	s = calloc(1, sizeof(*s));
	if (s == NULL || lock_init(&s->lock) != CKR_OK) {
		free(s);
		goto out;
	}
	atomic_init(&s->refs, 1);
	s->slot = id;
	s->flags = flags & (CKF_SERIAL_SESSION | CKF_RW_SESSION);
	lock_take(&lib.table);
	rv = slot_get(id) == NULL ? CKR_SLOT_ID_INVALID : put_in(s);
	if (rv == CKR_OK)
		*ret = s->handle;
	lock_give(&lib.table);
	if (rv != CKR_OK)
		session_unref(s);
out:
	p11_leave();
	return rv;
}

/* Under the table's lock. The reference of the table goes to the caller. */
static void take_out(struct session *s)
{
	struct slot *slot = slots[s->slot];

	table[(s->handle & INDEX_MAX) - 1] = NULL;
	objects_drop_session(s->handle);
	slot->sessions--;
	slot->rw_sessions -= session_writes(s);
	if (slot->sessions == 0)
		slot->user = NOBODY;
}

CK_RV C_CloseSession(CK_SESSION_HANDLE h)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	if (lookup(h) != s)
		rv = CKR_SESSION_HANDLE_INVALID;
	else
		take_out(s);
	lock_give(&lib.table);
	s->closed = true;
	op_end(&s->op);
	if (rv == CKR_OK)
		atomic_fetch_sub(&s->refs, 1); /* the table's; ours is left */
	return session_leave(s, rv);
}

CK_RV C_CloseAllSessions(CK_SLOT_ID id)
{
	CK_RV rv = p11_enter();

	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	if (slot_get(id) == NULL)
		rv = CKR_SLOT_ID_INVALID;
	for (size_t i = 0; i < used && rv == CKR_OK; i++) {
		struct session *s = table[i];

		if (s == NULL || s->slot != id)
			continue;
		take_out(s);
		/* who is in a function of this session ends it first */
		lock_give(&lib.table);
		lock_take(&s->lock);
		s->closed = true;
		op_end(&s->op);
		lock_give(&s->lock);
		lock_take(&lib.table);
		objects_drop_session(s->handle); /* what was made meanwhile */
		session_unref(s);
	}
	lock_give(&lib.table);
	p11_leave();
	return rv;
}

static CK_STATE state_of(const struct session *s, CK_USER_TYPE user)
{
	if (user == CKU_SO)
		return CKS_RW_SO_FUNCTIONS;
	if (user == CKU_USER)
		return session_writes(s) ? CKS_RW_USER_FUNCTIONS : CKS_RO_USER_FUNCTIONS;
	return session_writes(s) ? CKS_RW_PUBLIC_SESSION : CKS_RO_PUBLIC_SESSION;
}

CK_RV C_GetSessionInfo(CK_SESSION_HANDLE h, CK_SESSION_INFO_PTR info)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (info == NULL)
		return session_leave(s, CKR_ARGUMENTS_BAD);
	lock_take(&lib.table);
	*info = (CK_SESSION_INFO){.slotID = s->slot, .state = state_of(s, slots[s->slot]->user), .flags = s->flags};
	lock_give(&lib.table);
	return session_leave(s, CKR_OK);
}

/* ---- login: who asks is told by the kernel, so any PIN is right ---- */

static CK_RV log_in(struct session *s, CK_USER_TYPE type)
{
	struct slot *slot = slots[s->slot];

	if (slot->user == type)
		return CKR_USER_ALREADY_LOGGED_IN;
	if (slot->user != NOBODY)
		return CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
	if (type == CKU_SO && slot->rw_sessions != slot->sessions)
		return CKR_SESSION_READ_ONLY_EXISTS;
	slot->user = type;
	return CKR_OK;
}

static CK_RV login(CK_SESSION_HANDLE h, CK_USER_TYPE type, const void *pin, CK_ULONG pin_len)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (pin == NULL && pin_len != 0)
		return session_leave(s, CKR_ARGUMENTS_BAD);
	/* no key asks for a PIN at each use */
	if (type == CKU_CONTEXT_SPECIFIC)
		return session_leave(s, s->op.kind == OP_SIGN || s->op.kind == OP_DECRYPT ? CKR_OK :
			CKR_OPERATION_NOT_INITIALIZED);
	if (type != CKU_USER && type != CKU_SO)
		return session_leave(s, CKR_USER_TYPE_INVALID);
	lock_take(&lib.table);
	rv = log_in(s, type);
	lock_give(&lib.table);
	return session_leave(s, rv);
}

CK_RV C_Login(CK_SESSION_HANDLE h, CK_USER_TYPE type, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len)
{
	return login(h, type, pin, pin_len);
}

CK_RV C_LoginUser(CK_SESSION_HANDLE h, CK_USER_TYPE type, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len, CK_UTF8CHAR_PTR user,
	CK_ULONG user_len)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	rv = session_leave(s, user == NULL && user_len != 0 ? CKR_ARGUMENTS_BAD : CKR_OK);
	return rv != CKR_OK ? rv : login(h, type, pin, pin_len);
}

CK_RV C_Logout(CK_SESSION_HANDLE h)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	rv = slots[s->slot]->user == NOBODY ? CKR_USER_NOT_LOGGED_IN : CKR_OK;
	slots[s->slot]->user = NOBODY;
	lock_give(&lib.table);
	return session_leave(s, rv);
}
