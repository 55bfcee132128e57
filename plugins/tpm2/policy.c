/* What the root key is sealed under besides this TPM: chosen PCRs, or whatever PCRs a signer approves (PolicyAuthorize), so
 * that a new firmware can be approved before it is there. TPM 2.0 part 3, 23.7 and 23.16.
 *
 * The sealed form has the policy with it: configuration that has changed since speaks of the next seal only. It needs no
 * protection of its own there, since the object in the TPM has the policy's digest. */
#include "plugins/tpm2/tpm2.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/core_names.h>
#include <tss2/tss2_mu.h>
#include "libclient/tpmfmt/policy.h"

/* Something extends a PCR (IMA does) between the policy and its use: begin anew, so often. */
#define PCR_TRIES 16u
#define ECC_BYTES 32u

_Static_assert(T2_POLICY_REF_MAX == CSM_APPROVAL_REF_MAX, "one limit");

static const TPM2B_DIGEST no_digest;

void t2_policy_refused(struct csm_plugin_ctx *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->seal_refused, sizeof(c->seal_refused), fmt, ap);
	va_end(ap);
}

/* ---- the configuration ---- */

/* Which keys may sign policies: those that every TPM can verify. */
static int signer_ec(EVP_PKEY *pkey, TPMT_PUBLIC *t)
{
	BIGNUM *x = NULL, *y = NULL;
	char group[32];
	int r = CSM_EINVALID;

	if (EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) != 1 || strcmp(group, "prime256v1") != 0 ||
		EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_EC_PUB_X, &x) != 1 ||
		EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, &y) != 1)
		goto out;
	t->type = TPM2_ALG_ECC;
	t->parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	t->parameters.eccDetail.scheme.scheme = TPM2_ALG_ECDSA;
	t->parameters.eccDetail.scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
	t->parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	t->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	t->unique.ecc.x.size = t->unique.ecc.y.size = ECC_BYTES;
	if (BN_bn2binpad(x, t->unique.ecc.x.buffer, ECC_BYTES) == ECC_BYTES &&
		BN_bn2binpad(y, t->unique.ecc.y.buffer, ECC_BYTES) == ECC_BYTES)
		r = 0;
out:
	BN_free(x);
	BN_free(y);
	return r;
}

static int signer_rsa(EVP_PKEY *pkey, TPMT_PUBLIC *t)
{
	BIGNUM *n = NULL, *e = NULL;
	int bits = EVP_PKEY_get_bits(pkey), r = CSM_EINVALID;

	if ((bits != 2048 && bits != 3072) || EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_N, &n) != 1 ||
		EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &e) != 1 || !BN_is_word(e, 65537))
		goto out;
	t->type = TPM2_ALG_RSA;
	t->parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
	t->parameters.rsaDetail.scheme.scheme = TPM2_ALG_RSASSA;
	t->parameters.rsaDetail.scheme.details.rsassa.hashAlg = TPM2_ALG_SHA256;
	t->parameters.rsaDetail.keyBits = (TPMI_RSA_KEY_BITS)bits;
	t->unique.rsa.size = (UINT16)(bits / 8);
	if (BN_bn2binpad(n, t->unique.rsa.buffer, bits / 8) == bits / 8)
		r = 0;
out:
	BN_free(n);
	BN_free(e);
	return r;
}

static int signer_parse(const char *pem, TPMT_PUBLIC *ret)
{
	TPMT_PUBLIC t = {.nameAlg = TPM2_ALG_SHA256,
		.objectAttributes = TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_USERWITHAUTH};
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *pkey = bio != NULL ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
	int r = CSM_EINVALID;

	if (pkey != NULL && EVP_PKEY_is_a(pkey, "EC"))
		r = signer_ec(pkey, &t);
	else if (pkey != NULL && EVP_PKEY_is_a(pkey, "RSA"))
		r = signer_rsa(pkey, &t);
	if (r == 0)
		*ret = t;
	EVP_PKEY_free(pkey);
	BIO_free(bio);
	return r;
}

