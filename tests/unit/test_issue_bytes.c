/* To-be-signed certificates against the same ones made by OpenSSL's objects: every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <sodium.h>
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define IN_2049 2524607999u /* its last second */
#define IN_9999 253402300799u

static char why[CSM_CERTREQ_WHY];

struct expected {
	int nid;
	const char *text; /* as in OpenSSL's configuration; NULL: a key identifier */
};

/* RFC 7093, method 1: of the bits of the key, without what says how many of them count. */
static void key_id(const X509 *x, ASN1_OCTET_STRING *ret)
{
	const ASN1_BIT_STRING *bits = X509_get0_pubkey_bitstr(x);
	uint8_t hash[crypto_hash_sha256_BYTES];

	crypto_hash_sha256(hash, ASN1_STRING_get0_data(bits), (unsigned long long)ASN1_STRING_length(bits));
	assert_int_equal(ASN1_OCTET_STRING_set(ret, hash, 20), 1);
}

static void add_own_id(X509 *x)
{
	ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();

	key_id(x, id);
	assert_int_equal(X509_add1_ext_i2d(x, NID_subject_key_identifier, id, 0, 0), 1);
	ASN1_OCTET_STRING_free(id);
}

static void add_issuers_id(X509 *x, X509 *issuer)
{
	const ASN1_OCTET_STRING *id = issuer != NULL ? X509_get0_subject_key_id(issuer) : NULL;
	AUTHORITY_KEYID *akid = AUTHORITY_KEYID_new();

	akid->keyid = id != NULL ? ASN1_OCTET_STRING_dup(id) : ASN1_OCTET_STRING_new();
	if (id == NULL)
		key_id(issuer != NULL ? issuer : x, akid->keyid);
	assert_int_equal(X509_add1_ext_i2d(x, NID_authority_key_identifier, akid, 0, 0), 1);
	AUTHORITY_KEYID_free(akid);
}

static void add_ext(X509 *x, const struct expected *e, X509 *issuer)
{
	X509_EXTENSION *ext;

	if (e->text == NULL && e->nid == NID_subject_key_identifier) {
		add_own_id(x);
	} else if (e->text == NULL) {
		add_issuers_id(x, issuer);
	} else {
		assert_non_null(ext = X509V3_EXT_conf_nid(NULL, NULL, e->nid, e->text));
		assert_int_equal(X509_add_ext(x, ext, -1), 1);
		X509_EXTENSION_free(ext);
	}
}

static int by_openssl(const struct csm_cert_order *o, EVP_PKEY *key, EVP_PKEY *signer, const struct expected *exts, size_t n,
	unsigned char **ret)
{
	X509 *x = X509_new();
	BIGNUM *serial = BN_bin2bn(o->serial, sizeof(o->serial), NULL);
	int len;

	assert_true(X509_set_version(x, X509_VERSION_3) == 1 && X509_set_pubkey(x, key) == 1);
	assert_non_null(BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(x)));
	assert_true(X509_set_subject_name(x, o->subject) == 1 &&
		X509_set_issuer_name(x, o->issuer != NULL ? X509_get_subject_name(o->issuer) : o->subject) == 1);
	assert_true(ASN1_TIME_set(X509_getm_notBefore(x), (time_t)o->not_before) != NULL &&
		ASN1_TIME_set(X509_getm_notAfter(x), (time_t)o->not_after) != NULL);
	for (size_t i = 0; i < n; i++)
		add_ext(x, &exts[i], o->issuer);
	assert_true(X509_sign(x, signer, EVP_sha256()) > 0);
	assert_true((len = i2d_re_X509_tbs(x, ret)) > 0);
	BN_free(serial);
	X509_free(x);
	return len;
}

