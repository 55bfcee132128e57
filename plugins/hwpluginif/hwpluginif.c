/* Bringing libraries up, finding and loading keys, and the table. */
#include "plugins/hwpluginif/hwpluginif.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <openssl/evp.h>
#include "libclient/base/lockmem.h"

#define PUB_VERSION 1u
#define PUB_HASH 32u
#define ALGS (1u << CSM_ALG_RSA2048 | 1u << CSM_ALG_RSA3072 | 1u << CSM_ALG_RSA4096)

void hw_tell(struct csm_plugin_ctx *c, int level, const char *fmt, ...)
{
	char text[HW_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (strcmp(text, c->why) == 0)
		return;
	memcpy(c->why, text, sizeof(text));
	if (c->host->log != NULL)
		c->host->log(c->host->arg, level, text);
}

static const char *config(const struct csm_plugin_ctx *c, const char *name)
{
	const char *v = c->host->config != NULL ? c->host->config(c->host->arg, name) : NULL;

	return v != NULL && v[0] != '\0' ? v : NULL;
}

/* ---- key folders ---- */

static struct hw_key *key_named(const struct csm_plugin_ctx *c, const char *name)
{
	for (size_t i = 0; i < c->n_keys; i++)
		if (strcmp(c->keys[i]->name, name) == 0)
			return c->keys[i];
	return NULL;
}

/* Only the label is of use here. PINs in the same file stay in locked memory, which is wiped. */
static void read_label(struct csm_plugin_ctx *c, struct hw_key *k)
{
	char name[HW_NAME_MAX + 16], why[HW_WHY_MAX];
	uint8_t *text = NULL;
	size_t len = 0, n;
	const char *at;

	snprintf(name, sizeof(name), "%s/pkcs11.cfg", k->name);
	if (hw_file_read(c->root, name, &text, &len, why) != 0)
		return;
	for (at = (const char *)text; at != NULL; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, "key_label:", 10) != 0)
			continue;
		at += 10;
		at += strspn(at, " \t");
		n = strcspn(at, "\r\n");
		if (n < sizeof(k->label))
			memcpy(k->label, at, n);
	}
	csm_lock_free(text);
}

static void key_free(struct hw_key *k)
{
	hw_files_free(&k->files);
	free(k);
}

static int add_key(struct csm_plugin_ctx *c, struct hw_library *l, const char *folder)
{
	static const char *const prefixes[] = {"K", "HW", NULL};
	char name[HW_NAME_MAX], why[HW_WHY_MAX];
	struct hw_key *k, **grown;
	int r;

	if ((size_t)snprintf(name, sizeof(name), "%s/%s", l->name, folder) >= sizeof(name) || c->n_keys == HW_KEYS_MAX)
		return CSM_ETOO_LARGE;
	if (key_named(c, name) != NULL)
		return 0;
	if ((grown = reallocarray(c->keys, c->n_keys + 1, sizeof(struct hw_key *))) == NULL)
		return CSM_ENOMEM;
	c->keys = grown;
	if ((k = calloc(1, sizeof(*k))) == NULL)
		return CSM_ENOMEM;
	k->lib = l;
	memcpy(k->name, name, sizeof(k->name));
	/* One folder that cannot be used does not keep the others from their work. */
	if ((r = hw_files_read(c->root, name, prefixes, &k->files, why)) != 0 || k->files.n == 0) {
		if (r == 0)
			snprintf(why, sizeof(why), "%.200s has no file that begins with K or HW", name);
		hw_tell(c, LOG_WARNING, "%s", why);
		key_free(k);
		return r == CSM_ENOMEM ? r : 0;
	}
	read_label(c, k);
	c->keys[c->n_keys++] = k;
	return 0;
}

