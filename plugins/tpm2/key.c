/* Making, loading and forgetting keys. A stored key is its TPM2B_PUBLIC and TPM2B_PRIVATE as the TPM gave
 * them; the private one is encrypted to the storage root key, and the authValue is empty: whoever may use
 * the TPM's storage root key may use a blob, so blobs are kept like secrets all the same. */
#include "plugins/tpm2/tpm2.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <tss2/tss2_mu.h>
#include "plugins/include/csm_alg.h"

#define KEY_ATTRIBUTES \
	(TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | \
		TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA)
#define SPKI_MAX 1024u

static const struct {
	enum csm_alg alg;
	TPMI_ALG_PUBLIC type;
	uint16_t size; /* curve, or bits */
} kinds[] = {
	{CSM_ALG_P256, TPM2_ALG_ECC, TPM2_ECC_NIST_P256},
	{CSM_ALG_P384, TPM2_ALG_ECC, TPM2_ECC_NIST_P384},
	{CSM_ALG_P521, TPM2_ALG_ECC, TPM2_ECC_NIST_P521},
	{CSM_ALG_RSA2048, TPM2_ALG_RSA, 2048},
	{CSM_ALG_RSA3072, TPM2_ALG_RSA, 3072},
	{CSM_ALG_RSA4096, TPM2_ALG_RSA, 4096},
};

static int template_make(const struct csm_plugin_keyspec *spec, TPMT_PUBLIC *t)
{
	if (csm_alg_check_use(spec->alg, spec->use) != 0)
		return (unsigned)spec->alg < CSM_ALG__COUNT ? CSM_EINVALID : CSM_EUNSUPPORTED;
	memset(t, 0, sizeof(*t));
	t->nameAlg = TPM2_ALG_SHA256;
	t->objectAttributes = KEY_ATTRIBUTES;
	if ((spec->use & CSM_USE_SIGN) != 0)
		t->objectAttributes |= TPMA_OBJECT_SIGN_ENCRYPT;
	if ((spec->use & (CSM_USE_DECRYPT | CSM_USE_DERIVE)) != 0)
		t->objectAttributes |= TPMA_OBJECT_DECRYPT;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].alg != spec->alg)
			continue;
		t->type = kinds[i].type;
		if (t->type == TPM2_ALG_ECC) {
			t->parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
			t->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
			t->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
			t->parameters.eccDetail.curveID = kinds[i].size;
		} else {
			t->parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
			t->parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
			t->parameters.rsaDetail.keyBits = kinds[i].size;
		}
		return 0;
	}
	return CSM_EUNSUPPORTED;
}

struct generate_arg {
	TPMT_PUBLIC template;
	enum csm_alg alg;
	bool exportable;
	TPM2B_PUBLIC pub;
	TPM2B_PRIVATE priv;
	int r;
};

static TSS2_RC generate_step(struct csm_plugin_ctx *c, void *arg)
{
	struct generate_arg *g = arg;

	/* Under a transient parent nobody else could ever load it. */
	if ((c->props.algs & 1u << g->alg) == 0 || (g->exportable && c->srk.endorsement)) {
		g->r = CSM_EUNSUPPORTED;
		return TSS2_RC_SUCCESS;
	}
	g->r = 0;
	return t2_cmd_create(c, &g->template, NULL, &g->pub, &g->priv);
}

/* The TPM's answer is HMAC-protected, but whether it is what was asked for is ours to say. */
static bool is_of_template(const TPMT_PUBLIC *got, const TPMT_PUBLIC *asked)
{
	if (got->type != asked->type || got->nameAlg != asked->nameAlg ||
		got->objectAttributes != asked->objectAttributes)
		return false;
	if (got->type == TPM2_ALG_ECC)
		return got->parameters.eccDetail.curveID == asked->parameters.eccDetail.curveID;
	return got->parameters.rsaDetail.keyBits == asked->parameters.rsaDetail.keyBits &&
		got->unique.rsa.size == got->parameters.rsaDetail.keyBits / 8;
}

