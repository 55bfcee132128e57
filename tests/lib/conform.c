#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "tests/lib/conform.h"
#include "tests/lib/hwfix.h"
#include "tests/lib/plughost.h"
#include "tests/lib/swtpm.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define CANARY 0xa5
#define UNSET 0x7777u

struct target target;

/* ---- hosts ---- */

static int env_device(void *arg)
{
	const char *path = getenv("CSM_PLUGIN_DEVICE");

	(void)arg;
	return path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
}

static struct {
	char name[32];
	uint8_t p[256];
	size_t len;
} kept[8];

static int keep_remember(void *arg, const char *name, const uint8_t *p, size_t len)
{
	(void)arg;
	for (size_t i = 0; i < N_ELEMS(kept); i++) {
		if (kept[i].name[0] != '\0' && strcmp(kept[i].name, name) != 0)
			continue;
		if (len > sizeof(kept[i].p) || strlen(name) >= sizeof(kept[i].name))
			return CSM_ETOO_LARGE;
		snprintf(kept[i].name, sizeof(kept[i].name), "%s", name);
		memcpy(kept[i].p, p, len);
		kept[i].len = len;
		return 0;
	}
	return CSM_ENO_SPACE;
}

static int keep_recall(void *arg, const char *name, uint8_t *p, size_t *len)
{
	(void)arg;
	for (size_t i = 0; i < N_ELEMS(kept); i++) {
		if (kept[i].name[0] == '\0' || strcmp(kept[i].name, name) != 0)
			continue;
		if (kept[i].len > *len)
			return CSM_ETOO_LARGE;
		memcpy(p, kept[i].p, kept[i].len);
		*len = kept[i].len;
		return 0;
	}
	return CSM_ENOT_FOUND;
}

static void drop_log(void *arg, int level, const char *text)
{
	(void)arg;
	(void)level;
	if (getenv("CSM_PLUGIN_LOG") != NULL)
		fprintf(stderr, "log: %s\n", text);
}

static const char *env_config(void *arg, const char *name)
{
	char var[96];

	(void)arg;
	snprintf(var, sizeof(var), "CSM_PLUGIN_CONF_%s", name);
	if (getenv(var) == NULL && strcmp(name, "script") == 0)
		return ""; /* fake is there where it is asked for */
	return getenv(var);
}

static int env_secret(void *arg, const char *name, uint8_t *p, size_t *len)
{
	char var[80];
	const char *v;

	(void)arg;
	snprintf(var, sizeof(var), "CSM_PLUGIN_SECRET_%s", name);
	v = getenv(var);
	if (v == NULL)
		return CSM_ENOT_FOUND;
	if (strlen(v) > *len)
		return CSM_ETOO_LARGE;
	*len = strlen(v);
	memcpy(p, v, *len);
	return 0;
}

static const struct csm_plugin_host env_host = {.device = env_device, .remember = keep_remember, .recall = keep_recall,
	.log = drop_log, .config = env_config, .secret = env_secret};

/* ---- the run ---- */

static struct stored *keys[CSM_ALG__COUNT][8];
/* A folder that the next csm-plughost may read, or NULL. */
static const char *remote_read;
/* For the next run_one: of back ends that only find keys. */
static const char *(*prepared)(enum csm_alg alg);

static int target_open(void)
{
	int r = target.p->open(target.host, &target.ctx);

	if (r != 0) {
		target.ctx = NULL;
		fprintf(stderr, "%s: open: %s\n", target.p->name, csm_err_name(r));
		return r;
	}
	return target.p->capabilities(target.ctx, &target.caps);
}

int conform_reopen(void)
{
	target.p->close(target.ctx);
	return target_open();
}

static int run_one(const char *suite, const struct csm_plugin *p, const struct csm_plugin_host *host,
	const struct CMUnitTest *tests, size_t n)
{
	char name[160];
	int failed = 1;

	snprintf(name, sizeof(name), "%s: %s", suite, p->name);
	target = (struct target){.p = p, .host = host, .prepared = prepared};
	memset(kept, 0, sizeof(kept));
	if (p->abi != CSM_PLUGIN_ABI)
		fprintf(stderr, "%s: ABI %u, not %u\n", p->name, p->abi, CSM_PLUGIN_ABI);
	else if (target_open() == 0)
		failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
	if (target.ctx != NULL)
		p->close(target.ctx);
	for (size_t alg = 0; alg < CSM_ALG__COUNT; alg++)
		for (size_t use = 0; use < 8; use++) {
			free(keys[alg][use]);
			keys[alg][use] = NULL;
		}
	return failed;
}

