/* RSA beyond what TPM2_Sign does: OAEP decryption, and PSS by our own encoding. The paddings that a TPM
 * cannot do are OpenSSL's, around the bare private operation (TPM2_RSA_Decrypt without a scheme). Those
 * paddings are offered by OpenSSL 3 only as functions that it calls deprecated. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/crypto.h>
#include <openssl/rsa.h>
#include "plugins/include/csm_alg.h"

struct rsa_arg {
	struct csm_plugin_key *k;
	TPM2B_PUBLIC_KEY_RSA in;
	TPMT_RSA_DECRYPT scheme;
	TPM2B_DATA label;
	TPM2B_PUBLIC_KEY_RSA out;
	bool refused; /* the TPM says that this does not decrypt */
};

/* What a ciphertext that does not open gives. libtpms says FAILURE, which also is what a TPM that broke down
 * says, but then to everything. */
static bool is_refusal(struct csm_plugin_ctx *c, TSS2_RC rc)
{
	struct t2_boot now;

	if (rc == TPM2_RC_FAILURE)
		return t2_cmd_clock(c, &now) == TSS2_RC_SUCCESS;
	return t2_rc_base(rc) == TPM2_RC_VALUE || t2_rc_base(rc) == TPM2_RC_SIZE;
}

static TSS2_RC rsa_step(struct csm_plugin_ctx *c, void *arg)
{
	struct rsa_arg *d = arg;
	struct t2_auth a = {.names = {t2_name_part(&d->k->name)}, .nnames = 1, .flags = TPMA_SESSION_ENCRYPT};
	TSS2_RC rc;

	d->refused = false;
	d->out.size = 0;
	if ((rc = t2_key_use(c, d->k)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_RSA_Decrypt_Prepare(c->sys, d->k->handle, &d->in, &d->scheme, &d->label)) !=
			TSS2_RC_SUCCESS)
		return rc;
	rc = t2_exec(c, &a, T2_TIMEOUT_MS);
	if (rc == TSS2_RC_SUCCESS) {
		rc = Tss2_Sys_RSA_Decrypt_Complete(c->sys, &d->out);
		t2_sys_wipe(c);
	}
	if (rc != TSS2_RC_SUCCESS && is_refusal(c, rc)) {
		d->refused = true;
		return TSS2_RC_SUCCESS;
	}
	return rc;
}

static const EVP_MD *md_of(enum csm_hash hash)
{
	const char *name = csm_hash_name(hash);

	return name != NULL ? EVP_get_digestbyname(name) : NULL;
}

bool t2_pss_is_ours(const struct csm_plugin_key *k, enum csm_hash hash, const uint8_t *digest,
	const struct csm_plugin_out *sig)
{
	EVP_PKEY_CTX *ctx = NULL;
	EVP_PKEY *key = NULL;
	bool ok = false;

	if (csm_tpm_public_evp(&k->pub, &key) == 0 && (ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL)) != NULL &&
		EVP_PKEY_verify_init(ctx) == 1 && EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
		EVP_PKEY_CTX_set_signature_md(ctx, md_of(hash)) == 1 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1)
		ok = EVP_PKEY_verify(ctx, sig->p, sig->len, digest, csm_hash_size(hash)) == 1;
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
	return ok;
}

static int pss_encode(const struct csm_plugin_key *k, enum csm_hash hash, const uint8_t *digest, uint8_t *em)
{
	const EVP_MD *md = md_of(hash);
	RSA *rsa = RSA_new();
	BIGNUM *e = BN_new();
	BIGNUM *n = BN_bin2bn(k->pub.unique.rsa.buffer, k->pub.unique.rsa.size, NULL);
	int r = CSM_EBACKEND;

	if (md == NULL || rsa == NULL || e == NULL || n == NULL || BN_set_word(e, 65537) != 1 ||
		RSA_set0_key(rsa, n, e, NULL) != 1)
		goto out;
	n = e = NULL;
	if (RSA_padding_add_PKCS1_PSS_mgf1(rsa, em, digest, md, md, RSA_PSS_SALTLEN_DIGEST) == 1)
		r = 0;
out:
	BN_free(n);
	BN_free(e);
	RSA_free(rsa);
	return r;
}

int t2_rsa_bare(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const uint8_t *in, size_t len,
	struct csm_plugin_out *out)
{
	struct rsa_arg a = {.k = k, .scheme.scheme = TPM2_ALG_NULL};
	int r;