static void same(const struct csm_cert_order *o, EVP_PKEY *key, EVP_PKEY *signer, const struct expected *exts, size_t n)
{
	const struct csm_signer s = pki_signer(signer, "ecdsa-sha256");
	unsigned char *der = NULL;
	struct csm_buf out;
	int len = by_openssl(o, key, signer, exts, n, &der);

	csm_buf_init(&out, 65536, false);
	assert_int_equal(csm_cert_tbs(o, &s.scheme, &out, why), 0);
	assert_int_equal(out.len, (size_t)len);
	assert_memory_equal(csm_buf_ptr(&out), der, out.len);
	csm_buf_free(&out);
	OPENSSL_free(der);
}
#define SAME(o, key, signer, ...) \
	do { \
		const struct expected exts_[] = {__VA_ARGS__}; \
		same(o, key, signer, exts_, N_ELEMS(exts_)); \
	} while (0)
#define IDS {NID_subject_key_identifier, NULL}, {NID_authority_key_identifier, NULL}

static struct csm_cert_order order_of(const struct csm_profile *p, X509 *issuer, EVP_PKEY *key, const X509_NAME *name)
{
	return (struct csm_cert_order){.profile = p, .subject = name, .spki = pki_spki(key), .issuer = issuer,
		.serial = {0, 0x80, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, .not_before = PKI_NOW - 3600,
		.not_after = PKI_NOW + PKI_DAY};
}

static void all_that_a_profile_can_say(void **state)
{
	static const char *const names[] = {"dns:a.example", "dns:*.b.example", "ip:10.1.2.3", "ip:2001:db8::1", "uri:spiffe://td/x",
		"email:x@example.org"};
	struct pki_ca root = pki_ca_make("/O=Example/CN=Root", "p256", NULL);
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/O=Example/CN=a.example"), *none = X509_NAME_new();
	struct csm_cert_order o = order_of(&p, root.cert, pki_key("p384"), name);
	GENERAL_NAMES *sans = pki_sans(names, N_ELEMS(names)), *one = pki_sans(names, 1);

	(void)state;
	o.sans = sans;
	p.ekus[1] = "1.3.6.1.4.1.99999.1";
	p.n_ekus = 2;
	p.crl_url = "http://c.example/crl";
	p.delta_url = "http://c.example/delta";
	p.ocsp_url = "http://c.example/ocsp";
	p.issuer_url = "http://c.example/ca";
	p.ocsp_no_check = true;
	SAME(&o, pki_key("p384"), root.key, {NID_basic_constraints, "critical,CA:FALSE"}, {NID_key_usage, "critical,digitalSignature"},
		{NID_ext_key_usage, "serverAuth,1.3.6.1.4.1.99999.1"}, IDS,
		{NID_subject_alt_name, "DNS:a.example,DNS:*.b.example,IP:10.1.2.3,IP:2001:db8::1,URI:spiffe://td/x,email:x@example.org"},
		{NID_crl_distribution_points, "URI:http://c.example/crl"}, {NID_freshest_crl, "URI:http://c.example/delta"},
		{NID_info_access, "OCSP;URI:http://c.example/ocsp,caIssuers;URI:http://c.example/ca"}, {NID_id_pkix_OCSP_noCheck, "yes"});
	/* no subject; and little by little less */
	o.subject = none;
	o.sans = one;
	p.ocsp_no_check = false;
	p.delta_url = p.issuer_url = NULL;
	p.n_ekus = 1;
	SAME(&o, pki_key("p384"), root.key, {NID_basic_constraints, "critical,CA:FALSE"}, {NID_key_usage, "critical,digitalSignature"},
		{NID_ext_key_usage, "serverAuth"}, IDS, {NID_subject_alt_name, "critical,DNS:a.example"},
		{NID_crl_distribution_points, "URI:http://c.example/crl"}, {NID_info_access, "OCSP;URI:http://c.example/ocsp"});
	o.subject = name;
	o.sans = NULL;
	o.spki = pki_spki(pki_key("rsa2048"));
	p.crl_url = p.ocsp_url = NULL;
	p.issuer_url = "http://c.example/ca";
	p.n_ekus = 0;
	SAME(&o, pki_key("rsa2048"), root.key, {NID_basic_constraints, "critical,CA:FALSE"},
		{NID_key_usage, "critical,digitalSignature"}, IDS, {NID_info_access, "caIssuers;URI:http://c.example/ca"});
	GENERAL_NAMES_free(sans);
	GENERAL_NAMES_free(one);
	X509_NAME_free(name);
	X509_NAME_free(none);
	pki_ca_free(&root);
}

static void every_usage_alone_and_two_bytes_of_them(void **state)
{
	static const struct {
		uint32_t usage;
		const char *text;
	} rows[] = {{KU_DIGITAL_SIGNATURE, "critical,digitalSignature"}, {KU_NON_REPUDIATION, "critical,nonRepudiation"},
		{KU_KEY_ENCIPHERMENT, "critical,keyEncipherment"}, {KU_DATA_ENCIPHERMENT, "critical,dataEncipherment"},
		{KU_KEY_AGREEMENT, "critical,keyAgreement"}, {KU_KEY_CERT_SIGN, "critical,keyCertSign"}, {KU_CRL_SIGN, "critical,cRLSign"},
		{KU_ENCIPHER_ONLY, "critical,encipherOnly"}, {KU_DECIPHER_ONLY, "critical,decipherOnly"},
		{KU_KEY_AGREEMENT | KU_DECIPHER_ONLY, "critical,keyAgreement,decipherOnly"},
		{KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT, "critical,digitalSignature,keyEncipherment"}};
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL);
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/CN=a.example");
	struct csm_cert_order o = order_of(&p, root.cert, pki_key("p521"), name);

