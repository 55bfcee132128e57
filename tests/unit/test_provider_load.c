/* How the provider finds keys, what it makes of references, and what it never gives away. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/decoder.h>
#include <openssl/encoder.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/store.h>
#include "libclient/base/keyref.h"
#include "tests/lib/certmake.h"
#include "tests/lib/provfix.h"

static int setup(void **state)
{
	(void)state;
	provfix_key("k", "p256", "soft", NULL);
	provfix_key("r", "rsa2048", "soft", NULL);
	provfix_key("e", "ed25519", "soft", NULL);
	provfix_key("t", "p256", "tpm2", NULL);
	return 0;
}

static int sign_error(EVP_PKEY *key)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t sig[CSM_SIGNATURE_BYTES];
	size_t n = sizeof(sig);
	int ok = EVP_DigestSignInit_ex(ctx, NULL, EVP_PKEY_is_a(key, "ED25519") ? NULL : "SHA256", lib, NULL, key, NULL) == 1 &&
		EVP_DigestSign(ctx, sig, &n, (const uint8_t *)"data", 4) == 1;

	EVP_MD_CTX_free(ctx);
	return ok ? 0 : 1;
}

static bool is_key(EVP_PKEY *key, const char *name)
{
	EVP_PKEY *pub = provfix_public(name);
	bool same = key != NULL && EVP_PKEY_eq(key, pub) == 1 && EVP_PKEY_eq(pub, key) == 1;

	EVP_PKEY_free(pub);
	return same;
}

/* ---- the program's own keys beside csmd's ---- */

/* With the names of the openssl.cnf that is installed, also after a look-up by name, when OpenSSL sorts them. */
static void test_default_stays_first(void **state)
{
	static const char *const names[] = {"EC", "RSA", "ED25519"};
	OSSL_PROVIDER *again = OSSL_PROVIDER_load(lib, "default");

	(void)state;
	assert_non_null(again);
	for (size_t i = 0; i < 3; i++) {
		EVP_KEYMGMT *k = EVP_KEYMGMT_fetch(lib, names[i], NULL);

		assert_string_equal(OSSL_PROVIDER_get0_name(EVP_KEYMGMT_get0_provider(k)), "default");
		EVP_KEYMGMT_free(k);
	}
	OSSL_PROVIDER_unload(again);
}

static void test_soft_keys_stay(void **state)
{
	EVP_PKEY *soft = EVP_PKEY_Q_keygen(lib, NULL, "EC", "P-256"), *again, *ours = provfix_uri("csm:k");
	char pem[4096];
	size_t n = provfix_pem(soft, pem, sizeof(pem));

	(void)state;
	assert_non_null(strstr(pem, "BEGIN PRIVATE KEY"));
	again = provfix_decode("PEM", pem, n);
	assert_non_null(again);
	assert_string_equal(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(again)), "default");
	assert_int_equal(EVP_PKEY_eq(soft, again), 1);
	assert_int_equal(sign_error(again), 0);
	/* compared with one of csmd's */
	assert_int_not_equal(EVP_PKEY_eq(soft, ours), 1);
	assert_int_not_equal(EVP_PKEY_eq(ours, soft), 1);
	EVP_PKEY_free(soft);
	EVP_PKEY_free(again);
	EVP_PKEY_free(ours);
	(void)provfix_error(0, "");
}

/* ---- URIs ---- */

static void test_uris(void **state)
{
	static const char *const good[] = {"csm:k", "csm:uid-0:k", "csm:k?object=key", "csm:uid-0:k?object=public"};
	static const char *const bad[] = {"csm:", "csm:a:b:c", "csm:k?object=", "csm:k?object=x", "csm:k?other=key", "csm:k?",
		"csm:UID:k", "csm:*", "csm:k/k", "csm:-k", "csm:none"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		EVP_PKEY *key = provfix_uri(good[i]);

		if (!is_key(key, "k"))
			fail_msg("%s", good[i]);
		assert_int_equal(sign_error(key), i < 3 ? 0 : 1);
		EVP_PKEY_free(key);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ERR_clear_error();
		if (provfix_uri(bad[i]) != NULL)
			fail_msg("%s", bad[i]);
		assert_true(ERR_peek_error() != 0);
	}
	assert_null(provfix_uri("csm:none"));
	assert_true(provfix_error(CSM_ENOT_FOUND, "uid-0:none"));
	assert_null(provfix_uri("csm:other:k"));
	assert_true(provfix_error(CSM_EDENIED, "other:k"));
}

