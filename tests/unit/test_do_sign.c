/* key.sign, in one and in parts; key.decrypt, key.derive, key.csr. OpenSSL says what is right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/brokerfix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define MESSAGE "the message that is signed"

static const char with_key_sign[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities: {web: {uid: 70031}}\n"
	"rules: [{allow: [key.create, key.list, key.sign], to: [web], on: [\"web:*\"]}]\n";
static const char without_key_sign[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities: {web: {uid: 70031}}\n"
	"rules: [{allow: [key.create, key.list], to: [web], on: [\"web:*\"]}]\n";

static struct csm_bin copy_of(struct csm_bin s)
{
	static uint8_t kept[1024];

	assert_true(s.n <= sizeof(kept));
	memcpy(kept, s.p, s.n);
	return (struct csm_bin){kept, s.n};
}

static void keys_for_all_tests(void **state)
{
	static const struct {
		const char *name, *alg, *backend, *use;
	} keys[] = {{"p256", "p256", "soft", NULL}, {"p384", "p384", "soft", NULL}, {"p521", "p521", "soft", NULL},
		{"ed", "ed25519", "soft", NULL}, {"rsa", "rsa2048", "soft", NULL}, {"fake", "p256", "fake", NULL},
		{"fakersa", "rsa2048", "fake", NULL}, {"dh", "p256", "soft", "derive"}, {"dh384", "p384", "soft", "derive"},
		{"fakedh", "p256", "fake", "derive"}, {"rsasign", "rsa2048", "soft", "sign"}};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(keys); i++)
		assert_int_equal(fix_create(pub, keys[i].name, keys[i].alg, keys[i].backend, keys[i].use), 0);
}

static void every_scheme_verifies(void **state)
{
	static const struct {
		const char *key, *asked, *scheme;
	} cases[] = {{"p256", NULL, "ecdsa-sha256"}, {"p256", "ecdsa-sha384", "ecdsa-sha384"}, {"p384", NULL, "ecdsa-sha384"},
		{"p521", NULL, "ecdsa-sha512"}, {"ed", NULL, "ed25519"}, {"ed", "ed25519", "ed25519"},
		{"rsa", NULL, "rsa-pkcs1-sha256"}, {"rsa", "rsa-pkcs1-sha512", "rsa-pkcs1-sha512"},
		{"rsa", "rsa-pss-sha384", "rsa-pss-sha384"}, {"fake", NULL, "ecdsa-sha256"},
		{"fakersa", "rsa-pss-sha256", "rsa-pss-sha256"}};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		struct csm_msg_sign_req m = {.key = csm_str_of(cases[i].key), .scheme = csm_str_of(cases[i].asked),
			.message = {(const uint8_t *)MESSAGE, strlen(MESSAGE)}};
		struct csm_msg_sign_res res;
		uint8_t digest[64];
		unsigned n = 0;

		assert_int_equal(fix_call(pub, "key.sign", &m, &res), 0);
		assert_true(csm_str_eq(res.scheme, cases[i].scheme));
		assert_true(fix_verified(cases[i].key, cases[i].scheme, MESSAGE, copy_of(res.signature)));
		assert_int_equal(fix_call(pub, "key.sign", &m, &res), 0);
		assert_false(fix_verified(cases[i].key, cases[i].scheme, MESSAGE "!", copy_of(res.signature)));
		if (fix_hash_name(cases[i].scheme) == NULL)
			continue;
		EVP_Digest(MESSAGE, strlen(MESSAGE), digest, &n, EVP_get_digestbyname(fix_hash_name(cases[i].scheme)), NULL);
		m.message = (struct csm_bin){NULL, 0};
		m.digest = (struct csm_bin){digest, n};
		assert_int_equal(fix_call(pub, "key.sign", &m, &res), 0);
		assert_true(fix_verified(cases[i].key, cases[i].scheme, MESSAGE, copy_of(res.signature)));
	}
}

static void what_is_not_signed(void **state)
{
	static const uint8_t some[65];
	struct csm_msg_sign_req m = {.key = CSM_STR("p256")};
	static const size_t sizes[] = {0, 20, 31, 33, 48, 64};

	(void)state;
	assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_EINVALID);
	m.digest = (struct csm_bin){some, 32};
	m.message = (struct csm_bin){some, 1};
	assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_EINVALID);
	m.message = (struct csm_bin){NULL, 0};
	for (size_t i = 0; i < N_ELEMS(sizes); i++) {
		m.digest.n = sizes[i];
		assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_EINVALID);
		assert_non_null(strstr(fix.last.message, "digest"));
	}
	m.digest.n = 65;
	assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_ETOO_LARGE);
	/* Ed25519 signs messages. */
	m = (struct csm_msg_sign_req){.key = CSM_STR("ed"), .digest = {some, 32}};
	assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_EINVALID);
	assert_non_null(strstr(fix.last.message, "message"));
	/* Schemes that are none, or another key's. */
	static const struct {
		const char *key, *scheme;
	} cases[] = {{"p256", "rsa-pkcs1-sha256"}, {"p256", "ed25519"}, {"ed", "ecdsa-sha256"}, {"rsa", "ecdsa-sha256"},
		{"p256", ""}, {"p256", "ECDSA-SHA256"}, {"rsa", "rsa-pkcs1-sha1"}, {"rsa", "rsa-raw"}};
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		m = (struct csm_msg_sign_req){
			.key = csm_str_of(cases[i].key), .scheme = csm_str_of(cases[i].scheme), .message = {some, 3}};
		assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_EINVALID);
	}
	m = (struct csm_msg_sign_req){.key = CSM_STR("rsa"), .scheme = CSM_STR("rsa-oaep-sha256"), .message = {some, 3}};
	assert_int_not_equal(fix_ask(pub, "key.sign", &m), 0);
	/* A key that was made for something else. */
	m = (struct csm_msg_sign_req){.key = CSM_STR("dh"), .message = {some, 3}};
	assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_EUNSUPPORTED);
	/* The empty message is one. */
	m = (struct csm_msg_sign_req){.key = CSM_STR("ed"), .message = {some, 0}};
	assert_int_equal(fix_ask(pub, "key.sign", &m), 0);
}