	if ((k->pub.objectAttributes & TPMA_OBJECT_DECRYPT) == 0)
		return CSM_EUNSUPPORTED;
	if (len != k->pub.unique.rsa.size)
		return CSM_EINVALID;
	a.in.size = (UINT16)len;
	memcpy(a.in.buffer, in, len);
	if ((r = t2_run(c, rsa_step, &a)) != 0)
		return r;
	return a.refused ? CSM_EINVALID : t2_put_rsa(k, &a.out, out);
}

int t2_pss_raw(struct csm_plugin_ctx *c, struct csm_plugin_key *k, enum csm_hash hash, const uint8_t *digest,
	struct csm_plugin_out *sig)
{
	uint8_t em[TPM2_MAX_RSA_KEY_BYTES];
	int r;

	if ((k->pub.objectAttributes & TPMA_OBJECT_DECRYPT) == 0)
		return CSM_EUNSUPPORTED;
	if ((r = pss_encode(k, hash, digest, em)) != 0)
		return r;
	if ((r = t2_rsa_bare(c, k, em, k->pub.unique.rsa.size, sig)) != 0)
		return r == CSM_EINVALID ? CSM_EBACKEND : r;
	return t2_pss_is_ours(k, hash, digest, sig) ? 0 : CSM_EBACKEND;
}

/* OAEP decoding of what the bare operation gave; OpenSSL's runs in constant time. */
static int oaep_decode(struct rsa_arg *a, enum csm_hash hash, const uint8_t *label, size_t label_len)
{
	uint8_t em[TPM2_MAX_RSA_KEY_BYTES], plain[TPM2_MAX_RSA_KEY_BYTES];
	size_t n = a->in.size;
	const EVP_MD *md = md_of(hash);
	int len = -1;

	memset(em, 0, sizeof(em));
	if (a->out.size <= n && md != NULL) {
		memcpy(em + n - a->out.size, a->out.buffer, a->out.size);
		/* The first byte of the encoding is zero and not passed. */
		len = em[0] != 0 ? -1 :
				   RSA_padding_check_PKCS1_OAEP_mgf1(plain, sizeof(plain), em + 1, (int)n - 1, (int)n,
					   label, (int)label_len, md, md);
	}
	OPENSSL_cleanse(&a->out, sizeof(a->out));
	if (len >= 0) {
		memcpy(a->out.buffer, plain, (size_t)len);
		a->out.size = (UINT16)len;
	}
	OPENSSL_cleanse(em, sizeof(em));
	OPENSSL_cleanse(plain, sizeof(plain));
	return len >= 0 ? 0 : CSM_EINVALID;
}

int t2_decrypt(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme, const uint8_t *in,
	size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain)
{
	struct rsa_arg a = {.k = k};
	/* To a TPM a label is a string whose NUL counts; another label it does not take. */
	bool own = label_len > 0 && (label[label_len - 1] != 0 || label_len > sizeof(a.label.buffer));
	int r;

	if (scheme->kind != CSM_SCHEME_RSA_OAEP || csm_scheme_check(k->alg, scheme) != 0)
		return CSM_EINVALID;
	if ((k->use & CSM_USE_DECRYPT) == 0 || (k->pub.objectAttributes & TPMA_OBJECT_DECRYPT) == 0)
		return CSM_EUNSUPPORTED;
	if (in_len != k->pub.unique.rsa.size || label_len > 4096)
		return CSM_EINVALID;
	a.in.size = (UINT16)in_len;
	memcpy(a.in.buffer, in, in_len);
	a.scheme.scheme = own ? TPM2_ALG_NULL : TPM2_ALG_OAEP;
	if (!own) {
		a.scheme.details.oaep.hashAlg = t2_hash_alg(scheme->hash);
		a.label.size = (UINT16)label_len;
		if (label_len > 0)
			memcpy(a.label.buffer, label, label_len);
	}
	if ((r = t2_run(c, rsa_step, &a)) == 0 && a.refused)
		r = CSM_EINVALID;
	if (r == 0 && own)
		r = oaep_decode(&a, scheme->hash, label, label_len);
	if (r == 0 && a.out.size > plain->cap)
		r = CSM_ETOO_LARGE;
	if (r == 0) {
		memcpy(plain->p, a.out.buffer, a.out.size);
		plain->len = a.out.size;
	}
	OPENSSL_cleanse(&a.out, sizeof(a.out));
	return r;
}