static const char *config(struct csm_plugin_ctx *c, const char *name)
{
	const char *v = c->host->config != NULL ? c->host->config(c->host->arg, name) : NULL;

	return v != NULL && v[0] != '\0' ? v : NULL;
}

int t2_policy_configured(struct csm_plugin_ctx *c, struct t2_policy *ret)
{
	struct t2_policy p = {.kind = T2_POLICY_NONE};
	const char *pcrs = config(c, "pcrs"), *ref, *key;

	if (config(c, "signed_policy") != NULL) {
		p.kind = T2_POLICY_SIGNED;
		key = config(c, "policy_key");
		if (key == NULL || signer_parse(key, &p.signer) != 0) {
			t2_policy_refused(c, "the policy's key (tpm: policy_key) cannot be read, or is neither a P-256 nor an "
					     "RSA-2048 or -3072 public key in PEM");
			return CSM_EDENIED;
		}
		ref = config(c, "policy_ref");
		p.ref_len = ref != NULL ? strlen(ref) : 0;
		if (p.ref_len > sizeof(p.ref))
			return CSM_EINVALID;
		if (p.ref_len > 0)
			memcpy(p.ref, ref, p.ref_len);
	} else if (pcrs != NULL) {
		p.kind = T2_POLICY_PCR;
		if (!csm_pcrs_parse(pcrs, strlen(pcrs), &p.pcrs))
			return CSM_EINVALID;
	}
	*ret = p;
	return 0;
}

bool t2_policy_equal(const struct t2_policy *a, const struct t2_policy *b)
{
	uint8_t x[sizeof(TPMT_PUBLIC)], y[sizeof(TPMT_PUBLIC)];
	size_t nx = 0, ny = 0;

	if (a->kind != b->kind || a->pcrs != b->pcrs || a->ref_len != b->ref_len || memcmp(a->ref, b->ref, a->ref_len) != 0)
		return false;
	return a->kind != T2_POLICY_SIGNED ||
		(Tss2_MU_TPMT_PUBLIC_Marshal(&a->signer, x, sizeof(x), &nx) == TSS2_RC_SUCCESS &&
			Tss2_MU_TPMT_PUBLIC_Marshal(&b->signer, y, sizeof(y), &ny) == TSS2_RC_SUCCESS && nx == ny &&
			memcmp(x, y, nx) == 0);
}

void t2_policy_text(const struct t2_policy *p, char out[static T2_POLICY_TEXT_MAX])
{
	char pcrs[CSM_PCR_TEXT_MAX];

	csm_pcrs_text(p->pcrs, pcrs);
	switch (p->kind) {
	case T2_POLICY_NONE:
		snprintf(out, T2_POLICY_TEXT_MAX, "none");
		break;
	case T2_POLICY_PCR:
		snprintf(out, T2_POLICY_TEXT_MAX, "sha256:%s", pcrs);
		break;
	case T2_POLICY_SIGNED:
		snprintf(out, T2_POLICY_TEXT_MAX, "signed");
		break;
	}
}

/* ---- in the sealed form: kind (1), PCRs (4), length of the ref (1), ref, TPM2B_PUBLIC of the signer ---- */

int t2_policy_put(const struct t2_policy *p, uint8_t *out, size_t cap, size_t *off)
{
	TPM2B_PUBLIC signer = {.publicArea = p->signer};
	size_t at = *off;

	if (cap < at || cap - at < 6 + p->ref_len)
		return CSM_ETOO_LARGE;
	out[at++] = (uint8_t)p->kind;
	for (int i = 24; i >= 0; i -= 8)
		out[at++] = (uint8_t)(p->pcrs >> i);
	out[at++] = (uint8_t)p->ref_len;
	memcpy(out + at, p->ref, p->ref_len);
	at += p->ref_len;
	if (p->kind == T2_POLICY_SIGNED && Tss2_MU_TPM2B_PUBLIC_Marshal(&signer, out, cap, &at) != TSS2_RC_SUCCESS)
		return CSM_ETOO_LARGE;
	*off = at;
	return 0;
}