static void the_largest_message(void **state)
{
	static uint8_t big[CSM_SIGN_MESSAGE_MAX + 1];
	struct csm_msg_sign_req m = {.key = CSM_STR("ed"), .message = {big, CSM_SIGN_MESSAGE_MAX}};

	(void)state;
	assert_int_equal(fix_ask(pub, "key.sign", &m), 0);
	m.message.n++;
	assert_int_equal(fix_ask(pub, "key.sign", &m), CSM_ETOO_LARGE);
	m = (struct csm_msg_sign_req){.key = CSM_STR("fake"), .message = {big, CSM_SIGN_MESSAGE_MAX}};
	assert_int_equal(fix_ask(pub, "key.sign", &m), 0);
}

static void signatures_are_counted(void **state)
{
	struct csm_msg_key_req m = {.key = CSM_STR("counted")};
	struct csm_msg_sign_req bad = {.key = CSM_STR("counted")};
	struct csm_msg_key_info info;
	struct csm_msg_sign_res sig;

	(void)state;
	assert_int_equal(fix_create(pub, "counted", NULL, NULL, NULL), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(fix_sign(pub, "counted", &sig), 0);
	assert_int_equal(fix_ask(pub, "key.sign", &bad), CSM_EINVALID);
	assert_int_equal(fix_call(pub, "key.show", &m, &info), 0);
	assert_int_equal(info.signatures.v, 5);
}

/* ---- in parts ---- */

static int init(int fd, const char *key, const char *scheme, uint64_t *stream)
{
	struct csm_msg_sign_init_req m = {.key = csm_str_of(key), .scheme = csm_str_of(scheme)};
	struct csm_msg_sign_init_res res = {0};
	int r = fix_call(fd, "key.sign_init", &m, &res);

	if (r == 0)
		*stream = res.stream.v;
	return r;
}

static int update(int fd, uint64_t stream, const char *text, size_t n)
{
	struct csm_msg_sign_update_req m = {.stream = {stream, true}, .data = {(const uint8_t *)text, n}};
	struct csm_msg_empty none;

	return fix_call(fd, "key.sign_update", &m, &none);
}

static int final(int fd, uint64_t stream, bool cancel, struct csm_msg_sign_res *res)
{
	struct csm_msg_sign_final_req m = {.stream = {stream, true}, .cancel = {cancel, cancel}};

	return fix_call(fd, "key.sign_final", &m, res);
}

static void parts_make_one_signature(void **state)
{
	static const struct {
		const char *key, *scheme;
	} cases[] = {{"p256", "ecdsa-sha256"}, {"p384", "ecdsa-sha512"}, {"rsa", "rsa-pss-sha256"}, {"fake", "ecdsa-sha256"}};
	uint64_t stream[N_ELEMS(cases)] = {0};
	struct csm_msg_sign_res res;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++)
		assert_int_equal(init(pub, cases[i].key, cases[i].scheme, &stream[i]), 0);
	for (size_t at = 0; at < strlen(MESSAGE); at += 5)
		for (size_t i = 0; i < N_ELEMS(cases); i++) {
			size_t left = strlen(MESSAGE) - at;

			assert_int_equal(update(pub, stream[i], MESSAGE + at, left < 5 ? left : 5), 0);
			assert_int_equal(update(pub, stream[i], "", 0), 0);
		}
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		assert_int_equal(final(pub, stream[i], false, &res), 0);
		assert_true(csm_str_eq(res.scheme, cases[i].scheme));
		assert_true(fix_verified(cases[i].key, cases[i].scheme, MESSAGE, copy_of(res.signature)));
		assert_int_equal(final(pub, stream[i], false, &res), CSM_EINVALID);
		assert_int_equal(update(pub, stream[i], "x", 1), CSM_EINVALID);
	}
}