/* What a program says it expects is all it gets. */
static size_t count(const char *uri, int expect, int *first)
{
	OSSL_STORE_CTX *s = OSSL_STORE_open_ex(uri, lib, NULL, NULL, NULL, NULL, NULL, NULL);
	size_t n = 0;

	assert_non_null(s);
	if (expect != 0)
		assert_int_equal(OSSL_STORE_expect(s, expect), 1);
	while (!OSSL_STORE_eof(s)) {
		OSSL_STORE_INFO *info = OSSL_STORE_load(s);

		if (info != NULL && n++ == 0)
			*first = OSSL_STORE_INFO_get_type(info);
		OSSL_STORE_INFO_free(info);
	}
	OSSL_STORE_close(s);
	ERR_clear_error();
	return n;
}

static void test_certificates(void **state)
{
	EVP_PKEY *ca_key = EVP_PKEY_Q_keygen(lib, NULL, "EC", "P-256"), *pub = provfix_public("k"), *key = provfix_uri("csm:k");
	EVP_PKEY *other = provfix_uri("csm:t");
	X509 *ca = cert_make(&(struct certspec){.subject = "/CN=ca", .key = ca_key, .ca = true});
	X509 *leaf = cert_make(&(struct certspec){.subject = "/CN=k", .key = pub, .signer = ca, .signer_key = ca_key});
	struct csm_buf chain;
	int type = 0;

	(void)state;
	assert_int_equal(count("csm:k", 0, &type), 1);
	assert_int_equal(count("csm:k?object=cert", 0, &type), 0);
	csm_buf_init(&chain, CSM_CHAIN_BYTES, false);
	cert_der(leaf, &chain);
	cert_der(ca, &chain);
	assert_int_equal(csm_cert_install(csm, "k", csm_buf_ptr(&chain), chain.len), 0);
	assert_int_equal(count("csm:k", 0, &type), 3);
	assert_int_equal(type, OSSL_STORE_INFO_PKEY);
	assert_int_equal(count("csm:k", OSSL_STORE_INFO_PKEY, &type), 1);
	assert_int_equal(count("csm:k", OSSL_STORE_INFO_PUBKEY, &type), 1);
	assert_int_equal(type, OSSL_STORE_INFO_PUBKEY);
	assert_int_equal(count("csm:k", OSSL_STORE_INFO_CERT, &type), 2);
	assert_int_equal(type, OSSL_STORE_INFO_CERT);
	assert_int_equal(count("csm:k?object=cert", 0, &type), 2);
	assert_int_equal(count("csm:k?object=cert", OSSL_STORE_INFO_PKEY, &type), 0);
	assert_int_equal(count("csm:k", OSSL_STORE_INFO_CRL, &type), 0);
	/* what servers ask before they use the two together */
	assert_int_equal(X509_check_private_key(leaf, key), 1);
	assert_int_not_equal(X509_check_private_key(leaf, other), 1);
	assert_int_equal(csm_cert_delete(csm, "k"), 0);
	csm_buf_free(&chain);
	X509_free(ca);
	X509_free(leaf);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(pub);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other);
	(void)provfix_error(0, "");
}

/* ---- references ---- */

static size_t reference_of(const char *uri, char *pem, size_t room)
{
	EVP_PKEY *key = provfix_uri(uri);
	size_t n;

	assert_non_null(key);
	n = provfix_pem(key, pem, room);
	assert_memory_equal(pem, "-----BEGIN CSM KEY REFERENCE-----\n", 34);
	EVP_PKEY_free(key);
	return n;
}

