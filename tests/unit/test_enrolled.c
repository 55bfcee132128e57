/* What a CA gave: taken only if it is what was asked for, under an anchor; anything else is refused, and why is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include "daemon/pki/enrolled.h"
#include "proto-spec/limits.h"
#include "tests/lib/certmake.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define DAY 86400
#define SANS "DNS:www.example.org,IP:192.0.2.7"

static EVP_PKEY *key, *other_key, *inter_key, *root_key, *false_key;
static X509 *root, *inter, *false_root;
static uint8_t *spki;
static size_t spki_n;
static struct csm_pool pool;
static struct csm_buf given, chain, anchors;
static struct csm_msg_cert_info info;
static char why[CSM_CERT_WHY];
static const struct csm_str sans[] = {CSM_STR("ip:192.0.2.7"), CSM_STR("dns:WWW.example.org")};
static struct csm_enrolled_want want;

static int setup_all(void **state)
{
	(void)state;
	key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	other_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	inter_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	root_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	false_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	root = cert_make(&(struct certspec){.subject = "/CN=root", .key = root_key, .ca = true, .from = -DAY, .to = 900 * DAY});
	inter = cert_make(&(struct certspec){.subject = "/O=x/CN=inter", .key = inter_key, .signer = root,
		.signer_key = root_key, .ca = true, .from = -DAY, .to = 900 * DAY});
	false_root = cert_make(&(struct certspec){.subject = "/CN=root", .key = false_key, .ca = true, .from = -DAY, .to = 900 * DAY});
	spki_n = (size_t)i2d_PUBKEY(key, &spki);
	return 0;
}

static int teardown_all(void **state)
{
	EVP_PKEY *const keys[] = {key, other_key, inter_key, root_key, false_key};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(keys); i++)
		EVP_PKEY_free(keys[i]);
	X509_free(root);
	X509_free(inter);
	X509_free(false_root);
	OPENSSL_free(spki);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	csm_pool_init(&pool, 512 * 1024);
	csm_buf_init(&given, CSM_MESSAGE_MAX, false);
	csm_buf_init(&chain, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&anchors, CSM_CERT_CHAIN_MAX, false);
	cert_der(root, &anchors);
	want = (struct csm_enrolled_want){.spki = {spki, spki_n}, .subject = CSM_STR("/CN=www"), .sans = sans,
		.n_sans = N_ELEMS(sans), .now = (uint64_t)time(NULL)};
	memset(why, 0, sizeof(why));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	csm_pool_free(&pool);
	csm_buf_free(&given);
	csm_buf_free(&chain);
	csm_buf_free(&anchors);
	return 0;
}

static int check(void)
{
	want.anchors = (struct csm_bin){csm_buf_ptr(&anchors), anchors.len};
	return csm_enrolled_check((struct csm_bin){csm_buf_ptr(&given), given.len}, &want, &chain, &pool, &info, why);
}

/* What the CA should give, but for what a test changes. */
static struct certspec good(void)
{
	return (struct certspec){.subject = "/CN=www", .key = key, .signer = inter, .signer_key = inter_key, .san = SANS,
		.usage = "critical,digitalSignature", .eku = "serverAuth,clientAuth"};
}

static void give(const struct certspec *s, X509 *then)
{
	X509 *x = cert_make(s);

	csm_buf_reset(&given);
	csm_buf_reset(&chain);
	cert_der(x, &given);
	if (then != NULL)
		cert_der(then, &given);
	X509_free(x);
}