static void what_cannot_be_begun(void **state)
{
	uint64_t s;

	(void)state;
	assert_int_equal(init(pub, "ed", NULL, &s), CSM_EUNSUPPORTED);
	assert_int_equal(init(pub, "p256", "ed25519", &s), CSM_EINVALID);
	assert_int_equal(init(pub, "dh", NULL, &s), CSM_EUNSUPPORTED);
	assert_int_equal(init(pub, "nope", NULL, &s), CSM_ENOT_FOUND);
	assert_int_equal(update(pub, 1, "x", 1), CSM_EINVALID);
}

static void streams_of_a_connection(void **state)
{
	uint64_t s[CSM_SIGN_STREAMS_MAX + 1] = {0};
	struct csm_msg_sign_res res;
	int other;

	(void)state;
	for (size_t i = 0; i < CSM_SIGN_STREAMS_MAX; i++)
		assert_int_equal(init(pub, "p256", NULL, &s[i]), 0);
	assert_int_equal(init(pub, "p256", NULL, &s[CSM_SIGN_STREAMS_MAX]), CSM_EBUSY);
	/* What was begun here is not known elsewhere. */
	other = fix_connect(CSM_R_PUBLIC);
	assert_int_equal(update(other, s[3], "x", 1), CSM_EINVALID);
	assert_int_equal(final(other, s[3], false, &res), CSM_EINVALID);
	assert_int_equal(final(other, s[3], true, &res), CSM_EINVALID);
	fix_close(other);
	/* One that was cancelled makes room, and is no more. */
	assert_int_equal(final(pub, s[3], true, &res), 0);
	assert_int_equal(res.signature.n, 0);
	assert_int_equal(update(pub, s[3], "x", 1), CSM_EINVALID);
	assert_int_equal(init(pub, "p256", NULL, &s[3]), 0);
	assert_int_equal(init(pub, "p256", NULL, &s[CSM_SIGN_STREAMS_MAX]), CSM_EBUSY);
	assert_int_equal(final(pub, s[15], false, &res), 0);
	assert_int_equal(init(pub, "p256", NULL, &s[15]), 0);
	/* The rest goes with the connection. */
}

static int delete(const char *name)
{
	struct csm_msg_key_delete_req m = {.key = csm_str_of(name)};
	struct csm_msg_empty none;

	return fix_call(pub, "key.delete", &m, &none);
}

