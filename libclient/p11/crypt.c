/* C_Encrypt with a public key, here; C_Decrypt by csmd. Both take the whole of a block: parts are gathered. */
#include <stdio.h>
#include <string.h>
#include <sodium.h>
#include "libclient/p11/p11.h"

CK_RV C_EncryptInit(CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
{
	return op_init(h, OP_ENCRYPT, m, key);
}

CK_RV C_DecryptInit(CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
{
	return op_init(h, OP_DECRYPT, m, key);
}

static size_t block(const struct op *op)
{
	return op->info->alg->bits / 8;
}

/* The longest result: of decryption, what the padding leaves. */
static size_t longest(const struct op *op)
{
	return op->kind == OP_ENCRYPT ? block(op) : block(op) - 2 * op->hash->size - 2;
}

static int decrypt_once(const struct op *op, const char *scheme, struct csm_reply **ret)
{
	struct csm_request *req = NULL;
	int r = key_request("key.decrypt", op->object->key, op->info, &req);

	if (r == 0)
		r = csm_request_str(req, "scheme", scheme);
	if (r == 0)
		r = csm_request_bin(req, "ciphertext", op->in, op->in_len);
	if (r == 0 && op->label_len > 0)
		r = csm_request_bin(req, "label", op->label, op->label_len);
	return key_send(r, req, op->object->key, ret);
}

static CK_RV decrypt(const struct op *op, uint8_t *out, CK_ULONG *len)
{
	struct csm_reply *reply;
	char scheme[32];
	const void *plain;
	size_t n = 0;
	CK_RV rv = CKR_OK;
	int r;

	if (op->in_len != block(op))
		return CKR_ENCRYPTED_DATA_LEN_RANGE;
	(void)snprintf(scheme, sizeof(scheme), "rsa-oaep-%s", op->hash->suffix);
	r = decrypt_once(op, scheme, &reply);
	if (r != 0)
		return p11_use_rv(r, CKR_ENCRYPTED_DATA_INVALID);
	plain = csm_view_bin(csm_reply_view(reply), "plaintext", &n);
	if (n > *len)
		rv = CKR_BUFFER_TOO_SMALL;
	else if (n > 0)
		memcpy(out, plain, n);
	*len = n;
	csm_reply_free(reply);
	return rv;
}

static CK_RV encrypt(const struct op *op, uint8_t *out, CK_ULONG *len)
{
	static const uint8_t none[1];
	size_t n = *len;
	CK_RV rv;

	if (n < block(op)) {
		*len = block(op);
		return CKR_BUFFER_TOO_SMALL;
	}
	rv = pub_encrypt(op, op->in_len > 0 ? op->in : none, op->in_len, out, &n);
	if (rv == CKR_OK)
		*len = n;
	return rv;
}

static CK_RV run(const struct op *op, uint8_t *out, CK_ULONG *len)
{
	if (out == NULL) {
		*len = longest(op);
		return CKR_OK;
	}
	return op->kind == OP_ENCRYPT ? encrypt(op, out, len) : decrypt(op, out, len);
}

static CK_RV leave(struct session *s, CK_RV rv, const void *out)
{
	/* what only asked for the length goes on */
	if (rv != CKR_BUFFER_TOO_SMALL && (rv != CKR_OK || out != NULL))
		op_end(&s->op);
	return session_leave(s, rv);
}

static CK_RV once(CK_SESSION_HANDLE h, enum op_kind kind, const void *in, CK_ULONG n, uint8_t *out, CK_ULONG *len)
{
	struct session *s;
	CK_RV rv = op_enter(h, kind, &s);

	if (rv != CKR_OK)
		return rv;
	rv = CKR_ARGUMENTS_BAD;
	if (len != NULL && (in != NULL || n == 0))
		rv = s->op.updated ? CKR_OPERATION_ACTIVE : op_data(&s->op, in, n);
	if (rv == CKR_DATA_LEN_RANGE && kind == OP_DECRYPT)
		rv = CKR_ENCRYPTED_DATA_LEN_RANGE;
	if (rv != CKR_OK) {
		op_end(&s->op);
		return session_leave(s, rv);
	}
	rv = run(&s->op, out, len);
	/* the next call brings the data again */
	sodium_memzero(s->op.in, s->op.in_len);
	s->op.in_len = 0;
	return leave(s, rv, out);
}

CK_RV C_Encrypt(CK_SESSION_HANDLE h, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return once(h, OP_ENCRYPT, in, n, out, len);
}

CK_RV C_Decrypt(CK_SESSION_HANDLE h, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return once(h, OP_DECRYPT, in, n, out, len);
}

/* All of the result comes with the end. */
static CK_RV update(CK_SESSION_HANDLE h, enum op_kind kind, const void *in, CK_ULONG n, const uint8_t *out, CK_ULONG *len)
{
	struct session *s;
	CK_RV rv = op_enter(h, kind, &s);

	if (rv != CKR_OK)
		return rv;
	rv = CKR_ARGUMENTS_BAD;
	if (len != NULL && (in != NULL || n == 0)) {
		*len = 0;
		/* a question for the length takes nothing: the data comes again */
		if (out == NULL)
			return session_leave(s, CKR_OK);
		s->op.updated = true;
		rv = op_data(&s->op, in, n);
	}
	if (rv == CKR_DATA_LEN_RANGE && kind == OP_DECRYPT)
		rv = CKR_ENCRYPTED_DATA_LEN_RANGE;
	if (rv != CKR_OK)
		op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV C_EncryptUpdate(CK_SESSION_HANDLE h, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return update(h, OP_ENCRYPT, in, n, out, len);
}

CK_RV C_DecryptUpdate(CK_SESSION_HANDLE h, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return update(h, OP_DECRYPT, in, n, out, len);
}

static CK_RV final(CK_SESSION_HANDLE h, enum op_kind kind, uint8_t *out, CK_ULONG *len)
{
	struct session *s;
	CK_RV rv = op_enter(h, kind, &s);

	if (rv != CKR_OK)
		return rv;
	if (len == NULL) {
		op_end(&s->op);
		return session_leave(s, CKR_ARGUMENTS_BAD);
	}
	return leave(s, run(&s->op, out, len), out);
}

CK_RV C_EncryptFinal(CK_SESSION_HANDLE h, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return final(h, OP_ENCRYPT, out, len);
}

CK_RV C_DecryptFinal(CK_SESSION_HANDLE h, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return final(h, OP_DECRYPT, out, len);
}
