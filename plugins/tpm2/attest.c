/* Statements about keys. TPM2_Certify signs what the TPM knows of a loaded key with the attestation key: a restricted
 * key, which signs nothing but what the TPM itself has made, so that such a signature says that the TPM means it. The
 * attestation key is a child of the storage root key, kept by the host as blobs and loaded when it is needed. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/crypto.h>
#include <tss2/tss2_mu.h>
#include "libclient/wire/msg.h"

#define AK_RECORD "tpm2.ak"
#define AK_RECORD_MAX (sizeof(TPM2B_PUBLIC) + sizeof(TPM2B_PRIVATE))
#define AK_ATTRIBUTES \
	(TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | \
		TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT)

/* ---- the attestation key ---- */

static void ak_template(const struct csm_plugin_ctx *c, TPMT_PUBLIC *t)
{
	memset(t, 0, sizeof(*t));
	t->nameAlg = TPM2_ALG_SHA256;
	t->objectAttributes = AK_ATTRIBUTES;
	if ((c->props.algs & 1u << CSM_ALG_P256) != 0) {
		t->type = TPM2_ALG_ECC;
		t->parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
		t->parameters.eccDetail.scheme.scheme = TPM2_ALG_ECDSA;
		t->parameters.eccDetail.scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
		t->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
		t->parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	} else {
		t->type = TPM2_ALG_RSA;
		t->parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
		t->parameters.rsaDetail.scheme.scheme = TPM2_ALG_RSASSA;
		t->parameters.rsaDetail.scheme.details.rsassa.hashAlg = TPM2_ALG_SHA256;
		t->parameters.rsaDetail.keyBits = 2048;
	}
}

static enum csm_alg ak_alg(const TPMT_PUBLIC *pub)
{
	return pub->type == TPM2_ALG_ECC ? CSM_ALG_P256 : CSM_ALG_RSA2048;
}

static int ak_recall(struct csm_plugin_ctx *c)
{
	uint8_t record[AK_RECORD_MAX];
	TPM2B_PUBLIC pub = {0};
	TPM2B_PRIVATE priv = {0};
	size_t n = sizeof(record), off = 0;
	int r = CSM_ENOT_FOUND;

	if (c->ak != NULL)
		return 0;
	if (c->host->recall != NULL)
		r = c->host->recall(c->host->arg, AK_RECORD, record, &n);
	if (r != 0)
		return r;
	if (t2_public_parse(record, n, &off, &pub) != 0 ||
		Tss2_MU_TPM2B_PRIVATE_Unmarshal(record, n, &off, &priv) != TSS2_RC_SUCCESS || off != n ||
		pub.publicArea.objectAttributes != AK_ATTRIBUTES)
		r = CSM_ETAMPERED;
	else
		r = t2_key_new(c, ak_alg(&pub.publicArea), CSM_USE_SIGN, &pub.publicArea, &priv, &c->ak);
	OPENSSL_cleanse(record, sizeof(record));
	OPENSSL_cleanse(&priv, sizeof(priv));
	return r;
}

void t2_ak_recall(struct csm_plugin_ctx *c)
{
	(void)ak_recall(c); /* t2_ak_ensure tells */
}

int t2_ak_forget(struct csm_plugin_ctx *c)
{
	if (c->ak != NULL)
		t2_key_drop(c, c->ak);
	t2_key_free(c->ak);
	c->ak = NULL;
	return c->host->remember != NULL ? c->host->remember(c->host->arg, AK_RECORD, NULL, 0) : 0;
}

static int ak_remember(struct csm_plugin_ctx *c, const TPM2B_PUBLIC *pub, const TPM2B_PRIVATE *priv)
{
	uint8_t record[AK_RECORD_MAX];
	size_t n = 0;
	int r = CSM_EBACKEND;

	if (c->host->remember == NULL)
		return 0;
	if (Tss2_MU_TPM2B_PUBLIC_Marshal(pub, record, sizeof(record), &n) == TSS2_RC_SUCCESS &&
		Tss2_MU_TPM2B_PRIVATE_Marshal(priv, record, sizeof(record), &n) == TSS2_RC_SUCCESS)
		r = c->host->remember(c->host->arg, AK_RECORD, record, n);
	OPENSSL_cleanse(record, sizeof(record));
	return r;
}

static bool ak_is_ours(const TPMT_PUBLIC *got, const TPMT_PUBLIC *asked)
{
	if (got->type != asked->type || got->nameAlg != asked->nameAlg || got->objectAttributes != asked->objectAttributes)
		return false;
	if (got->type == TPM2_ALG_ECC)
		return got->parameters.eccDetail.curveID == asked->parameters.eccDetail.curveID &&
			got->parameters.eccDetail.scheme.scheme == TPM2_ALG_ECDSA;
	return got->parameters.rsaDetail.scheme.scheme == TPM2_ALG_RSASSA;
}