int t2_policy_get(const uint8_t *p, size_t n, size_t *off, struct t2_policy *ret)
{
	struct t2_policy pol = {.kind = T2_POLICY_NONE};
	TPM2B_PUBLIC signer = {0};
	size_t at = *off;

	if (n < at || n - at < 6)
		return CSM_EINVALID;
	if (p[at] != T2_POLICY_PCR && p[at] != T2_POLICY_SIGNED)
		return CSM_EINVALID;
	pol.kind = (enum t2_policy_kind)p[at++];
	for (unsigned i = 0; i < 4; i++)
		pol.pcrs = pol.pcrs << 8 | p[at++];
	pol.ref_len = p[at++];
	if (pol.ref_len > sizeof(pol.ref) || n - at < pol.ref_len || pol.pcrs >> CSM_PCRS != 0 ||
		(pol.kind == T2_POLICY_PCR) != (pol.pcrs != 0))
		return CSM_EINVALID;
	memcpy(pol.ref, p + at, pol.ref_len);
	at += pol.ref_len;
	if (pol.kind == T2_POLICY_SIGNED) {
		if (t2_public_parse(p, n, &at, &signer) != 0)
			return CSM_EINVALID;
		pol.signer = signer.publicArea;
	}
	*off = at;
	*ret = pol;
	return 0;
}

/* ---- commands in a policy or trial session ---- */

/* Both are sent within our own session too, so that nobody on the way can ask for other PCRs, or answer another digest. */
static TSS2_RC policy_pcr(struct csm_plugin_ctx *c, TPM2_HANDLE session, uint32_t pcrs)
{
	const uint8_t name[4] = {(uint8_t)(session >> 24), (uint8_t)(session >> 16), (uint8_t)(session >> 8), (uint8_t)session};
	struct t2_auth a = {.names = {{name, 4}}, .nnames = 1, .flags = TPMA_SESSION_DECRYPT};
	uint8_t text[CSM_PCR_SELECTION_LEN];
	TPML_PCR_SELECTION sel = {0};
	size_t off = 0;
	TSS2_RC rc;

	csm_pcrs_selection(pcrs, text);
	if (Tss2_MU_TPML_PCR_SELECTION_Unmarshal(text, sizeof(text), &off, &sel) != TSS2_RC_SUCCESS)
		return T2_RC_CRYPTO;
	if ((rc = Tss2_Sys_PolicyPCR_Prepare(c->sys, session, &no_digest, &sel)) != TSS2_RC_SUCCESS)
		return rc;
	return t2_exec(c, &a, T2_TIMEOUT_MS);
}

static TSS2_RC get_digest(struct csm_plugin_ctx *c, TPM2_HANDLE session, TPM2B_DIGEST *ret)
{
	const uint8_t name[4] = {(uint8_t)(session >> 24), (uint8_t)(session >> 16), (uint8_t)(session >> 8), (uint8_t)session};
	struct t2_auth a = {.names = {{name, 4}}, .nnames = 1, .flags = TPMA_SESSION_ENCRYPT};
	TPM2B_DIGEST d = {0};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_PolicyGetDigest_Prepare(c->sys, session)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_PolicyGetDigest_Complete(c->sys, &d)) != TSS2_RC_SUCCESS)
		return rc;
	if (d.size != T2_HASH_LEN)
		return T2_RC_BAD_ANSWER;
	*ret = d;
	return TSS2_RC_SUCCESS;
}

static TSS2_RC policy_restart(struct csm_plugin_ctx *c, TPM2_HANDLE session)
{
	TSS2_RC rc = Tss2_Sys_PolicyRestart_Prepare(c->sys, session);

	return rc != TSS2_RC_SUCCESS ? rc : t2_exec(c, NULL, T2_TIMEOUT_MS);
}

