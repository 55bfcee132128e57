/* The endorsement key (TCG EK Credential Profile 2.x): a primary key that the TPM makes again from its seed whenever it
 * is asked to, its certificate in an NV index of the maker's; and the proof, by TPM2_ActivateCredential, that the
 * attestation key is in the TPM that has it. */
#include "plugins/tpm2/tpm2.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <tss2/tss2_mu.h>
#include "proto-spec/limits.h"

#define NV_PIECE 512u
#define EK_LOW 0x300B2u  /* fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt */
#define EK_HIGH 0x300F2u /* and userWithAuth */

/* PolicySecret(TPM_RH_ENDORSEMENT); the low range's templates have it, and the one of the high range is that or the owner's. */
static const uint8_t policy_a[32] = {0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7,
	0x24, 0xFD, 0x52, 0xD7, 0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA};
static const uint8_t policy_b384[48] = {0xB2, 0x6E, 0x7D, 0x28, 0xD1, 0x1A, 0x50, 0xBC, 0x53, 0xD8, 0x82, 0xBC, 0xF5, 0xFD, 0x3A,
	0x1A, 0x07, 0x41, 0x48, 0xBB, 0x35, 0xD3, 0xB4, 0xE4, 0xCB, 0x1C, 0x0A, 0xD9, 0xBD, 0xE4, 0x19, 0xCA, 0xCB, 0x47, 0xBA,
	0x09, 0x69, 0x96, 0x46, 0x15, 0x0F, 0x9F, 0xC0, 0x00, 0xF3, 0xF8, 0x0E, 0x12};

/* In the order in which they are taken, if there is a certificate. */
static const struct kind {
	TPMI_RH_NV_INDEX index;
	TPMI_ALG_PUBLIC type;
	TPMI_ECC_CURVE curve;
	bool low;
} kinds[] = {
	{0x01C0000A, TPM2_ALG_ECC, TPM2_ECC_NIST_P256, true},
	{0x01C00002, TPM2_ALG_RSA, 0, true},
	{0x01C00016, TPM2_ALG_ECC, TPM2_ECC_NIST_P384, false},
};

static void template_make(const struct kind *k, TPMT_PUBLIC *t)
{
	TPMT_SYM_DEF_OBJECT sym = {.algorithm = TPM2_ALG_AES, .keyBits.aes = k->low ? 128 : 256, .mode.aes = TPM2_ALG_CFB};

	memset(t, 0, sizeof(*t));
	t->type = k->type;
	t->nameAlg = k->low ? TPM2_ALG_SHA256 : TPM2_ALG_SHA384;
	t->objectAttributes = k->low ? EK_LOW : EK_HIGH;
	t->authPolicy.size = k->low ? sizeof(policy_a) : sizeof(policy_b384);
	memcpy(t->authPolicy.buffer, k->low ? policy_a : policy_b384, t->authPolicy.size);
	if (k->type == TPM2_ALG_ECC) {
		t->parameters.eccDetail.symmetric = sym;
		t->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
		t->parameters.eccDetail.curveID = k->curve;
		t->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
		t->unique.ecc.x.size = t->unique.ecc.y.size = k->low ? 32 : 0;
	} else {
		t->parameters.rsaDetail.symmetric = sym;
		t->parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
		t->parameters.rsaDetail.keyBits = 2048;
		t->unique.rsa.size = 256;
	}
}

/* ---- the certificate ---- */

static TSS2_RC nv_piece(struct csm_plugin_ctx *c, TPMI_RH_NV_INDEX index, const TPM2B_NAME *name, uint8_t *out, uint16_t off,
	uint16_t n)
{
	struct t2_auth a = {.names = {t2_name_part(name), t2_name_part(name)}, .nnames = 2};
	TPM2B_MAX_NV_BUFFER buf = {0};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_NV_Read_Prepare(c->sys, index, index, n, off)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_NV_Read_Complete(c->sys, &buf)) != TSS2_RC_SUCCESS)
		return rc;
	if (buf.size != n)
		return T2_RC_BAD_ANSWER;
	memcpy(out + off, buf.buffer, n);
	return TSS2_RC_SUCCESS;
}

