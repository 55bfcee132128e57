/* What a store keeps, in clear, as needles for bytesearch: for the test that looks for it where it must not be.
 *
 *   storekeys STATE FILE MODE     STATE: a copy of a node's state folder; MODE: its root_key. FILE: for file and passphrase
 *                                 what the configuration names; for tpm the root key itself, unsealed by other means
 *   storekeys STATE - wrapped     the wrapped root key alone, as it is stored
 *
 * A line "name hex" each: the file's content, the root key and what is derived from it at start, the key-encryption keys
 * and set keys of each scope, the private numbers of each software key.
 */
#include <lmdb.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/root.h"
#include "daemon/svc/store_internal.h"

static uint8_t root_key[32];
static struct csm_root_source real;

static void die(const char *what)
{
	fprintf(stderr, "storekeys: %s\n", what);
	exit(1);
}

static void put(const char *kind, const char *name, const void *p, size_t n)
{
	printf("%s:%s ", kind, name);
	for (size_t i = 0; i < n; i++)
		printf("%02x", ((const uint8_t *)p)[i]);
	putchar('\n');
}

/* The root key passes here. */
static int spy_unwrap(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32])
{
	const struct broker *b = arg;
	int r = 0;

	if (real.unwrap != NULL)
		r = real.unwrap(arg, wrapped, n, key);
	else if (b->setup.root_secret.n == sizeof(root_key))
		memcpy(key, b->setup.root_secret.p, sizeof(root_key));
	else
		r = CSM_EINVALID;

	memcpy(root_key, key, sizeof(root_key));
	return r;
}

/* The source that the broker would have, but for the TPM. */
static void source_of(struct broker *b, const char *file, const char *mode, struct csm_root_source *source)
{
	static uint8_t secret[256];
	FILE *f = fopen(file, "re");
	size_t n = f != NULL ? fread(secret, 1, sizeof(secret), f) : 0;
	const char *why = "";

	if (n == 0)
		die(file);
	fclose(f);
	b->cfg.root_key = CSM_ROOT_FILE;
	if (strcmp(mode, "passphrase") == 0) {
		b->cfg.root_key = CSM_ROOT_PASSPHRASE;
		n -= secret[n - 1] == '\n';
	}
	b->setup.root_secret = (struct csm_bin){secret, n};
	if (strcmp(mode, "tpm") == 0)
		*source = (struct csm_root_source){.arg = b, .mode = mode};
	else if (root_source(b, source, &why) != 0)
		die(why);
	put("file", mode, secret, n);
}

static struct csm_store *open_env(const char *dir)
{
	struct csm_store_options opt = {.dir = dir, .map_size = (size_t)1 << 30};
	struct csm_store *s;

	if (csm_store_env_open(&opt, &s) != 0)
		die(dir);
	return s;
}

static struct csm_store *open_store(const char *dir, const char *file, const char *mode)
{
	static struct broker b;
	struct csm_root_source source;
	struct csm_store *s = open_env(dir);

	source_of(&b, file, mode, &source);
	real = source;
	source.unwrap = spy_unwrap;
	if (csm_store_root_open(s, &source) != 0 || csm_store_locked(s))
		die("the store does not open");
	return s;
}

/* length of the mode (1), mode, length (2), wrapped, check (16) */
static void put_wrapped(const char *dir)
{
	struct csm_store *s = open_env(dir);
	MDB_val k = {7, (void *)(uintptr_t)"rootkey"}, v;
	const uint8_t *p;
	MDB_txn *txn;

	if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0 || mdb_get(txn, s->meta, &k, &v) != 0)
		die("the record of the root key");
	p = (const uint8_t *)v.mv_data + 1 + *(const uint8_t *)v.mv_data;
	for (size_t i = 0; i < get16(p); i++)
		printf("%02x", p[2 + i]);
	putchar('\n');
	mdb_txn_abort(txn);
	csm_store_close(s);
}

static void put_root(void)
{
	static const char *const labels[] = {"scope", "root", "request", "audit"};
	struct prk prk;
	uint8_t k[KEY_LEN];

	put("root", "root-key", root_key, sizeof(root_key));
	prk_init(&prk, root_key);
	for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
		prk_label_key(&prk, labels[i], k);
		put("subkey", labels[i], k, sizeof(k));
	}
}

/* ---- keys ---- */

static void put_number(EVP_PKEY *pkey, const char *name, const char *param, const char *what)
{
	BIGNUM *bn = NULL;
	uint8_t bytes[1024];
	int n;

	if (EVP_PKEY_get_bn_param(pkey, param, &bn) != 1 || (n = BN_bn2bin(bn, bytes)) <= 0)
		die(name);
	put(what, name, bytes, (size_t)n);
	BN_clear_free(bn);
}

