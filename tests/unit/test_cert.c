/* Certificates that are to stand beside a key: which are taken, which are refused and why, and what is told of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <openssl/param_build.h>
#include <openssl/x509v3.h>
#include "daemon/pki/cert.h"
#include "proto-spec/limits.h"
#include "tests/lib/certmake.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* A key with an intermediate and a root CA above it. */
static EVP_PKEY *key, *inter_key, *root_key, *other_key;
static X509 *root, *inter, *leaf;
static uint8_t *spki;
static size_t spki_n;
static struct csm_pool pool;
static struct csm_msg_cert_info info;
static char why[CSM_CERT_WHY];

static int setup(void **state)
{
	(void)state;
	key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	other_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	inter_key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	root_key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	root = cert_make(&(struct certspec){.subject = "/CN=root", .key = root_key, .ca = true});
	inter = cert_make(&(struct certspec){
		.subject = "/O=x/CN=inter", .key = inter_key, .signer = root, .signer_key = root_key, .ca = true});
	leaf = cert_make(&(struct certspec){.subject = "/O=Example/CN=www", .key = key, .signer = inter,
		.signer_key = inter_key, .serial = "0A1B2C", .san = "DNS:www.example.org,URI:spiffe://x/y"});
	spki_n = (size_t)i2d_PUBKEY(key, &spki);
	csm_pool_init(&pool, 512 * 1024);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	X509_free(root);
	X509_free(inter);
	X509_free(leaf);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other_key);
	EVP_PKEY_free(inter_key);
	EVP_PKEY_free(root_key);
	OPENSSL_free(spki);
	csm_pool_free(&pool);
	return 0;
}

static int check_bytes(const void *p, size_t n)
{
	csm_pool_reset(&pool);
	memset(&info, 0, sizeof(info));
	memset(why, 0, sizeof(why));
	return csm_cert_check((struct csm_bin){p, n}, (struct csm_bin){spki, spki_n}, (uint64_t)time(NULL), &pool, &info, why);
}

static int check(X509 *a, X509 *b, X509 *c)
{
	X509 *const certs[] = {a, b, c};
	struct csm_buf der;
	int r;

	csm_buf_init(&der, CSM_MESSAGE_MAX, false);
	for (size_t i = 0; i < 3 && certs[i] != NULL; i++)
		cert_der(certs[i], &der);
	r = check_bytes(csm_buf_ptr(&der), der.len);
	csm_buf_free(&der);
	return r;
}

/* One certificate, made for this and freed. */
static int check_spec(const struct certspec *spec, X509 *b)
{
	X509 *x = cert_make(spec);
	int r = check(x, b, NULL);

	X509_free(x);
	return r;
}

