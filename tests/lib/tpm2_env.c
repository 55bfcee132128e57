#include "tests/lib/tpm2_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_sys.h>
#include <tss2/tss2_tctildr.h>
#include "libclient/tpmfmt/public.h"
#include "plugins/include/csm_alg.h"

static const struct csm_plugin *const tpm2 = &csm_plugin_tpm2;
static const char text[] = "what was signed";

void tpm2_env_start(struct tpm2_env *e)
{
	memset(e, 0, sizeof(*e));
	e->tpm = swtpm_start();
	assert_non_null(e->tpm);
	swtpm_host_init(&e->host, e->tpm);
	e->host.quiet = getenv("CSM_TEST_VERBOSE") == NULL;
	tpm2_env_open(e);
	assert_true(tpm2_env_health(e).usable);
}

void tpm2_env_open(struct tpm2_env *e)
{
	assert_null(e->ctx);
	assert_int_equal(tpm2->open(&e->host.host, &e->ctx), 0);
	tpm2->idle(e->ctx);
}

void tpm2_env_close(struct tpm2_env *e)
{
	if (e->ctx != NULL)
		tpm2->close(e->ctx);
	e->ctx = NULL;
}

void tpm2_env_stop(struct tpm2_env *e)
{
	tpm2_env_close(e);
	swtpm_stop(e->tpm);
	e->tpm = NULL;
}

struct csm_plugin_health tpm2_env_health(struct tpm2_env *e)
{
	struct csm_plugin_health h;

	tpm2->health(e->ctx, &h);
	tpm2->idle(e->ctx);
	return h;
}

int tpm2_key_generate(struct tpm2_env *e, enum csm_alg alg, unsigned use, struct tpm2_key *k)
{
	struct csm_plugin_out spki = {k->spki, sizeof(k->spki), 0}, pub = {k->pub, sizeof(k->pub), 0},
			      priv = {k->priv, sizeof(k->priv), 0};
	int r;

	k->key = NULL;
	k->spec = (struct csm_plugin_keyspec){.alg = alg, .use = use};
	if ((r = tpm2->generate(e->ctx, &k->spec, &spki, &pub, &priv)) != 0)
		return r;
	k->spki_len = spki.len;
	k->pub_len = pub.len;
	k->priv_len = priv.len;
	return 0;
}

int tpm2_key_load(struct tpm2_env *e, struct tpm2_key *k)
{
	struct csm_plugin_blob blob = {k->spki, k->spki_len, k->pub, k->pub_len, k->priv, k->priv_len};

	return tpm2->load(e->ctx, &k->spec, &blob, &k->key);
}

void tpm2_key_unload(struct tpm2_env *e, struct tpm2_key *k)
{
	tpm2->unload(e->ctx, k->key);
	k->key = NULL;
}

void tpm2_key_make(struct tpm2_env *e, enum csm_alg alg, unsigned use, struct tpm2_key *k)
{
	assert_int_equal(tpm2_key_generate(e, alg, use, k), 0);
	assert_int_equal(tpm2_key_load(e, k), 0);
}

size_t tpm2_digest(enum csm_hash hash, uint8_t out[64])
{
	unsigned len = 0;

	assert_int_equal(
		EVP_Digest(text, sizeof(text), out, &len, EVP_get_digestbyname(csm_hash_name(hash)), NULL), 1);
	return len;
}

int tpm2_sign(struct tpm2_env *e, struct tpm2_key *k, struct csm_scheme s, uint8_t *sig, size_t *len)
{
	struct csm_plugin_out out = {sig, 1024, 0};
	uint8_t digest[64];
	size_t n = tpm2_digest(s.hash, digest);
	int r;

	if ((r = tpm2->sign(e->ctx, k->key, &s, digest, n, &out)) == 0)
		*len = out.len;
	return r;
}

bool tpm2_verify(const struct tpm2_key *k, struct csm_scheme s, const uint8_t *sig, size_t len)
{
	const uint8_t *p = k->spki;
	EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)k->spki_len);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	uint8_t digest[64];
	size_t n = tpm2_digest(s.hash, digest);
	bool ok;

	assert_non_null(ctx);
	assert_int_equal(EVP_PKEY_verify_init(ctx), 1);
	if (s.kind == CSM_SCHEME_RSA_PSS) {
		assert_true(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0);
		assert_true(EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) > 0);
	}
	assert_true(EVP_PKEY_CTX_set_signature_md(ctx, EVP_get_digestbyname(csm_hash_name(s.hash))) > 0);
	ok = EVP_PKEY_verify(ctx, sig, len, digest, n) == 1;
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
	return ok;
}