/* *len 0: there is no such index, or it is not to be read. */
static TSS2_RC nv_all(struct csm_plugin_ctx *c, TPMI_RH_NV_INDEX index, uint8_t out[static CSM_EK_CERT_MAX], size_t *len)
{
	TPM2B_NV_PUBLIC pub = {0};
	TPM2B_NAME name = {0};
	TSS2_RC rc;

	*len = 0;
	if ((rc = Tss2_Sys_NV_ReadPublic_Prepare(c->sys, index)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_NV_ReadPublic_Complete(c->sys, &pub, &name)) != TSS2_RC_SUCCESS)
		return t2_rc_base(rc) == TPM2_RC_HANDLE ? TSS2_RC_SUCCESS : rc;
	if (pub.nvPublic.dataSize > CSM_EK_CERT_MAX || (pub.nvPublic.attributes & TPMA_NV_AUTHREAD) == 0 ||
		(pub.nvPublic.attributes & TPMA_NV_WRITTEN) == 0)
		return TSS2_RC_SUCCESS;
	for (size_t off = 0; off < pub.nvPublic.dataSize; off += NV_PIECE) {
		size_t n = pub.nvPublic.dataSize - off < NV_PIECE ? pub.nvPublic.dataSize - off : NV_PIECE;

		rc = nv_piece(c, index, &name, out, (uint16_t)off, (uint16_t)n);
		/* Locked, or for the owner alone: as if it were not there. */
		if (rc >= TPM2_RC_NV_RANGE && rc <= TPM2_RC_NV_DEFINED)
			return TSS2_RC_SUCCESS;
		if (rc != TSS2_RC_SUCCESS)
			return rc;
	}
	*len = pub.nvPublic.dataSize;
	return TSS2_RC_SUCCESS;
}

/* What is behind the certificate in its index is filling. Does it certify this key? */
static bool is_certified(const TPMT_PUBLIC *pub, const uint8_t *p, size_t n, size_t *len)
{
	const uint8_t *at = p;
	X509 *x = d2i_X509(NULL, &at, (long)n);
	EVP_PKEY *key = NULL;
	bool same = x != NULL && csm_tpm_public_evp(pub, &key) == 0 && X509_get0_pubkey(x) != NULL &&
		EVP_PKEY_eq(X509_get0_pubkey(x), key) == 1;

	*len = (size_t)(at - p);
	EVP_PKEY_free(key);
	X509_free(x);
	return same;
}

/* ---- the key ---- */

/* Into the TPM, as c->loose; t2_room takes it out again. */
static TSS2_RC ek_make(struct csm_plugin_ctx *c, const TPMT_PUBLIC *template, TPMT_PUBLIC *pub, TPM2B_NAME *name)
{
	static const uint8_t endorsement[4] = {0x40, 0, 0, 0x0b};
	struct t2_auth a = {.names = {{endorsement, 4}}, .nnames = 1, .flags = TPMA_SESSION_DECRYPT};
	TPM2_HANDLE h = 0;
	TSS2_RC rc;

	if ((rc = t2_room(c, 1, false)) != TSS2_RC_SUCCESS ||
		(rc = t2_cmd_create_primary(c, &a, TPM2_RH_ENDORSEMENT, template, &h, pub, name)) != TSS2_RC_SUCCESS)
		return rc;
	c->loose = h;
	return TSS2_RC_SUCCESS;
}

static TSS2_RC loose_flush(struct csm_plugin_ctx *c)
{
	TSS2_RC rc = c->loose != 0 ? t2_cmd_flush(c, c->loose) : TSS2_RC_SUCCESS;

	if (!t2_rc_is_transport(rc))
		c->loose = 0;
	return t2_rc_is_transport(rc) ? rc : TSS2_RC_SUCCESS;
}

void t2_ek_forget(struct csm_plugin_ctx *c)
{
	free(c->ek.cert);
	memset(&c->ek, 0, sizeof(c->ek));
}

/* The key of this kind; with its certificate, if that is `cert` bytes at p. */
static TSS2_RC ek_take(struct csm_plugin_ctx *c, const struct kind *k, const uint8_t *p, size_t cert)
{
	struct t2_ek ek = {.known = true};
	size_t len = 0;
	TSS2_RC rc;

	template_make(k, &ek.template);
	if ((rc = ek_make(c, &ek.template, &ek.pub, &ek.name)) != TSS2_RC_SUCCESS || (rc = loose_flush(c)) != TSS2_RC_SUCCESS)
		return rc;
	if (cert == 0)
		ek.missing = "the TPM holds no certificate of an endorsement key";
	else if (!is_certified(&ek.pub, p, cert, &len))
		ek.missing = "the certificate in the TPM is of another key than the one that its template gives";
	else if ((ek.cert = malloc(len)) == NULL)
		ek.missing = "there was no memory for the certificate of the endorsement key";
	if (ek.cert != NULL) {
		memcpy(ek.cert, p, len);
		ek.cert_len = len;
	}
	t2_ek_forget(c);
	c->ek = ek;
	return TSS2_RC_SUCCESS;
}