TSS2_RC t2_ak_ensure(struct csm_plugin_ctx *c, int *r)
{
	TPM2B_PUBLIC pub = {0};
	TPM2B_PRIVATE priv = {0};
	TPMT_PUBLIC template;
	TSS2_RC rc;

	/* A damaged record is told, never replaced: somebody may have this key's public half in his books. */
	if ((*r = ak_recall(c)) != CSM_ENOT_FOUND)
		return TSS2_RC_SUCCESS;
	ak_template(c, &template);
	if ((rc = t2_cmd_create(c, &template, NULL, &pub, &priv)) != TSS2_RC_SUCCESS)
		return rc;
	if (!ak_is_ours(&pub.publicArea, &template))
		*r = CSM_EBACKEND;
	else if ((*r = ak_remember(c, &pub, &priv)) == 0)
		*r = t2_key_new(c, ak_alg(&template), CSM_USE_SIGN, &pub.publicArea, &priv, &c->ak);
	OPENSSL_cleanse(&priv, sizeof(priv));
	return TSS2_RC_SUCCESS;
}

/* ---- the statement ---- */

struct attest_arg {
	struct csm_plugin_key *k;
	TPM2B_DATA nonce;
	TPM2B_ATTEST attest;
	TPMT_SIGNATURE sig;
	int r;
};

static TSS2_RC certify(struct csm_plugin_ctx *c, struct attest_arg *s)
{
	struct t2_auth a = {.names = {t2_name_part(&s->k->name), t2_name_part(&c->ak->name)}, .nnames = 2, .second = TPM2_RH_PW};
	const TPMT_SIG_SCHEME scheme = {TPM2_ALG_NULL, {{0}}}; /* the attestation key's own */
	TSS2_RC rc;

	memset(&s->attest, 0, sizeof(s->attest));
	memset(&s->sig, 0, sizeof(s->sig));
	c->two = true;
	if ((rc = t2_key_use(c, c->ak)) == TSS2_RC_SUCCESS)
		rc = t2_key_use(c, s->k);
	c->two = false;
	if (rc != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_Certify_Prepare(c->sys, s->k->handle, c->ak->handle, &s->nonce, &scheme)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS)
		return rc;
	return Tss2_Sys_Certify_Complete(c->sys, &s->attest, &s->sig);
}

static TSS2_RC attest_step(struct csm_plugin_ctx *c, void *arg)
{
	struct attest_arg *s = arg;
	TSS2_RC rc, rc2;

	if ((rc = t2_ak_ensure(c, &s->r)) != TSS2_RC_SUCCESS || s->r != 0 || (rc = t2_ek_look(c)) != TSS2_RC_SUCCESS)
		return rc;
	rc = certify(c, s);
	if (t2_rc_is_transport(rc) || rc == T2_RC_BAD_HMAC)
		return rc;
	/* Its slot is for the keys that sign. */
	rc2 = t2_key_flush(c, c->ak);
	return rc != TSS2_RC_SUCCESS ? rc : rc2;
}

static int put_statement(struct csm_plugin_ctx *c, const struct attest_arg *s, struct csm_plugin_out *out)
{
	uint8_t pub[sizeof(TPMT_PUBLIC)], ak[sizeof(TPMT_PUBLIC)], ek[sizeof(TPMT_PUBLIC)], sig[sizeof(TPMT_SIGNATURE)];
	size_t pub_n = 0, ak_n = 0, ek_n = 0, sig_n = 0;
	struct csm_msg_attestation m = {.version = {1, true}, .type = CSM_STR("tpm2")};
	struct csm_buf b;
	int r = CSM_EBACKEND;

	if (Tss2_MU_TPMT_PUBLIC_Marshal(&s->k->pub, pub, sizeof(pub), &pub_n) != TSS2_RC_SUCCESS ||
		Tss2_MU_TPMT_PUBLIC_Marshal(&c->ak->pub, ak, sizeof(ak), &ak_n) != TSS2_RC_SUCCESS ||
		(!c->ek.absent && Tss2_MU_TPMT_PUBLIC_Marshal(&c->ek.pub, ek, sizeof(ek), &ek_n) != TSS2_RC_SUCCESS) ||
		Tss2_MU_TPMT_SIGNATURE_Marshal(&s->sig, sig, sizeof(sig), &sig_n) != TSS2_RC_SUCCESS)
		return r;
	m.public = (struct csm_bin){pub, pub_n};
	m.attest = (struct csm_bin){s->attest.attestationData, s->attest.size};
	m.signature = (struct csm_bin){sig, sig_n};
	m.ak_public = (struct csm_bin){ak, ak_n};
	if (!c->ek.absent)
		m.ek_public = (struct csm_bin){ek, ek_n};
	if (c->ek.cert != NULL)
		m.ek_certificate = (struct csm_bin){c->ek.cert, c->ek.cert_len};
	else
		m.ek_missing = csm_str_of(c->ek.missing);
	csm_buf_init(&b, out->cap, false);
	r = csm_msg_encode(CSM_DEF(attestation), &m, &b);
	if (r == 0) {
		memcpy(out->p, csm_buf_ptr(&b), b.len);
		out->len = b.len;
	}
	csm_buf_free(&b);
	return r;
}

