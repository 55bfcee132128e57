#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/pki/crl.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define AT "-attime 1750000000 "

struct list {
	const struct csm_revoked *v;
	size_t n, at;
	int fail; /* after the last one */
};

static int next(void *arg, struct csm_revoked *ret)
{
	struct list *l = arg;

	if (l->at == l->n)
		return l->fail;
	*ret = l->v[l->at++];
	return 1;
}

static struct csm_crl_order order_of(const struct pki_ca *ca, struct list *l)
{
	return (struct csm_crl_order){.issuer = ca->cert, .number = 7, .this_update = PKI_NOW - 3600, .next_update = PKI_NOW + PKI_DAY,
		.next = next, .arg = l};
}

static void issue(const struct csm_crl_order *o, const struct csm_signer *s, struct csm_buf *out)
{
	csm_buf_reset(out);
	assert_int_equal(csm_crl_issue(o, s, out), 0);
	pki_write("list.der", (struct csm_bin){csm_buf_ptr(out), out->len});
}

static X509 *leaf_of(const struct pki_ca *ca, uint8_t serial)
{
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/CN=leaf");
	struct csm_cert_order o = {.profile = &p, .subject = name, .spki = pki_spki(pki_key("p384")), .issuer = ca->cert,
		.serial = {0x80, [15] = serial}, .not_before = PKI_NOW - 1, .not_after = PKI_NOW + 7200};
	struct csm_signer s = pki_signer(ca->key, NULL);
	X509 *x;

	p.delta_url = "http://ca.example/delta";
	x = pki_issue(&o, &s);
	X509_NAME_free(name);
	return x;
}

static const uint8_t revoked_serial[16] = {0x80, [15] = 1}, other_serial[3] = {0, 0, 5};

static void openssl_refuses_who_is_on_the_list(void **state)
{
	static const char *const algs[] = {"p256", "rsa2048", "ed25519"};
	const struct csm_revoked entries[] = {{{revoked_serial, 16}, PKI_NOW - 7200, CSM_REASON_KEY_COMPROMISE},
		{{other_serial, 3}, PKI_NOW - 7200, CSM_REASON_UNSPECIFIED}};
	struct csm_buf out;
	const char *said;

	(void)state;
	csm_buf_init(&out, 65536, false);
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		struct pki_ca root = pki_ca_make("/CN=Root", algs[i], NULL);
		struct list l = {entries, 2, 0, 0}, empty = {NULL, 0, 0, 0};
		struct csm_crl_order o = order_of(&root, &l), none = order_of(&root, &empty);
		struct csm_signer s = pki_signer(root.key, NULL);
		X509 *revoked = leaf_of(&root, 1), *good = leaf_of(&root, 2);

		pki_write_cert("root.pem", root.cert);
		pki_write_cert("revoked.pem", revoked);
		pki_write_cert("good.pem", good);
		issue(&o, &s, &out);
		assert_int_equal(pki_openssl("crl -inform DER -in @list.der -CAfile @root.pem -noout -text", &said), 0);
		assert_non_null(strstr(said, "verify OK"));
		assert_non_null(strstr(said, "Version 2 (0x1)"));
		assert_non_null(strstr(said, "Serial Number: 80000000000000000000000000000001\n"));
		assert_non_null(strstr(said, "Serial Number: 05\n"));
		assert_non_null(strstr(said, "Key Compromise"));
		assert_null(strstr(said, "Unspecified"));
		assert_non_null(strstr(said, "X509v3 CRL Number: \n                7\n"));
		assert_int_equal(pki_openssl("verify " AT "-crl_check -CRLfile @list.der -CAfile @root.pem @good.pem", &said), 0);
		assert_int_not_equal(pki_openssl("verify " AT "-crl_check -CRLfile @list.der -CAfile @root.pem @revoked.pem", &said), 0);
		assert_non_null(strstr(said, "certificate revoked"));
		/* nobody on it */
		issue(&none, &s, &out);
		assert_int_equal(pki_openssl("verify " AT "-crl_check -CRLfile @list.der -CAfile @root.pem @revoked.pem", &said), 0);
		assert_int_equal(pki_openssl("crl -inform DER -in @list.der -CAfile @root.pem -noout -text", &said), 0);
		assert_non_null(strstr(said, "No Revoked Certificates"));
		X509_free(revoked);
		X509_free(good);
		pki_ca_free(&root);
	}
	csm_buf_free(&out);
}