static TSS2_RC look(struct csm_plugin_ctx *c)
{
	uint8_t cert[CSM_EK_CERT_MAX];
	size_t len;
	TSS2_RC rc;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if ((rc = nv_all(c, kinds[i].index, cert, &len)) != TSS2_RC_SUCCESS)
			return rc;
		if (len == 0)
			continue;
		if ((rc = ek_take(c, &kinds[i], cert, len)) != TSS2_RC_SUCCESS)
			return rc;
		if (c->ek.cert != NULL)
			return TSS2_RC_SUCCESS;
	}
	/* One whose certificate does not fit is still the key of this TPM. */
	if (c->ek.known)
		return TSS2_RC_SUCCESS;
	return ek_take(c, &kinds[(c->props.algs & 1u << CSM_ALG_P256) != 0 ? 0 : 1], NULL, 0);
}

TSS2_RC t2_ek_look(struct csm_plugin_ctx *c)
{
	TSS2_RC rc;

	if (c->ek.known)
		return TSS2_RC_SUCCESS;
	rc = look(c);
	/* Its authValue is not ours to know; the statement says so. It does not count towards lockout. */
	if (t2_rc_base(rc) == TPM2_RC_BAD_AUTH || t2_rc_base(rc) == TPM2_RC_HIERARCHY) {
		t2_ek_forget(c);
		c->ek = (struct t2_ek){.known = true, .absent = true,
			.missing = "the endorsement hierarchy wants an authorisation value, or is disabled"};
		rc = TSS2_RC_SUCCESS;
	}
	if (rc != TSS2_RC_SUCCESS)
		t2_ek_forget(c);
	return rc;
}

/* ---- activation ---- */

struct activate_arg {
	const struct csm_plugin_credential *cred;
	TPM2B_ID_OBJECT blob;
	TPM2B_ENCRYPTED_SECRET secret;
	TPM2B_DIGEST info;
	int r;
};

static TSS2_RC policy_start(struct csm_plugin_ctx *c, TPM2_HANDLE *ret)
{
	static const TPMT_SYM_DEF none = {.algorithm = TPM2_ALG_NULL};
	TPM2B_NONCE caller = {.size = T2_NONCE_LEN}, tpm = {0};
	TPM2B_ENCRYPTED_SECRET salt = {0};
	TSS2_RC rc = T2_RC_CRYPTO;

	if (RAND_bytes(caller.buffer, caller.size) != 1)
		return rc;
	/* It has no key of its own: the command that it lets through is authorised by our salted session too. */
	if ((rc = Tss2_Sys_StartAuthSession_Prepare(c->sys, TPM2_RH_NULL, TPM2_RH_NULL, &caller, &salt, TPM2_SE_POLICY, &none,
		     TPM2_ALG_SHA256)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS)
		return rc;
	return Tss2_Sys_StartAuthSession_Complete(c->sys, ret, &tpm);
}

static TSS2_RC policy_secret(struct csm_plugin_ctx *c, TPM2_HANDLE session)
{
	const uint8_t names[2][4] = {{0x40, 0, 0, 0x0b},
		{(uint8_t)(session >> 24), (uint8_t)(session >> 16), (uint8_t)(session >> 8), (uint8_t)session}};
	struct t2_auth a = {.names = {{names[0], 4}, {names[1], 4}}, .nnames = 2};
	TPM2B_NONCE nonce = {0};
	TPM2B_DIGEST cphash = {0};
	TPM2B_NONCE ref = {0};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_PolicySecret_Prepare(c->sys, TPM2_RH_ENDORSEMENT, session, &nonce, &cphash, &ref, 0)) ==
		TSS2_RC_SUCCESS)
		rc = t2_exec(c, &a, T2_TIMEOUT_MS);
	return rc;
}

static TSS2_RC activate(struct csm_plugin_ctx *c, struct activate_arg *s, TPM2_HANDLE second)
{
	struct t2_auth a = {.names = {t2_name_part(&c->ak->name), t2_name_part(&c->ek.name)}, .nnames = 2,
		.flags = TPMA_SESSION_ENCRYPT, .second = second};
	TSS2_RC rc;

	s->info.size = 0;
	if ((rc = Tss2_Sys_ActivateCredential_Prepare(c->sys, c->ak->handle, c->loose, &s->blob, &s->secret)) !=
			TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS)
		return rc;
	rc = Tss2_Sys_ActivateCredential_Complete(c->sys, &s->info);
	t2_sys_wipe(c);
	return rc;
}

