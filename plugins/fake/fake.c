#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include "libclient/base/lockmem.h"
#include "plugins/fake/fake.h"

#define FAKE_ALGS (1u << CSM_ALG_P256 | 1u << CSM_ALG_RSA2048)
/* The public part: algorithm and use, which the wrapping binds to the private part. */
#define PUB_LEN 2u

static const char *script_text(const struct csm_plugin_host *host)
{
	return host->config != NULL ? host->config(host->arg, "script") : NULL;
}

/* Nobody gets this back end by accident: it is there where a script is configured, if an empty one. */
static int fake_probe(const struct csm_plugin_host *host)
{
	return script_text(host) != NULL ? 0 : CSM_EUNSUPPORTED;
}

static int script_read(const struct csm_plugin_host *host, struct fake_script *ret)
{
	char line[96];
	size_t at = 0;
	int r;

	if ((r = fake_probe(host)) != 0)
		return r;
	if ((r = fake_script_parse(csm_str_of(script_text(host)), ret, &at)) != 0 && host->log != NULL) {
		snprintf(line, sizeof(line), "fake: the script is not understood at its byte %zu", at + 1);
		host->log(host->arg, LOG_WARNING, line);
	}
	return r;
}

static int fake_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret)
{
	static uint64_t opens; /* of the process, for open=fail:ERROR:N; the owner thread's */
	struct csm_plugin_ctx *ctx = calloc(1, sizeof(*ctx));
	int r;

	if (ctx == NULL)
		return CSM_ENOMEM;
	if ((r = script_read(host, &ctx->script)) != 0)
		goto out;
	ctx->script.calls[FAKE_OPEN] = opens;
	for (size_t i = 0; i < ctx->script.n; i++) {
		struct fake_rule *rule = &ctx->script.rules[i];

		if (rule->slot == FAKE_OPEN && opens > rule->after)
			rule->failed = (uint32_t)(opens - rule->after);
	}
	opens++;
	/* OpenSSL reads its configuration at the first use: now, before a sandbox closes. */
	EVP_PKEY_free(EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"));
	if ((r = fake_script_step(&ctx->script, FAKE_OPEN)) != 0 || (r = fake_device_open(host, &ctx->device)) != 0)
		goto out;
	*ret = ctx;
	ctx = NULL;
	r = 0;
out:
	free(ctx);
	return r;
}

static void fake_close(struct csm_plugin_ctx *ctx)
{
	if (ctx == NULL)
		return;
	fake_device_clear(&ctx->device);
	free(ctx);
}

static int fake_capabilities(struct csm_plugin_ctx *ctx, struct csm_plugin_caps *ret)
{
	(void)ctx;
	*ret = (struct csm_plugin_caps){
		.algs = FAKE_ALGS,
		.uses = CSM_USE_SIGN | CSM_USE_DECRYPT | CSM_USE_DERIVE,
		.protection = "sealed",
	};
	return 0;
}

static void fake_health(struct csm_plugin_ctx *ctx, struct csm_plugin_health *ret)
{
	bool down = fake_script_down(&ctx->script);

	*ret = (struct csm_plugin_health){.usable = !down, .reason = down ? "down by its script" : NULL};
}

static int spec_check(const struct csm_plugin_keyspec *spec)
{
	if ((unsigned)spec->alg >= CSM_ALG__COUNT || (FAKE_ALGS & 1u << spec->alg) == 0 || spec->exportable)
		return CSM_EUNSUPPORTED;
	return csm_alg_check_use(spec->alg, spec->use);
}

/* What the private part is bound to: the public part and the public key. */
static size_t aad_make(const struct csm_plugin_keyspec *spec, const uint8_t *spki, size_t n,
	uint8_t aad[static PUB_LEN + CSM_SPKI_MAX])
{
	aad[0] = (uint8_t)spec->alg;
	aad[1] = (uint8_t)spec->use;
	memcpy(aad + PUB_LEN, spki, n);
	return PUB_LEN + n;
}

static int key_give(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, EVP_PKEY *pkey,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct csm_plugin_out spki_made = *spki, priv_made = *priv;
	uint8_t aad[PUB_LEN + CSM_SPKI_MAX], *pub_der = NULL, *der = NULL;
	int spki_len = i2d_PUBKEY(pkey, &pub_der), n = i2d_PrivateKey(pkey, &der), r = CSM_EBACKEND;
	size_t aad_len;

	if (spki_len <= 0 || (size_t)spki_len > CSM_SPKI_MAX || n <= 0)
		goto out;
	aad_len = aad_make(spec, pub_der, (size_t)spki_len, aad);
	if ((r = fake_out(&spki_made, pub_der, (size_t)spki_len)) != 0 ||
		(r = fake_seal(&ctx->device, der, (size_t)n, aad, aad_len, &priv_made)) != 0 ||
		(r = fake_out(pub, aad, PUB_LEN)) != 0)
		goto out;
	*spki = spki_made;
	*priv = priv_made;
out:
	OPENSSL_free(pub_der);
	OPENSSL_clear_free(der, n > 0 ? (size_t)n : 0);
	return r;
}

static int fake_generate(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	EVP_PKEY *pkey;
	int r;

	if ((r = fake_script_step(&ctx->script, FAKE_GENERATE)) != 0 || (r = spec_check(spec)) != 0)
		return r;
	pkey = csm_alg_is_rsa(spec->alg) ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048)
					 : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	r = pkey != NULL ? key_give(ctx, spec, pkey, spki, pub, priv) : CSM_EBACKEND;
	EVP_PKEY_free(pkey);
	if (r != 0)
		ERR_clear_error();
	return r;
}