static void test_reference_is_the_key(void **state)
{
	static const char *const names[] = {"k", "r", "e", "t"};
	char pem[1024], uri[16];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		EVP_PKEY *key;
		unsigned char *der = NULL;
		BIO *bio;
		int n;

		(void)snprintf(uri, sizeof(uri), "csm:%s", names[i]);
		key = provfix_decode("PEM", pem, reference_of(uri, pem, sizeof(pem)));
		assert_true(is_key(key, names[i]));
		assert_int_equal(sign_error(key), 0);
		/* the same as DER */
		n = i2d_PrivateKey(key, &der);
		assert_true(n > 0);
		EVP_PKEY_free(key);
		key = provfix_decode("DER", der, (size_t)n);
		assert_true(is_key(key, names[i]));
		EVP_PKEY_free(key);
		OPENSSL_free(der);
		/* and as programs read files */
		bio = BIO_new_mem_buf(pem, -1);
		key = PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, lib, NULL);
		assert_true(is_key(key, names[i]));
		EVP_PKEY_free(key);
		BIO_free(bio);
	}
}

/* The administrator is told of all. */
static uint64_t requests(const char *method)
{
	const char *path = getenv("CSM_ADMIN_SOCKET");
	struct csm_request *req;
	struct csm_reply *rep;
	struct csm *admin;
	char label[64];
	uint64_t n = 0;

	assert_int_equal(csm_new(&admin), 0);
	assert_int_equal(csm_set_socket(admin, path), 0);
	(void)snprintf(label, sizeof(label), "method=\"%s\"", method);
	assert_int_equal(csm_request_new("stats", &req), 0);
	assert_int_equal(csm_call(admin, req, &rep), 0);
	for (size_t i = 0; i < csm_view_count(csm_reply_view(rep), "metrics"); i++) {
		struct csm_view m = csm_view_at(csm_reply_view(rep), "metrics", i);
		const char *name = csm_view_str(m, "name"), *labels = csm_view_str(m, "labels");

		if (name != NULL && labels != NULL && strcmp(name, "csm_requests_total") == 0 && strcmp(labels, label) == 0)
			n = csm_view_u64(m, "value");
	}
	csm_reply_free(rep);
	csm_request_free(req);
	csm_free(admin);
	return n;
}

/* How many there have been since; the last one may be counted shortly after its answer. */
static uint64_t made(const char *method, uint64_t before)
{
	uint64_t now = before;

	for (int i = 0; i < 500 && now == before; i++) {
		(void)poll(NULL, 0, i > 0 ? 10 : 0);
		now = requests(method);
	}
	return now - before;
}

/* A reference takes one request to load, whatever kind of key it is, and a signature one. */
static void test_one_request(void **state)
{
	static const char *const uris[] = {"csm:k", "csm:r", "csm:e", "csm:t"};
	uint64_t whoami, public, sign;
	char pem[1024];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		size_t n = reference_of(uris[i], pem, sizeof(pem));
		EVP_PKEY *key;

		whoami = requests("whoami");
		public = requests("key.public");
		key = provfix_decode("PEM", pem, n);
		assert_int_equal(made("key.public", public), 1);
		assert_int_equal(requests("whoami") - whoami, 0);
		sign = requests("key.sign");
		public = requests("key.public");
		assert_int_equal(sign_error(key), 0);
		assert_int_equal(made("key.sign", sign), 1);
		assert_int_equal(requests("key.public") - public, 0);
		EVP_PKEY_free(key);
	}
}

/* Behind a certificate in the same file, as many servers have it. */
static void test_reference_in_a_bundle(void **state)
{
	EVP_PKEY *pub = provfix_public("k"), *key;
	EVP_PKEY *ca_key = EVP_PKEY_Q_keygen(lib, NULL, "EC", "P-256");
	X509 *ca = cert_make(&(struct certspec){.subject = "/CN=ca", .key = ca_key, .ca = true});
	X509 *leaf = cert_make(&(struct certspec){.subject = "/CN=k", .key = pub, .signer = ca, .signer_key = ca_key});
	BIO *bio = BIO_new(BIO_s_mem());
	char pem[1024];
	size_t n = reference_of("csm:k", pem, sizeof(pem));

	(void)state;
	assert_int_equal(PEM_write_bio_X509(bio, leaf), 1);
	assert_int_equal(BIO_write(bio, pem, (int)n), (int)n);
	key = PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, lib, NULL);
	assert_true(is_key(key, "k"));
	BIO_free(bio);
	X509_free(ca);
	X509_free(leaf);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(pub);
	EVP_PKEY_free(key);
	(void)provfix_error(0, "");
}