/* The end of a session; what it stood for has been done, or failed, before. */
static TSS2_RC session_end(struct csm_plugin_ctx *c, struct t2_session *s, TSS2_RC rc)
{
	if (s->handle != 0 && !t2_rc_is_transport(rc) && rc != T2_RC_BAD_HMAC) {
		TSS2_RC rc2 = t2_cmd_flush(c, s->handle);

		c->other_session = 0;
		t2_note_session(c);
		/* What was asked for is there; that the TPM is not is seen by the next one. */
		if (rc == TSS2_RC_SUCCESS && t2_rc_is_transport(rc2))
			c->ready = false;
	}
	t2_session_wipe(s);
	return rc;
}

static TSS2_RC session_begin(struct csm_plugin_ctx *c, TPM2_SE type, struct t2_session *ret)
{
	TSS2_RC rc = t2_room(c, 0, true);

	if (rc == TSS2_RC_SUCCESS)
		rc = t2_session_start(c, type, c->srk.handle, &c->srk.pub, ret);
	if (rc == TSS2_RC_SUCCESS) {
		c->other_session = ret->handle;
		t2_note_session(c);
	}
	return rc;
}

TSS2_RC t2_policy_digest(struct csm_plugin_ctx *c, const struct t2_policy *p, TPM2B_DIGEST *ret)
{
	struct t2_session s = {0};
	TPM2B_NAME name;
	TSS2_RC rc;

	if (p->kind == T2_POLICY_SIGNED) {
		if (t2_name_of(c, &p->signer, &name) != 0)
			return T2_RC_CRYPTO;
		ret->size = T2_HASH_LEN;
		csm_authorize_policy(name.name, name.size, p->ref, p->ref_len, ret->buffer);
		return TSS2_RC_SUCCESS;
	}
	if ((rc = session_begin(c, TPM2_SE_TRIAL, &s)) != TSS2_RC_SUCCESS)
		return rc;
	if ((rc = policy_pcr(c, s.handle, p->pcrs)) == TSS2_RC_SUCCESS)
		rc = get_digest(c, s.handle, ret);
	return session_end(c, &s, rc);
}

/* ---- approvals ---- */

static int signature_of(const struct t2_policy *p, const struct csm_tpm_approval *a, TPMT_SIGNATURE *ret)
{
	TPMS_SIGNATURE_ECC *ecc = &ret->signature.ecdsa;
	const uint8_t *at = a->signature;
	ECDSA_SIG *sig;
	int r = CSM_EINVALID;

	memset(ret, 0, sizeof(*ret));
	if (p->signer.type == TPM2_ALG_RSA) {
		ret->sigAlg = TPM2_ALG_RSASSA;
		ret->signature.rsassa.hash = TPM2_ALG_SHA256;
		if (a->signature_len != p->signer.unique.rsa.size)
			return r;
		ret->signature.rsassa.sig.size = (UINT16)a->signature_len;
		memcpy(ret->signature.rsassa.sig.buffer, a->signature, a->signature_len);
		return 0;
	}
	ret->sigAlg = TPM2_ALG_ECDSA;
	ecc->hash = TPM2_ALG_SHA256;
	sig = d2i_ECDSA_SIG(NULL, &at, (long)a->signature_len);
	if (sig != NULL && at == a->signature + a->signature_len &&
		BN_bn2binpad(ECDSA_SIG_get0_r(sig), ecc->signatureR.buffer, ECC_BYTES) == ECC_BYTES &&
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), ecc->signatureS.buffer, ECC_BYTES) == ECC_BYTES) {
		ecc->signatureR.size = ecc->signatureS.size = ECC_BYTES;
		r = 0;
	}
	ECDSA_SIG_free(sig);
	return r;
}

/* The TPM looks at the signature, with the signer's key in a slot for the moment: a ticket says that it was good.
 * TPM2_RC_SIGNATURE: it is not the signer's. */
