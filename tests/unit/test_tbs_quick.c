/* The quick reader of what an issuer's key is asked to sign: it takes what is usual, and nothing that the other one would not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/tbsfix.h"

static bool by_quick_reader(struct tbsfix *f)
{
	struct tbs_issuer is;
	struct csm_tbs found;
	bool taken;

	assert_int_equal(tbs_issuer_open(&is, &f->key, tbsfix_why), 0);
	taken = tbs_quick(&is, (struct csm_bin){csm_buf_ptr(&f->tbs), f->tbs.len}, &found);
	tbs_issuer_close(&is);
	return taken;
}

/* With all the extensions that it knows. */
static void usual_begin(struct tbsfix *f, const char *subject)
{
	static const char *const names[] = {"dns:a.example", "ip:10.0.0.1", "ip:2001:db8::1", "uri:https://a.example/", "email:a@a.example"};

	tbsfix_begin(f, "p256");
	X509_NAME_free(f->name);
	GENERAL_NAMES_free(f->sans);
	f->order.subject = f->name = pki_name(subject);
	f->order.sans = f->sans = pki_sans(names, N_ELEMS(names));
	f->profile.ocsp_url = "http://ca.example/ocsp";
	f->profile.issuer_url = "http://ca.example/ca";
	f->profile.crl_url = "http://ca.example/crl";
	f->profile.delta_url = "http://ca.example/delta";
}

static void the_usual_is_read_quickly(void **state)
{
	static const char *const subjects[] = {"/CN=a.example", "/C=DE/O=Example/OU=x/CN=a b", "/"};
	static const char *const keys[] = {"p256", "p384", "p521"};
	struct tbsfix f;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(subjects); i++) {
		usual_begin(&f, subjects[i]);
		for (size_t k = 0; k < N_ELEMS(keys); k++) {
			f.order.spki = pki_spki(pki_key(keys[k]));
			tbsfix_expect(&f, 0, NULL);
			assert_true(by_quick_reader(&f));
		}
		tbsfix_end(&f);
	}
}

/* Whether such may be signed the other reader says: for each here it is asked. */
static void the_unusual_is_not(void **state)
{
	struct csm_tbs found;
	struct tbsfix f;

	(void)state;
#define NOT_QUICK(change) \
	do { \
		usual_begin(&f, "/CN=a.example"); \
		change; \
		(void)!tbsfix_cert(&f, &found); \
		assert_false(by_quick_reader(&f)); \
		tbsfix_end(&f); \
	} while (0)
	NOT_QUICK((f.permitted[0] = CSM_STR("dns:.example"), f.rules.permitted.n = 1));
	NOT_QUICK((f.excluded[0] = CSM_STR("dns:.example"), f.rules.excluded.n = 1));
	NOT_QUICK((f.profile.ca = true, f.profile.path_len = 0, f.profile.n_ekus = 0));
	NOT_QUICK(f.profile.key_usage |= KU_KEY_CERT_SIGN);
	NOT_QUICK(f.profile.key_usage |= KU_CRL_SIGN);
	NOT_QUICK((f.profile.ekus[0] = "OCSPSigning", f.profile.n_ekus = 1));
	NOT_QUICK((f.profile.ekus[0] = "1.2.3.4", f.profile.n_ekus = 1));
	NOT_QUICK(f.profile.ocsp_no_check = true);
	NOT_QUICK(f.order.spki = pki_spki(pki_key("rsa2048")));
	NOT_QUICK(f.order.spki = pki_spki(pki_key("ed25519")));
	NOT_QUICK(f.rules.max_life.v = PKI_DAY);
	NOT_QUICK(f.key.now = PKI_NOW - 2 * PKI_DAY);
	NOT_QUICK(f.key.chain.n = 0);
	NOT_QUICK(memset(f.order.serial, 0, sizeof(f.order.serial) - 7));
	NOT_QUICK(tbsfix_beside(&f, f.root.cert, NULL));
	NOT_QUICK((X509_NAME_free(f.name), f.order.subject = f.name = pki_name("/emailAddress=a@a.example")));
#undef NOT_QUICK
}

enum edit { DROPPED, TWICE, CRITICAL, SAID_NOT_TO_BE };

static void edited(struct csm_der *d, struct csm_bin whole, enum edit edit)
{
	struct csm_bin one = {NULL, 0}, oid = {NULL, 0}, rest = whole;
	uint8_t tag;
	size_t at;

	if (edit == DROPPED)
		return;
	if (edit == TWICE) {
		csm_der_raw(d, whole.p, whole.n);
		csm_der_raw(d, whole.p, whole.n);
		return;
	}
	assert_true(tbs_take(&rest, &tag, &one, NULL) && tbs_take(&one, &tag, &rest, &oid));
	if (one.p[0] == V_ASN1_BOOLEAN)
		assert_true(tbs_take(&one, &tag, &rest, NULL));
	at = csm_der_open(d, CSM_DER_SEQ);
	csm_der_raw(d, oid.p, oid.n);
	csm_der_put(d, V_ASN1_BOOLEAN, edit == CRITICAL ? "\xff" : "\x00", 1);
	csm_der_raw(d, one.p, one.n);
	csm_der_close(d, at);
}