static void refused(int r, const char *text)
{
	assert_int_equal(r, CSM_EINVALID);
	if (strstr(why, text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", why, text);
	assert_null(info.serial.p); /* outputs stay untouched */
}

static void what_is_set_up_first(void **state)
{
	(void)state;
	assert_int_equal(csm_cert_prepare(), 0);
	assert_int_equal(csm_cert_prepare(), 0);
}

static void what_is_told(void **state)
{
	uint64_t now = (uint64_t)time(NULL);

	(void)state;
	assert_int_equal(check(leaf, inter, root), 0);
	assert_true(csm_str_eq(info.serial, "0a1b2c"));
	assert_true(csm_str_eq(info.subject, "/O=Example/CN=www"));
	assert_true(csm_str_eq(info.issuer, "/O=x/CN=inter"));
	assert_int_equal(info.san.n, 2);
	assert_true(csm_str_eq(info.san.v[0], "dns:www.example.org"));
	assert_true(csm_str_eq(info.san.v[1], "uri:spiffe://x/y"));
	assert_in_range(info.not_before.v, now - 3660, now - 3540);
	assert_int_equal(info.not_after.v - info.not_before.v, 90000);
	assert_int_equal(info.renew_at.v - info.not_before.v, 60000);
	assert_int_equal(info.fingerprint.n, 64);
	assert_string_equal(csm_cert_state(info.not_before.v, info.not_after.v, now), "valid");
	assert_string_equal(csm_cert_state(10, 20, 9), "not_yet_valid");
	assert_string_equal(csm_cert_state(10, 20, 20), "valid");
	assert_string_equal(csm_cert_state(10, 20, 21), "expired");
}

/* The root may be left out, and so may all but the leaf; a self-signed one is a chain of its own; a CA's is taken. */
static void short_chains(void **state)
{
	const struct certspec self = {.subject = "/CN=self", .key = key}, ca = {.subject = "/CN=ca", .key = key, .ca = true};

	(void)state;
	assert_int_equal(check(leaf, inter, NULL), 0);
	assert_int_equal(check(leaf, NULL, NULL), 0);
	assert_int_equal(info.san.n, 2);
	assert_int_equal(check_spec(&self, NULL), 0);
	assert_int_equal(info.san.n, 0);
	assert_int_equal(check_spec(&ca, NULL), 0);
	/* clocks differ, and it may be meant for later */
	assert_int_equal(check_spec(&(struct certspec){.subject = "/CN=x", .key = key, .from = 600, .to = 1200}, NULL), 0);
	assert_int_equal(check_spec(&(struct certspec){.key = key}, NULL), 0);
	assert_true(csm_str_eq(info.subject, "/"));
}

static void chains_that_are_none(void **state)
{
	const struct certspec foreign = {.subject = "/CN=x", .key = other_key, .signer = inter, .signer_key = inter_key};

	(void)state;
	refused(check_spec(&foreign, NULL), "certificate 1: its public key is not this key's");
	refused(check(inter, root, NULL), "certificate 1: its public key is not this key's");
	refused(check(inter, leaf, NULL), "certificate 1: its public key is not this key's");
	refused(check(leaf, root, NULL), "certificate 2: it is not the issuer of the one before");
	refused(check(leaf, root, inter), "certificate 2: it is not the issuer");
	refused(check(leaf, leaf, NULL), "certificate 2: it is not the issuer");
	refused(check_bytes("", 0), "the chain is empty");
}

/* The name is right, the rest is not. */
static void issuers_that_are_none(void **state)
{
	X509 *no_ca = cert_make(&(struct certspec){.subject = "/O=x/CN=inter", .key = inter_key, .usage = "keyCertSign"});
	X509 *no_sign = cert_make(
		&(struct certspec){.subject = "/O=x/CN=inter", .key = inter_key, .ca = true, .usage = "digitalSignature"});
	EVP_PKEY *rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	X509 *other = cert_make(&(struct certspec){.subject = "/O=x/CN=inter", .key = rsa, .ca = true});
	X509 *of_kind = cert_make(&(struct certspec){.subject = "/O=x/CN=inter", .key = root_key, .ca = true});

	(void)state;
	refused(check(leaf, other, NULL), "certificate 1: the signature is not its issuer's");
	refused(check(leaf, of_kind, NULL), "certificate 2: it is not the issuer");
	refused(check(leaf, no_sign, NULL), "certificate 2: its key usage does not allow it");
	refused(check(leaf, no_ca, NULL), "certificate 2: it is not a CA's");
	refused(check_spec(&(struct certspec){.subject = "/CN=x", .key = key, .signer = inter, .signer_key = inter_key,
			.spoil = "signature"}, inter), "certificate 1: the signature is not its issuer's");
	X509_free(no_ca);
	X509_free(no_sign);
	X509_free(other);
	X509_free(of_kind);
	EVP_PKEY_free(rsa);
}

/* A public key of a size that would cost much to verify with; nobody has the other half. */
static EVP_PKEY *giant(void)
{
	static uint8_t n[2048];
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params;
	EVP_PKEY *ret = NULL;
	BIGNUM *bn;

	memset(n, 0xff, sizeof(n));
	bn = BN_bin2bn(n, sizeof(n), NULL);
	assert_int_equal(OSSL_PARAM_BLD_push_BN(bld, "n", bn), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_uint(bld, "e", 65537), 1);
	params = OSSL_PARAM_BLD_to_param(bld);
	assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
	assert_int_equal(EVP_PKEY_fromdata(ctx, &ret, EVP_PKEY_PUBLIC_KEY, params), 1);
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(bld);
	EVP_PKEY_CTX_free(ctx);
	BN_free(bn);
	return ret;
}

static void costly_issuers(void **state)
{
	EVP_PKEY *big = giant(), *p521 = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-521");
	X509 *ca = cert_make(&(struct certspec){.subject = "/O=x/CN=inter", .key = big, .signer_key = inter_key, .ca = true});
	X509 *curve = cert_make(&(struct certspec){.subject = "/CN=p521", .key = p521, .ca = true});

	(void)state;
	refused(check(leaf, ca, NULL), "certificate 2: its public key is of an unknown kind or size");
	assert_int_equal(check_spec(&(struct certspec){.key = key, .signer = curve, .signer_key = p521}, curve), 0);
	X509_free(ca);
	X509_free(curve);
	EVP_PKEY_free(big);
	EVP_PKEY_free(p521);
}

static void dates(void **state)
{
	X509 *old = cert_make(&(struct certspec){.subject = "/O=x/CN=inter", .key = inter_key, .signer = root,
		.signer_key = root_key, .ca = true, .from = -7200, .to = -60});

	(void)state;
	refused(check_spec(&(struct certspec){.subject = "/CN=x", .key = key, .from = -7200, .to = -60}, NULL),
		"certificate 1: it has expired");
	refused(check(leaf, old, root), "certificate 2: it has expired");
	refused(check_spec(&(struct certspec){.subject = "/CN=x", .key = key, .from = 7200, .to = 60}, NULL),
		"certificate 1: it ends before it begins");
	X509_free(old);
}

static void sizes(void **state)
{
	struct csm_buf b;
	static char san[40000];
	size_t n = 0;

	(void)state;
	csm_buf_init(&b, CSM_MESSAGE_MAX, false);
	for (unsigned i = 0; i < CSM_CERTS_MAX + 1; i++)
		cert_der(root, &b);
	assert_int_equal(check_bytes(csm_buf_ptr(&b), b.len), CSM_ETOO_LARGE);
	assert_non_null(strstr(why, "more than 10"));
	csm_buf_reset(&b);
	cert_der(leaf, &b);
	uint8_t *room = calloc(1, CSM_CERT_CHAIN_MAX + 1);
	memcpy(room, csm_buf_ptr(&b), b.len);
	assert_int_equal(check_bytes(room, CSM_CERT_CHAIN_MAX + 1), CSM_ETOO_LARGE);
	assert_non_null(strstr(why, "65536"));
	refused(check_bytes(room, CSM_CERT_CHAIN_MAX), "certificate 2: not a DER certificate, or bytes are left over");
	free(room);
	csm_buf_free(&b);
	/* many names, one more, one that is too long */
	for (unsigned i = 0; i < CSM_CERT_SANS_MAX; i++)
		n += (size_t)snprintf(san + n, sizeof(san) - n, "%sDNS:n%u.example.org", i > 0 ? "," : "", i);
	assert_int_equal(check_spec(&(struct certspec){.key = key, .san = san}, NULL), 0);
	assert_int_equal(info.san.n, CSM_CERT_SANS_MAX);
	assert_true(csm_str_eq(info.san.v[255], "dns:n255.example.org"));
	(void)snprintf(san + n, sizeof(san) - n, ",DNS:one.more");
	refused(check_spec(&(struct certspec){.key = key, .san = san}, NULL), "more than 256 alternative names");
	n = (size_t)snprintf(san, sizeof(san), "URI:x:");
	memset(san + n, 'a', 600);
	san[n + 600] = '\0';
	refused(check_spec(&(struct certspec){.key = key, .san = san}, NULL), "alternative name 1 is too long");
	assert_int_equal(check_spec(&(struct certspec){.key = key, .serial = "7F00000000000000000000000000000000000000"}, NULL), 0);
	assert_int_equal(info.serial.n, 40);
	refused(check_spec(&(struct certspec){.key = key, .serial = "01000000000000000000000000000000000000000000"}, NULL),
		"serial number");
	assert_int_equal(check_spec(&(struct certspec){.key = key, .serial = "0"}, NULL), 0);
}

/* Each cut and each changed byte of a chain: refused, or taken as another certificate of the same key, never a crash. */
static void bytes_are_looked_at(void **state)
{
	struct csm_buf b;
	uint8_t *p;
	size_t n, taken = 0;

	(void)state;
	csm_buf_init(&b, CSM_MESSAGE_MAX, false);
	cert_der(leaf, &b);
	cert_der(inter, &b);
	p = (uint8_t *)(uintptr_t)csm_buf_ptr(&b);
	n = b.len;
	assert_int_equal(check_bytes(p, n), 0);
	for (size_t i = 1; i < n; i++) {
		int r = check_bytes(p, i);

		/* whole certificates are a chain too */
		if (r == 0)
			taken++;
	}
	assert_int_equal(taken, 1);
	for (size_t i = 0; i < n; i++) {
		p[i] ^= 0x20;
		/* the first one is signed by the second; nobody has signed that for us, so its own bytes may differ */
		if (check_bytes(p, n) == 0)
			taken++;
		p[i] ^= 0x20;
	}
	assert_true(taken < n / 4);
	p[1] = 0x80; /* of indefinite length */
	refused(check_bytes(p, n), "certificate 1");
	csm_buf_free(&b);
}

static void names_as_text(void **state)
{
	static const struct {
		const char *subject, *text;
	} cases[] = {
		{"/CN=a\\/b", "/CN=a\\/b"},
		{"/CN=a\\+b\\\\c", "/CN=a\\+b\\\\c"},
		{"/CN=a=b", "/CN=a=b"},
		{"/O=\xc3\xa4/CN=\xe2\x82\xac", "/O=\xc3\xa4/CN=\xe2\x82\xac"},
		{"/DC=org/DC=example/UID=7/emailAddress=a@b", "/DC=org/DC=example/UID=7/emailAddress=a@b"},
		{"/1.2.3.4.5=x", "/1.2.3.4.5=x"},
	};
	X509_NAME *name;
	struct csm_buf out;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		assert_int_equal(check_spec(&(struct certspec){.subject = cases[i].subject, .key = key}, NULL), 0);
		if (!csm_str_eq(info.subject, cases[i].text))
			fail_msg("%s is told as %.*s", cases[i].subject, (int)info.subject.n, info.subject.p);
	}
	csm_buf_init(&out, 256, false);
	name = X509_NAME_new();
	assert_int_equal(X509_NAME_add_entry_by_NID(name, NID_commonName, V_ASN1_UTF8STRING,
		(const unsigned char *)"a\x1b[2J\xc2\x9b!\x7f", 9, -1, 0), 1);
	assert_int_equal(X509_NAME_add_entry_by_NID(name, NID_organizationName, V_ASN1_UTF8STRING,
		(const unsigned char *)"o", 1, -1, -1), 1);
	assert_int_equal(csm_name_text(name, &out), 0);
	assert_int_equal(csm_buf_put(&out, (const uint8_t *)"", 1), 0);
	assert_string_equal((const char *)csm_buf_ptr(&out), "/CN=a\\1B[2J\\C2\\9B!\\7F+O=o");
	csm_buf_reset(&out);
	assert_int_equal(X509_NAME_add_entry_by_NID(name, NID_organizationName, V_ASN1_UTF8STRING,
		(const unsigned char *)"\xff\xfe", 2, -1, 0), 1);
	assert_int_equal(csm_name_text(name, &out), CSM_EINVALID);
	X509_NAME_free(name);
	csm_buf_free(&out);
}

static void alternative_names_as_text(void **state)
{
	static const char san[] = "DNS:*.example.org,IP:192.0.2.1,IP:2001:db8::1,email:a@b.org,URI:spiffe://d/w,RID:1.2.3,"
		"otherName:1.3.6.1.4.1.311.20.2.3;UTF8:u@x";
	static const char *const text[] = {"dns:*.example.org", "ip:192.0.2.1", "ip:2001:db8::1", "email:a@b.org",
		"uri:spiffe://d/w", "rid:1.2.3", "other:1.3.6.1.4.1.311.20.2.3"};
	ASN1_IA5STRING *bad = ASN1_IA5STRING_new();
	GENERAL_NAME *name = GENERAL_NAME_new();
	struct csm_buf out;

	(void)state;
	assert_int_equal(check_spec(&(struct certspec){.key = key, .san = san}, NULL), 0);
	assert_int_equal(info.san.n, N_ELEMS(text));
	for (size_t i = 0; i < N_ELEMS(text); i++)
		assert_true(csm_str_eq(info.san.v[i], text[i]));
	/* a NUL, behind which another name hides */
	assert_int_equal(ASN1_STRING_set(bad, "good.org\0.evil.org", 18), 1);
	GENERAL_NAME_set0_value(name, GEN_DNS, bad);
	csm_buf_init(&out, 256, false);
	assert_int_equal(csm_san_text(name, &out), CSM_EINVALID);
	assert_int_equal(ASN1_STRING_set(bad, "", 0), 1);
	assert_int_equal(csm_san_text(name, &out), CSM_EINVALID);
	GENERAL_NAME_free(name);
	csm_buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_set_up_first),
		cmocka_unit_test(what_is_told),
		cmocka_unit_test(short_chains),
		cmocka_unit_test(chains_that_are_none),
		cmocka_unit_test(issuers_that_are_none),
		cmocka_unit_test(costly_issuers),
		cmocka_unit_test(dates),
		cmocka_unit_test(sizes),
		cmocka_unit_test(bytes_are_looked_at),
		cmocka_unit_test(names_as_text),
		cmocka_unit_test(alternative_names_as_text),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