static void the_key_is_judged_again_at_the_end(void **state)
{
	struct csm_msg_sign_res res;
	uint64_t replaced = 0, deleted = 0;

	(void)state;
	assert_int_equal(fix_create(pub, "changes", NULL, NULL, NULL), 0);
	assert_int_equal(init(pub, "changes", NULL, &deleted), 0);
	assert_int_equal(init(pub, "changes", NULL, &replaced), 0);
	assert_int_equal(delete("changes"), 0);
	assert_int_equal(update(pub, deleted, "x", 1), 0);
	assert_int_equal(final(pub, deleted, false, &res), CSM_ENOT_FOUND);
	assert_int_equal(fix_create(pub, "changes", NULL, NULL, NULL), 0);
	assert_int_equal(final(pub, replaced, false, &res), CSM_ECONFLICT);
	assert_int_equal(final(pub, replaced, false, &res), CSM_EINVALID);
	/* And so is the policy. */
	int web = fix_connect_as(70031), admin;
	uint64_t s = 0, kept = 0;
	static const struct csm_msg_empty none;
	struct csm_msg_reload_res reloaded;
	assert_int_equal(fix_create(web, "web:k", NULL, NULL, NULL), 0);
	assert_int_equal(init(web, "web:k", NULL, &s), 0);
	assert_int_equal(init(web, "web:k", NULL, &kept), 0);
	admin = fix_connect(CSM_R_ADMIN);
	fix.t.policy = without_key_sign;
	assert_int_equal(fix_call(admin, "policy.reload", &none, &reloaded), 0);
	assert_int_equal(final(web, s, false, &res), CSM_EDENIED);
	fix.t.policy = with_key_sign;
	assert_int_equal(fix_call(admin, "policy.reload", &none, &reloaded), 0);
	assert_int_equal(final(web, kept, false, &res), 0);
	fix_close(web);
	fix_close(admin);
}

/* ---- decrypt, derive ---- */

static size_t encrypt(const char *key, const char *label, const char *plain, uint8_t out[static 512])
{
	EVP_PKEY *k = fix_public(key);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(k, NULL);
	size_t n = 512;

	assert_int_equal(EVP_PKEY_encrypt_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()), 1);
	if (label != NULL)
		assert_int_equal(EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, OPENSSL_strdup(label), (int)strlen(label)), 1);
	assert_int_equal(EVP_PKEY_encrypt(ctx, out, &n, (const uint8_t *)plain, strlen(plain)), 1);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(k);
	return n;
}

static void expect_not_opened(const struct csm_msg_decrypt_req *m)
{
	/* One answer for all that does not open. */
	assert_int_equal(fix_ask(pub, "key.decrypt", m), CSM_EINVALID);
	assert_string_equal(fix.last.message, "the cipher text cannot be opened");
}

static void decryption(void **state)
{
	static const char *const keys[] = {"rsa", "fakersa"};
	uint8_t sealed[512];

	(void)state;
	for (size_t i = 0; i < N_ELEMS(keys); i++) {
		/* The scripted device knows no labels. */
		const char *label = i == 0 ? "for me" : NULL;
		struct csm_msg_decrypt_req m = {.key = csm_str_of(keys[i]), .label = {(const uint8_t *)label, i == 0 ? 6 : 0}};
		struct csm_msg_decrypt_res res;

		m.ciphertext = (struct csm_bin){sealed, encrypt(keys[i], label, "a secret", sealed)};
		assert_int_equal(fix_call(pub, "key.decrypt", &m, &res), 0);
		assert_int_equal(res.plaintext.n, 8);
		assert_memory_equal(res.plaintext.p, "a secret", 8);
		if (i == 1) /* by its script, once */
			assert_int_equal(fix_ask(pub, "key.decrypt", &m), CSM_ELOCKOUT);
		m.label = (struct csm_bin){(const uint8_t *)"for us", 6};
		if (i == 1)
			assert_int_equal(fix_ask(pub, "key.decrypt", &m), CSM_EUNSUPPORTED);
		else
			expect_not_opened(&m);
		m.label = (struct csm_bin){(const uint8_t *)label, i == 0 ? 6 : 0};
		sealed[100] ^= 1;
		expect_not_opened(&m);
		m.ciphertext.n = 10;
		expect_not_opened(&m);
		m.scheme = CSM_STR("rsa-pkcs1-sha256");
		assert_int_equal(fix_ask(pub, "key.decrypt", &m), CSM_EINVALID);
		/* Nothing is something that can be encrypted. */
		m = (struct csm_msg_decrypt_req){.key = csm_str_of(keys[i]), .scheme = CSM_STR("rsa-oaep-sha256")};
		m.ciphertext = (struct csm_bin){sealed, encrypt(keys[i], NULL, "", sealed)};
		assert_int_equal(fix_call(pub, "key.decrypt", &m, &res), 0);
		assert_int_equal(res.plaintext.n, 0);
	}
	struct csm_msg_decrypt_req m = {.key = CSM_STR("rsasign"), .ciphertext = {sealed, 256}};
	assert_int_equal(fix_ask(pub, "key.decrypt", &m), CSM_EUNSUPPORTED);
	m.key = CSM_STR("p256");
	assert_int_equal(fix_ask(pub, "key.decrypt", &m), CSM_EUNSUPPORTED);
}

