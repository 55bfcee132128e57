/* Decryption, key agreement, random bytes. */
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "plugins/pkcs11/pkcs11.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define RSA_BYTES_MAX 512u

/* ---- RSA-OAEP ---- */

/* What does not open is told in many ways, CKR_GENERAL_ERROR and CKR_FUNCTION_FAILED among them: once the operation has
 * begun, all of them but those that speak of the device are the one answer CKR_ENCRYPTED_DATA_INVALID. */
static CK_RV decrypt_in(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, CK_MECHANISM *mech,
	const uint8_t *in, size_t in_len, uint8_t plain[static P11_OUT_MAX], size_t *n)
{
	CK_ULONG len = P11_OUT_MAX;
	CK_RV rv;

	if ((rv = ctx->f->C_DecryptInit(session, mech, h)) != CKR_OK)
		return rv;
	rv = ctx->f->C_Decrypt(session, (CK_BYTE_PTR)(uintptr_t)in, in_len, plain, &len);
	if (rv == CKR_OK && len <= RSA_BYTES_MAX)
		*n = len;
	else if (rv == CKR_OK)
		rv = CKR_BUFFER_TOO_SMALL;
	else if (!p11_lost(rv) && !p11_stale(rv) && rv != CKR_DEVICE_ERROR && rv != CKR_HOST_MEMORY &&
		rv != CKR_DEVICE_MEMORY)
		rv = CKR_ENCRYPTED_DATA_INVALID;
	return rv;
}

static bool seal_for(EVP_PKEY *pkey, enum csm_hash hash, const uint8_t *label, size_t label_len, const uint8_t *in,
	size_t in_len, uint8_t out[static RSA_BYTES_MAX], size_t *n)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	EVP_MD *md = EVP_MD_fetch(NULL, csm_hash_name(hash), NULL);
	uint8_t *own = label_len > 0 ? OPENSSL_memdup(label, label_len) : NULL;
	bool ok = c != NULL && md != NULL && EVP_PKEY_encrypt_init(c) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_oaep_md(c, md) == 1 && EVP_PKEY_CTX_set_rsa_mgf1_md(c, md) == 1;

	if (ok && label_len > 0) {
		ok = own != NULL && EVP_PKEY_CTX_set0_rsa_oaep_label(c, own, (int)label_len) == 1;
		if (ok)
			own = NULL;
	}
	*n = RSA_BYTES_MAX;
	ok = ok && EVP_PKEY_encrypt(c, out, n, in, in_len) == 1;
	OPENSSL_free(own);
	EVP_MD_free(md);
	EVP_PKEY_CTX_free(c);
	ERR_clear_error();
	return ok;
}

int p11_opens(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, EVP_PKEY *pkey,
	enum csm_hash hash, const uint8_t *label, size_t label_len, CK_RV *rv)
{
	CK_RSA_PKCS_OAEP_PARAMS oaep;
	CK_MECHANISM mech = {CKM_RSA_PKCS_OAEP, &oaep, sizeof(oaep)};
	uint8_t text[16], sealed[RSA_BYTES_MAX], plain[P11_OUT_MAX];
	size_t sealed_len, n = 0;

	randombytes_buf(text, sizeof(text));
	if (!seal_for(pkey, hash, label, label_len, text, sizeof(text), sealed, &sealed_len))
		return CSM_ENOMEM;
	p11_oaep(hash, label, label_len, &oaep);
	if ((*rv = decrypt_in(ctx, session, h, &mech, sealed, sealed_len, plain, &n)) == CKR_OK)
		return n == sizeof(text) && memcmp(plain, text, n) == 0 ? 0 : CSM_ETAMPERED;
	return *rv == CKR_ENCRYPTED_DATA_INVALID ? CSM_EUNSUPPORTED : p11_error(*rv);
}

static unsigned label_kind(struct csm_bin label)
{
	if (label.n == 0)
		return P11_LABEL_NONE;
	return label.p[label.n - 1] == 0 ? P11_LABEL_ZERO_ENDED : P11_LABEL_OTHER;
}

static int decrypt_once(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, enum csm_hash hash,
	struct csm_bin label, struct csm_bin in, uint8_t plain[static P11_OUT_MAX], size_t *n, CK_RV *rv)
{
	CK_RSA_PKCS_OAEP_PARAMS oaep;
	CK_MECHANISM mech = {CKM_RSA_PKCS_OAEP, &oaep, sizeof(oaep)};
	bool *opens = &key->opens[hash][label_kind(label)];
	struct p11_use use;
	int r;