static TSS2_RC verify_approval(struct csm_plugin_ctx *c, const struct t2_policy *p, const struct csm_tpm_approval *a,
	TPMT_TK_VERIFIED *ticket, TPM2B_NAME *name)
{
	struct t2_part parts[] = {{a->policy, sizeof(a->policy)}, {a->ref, a->ref_len}};
	TPM2B_PUBLIC pub = {.publicArea = p->signer};
	TPM2B_DIGEST digest = {.size = T2_HASH_LEN};
	TPM2B_NAME told = {0};
	TPMT_SIGNATURE sig;
	TPM2_HANDLE h = 0;
	TSS2_RC rc, rc2;

	if (signature_of(p, a, &sig) != 0)
		return TPM2_RC_SIGNATURE;
	if (t2_hash(&c->crypt, parts, 2, digest.buffer) != 0 || t2_name_of(c, &p->signer, name) != 0)
		return T2_RC_CRYPTO;
	if ((rc = t2_room(c, 1, false)) != TSS2_RC_SUCCESS)
		return rc;
	c->external = *name;
	if ((rc = Tss2_Sys_LoadExternal_Prepare(c->sys, NULL, &pub, TPM2_RH_OWNER)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_LoadExternal_Complete(c->sys, &h, &told)) != TSS2_RC_SUCCESS)
		return rc;
	c->external.size = 0;
	c->loose = h; /* to be flushed, also where an answer gets lost now */
	if ((rc = Tss2_Sys_VerifySignature_Prepare(c->sys, h, &digest, &sig)) == TSS2_RC_SUCCESS &&
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) == TSS2_RC_SUCCESS)
		rc = Tss2_Sys_VerifySignature_Complete(c->sys, ticket);
	if (t2_rc_is_transport(rc))
		return rc;
	/* Nor is one whose numbers are none that this key can have made, whatever a TPM calls that. */
	if (t2_rc_base(rc) == TPM2_RC_SIGNATURE || (rc <= 0xfff && (rc & TPM2_RC_FMT1) != 0 && (rc & TPM2_RC_P) != 0))
		rc = TPM2_RC_SIGNATURE;
	rc2 = t2_cmd_flush(c, h);
	c->loose = 0;
	return rc2 != TSS2_RC_SUCCESS ? rc2 : rc;
}

static TSS2_RC authorize(struct csm_plugin_ctx *c, TPM2_HANDLE session, const struct csm_tpm_approval *a,
	const TPM2B_NAME *name, const TPMT_TK_VERIFIED *ticket)
{
	TPM2B_DIGEST approved = {.size = CSM_PCR_LEN};
	TPM2B_NONCE ref = {.size = (UINT16)a->ref_len};
	TSS2_RC rc;

	memcpy(approved.buffer, a->policy, CSM_PCR_LEN);
	memcpy(ref.buffer, a->ref, a->ref_len);
	rc = Tss2_Sys_PolicyAuthorize_Prepare(c->sys, session, &approved, &ref, name, ticket);
	return rc != TSS2_RC_SUCCESS ? rc : t2_exec(c, NULL, T2_TIMEOUT_MS);
}

/* Does this one fit the PCRs as they are? The session stands behind its PolicyPCR then. */
static TSS2_RC approval_fits(struct csm_plugin_ctx *c, TPM2_HANDLE session, const struct t2_policy *p,
	const struct csm_tpm_approval *a, bool *ret)
{
	TPM2B_DIGEST now = {0};
	TSS2_RC rc;

	*ret = false;
	if (a->ref_len != p->ref_len || memcmp(a->ref, p->ref, p->ref_len) != 0)
		return TSS2_RC_SUCCESS;
	if ((rc = policy_restart(c, session)) != TSS2_RC_SUCCESS ||
		(rc = policy_pcr(c, session, a->pcrs)) != TSS2_RC_SUCCESS ||
		(rc = get_digest(c, session, &now)) != TSS2_RC_SUCCESS)
		return rc;
	*ret = memcmp(now.buffer, a->policy, CSM_PCR_LEN) == 0;
	return TSS2_RC_SUCCESS;
}

/* The first one that fits and that the signer of p has signed; the file may have other signers', which are for what is
 * sealed before or after. At most CSM_APPROVALS_MAX tries. */