/* Another key under the name, and none. */
static void test_reference_of_another_key(void **state)
{
	char pem[1024];
	size_t n;
	EVP_PKEY *key;

	(void)state;
	provfix_key("swap", "p256", "soft", NULL);
	n = reference_of("csm:swap", pem, sizeof(pem));
	key = provfix_decode("PEM", pem, n);
	assert_non_null(key);
	EVP_PKEY_free(key);
	provfix_key("swap", "p256", "soft", NULL);
	assert_null(provfix_decode("PEM", pem, n));
	assert_true(provfix_error(CSM_ECONFLICT, "another key"));
	provfix_key("swap", "rsa2048", "soft", NULL);
	assert_null(provfix_decode("PEM", pem, n));
	(void)provfix_error(0, "");
	assert_int_equal(csm_key_delete(csm, "swap"), 0);
	assert_null(provfix_decode("PEM", pem, n));
	assert_true(provfix_error(CSM_ENOT_FOUND, "uid-0:swap"));
}

/* A key that goes while a program has it: its signatures fail, with the reason. */
static void test_deleted_key(void **state)
{
	EVP_PKEY *key;

	(void)state;
	provfix_key("gone", "p256", "soft", NULL);
	key = provfix_uri("csm:gone");
	assert_int_equal(sign_error(key), 0);
	assert_int_equal(csm_key_delete(csm, "gone"), 0);
	assert_int_equal(sign_error(key), 1);
	assert_true(provfix_error(CSM_ENOT_FOUND, "uid-0:gone"));
	EVP_PKEY_free(key);
}

/* Its name is another key's: no signature by that one, and no plaintext or shared secret either. */
static void test_replaced_key(void **state)
{
	uint8_t in[256] = {1}, out[CSM_PLAINTEXT_BYTES];
	EVP_PKEY *key, *peer = provfix_public("k");
	EVP_PKEY_CTX *ctx;
	size_t n = sizeof(out);

	(void)state;
	provfix_key("swap", "p256", "soft", "sign,derive");
	key = provfix_uri("csm:swap");
	assert_int_equal(sign_error(key), 0);
	provfix_key("swap", "p256", "soft", "sign,derive");
	assert_int_equal(sign_error(key), 1);
	assert_true(provfix_error(CSM_ECONFLICT, "uid-0:swap"));
	ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
	assert_int_equal(EVP_PKEY_derive_init(ctx), 1);
	assert_int_equal(EVP_PKEY_derive_set_peer(ctx, peer), 1);
	assert_int_not_equal(EVP_PKEY_derive(ctx, out, &n), 1);
	assert_true(provfix_error(CSM_ECONFLICT, "uid-0:swap"));
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
	EVP_PKEY_free(peer);
	/* the new one, asked for anew */
	key = provfix_uri("csm:swap");
	assert_int_equal(sign_error(key), 0);
	EVP_PKEY_free(key);

	provfix_key("swap", "rsa2048", "soft", NULL);
	key = provfix_uri("csm:swap");
	provfix_key("swap", "rsa2048", "soft", NULL);
	assert_int_equal(sign_error(key), 1);
	assert_true(provfix_error(CSM_ECONFLICT, "uid-0:swap"));
	ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
	assert_int_equal(EVP_PKEY_decrypt_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, "SHA256", NULL), 1);
	n = sizeof(out);
	assert_int_not_equal(EVP_PKEY_decrypt(ctx, out, &n, in, sizeof(in)), 1);
	assert_true(provfix_error(CSM_ECONFLICT, "uid-0:swap"));
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
}

