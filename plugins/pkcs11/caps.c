/* What the token can: asked once, when it is first there. */
#include <string.h>
#include "plugins/pkcs11/pkcs11.h"

static bool offers(struct csm_plugin_ctx *ctx, CK_MECHANISM_TYPE type, CK_FLAGS flags, CK_MECHANISM_INFO *ret)
{
	CK_MECHANISM_INFO info = {0};

	if (ctx->f->C_GetMechanismInfo(ctx->slot, type, &info) != CKR_OK || (info.flags & flags) != flags)
		return false;
	if (ret != NULL)
		*ret = info;
	return true;
}

static uint32_t algs_between(const CK_MECHANISM_INFO *a, const CK_MECHANISM_INFO *b, enum csm_alg first,
	enum csm_alg last, const unsigned *bits)
{
	uint32_t algs = 0;

	for (unsigned alg = first; alg <= last; alg++) {
		unsigned n = bits[alg - first];

		if (a->ulMinKeySize <= n && n <= a->ulMaxKeySize && b->ulMinKeySize <= n && n <= b->ulMaxKeySize)
			algs |= 1u << alg;
	}
	return algs;
}

/* OAEP with SHA-256 is not told by any flag: ask for an encryption with a public key that is made for this, of this
 * session only. A token that does not let us ask is asked anew by each key. */
static bool oaep_sha256(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session)
{
	CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
	CK_KEY_TYPE type = CKK_RSA;
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_BYTE e[] = {1, 0, 1}, n[256];
	CK_ATTRIBUTE key[] = {
		{CKA_CLASS, &class, sizeof(class)}, {CKA_KEY_TYPE, &type, sizeof(type)}, {CKA_TOKEN, &no, sizeof(no)},
		{CKA_PRIVATE, &no, sizeof(no)}, {CKA_ENCRYPT, &yes, sizeof(yes)}, {CKA_MODULUS, n, sizeof(n)},
		{CKA_PUBLIC_EXPONENT, e, sizeof(e)},
	};
	CK_RSA_PKCS_OAEP_PARAMS oaep;
	CK_MECHANISM mech = {CKM_RSA_PKCS_OAEP, &oaep, sizeof(oaep)};
	CK_BYTE in = 0, out[256];
	CK_ULONG out_len = sizeof(out);
	CK_OBJECT_HANDLE h = CK_INVALID_HANDLE;
	CK_RV rv;

	memset(n, 0xc5, sizeof(n)); /* odd, and of 2048 bits: nobody has to open what is encrypted */
	p11_oaep(CSM_HASH_SHA256, NULL, 0, &oaep);
	if (ctx->f->C_CreateObject(session, key, sizeof(key) / sizeof(key[0]), &h) != CKR_OK)
		return true;
	if ((rv = ctx->f->C_EncryptInit(session, &mech, h)) == CKR_OK && ctx->f->C_Encrypt != NULL)
		(void)ctx->f->C_Encrypt(session, &in, 1, out, &out_len); /* end the operation */
	(void)ctx->f->C_DestroyObject(session, h);
	return !p11_unsupported(rv);
}

/* What the configuration leaves of it: not all libraries can do what they say. */
static uint32_t algs_allowed(const struct csm_plugin_ctx *ctx)
{
	const char *at = ctx->host->config != NULL ? ctx->host->config(ctx->host->arg, "algs") : NULL;
	uint32_t algs = 0;
	enum csm_alg alg;
	size_t n;

	for (; at != NULL && *at != '\0'; at += n) {
		n = strcspn(at, ", ");
		if (n > 0 && csm_alg_parse((struct csm_str){at, n}, &alg) == 0)
			algs |= 1u << alg;
		n += strspn(at + n, ", ");
	}
	return algs != 0 ? algs : UINT32_MAX;
}

void p11_caps_read(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session)
{
	static const unsigned ec_bits[] = {256, 384, 521}, rsa_bits[] = {2048, 3072, 4096};
	struct csm_plugin_caps caps = {.uses = CSM_USE_SIGN, .protection = "hsm"};
	CK_MECHANISM_INFO make, sign;

	if (offers(ctx, CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR, &make) && offers(ctx, CKM_ECDSA, CKF_SIGN, &sign)) {
		caps.algs |= algs_between(&make, &sign, CSM_ALG_P256, CSM_ALG_P521, ec_bits);
		if (offers(ctx, CKM_ECDH1_DERIVE, CKF_DERIVE, NULL))
			caps.uses |= CSM_USE_DERIVE;
	}
	if (offers(ctx, CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR, &make) &&
		offers(ctx, CKM_RSA_PKCS, CKF_SIGN, &sign)) {
		caps.algs |= algs_between(&make, &sign, CSM_ALG_RSA2048, CSM_ALG_RSA4096, rsa_bits);
		if (offers(ctx, CKM_RSA_PKCS_OAEP, CKF_DECRYPT, NULL) && oaep_sha256(ctx, session))
			caps.uses |= CSM_USE_DECRYPT;
	}
	if (offers(ctx, CKM_EC_EDWARDS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR, NULL) &&
		offers(ctx, CKM_EDDSA, CKF_SIGN, NULL))
		caps.algs |= 1u << CSM_ALG_ED25519;
	caps.algs &= algs_allowed(ctx);
	ctx->caps = caps;
}
