/* C_Sign and C_Verify, at once and in parts. A signature is one request to csmd: the message is hashed here. */
#include <stdio.h>
#include <string.h>
#include "libclient/p11/p11.h"

/* DER of a DigestInfo up to the digest: SEQUENCE { SEQUENCE { OID, NULL }, OCTET STRING }; some leave out the NULL. */
static const struct hash *digestinfo_parse(const uint8_t *in, size_t n, const uint8_t **digest)
{
	static const uint8_t oid[] = {6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2};
	static const uint8_t last[] = {1, 2, 3}; /* SHA-256, SHA-384, SHA-512 */
	static const size_t sizes[] = {32, 48, 64};

	for (size_t i = 0; i < N_ELEMS(last); i++)
		for (unsigned null = 0; null <= 2; null += 2) {
			size_t algorithm = sizeof(oid) + 1 + null, rest = 2 + algorithm + 2 + sizes[i];
			const uint8_t *p = in;

			if (n != 2 + rest || p[0] != 0x30 || p[1] != rest || p[2] != 0x30 || p[3] != algorithm ||
				memcmp(p + 4, oid, sizeof(oid)) != 0 || p[4 + sizeof(oid)] != last[i])
				continue;
			p += 4 + sizeof(oid) + 1;
			if (null != 0 && (p[0] != 5 || p[1] != 0))
				continue;
			p += null;
			if (p[0] != 4 || p[1] != sizes[i])
				continue;
			*digest = p + 2;
			return hash_by_size(sizes[i]);
		}
	return NULL;
}

/* What csmd is asked for. */
struct ask {
	const char *family; /* of the scheme */
	const struct hash *hash; /* NULL: the whole message, Ed25519 */
	const uint8_t *in;
	size_t n;
	uint8_t padded[EVP_MAX_MD_SIZE];
};

static CK_RV ask_pkcs1(const struct op *op, const uint8_t *in, size_t n, struct ask *a)
{
	a->family = "rsa-pkcs1";
	if (op->hash != NULL)
		return CKR_OK;
	if (n + 11 > op->info->alg->bits / 8)
		return CKR_DATA_LEN_RANGE;
	/* csm signs no bytes that it cannot tell to be a digest */
	a->hash = digestinfo_parse(in, n, &a->in);
	if (a->hash == NULL)
		return CKR_DATA_INVALID;
	a->n = a->hash->size;
	return CKR_OK;
}

/* ECDSA takes a digest as a number of at most the curve's bits. So one of another length than csm's hashes have is signed
 * as the digest of the hash that is as long as the curve, with zeros before it or without its last bytes. */
static CK_RV ask_ecdsa(const struct op *op, const uint8_t *in, size_t n, struct ask *a)
{
	size_t whole = op->info->alg->field > 64 ? 64 : op->info->alg->field;

	a->family = "ecdsa";
	if (op->hash != NULL)
		return CKR_OK;
	a->hash = hash_by_size(n);
	if (a->hash != NULL)
		return CKR_OK;
	if (n == 0 || n > 1024 || (n > whole && op->info->alg->field > 64))
		return CKR_DATA_LEN_RANGE;
	a->hash = hash_by_size(whole);
	a->n = whole;
	if (n > whole)
		return CKR_OK;
	memset(a->padded, 0, whole - n);
	memcpy(a->padded + whole - n, in, n);
	a->in = a->padded;
	return CKR_OK;
}

static CK_RV ask_for(const struct op *op, const uint8_t *in, size_t n, struct ask *a)
{
	*a = (struct ask){.hash = op->hash, .in = in, .n = n};
	switch (op->mech->kind) {
	case MECH_RSA_PKCS:
		return ask_pkcs1(op, in, n, a);
	case MECH_ECDSA:
		return ask_ecdsa(op, in, n, a);
	case MECH_RSA_PSS:
		a->family = "rsa-pss";
		return n == op->hash->size ? CKR_OK : CKR_DATA_LEN_RANGE;
	case MECH_EDDSA:
		a->family = "ed25519";
		return CKR_OK;
	default:
		return CKR_FUNCTION_FAILED;
	}
}