	*rv = CKR_OK;
	if ((r = p11_key_begin(ctx, key, &use)) != 0)
		return r;
	p11_oaep(hash, label.p, label.n, &oaep);
	if ((*rv = decrypt_in(ctx, use.session, key->h, &mech, in.p, in.n, plain, n)) != CKR_OK)
		p11_renew(ctx, &use);
	r = *rv == CKR_ENCRYPTED_DATA_INVALID ? CSM_EINVALID : p11_error(*rv);
	if (r == 0)
		*opens = true;
	/* Is it the ciphertext, or does the token not do this at all? */
	if (r == CSM_EINVALID && !*opens) {
		r = p11_opens(ctx, use.session, key->h, key->pkey, hash, label.p, label.n, rv);
		if (r != 0)
			p11_renew(ctx, &use);
		*opens = r == 0;
		r = r == 0 ? CSM_EINVALID : r;
	}
	if (*rv == CKR_ENCRYPTED_DATA_INVALID)
		*rv = CKR_OK;
	p11_end(ctx, &use, *rv);
	if (p11_stale(*rv))
		key->generation = 0;
	return r;
}

int p11_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *out)
{
	struct csm_bin sealed = {in, in_len}, with = {label, label_len};
	CSM_WIPED(plain, P11_OUT_MAX);
	size_t n = 0;
	CK_RV rv;
	int r;

	if ((key->use & CSM_USE_DECRYPT) == 0 || csm_scheme_check(key->alg, scheme) != 0 ||
		scheme->kind != CSM_SCHEME_RSA_OAEP)
		return CSM_EUNSUPPORTED;
	if (in_len != (size_t)EVP_PKEY_get_size(key->pkey) || label_len > INT32_MAX)
		return CSM_EINVALID;
	r = decrypt_once(ctx, key, scheme->hash, with, sealed, plain, &n, &rv);
	if (r != 0 && (p11_lost(rv) || p11_stale(rv)))
		r = decrypt_once(ctx, key, scheme->hash, with, sealed, plain, &n, &rv);
	csm_wipe_stack(8192);
	return r != 0 ? r : p11_out(out, plain, n);
}

/* ---- ECDH ---- */

/* The derived key is an object of the session; its value is read, and it goes again. */
static CK_RV derive_in(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE base, uint8_t *point,
	size_t point_len, uint8_t *out, size_t field)
{
	CK_OBJECT_CLASS class = CKO_SECRET_KEY;
	CK_KEY_TYPE type = CKK_GENERIC_SECRET;
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_ULONG want = field;
	CK_ATTRIBUTE template[] = {
		{CKA_CLASS, &class, sizeof(class)},
		{CKA_KEY_TYPE, &type, sizeof(type)},
		{CKA_TOKEN, &no, sizeof(no)},
		{CKA_SENSITIVE, &no, sizeof(no)},
		{CKA_EXTRACTABLE, &yes, sizeof(yes)},
		{CKA_VALUE_LEN, &want, sizeof(want)},
	};
	CK_ECDH1_DERIVE_PARAMS ecdh = {.kdf = CKD_NULL, .ulPublicDataLen = point_len, .pPublicData = point};
	CK_MECHANISM mech = {CKM_ECDH1_DERIVE, &ecdh, sizeof(ecdh)};
	CK_OBJECT_HANDLE h = CK_INVALID_HANDLE;
	CK_RV rv, end;
	size_t n;

	if ((rv = ctx->f->C_DeriveKey(session, &mech, base, template, N_ELEMS(template), &h)) != CKR_OK)
		return rv;
	n = p11_attribute(ctx, session, h, CKA_VALUE, out, field, &rv);
	end = ctx->f->C_DestroyObject(session, h);
	if (rv == CKR_OK && n != field)
		rv = CKR_DATA_LEN_RANGE;
	return rv != CKR_OK ? rv : end;
}

