/* The standard's functions on slots and tokens. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <sodium.h>
#include "libclient/p11/p11.h"

#define WATCH_MS 250

static size_t list(bool present, CK_SLOT_ID *out, size_t room)
{
	size_t n = 0;

	for (size_t i = 0; i < n_slots; i++) {
		if (present && !slots[i]->present)
			continue;
		if (n < room)
			out[n] = i;
		n++;
	}
	return n;
}

CK_RV C_GetSlotList(CK_BBOOL present, CK_SLOT_ID_PTR out, CK_ULONG_PTR count)
{
	CK_RV rv = p11_enter();
	size_t n;

	if (rv != CKR_OK)
		return rv;
	if (count == NULL) {
		p11_leave();
		return CKR_ARGUMENTS_BAD;
	}
	/* the standard has the set of slots change when its size is asked for */
	slots_refresh(out == NULL);
	lock_take(&lib.table);
	n = list(present != CK_FALSE, out, out == NULL ? 0 : *count);
	lock_give(&lib.table);
	if (out != NULL && n > *count)
		rv = CKR_BUFFER_TOO_SMALL;
	*count = n;
	p11_leave();
	return rv;
}

static void fill_slot(const struct slot *s, CK_SLOT_INFO *info)
{
	char text[P11_NAMESPACE_MAX + 32];

	(void)snprintf(text, sizeof(text), "csm%s%s", s->ns[0] != '\0' ? " namespace " : "", s->ns);
	memset(info, 0, sizeof(*info));
	p11_pad(info->slotDescription, sizeof(info->slotDescription), text);
	p11_pad(info->manufacturerID, sizeof(info->manufacturerID), "csm");
	info->flags = CKF_REMOVABLE_DEVICE | (s->present ? CKF_TOKEN_PRESENT : 0);
}

CK_RV C_GetSlotInfo(CK_SLOT_ID id, CK_SLOT_INFO_PTR info)
{
	CK_RV rv = p11_enter();

	if (rv != CKR_OK)
		return rv;
	if (info == NULL) {
		p11_leave();
		return CKR_ARGUMENTS_BAD;
	}
	slots_refresh(false);
	lock_take(&lib.table);
	if (slot_get(id) == NULL)
		rv = CKR_SLOT_ID_INVALID;
	else
		fill_slot(slot_get(id), info);
	lock_give(&lib.table);
	p11_leave();
	return rv;
}

static void fill_token(const struct slot *s, CK_TOKEN_INFO *info)
{
	uint8_t hash[8];
	char serial[17];

	(void)crypto_generichash(hash, sizeof(hash), (const uint8_t *)s->ns, strlen(s->ns), NULL, 0);
	(void)sodium_bin2hex(serial, sizeof(serial), hash, sizeof(hash));
	memset(info, 0, sizeof(*info));
	p11_pad(info->label, sizeof(info->label), s->ns);
	p11_pad(info->manufacturerID, sizeof(info->manufacturerID), "csm");
	p11_pad(info->model, sizeof(info->model), "csmd");
	p11_pad(info->serialNumber, sizeof(info->serialNumber), serial);
	/* no login is needed; who wants one is asked for no PIN */
	info->flags = CKF_RNG | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | CKF_PROTECTED_AUTHENTICATION_PATH;
	info->ulMaxSessionCount = info->ulMaxRwSessionCount = CK_EFFECTIVELY_INFINITE;
	info->ulSessionCount = s->sessions;
	info->ulRwSessionCount = s->rw_sessions;
	info->ulMaxPinLen = 255;
	info->ulTotalPublicMemory = info->ulFreePublicMemory = CK_UNAVAILABLE_INFORMATION;
	info->ulTotalPrivateMemory = info->ulFreePrivateMemory = CK_UNAVAILABLE_INFORMATION;
	memset(info->utcTime, ' ', sizeof(info->utcTime));
}

/* p11_enter, and the slot's number is one with a token. The table's lock is held on success. */
static CK_RV token_enter(CK_SLOT_ID id, bool args, struct slot **ret)
{
	CK_RV rv = p11_enter();

	if (rv != CKR_OK)
		return rv;
	if (!args) {
		p11_leave();
		return CKR_ARGUMENTS_BAD;
	}
	slots_refresh(false);
	lock_take(&lib.table);
	*ret = slot_get(id);
	if (*ret != NULL && (*ret)->present)
		return CKR_OK;
	rv = *ret == NULL ? CKR_SLOT_ID_INVALID : CKR_TOKEN_NOT_PRESENT;
	lock_give(&lib.table);
	p11_leave();
	return rv;
}