static int add_keys(struct csm_plugin_ctx *c, struct hw_library *l)
{
	char **names = NULL;
	size_t n = 0;
	int r;

	if ((r = hw_folders(c->root, l->name, "key", HW_KEYS_MAX, &names, &n)) != 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_key(c, l, names[i]);
	hw_folders_free(names, n);
	return r;
}

/* ---- libraries ---- */

static void library_free(struct hw_library *l)
{
	hw_library_stop(l);
	hw_files_free(&l->activate);
	/* It stays mapped: it may have left threads, or exit handlers. */
	free(l);
}

/* The folder's own plugin.so, or the one that the configuration names for those that have none. */
static int library_path(struct csm_plugin_ctx *c, const char *folder, char path[static PATH_MAX], char why[static HW_WHY_MAX])
{
	const char *module = config(c, "module");
	char name[HW_NAME_MAX + 16];
	int r;

	snprintf(name, sizeof(name), "%s/plugin.so", folder);
	if ((r = hw_inside(c->root, name, path)) == 0)
		return 0;
	snprintf(why, HW_WHY_MAX, "%.200s: there is no such library in it", name);
	if (r != CSM_ENOT_FOUND || module == NULL)
		return CSM_EUNSUPPORTED;
	if (!hw_trusted(module, why))
		return CSM_EUNSUPPORTED;
	return realpath(module, path) != NULL ? 0 : CSM_EUNSUPPORTED;
}

static int add_library(struct csm_plugin_ctx *c, const char *folder)
{
	static const char *const prefixes[] = {"A", NULL};
	char name[HW_NAME_MAX + 16], path[PATH_MAX], why[HW_WHY_MAX];
	struct hw_library *l = calloc(1, sizeof(*l));
	int r = CSM_ENOMEM;

	if (l == NULL)
		return r;
	r = CSM_EINVALID;
	snprintf(why, sizeof(why), "the name of %.200s is too long", folder);
	if ((size_t)snprintf(l->name, sizeof(l->name), "%s", folder) >= sizeof(l->name))
		goto out;
	snprintf(name, sizeof(name), "%s/activate", folder);
	if ((r = hw_files_read(c->root, name, prefixes, &l->activate, why)) != 0 && r != CSM_ENOT_FOUND)
		goto out;
	if ((r = library_path(c, folder, path, why)) != 0 || (r = hw_library_open(l, path, why)) != 0)
		goto out;
	/* It knows of no instances: what one folder has activated would be the other's. */
	for (size_t i = 0; i < c->n_libs; i++)
		if (c->libs[i]->so == l->so) {
			snprintf(why, sizeof(why), "%.200s: its library is that of %.200s already", folder, c->libs[i]->name);
			r = CSM_EUNSUPPORTED;
			goto out;
		}
	if (hw_library_start(l, why) != 0)
		hw_tell(c, LOG_WARNING, "%s", why);
	c->libs[c->n_libs++] = l;
	if ((r = add_keys(c, l)) == CSM_ENOMEM)
		return r;
	return 0;
out:
	hw_tell(c, LOG_WARNING, "%s", why);
	library_free(l);
	return r == CSM_ENOMEM ? r : 0;
}

/* Whether anything can be read differs from whether it may: both are looked at anew each second. */
static int bring_up(struct csm_plugin_ctx *c)
{
	const char *folder = config(c, "folder"), *only = config(c, "slot");
	char why[HW_WHY_MAX], **names = NULL;
	size_t n = 0;
	int r;

	c->tried_ms = hw_now_ms();
	if (folder == NULL) {
		hw_tell(c, LOG_WARNING, "no folder is configured");
		return CSM_EUNAVAILABLE;
	}
	if (!hw_trusted(folder, why)) {
		hw_tell(c, LOG_WARNING, "the folder is refused: %s", why);
		return CSM_EUNAVAILABLE;
	}
	if (realpath(folder, c->root) == NULL || (r = hw_folders(c->root, "", "S", HW_LIBRARIES_MAX, &names, &n)) != 0) {
		hw_tell(c, LOG_WARNING, "the folder cannot be read, or has more than %u folders for libraries", HW_LIBRARIES_MAX);
		return CSM_EUNAVAILABLE;
	}
	for (size_t i = 0; i < n && r == 0; i++)
		if (only == NULL || strcmp(only, names[i]) == 0)
			r = add_library(c, names[i]);
	hw_folders_free(names, n);
	if (r != 0)
		return r;
	if (c->n_libs == 0) {
		if (c->why[0] == '\0')
			hw_tell(c, LOG_WARNING, "the folder has no library in it");
		return CSM_EUNAVAILABLE;
	}
	c->up = true;
	return 0;
}

static int ready(struct csm_plugin_ctx *c)
{
	if (c->up)
		return 0;
	if (c->tried_ms != 0 && hw_now_ms() - c->tried_ms < HW_RESTART_MS)
		return CSM_EUNAVAILABLE;
	return bring_up(c);
}

/* A library that was away may be there now. */
static int library_ready(struct csm_plugin_ctx *c, struct hw_library *l)
{
	char why[HW_WHY_MAX];
	int r;

	if (l->up)
		return 0;
	if (hw_now_ms() - l->started_ms < HW_RESTART_MS)
		return CSM_EUNAVAILABLE;
	if ((r = hw_library_start(l, why)) != 0)
		hw_tell(c, LOG_WARNING, "%s", why);
	return r;
}

/* What was put into the folder since. */
static void look_again(struct csm_plugin_ctx *c)
{
	char why[HW_WHY_MAX];

	if (!hw_trusted(c->root, why)) {
		hw_tell(c, LOG_WARNING, "the folder is refused: %s", why);
		return;
	}
	for (size_t i = 0; i < c->n_libs; i++)
		if (add_keys(c, c->libs[i]) != 0)
			hw_tell(c, LOG_WARNING, "%s: its key folders cannot be read", c->libs[i]->name);
}

/* ---- slots ---- */

static int hw_probe(const struct csm_plugin_host *host)
{
	return host->config != NULL && host->config(host->arg, "folder") != NULL ? 0 : CSM_EUNAVAILABLE;
}

static void hw_close(struct csm_plugin_ctx *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->n_keys; i++) {
		hw_key_out(c->keys[i]);
		key_free(c->keys[i]);
	}
	free(c->keys);
	for (size_t i = 0; i < c->n_libs; i++)
		library_free(c->libs[i]);
	free(c);
}