/* With both keys in the TPM. */
static TSS2_RC activate_loaded(struct csm_plugin_ctx *c, struct activate_arg *s)
{
	TPM2_HANDLE policy = 0;
	TSS2_RC rc;

	if ((c->ek.template.objectAttributes & TPMA_OBJECT_USERWITHAUTH) != 0)
		return activate(c, s, TPM2_RH_PW);
	if ((rc = policy_start(c, &policy)) != TSS2_RC_SUCCESS)
		return rc;
	if ((rc = policy_secret(c, policy)) == TSS2_RC_SUCCESS)
		rc = activate(c, s, policy);
	/* The one that was used up is gone. */
	if (rc != TSS2_RC_SUCCESS && !t2_rc_is_transport(rc) && rc != T2_RC_BAD_HMAC)
		(void)t2_cmd_flush(c, policy);
	return rc;
}

static bool is_named(const TPM2B_NAME *name, const uint8_t *p, size_t n)
{
	return name->size == n && memcmp(name->name, p, n) == 0;
}

/* Our Names and authorisations are right, so it is a parameter, or what it decrypts to. libtpms calls an RSA secret that
 * does not decrypt a failure; a TPM that has failed indeed says so to the next command too. */
static bool is_bad_credential(TSS2_RC rc)
{
	TSS2_RC base = t2_rc_base(rc);

	return rc == TPM2_RC_FAILURE || base == TPM2_RC_INTEGRITY || base == TPM2_RC_VALUE || base == TPM2_RC_SIZE ||
		base == TPM2_RC_INSUFFICIENT || base == TPM2_RC_ECC_POINT;
}

static TSS2_RC activate_step(struct csm_plugin_ctx *c, void *arg)
{
	struct activate_arg *s = arg;
	TPM2B_NAME name;
	TPMT_PUBLIC pub;
	TSS2_RC rc, rc2;

	if ((rc = t2_ak_ensure(c, &s->r)) != TSS2_RC_SUCCESS || s->r != 0 || (rc = t2_ek_look(c)) != TSS2_RC_SUCCESS)
		return rc;
	s->r = CSM_EINVALID;
	if (c->ek.absent || !is_named(&c->ak->name, s->cred->ak_name, s->cred->ak_name_len) ||
		!is_named(&c->ek.name, s->cred->ek_name, s->cred->ek_name_len))
		return TSS2_RC_SUCCESS;
	c->two = true;
	if ((rc = t2_key_use(c, c->ak)) == TSS2_RC_SUCCESS &&
		(rc = ek_make(c, &c->ek.template, &pub, &name)) == TSS2_RC_SUCCESS)
		rc = activate_loaded(c, s);
	c->two = false;
	if (t2_rc_is_transport(rc) || rc == T2_RC_BAD_HMAC)
		return rc;
	rc2 = loose_flush(c);
	if (t2_rc_is_transport(rc2) || t2_rc_is_transport(rc2 = t2_key_flush(c, c->ak)))
		return rc2;
	if (is_bad_credential(rc))
		return TSS2_RC_SUCCESS;
	if (rc == TSS2_RC_SUCCESS)
		s->r = 0;
	return rc;
}

int t2_activate(struct csm_plugin_ctx *c, const struct csm_plugin_credential *credential, struct csm_plugin_out *proof)
{
	struct activate_arg s = {.cred = credential};
	const struct t2_part parts[] = {{CSM_PLUGIN_PROOF, sizeof(CSM_PLUGIN_PROOF)},
		{credential->ak_name, credential->ak_name_len}, {credential->ek_name, credential->ek_name_len}};
	int r;

	if (credential->blob_len > sizeof(s.blob.credential) || credential->secret_len > sizeof(s.secret.secret))
		return CSM_EINVALID;
	if (proof->cap < CSM_PLUGIN_PROOF_LEN)
		return CSM_ETOO_LARGE;
	s.blob.size = (UINT16)credential->blob_len;
	s.secret.size = (UINT16)credential->secret_len;
	memcpy(s.blob.credential, credential->blob, credential->blob_len);
	memcpy(s.secret.secret, credential->secret, credential->secret_len);
	if ((r = t2_run(c, activate_step, &s)) == 0)
		r = s.r;
	/* An empty secret would prove nothing to whoever knows that it is. */
	if (r == 0 && s.info.size == 0)
		r = CSM_EINVALID;
	if (r == 0 && (r = t2_hmac(&c->crypt, s.info.buffer, s.info.size, parts, 3, proof->p)) == 0)
		proof->len = CSM_PLUGIN_PROOF_LEN;
	OPENSSL_cleanse(&s.info, sizeof(s.info));
	return r;
}