void t2_key_free(struct csm_plugin_key *k)
{
	if (k == NULL)
		return;
	free(k->saved);
	if (k->priv != NULL)
		OPENSSL_cleanse(k->priv, sizeof(*k->priv));
	free(k->priv);
	OPENSSL_cleanse(k, sizeof(*k));
	free(k);
}

int t2_key_new(struct csm_plugin_ctx *c, enum csm_alg alg, unsigned use, const TPMT_PUBLIC *pub,
	const TPM2B_PRIVATE *priv, struct csm_plugin_key **ret)
{
	struct csm_plugin_key *k = calloc(1, sizeof(*k));
	int r = CSM_ENOMEM;

	if (k == NULL || (k->priv = calloc(1, sizeof(*k->priv))) == NULL)
		goto out;
	k->alg = alg;
	k->use = use;
	k->pub = *pub;
	*k->priv = *priv;
	if ((r = t2_name_of(c, &k->pub, &k->name)) != 0)
		goto out;
	*ret = k;
	k = NULL;
out:
	t2_key_free(k);
	return r;
}

static TSS2_RC fresh_step(struct csm_plugin_ctx *c, void *arg)
{
	return t2_key_use(c, arg);
}

/* A new key is loaded at once, so that its first signature costs no more than the later ones. Only a help:
 * a key that cannot be kept here is loaded from its blobs when it is used. */
static void fresh_add(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, const struct generate_arg *g)
{
	struct csm_plugin_key *k;

	if (t2_key_new(c, spec->alg, spec->use, &g->pub.publicArea, &g->priv, &k) != 0)
		return;
	if (t2_run(c, fresh_step, k) != 0) {
		t2_unload(c, k);
		return;
	}
	if (c->nfresh == T2_FRESH_MAX)
		t2_unload(c, c->fresh[--c->nfresh]);
	for (size_t i = c->nfresh++; i > 0; i--)
		c->fresh[i] = c->fresh[i - 1];
	c->fresh[0] = k;
}

/* The one that was made from the same blobs; it becomes the caller's. */
static struct csm_plugin_key *fresh_take(struct csm_plugin_ctx *c, const struct csm_plugin_key *like)
{
	for (size_t i = 0; i < c->nfresh; i++) {
		struct csm_plugin_key *k = c->fresh[i];

		if (!t2_name_equal(&k->name, &like->name) || k->use != like->use || k->priv->size != like->priv->size ||
			memcmp(k->priv->buffer, like->priv->buffer, k->priv->size) != 0)
			continue;
		c->nfresh--;
		for (; i < c->nfresh; i++)
			c->fresh[i] = c->fresh[i + 1];
		return k;
	}
	return NULL;
}

void t2_fresh_drop(struct csm_plugin_ctx *c)
{
	while (c->nfresh > 0)
		t2_unload(c, c->fresh[--c->nfresh]);
}

int t2_generate(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct generate_arg g = {.alg = spec->alg, .exportable = spec->exportable};
	size_t spki_len = 0, pub_len = 0, priv_len = 0;
	int r;

	if ((r = template_make(spec, &g.template)) != 0 || (r = t2_run(c, generate_step, &g)) != 0 || (r = g.r) != 0)
		return r;
	if (!is_of_template(&g.pub.publicArea, &g.template))
		return CSM_EBACKEND;
	if ((r = csm_tpm_public_spki(&g.pub.publicArea, spki->p, spki->cap, &spki_len)) != 0)
		return r;
	if (Tss2_MU_TPM2B_PUBLIC_Marshal(&g.pub, pub->p, pub->cap, &pub_len) != TSS2_RC_SUCCESS ||
		Tss2_MU_TPM2B_PRIVATE_Marshal(&g.priv, priv->p, priv->cap, &priv_len) != TSS2_RC_SUCCESS)
		return CSM_ETOO_LARGE;
	spki->len = spki_len;
	pub->len = pub_len;
	priv->len = priv_len;
	fresh_add(c, spec, &g);
	return 0;
}

/* libtss2-mu does not compare a public area's size field with what it read: written again, it must give
 * the same bytes. */