int tpm2_sign_verify(struct tpm2_env *e, struct tpm2_key *k)
{
	struct csm_scheme s = csm_scheme_default(k->spec.alg);
	uint8_t sig[1024];
	size_t len = 0;
	int r;

	if ((r = tpm2_sign(e, k, s, sig, &len)) != 0)
		return r;
	return tpm2_verify(k, s, sig, len) ? 0 : -1;
}

void tpm2_other_open(struct tpm2_other *o, const struct swtpm *t)
{
	o->esys = NULL;
	o->tcti = NULL;
	assert_int_equal(Tss2_TctiLdr_Initialize(t->tcti, &o->tcti), 0);
	assert_int_equal(Esys_Initialize(&o->esys, o->tcti, NULL), 0);
}

void tpm2_other_close(struct tpm2_other *o)
{
	Esys_Finalize(&o->esys);
	Tss2_TctiLdr_Finalize(&o->tcti);
}

size_t tpm2_other_handles(struct tpm2_other *o, TPM2_HANDLE first, TPM2_HANDLE *ret, size_t cap)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	TPMI_YES_NO more;
	size_t n;

	assert_int_equal(Esys_GetCapability(o->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_HANDLES, first,
				 (UINT32)cap, &more, &data),
		0);
	n = data->data.handles.count;
	for (size_t i = 0; i < n && i < cap; i++)
		ret[i] = data->data.handles.handle[i];
	Esys_Free(data);
	return n;
}

TSS2_RC tpm2_other_flush(struct tpm2_other *o, TPM2_HANDLE h)
{
	TSS2_SYS_CONTEXT *sys = NULL;

	assert_int_equal(Esys_GetSysContext(o->esys, &sys), 0);
	return Tss2_Sys_FlushContext(sys, h);
}

void tpm2_other_create(struct tpm2_other *o, TPMA_OBJECT attributes, const char *auth, struct tpm2_key *k)
{
	const TPMS_ECC_PARMS p256 = {.symmetric.algorithm = TPM2_ALG_NULL, .scheme.scheme = TPM2_ALG_NULL,
		.curveID = TPM2_ECC_NIST_P256, .kdf.scheme = TPM2_ALG_NULL};
	TPM2B_PUBLIC in = {.publicArea = {.type = TPM2_ALG_ECC, .nameAlg = TPM2_ALG_SHA256,
		.objectAttributes = attributes | TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_USERWITHAUTH |
			TPMA_OBJECT_SENSITIVEDATAORIGIN, .parameters.eccDetail = p256}}, *pub = NULL;
	TPM2B_SENSITIVE_CREATE sens = {.sensitive.userAuth.size = (UINT16)strlen(auth)};
	TPM2B_DATA outside = {0};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_PRIVATE *priv = NULL;
	ESYS_TR srk = ESYS_TR_NONE;

	memset(k, 0, sizeof(*k));
	memcpy(sens.sensitive.userAuth.buffer, auth, strlen(auth));
	assert_int_equal(Esys_TR_FromTPMPublic(o->esys, 0x81000001, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &srk), 0);
	assert_int_equal(Esys_Create(o->esys, srk, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sens, &in, &outside, &pcr,
				 &priv, &pub, NULL, NULL, NULL), 0);
	assert_int_equal(Tss2_MU_TPM2B_PUBLIC_Marshal(pub, k->pub, sizeof(k->pub), &k->pub_len), 0);
	assert_int_equal(Tss2_MU_TPM2B_PRIVATE_Marshal(priv, k->priv, sizeof(k->priv), &k->priv_len), 0);
	assert_int_equal(csm_tpm_public_spki(&pub->publicArea, k->spki, sizeof(k->spki), &k->spki_len), 0);
	k->spec = (struct csm_plugin_keyspec){.alg = CSM_ALG_P256, .use = CSM_USE_SIGN};
	Esys_Free(pub);
	Esys_Free(priv);
	assert_int_equal(Esys_TR_Close(o->esys, &srk), 0);
}

uint32_t tpm2_other_property(struct tpm2_other *o, TPM2_PT name)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	TPMI_YES_NO more;
	uint32_t v;

	assert_int_equal(Esys_GetCapability(o->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_TPM_PROPERTIES,
				 name, 1, &more, &data),
		0);
	assert_int_equal(data->data.tpmProperties.count, 1);
	assert_int_equal(data->data.tpmProperties.tpmProperty[0].property, name);
	v = data->data.tpmProperties.tpmProperty[0].value;
	Esys_Free(data);
	return v;
}