static void refused(const struct certspec *s, const char *text)
{
	give(s, inter);
	assert_int_equal(check(), CSM_EINVALID);
	if (strstr(why, text) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", text, why);
	assert_int_equal(chain.len, 0);
}

static void test_taken(void **state)
{
	struct certspec s = good();
	size_t one;

	(void)state;
	give(&s, inter);
	assert_int_equal(check(), 0);
	assert_int_equal(chain.len, given.len);
	assert_memory_equal(csm_buf_ptr(&chain), csm_buf_ptr(&given), given.len);
	assert_true(csm_str_eq(info.subject, "/CN=www"));
	assert_int_equal(info.san.n, 2);
	/* for a TLS client, too; the root may be there or not, and what has nothing to do with it is left out */
	want.tls_client = true;
	one = given.len;
	cert_der(false_root, &given);
	cert_der(root, &given);
	csm_buf_reset(&chain);
	assert_int_equal(check(), 0);
	assert_int_equal(chain.len, one);
	/* an anchor below the root does, with nothing above it */
	csm_buf_reset(&anchors);
	cert_der(inter, &anchors);
	give(&s, NULL);
	one = given.len;
	assert_int_equal(check(), 0);
	assert_int_equal(chain.len, one + (size_t)i2d_X509(inter, NULL));
}

static void test_the_ca_may_choose_the_subject(void **state)
{
	struct certspec s = good();

	(void)state;
	s.subject = "/O=the CA/CN=www";
	refused(&s, "subject is not");
	want.any_subject = true;
	give(&s, inter);
	assert_int_equal(check(), 0);
	assert_true(csm_str_eq(info.subject, "/O=the CA/CN=www"));
}

static void test_another_key(void **state)
{
	struct certspec s = good();

	(void)state;
	s.key = other_key;
	refused(&s, "another public key");
}

static void test_other_names(void **state)
{
	static const char *const others[] = {"DNS:www.example.org", "DNS:www.example.org,IP:192.0.2.8", (SANS ",DNS:evil.example"),
		"DNS:www.example.org,DNS:www.example.org", "DNS:www.example.org,IP:192.0.2.7,email:a@b.example", NULL,
		"DNS:www.example.org,URI:dns:www", "DNS:*.example.org,IP:192.0.2.7"};
	static const struct csm_str twins[] = {CSM_STR("dns:www.example.org"), CSM_STR("ip:192.0.2.7"), CSM_STR("dns:b")};
	struct certspec s = good();

	(void)state;
	for (size_t i = 0; i < N_ELEMS(others); i++) {
		s.san = others[i];
		refused(&s, "alternative names");
	}
	s.san = "DNS:www.example.org,IP:192.0.2.7,DNS:WWW.example.org";
	want.sans = twins;
	want.n_sans = 3;
	refused(&s, "alternative names");
	want.n_sans = 0;
	s.san = SANS;
	refused(&s, "as many");
	s.san = NULL;
	give(&s, inter);
	assert_int_equal(check(), 0);
}

static void test_wrong_chain(void **state)
{
	struct certspec s = good();

	(void)state;
	/* nothing between it and the root */
	give(&s, NULL);
	assert_int_equal(check(), CSM_EINVALID);
	assert_non_null(strstr(why, "no chain"));
	/* a root of the same name */
	csm_buf_reset(&anchors);
	cert_der(false_root, &anchors);
	refused(&s, "no chain");
	/* nobody is trusted */
	csm_buf_reset(&anchors);
	refused(&s, "no chain");
	cert_der(root, &anchors);
	s.spoil = "signature";
	refused(&s, "no chain");
	s = good();
	s.signer = false_root;
	s.signer_key = false_key;
	refused(&s, "no chain");
	/* by an end entity's key, or by itself */
	s = good();
	s.signer = NULL;
	s.signer_key = NULL;
	refused(&s, "no chain");
}

static void test_a_ca_certificate(void **state)
{
	struct certspec s = good();

	(void)state;
	s.ca = true;
	refused(&s, "a CA's");
	s.ca = false;
	s.usage = "keyCertSign";
	refused(&s, "a CA's");
	s.usage = "digitalSignature,cRLSign";
	refused(&s, "a CA's");
}

static void test_times(void **state)
{
	struct certspec s = good();

	(void)state;
	s.from = -2 * DAY;
	s.to = -1;
	refused(&s, "expired");
	s.from = 600;
	s.to = DAY;
	refused(&s, "not valid yet");
	s.from = -60;
	s.to = 20L * 366 * DAY;
	refused(&s, "absurdly");
	/* the CA above it is over */
	s = good();
	s.to = 4000L * DAY;
	s.from = -60;
	want.now += 1000L * DAY;
	refused(&s, "expired");
}

static void test_usages_and_constraints(void **state)
{
	struct certspec s = good(), c = {.subject = "/CN=narrow", .key = inter_key, .signer = root, .signer_key = root_key, .ca = true,
					    .constraints = "critical,permitted;DNS:example.com"};
	X509 *narrow = cert_make(&c);

	(void)state;
	s.eku = "serverAuth";
	want.tls_client = true;
	refused(&s, "no chain");
	want.tls_client = false;
	s.signer = narrow;
	give(&s, narrow);
	assert_int_equal(check(), CSM_EINVALID);
	assert_non_null(strstr(why, "permitted subtree"));
	X509_free(narrow);
}

static void test_bytes_that_are_no_certificates(void **state)
{
	struct certspec s = good();

	(void)state;
	csm_buf_reset(&given);
	assert_int_equal(check(), CSM_EINVALID);
	give(&s, inter);
	given.len--;
	assert_int_equal(check(), CSM_EINVALID);
	give(&s, inter);
	for (size_t i = 0; i < CSM_CERTS_MAX; i++)
		cert_der(inter, &given);
	assert_int_equal(check(), CSM_EINVALID);
	want.subject = CSM_STR("no subject");
	give(&s, inter);
	assert_int_equal(check(), CSM_EINVALID);
}

static void test_anchors(void **state)
{
	struct csm_bin a, b;
	struct certspec s = good();
	uint64_t now = (uint64_t)time(NULL);
	struct csm_buf out;
	X509 *old = cert_make(&(struct certspec){.subject = "/CN=old", .key = root_key, .ca = true, .from = -2 * DAY, .to = -5});

	(void)state;
	csm_buf_init(&out, CSM_CERT_CHAIN_MAX, false);
	a = (struct csm_bin){csm_buf_ptr(&anchors), anchors.len};
	assert_int_equal(csm_anchors_check(a, now, why), 0);
	assert_int_equal(csm_anchors_check((struct csm_bin){a.p, 0}, now, why), CSM_EINVALID);
	give(&s, NULL);
	assert_int_equal(csm_anchors_check((struct csm_bin){csm_buf_ptr(&given), given.len}, now, why), CSM_EINVALID);
	assert_non_null(strstr(why, "not a CA's"));
	csm_buf_reset(&given);
	cert_der(old, &given);
	assert_int_equal(csm_anchors_check((struct csm_bin){csm_buf_ptr(&given), given.len}, now, why), CSM_EINVALID);
	assert_non_null(strstr(why, "expired"));
	/* old ones stay beside new ones, each once, until they are over */
	cert_der(false_root, &given);
	cert_der(root, &given);
	b = (struct csm_bin){csm_buf_ptr(&given), given.len};
	assert_int_equal(csm_anchors_join(b, a, now, CSM_CERT_CHAIN_MAX, &out), 0);
	assert_int_equal(out.len, a.n + (size_t)i2d_X509(false_root, NULL));
	csm_buf_reset(&out);
	assert_int_equal(csm_anchors_join(b, a, now, (size_t)i2d_X509(false_root, NULL), &out), 0);
	assert_int_equal(out.len, i2d_X509(false_root, NULL));
	csm_buf_free(&out);
	X509_free(old);
}

static void test_pem(void **state)
{
	BIO *bio = BIO_new(BIO_s_mem());
	struct csm_buf out;
	char *text;
	size_t n;

	(void)state;
	csm_buf_init(&out, CSM_CERT_CHAIN_MAX, false);
	assert_true(BIO_puts(bio, "our CAs\n") > 0);
	PEM_write_bio_X509(bio, root);
	PEM_write_bio_X509(bio, inter);
	n = (size_t)BIO_get_mem_data(bio, &text);
	assert_int_equal(csm_anchors_pem((struct csm_bin){(uint8_t *)text, n}, &out), 0);
	assert_int_equal(out.len, i2d_X509(root, NULL) + i2d_X509(inter, NULL));
	/* one that is broken spoils all, and nothing of it is trusted */
	csm_buf_reset(&out);
	text[n - 60] = '!';
	assert_int_equal(csm_anchors_pem((struct csm_bin){(uint8_t *)text, n}, &out), CSM_EINVALID);
	assert_int_equal(out.len, 0);
	text[40] = '!';
	assert_int_equal(csm_anchors_pem((struct csm_bin){(uint8_t *)text, n}, &out), CSM_EINVALID);
	csm_buf_reset(&out);
	assert_int_equal(csm_anchors_pem((struct csm_bin){(const uint8_t *)"none", 4}, &out), CSM_EINVALID);
	csm_buf_free(&out);
	BIO_free(bio);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_taken), T(test_the_ca_may_choose_the_subject), T(test_another_key), T(test_other_names), T(test_wrong_chain),
		T(test_a_ca_certificate), T(test_times), T(test_usages_and_constraints), T(test_bytes_that_are_no_certificates),
		T(test_anchors), T(test_pem),
	};

	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