/* The point bare, as the standard has it now; in an OCTET STRING for those that want it so. */
static CK_RV derive_either(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE base,
	const uint8_t *point, size_t point_len, uint8_t *out, size_t field)
{
	uint8_t wrapped[P11_POINT_MAX + 3];
	size_t head = point_len < 128 ? 2 : 3;
	CK_RV rv;

	memcpy(wrapped + head, point, point_len);
	wrapped[0] = 0x04;
	wrapped[1] = 0x81;
	wrapped[head - 1] = (uint8_t)point_len;
	rv = derive_in(ctx, session, base, wrapped + head, point_len, out, field);
	if (p11_unsupported(rv))
		rv = derive_in(ctx, session, base, wrapped, point_len + head, out, field);
	return rv;
}

/* The same agreement from the other side: with a key of ours and the public half of the token's. */
static int expected(EVP_PKEY *theirs, EVP_PKEY *ours, uint8_t *out, size_t field)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_pkey(NULL, ours, NULL);
	size_t n = field;
	int r = CSM_EBACKEND;

	if (c != NULL && EVP_PKEY_derive_init(c) == 1 && EVP_PKEY_derive_set_peer(c, theirs) == 1 &&
		EVP_PKEY_derive(c, out, &n) == 1 && n == field)
		r = 0;
	EVP_PKEY_CTX_free(c);
	return r;
}

int p11_derives(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, enum csm_alg alg,
	EVP_PKEY *pkey, CK_RV *rv)
{
	static const char *const groups[] = {"P-256", "P-384", "P-521"};
	EVP_PKEY *ours = EVP_PKEY_Q_keygen(NULL, NULL, "EC", groups[alg]);
	CSM_WIPED(got, P11_FIELD_MAX);
	CSM_WIPED(want, P11_FIELD_MAX);
	uint8_t point[P11_POINT_MAX];
	size_t field = p11_field(alg), n;
	int r = CSM_ENOMEM;

	if (ours == NULL || (n = p11_point(ours, point)) == 0 || (r = expected(pkey, ours, want, field)) != 0)
		goto out;
	if ((*rv = derive_either(ctx, session, h, point, n, got, field)) != CKR_OK)
		r = p11_error(*rv);
	else if (CRYPTO_memcmp(got, want, field) != 0)
		r = CSM_ETAMPERED;
out:
	EVP_PKEY_free(ours);
	ERR_clear_error();
	return r;
}

static int derive_once(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *point, size_t n,
	uint8_t *out, CK_RV *rv)
{
	struct p11_use use;
	int r;

	*rv = CKR_OK;
	if ((r = p11_key_begin(ctx, key, &use)) != 0)
		return r;
	/* A key that was just found has to prove that it is ours before anything is agreed with it. */
	if (!key->derives)
		r = p11_derives(ctx, use.session, key->h, key->alg, key->pkey, rv);
	key->derives = key->derives || r == 0;
	if (r == 0) {
		*rv = derive_either(ctx, use.session, key->h, point, n, out, p11_field(key->alg));
		r = p11_error(*rv);
	}
	p11_end(ctx, &use, *rv);
	if (p11_stale(*rv) || r == CSM_ETAMPERED)
		key->generation = 0;
	return r;
}

int p11_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared)
{
	CSM_WIPED(made, P11_FIELD_MAX);
	uint8_t point[P11_POINT_MAX];
	EVP_PKEY *other = NULL;
	size_t n;
	CK_RV rv;
	int r;

	if ((key->use & CSM_USE_DERIVE) == 0)
		return CSM_EUNSUPPORTED;
	if ((r = p11_spki_read(key->alg, peer, peer_len, &other)) != 0)
		return r;
	n = p11_point(other, point);
	EVP_PKEY_free(other);
	if (n != 2 * p11_field(key->alg) + 1)
		return CSM_EINVALID;
	r = derive_once(ctx, key, point, n, made, &rv);
	if (r != 0 && (p11_lost(rv) || p11_stale(rv)))
		r = derive_once(ctx, key, point, n, made, &rv);
	csm_wipe_stack(8192);
	return r != 0 ? r : p11_out(shared, made, p11_field(key->alg));
}

/* ---- random ---- */

int p11_random(struct csm_plugin_ctx *ctx, uint8_t *p, size_t len)
{
	struct p11_use use;
	CK_RV rv;
	int r;

	if (len == 0)
		return 0;
	if ((r = p11_begin(ctx, &use)) != 0)
		return r;
	rv = ctx->f->C_GenerateRandom(use.session, p, len);
	p11_end(ctx, &use, rv);
	return p11_error(rv);
}
