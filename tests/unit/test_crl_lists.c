#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <time.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include "daemon/central/crl.h"
#include "tests/lib/pkifix.h"
#include "tests/lib/count.h"

#define NOW ((uint64_t)PKI_NOW)

static struct pki_ca root;
static struct central_db *db;
static unsigned dbs;

static int setup(void **state)
{
	static const uint8_t key[DB_KEY_LEN] = {1};
	char name[32], why[256] = "";

	(void)state;
	if (root.cert == NULL)
		root = pki_ca_make("/CN=Root", "p256", NULL);
	(void)snprintf(name, sizeof(name), "db%u", dbs++);
	if (db_open(&(struct db_options){.dir = pki_file(name), .map_size = 256u << 20, .key = key, .why = why, .why_len = sizeof(why)},
			&db) != 0)
		fail_msg("%s", why);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	db_close(db);
	db = NULL;
	return 0;
}

static int group_teardown(void **state)
{
	pki_ca_free(&root);
	return pki_teardown(state);
}

static void serial_of(uint32_t n, uint8_t serial[static 16])
{
	memset(serial, 0x40, 16);
	for (int i = 0; i < 4; i++)
		serial[12 + i] = (uint8_t)(n >> (24 - 8 * i));
}

static void issued(uint32_t n, const char *issuer, uint64_t not_after)
{
	uint8_t serial[16], hash[32] = {0};
	struct db_cert cert = {.serial = {serial, 16}, .issuer = csm_str_of(issuer), .profile = CSM_STR("p"), .role = CSM_STR(""),
		.requester = CSM_STR("uid 0"), .node = CSM_STR(""), .subject = CSM_STR("/CN=x"), .spki_sha256 = {hash, sizeof(hash)},
		.not_before = NOW - 10 * PKI_DAY, .not_after = not_after, .issued = NOW - 10 * PKI_DAY, .der = {serial, 16}};
	const struct db_issue in = {.cert = &cert, .idempotency = CSM_STR(""), .caller = CSM_STR("uid 0"), .now = NOW - 10 * PKI_DAY};
	struct csm_buf got;
	bool replayed;

	serial_of(n, serial);
	memcpy(hash, serial, 16);
	csm_buf_init(&got, 64, false);
	assert_int_equal(db_issue(db, &in, &replayed, &got), 0);
	csm_buf_free(&got);
}

static void revoked(uint32_t n, int reason, uint64_t at)
{
	uint8_t serial[16];

	serial_of(n, serial);
	assert_int_equal(db_revoke(db, (struct csm_bin){serial, 16}, reason, at, CSM_STR("uid 0")), 0);
}

struct both {
	struct crl_list *full, *delta;
	X509_CRL *f, *d;
};

static X509_CRL *parsed(const struct crl_list *l)
{
	const unsigned char *at = csm_buf_ptr(&l->der);
	X509_CRL *crl = d2i_X509_CRL(NULL, &at, (long)l->der.len);

	assert_non_null(crl);
	assert_true(at == csm_buf_ptr(&l->der) + l->der.len);
	assert_int_equal(X509_CRL_verify(crl, root.key), 1);
	return crl;
}

static struct both lists(uint64_t now)
{
	const struct csm_signer signer = pki_signer(root.key, NULL);
	const struct crl_job job = {.db = db, .issuer = CSM_STR("one"), .cert = root.cert, .signer = &signer,
		.delta_url = "http://x.example/one.delta.crl", .now = now};
	struct both b = {NULL, NULL, NULL, NULL};

	assert_int_equal(crl_make(&job, &b.full, &b.delta), 0);
	b.f = parsed(b.full);
	b.d = parsed(b.delta);
	return b;
}

static void both_free(struct both *b)
{
	crl_list_unref(b->full);
	crl_list_unref(b->delta);
	X509_CRL_free(b->f);
	X509_CRL_free(b->d);
}

/* -1: not in it; else the reason. */
static int reason_in(X509_CRL *crl, uint32_t n)
{
	uint8_t serial[16];
	BIGNUM *bn;
	ASN1_INTEGER *want;
	X509_REVOKED *found = NULL;
	ASN1_ENUMERATED *reason;
	int r = -1;

	serial_of(n, serial);
	bn = BN_bin2bn(serial, sizeof(serial), NULL);
	want = BN_to_ASN1_INTEGER(bn, NULL);
	for (int i = 0; i < sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl)); i++)
		if (ASN1_INTEGER_cmp(X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(X509_CRL_get_REVOKED(crl), i)), want) == 0)
			found = sk_X509_REVOKED_value(X509_CRL_get_REVOKED(crl), i);
	if (found != NULL) {
		reason = X509_REVOKED_get_ext_d2i(found, NID_crl_reason, NULL, NULL);
		r = reason != NULL ? (int)ASN1_ENUMERATED_get(reason) : 0;
		ASN1_ENUMERATED_free(reason);
	}
	BN_free(bn);
	ASN1_INTEGER_free(want);
	return r;
}