	(void)state;
	p.n_ekus = 0;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		p.key_usage = rows[i].usage;
		SAME(&o, pki_key("p521"), root.key, {NID_basic_constraints, "critical,CA:FALSE"}, {NID_key_usage, rows[i].text}, IDS);
	}
	X509_NAME_free(name);
	pki_ca_free(&root);
}

static X509 *without_id(const X509 *x)
{
	X509 *copy = X509_dup(x);

	assert_non_null(copy);
	X509_EXTENSION_free(X509_delete_ext(copy, X509_get_ext_by_NID(copy, NID_subject_key_identifier, -1)));
	return copy;
}

/* From before 2050, where a year has two digits, to the last second that there is. */
static void a_ca_for_ever_and_what_it_issues(void **state)
{
	static const struct csm_str permitted[] = {{"dns:a.example", 13}, {"ip:10.1.0.0/15", 14}, {"email:a.example", 15}},
		excluded[] = {{"dns:bad.a.example", 17}, {"uri:.td", 7}};
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/CN=Root"), *below = pki_name("/CN=Below");
	EVP_PKEY *key = pki_key("p256");
	struct csm_cert_order o = order_of(&p, NULL, key, name);
	struct csm_signer s = pki_signer(key, "ecdsa-sha256");
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_key_identifier, "01:02:03");
	X509 *root, *silent, *other;

	(void)state;
	p.ca = true;
	p.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	p.n_ekus = 0;
	p.max_life = UINT64_MAX;
	o.not_before = IN_2049;
	o.not_after = IN_9999;