/* The same over a csm-plughost. object: NULL for one of this build. */
static int run_remote(const char *suite, const struct csm_plugin *p, const char *object, const struct csm_plugin_host *host,
	const struct CMUnitTest *tests, size_t n)
{
	struct csm_plugin table = plughost_table(p);
	char name[80];
	struct plughost h;
	int failed;

	snprintf(name, sizeof(name), "%s, remote", suite);
	plughost_init(&h, object != NULL ? object : p->name, host);
	h.read = remote_read;
	failed = run_one(name, &table, &h.host, tests, n);
	plughost_stop(&h);
	return failed;
}

static int run_tpm(const char *suite, const struct csm_plugin *p, bool remote, const struct CMUnitTest *tests, size_t n)
{
	static struct swtpm_host host;
	struct swtpm *tpm = swtpm_start();
	int failed = 1;

	if (tpm == NULL)
		return failed;
	swtpm_host_init(&host, tpm);
	host.quiet = getenv("CSM_PLUGIN_LOG") == NULL;
	failed = remote ? run_remote(suite, p, NULL, &host.host, tests, n) : run_one(suite, p, &host.host, tests, n);
	swtpm_stop(tpm);
	return failed;
}

/* The small library of tests/interop/hwplugin, with keys of all sizes in its folder. */
static const char *hw_prepared(enum csm_alg alg)
{
	static const char *const small[] = {"S01lib/key01", "S01lib/key02", "S01lib/key03"};
	static unsigned next;

	return alg == CSM_ALG_RSA2048 ? small[next++ % 3] : alg == CSM_ALG_RSA3072 ? "S01lib/key04" : "S01lib/key05";
}

static int run_hwplugin(const char *suite, bool remote, const struct CMUnitTest *tests, size_t n)
{
	static struct hwfix f;
	char name[32];
	int failed;

	hwfix_make(&f);
	for (unsigned i = 0; i < HWFIX_KEYS; i++) {
		snprintf(name, sizeof(name), "S01lib/key0%u", i + 1);
		hwfix_key(&f, name, i, "");
	}
	prepared = hw_prepared;
	remote_read = f.dir;
	failed = remote ? run_remote(suite, &csm_plugin_hwpluginif, NULL, &f.host, tests, n) :
			  run_one(suite, &csm_plugin_hwpluginif, &f.host, tests, n);
	prepared = NULL;
	remote_read = NULL;
	if (getenv("CSM_PLUGIN_LOG") != NULL)
		fprintf(stderr, "log: %s", f.log);
	hwfix_free(&f);
	return failed;
}

/* In a process of its own its table is seen here, too, but nothing of it is called. */
static int run_file(const char *suite, const char *path, bool remote, const struct CMUnitTest *tests, size_t n)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const struct csm_plugin *const *p = lib != NULL ? dlsym(lib, "csm_plugin_export") : NULL;
	int failed = 1;

	if (p == NULL)
		fprintf(stderr, "%s: %s\n", path, dlerror());
	else if (remote)
		failed = run_remote(suite, *p, path, &env_host, tests, n);
	else
		failed = run_one(suite, *p, &env_host, tests, n);
	if (lib != NULL)
		dlclose(lib);
	return failed;
}

int conform_run(const char *suite, const struct CMUnitTest *tests, size_t n)
{
	static const struct csm_plugin *const plain[] = {&csm_plugin_soft, &csm_plugin_fake};
	const char *only = getenv("CSM_PLUGIN");
	bool remote = only != NULL && strncmp(only, "remote:", 7) == 0;
	int failed = 0, ran = 0;

	if (remote)
		only += 7;
	if (only != NULL && strchr(only, '/') != NULL)
		return run_file(suite, only, remote, tests, n) != 0;
	for (size_t i = 0; i < N_ELEMS(plain); i++) {
		if (only != NULL && strcmp(only, plain[i]->name) != 0)
			continue;
		if (!remote)
			failed += run_one(suite, plain[i], &env_host, tests, n);
		if (remote || only == NULL)
			failed += run_remote(suite, plain[i], NULL, &env_host, tests, n);
		ran++;
	}
	if (only == NULL || strcmp(only, "tpm2") == 0) {
		if (!remote)
			failed += run_tpm(suite, &csm_plugin_tpm2, false, tests, n);
		if (remote || only == NULL)
			failed += run_tpm(suite, &csm_plugin_tpm2, true, tests, n);
		ran++;
	}
	if (only == NULL || strcmp(only, "hwpluginif") == 0) {
		if (!remote)
			failed += run_hwplugin(suite, false, tests, n);
		if (remote || only == NULL)
			failed += run_hwplugin(suite, true, tests, n);
		ran++;
	}
	if (ran == 0)
		fprintf(stderr, "CSM_PLUGIN=%s: no such back end\n", only);
	return ran == 0 || failed != 0;
}

