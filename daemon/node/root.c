#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "daemon/node/root.h"
#include "libclient/base/lockmem.h"

#define ROOT_LEN 32u
/* A root key wrapped by a secret from outside: salt, nonce, secretbox. */
#define WRAP_LEN (crypto_pwhash_SALTBYTES + crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES + ROOT_LEN)

/* ---- a secret from outside: Argon2id for what a person thought of, BLAKE2b for what is random ---- */

static int wrap_key_of(struct broker *b, const uint8_t *salt, uint8_t key[static crypto_secretbox_KEYBYTES])
{
	struct csm_bin secret = b->setup.root_secret;
	int bad;

	if (secret.p == NULL || secret.n == 0)
		return CSM_EUNAVAILABLE;
	if (b->cfg.root_key == CSM_ROOT_PASSPHRASE)
		bad = crypto_pwhash(key, crypto_secretbox_KEYBYTES, (const char *)secret.p, secret.n, salt,
			crypto_pwhash_OPSLIMIT_MODERATE, crypto_pwhash_MEMLIMIT_MODERATE, crypto_pwhash_ALG_ARGON2ID13);
	else
		bad = crypto_generichash_blake2b_salt_personal(key, crypto_secretbox_KEYBYTES, secret.p, secret.n, NULL, 0,
			salt, (const uint8_t *)"csm-root-wrap-v1");
	return bad ? CSM_ENOMEM : 0;
}

static int outside_wrap(void *arg, const uint8_t key[static 32], struct csm_plugin_out *wrapped)
{
	CSM_WIPED(wrap, crypto_secretbox_KEYBYTES);
	uint8_t *salt = wrapped->p, *nonce = salt + crypto_pwhash_SALTBYTES;
	int r;

	if (wrapped->cap < WRAP_LEN)
		return CSM_ETOO_LARGE;
	randombytes_buf(salt, crypto_pwhash_SALTBYTES + crypto_secretbox_NONCEBYTES);
	if ((r = wrap_key_of(arg, salt, wrap)) != 0)
		return r;
	crypto_secretbox_easy(nonce + crypto_secretbox_NONCEBYTES, key, ROOT_LEN, nonce, wrap);
	wrapped->len = WRAP_LEN;
	return 0;
}

static int outside_unwrap(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32])
{
	CSM_WIPED(wrap, crypto_secretbox_KEYBYTES);
	const uint8_t *nonce = wrapped + crypto_pwhash_SALTBYTES;
	int r;

	if (n != WRAP_LEN)
		return CSM_ETAMPERED;
	if ((r = wrap_key_of(arg, wrapped, wrap)) != 0)
		return r;
	if (crypto_secretbox_open_easy(key, nonce + crypto_secretbox_NONCEBYTES,
		    crypto_secretbox_MACBYTES + ROOT_LEN, nonce, wrap) != 0)
		return CSM_EINVALID;
	return 0;
}

/* ---- the TPM; its calls belong on its owner's thread ---- */

struct tpm_call {
	struct csm_backend *be;
	enum { TPM_SEAL, TPM_UNSEAL, TPM_READ, TPM_INCREMENT } what;
	struct csm_bin in;
	struct csm_plugin_out *out;
	uint64_t *count;
	int r;
};

static void on_owner(void *arg)
{
	struct tpm_call *c = arg;

	switch (c->what) {
	case TPM_SEAL:
		c->r = csm_be_seal(c->be, c->in, c->out);
		break;
	case TPM_UNSEAL:
		c->r = csm_be_unseal(c->be, c->in, c->out);
		break;
	case TPM_READ:
	case TPM_INCREMENT:
	default:
		c->r = csm_be_counter(c->be, c->what == TPM_INCREMENT, c->count);
	}
}

static int tpm_do(struct tpm_call *c, struct broker *b)
{
	int r;

	c->be = broker_backend(b, CSM_STR("tpm2"));
	if (c->be == NULL)
		return CSM_EUNAVAILABLE;
	r = csm_backend_run(c->be, on_owner, c);
	return r != 0 ? r : c->r;
}

static int tpm_wrap(void *arg, const uint8_t key[static 32], struct csm_plugin_out *wrapped)
{
	struct tpm_call c = {.what = TPM_SEAL, .in = {key, ROOT_LEN}, .out = wrapped};

	return tpm_do(&c, arg);
}

static int tpm_unwrap(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32])
{
	struct csm_plugin_out out = {.p = key, .cap = ROOT_LEN};
	struct tpm_call c = {.what = TPM_UNSEAL, .in = {wrapped, n}, .out = &out};
	int r = tpm_do(&c, arg);

	return r != 0 ? r : out.len == ROOT_LEN ? 0 : CSM_ETAMPERED;
}