int t2_attest(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const uint8_t *nonce, size_t nonce_len,
	struct csm_plugin_out *statement)
{
	struct attest_arg s = {.k = k};
	int r;

	if (nonce_len > CSM_ATTEST_NONCE_MAX)
		return CSM_EINVALID;
	s.nonce.size = (UINT16)nonce_len;
	if (nonce_len > 0)
		memcpy(s.nonce.buffer, nonce, nonce_len);
	if ((r = t2_run(c, attest_step, &s)) != 0 || (r = s.r) != 0)
		return r;
	if (s.attest.size == 0 || s.attest.size > sizeof(s.attest.attestationData))
		return CSM_EBACKEND;
	return put_statement(c, &s, statement);
}

/* ---- the broker's own texts ---- */

struct witness_arg {
	TPM2B_MAX_BUFFER text;
	TPMT_SIGNATURE sig;
	int r;
};

/* A restricted key signs a digest only with the TPM's word that it made it itself, and not of what could be taken for a
 * statement of its own. */
static TSS2_RC hash_text(struct csm_plugin_ctx *c, const TPM2B_MAX_BUFFER *text, TPM2B_DIGEST *digest, TPMT_TK_HASHCHECK *ticket)
{
	struct t2_auth a = {.flags = TPMA_SESSION_DECRYPT}; /* one that needs no authorisation takes no bare session */
	TSS2_RC rc;

	digest->size = 0;
	memset(ticket, 0, sizeof(*ticket));
	if ((rc = Tss2_Sys_Hash_Prepare(c->sys, text, TPM2_ALG_SHA256, TPM2_RH_OWNER)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS)
		return rc;
	return Tss2_Sys_Hash_Complete(c->sys, digest, ticket);
}

static TSS2_RC sign_text(struct csm_plugin_ctx *c, struct witness_arg *w)
{
	struct t2_auth a = {.names = {t2_name_part(&c->ak->name)}, .nnames = 1};
	const TPMT_SIG_SCHEME scheme = {TPM2_ALG_NULL, {{0}}};
	TPM2B_DIGEST digest;
	TPMT_TK_HASHCHECK ticket;
	TSS2_RC rc;

	memset(&w->sig, 0, sizeof(w->sig));
	if ((rc = hash_text(c, &w->text, &digest, &ticket)) != TSS2_RC_SUCCESS || (rc = t2_key_use(c, c->ak)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_Sign_Prepare(c->sys, c->ak->handle, &digest, &scheme, &ticket)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS)
		return rc;
	return Tss2_Sys_Sign_Complete(c->sys, &w->sig);
}

static TSS2_RC witness_step(struct csm_plugin_ctx *c, void *arg)
{
	struct witness_arg *w = arg;
	TSS2_RC rc, rc2;

	if ((rc = t2_ak_ensure(c, &w->r)) != TSS2_RC_SUCCESS || w->r != 0)
		return rc;
	rc = sign_text(c, w);
	if (t2_rc_is_transport(rc) || rc == T2_RC_BAD_HMAC)
		return rc;
	rc2 = t2_key_flush(c, c->ak);
	return rc != TSS2_RC_SUCCESS ? rc : rc2;
}

int t2_witness(struct csm_plugin_ctx *c, const uint8_t *text, size_t len, struct csm_plugin_out *sig,
	struct csm_plugin_out *spki)
{
	uint64_t before = c->tcti.commands;
	struct witness_arg w = {.r = 0};
	int r;

	if (len == 0 || len > CSM_PLUGIN_WITNESS_MAX)
		return CSM_EINVALID;
	w.text.size = (UINT16)len;
	memcpy(w.text.buffer, text, len);
	if ((r = t2_run(c, witness_step, &w)) == 0)
		r = w.r;
	c->own_commands += c->tcti.commands - before;
	if (r != 0 || (r = csm_tpm_public_spki(&c->ak->pub, spki->p, spki->cap, &spki->len)) != 0)
		return r;
	if (w.sig.sigAlg == TPM2_ALG_ECDSA)
		return t2_put_ecdsa(&w.sig.signature.ecdsa, sig);
	return w.sig.sigAlg == TPM2_ALG_RSASSA ? t2_put_rsa(c->ak, &w.sig.signature.rsassa.sig, sig) : CSM_EBACKEND;
}
