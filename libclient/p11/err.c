#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sodium.h>
#include "libclient/p11/p11.h"

#define BUSY_TRIES 40u
#define BUSY_MS_MAX 200u

CK_RV p11_rv(int r, CK_RV denied)
{
	switch (r) {
	case 0:
		return CKR_OK;
	case CSM_EDENIED:
	case CSM_EROLE:
	case CSM_ENO_POLICY:
	case CSM_EAMBIGUOUS:
	case CSM_EPROOF_REQUIRED:
		return denied;
	case CSM_ENOT_FOUND:
		return CKR_OBJECT_HANDLE_INVALID;
	case CSM_ENOMEM:
		return CKR_HOST_MEMORY;
	case CSM_ENO_SPACE:
		return CKR_DEVICE_MEMORY;
	case CSM_EUNTRUSTED:
		return CKR_TOKEN_NOT_RECOGNIZED;
	case CSM_EINTERNAL:
		return CKR_FUNCTION_FAILED;
	default:
		return CKR_DEVICE_ERROR;
	}
}

CK_RV p11_use_rv(int r, CK_RV invalid)
{
	switch (r) {
	case CSM_EINVALID:
		return invalid;
	case CSM_ENOT_FOUND:
	case CSM_ECONFLICT: /* another key has its name */
		return CKR_KEY_HANDLE_INVALID;
	case CSM_EUNSUPPORTED:
		return CKR_MECHANISM_INVALID;
	default:
		return p11_rv(r, CKR_KEY_FUNCTION_NOT_PERMITTED);
	}
}

bool p11_again(int r, unsigned *tries)
{
	uint32_t ms = csm_error_retry_after_ms();
	struct timespec t;

	if (r != CSM_EBUSY || ++*tries > BUSY_TRIES || p11_ending())
		return false;
	ms = ms < 1 ? 1 : ms > BUSY_MS_MAX ? BUSY_MS_MAX : ms;
	t = (struct timespec){.tv_nsec = (long)ms * 1000000};
	(void)nanosleep(&t, NULL);
	return true;
}

int p11_send_by(struct csm *csm, int r, struct csm_request *req, struct csm_reply **ret)
{
	unsigned tries = 0;

	if (r == 0) {
		do
			r = csm_call(csm, req, ret);
		while (p11_again(r, &tries));
	}
	csm_request_free(req);
	return r;
}

int p11_send(int r, struct csm_request *req, struct csm_reply **ret)
{
	return p11_send_by(lib.csm, r, req, ret);
}

void p11_pad(CK_UTF8CHAR *to, size_t n, const char *text)
{
	size_t len = strlen(text);

	if (len > n) {
		/* not in the middle of a character */
		for (len = n; len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80; len--)
			;
	}
	for (size_t i = 0; i < n; i++)
		to[i] = i < len ? (CK_UTF8CHAR)text[i] : ' ';
}

void p11_wipe_free(void *p, size_t n)
{
	if (p == NULL)
		return;
	sodium_memzero(p, n);
	free(p);
}