static CK_RV sign_by_csmd(const struct op *op, const struct ask *a, uint8_t *out, size_t *len)
{
	struct csm_request *req = NULL;
	struct csm_reply *reply;
	char scheme[32];
	const void *sig;
	CK_RV rv = CKR_OK;
	size_t n = 0;
	int r;

	(void)snprintf(scheme, sizeof(scheme), "%s-%s", a->family, a->hash == NULL ? "" : a->hash->suffix);
	r = key_request("key.sign", op->object->key, op->info, &req);
	if (r == 0)
		r = csm_request_str(req, "scheme", a->hash == NULL ? a->family : scheme);
	if (r == 0)
		r = csm_request_bin(req, a->hash == NULL ? "message" : "digest", a->in, a->n);
	r = key_send(r, req, op->object->key, &reply);
	if (r != 0)
		return p11_use_rv(r, CKR_FUNCTION_FAILED);
	sig = csm_view_bin(csm_reply_view(reply), "signature", &n);
	if (sig == NULL || n > *len)
		rv = CKR_DEVICE_ERROR;
	else
		memcpy(out, sig, n);
	*len = n;
	csm_reply_free(reply);
	return rv;
}

/* The signature as the standard has it: alg_signature_len bytes. */
static CK_RV sign(struct op *op, uint8_t *out)
{
	uint8_t digest[EVP_MAX_MD_SIZE], raw[CSM_SIGNATURE_BYTES];
	size_t n, len = sizeof(raw), want = alg_signature_len(op->info->alg);
	const uint8_t *in;
	struct ask a;
	CK_RV rv = op_input(op, &in, &n, digest);

	if (rv == CKR_OK)
		rv = ask_for(op, in, n, &a);
	if (rv == CKR_OK)
		rv = sign_by_csmd(op, &a, raw, &len);
	if (rv != CKR_OK)
		return rv;
	if (op->mech->kind == MECH_ECDSA)
		return pub_ecdsa_plain(raw, len, out, want / 2) ? CKR_OK : CKR_DEVICE_ERROR;
	if (len != want)
		return CKR_DEVICE_ERROR;
	memcpy(out, raw, len);
	return CKR_OK;
}

CK_RV C_SignInit(CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
{
	return op_init(h, OP_SIGN, m, key);
}

CK_RV C_VerifyInit(CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
{
	return op_init(h, OP_VERIFY, m, key);
}

static size_t signature_len(const struct op *op)
{
	return alg_signature_len(op->info->alg);
}

static const struct op_result signature = {OP_SIGN, signature_len, sign};

CK_RV C_Sign(CK_SESSION_HANDLE h, CK_BYTE_PTR data, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return op_once(&signature, h, data, n, out, len);
}

CK_RV C_SignUpdate(CK_SESSION_HANDLE h, CK_BYTE_PTR part, CK_ULONG n)
{
	return op_update(h, OP_SIGN, part, n);
}

CK_RV C_VerifyUpdate(CK_SESSION_HANDLE h, CK_BYTE_PTR part, CK_ULONG n)
{
	return op_update(h, OP_VERIFY, part, n);
}

CK_RV C_SignFinal(CK_SESSION_HANDLE h, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return op_final(&signature, h, out, len);
}

static CK_RV verify(struct op *op, const uint8_t *sig, CK_ULONG sig_len)
{
	uint8_t digest[EVP_MAX_MD_SIZE] = {0};
	const uint8_t *in;
	size_t n;
	CK_RV rv = op_input(op, &in, &n, digest);

	return rv == CKR_OK ? pub_verify(op, in, n, sig, sig_len) : rv;
}

CK_RV C_Verify(CK_SESSION_HANDLE h, CK_BYTE_PTR data, CK_ULONG n, CK_BYTE_PTR sig, CK_ULONG sig_len)
{
	struct session *s;
	CK_RV rv = op_enter(h, OP_VERIFY, &s);

	if (rv != CKR_OK)
		return rv;
	rv = CKR_ARGUMENTS_BAD;
	if (sig == NULL || (data == NULL && n != 0))
		goto end;
	rv = CKR_OPERATION_ACTIVE;
	if (s->op.updated)
		goto end;
	rv = op_data(&s->op, data, n);
	if (rv == CKR_OK)
		rv = verify(&s->op, sig, sig_len);
end:
	op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV C_VerifyFinal(CK_SESSION_HANDLE h, CK_BYTE_PTR sig, CK_ULONG sig_len)
{
	struct session *s;
	CK_RV rv = op_enter(h, OP_VERIFY, &s);

	if (rv != CKR_OK)
		return rv;
	rv = sig == NULL ? CKR_ARGUMENTS_BAD : verify(&s->op, sig, sig_len);
	op_end(&s->op);
	return session_leave(s, rv);
}