static long number_in(X509_CRL *crl, int nid)
{
	ASN1_INTEGER *n = X509_CRL_get_ext_d2i(crl, nid, NULL, NULL);
	long v = n != NULL ? ASN1_INTEGER_get(n) : -1;

	ASN1_INTEGER_free(n);
	return v;
}

static int entries_in(X509_CRL *crl)
{
	int n = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl));

	return n > 0 ? n : 0;
}

static void lists_hold_what_is_revoked_and_no_more(void **state)
{
	struct both b;

	(void)state;
	for (uint32_t i = 1; i <= 6; i++)
		issued(i, i == 6 ? "two" : "one", i == 4 ? NOW - 2 * PKI_DAY : i == 5 ? NOW - 3600 : NOW + PKI_DAY);
	b = lists(NOW);
	assert_int_equal(entries_in(b.f), 0);
	assert_int_equal(entries_in(b.d), 0);
	both_free(&b);
	revoked(1, CSM_REASON_KEY_COMPROMISE, NOW + 1000);
	revoked(3, CSM_REASON_UNSPECIFIED, NOW + 1000);
	revoked(4, CSM_REASON_SUPERSEDED, NOW + 1000); /* long expired */
	revoked(5, CSM_REASON_SUPERSEDED, NOW + 1000); /* expired within the life of a list */
	revoked(6, CSM_REASON_SUPERSEDED, NOW + 1000); /* another issuer's */
	b = lists(NOW + 1000);
	assert_int_equal(reason_in(b.f, 1), CSM_REASON_KEY_COMPROMISE);
	assert_int_equal(reason_in(b.f, 2), -1);
	assert_int_equal(reason_in(b.f, 3), CSM_REASON_UNSPECIFIED);
	assert_int_equal(reason_in(b.f, 4), -1);
	assert_int_equal(reason_in(b.f, 5), CSM_REASON_SUPERSEDED);
	assert_int_equal(reason_in(b.f, 6), -1);
	assert_int_equal(entries_in(b.f), 3);
	assert_int_equal(b.full->entries, 3);
	/* all of it came after the base */
	assert_int_equal(entries_in(b.d), 3);
	both_free(&b);
}

static void a_hold_is_taken_back_in_the_delta(void **state)
{
	struct both b;

	(void)state;
	issued(1, "one", NOW + 9 * PKI_DAY);
	b = lists(NOW);
	both_free(&b);
	revoked(1, CSM_REASON_HOLD, NOW + 1000);
	b = lists(NOW + 1000);
	assert_int_equal(reason_in(b.f, 1), CSM_REASON_HOLD);
	assert_int_equal(reason_in(b.d, 1), CSM_REASON_HOLD);
	both_free(&b);
	revoked(1, CSM_REASON_REMOVE_FROM_CRL, NOW + 2000);
	b = lists(NOW + 2000);
	assert_int_equal(reason_in(b.f, 1), -1);
	assert_int_equal(reason_in(b.d, 1), CSM_REASON_REMOVE_FROM_CRL);
	both_free(&b);
}

/* Whoever has a full list that is still good may put the delta to it: its number is not below the delta's base, and what was
 * revoked since stands in the delta. */
static void every_good_list_and_the_delta_are_the_whole(void **state)
{
	enum { STEPS = 40, STEP = 7200 }; /* more than three lives of a list */
	struct both all[STEPS];

	(void)state;
	for (uint32_t i = 0; i < STEPS; i++) {
		const uint64_t now = NOW + (uint64_t)i * STEP;

		issued(i, "one", NOW + 99 * PKI_DAY);
		revoked(i, CSM_REASON_SUPERSEDED, now);
		all[i] = lists(now);
		assert_int_equal(number_in(all[i].f, NID_crl_number), all[i].full->number);
		assert_int_equal(number_in(all[i].d, NID_crl_number), all[i].full->number);
		assert_int_equal(number_in(all[i].d, NID_delta_crl), all[i].delta->base);
		assert_int_equal(number_in(all[i].f, NID_delta_crl), -1);
		assert_true(all[i].delta->base < all[i].delta->number);
		assert_true(i == 0 || all[i].full->number > all[i - 1].full->number);
		for (uint32_t k = 0; k < i; k++) {
			if (all[k].full->next_update <= now)
				continue;
			assert_true(all[k].full->number >= all[i].delta->base);
			for (uint32_t n = 0; n <= i; n++)
				assert_true(reason_in(all[k].f, n) >= 0 || reason_in(all[i].d, n) >= 0);
		}
	}
	/* and it does not grow for ever */
	assert_int_equal(entries_in(all[STEPS - 1].f), STEPS);
	assert_true(entries_in(all[STEPS - 1].d) < STEPS - 10);
	for (uint32_t i = 0; i < STEPS; i++)
		both_free(&all[i]);
}