static void openssl_reads_a_delta(void **state)
{
	const struct csm_revoked entries[] = {{{revoked_serial, 16}, PKI_NOW - 7200, CSM_REASON_SUPERSEDED}},
		removed[] = {{{revoked_serial, 16}, PKI_NOW - 7200, CSM_REASON_REMOVE_FROM_CRL}};
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL);
	struct list none = {NULL, 0, 0, 0}, l = {entries, 1, 0, 0}, r = {removed, 1, 0, 0};
	struct csm_crl_order base = order_of(&root, &none), delta = order_of(&root, &l), off = order_of(&root, &r);
	struct csm_signer s = pki_signer(root.key, NULL);
	X509 *leaf = leaf_of(&root, 1);
	struct csm_buf out;
	const char *said;

	(void)state;
	pki_write_cert("root.pem", root.cert);
	pki_write_cert("leaf.pem", leaf);
	csm_buf_init(&out, 65536, false);
	base.delta_url = "http://ca.example/delta";
	issue(&base, &s, &out);
	assert_int_equal(pki_openssl("crl -inform DER -in @list.der -CAfile @root.pem -noout -text", &said), 0);
	assert_non_null(strstr(said, "Freshest CRL"));
	assert_int_equal(pki_openssl("crl -inform DER -in @list.der -out @base.pem", &said), 0);
	delta.number = 8;
	delta.base = 7;
	issue(&delta, &s, &out);
	assert_int_equal(pki_openssl("crl -inform DER -in @list.der -CAfile @root.pem -noout -text", &said), 0);
	assert_non_null(strstr(said, "verify OK"));
	assert_non_null(strstr(said, "X509v3 Delta CRL Indicator: critical\n                7\n"));
	assert_int_equal(pki_openssl("crl -inform DER -in @list.der -out @delta.pem", &said), 0);
	assert_int_equal(pki_openssl("verify " AT "-extended_crl -use_deltas -crl_check -CRLfile @base.pem -CAfile @root.pem @leaf.pem",
		&said), 0);
	assert_int_not_equal(pki_openssl("verify " AT "-extended_crl -use_deltas -crl_check -CRLfile @base.pem -CRLfile @delta.pem "
		"-CAfile @root.pem @leaf.pem", &said), 0);
	assert_non_null(strstr(said, "certificate revoked"));
	/* off the list again: in a delta only */
	off.number = 9;
	off.base = 7;
	issue(&off, &s, &out);
	assert_int_equal(pki_openssl("crl -inform DER -in @list.der -noout -text", &said), 0);
	assert_non_null(strstr(said, "Remove From CRL"));
	off.base = 0;
	r.at = 0;
	assert_int_equal(csm_crl_issue(&off, &s, &out), CSM_EINVALID);
	X509_free(leaf);
	csm_buf_free(&out);
	pki_ca_free(&root);
}

