#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <msgpack.h>
#include "libclient/wire/dec.h"
#include "libclient/wire/frame.h"

static int scan(const void *p, size_t n, size_t *ret)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, p, n);
	r = csm_scan(copy, n, ret);
	free(copy);
	return r;
}
#define SCAN(literal, ret) scan(literal, sizeof(literal) - 1, ret)

/* What is known of the end, as early as it is known. */
static void test_scan_bounds(void **state)
{
	size_t n = 0;

	(void)state;
	assert_int_equal(SCAN("", &n), CSM_EBUSY);
	assert_int_equal(n, 1);
	assert_int_equal(SCAN("\x94", &n), CSM_EBUSY);
	assert_int_equal(n, 5);
	assert_int_equal(SCAN("\xdc\x00", &n), CSM_EBUSY);
	assert_int_equal(n, 3);
	/* a string's header tells its length, and two values follow it */
	assert_int_equal(SCAN("\x94\x00\x01\xa4", &n), CSM_EBUSY);
	assert_int_equal(n, 4 + 4 + 1);
	assert_int_equal(SCAN("\x94\x00\x01\xa4ping\x91\x81\xa4"
			      "data\xc6\x00\x01\x00\x00",
				 &n),
		CSM_EBUSY);
	assert_int_equal(n, 20 + 65536);
	assert_int_equal(SCAN("\x94\x00\x01\xa4ping\x91\xde\x01\x00", &n), CSM_EBUSY);
	assert_int_equal(n, 12 + 512);
	assert_int_equal(SCAN("\x94\x00\x01\xa4ping\x90", &n), 0);
	assert_int_equal(n, 9);
	/* the next message is not looked at */
	assert_int_equal(SCAN("\x94\x00\x01\xa4ping\x90\xc1\xc1", &n), 0);
	assert_int_equal(n, 9);
}