static void a_delta_alone_has_a_number_of_its_own(void **state)
{
	const struct csm_signer signer = pki_signer(root.key, NULL);
	struct crl_job job = {.db = db, .issuer = CSM_STR("one"), .cert = root.cert, .signer = &signer, .now = NOW};
	struct crl_list *d = NULL;
	struct both b;

	(void)state;
	assert_int_equal(crl_make_delta(&job, &d), CSM_ESTATE);
	b = lists(NOW);
	job.now = NOW + 1800;
	assert_int_equal(crl_make_delta(&job, &d), 0);
	assert_true(d->number > b.full->number);
	assert_int_equal(d->base, b.delta->base);
	assert_int_equal(d->next_update - d->this_update, CRL_DELTA_LIFE);
	both_free(&b);
	b = lists(NOW + 1801);
	assert_true(b.full->number > d->number);
	crl_list_unref(d);
	both_free(&b);
}

static int no_signature(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	(void)arg, (void)tbs, (void)scheme, (void)sig, (void)n;
	return CSM_EUNAVAILABLE;
}

static void a_number_is_never_used_again(void **state)
{
	struct csm_signer signer = pki_signer(root.key, NULL);
	const struct crl_job job = {.db = db, .issuer = CSM_STR("one"), .cert = root.cert, .signer = &signer, .now = NOW + 1};
	struct crl_list *f = NULL, *d = NULL;
	struct both b = lists(NOW);
	const uint64_t was = b.full->number;

	(void)state;
	both_free(&b);
	signer.sign = no_signature;
	assert_int_equal(crl_make(&job, &f, &d), CSM_EUNAVAILABLE);
	assert_null(f);
	assert_null(d);
	b = lists(NOW + 2);
	assert_true(b.full->number >= was + 2);
	both_free(&b);
	/* nor by a database that was made anew */
	(void)teardown(NULL);
	(void)setup(NULL);
	b = lists(NOW + 100);
	assert_true(b.full->number > was + 10);
	both_free(&b);
	/* the clock went back: what was revoked in its future is listed all the same */
	issued(1, "one", NOW + PKI_DAY);
	revoked(1, CSM_REASON_SUPERSEDED, NOW + 5000);
	b = lists(NOW + 3);
	assert_int_equal(reason_in(b.f, 1), CSM_REASON_SUPERSEDED);
	both_free(&b);
}

/* 1,000 entries; 100,000 at full counts, where the time is told. */
static void long_lists_are_whole(void **state)
{
	const uint32_t n = long_run() ? 100000 : 1000;
	struct timespec a, z;
	struct both b;

	(void)state;
	for (uint32_t i = 0; i < n; i++) {
		issued(i, "one", NOW + PKI_DAY);
		revoked(i, (int)(i % 3), NOW);
	}
	(void)clock_gettime(CLOCK_MONOTONIC, &a);
	b = lists(NOW);
	(void)clock_gettime(CLOCK_MONOTONIC, &z);
	print_message("%u entries, full and delta: %.0f ms\n", n,
		1e3 * (double)(z.tv_sec - a.tv_sec) + (double)(z.tv_nsec - a.tv_nsec) / 1e6);
	assert_int_equal(entries_in(b.f), n);
	both_free(&b);
}

static void pem_is_the_list_and_is_made_once(void **state)
{
	struct csm_bin pem, again;
	struct both b;
	uint8_t *der;
	char *name, *header;
	long len;
	BIO *in;

	(void)state;
	for (uint32_t i = 0; i < 10; i++) {
		issued(i, "one", NOW + PKI_DAY);
		revoked(i, CSM_REASON_SUPERSEDED, NOW);
	}
	b = lists(NOW);
	assert_int_equal(crl_list_pem(b.full, &pem), 0);
	assert_int_equal(crl_list_pem(b.full, &again), 0);
	assert_ptr_equal(pem.p, again.p);
	in = BIO_new_mem_buf(pem.p, (int)pem.n);
	assert_int_equal(PEM_read_bio(in, &name, &header, &der, &len), 1);
	assert_string_equal(name, PEM_STRING_X509_CRL);
	assert_string_equal(header, "");
	assert_int_equal(BIO_pending(in), 0);
	assert_int_equal(len, b.full->der.len);
	assert_memory_equal(der, csm_buf_ptr(&b.full->der), (size_t)len);
	BIO_free(in);
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_free(der);
	both_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lists_hold_what_is_revoked_and_no_more, setup, teardown),
		cmocka_unit_test_setup_teardown(a_hold_is_taken_back_in_the_delta, setup, teardown),
		cmocka_unit_test_setup_teardown(every_good_list_and_the_delta_are_the_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(a_delta_alone_has_a_number_of_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(a_number_is_never_used_again, setup, teardown),
		cmocka_unit_test_setup_teardown(pem_is_the_list_and_is_made_once, setup, teardown),
		cmocka_unit_test_setup_teardown(long_lists_are_whole, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, group_teardown);
}