static CK_RV token_leave(CK_RV rv)
{
	lock_give(&lib.table);
	p11_leave();
	return rv;
}

CK_RV C_GetTokenInfo(CK_SLOT_ID id, CK_TOKEN_INFO_PTR info)
{
	struct slot *s;
	CK_RV rv = token_enter(id, info != NULL, &s);

	if (rv != CKR_OK)
		return rv;
	fill_token(s, info);
	return token_leave(CKR_OK);
}

CK_RV C_GetMechanismList(CK_SLOT_ID id, CK_MECHANISM_TYPE_PTR out, CK_ULONG_PTR count)
{
	struct slot *s;
	CK_RV rv = token_enter(id, count != NULL, &s);
	size_t n;

	if (rv != CKR_OK)
		return rv;
	n = mech_list(out, out == NULL ? 0 : *count);
	if (out != NULL && n > *count)
		rv = CKR_BUFFER_TOO_SMALL;
	*count = n;
	return token_leave(rv);
}

CK_RV C_GetMechanismInfo(CK_SLOT_ID id, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO_PTR info)
{
	const struct mech *m = mech_by_type(type);
	struct slot *s;
	CK_RV rv = token_enter(id, info != NULL, &s);

	if (rv != CKR_OK)
		return rv;
	if (m == NULL)
		return token_leave(CKR_MECHANISM_INVALID);
	*info = m->info;
	return token_leave(CKR_OK);
}

/* Tokens are csmd's, and there is no PIN to set. */
CK_RV C_InitToken(CK_SLOT_ID id, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len, CK_UTF8CHAR_PTR label)
{
	struct slot *s;
	CK_RV rv = token_enter(id, label != NULL && (pin != NULL || pin_len == 0), &s);

	if (rv != CKR_OK)
		return rv;
	return token_leave(s->sessions > 0 ? CKR_SESSION_EXISTS : CKR_TOKEN_WRITE_PROTECTED);
}

CK_RV C_InitPIN(CK_SESSION_HANDLE h, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (pin == NULL && pin_len != 0)
		return session_leave(s, CKR_ARGUMENTS_BAD);
	if (!session_writes(s))
		return session_leave(s, CKR_SESSION_READ_ONLY);
	lock_take(&lib.table);
	rv = slots[s->slot]->user == CKU_SO ? CKR_TOKEN_WRITE_PROTECTED : CKR_USER_NOT_LOGGED_IN;
	lock_give(&lib.table);
	return session_leave(s, rv);
}

CK_RV C_SetPIN(CK_SESSION_HANDLE h, CK_UTF8CHAR_PTR old, CK_ULONG old_len, CK_UTF8CHAR_PTR new, CK_ULONG new_len)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if ((old == NULL && old_len != 0) || (new == NULL && new_len != 0))
		rv = CKR_ARGUMENTS_BAD;
	else
		rv = session_writes(s) ? CKR_TOKEN_WRITE_PROTECTED : CKR_SESSION_READ_ONLY;
	return session_leave(s, rv);
}

/* ---- C_WaitForSlotEvent ---- */

static bool take_event(CK_SLOT_ID *ret)
{
	bool found = false;

	lock_take(&lib.table);
	for (size_t i = 0; i < n_slots && !found; i++) {
		if (!slots[i]->event)
			continue;
		slots[i]->event = false;
		*ret = i;
		found = true;
	}
	lock_give(&lib.table);
	return found;
}

CK_RV C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID_PTR slot, CK_VOID_PTR reserved)
{
	const struct timespec t = {.tv_nsec = 1000000};
	CK_RV rv = p11_enter();
	unsigned ms = 0;

	if (rv != CKR_OK)
		return rv;
	if (slot == NULL || reserved != NULL) {
		p11_leave();
		return CKR_ARGUMENTS_BAD;
	}
	for (;; ms++) {
		if (ms % WATCH_MS == 0)
			slots_refresh(true);
		if (take_event(slot))
			break;
		if ((flags & CKF_DONT_BLOCK) != 0) {
			rv = CKR_NO_EVENT;
			break;
		}
		/* C_Finalize ends the wait */
		if (p11_ending()) {
			rv = CKR_CRYPTOKI_NOT_INITIALIZED;
			break;
		}
		(void)nanosleep(&t, NULL);
	}
	p11_leave();
	return rv;
}