/* ---- keys ---- */

int conform_generate(enum csm_alg alg, unsigned use, struct stored *ret)
{
	struct csm_plugin_out spki = {ret->spki, sizeof(ret->spki), 0}, pub = {ret->pub, sizeof(ret->pub), 0};
	struct csm_plugin_out priv = {ret->priv, sizeof(ret->priv), 0};
	int r;

	ret->spec = (struct csm_plugin_keyspec){.alg = alg, .use = use};
	r = target.p->generate(target.ctx, &ret->spec, &spki, &pub, &priv);
	if (target.prepared != NULL) {
		assert_true(conform_refused(r));
		/* One that may be found: what is in there is for signatures. */
		if (use == CSM_USE_SIGN && (unsigned)alg < CSM_ALG__COUNT && (target.caps.algs & 1u << alg) != 0)
			r = target.p->find(target.ctx, target.prepared(alg), &ret->spec, &spki, &pub, &priv);
		if (r == 0)
			assert_true(ret->spec.alg == alg && ret->spec.use == use && !ret->spec.exportable);
	}
	if (r != 0)
		return r;
	ret->spki_len = spki.len;
	ret->pub_len = pub.len;
	ret->priv_len = priv.len;
	return 0;
}

const struct stored *conform_key(enum csm_alg alg, unsigned use)
{
	struct stored **slot = &keys[alg][use & 7];

	if ((target.caps.algs & 1u << alg) == 0 || (target.caps.uses & use) != use)
		return NULL;
	if (*slot == NULL) {
		assert_non_null(*slot = calloc(1, sizeof(**slot)));
		assert_int_equal(conform_generate(alg, use, *slot), 0);
	}
	return *slot;
}

enum csm_alg conform_alg(void)
{
	return (target.caps.algs & 1u << CSM_ALG_P256) != 0 ? CSM_ALG_P256 : CSM_ALG_RSA2048;
}

int conform_load(const struct stored *k, struct csm_plugin_key **ret)
{
	struct csm_plugin_blob blob = {k->spki, k->spki_len, k->pub, k->pub_len, k->priv, k->priv_len};

	return target.p->load(target.ctx, &k->spec, &blob, ret);
}

struct csm_plugin_key *conform_loaded(const struct stored *k)
{
	struct csm_plugin_key *key = NULL;

	assert_int_equal(conform_load(k, &key), 0);
	assert_non_null(key);
	return key;
}

/* ---- OpenSSL ---- */

const struct csm_scheme *conform_scheme(size_t i)
{
	static const struct csm_scheme all[] = {
		{CSM_SCHEME_ECDSA, CSM_HASH_SHA256},
		{CSM_SCHEME_ECDSA, CSM_HASH_SHA384},
		{CSM_SCHEME_ECDSA, CSM_HASH_SHA512},
		{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256},
		{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA384},
		{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA512},
		{CSM_SCHEME_RSA_PSS, CSM_HASH_SHA256},
		{CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384},
		{CSM_SCHEME_RSA_PSS, CSM_HASH_SHA512},
		{CSM_SCHEME_ED25519, CSM_HASH_NONE},
	};

	return i < N_ELEMS(all) ? &all[i] : NULL;
}

EVP_PKEY *conform_public(const struct stored *k)
{
	const uint8_t *at = k->spki;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)k->spki_len);

	assert_non_null(pkey);
	assert_ptr_equal(at, k->spki + k->spki_len);
	return pkey;
}

static bool digest_verify(EVP_PKEY *pkey, const struct csm_scheme *s, const uint8_t *in, size_t in_len,
	const uint8_t *sig, size_t sig_len)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	const EVP_MD *md = EVP_get_digestbyname(csm_hash_name(s->hash));
	bool ok = c != NULL && EVP_PKEY_verify_init(c) == 1 && EVP_PKEY_CTX_set_signature_md(c, md) == 1;

	if (s->kind == CSM_SCHEME_RSA_PKCS1)
		ok = ok && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PADDING) == 1;
	if (s->kind == CSM_SCHEME_RSA_PSS)
		ok = ok && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PSS_PADDING) == 1 &&
			EVP_PKEY_CTX_set_rsa_mgf1_md(c, md) == 1 &&
			EVP_PKEY_CTX_set_rsa_pss_saltlen(c, RSA_PSS_SALTLEN_DIGEST) == 1;
	ok = ok && EVP_PKEY_verify(c, sig, sig_len, in, in_len) == 1;
	EVP_PKEY_CTX_free(c);
	return ok;
}