#define CA(constraints) {NID_basic_constraints, constraints}, {NID_key_usage, "critical,keyCertSign,cRLSign"}, IDS
	SAME(&o, key, key, CA("critical,CA:TRUE"));
	p.path_len = 128;
	SAME(&o, key, key, CA("critical,CA:TRUE,pathlen:128"));
	p.path_len = 0;
	SAME(&o, key, key, CA("critical,CA:TRUE,pathlen:0"));
	p.path_len = 2;
	root = pki_issue(&o, &s);
	o.issuer = root;
	o.subject = below;
	o.spki = pki_spki(pki_key("p384"));
	o.not_before = IN_2049 + 1;
	p.path_len = CSM_PATH_ANY;
	SAME(&o, pki_key("p384"), key, CA("critical,CA:TRUE,pathlen:1"));
	p.path_len = 2; /* as long as the issuer's own: one less is left */
	SAME(&o, pki_key("p384"), key, CA("critical,CA:TRUE,pathlen:1"));
	p.path_len = 0;
	p.permitted = permitted;
	p.n_permitted = N_ELEMS(permitted);
	SAME(&o, pki_key("p384"), key, CA("critical,CA:TRUE,pathlen:0"), {NID_name_constraints,
		"critical,permitted;DNS:a.example,permitted;IP:10.0.0.0/255.254.0.0,permitted;email:a.example"});
	p.excluded = excluded;
	p.n_excluded = N_ELEMS(excluded);
	SAME(&o, pki_key("p384"), key, CA("critical,CA:TRUE,pathlen:0"), {NID_name_constraints,
		"critical,permitted;DNS:a.example,permitted;IP:10.0.0.0/255.254.0.0,permitted;email:a.example,"
		"excluded;DNS:bad.a.example,excluded;URI:.td"});
	p.n_permitted = 0;
	SAME(&o, pki_key("p384"), key, CA("critical,CA:TRUE,pathlen:0"), {NID_name_constraints,
		"critical,excluded;DNS:bad.a.example,excluded;URI:.td"});
	p.n_excluded = 0;
	/* an issuer that says nothing of its key's identifier, and one that says another */
	silent = without_id(root);
	o.issuer = silent;
	SAME(&o, pki_key("p384"), key, CA("critical,CA:TRUE,pathlen:0"));
	other = without_id(root);
	assert_int_equal(X509_add_ext(other, e, -1), 1);
	o.issuer = other;
	SAME(&o, pki_key("p384"), key, CA("critical,CA:TRUE,pathlen:0"));
	X509_EXTENSION_free(e);
	X509_free(other);
	X509_free(silent);
	X509_free(root);
	X509_NAME_free(name);
	X509_NAME_free(below);
}

static void key_identifiers_are_of_keys_alone(void **state)
{
	/* SEQUENCE { SEQUENCE {}, BIT STRING "a" } */
	static const uint8_t good[] = {0x30, 6, 0x30, 0, 3, 2, 0, 'a'}, behind[] = {0x30, 6, 0x30, 0, 3, 2, 0, 'a', 0},
		within[] = {0x30, 8, 0x30, 0, 3, 2, 0, 'a', 5, 0}, bits[] = {0x30, 6, 0x30, 0, 3, 2, 1, 'b'}, none[] = {0x30, 5, 0x30, 0, 3, 1, 0},
		set[] = {0x30, 6, 0x31, 0, 3, 2, 0, 'a'};
	uint8_t id[CSM_X509_KEY_ID_LEN], hash[crypto_hash_sha256_BYTES];

	(void)state;
	crypto_hash_sha256(hash, (const uint8_t *)"a", 1);
	assert_int_equal(csm_key_id((struct csm_bin){good, sizeof(good)}, id), 0);
	assert_memory_equal(id, hash, sizeof(id));
	assert_int_equal(csm_key_id((struct csm_bin){behind, sizeof(behind)}, id), CSM_EINVALID);
	assert_int_equal(csm_key_id((struct csm_bin){within, sizeof(within)}, id), CSM_EINVALID);
	assert_int_equal(csm_key_id((struct csm_bin){bits, sizeof(bits)}, id), CSM_EINVALID);
	assert_int_equal(csm_key_id((struct csm_bin){none, sizeof(none)}, id), CSM_EINVALID);
	assert_int_equal(csm_key_id((struct csm_bin){set, sizeof(set)}, id), CSM_EINVALID);
	for (size_t n = 0; n < sizeof(good); n++)
		assert_int_equal(csm_key_id((struct csm_bin){good, n}, id), CSM_EINVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_a_profile_can_say),
		cmocka_unit_test(every_usage_alone_and_two_bytes_of_them),
		cmocka_unit_test(a_ca_for_ever_and_what_it_issues),
		cmocka_unit_test(key_identifiers_are_of_keys_alone),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
