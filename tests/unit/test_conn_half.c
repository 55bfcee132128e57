/* Connections whose client has shut down its sending side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <cmocka.h>
#include "daemon/node/conn.h"
#include "tests/lib/brokerfix.h"

#define PIPELINED 1000u

/* Who shuts down his sending side gets his answers, then the end; half a message is nobody's. */
static void a_half_closed_connection_gets_its_answers(void **state)
{
	static const uint8_t half[] = {0x94, 0x00};
	struct csm_msg_random_req m = {.bytes = {4000, true}};
	struct csm_buf b;
	char byte;

	(void)state;
	csm_buf_init(&b, 1 << 20, false);
	for (uint32_t i = 0; i < PIPELINED; i++)
		assert_int_equal(csm_frame_request(&b, i, "random", CSM_DEF(random_req), &m), 0);
	assert_int_equal(csm_buf_put(&b, half, sizeof(half)), 0);
	assert_int_equal(testbroker_send(&fix.t, pub, csm_buf_ptr(&b), b.len), 0);
	csm_buf_free(&b);
	assert_int_equal(shutdown(pub, SHUT_WR), 0);
	for (uint32_t i = 0; i < PIPELINED; i++)
		assert_int_equal(fix_next(pub), 0);
	testbroker_step(&fix.t);
	assert_int_equal(recv(pub, &byte, 1, MSG_DONTWAIT), 0);
	assert_int_equal(fix.t.loop->n_conns, 0);
}

/* With an operation that is elsewhere: its answer comes, then the end. */
static void a_half_closed_connection_awaits_its_operations(void **state)
{
	struct csm_msg_key_create_req m = {.key = CSM_STR("late"), .alg = CSM_STR("p256")};
	struct csm_buf b;
	char byte;

	(void)state;
	csm_buf_init(&b, 1024, false);
	assert_int_equal(csm_frame_request(&b, 5, "key.create", CSM_DEF(key_create_req), &m), 0);
	assert_int_equal(testbroker_send(&fix.t, pub, csm_buf_ptr(&b), b.len), 0);
	csm_buf_free(&b);
	assert_int_equal(shutdown(pub, SHUT_WR), 0);
	assert_int_equal(fix_next(pub), 0);
	assert_int_equal(fix.last.msgid, 5);
	assert_int_equal(fix.last.error, 0);
	testbroker_step(&fix.t);
	assert_int_equal(recv(pub, &byte, 1, MSG_DONTWAIT), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(a_half_closed_connection_gets_its_answers),
		FIX_TEST(a_half_closed_connection_awaits_its_operations),
	};

	return fix_prepare(200, "generate=delay:60ms", NULL) ? cmocka_run_group_tests(tests, fix_begin, fix_end) : 77;
}