static TSS2_RC try_approvals(struct csm_plugin_ctx *c, TPM2_HANDLE session, const struct t2_policy *p,
	const struct csm_tpm_approval *all, size_t n, bool *refused)
{
	TPMT_TK_VERIFIED ticket = {0};
	TPM2B_NAME name = {0};
	bool fits, any = false;
	TSS2_RC rc;

	*refused = true;
	for (size_t i = 0; i < n; i++) {
		if ((rc = approval_fits(c, session, p, &all[i], &fits)) != TSS2_RC_SUCCESS)
			return rc;
		if (!fits)
			continue;
		any = true;
		if ((rc = verify_approval(c, p, &all[i], &ticket, &name)) == TPM2_RC_SIGNATURE)
			continue;
		if (rc == TSS2_RC_SUCCESS && (rc = authorize(c, session, &all[i], &name, &ticket)) == TSS2_RC_SUCCESS)
			*refused = false;
		return rc;
	}
	if (any)
		t2_policy_refused(c, "the approved policy that fits the PCRs is not signed by the policy's key");
	else
		t2_policy_refused(c, "no approved policy (tpm: policy_file) fits the PCRs as they are");
	return TSS2_RC_SUCCESS;
}

static TSS2_RC satisfy_signed(struct csm_plugin_ctx *c, struct t2_session *s, const struct t2_policy *p, bool *refused)
{
	struct csm_tpm_approval all[CSM_APPROVALS_MAX];
	const char *text = config(c, "policy_file");
	size_t n = 0;
	unsigned line = 0;

	*refused = true;
	if (text == NULL || csm_approvals_parse(text, strlen(text), all, &n, &line) != 0) {
		if (text == NULL)
			t2_policy_refused(c, "the file of approved policies (tpm: policy_file) cannot be read, or is not configured");
		else
			t2_policy_refused(c, "the file of approved policies (tpm: policy_file) has a fault in line %u", line);
		return TSS2_RC_SUCCESS;
	}
	return try_approvals(c, s->handle, p, all, n, refused);
}

/* ---- unsealing ---- */

static TSS2_RC use_once(struct csm_plugin_ctx *c, struct t2_session *s, const struct t2_policy *p, bool *refused,
	t2_with_session use, void *arg)
{
	char pcrs[CSM_PCR_TEXT_MAX];
	TSS2_RC rc;

	*refused = false;
	if (p->kind == T2_POLICY_SIGNED) {
		rc = satisfy_signed(c, s, p, refused);
		if (rc != TSS2_RC_SUCCESS || *refused)
			return rc;
	} else if ((rc = policy_pcr(c, s->handle, p->pcrs)) != TSS2_RC_SUCCESS)
		return rc;
	rc = use(c, s, arg);
	if (t2_rc_base(rc) == TPM2_RC_POLICY_FAIL) {
		csm_pcrs_text(p->pcrs, pcrs);
		if (p->kind == T2_POLICY_PCR)
			t2_policy_refused(c, "PCRs %s are not as they were when the root key was sealed", pcrs);
		else
			t2_policy_refused(c, "the approved policy is not the one that the root key was sealed under");
		*refused = true;
		rc = TSS2_RC_SUCCESS;
	}
	return rc;
}

TSS2_RC t2_policy_use(struct csm_plugin_ctx *c, const struct t2_policy *p, bool *refused, t2_with_session use, void *arg)
{
	struct t2_session s = {0};
	TSS2_RC rc;

	*refused = false;
	if ((rc = session_begin(c, TPM2_SE_POLICY, &s)) != TSS2_RC_SUCCESS)
		return rc;
	for (unsigned i = 0; i < PCR_TRIES; i++) {
		if (i > 0 && (rc = policy_restart(c, s.handle)) != TSS2_RC_SUCCESS)
			break;
		if ((rc = use_once(c, &s, p, refused, use, arg)) != TPM2_RC_PCR_CHANGED)
			break;
	}
	return session_end(c, &s, rc);
}