static void wrong_lists_are_refused(void **state)
{
	static const uint8_t long_serial[21] = {1};
	const struct csm_revoked bad[] = {{{long_serial, 21}, PKI_NOW - 7200, 0}, {{long_serial, 0}, PKI_NOW - 7200, 0},
		{{long_serial, 1}, PKI_NOW - 7200, 7}, {{long_serial, 1}, PKI_NOW - 7200, 11}, {{long_serial, 1}, PKI_NOW - 7200, -1},
		{{long_serial, 1}, PKI_NOW, 0}};
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL), not_ca = {.key = pki_key("p384"), .cert = leaf_of(&root, 3)};
	struct list l = {bad, 0, 0, 0};
	const struct csm_crl_order fine = order_of(&root, &l);
	struct csm_crl_order o = fine;
	struct csm_signer s = pki_signer(root.key, NULL), other = pki_signer(pki_key("p384"), NULL);
	struct csm_buf out;

	(void)state;
	csm_buf_init(&out, 65536, false);
	for (size_t i = 0; i < N_ELEMS(bad); i++) {
		l = (struct list){&bad[i], 1, 0, 0};
		assert_int_equal(csm_crl_issue(&o, &s, &out), CSM_EINVALID);
	}
	l = (struct list){bad, 0, 0, -CSM_EUNAVAILABLE}; /* the caller's store fails: no shorter list */
	assert_int_equal(csm_crl_issue(&o, &s, &out), CSM_EUNAVAILABLE);
	l.fail = 0;
	o.number = 0;
	assert_int_equal(csm_crl_issue(&o, &s, &out), CSM_EINVALID);
	o = fine;
	o.base = o.number;
	assert_int_equal(csm_crl_issue(&o, &s, &out), CSM_EINVALID);
	o = fine;
	o.next_update = o.this_update;
	assert_int_equal(csm_crl_issue(&o, &s, &out), CSM_EINVALID);
	o = fine;
	assert_int_equal(csm_crl_issue(&o, &other, &out), CSM_EINVALID);
	o.issuer = not_ca.cert;
	assert_int_equal(csm_crl_issue(&o, &other, &out), CSM_EDENIED);
	assert_int_equal(out.len, 0);
	o = fine;
	assert_int_equal(csm_crl_issue(&o, &s, &out), 0);
	csm_buf_free(&out);
	X509_free(not_ca.cert);
	pki_ca_free(&root);
}

struct many {
	uint32_t i, n;
	uint8_t serial[16];
};

static int next_of_many(void *arg, struct csm_revoked *ret)
{
	struct many *m = arg;

	if (m->i == m->n)
		return 0;
	memcpy(m->serial + 12, &m->i, 4);
	m->serial[0] = 1;
	m->i++;
	*ret = (struct csm_revoked){{m->serial, 16}, PKI_NOW - 7200 - m->i % 5000, (int)(m->i % 6)};
	return 1;
}

static void a_hundred_thousand_entries_are_all_there(void **state)
{
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL);
	struct many m = {0, 100000, {0}};
	struct csm_crl_order o = order_of(&root, NULL);
	struct csm_signer s = pki_signer(root.key, NULL);
	struct csm_buf out;
	const unsigned char *at;
	X509_CRL *crl;

	(void)state;
	o.next = next_of_many;
	o.arg = &m;
	csm_buf_init(&out, 16u * 1024 * 1024, false);
	assert_int_equal(csm_crl_issue(&o, &s, &out), 0);
	at = csm_buf_ptr(&out);
	assert_non_null(crl = d2i_X509_CRL(NULL, &at, (long)out.len));
	assert_int_equal(sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl)), 100000);
	assert_int_equal(X509_CRL_verify(crl, root.key), 1);
	X509_CRL_free(crl);
	csm_buf_free(&out);
	pki_ca_free(&root);
}

static void reasons_have_names(void **state)
{
	(void)state;
	for (int i = -1; i < 12; i++) {
		const char *name = csm_reason_name(i);

		assert_int_equal(name == NULL, i < 0 || i == 7 || i > 10);
		if (name != NULL)
			assert_int_equal(csm_reason_parse(csm_str_of(name)), i);
	}
	assert_int_equal(csm_reason_parse(csm_str_of("keycompromise")), -1);
	assert_int_equal(csm_reason_parse(csm_str_of("")), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openssl_refuses_who_is_on_the_list),
		cmocka_unit_test(openssl_reads_a_delta),
		cmocka_unit_test(wrong_lists_are_refused),
		cmocka_unit_test(a_hundred_thousand_entries_are_all_there),
		cmocka_unit_test(reasons_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
