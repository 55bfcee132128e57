/* Renewals for another key, where the test is csm-enrol and the CA: who asked for one while the key changed gets one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/enrolfix.h"

static const char policy[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities:\n"
	"  root: {uid: 0}\n"
	"rules:\n"
	"  - {allow: [key.create, key.show, cert.enrol, cert.renew, cert.get], to: [root], on: [\"web:*\", \"csm:*\"]}\n";

static const char config[] =
	"enrolment:\n  profiles:\n"
	"    default: {url: \"https://ca.example\", anchors: /in/the/test, token: \"file:/in/the/test\", timeout: 5s,\n"
	"      subject: \"/CN={name}\", san: [\"dns:{name}.example.org\"], renewal: {new_key: true},\n"
	"      node: {subject: \"/CN=this-node\", san: [\"dns:node.example.org\"]}}\n";

static const struct certspec good_node = {.subject = "/CN=this-node", .san = "DNS:node.example.org", .serial = "0A"};
static const struct certspec good = {.subject = "/CN=a", .san = "DNS:a.example.org", .serial = "0B"};

static void ask_renew(int fd, uint32_t id)
{
	struct csm_msg_cert_renew_req m = {.key = CSM_STR("web:a"), .wait = {true, true}};

	assert_int_equal(testbroker_request(&fix.t, fd, id, "cert.renew", &m), 0);
}

/* It is asked for before the key has changed, and its turn comes when it has. */
static void asked_for_while_the_key_changes(void **state)
{
	struct csm_msg_cert_info info = {0};
	struct testreader later;
	struct testanswer a;
	int second;

	(void)state;
	testreader_init(&later);
	second = fix_connect(CSM_R_PUBLIC);
	assert_int_equal(fix_create(pub, "web:a", "p256", NULL, NULL), 0);
	ask_enrol(pub, "web:a", 1);
	next_job("enrol");
	done_with(&good_node);
	next_job("enrol");
	done_with(&good);
	assert_int_equal(answer_of(pub, 1, &info), 0);
	assert_false(info.old_key_until.set);
	for (uint32_t id = 10; id < 20; id++) {
		ask_renew(pub, id);
		next_job("enrol");
		send_done(&good);
		ask_renew(second, id);
		take_done();
		assert_int_equal(answer_of(pub, id, &info), 0);
		assert_true(info.old_key_until.set);
		next_job("enrol");
		done_with(&good);
		assert_int_equal(testbroker_answer(&fix.t, second, &later, ANSWER_MS, &a), 0);
		assert_int_equal(a.error, 0);
	}
	fix_close(second);
	testreader_free(&later);
}

int main(void)
{
	const struct CMUnitTest tests[] = {ENROLFIX_TEST(asked_for_while_the_key_changes)};

	fix_config = config;
	if (!fix_prepare(120, NULL, policy))
		return 77;
	return cmocka_run_group_tests(tests, enrolfix_begin, enrolfix_end);
}