static size_t spki_of(const char *key, uint8_t out[static 512])
{
	struct csm_msg_key_public_req m = {.key = csm_str_of(key)};
	struct csm_msg_key_public_res res;

	assert_int_equal(fix_call(pub, "key.public", &m, &res), 0);
	memcpy(out, res.spki.p, res.spki.n);
	return res.spki.n;
}

static void both_sides_derive_the_same(void **state)
{
	static const char *const keys[] = {"dh", "fakedh"};
	uint8_t spki[512], shared[2][32];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct csm_msg_derive_req m = {.key = csm_str_of(keys[i]), .peer = {spki, spki_of(keys[1 - i], spki)}};
		struct csm_msg_derive_res res;

		assert_int_equal(fix_call(pub, "key.derive", &m, &res), 0);
		assert_int_equal(res.shared.n, 32);
		memcpy(shared[i], res.shared.p, 32);
		/* Off the curve, cut off, another curve, another kind. */
		spki[m.peer.n - 1] ^= 1;
		assert_int_equal(fix_ask(pub, "key.derive", &m), CSM_EINVALID);
		m.peer.n--;
		assert_int_equal(fix_ask(pub, "key.derive", &m), CSM_EINVALID);
		m.peer.n = spki_of("dh384", spki);
		assert_int_equal(fix_ask(pub, "key.derive", &m), CSM_EINVALID);
		m.peer.n = spki_of("rsa", spki);
		assert_int_equal(fix_ask(pub, "key.derive", &m), CSM_EINVALID);
	}
	assert_memory_equal(shared[0], shared[1], 32);
	struct csm_msg_derive_req m = {.key = CSM_STR("p256"), .peer = {spki, spki_of("dh", spki)}};
	assert_int_equal(fix_ask(pub, "key.derive", &m), CSM_EUNSUPPORTED);
}

/* ---- csr ---- */

static void requests_for_certificates(void **state)
{
	static const char *const keys[] = {"p256", "p384", "rsa", "ed", "fake", "fakersa"};
	struct csm_str sans[] = {CSM_STR("dns:a.example"), CSM_STR("dns:*.b.example"), CSM_STR("ip:192.0.2.1"),
		CSM_STR("ip:2001:db8::1"), CSM_STR("uri:spiffe://x/y"), CSM_STR("email:a@b.example")};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(keys); i++) {
		struct csm_msg_csr_req m = {
			.key = csm_str_of(keys[i]), .subject = CSM_STR("/O=x/CN=y"), .sans = {sans, N_ELEMS(sans)}};
		struct csm_msg_csr_res res;
		STACK_OF(X509_EXTENSION) *ext;
		GENERAL_NAMES *names;
		const uint8_t *at;
		X509_REQ *req;
		EVP_PKEY *k;
		char subject[64];

		assert_int_equal(fix_call(pub, "key.csr", &m, &res), 0);
		at = res.csr.p;
		req = d2i_X509_REQ(NULL, &at, (long)res.csr.n);
		assert_non_null(req);
		assert_ptr_equal(at, res.csr.p + res.csr.n);
		X509_NAME_oneline(X509_REQ_get_subject_name(req), subject, sizeof(subject));
		assert_string_equal(subject, "/O=x/CN=y");
		ext = X509_REQ_get_extensions(req);
		names = X509V3_get_d2i(ext, NID_subject_alt_name, NULL, NULL);
		assert_int_equal(sk_GENERAL_NAME_num(names), N_ELEMS(sans));
		GENERAL_NAMES_free(names);
		sk_X509_EXTENSION_pop_free(ext, X509_EXTENSION_free);
		k = fix_public(keys[i]);
		assert_int_equal(X509_REQ_verify(req, k), 1);
		EVP_PKEY_free(k);
		X509_REQ_free(req);
	}
}