static void test_malformed(void **state)
{
	char pem[1024], copy[1024];
	unsigned char *der = NULL;
	EVP_PKEY *key = provfix_uri("csm:k");
	size_t n = reference_of("csm:k", pem, sizeof(pem));
	int len = i2d_PrivateKey(key, &der);

	(void)state;
	assert_true(len > 0);
	for (int i = 0; i < len; i++) {
		assert_null(provfix_decode("DER", der, (size_t)i));
		der[i] ^= 0x81;
		assert_null(provfix_decode("DER", der, (size_t)len));
		der[i] ^= 0x81;
	}
	for (size_t i = 40; i < n; i += 3) {
		assert_null(provfix_decode("PEM", pem, i));
		memcpy(copy, pem, n);
		copy[i] = '!';
		assert_null(provfix_decode("PEM", copy, n));
	}
	/* whole, all the same */
	EVP_PKEY_free(key);
	key = provfix_decode("DER", der, (size_t)len);
	assert_non_null(key);
	EVP_PKEY_free(key);
	OPENSSL_free(der);
	(void)provfix_error(0, "");
}

/* ---- what is never given away ---- */

static void test_no_private_half(void **state)
{
	static const char *const names[] = {"csm:k", "csm:r", "csm:e", "csm:t"};
	static const char *const parts[] = {OSSL_PKEY_PARAM_PRIV_KEY, OSSL_PKEY_PARAM_RSA_D, OSSL_PKEY_PARAM_RSA_FACTOR1};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		EVP_PKEY *key = provfix_uri(names[i]);
		OSSL_PARAM *params = NULL;
		uint8_t raw[128];
		size_t n = sizeof(raw);
		BIGNUM *bn = NULL;
		char text[4096];
		BIO *bio;
		int len;

		assert_non_null(key);
		assert_int_not_equal(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &params), 1);
		assert_int_equal(EVP_PKEY_todata(key, EVP_PKEY_PUBLIC_KEY, &params), 1);
		for (size_t p = 0; p < 3; p++) {
			assert_null(OSSL_PARAM_locate(params, parts[p]));
			assert_int_not_equal(EVP_PKEY_get_bn_param(key, parts[p], &bn), 1);
		}
		OSSL_PARAM_free(params);
		assert_int_not_equal(EVP_PKEY_get_raw_private_key(key, raw, &n), 1);
		bio = BIO_new(BIO_s_mem());
		assert_int_equal(EVP_PKEY_print_private(bio, key, 0, NULL), 1);
		len = BIO_read(bio, text, sizeof(text) - 1);
		assert_true(len > 0);
		text[len] = '\0';
		assert_non_null(strstr(text, "Private key in csmd: uid-0:"));
		assert_null(strstr(text, "priv:"));
		BIO_free(bio);
		EVP_PKEY_free(key);
	}
	(void)provfix_error(0, "");
}

/* ---- who asks ---- */