/* The certificate at hand, with its extension no. i edited; false: it has fewer. */
static bool edit(struct tbsfix *f, struct csm_bin whole, unsigned i, enum edit edit)
{
	struct csm_der d = {&f->tbs, 0};
	struct csm_bin body = {NULL, 0}, part = body, list = body, one = body;
	size_t all, outer, seq;
	uint8_t tag;
	bool found = false;

	csm_buf_reset(&f->tbs);
	assert_true(tbs_take(&whole, &tag, &body, NULL));
	all = csm_der_open(&d, CSM_DER_SEQ);
	while (tbs_take(&body, &tag, &list, &part) && body.n > 0)
		csm_der_raw(&d, part.p, part.n);
	outer = csm_der_open(&d, CSM_DER_CONTEXT_SEQ(3));
	seq = csm_der_open(&d, CSM_DER_SEQ);
	assert_true(tbs_take(&list, &tag, &part, NULL));
	for (unsigned k = 0; tbs_take(&part, &tag, &list, &one); k++) {
		found = found || k == i;
		if (k == i)
			edited(&d, one, edit);
		else
			csm_der_raw(&d, one.p, one.n);
	}
	csm_der_close(&d, seq);
	csm_der_close(&d, outer);
	csm_der_close(&d, all);
	assert_int_equal(d.r, 0);
	return found;
}

/* How many of the nine it cannot do without. */
static unsigned needed_with(const char *subject)
{
	unsigned needed = 0, n = 0;
	struct csm_tbs found;
	struct tbsfix f;
	struct csm_buf whole;
	struct csm_bin tbs;

	usual_begin(&f, subject);
	assert_int_equal(tbsfix_cert(&f, &found), 0);
	csm_buf_init(&whole, f.tbs.len, false);
	assert_int_equal(csm_buf_put(&whole, csm_buf_ptr(&f.tbs), f.tbs.len), 0);
	tbs = (struct csm_bin){csm_buf_ptr(&whole), whole.len};
	for (; edit(&f, tbs, n, TWICE); n++) {
		assert_int_equal(tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found), CSM_EINVALID);
		edit(&f, tbs, n, DROPPED);
		needed += tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found) != 0;
		edit(&f, tbs, n, SAID_NOT_TO_BE); /* a default that is written out */
		assert_int_equal(tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found), CSM_EINVALID);
		edit(&f, tbs, n, CRITICAL);
		assert_int_equal(by_quick_reader(&f), tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found) == 0);
	}
	assert_int_equal(n, 9);
	csm_buf_free(&whole);
	tbsfix_end(&f);
	return needed;
}

static void extensions_come_once_and_the_issuers_always(void **state)
{
	(void)state;
	assert_int_equal(needed_with("/CN=a.example"), 1); /* the authority key identifier */
	assert_int_equal(needed_with("/"), 2);             /* and the only names */
}

static void ends(struct tbsfix *f, X509 *x, uint64_t at)
{
	ASN1_TIME *t = ASN1_TIME_set(NULL, (time_t)at);

	assert_int_equal(X509_set1_notAfter(x, t), 1);
	assert_true(X509_sign(x, f->ca.key, EVP_sha256()) > 0);
	ASN1_TIME_free(t);
	tbsfix_beside(f, x, NULL);
}

/* Another certificate of the same name and key beside the key than that which it was made for. */
static void what_stands_beside_the_key_decides(void **state)
{
	struct csm_tbs found;
	struct tbsfix f;
	X509 *x;

	(void)state;
	usual_begin(&f, "/CN=a.example");
	assert_int_equal(tbsfix_cert(&f, &found), 0);
	x = X509_dup(f.ca.cert);
	ends(&f, x, f.order.not_after);
	assert_int_equal(tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found), 0);
	ends(&f, x, f.order.not_after - 1);
	assert_int_equal(tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found), CSM_EDENIED);
	assert_non_null(strstr(tbsfix_why, "outlive"));
	X509_EXTENSION_free(X509_delete_ext(x, X509_get_ext_by_NID(x, NID_basic_constraints, -1)));
	ends(&f, x, f.order.not_after);
	assert_int_equal(tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found), CSM_ESTATE);
	assert_non_null(strstr(tbsfix_why, "not a CA's"));
	X509_free(x);
	tbsfix_end(&f);
}

/* One bit another, one byte less or twice: what the quick reader still takes, the other one takes too, as the same. */
static void what_is_changed_is_judged_as_slowly(void **state)
{
	unsigned taken = 0, refused = 0;
	struct csm_tbs found;
	struct tbsfix f;
	struct csm_buf whole;

	(void)state;
	usual_begin(&f, "/CN=a.example");
	assert_int_equal(tbsfix_cert(&f, &found), 0);
	csm_buf_init(&whole, f.tbs.len, false);
	assert_int_equal(csm_buf_put(&whole, csm_buf_ptr(&f.tbs), f.tbs.len), 0);
	for (size_t i = 0; i < 10 * whole.len; i++) {
		const uint8_t *p = csm_buf_ptr(&whole);
		size_t at = i / 10, n = i % 10, skip = n == 8 ? 1 : 0;
		uint8_t one = n < 8 ? p[at] ^ (uint8_t)(1u << n) : p[at];

		csm_buf_reset(&f.tbs);
		assert_int_equal(csm_buf_put(&f.tbs, p, at), 0);
		if (n != 8)
			assert_int_equal(csm_buf_put(&f.tbs, &one, 1), 0);
		assert_int_equal(csm_buf_put(&f.tbs, p + at + skip + (n < 8), whole.len - at - skip - (n < 8)), 0);
		if (tbs_is_der((struct csm_bin){csm_buf_ptr(&f.tbs), f.tbs.len}) && by_quick_reader(&f)) {
			assert_int_equal(tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found), 0);
			taken++;
		} else {
			refused++;
		}
	}
	/* names, serial number, dates: many changes are as good as what was there */
	assert_true(taken > 100);
	assert_true(refused > 1000);
	csm_buf_free(&whole);
	tbsfix_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_usual_is_read_quickly),
		cmocka_unit_test(the_unusual_is_not),
		cmocka_unit_test(extensions_come_once_and_the_issuers_always),
		cmocka_unit_test(what_stands_beside_the_key_decides),
		cmocka_unit_test(what_is_changed_is_judged_as_slowly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