static void fake_unload(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	(void)ctx;
	if (key == NULL)
		return;
	EVP_PKEY_free(key->pkey);
	free(key);
}

/* The wrapping proves private part, public part and public key at once. */
static int key_read(const struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
	const struct csm_plugin_blob *blob, EVP_PKEY **ret)
{
	uint8_t aad[PUB_LEN + CSM_SPKI_MAX];
	CSM_WIPED(der, CSM_PLUGIN_PRIV_MAX);
	struct csm_plugin_out out = {der, sizeof(der), 0};
	const uint8_t *at = der;
	size_t aad_len;

	if (blob->pub_len != PUB_LEN || blob->spki_len > CSM_SPKI_MAX)
		return CSM_ETAMPERED;
	aad_len = aad_make(spec, blob->spki, blob->spki_len, aad);
	if (memcmp(aad, blob->pub, PUB_LEN) != 0 ||
		fake_unseal(&ctx->device, blob->priv, blob->priv_len, aad, aad_len, &out) != 0)
		return CSM_ETAMPERED;
	*ret = d2i_PrivateKey(csm_alg_is_rsa(spec->alg) ? EVP_PKEY_RSA : EVP_PKEY_EC, NULL, &at, (long)out.len);
	return *ret != NULL ? 0 : CSM_EBACKEND;
}

static int fake_load(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
	const struct csm_plugin_blob *blob, struct csm_plugin_key **ret)
{
	struct csm_plugin_key *key;
	int r;

	if ((r = fake_script_step(&ctx->script, FAKE_LOAD)) != 0 || (r = spec_check(spec)) != 0)
		return r;
	if ((key = calloc(1, sizeof(*key))) == NULL)
		return CSM_ENOMEM;
	if ((r = key_read(ctx, spec, blob, &key->pkey)) != 0) {
		ERR_clear_error();
		free(key);
		return r;
	}
	key->alg = spec->alg;
	key->use = spec->use;
	key->spki_len = blob->spki_len;
	memcpy(key->spki, blob->spki, blob->spki_len);
	*ret = key;
	return 0;
}

static int fake_public_key(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct csm_plugin_out *spki)
{
	int r = fake_script_step(&ctx->script, FAKE_PUBLIC_KEY);

	return r != 0 ? r : fake_out(spki, key->spki, key->spki_len);
}

#define SEAL_AAD ((const uint8_t *)"seal") /* never a public part: that is two bytes and a key */

static int fake_seal_slot(struct csm_plugin_ctx *ctx, const uint8_t *in, size_t in_len, struct csm_plugin_out *sealed)
{
	int r = fake_script_step(&ctx->script, FAKE_SEAL);

	if (r != 0)
		return r;
	if (in_len > 128)
		return CSM_ETOO_LARGE;
	return fake_seal(&ctx->device, in, in_len, SEAL_AAD, 4, sealed);
}

static int fake_unseal_slot(
	struct csm_plugin_ctx *ctx, const uint8_t *sealed, size_t sealed_len, struct csm_plugin_out *out)
{
	int r = fake_script_step(&ctx->script, FAKE_UNSEAL);

	return r != 0 ? r : fake_unseal(&ctx->device, sealed, sealed_len, SEAL_AAD, 4, out);
}

static int fake_counter_read(struct csm_plugin_ctx *ctx, uint64_t *ret)
{
	int r = fake_script_step(&ctx->script, FAKE_COUNTER_READ);

	if (r == 0)
		*ret = ctx->device.counter;
	return r;
}

static int fake_counter_increment(struct csm_plugin_ctx *ctx, uint64_t *ret)
{
	int r;

	if ((r = fake_script_step(&ctx->script, FAKE_COUNTER_INCREMENT)) == 0 && (r = fake_count(&ctx->device)) == 0)
		*ret = ctx->device.counter;
	return r;
}

static int fake_random(struct csm_plugin_ctx *ctx, uint8_t *p, size_t len)
{
	int r = fake_script_step(&ctx->script, FAKE_RANDOM);

	if (r != 0)
		return r;
	if (len > INT32_MAX)
		return CSM_ETOO_LARGE;
	return RAND_bytes(p, (int)len) == 1 ? 0 : CSM_EBACKEND;
}

const struct csm_plugin csm_plugin_fake = {
	.abi = CSM_PLUGIN_ABI,
	.name = "fake",
	.flags = CSM_PLUGIN_SERIAL,
	.probe = fake_probe,
	.open = fake_open,
	.close = fake_close,
	.capabilities = fake_capabilities,
	.health = fake_health,
	.generate = fake_generate,
	.load = fake_load,
	.unload = fake_unload,
	.public_key = fake_public_key,
	.sign = fake_sign,
	.sign_init = fake_sign_init,
	.sign_update = fake_sign_update,
	.sign_final = fake_sign_final,
	.sign_cleanup = fake_sign_cleanup,
	.decrypt = fake_decrypt,
	.derive = fake_derive,
	.seal = fake_seal_slot,
	.unseal = fake_unseal_slot,
	.counter_read = fake_counter_read,
	.counter_increment = fake_counter_increment,
	.random = fake_random,
};