static void what_is_no_certificate_request(void **state)
{
	static const char *const subjects[] = {"", "CN=x", "/X=y", "/CN"};
	static const char *const sans[] = {"", "a.example", "dns:", "dns:a b", "ip:1.2.3", "ip:", "uri:noscheme", "email:x",
		"dns:192.0.2.1", "other:x"};
	struct csm_msg_csr_req m = {.key = CSM_STR("p256")};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(subjects); i++) {
		m.subject = csm_str_of(subjects[i]);
		assert_int_equal(fix_ask(pub, "key.csr", &m), CSM_EINVALID);
	}
	m.subject = CSM_STR("/CN=x");
	for (size_t i = 0; i < N_ELEMS(sans); i++) {
		struct csm_str san = csm_str_of(sans[i]);

		m.sans.v = &san;
		m.sans.n = 1;
		assert_int_equal(fix_ask(pub, "key.csr", &m), CSM_EINVALID);
	}
	m.sans.n = 0;
	m.scheme = CSM_STR("rsa-pkcs1-sha256");
	assert_int_equal(fix_ask(pub, "key.csr", &m), CSM_EINVALID);
	m = (struct csm_msg_csr_req){.key = CSM_STR("rsa"), .subject = CSM_STR("/CN=x"), .scheme = CSM_STR("rsa-oaep-sha256")};
	assert_int_not_equal(fix_ask(pub, "key.csr", &m), 0);
	m = (struct csm_msg_csr_req){.key = CSM_STR("dh"), .subject = CSM_STR("/CN=x")};
	assert_int_equal(fix_ask(pub, "key.csr", &m), CSM_EUNSUPPORTED);
}

/* spki_sha256 as key.show tells it. */
static void hash_text(const char *name, char out[static 65])
{
	struct csm_msg_key_req m = {.key = csm_str_of(name)};
	struct csm_msg_key_info info;

	assert_int_equal(fix_call(pub, "key.show", &m, &info), 0);
	snprintf(out, 65, "%.*s", (int)info.spki_sha256.n, info.spki_sha256.p);
}

/* Who says which key he means is not served by another one that has its name. */
static void only_the_key_that_is_meant(void **state)
{
	uint8_t spki[CSM_SPKI_MAX], digest[32] = {1};
	const struct csm_bin some = {digest, sizeof(digest)};
	char own[65], other[65];

	(void)state;
	hash_text("p256", own);
	hash_text("p384", other);
	for (int i = 0; i < 2; i++) {
		const int wanted = i == 0 ? 0 : CSM_ECONFLICT;
		const struct csm_str is = csm_str_of(i == 0 ? own : other);
		struct csm_msg_sign_req sign = {.key = CSM_STR("p256"), .digest = some, .spki_sha256 = is};
		struct csm_msg_sign_init_req begin = {.key = CSM_STR("p256"), .spki_sha256 = is};
		struct csm_msg_csr_req csr = {.key = CSM_STR("p256"), .subject = CSM_STR("/CN=x"), .spki_sha256 = is};

		assert_int_equal(fix_ask(pub, "key.sign", &sign), wanted);
		assert_int_equal(fix_ask(pub, "key.sign_init", &begin), wanted);
		assert_int_equal(fix_ask(pub, "key.csr", &csr), wanted);
	}
	for (int i = 0; i < 2; i++) {
		struct csm_msg_derive_req derive = {.key = CSM_STR("dh"), .peer = {spki, spki_of("dh", spki)}};
		struct csm_msg_decrypt_req decrypt = {.key = CSM_STR("rsa"), .ciphertext = some};

		hash_text("dh", own);
		derive.spki_sha256 = csm_str_of(i == 0 ? own : other);
		assert_int_equal(fix_ask(pub, "key.derive", &derive), i == 0 ? 0 : CSM_ECONFLICT);
		hash_text("rsa", own);
		decrypt.spki_sha256 = csm_str_of(i == 0 ? own : other);
		assert_int_equal(fix_ask(pub, "key.decrypt", &decrypt), i == 0 ? CSM_EINVALID : CSM_ECONFLICT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(keys_for_all_tests),
		FIX_TEST(every_scheme_verifies),
		FIX_TEST(what_is_not_signed),
		FIX_TEST(the_largest_message),
		FIX_TEST(signatures_are_counted),
		FIX_TEST(parts_make_one_signature),
		FIX_TEST(what_cannot_be_begun),
		FIX_TEST(streams_of_a_connection),
		FIX_TEST(the_key_is_judged_again_at_the_end),
		FIX_TEST(decryption),
		FIX_TEST(both_sides_derive_the_same),
		FIX_TEST(only_the_key_that_is_meant),
		FIX_TEST(requests_for_certificates),
		FIX_TEST(what_is_no_certificate_request),
	};

	if (!fix_prepare(200, "decrypt=after:1,fail:LOCKOUT:1", with_key_sign))
		return 77;
	return cmocka_run_group_tests(tests, fix_begin, fix_end);
}