/* A folder or a library that cannot be used is no failure to open: health says why, and each call looks again. */
static int hw_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret)
{
	struct csm_plugin_ctx *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return CSM_ENOMEM;
	c->host = host;
	if (bring_up(c) == CSM_ENOMEM) {
		hw_close(c);
		return CSM_ENOMEM;
	}
	*ret = c;
	return 0;
}

static int hw_capabilities(struct csm_plugin_ctx *c, struct csm_plugin_caps *ret)
{
	(void)c;
	*ret = (struct csm_plugin_caps){.algs = ALGS, .uses = CSM_USE_SIGN, .protection = "hwplugin"};
	return 0;
}

static void hw_health(struct csm_plugin_ctx *c, struct csm_plugin_health *ret)
{
	size_t away = 0;

	memset(ret, 0, sizeof(*ret));
	if (ready(c) == 0)
		for (size_t i = 0; i < c->n_libs; i++)
			away += library_ready(c, c->libs[i]) != 0;
	ret->usable = c->up && away < c->n_libs;
	ret->reason = (!ret->usable || away > 0) && c->why[0] != '\0' ? c->why : NULL;
}

static int hw_generate(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	(void)c;
	(void)spec;
	(void)spki;
	(void)pub;
	(void)priv;
	return CSM_EUNSUPPORTED; /* the interface has no way to make a key */
}

static void loaded_free(struct csm_plugin_key *k)
{
	if (k != NULL)
		EVP_PKEY_free(k->pkey);
	free(k);
}

static void let_go(struct hw_key *h)
{
	if (--h->refs == 0)
		hw_key_out(h);
}

/* The loaded form for one meaning of the public key; takes pkey, and refers to h. */
static int loaded_make(struct hw_key *h, EVP_PKEY *pkey, struct csm_plugin_key **ret)
{
	struct csm_plugin_key *k = calloc(1, sizeof(*k));
	struct csm_plugin_out spki;
	int r = CSM_ENOMEM;

	if (k == NULL) {
		EVP_PKEY_free(pkey);
		return r;
	}
	k->key = h;
	k->pkey = pkey;
	k->len = (size_t)EVP_PKEY_get_size(pkey);
	spki = (struct csm_plugin_out){k->spki, sizeof(k->spki), 0};
	if ((r = hw_public_alg(pkey, &k->alg)) != 0 || (r = hw_public_spki(pkey, &spki)) != 0) {
		loaded_free(k);
		return r;
	}
	k->spki_len = spki.len;
	*ret = k;
	return 0;
}

/* Does the key sign as this public key says? By whichever scheme it can. */
static bool proves(struct csm_plugin_key *k)
{
	static const struct csm_scheme schemes[] = {
		{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}, {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA256}};
	static const uint8_t digest[CSM_DIGEST_MAX] = "csm takes this key into use";
	uint8_t sig[HW_MODULUS_MAX];

	for (size_t i = 0; i < 2; i++)
		if (hw_try(k, &schemes[i], digest, sig) == 0)
			return true;
	return false;
}