bool conform_verify(const struct stored *k, const struct csm_scheme *s, const uint8_t *in, size_t in_len,
	const uint8_t *sig, size_t sig_len)
{
	const uint8_t *at = k->spki;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)k->spki_len);
	EVP_MD_CTX *m;
	bool ok = false;

	if (pkey == NULL)
		return false;
	if (s->kind == CSM_SCHEME_ED25519) {
		m = EVP_MD_CTX_new();
		ok = m != NULL && EVP_DigestVerifyInit(m, NULL, NULL, NULL, pkey) == 1 &&
			EVP_DigestVerify(m, sig, sig_len, in, in_len) == 1;
		EVP_MD_CTX_free(m);
	} else {
		ok = digest_verify(pkey, s, in, in_len, sig, sig_len);
	}
	EVP_PKEY_free(pkey);
	return ok;
}

bool conform_signs(const struct stored *k, struct csm_plugin_key *key)
{
	struct csm_scheme s = csm_scheme_default(k->spec.alg);
	size_t n = s.hash != CSM_HASH_NONE ? csm_hash_size(s.hash) : 20;
	uint8_t in[CSM_DIGEST_MAX], sig_p[CSM_SIGNATURE_MAX];
	struct csm_plugin_out sig = {sig_p, sizeof(sig_p), 0};

	memset(in, 0x5a, sizeof(in));
	return target.p->sign(target.ctx, key, &s, in, n, &sig) == 0 && sig.len <= sig.cap &&
		conform_verify(k, &s, in, n, sig_p, sig.len);
}

size_t conform_peer(enum csm_alg alg, EVP_PKEY **ret, uint8_t spki[static CSM_SPKI_MAX])
{
	static const char *const curves[] = {"P-256", "P-384", "P-521"};
	uint8_t *der = NULL;
	int n;

	*ret = alg == CSM_ALG_ED25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
				      : EVP_PKEY_Q_keygen(NULL, NULL, "EC", curves[alg]);
	assert_non_null(*ret);
	n = i2d_PUBKEY(*ret, &der);
	assert_in_range(n, 1, CSM_SPKI_MAX);
	memcpy(spki, der, (size_t)n);
	OPENSSL_free(der);
	return (size_t)n;
}

/* ---- canaries ---- */

struct csm_plugin_out *canary_set(struct canary *c, size_t cap)
{
	assert_in_range(cap, 0, CSM_PLUGIN_PRIV_MAX);
	memset(c->p, CANARY, sizeof(c->p));
	c->out = (struct csm_plugin_out){c->p, cap, UNSET};
	return &c->out;
}

bool canary_whole(const struct canary *c, bool failed)
{
	for (size_t i = c->out.cap; i < sizeof(c->p); i++)
		if (c->p[i] != CANARY)
			return false;
	return failed ? c->out.len == UNSET : c->out.len <= c->out.cap;
}

void conform_lacks(const char *feature)
{
	static const struct {
		const char *plugin, *feature;
	} known[] = {
		{"soft", "parts"}, {"soft", "seal"}, {"soft", "counter"},
		{"tpm2", "ed25519"}, {"tpm2", "parts"}, {"tpm2", "threads"},
		{"fake", "ed25519"}, {"fake", "threads"},
		{"hwpluginif", "ed25519"}, {"hwpluginif", "threads"}, {"hwpluginif", "generate"}, {"hwpluginif", "derive"},
		{"hwpluginif", "decrypt"}, {"hwpluginif", "seal"}, {"hwpluginif", "counter"}, {"hwpluginif", "random"},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].plugin, target.p->name) == 0 && strcmp(known[i].feature, feature) == 0)
			return;
	if (strcmp(target.p->name, "soft") != 0 && strcmp(target.p->name, "tpm2") != 0 && strcmp(target.p->name, "fake") != 0 &&
		strcmp(target.p->name, "hwpluginif") != 0)
		skip();
	fail_msg("%s has no %s", target.p->name, feature);
}