static void test_scan_refusals(void **state)
{
	size_t n = 77;

	(void)state;
	assert_int_equal(SCAN("\x92\x00\x01", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\x95", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\xdc\x00\x05", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\xdd\xff\xff\xff\xff", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\x00", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("G", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\xc1", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\x94\xc1", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\x94\xca", &n), CSM_EPROTOCOL);
	assert_int_equal(SCAN("\x94\xcb", &n), CSM_EPROTOCOL);
	for (unsigned b = 0xc7; b <= 0xc9; b++)
		assert_int_equal(scan((uint8_t[]){0x94, (uint8_t)b}, 2, &n), CSM_EPROTOCOL);
	for (unsigned b = 0xd4; b <= 0xd8; b++)
		assert_int_equal(scan((uint8_t[]){0x94, (uint8_t)b}, 2, &n), CSM_EPROTOCOL);
	/* counts and lengths, before their bytes are there */
	assert_int_equal(SCAN("\x94\xdd\xff\xff\xff\xff", &n), CSM_ETOO_LARGE);
	assert_int_equal(SCAN("\x94\xdf\xff\xff\xff\xff", &n), CSM_ETOO_LARGE);
	assert_int_equal(SCAN("\x94\xdf\x00\x08\x00\x00", &n), CSM_ETOO_LARGE);
	assert_int_equal(SCAN("\x94\xc6\xff\xff\xff\xff", &n), CSM_ETOO_LARGE);
	assert_int_equal(SCAN("\x94\xdb\x00\x10\x00\x00", &n), CSM_ETOO_LARGE);
	assert_int_equal(n, 77);
}

static void test_scan_depth(void **state)
{
	size_t n = 0;

	(void)state;
	/* eight containers in each other, then nine; an empty one counts as well */
	assert_int_equal(SCAN("\x93\x91\x91\x91\x91\x91\x91\x90\x00\x00", &n), 0);
	assert_int_equal(n, 10);
	assert_int_equal(SCAN("\x93\x91\x91\x91\x91\x91\x91\x91\x90\x00\x00", &n), CSM_ETOO_LARGE);
	assert_int_equal(SCAN("\x93\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x81\x01\x80\x00\x00", &n),
		CSM_ETOO_LARGE);
	/* side by side is not deep */
	assert_int_equal(SCAN("\x93\x92\x91\x91\x91\x91\x91\x90\x91\x91\x91\x91\x91\x90\x00\x00", &n), 0);
}

/* A message of exactly the limit passes, one byte more does not. */
static void test_scan_limit(void **state)
{
	static uint8_t m[CSM_MESSAGE_MAX + 1];
	const size_t head = 1 + 1 + 1 + 5 + 5; /* [0, 1, "ping", bin] */
	size_t body = CSM_MESSAGE_MAX - head, n = 0;

	(void)state;
	memcpy(m, (const uint8_t[]){0x94, 0x00, 0x01, 0xa4, 'p', 'i', 'n', 'g', 0xc6}, 9);
	for (int over = 0; over < 2; over++, body++) {
		for (int i = 0; i < 4; i++)
			m[9 + i] = (uint8_t)(body >> 8 * (3 - i));
		if (over == 0) {
			assert_int_equal(csm_scan(m, CSM_MESSAGE_MAX, &n), 0);
			assert_int_equal(n, CSM_MESSAGE_MAX);
			assert_int_equal(csm_scan(m, CSM_MESSAGE_MAX - 1, &n), CSM_EBUSY);
			assert_int_equal(n, CSM_MESSAGE_MAX);
		} else {
			assert_int_equal(csm_scan(m, 13, &n), CSM_ETOO_LARGE);
		}
	}
}

/* A message of the most values that dribble in: the scanner looks at each byte once. */
static void test_scanner_is_linear(void **state)
{
	static uint8_t m[CSM_MESSAGE_MAX];
	struct timespec a, b;
	struct csm_scanner s;
	size_t at = 0, n = 0;
	int r = CSM_EBUSY;

	(void)state;
	/* 130,000 arrays of 7 numbers: 8 bytes each */
	memcpy(m, (const uint8_t[]){0x94, 0x00, 0x01, 0xa4, 'p', 'i', 'n', 'g', 0x91, 0xdd, 0x00, 0x01, 0xfb, 0xd0}, 14);
	for (at = 14; at + 8 <= 14 + 130000 * 8; at += 8)
		memcpy(m + at, (const uint8_t[]){0x97, 1, 2, 3, 4, 5, 6, 7}, 8);
	csm_scanner_init(&s);
	(void)clock_gettime(CLOCK_MONOTONIC, &a);
	for (size_t have = 0; have <= at && r == CSM_EBUSY; have += 1)
		r = csm_scanner_run(&s, m, have, &n);
	(void)clock_gettime(CLOCK_MONOTONIC, &b);
	assert_int_equal(r, 0);
	assert_int_equal(n, at);
	assert_true(b.tv_sec - a.tv_sec < 5);
	assert_int_equal(csm_scan(m, at, &n), 0);
	assert_int_equal(n, at);
	/* fewer bytes than were there before: a caller's mistake */
	assert_int_equal(csm_scanner_run(&s, m, 3, &n), CSM_EINTERNAL);
}

static void test_msgid(void **state)
{
	uint32_t id = 5;

	(void)state;
	assert_true(csm_scan_msgid((const uint8_t *)"\x94\x00\xcd\x12\x34\xc1", 6, &id));
	assert_int_equal(id, 0x1234);
	assert_true(csm_scan_msgid((const uint8_t *)"\xdc\x00\x04\x00\xce\xff\xff\xff\xff", 9, &id));
	assert_int_equal(id, UINT32_MAX);
	id = 5;
	assert_false(csm_scan_msgid((const uint8_t *)"\x94\x00\xcd\x12", 4, &id));
	assert_false(csm_scan_msgid((const uint8_t *)"\x94\x01\x07", 3, &id)); /* a response */
	assert_false(csm_scan_msgid((const uint8_t *)"\x93\x02\xa1x", 4, &id));
	assert_false(csm_scan_msgid((const uint8_t *)"\x94\x00\xa1x", 4, &id));
	assert_false(csm_scan_msgid((const uint8_t *)"\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00", 11, &id));
	assert_false(csm_scan_msgid((const uint8_t *)"\x94", 1, &id));
	assert_false(csm_scan_msgid((const uint8_t *)"", 0, &id));
	assert_int_equal(id, 5);
}

static void test_parse(void **state)
{
	struct csm_frame f = {.msgid = 7};

	(void)state;
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x00\x05\xa4ping\x91\x80", 10, &f), 0);
	assert_int_equal(f.type, CSM_REQUEST);
	assert_int_equal(f.msgid, 5);
	assert_true(csm_str_eq(f.method, "ping"));
	assert_int_equal(f.params.n, 1);
	assert_null(f.error.p);
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x00\x05\xa4ping\x90", 9, &f), 0);
	assert_int_equal(f.params.n, 1);
	assert_int_equal(f.params.p[0], 0x80);
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x93\x02\xa4ping\x90", 8, &f), 0);
	assert_int_equal(f.type, CSM_NOTIFICATION);
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x01\x06\xc0\x81\xa1x\x01", 8, &f), 0);
	assert_int_equal(f.type, CSM_RESPONSE);
	assert_int_equal(f.msgid, 6);
	assert_null(f.error.p);
	assert_int_equal(f.result.n, 4);
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x01\x06\x81\xa1x\x01\xc0", 8, &f), 0);
	assert_int_equal(f.error.n, 4);
	assert_int_equal(f.result.n, 1);
	f.msgid = 99;
	/* left over, and cut off */
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x00\x05\xa4ping\x90\x00", 10, &f), CSM_EPROTOCOL);
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x00\x05\xa4ping\x91\x81", 10, &f), CSM_EPROTOCOL);
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x01\x06\xc0", 4, &f), CSM_EPROTOCOL);
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x01\x06\x81\xa1x\x01", 7, &f), CSM_EPROTOCOL);
	/* two maps in params */
	assert_int_equal(csm_frame_parse((const uint8_t *)"\x94\x00\x05\xa4ping\x92\x80\x80", 11, &f), CSM_EPROTOCOL);
	assert_int_equal(f.msgid, 99);
}

/* ---- writing --------------------------------------------------------------------- */

static struct csm_buf out;

static int setup(void **state)
{
	(void)state;
	csm_buf_init(&out, CSM_OUT_MAX, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	csm_buf_free(&out);
	return 0;
}

static msgpack_object item(msgpack_object array, size_t i)
{
	assert_int_equal(array.type, MSGPACK_OBJECT_ARRAY);
	assert_true(i < array.via.array.size);
	return array.via.array.ptr[i];
}

static msgpack_object member(msgpack_object map, const char *key)
{
	static const msgpack_object none = {.type = MSGPACK_OBJECT_NIL};

	assert_int_equal(map.type, MSGPACK_OBJECT_MAP);
	for (uint32_t i = 0; i < map.via.map.size; i++) {
		msgpack_object k = map.via.map.ptr[i].key;

		if (k.via.str.size == strlen(key) && memcmp(k.via.str.ptr, key, k.via.str.size) == 0)
			return map.via.map.ptr[i].val;
	}
	return none;
}

/* The whole buffer as msgpack-c reads it, empties the buffer. */
static msgpack_object read_out(msgpack_unpacked *u)
{
	size_t off = 0, n = 0;

	assert_int_equal(csm_scan(csm_buf_ptr(&out), out.len, &n), 0);
	assert_int_equal(n, out.len);
	assert_int_equal(msgpack_unpack_next(u, (const char *)csm_buf_ptr(&out), out.len, &off), MSGPACK_UNPACK_SUCCESS);
	assert_int_equal(off, out.len);
	return u->data;
}

static const uint32_t msgids[] = {0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX};
static const size_t lengths[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 700000};
#define N(a) (sizeof(a) / sizeof((a)[0]))

static void test_request(void **state)
{
	uint8_t *body = calloc(1, 700000);
	msgpack_unpacked u;
	msgpack_object o;

	(void)state;
	assert_non_null(body);
	msgpack_unpacked_init(&u);
	for (size_t i = 0; i < N(msgids); i++) {
		for (size_t j = 0; j < N(lengths); j++) {
			struct csm_msg_sign_req req = {.key = CSM_STR("web:tls"), .message = {body, lengths[j]}};

			assert_int_equal(csm_frame_request(&out, msgids[i], "key.sign", CSM_DEF(sign_req), &req), 0);
			o = read_out(&u);
			assert_int_equal(o.via.array.size, 4);
			assert_int_equal(item(o, 0).via.u64, 0);
			assert_int_equal(item(o, 1).via.u64, msgids[i]);
			assert_memory_equal(item(o, 2).via.str.ptr, "key.sign", 8);
			assert_int_equal(item(o, 3).via.array.size, 1);
			o = item(item(o, 3), 0);
			assert_int_equal(o.via.map.size, 2);
			assert_int_equal(member(o, "message").type, MSGPACK_OBJECT_BIN);
			assert_int_equal(member(o, "message").via.bin.size, lengths[j]);
			csm_buf_reset(&out);
		}
	}
	msgpack_unpacked_destroy(&u);
	free(body);
}

static void test_result(void **state)
{
	uint8_t *body = calloc(1, 700000);
	msgpack_unpacked u;
	msgpack_object o;

	(void)state;
	assert_non_null(body);
	msgpack_unpacked_init(&u);
	for (size_t i = 0; i < N(msgids); i++) {
		for (size_t j = 0; j < N(lengths); j++) {
			struct csm_msg_sign_res res = {.scheme = CSM_STR("ed25519"), .signature = {body, lengths[j]}};
			size_t len;

			assert_int_equal(csm_frame_result(&out, msgids[i], CSM_DEF(sign_res), &res), 0);
			o = read_out(&u);
			assert_int_equal(item(o, 0).via.u64, 1);
			assert_int_equal(item(o, 1).via.u64, msgids[i]);
			assert_int_equal(item(o, 2).type, MSGPACK_OBJECT_NIL);
			assert_int_equal(member(item(o, 3), "signature").via.bin.size, lengths[j]);

			/* the same by the raw way */
			len = out.len;
			struct csm_frame f;
			assert_int_equal(csm_frame_parse(csm_buf_ptr(&out), len, &f), 0);
			struct csm_bin raw = {memcpy(malloc(f.result.n), f.result.p, f.result.n), f.result.n};
			assert_int_equal(csm_frame_result_raw(&out, msgids[i], raw), 0);
			assert_int_equal(out.len, 2 * len);
			assert_memory_equal(csm_buf_ptr(&out), csm_buf_ptr(&out) + len, len);
			free((uint8_t *)(uintptr_t)raw.p);
			csm_buf_reset(&out);
		}
	}
	msgpack_unpacked_destroy(&u);
	free(body);
}

static void test_error(void **state)
{
	msgpack_unpacked u;
	msgpack_object o;

	(void)state;
	msgpack_unpacked_init(&u);
	assert_int_equal(csm_frame_error(&out, 9, CSM_EBUSY, "wait a little", 250), 0);
	o = read_out(&u);
	assert_int_equal(item(o, 1).via.u64, 9);
	assert_int_equal(item(o, 3).type, MSGPACK_OBJECT_NIL);
	o = item(o, 2);
	assert_int_equal(o.via.map.size, 5);
	assert_int_equal(member(o, "code").via.u64, 15);
	assert_memory_equal(member(o, "name").via.str.ptr, "busy", 4);
	assert_memory_equal(member(o, "message").via.str.ptr, "wait a little", 13);
	assert_true(member(o, "retryable").via.boolean);
	assert_int_equal(member(o, "retry_after_ms").via.u64, 250);
	csm_buf_reset(&out);

	assert_int_equal(csm_frame_error(&out, 9, CSM_EDENIED, NULL, 0), 0);
	o = item(read_out(&u), 2);
	assert_int_equal(o.via.map.size, 4);
	assert_int_equal(member(o, "code").via.u64, CSM_EDENIED);
	assert_int_equal(member(o, "message").via.str.size, strlen(csm_err_text(CSM_EDENIED)));
	assert_false(member(o, "retryable").via.boolean);
	csm_buf_reset(&out);

	/* what arises inside does not go out: a lack is told as what the client can do about it */
	assert_int_equal(csm_frame_error(&out, 9, CSM_ENOMEM, NULL, 0), 0);
	assert_int_equal(member(item(read_out(&u), 2), "code").via.u64, CSM_EBUSY);
	csm_buf_reset(&out);
	assert_int_equal(csm_frame_error(&out, 9, CSM_ESYSTEM, NULL, 0), 0);
	assert_int_equal(member(item(read_out(&u), 2), "code").via.u64, CSM_EUNAVAILABLE);
	csm_buf_reset(&out);
	msgpack_unpacked_destroy(&u);
}

static void test_error_text(void **state)
{
	char text[700];
	msgpack_unpacked u;
	msgpack_object o;

	(void)state;
	msgpack_unpacked_init(&u);
	/* 511 bytes, then a character of two: it is not cut in half */
	memset(text, 'm', sizeof(text));
	memcpy(text + 511, "\xc3\xa9", 2);
	text[600] = 0;
	assert_int_equal(csm_frame_error(&out, 1, CSM_EINVALID, text, 0), 0);
	o = member(item(read_out(&u), 2), "message");
	assert_int_equal(o.via.str.size, 511);
	csm_buf_reset(&out);
	text[510] = 0;
	assert_int_equal(csm_frame_error(&out, 1, CSM_EINVALID, text, 0), 0);
	assert_int_equal(member(item(read_out(&u), 2), "message").via.str.size, 510);
	csm_buf_reset(&out);
	assert_int_equal(csm_frame_error(&out, 1, CSM_EINVALID, "\xff", 0), 0);
	o = member(item(read_out(&u), 2), "message");
	assert_memory_equal(o.via.str.ptr, csm_err_text(CSM_EINVALID), o.via.str.size);
	csm_buf_reset(&out);
	msgpack_unpacked_destroy(&u);
}

/* What does not fit leaves the buffer as it was. */
static void test_too_large(void **state)
{
	struct csm_msg_sign_req req = {.key = CSM_STR("k"), .message = {(const uint8_t *)"", 0}};
	struct csm_buf small;
	char method[66];
	size_t n = 0;

	(void)state;
	req.message.p = calloc(1, CSM_MESSAGE_MAX);
	assert_non_null(req.message.p);
	assert_int_equal(csm_frame_request(&out, 1, "key.sign", CSM_DEF(sign_req), &req), 0);
	n = out.len;
	/* grow the message to exactly the limit: its head takes three bytes more when it is long */
	req.message.n = CSM_MESSAGE_MAX - n - 3;
	assert_int_equal(csm_frame_request(&out, 1, "key.sign", CSM_DEF(sign_req), &req), 0);
	assert_int_equal(out.len, n + CSM_MESSAGE_MAX);
	req.message.n++;
	assert_int_equal(csm_frame_request(&out, 1, "key.sign", CSM_DEF(sign_req), &req), CSM_ETOO_LARGE);
	csm_buf_reset(&out);
	assert_int_equal(csm_frame_result(&out, 1, CSM_DEF(sign_req), &req), 0); /* a shorter envelope */
	csm_buf_reset(&out);
	req.message.n = SIZE_MAX;
	assert_int_equal(csm_frame_request(&out, 1, "key.sign", CSM_DEF(sign_req), &req), CSM_ETOO_LARGE);
	assert_int_equal(csm_msg_encode(CSM_DEF(sign_req), &req, &out), CSM_ETOO_LARGE);
	assert_int_equal(csm_frame_result_raw(&out, 1, (struct csm_bin){req.message.p, CSM_MESSAGE_MAX - 3}), CSM_ETOO_LARGE);
	assert_int_equal(csm_frame_result_raw(&out, 1, (struct csm_bin){req.message.p, 0}), CSM_EINVALID);
	memset(method, 'm', sizeof(method));
	method[65] = 0;
	req.message.n = 0;
	assert_int_equal(csm_frame_request(&out, 1, method, CSM_DEF(sign_req), &req), CSM_ETOO_LARGE);
	assert_int_equal(out.len, 0);
	method[64] = 0;
	assert_int_equal(csm_frame_request(&out, 1, method, CSM_DEF(sign_req), &req), 0);
	csm_buf_reset(&out);
	csm_buf_init(&small, 40, false);
	assert_int_equal(csm_buf_put(&small, "before", 6), 0);
	assert_int_equal(csm_frame_error(&small, 1, CSM_EDENIED, NULL, 0), CSM_ETOO_LARGE);
	assert_int_equal(small.len, 6);
	csm_buf_free(&small);
	free((uint8_t *)(uintptr_t)req.message.p);
}

/* Room for a result holds exactly what was asked for, behind the envelope; what is refused leaves nothing. */
static void test_result_room(void **state)
{
	static const uint8_t whole[] = {0x94, 0x01, 0x07, 0xc0, 0x81, 0xa1, 'v', 0x05};
	uint8_t *p = NULL;

	(void)state;
	csm_buf_reset(&out);
	assert_int_equal(csm_frame_result_room(&out, 7, 4, &p), 0);
	memcpy(p, whole + 4, 4);
	assert_int_equal(out.len, sizeof(whole));
	assert_memory_equal(csm_buf_ptr(&out), whole, sizeof(whole));
	p = NULL;
	assert_int_equal(csm_frame_result_room(&out, 7, 0, &p), CSM_EINVALID);
	assert_int_equal(csm_frame_result_room(&out, 7, CSM_MESSAGE_MAX - 3, &p), CSM_ETOO_LARGE);
	assert_null(p);
	assert_int_equal(out.len, sizeof(whole));
	csm_buf_reset(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan_bounds),
		cmocka_unit_test(test_scan_refusals),
		cmocka_unit_test(test_scan_depth),
		cmocka_unit_test(test_scan_limit),
		cmocka_unit_test(test_scanner_is_linear),
		cmocka_unit_test(test_msgid),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_result),
		cmocka_unit_test(test_result_room),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_error_text),
		cmocka_unit_test(test_too_large),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
