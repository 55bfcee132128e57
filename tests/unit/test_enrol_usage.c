/* Reports of use: each signature that is on record is told once, whoever made it, whatever ends in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>
#include "tests/lib/enrolfix.h"

static const char policy[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities:\n"
	"  root: {uid: 0}\n"
	"  other: {uid: 70061}\n"
	"rules:\n"
	"  - {allow: [key.create, key.sign, cert.enrol], to: [root], on: [\"web:*\"]}\n"
	"  - {allow: [key.sign], to: [other], on: [\"web:used\"]}\n";

static const char config[] =
	"enrolment:\n  profiles:\n"
	"    default: {url: \"https://ca.example\", anchors: /in/the/test, token: \"file:/in/the/test\",\n"
	"      subject: \"/CN={name}\", node: {subject: \"/CN=this-node\"}}\n";

static void sign_times(int fd, unsigned n)
{
	struct csm_msg_sign_res res;

	for (unsigned i = 0; i < n; i++)
		assert_int_equal(fix_sign(fd, "web:used", &res), 0);
}

static void folded(struct csm_store_op *op)
{
	counts_folded(&fix.t.b.counts, op->r == 0);
	*(volatile bool *)op->arg = true;
}

/* As the main thread does it every ten seconds, and then it is time for a report. */
static void report_is_due(void)
{
	volatile bool done = false;
	struct csm_store_op op = {.kind = CSM_OP_COUNTS, .done = folded, .arg = (void *)&done};

	if (counts_fold(&fix.t.b.counts, &op.counts, &op.n_counts)) {
		assert_int_equal(csm_store_submit(fix.t.b.store, &op), 0);
		while (!done)
			usleep(1000);
	}
	fix.t.b.enrol->profile[0].usage_after_ms = 1;
	enrol_tick(fix.t.b.enrol);
}

/* As after a start. Nothing is under way. */
static void begin_anew(void)
{
	fix_close(chan);
	enrol_stop(fix.t.b.enrol);
	while (fix.t.loop->n_ops > 0)
		testbroker_step(&fix.t);
	enrol_free(fix.t.b.enrol);
	counts_users_free(&fix.t.b.counts);
	assert_int_equal(enrol_new(&fix.t.b, &fix.t.b.enrol), 0);
	assert_int_equal(enrol_start(fix.t.b.enrol), 0);
	fix.t.b.enrol->profile[0].cacerts_after_ms = UINT64_MAX;
	chan = fix_connect(CSM_R_ENROL);
	testreader_free(&reader);
	testreader_init(&reader);
}

/* Signatures with web:used that the job's report tells of this identity; NULL: of all. */
static unsigned long told_of(const char *identity)
{
	json_t *all = json_loadb((const char *)job.body.p, job.body.n, 0, NULL), *row;
	unsigned long n = 0;
	size_t i;

	assert_non_null(all);
	json_array_foreach(json_object_get(all, "reports"), i, row)
		if (strcmp(json_string_value(json_object_get(row, "key")), "web:used") == 0 &&
			(identity == NULL || strcmp(json_string_value(json_object_get(row, "identity")), identity) == 0))
			n += (unsigned long)json_integer_value(json_object_get(row, "signatures"));
	json_decref(all);
	return n;
}

static void each_use_is_told_once(void **state)
{
	struct csm_msg_enrol_done_req done = {0};
	struct csm_msg_cert_info info = {0};
	int other = fix_connect_as(70061);
	struct csm_buf first;

	(void)state;
	csm_buf_init(&first, CSM_MESSAGE_MAX, false);
	assert_int_equal(fix_create(pub, "web:used", "p256", NULL, NULL), 0);
	ask_enrol(pub, "web:used", 80);
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=this-node"});
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=used"});
	assert_int_equal(answer_of(pub, 80, &info), 0);
	begin_anew();
	sign_times(pub, 3);
	sign_times(other, 2);
	report_is_due();
	next_job("usage");
	assert_int_equal(told_of("uid=0"), 3);
	assert_int_equal(told_of("uid=70061"), 2);
	/* the request's own, of which nobody knows any more who made it */
	assert_int_equal(told_of("other"), 1);
	assert_int_equal(csm_buf_put(&first, job.body.p, job.body.n), 0);
	done_badly("unavailable", "away", 0);
	/* until the CA has it, it is the same, whatever was signed meanwhile, and also after a start */
	sign_times(pub, 1);
	for (int i = 0; i < 2; i++) {
		report_is_due();
		next_job("usage");
		assert_int_equal(job.body.n, first.len);
		assert_memory_equal(job.body.p, csm_buf_ptr(&first), first.len);
		if (i == 0) {
			done_badly("unavailable", "away", 0);
			begin_anew();
		}
	}
	done.job = job.id;
	assert_int_equal(call_chan("enrol.done", &done), 0);
	report_is_due();
	next_job("usage");
	assert_int_equal(told_of(NULL), 1);
	done.job = job.id;
	assert_int_equal(call_chan("enrol.done", &done), 0);
	/* what was told is not told again */
	begin_anew();
	report_is_due();
	ask_next();
	assert_int_equal(take_job(500), CSM_ETIMEOUT);
	begin_anew();
	csm_buf_free(&first);
	fix_close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {ENROLFIX_TEST(each_use_is_told_once)};

	fix_config = config;
	if (!fix_prepare(120, NULL, policy))
		return 77;
	return cmocka_run_group_tests(tests, enrolfix_begin, enrolfix_end);
}