/* The meaning of the public key that is spki; or, where that is NULL, the one that a signature proves. */
static int choose(struct hw_key *h, const uint8_t *spki, size_t spki_len, struct csm_plugin_key **ret)
{
	EVP_PKEY *all[HW_MEANINGS];
	size_t n = hw_public_meanings(&h->pub, all);
	struct csm_plugin_key *k = NULL;
	int r = n > 0 ? CSM_ETAMPERED : CSM_EUNSUPPORTED;
	bool found = false;

	for (size_t i = 0; i < n; i++) {
		if (found) {
			EVP_PKEY_free(all[i]);
			continue;
		}
		if ((r = loaded_make(h, all[i], &k)) != 0)
			continue;
		found = spki != NULL ? k->spki_len == spki_len && memcmp(k->spki, spki, spki_len) == 0 : proves(k);
		if (!found)
			loaded_free(k);
	}
	if (!found)
		return r != 0 ? r : spki != NULL ? CSM_ETAMPERED : CSM_EBACKEND;
	*ret = k;
	return 0;
}

/* Into the library, after a new start of it if need be. */
static int take_in(struct csm_plugin_ctx *c, struct hw_key *h)
{
	int r;

	if ((r = library_ready(c, h->lib)) != 0)
		return r;
	if ((r = hw_key_in(h)) == CSM_EUNAVAILABLE && hw_library_restart(h->lib) == 0)
		r = hw_key_in(h);
	if (r == CSM_EUNAVAILABLE)
		hw_tell(c, LOG_WARNING, "%s: the library refuses to load the key", h->name);
	if (r == CSM_EBACKEND)
		hw_tell(c, LOG_WARNING, "%s: the library does not tell the public key", h->name);
	return r;
}

static int find_by_ref(struct csm_plugin_ctx *c, const char *ref, struct hw_key **ret)
{
	struct hw_key *k = key_named(c, ref);

	if (k == NULL) {
		look_again(c);
		k = key_named(c, ref);
	}
	for (size_t i = 0; k == NULL && i < c->n_keys; i++) {
		if (ref[0] == '\0' || strcmp(c->keys[i]->label, ref) != 0)
			continue;
		for (size_t j = i + 1; j < c->n_keys; j++)
			if (strcmp(c->keys[j]->label, ref) == 0)
				return CSM_ECONFLICT;
		k = c->keys[i];
	}
	*ret = k;
	return k != NULL ? 0 : CSM_ENOT_FOUND;
}

/* The stored public part: a version, a hash over the rest and the public key, the folder's name. */
static bool pub_hash(const char *name, size_t n, const uint8_t *spki, size_t spki_len, uint8_t out[static PUB_HASH])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(md, name, n) == 1 &&
		EVP_DigestUpdate(md, "", 1) == 1 && EVP_DigestUpdate(md, spki, spki_len) == 1 &&
		EVP_DigestFinal_ex(md, out, NULL) == 1;

	EVP_MD_CTX_free(md);
	return ok;
}

static int put_found(const struct csm_plugin_key *k, struct csm_plugin_out *spki, struct csm_plugin_out *pub,
	struct csm_plugin_out *priv)
{
	size_t n = strlen(k->key->name);
	uint8_t hash[PUB_HASH];

	if (spki->cap < k->spki_len || pub->cap < 1 + PUB_HASH + n)
		return CSM_ETOO_LARGE;
	if (!pub_hash(k->key->name, n, k->spki, k->spki_len, hash))
		return CSM_EBACKEND;
	memcpy(spki->p, k->spki, k->spki_len);
	pub->p[0] = PUB_VERSION;
	memcpy(pub->p + 1, hash, PUB_HASH);
	memcpy(pub->p + 1 + PUB_HASH, k->key->name, n);
	spki->len = k->spki_len;
	pub->len = 1 + PUB_HASH + n;
	priv->len = 0;
	return 0;
}