int t2_public_parse(const uint8_t *p, size_t len, size_t *off, TPM2B_PUBLIC *ret)
{
	uint8_t again[sizeof(*ret)];
	size_t start = *off, n = 0;

	if (len > CSM_PLUGIN_PRIV_MAX || Tss2_MU_TPM2B_PUBLIC_Unmarshal(p, len, off, ret) != TSS2_RC_SUCCESS ||
		Tss2_MU_TPM2B_PUBLIC_Marshal(ret, again, sizeof(again), &n) != TSS2_RC_SUCCESS || n != *off - start ||
		memcmp(again, p + start, n) != 0)
		return CSM_EINVALID;
	return 0;
}

/* The blobs as structures; anything but exactly one of each is refused. */
static int parse_blob(const struct csm_plugin_blob *blob, TPM2B_PUBLIC *pub, TPM2B_PRIVATE *priv)
{
	size_t off = 0;

	if (blob->pub_len > CSM_PLUGIN_PUB_MAX || blob->priv_len > CSM_PLUGIN_PRIV_MAX ||
		t2_public_parse(blob->pub, blob->pub_len, &off, pub) != 0 || off != blob->pub_len)
		return CSM_ETAMPERED;
	off = 0;
	if (Tss2_MU_TPM2B_PRIVATE_Unmarshal(blob->priv, blob->priv_len, &off, priv) != TSS2_RC_SUCCESS ||
		off != blob->priv_len)
		return CSM_ETAMPERED;
	return 0;
}

/* The blob must be of the kind that the record says, and be the record's public key. */
static int check_blob(const struct csm_plugin_keyspec *spec, const struct csm_plugin_blob *blob, const TPMT_PUBLIC *pub)
{
	uint8_t spki[SPKI_MAX];
	TPMT_PUBLIC want;
	size_t len = 0;
	int r;

	if ((r = template_make(spec, &want)) != 0)
		return r;
	/* Imported keys were not born here; all else is as of the template. */
	want.objectAttributes = pub->objectAttributes;
	if (!is_of_template(pub, &want) || (pub->objectAttributes & TPMA_OBJECT_RESTRICTED) != 0)
		return CSM_ETAMPERED;
	/* Anybody may have made it elsewhere, with an authorisation that each use would fail at, towards lockout. */
	if ((pub->objectAttributes & (TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_NODA)) == 0)
		return CSM_EUNSUPPORTED;
	if (csm_tpm_public_spki(pub, spki, sizeof(spki), &len) != 0 || len != blob->spki_len ||
		memcmp(spki, blob->spki, len) != 0)
		return CSM_ETAMPERED;
	return 0;
}

int t2_load(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, const struct csm_plugin_blob *blob,
	struct csm_plugin_key **ret)
{
	struct csm_plugin_key *k = NULL, *fresh;
	TPM2B_PUBLIC pub = {0};
	TPM2B_PRIVATE priv = {0};
	int r;

	if ((r = parse_blob(blob, &pub, &priv)) != 0 || (r = check_blob(spec, blob, &pub.publicArea)) != 0 ||
		(r = t2_key_new(c, spec->alg, spec->use, &pub.publicArea, &priv, &k)) != 0)
		return r;
	if ((fresh = fresh_take(c, k)) != NULL) {
		t2_key_free(k);
		k = fresh;
	}
	*ret = k;
	return 0;
}

void t2_unload(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	if (k == NULL)
		return;
	if (k->handle != 0 && (!c->ready || t2_rc_is_transport(t2_key_flush(c, k)))) {
		/* It may still be in there: recovery finds it by its Name. */
		t2_key_drop(c, k);
		c->lost_answer = true;
		c->ready = false;
	}
	t2_tcti_release(&c->tcti, T2_HOLD_MS);
	t2_key_free(k);
}

int t2_public_key(struct csm_plugin_ctx *c, struct csm_plugin_key *k, struct csm_plugin_out *spki)
{
	size_t len = 0;
	int r;

	(void)c;
	if ((r = csm_tpm_public_spki(&k->pub, spki->p, spki->cap, &len)) == 0)
		spki->len = len;
	return r;
}