/* As an ordinary user, in a child: its exit status. */
static int as_other(int (*fn)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(60);
		if (setgid(59102) != 0 || setuid(59102) != 0)
			_exit(99);
		_exit(fn(arg));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

struct reference {
	EVP_PKEY *key;
	char pem[1024];
	size_t n;
};

static int use_all(void *arg)
{
	struct reference *ref = arg;

	/* the key that root has loaded */
	if (sign_error(ref->key) == 0 || !provfix_error(CSM_EDENIED, "uid-0:k"))
		return 1;
	if (provfix_decode("PEM", ref->pem, ref->n) != NULL || !provfix_error(CSM_EDENIED, "uid-0:k"))
		return 2;
	return provfix_uri("csm:uid-0:k") != NULL ? 3 : 0;
}

static void test_another_uid(void **state)
{
	struct reference ref = {.key = provfix_uri("csm:k")};

	(void)state;
	ref.n = reference_of("csm:k", ref.pem, sizeof(ref.pem));
	assert_int_equal(sign_error(ref.key), 0);
	assert_int_equal(as_other(use_all, &ref), 0);
	assert_int_equal(sign_error(ref.key), 0);
	EVP_PKEY_free(ref.key);
}

static int sign_often(EVP_PKEY *key)
{
	for (int i = 0; i < 20; i++)
		if (sign_error(key) != 0)
			return 1;
	return 0;
}

/* A child goes on with what its parent loaded, while the parent does. */
static void test_fork(void **state)
{
	EVP_PKEY *key = provfix_uri("csm:k");
	pid_t pids[4];

	(void)state;
	assert_int_equal(sign_error(key), 0);
	for (size_t i = 0; i < 4; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			alarm(60);
			_exit(sign_often(key));
		}
	}
	assert_int_equal(sign_often(key), 0);
	for (size_t i = 0; i < 4; i++) {
		int status = -1;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	EVP_PKEY_free(key);
}

/* csmd is away while a program starts: it is told so. */
static void test_csmd_away(void **state)
{
	const char *env = getenv("CSM_SOCKET");
	char *socket = strdup(env != NULL ? env : ""), pem[1024];
	size_t n = reference_of("csm:k", pem, sizeof(pem));
	OSSL_LIB_CTX *before = lib;
	EVP_PKEY *key = provfix_uri("csm:k");

	(void)state;
	assert_int_equal(setenv("CSM_SOCKET", "/nonexistent/sock", 1), 0);
	lib = provfix_lib();
	assert_null(provfix_uri("csm:k"));
	assert_true(provfix_error(CSM_EUNREACHABLE, "/nonexistent/sock"));
	assert_null(provfix_decode("PEM", pem, n));
	assert_true(provfix_error(CSM_EUNREACHABLE, "/nonexistent/sock"));
	OSSL_LIB_CTX_free(lib);
	lib = before;
	assert_int_equal(setenv("CSM_SOCKET", socket, 1), 0);
	assert_int_equal(sign_error(key), 0);
	EVP_PKEY_free(key);
	free(socket);
}

/* A library by a configuration with these settings of the provider. */
static OSSL_LIB_CTX *lib_with(const char *settings)
{
	const char *dir = getenv("CSM_NODE_DIR");
	char path[512];
	OSSL_LIB_CTX *l;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/test.cnf", dir != NULL ? dir : "/nonexistent");
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fprintf(f, "openssl_conf = init\n[init]\nproviders = p\n[p]\ndefault = d\nkeys = k\n[d]\nactivate = 1\n"
			       "[k]\nmodule = csm.so\n%s\nactivate = 1\n", settings) > 0);
	assert_int_equal(fclose(f), 0);
	l = provfix_lib_of(path);
	(void)unlink(path);
	ERR_clear_error();
	return l;
}

/* The environment goes before the file. */
static void test_settings(void **state)
{
	const char *env = getenv("CSM_SOCKET");
	char *socket = strdup(env != NULL ? env : ""), line[512];
	OSSL_LIB_CTX *before = lib;
	EVP_PKEY *key;

	(void)state;
	(void)snprintf(line, sizeof(line), "socket = %s\ntrust_overflow = no", socket);
	assert_int_equal(unsetenv("CSM_SOCKET"), 0);
	lib = lib_with(line);
	assert_non_null(lib);
	key = provfix_uri("csm:k");
	assert_non_null(key);
	EVP_PKEY_free(key);
	OSSL_LIB_CTX_free(lib);
	lib = lib_with("socket = /nonexistent/other");
	assert_null(provfix_uri("csm:k"));
	assert_true(provfix_error(CSM_EUNREACHABLE, "/nonexistent/other"));
	OSSL_LIB_CTX_free(lib);
	assert_int_equal(setenv("CSM_SOCKET", socket, 1), 0);
	lib = lib_with("socket = /nonexistent/other\ntrust_overflow = yes");
	key = provfix_uri("csm:k");
	assert_non_null(key);
	EVP_PKEY_free(key);
	OSSL_LIB_CTX_free(lib);
	assert_null(lib_with("trust_overflow = maybe"));
	lib = before;
	free(socket);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default_stays_first),
		cmocka_unit_test(test_soft_keys_stay),
		cmocka_unit_test(test_uris),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_reference_is_the_key),
		cmocka_unit_test(test_one_request),
		cmocka_unit_test(test_reference_in_a_bundle),
		cmocka_unit_test(test_reference_of_another_key),
		cmocka_unit_test(test_deleted_key),
		cmocka_unit_test(test_replaced_key),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_no_private_half),
		cmocka_unit_test(test_another_uid),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_csmd_away),
		cmocka_unit_test(test_settings),
	};

	provfix_main(200);
	return cmocka_run_group_tests(tests, setup, NULL);
}
