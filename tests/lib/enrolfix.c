#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include "tests/lib/enrolfix.h"

#define DAY 86400

EVP_PKEY *root_key, *false_key;
X509 *root_cert, *false_root;
int chan = -1, admin = -1;
struct testreader reader, waiter;
struct csm_msg_enrol_job job;
static struct csm_pool job_pool;
static uint32_t msgid;

/* ---- the test as csm-enrol ---- */

void ask_next(void)
{
	struct csm_msg_empty none = {0};

	assert_int_equal(testbroker_request(&fix.t, chan, ++msgid, "enrol.next", &none), 0);
}

/* The next job; 0, CSM_ETIMEOUT, or the error. */
int take_job(int ms)
{
	struct testanswer a;
	struct csm_str bad;
	int r = testbroker_answer(&fix.t, chan, &reader, ms, &a);

	if (r != 0 || a.error != 0)
		return r != 0 ? r : a.error;
	csm_pool_reset(&job_pool);
	return csm_msg_decode(CSM_DEF(enrol_job), a.result, CSM_UNKNOWN_REFUSE, &job_pool, &job, &bad);
}

void next_job(const char *what)
{
	ask_next();
	assert_int_equal(take_job(ANSWER_MS), 0);
	if (!csm_str_eq(job.what, what))
		fail_msg("the job is %.*s, not %s", (int)job.what.n, job.what.p, what);
}

int call_chan(const char *method, const void *params)
{
	struct testanswer a;
	int r = testbroker_request(&fix.t, chan, ++msgid, method, params);

	if (r == 0)
		r = testbroker_answer(&fix.t, chan, &reader, ANSWER_MS, &a);
	return r != 0 ? r : a.error;
}

/* A certificate for the job's CSR, but for what the spec says. */
static void make_chain(struct certspec s, struct csm_buf *out)
{
	const unsigned char *p = job.csr.p;
	X509_REQ *req = d2i_X509_REQ(NULL, &p, (long)job.csr.n);
	EVP_PKEY *key = X509_REQ_get_pubkey(req);
	X509 *x;

	assert_non_null(req);
	if (s.key == NULL)
		s.key = key;
	if (s.signer == NULL) {
		s.signer = root_cert;
		s.signer_key = root_key;
	}
	if (s.to == 0) {
		s.from = -60;
		s.to = 90 * DAY;
	}
	x = cert_make(&s);
	cert_der(x, out);
	X509_free(x);
	EVP_PKEY_free(key);
	X509_REQ_free(req);
}

void send_done(const struct certspec *s)
{
	struct csm_msg_enrol_done_req m = {.job = job.id};
	struct csm_buf chain;

	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	make_chain(*s, &chain);
	m.chain = (struct csm_bin){csm_buf_ptr(&chain), chain.len};
	assert_int_equal(testbroker_request(&fix.t, chan, ++msgid, "enrol.done", &m), 0);
	csm_buf_free(&chain);
}

void take_done(void)
{
	struct testanswer a;

	assert_int_equal(testbroker_answer(&fix.t, chan, &reader, ANSWER_MS, &a), 0);
	assert_int_equal(a.error, 0);
}

void done_with(const struct certspec *s)
{
	send_done(s);
	take_done();
}

void done_badly(const char *error, const char *why, uint64_t retry)
{
	struct csm_msg_enrol_done_req m = {
		.job = job.id, .error = csm_str_of(error), .why = csm_str_of(why), .retry_after_s = {retry, retry > 0}};

	assert_int_equal(call_chan("enrol.done", &m), 0);
}

/* ---- the test as a client ---- */

void ask_enrol(int fd, const char *key, uint32_t id)
{
	struct csm_msg_cert_enrol_req m = {.key = csm_str_of(key)};

	assert_int_equal(testbroker_request(&fix.t, fd, id, "cert.enrol", &m), 0);
}

int answer_of(int fd, uint32_t id, struct csm_msg_cert_info *info)
{
	struct testanswer a;
	struct csm_str bad;
	int r = testbroker_answer(&fix.t, fd, &waiter, ANSWER_MS, &a);

	if (r != 0)
		return r;
	assert_int_equal(a.msgid, id);
	snprintf(fix.last.message, sizeof(fix.last.message), "%s", a.message);
	if (a.error != 0)
		return a.error;
	csm_pool_reset(&fix.pool);
	return csm_msg_decode(CSM_DEF(cert_info), a.result, CSM_UNKNOWN_REFUSE, &fix.pool, info, &bad);
}

int get(const char *key, struct csm_msg_cert_info *info)
{
	struct csm_msg_key_req m = {.key = csm_str_of(key)};

	return fix_call(pub, "cert.get", &m, info);
}

void told(const char *text)
{
	if (strstr(fix.last.message, text) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", text, fix.last.message);
}

int enrolfix_begin(void **state)
{
	char *text;
	BIO *bio = BIO_new(BIO_s_mem());

	root_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	false_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	root_cert = cert_make(&(struct certspec){.subject = "/CN=root", .key = root_key, .ca = true, .from = -DAY, .to = 4000L * DAY});
	false_root =
		cert_make(&(struct certspec){.subject = "/CN=root", .key = false_key, .ca = true, .from = -DAY, .to = 4000L * DAY});
	PEM_write_bio_X509(bio, root_cert);
	fix_anchors.n = (size_t)BIO_get_mem_data(bio, &text);
	fix_anchors.p = memcpy(malloc(fix_anchors.n), text, fix_anchors.n);
	fix_token = (struct csm_bin){(const uint8_t *)"t0ken", 5};
	BIO_free(bio);
	testreader_init(&reader);
	testreader_init(&waiter);
	csm_pool_init(&job_pool, CSM_MESSAGE_MAX);
	return fix_begin(state);
}

int enrolfix_end(void **state)
{
	int r = fix_end(state);

	X509_free(root_cert);
	X509_free(false_root);
	EVP_PKEY_free(root_key);
	EVP_PKEY_free(false_key);
	testreader_free(&reader);
	testreader_free(&waiter);
	csm_pool_free(&job_pool);
	free((void *)(uintptr_t)fix_anchors.p);
	return r;
}

int enrolfix_setup(void **state)
{
	int r = fix_setup(state);

	chan = fix_connect(CSM_R_ENROL);
	admin = fix_connect(CSM_R_ADMIN);
	return r;
}

int enrolfix_teardown(void **state)
{
	fix_close(chan);
	fix_close(admin);
	testreader_free(&reader);
	testreader_init(&reader);
	testreader_free(&waiter);
	testreader_init(&waiter);
	return fix_teardown(state);
}