static int tpm_read(void *arg, uint64_t *ret)
{
	struct tpm_call c = {.what = TPM_READ, .count = ret};

	return tpm_do(&c, arg);
}

static int tpm_increment(void *arg, uint64_t *ret)
{
	struct tpm_call c = {.what = TPM_INCREMENT, .count = ret};

	return tpm_do(&c, arg);
}

int root_source(struct broker *b, struct csm_root_source *ret, const char **why)
{
	static const char *const names[] = {"tpm", "passphrase", "file", "credential"};
	struct csm_backend *tpm = broker_backend(b, CSM_STR("tpm2"));

	memset(ret, 0, sizeof(*ret));
	ret->arg = b;
	ret->mode = names[b->cfg.root_key];
	if (b->cfg.root_key == CSM_ROOT_TPM) {
		*why = b->setup.device.n > 0 ? "root_key is tpm, and the TPM is not usable, see backends" :
					       "root_key is tpm, and this machine has none at /dev/tpmrm0 or /dev/tpm0: "
					       "a node without a TPM needs root_key: file, passphrase or credential";
		if (tpm == NULL || tpm->ctx == NULL)
			return CSM_EUNAVAILABLE;
		ret->wrap = tpm_wrap;
		ret->unwrap = tpm_unwrap;
		ret->counter_read = tpm_read;
		ret->counter_increment = tpm_increment;
		return 0;
	}
	*why = "the root key's file, passphrase or credential could not be read";
	if (b->setup.root_secret.p == NULL || b->setup.root_secret.n == 0)
		return CSM_EUNAVAILABLE;
	ret->wrap = outside_wrap;
	ret->unwrap = outside_unwrap;
	return 0;
}

/* ---- sealing anew ---- */

int root_unseal(struct broker *b, struct csm_store *store, uint8_t key[static 32])
{
	struct csm_backend *be = broker_backend(b, CSM_STR("tpm2"));
	struct csm_plugin_out out = {.p = key, .cap = ROOT_LEN};
	uint8_t wrapped[ROOT_WRAPPED_MAX];
	size_t n = sizeof(wrapped);
	int r;

	if (be == NULL || store == NULL)
		return CSM_EUNAVAILABLE;
	if ((r = csm_store_root_wrapped(store, wrapped, &n)) != 0 ||
		(r = csm_be_unseal(be, (struct csm_bin){wrapped, n}, &out)) != 0)
		return r;
	return out.len == ROOT_LEN ? csm_store_root_check(store, key) : CSM_ETAMPERED;
}

static void reseal_why(struct csm_backend *be, struct root_reseal *ret, const char *what, int r)
{
	struct csm_backend_health health;

	csm_be_health(be, &health);
	snprintf(ret->why, sizeof(ret->why), "%s: %.120s", what,
		r == CSM_EDENIED && health.h.seal_refused != NULL ? health.h.seal_refused : csm_err_text(r));
}

int root_seal_proven(struct broker *b, const uint8_t key[static 32], struct root_reseal *ret)
{
	CSM_WIPED(again, ROOT_LEN);
	struct csm_backend *be = broker_backend(b, CSM_STR("tpm2"));
	struct csm_plugin_out sealed = {.p = ret->wrapped, .cap = sizeof(ret->wrapped)}, out = {.p = again, .cap = ROOT_LEN};
	struct csm_backend_health health;
	int r;

	if (be == NULL)
		return CSM_EUNAVAILABLE;
	if ((r = csm_be_seal(be, (struct csm_bin){key, ROOT_LEN}, &sealed)) != 0) {
		reseal_why(be, ret, "nothing has changed, the root key cannot be sealed", r);
		return r;
	}
	r = csm_be_unseal(be, (struct csm_bin){sealed.p, sealed.len}, &out);
	if (r == 0 && (out.len != ROOT_LEN || sodium_memcmp(again, key, ROOT_LEN) != 0))
		r = CSM_EBACKEND;
	if (r != 0) {
		reseal_why(be, ret, "nothing has changed, the root key would not come out again", r);
		return r;
	}
	csm_be_health(be, &health);
	snprintf(ret->sealed, sizeof(ret->sealed), "%s", health.h.sealed != NULL ? health.h.sealed : "none");
	ret->len = sealed.len;
	return 0;
}

int root_reseal(struct broker *b, struct root_reseal *ret)
{
	CSM_WIPED(key, ROOT_LEN);
	int r = root_unseal(b, b->store, key);

	if (r != 0) {
		reseal_why(broker_backend(b, CSM_STR("tpm2")), ret, "nothing has changed, the root key cannot be had", r);
		return r;
	}
	if ((r = root_seal_proven(b, key, ret)) != 0 && root_unseal(b, b->store, key) != 0)
		snprintf(ret->why, sizeof(ret->why), "the root key can be had no more: the TPM is away");
	return r;
}