static int hw_find(struct csm_plugin_ctx *c, const char *ref, struct csm_plugin_keyspec *spec,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct csm_plugin_key *k = NULL;
	struct hw_key *h;
	int r;

	if ((r = ready(c)) != 0 || (r = find_by_ref(c, ref, &h)) != 0)
		return r;
	h->refs++;
	if ((r = take_in(c, h)) == 0 && (r = choose(h, NULL, 0, &k)) == CSM_EBACKEND)
		hw_tell(c, LOG_WARNING, "%s: no signature of it verifies with the public key that the library tells", h->name);
	if (r == 0 && (r = put_found(k, spki, pub, priv)) == 0)
		*spec = (struct csm_plugin_keyspec){.alg = k->alg, .use = CSM_USE_SIGN};
	loaded_free(k);
	let_go(h);
	return r;
}

static int parse_blob(const struct csm_plugin_blob *blob, char name[static HW_NAME_MAX])
{
	uint8_t hash[PUB_HASH];
	size_t n;

	if (blob->priv_len != 0 || blob->pub_len <= 1 + PUB_HASH || blob->pub_len - 1 - PUB_HASH >= HW_NAME_MAX ||
		blob->pub[0] != PUB_VERSION)
		return CSM_ETAMPERED;
	n = blob->pub_len - 1 - PUB_HASH;
	memcpy(name, blob->pub + 1 + PUB_HASH, n);
	name[n] = '\0';
	if (!pub_hash(name, n, blob->spki, blob->spki_len, hash) || memcmp(hash, blob->pub + 1, PUB_HASH) != 0)
		return CSM_ETAMPERED;
	return 0;
}

static int hw_load(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, const struct csm_plugin_blob *blob,
	struct csm_plugin_key **ret)
{
	struct csm_plugin_key *k = NULL;
	char name[HW_NAME_MAX];
	struct hw_key *h;
	int r;

	if ((r = parse_blob(blob, name)) != 0)
		return r;
	if (spec->use != CSM_USE_SIGN)
		return CSM_EUNSUPPORTED;
	if ((r = ready(c)) != 0)
		return r;
	if ((h = key_named(c, name)) == NULL) {
		look_again(c);
		if ((h = key_named(c, name)) == NULL) {
			hw_tell(c, LOG_WARNING, "%s: the key folder is not there, or cannot be used", name);
			return CSM_EUNAVAILABLE;
		}
	}
	h->refs++;
	if ((r = take_in(c, h)) == 0 && (r = choose(h, blob->spki, blob->spki_len, &k)) == CSM_ETAMPERED)
		hw_tell(c, LOG_WARNING, "%s: there is another key in the folder now", name);
	if (r == 0 && k->alg != spec->alg)
		r = CSM_ETAMPERED;
	if (r != 0) {
		loaded_free(k);
		let_go(h);
		return r;
	}
	*ret = k;
	return 0;
}

static void hw_unload(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	(void)c;
	if (k == NULL)
		return;
	let_go(k->key);
	loaded_free(k);
}

static int hw_public_key(struct csm_plugin_ctx *c, struct csm_plugin_key *k, struct csm_plugin_out *spki)
{
	(void)c;
	if (spki->cap < k->spki_len)
		return CSM_ETOO_LARGE;
	memcpy(spki->p, k->spki, k->spki_len);
	spki->len = k->spki_len;
	return 0;
}

static int hw_decrypt(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain)
{
	(void)c;
	(void)k;
	(void)scheme;
	(void)in;
	(void)in_len;
	(void)label;
	(void)label_len;
	(void)plain;
	return CSM_EUNSUPPORTED;
}

static int hw_derive(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared)
{
	(void)c;
	(void)k;
	(void)peer;
	(void)peer_len;
	(void)shared;
	return CSM_EUNSUPPORTED;
}

const struct csm_plugin csm_plugin_hwpluginif = {
	.abi = CSM_PLUGIN_ABI,
	.name = "hwpluginif",
	.flags = CSM_PLUGIN_SERIAL,
	.probe = hw_probe,
	.open = hw_open,
	.close = hw_close,
	.capabilities = hw_capabilities,
	.health = hw_health,
	.generate = hw_generate,
	.find = hw_find,
	.load = hw_load,
	.unload = hw_unload,
	.public_key = hw_public_key,
	.sign = hw_sign,
	.sign_init = hw_sign_init,
	.sign_update = hw_sign_update,
	.sign_final = hw_sign_final,
	.sign_cleanup = hw_sign_cleanup,
	.decrypt = hw_decrypt,
	.derive = hw_derive,
};