static void put_private(const char *name, EVP_PKEY *pkey)
{
	static const char *const rsa[] = {OSSL_PKEY_PARAM_RSA_D, OSSL_PKEY_PARAM_RSA_FACTOR1, OSSL_PKEY_PARAM_RSA_FACTOR2,
		OSSL_PKEY_PARAM_RSA_EXPONENT1, OSSL_PKEY_PARAM_RSA_EXPONENT2, OSSL_PKEY_PARAM_RSA_COEFFICIENT1};
	static const char *const parts[] = {"d", "p", "q", "dp", "dq", "qinv"};
	uint8_t seed[32], az[64];
	size_t n = sizeof(seed);

	if (EVP_PKEY_is_a(pkey, "RSA")) {
		for (size_t i = 0; i < 6; i++)
			put_number(pkey, name, rsa[i], parts[i]);
	} else if (EVP_PKEY_is_a(pkey, "EC")) {
		put_number(pkey, name, OSSL_PKEY_PARAM_PRIV_KEY, "scalar");
	} else {
		if (EVP_PKEY_get_raw_private_key(pkey, seed, &n) != 1)
			die(name);
		put("seed", name, seed, n);
		/* The scalar and the prefix that RFC 8032 makes of it. */
		crypto_hash_sha512(az, seed, n);
		put("prefix", name, az + 32, 32);
		az[0] &= 248;
		az[31] = (uint8_t)((az[31] & 63) | 64);
		put("scalar", name, az, 32);
	}
}

static void put_keys(struct csm_store *s, struct csm_reader *reader)
{
	MDB_cursor *cur;
	MDB_txn *txn;
	MDB_val k, v;

	if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0 || mdb_cursor_open(txn, s->keys, &cur) != 0 ||
		csm_reader_begin(reader) != 0)
		die("keys");
	while (mdb_cursor_get(cur, &k, &v, MDB_NEXT) == 0) {
		struct csm_key_record rec;
		struct dbparts parts;
		struct csm_buf plain;
		struct dbkey scope;
		const uint8_t *at;
		char name[256];
		EVP_PKEY *pkey;

		csm_buf_init(&plain, 65536, true);
		if (!dbkey_split_key(val_bin(&k), &parts, &scope) ||
			csm_store_key_get(reader, parts.ns, parts.name, true, &plain, &rec) != 0)
			die("a key");
		snprintf(name, sizeof(name), "%.*s", (int)parts.name.n, parts.name.p);
		at = rec.priv.p;
		if (csm_str_eq(rec.backend, "soft")) {
			if ((pkey = d2i_AutoPrivateKey(NULL, &at, (long)rec.priv.n)) == NULL)
				die(name);
			put_private(name, pkey);
			EVP_PKEY_free(pkey);
		}
		csm_buf_free(&plain);
	}
	csm_reader_end(reader);
	mdb_cursor_close(cur);
	mdb_txn_abort(txn);
}

/* ---- scopes ---- */

static void put_scopes(struct csm_store *s)
{
	struct aead aead;
	MDB_cursor *cur;
	MDB_txn *txn;
	MDB_val k, v;

	if (aead_init(&aead, false) != 0 || mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0 ||
		mdb_cursor_open(txn, s->scopes, &cur) != 0)
		die("scopes");
	while (mdb_cursor_get(cur, &k, &v, MDB_NEXT) == 0) {
		struct scope sc;
		char name[256];

		if (store_scope_open(&aead, &s->sub->scope, val_bin(&k), val_bin(&v), &sc) != 0)
			die("a scope");
		snprintf(name, sizeof(name), "%.*s", (int)k.mv_size, (const char *)k.mv_data);
		put("set-key", name, sc.set_key, sizeof(sc.set_key));
		for (uint32_t i = 0; i < sc.n_keks; i++)
			put("kek", name, sc.kek[i].key, sizeof(sc.kek[i].key));
	}
	mdb_cursor_close(cur);
	mdb_txn_abort(txn);
	aead_free(&aead);
}

int main(int argc, char **argv)
{
	struct csm_reader *reader;
	struct csm_store *s;
	struct root root;
	MDB_txn *txn;

	if (argc != 4 || sodium_init() < 0)
		die("usage: storekeys STATE FILE MODE");
	if (strcmp(argv[3], "wrapped") == 0) {
		put_wrapped(argv[1]);
		return 0;
	}
	s = open_store(argv[1], argv[2], argv[3]);
	put_root();
	put_scopes(s);
	if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0 || store_root_read(s, txn, &s->aead, &root) != 0)
		die("the root record");
	put("set-key", "root", root.set_key, sizeof(root.set_key));
	mdb_txn_abort(txn);
	if (csm_reader_new(s, &reader) != 0)
		die("a reader");
	put_keys(s, reader);
	csm_reader_free(reader);
	csm_store_close(s);
	return 0;
}
