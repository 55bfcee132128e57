/* The decoder of every message: what it reads, csm writes again and reads as the same, and
 * msgpack-c reads what csm writes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <msgpack.h>
#include "libclient/wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x) \
	do { \
		if (!(x)) \
			abort(); \
	} while (0)
#define POOL (1024u * 1024u)

static void check_oracle(const struct csm_buf *b)
{
	msgpack_unpacked u;
	size_t off = 0;

	msgpack_unpacked_init(&u);
	MUST(msgpack_unpack_next(&u, (const char *)csm_buf_ptr(b), b->len, &off) == MSGPACK_UNPACK_SUCCESS);
	MUST(off == b->len);
	msgpack_unpacked_destroy(&u);
}

/* bytes -> structure -> bytes -> structure -> the same bytes */
static void check_again(const struct csm_msgdef *def, const void *body)
{
	struct csm_buf first, second;
	struct csm_pool pool;
	struct csm_str bad;
	void *copy = malloc(def->size);

	MUST(copy != NULL);
	csm_pool_init(&pool, POOL);
	csm_buf_init(&first, CSM_OUT_MAX, true);
	csm_buf_init(&second, CSM_OUT_MAX, false);
	MUST(csm_msg_encode(def, body, &first) == 0);
	check_oracle(&first);
	MUST(csm_msg_decode(def, (struct csm_bin){csm_buf_ptr(&first), first.len}, CSM_UNKNOWN_REFUSE, &pool, copy, &bad) == 0);
	MUST(csm_msg_encode(def, copy, &second) == 0);
	MUST(first.len == second.len && memcmp(csm_buf_ptr(&first), csm_buf_ptr(&second), first.len) == 0);
	csm_buf_free(&first);
	csm_buf_free(&second);
	csm_pool_free(&pool);
	free(copy);
}

static int decode(const struct csm_msgdef *def, struct csm_bin p, enum csm_unknown unknown)
{
	struct csm_str bad = {NULL, 0};
	struct csm_pool pool;
	void *body = malloc(def->size);
	int r;

	MUST(body != NULL);
	csm_pool_init(&pool, POOL);
	r = csm_msg_decode(def, p, unknown, &pool, body, &bad);
	MUST(r == 0 || r == CSM_EUNSUPPORTED_FIELD || r == CSM_EINVALID || r == CSM_ETOO_LARGE || r == CSM_EPROTOCOL);
	MUST(r != CSM_EUNSUPPORTED_FIELD || unknown == CSM_UNKNOWN_REFUSE);
	MUST(r == 0 || bad.p != NULL);
	if (r == 0)
		check_again(def, body);
	csm_pool_free(&pool);
	free(body);
	return r;
}

/* A whole message goes the way it goes in csm; other bytes are the body of any message. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct csm_method *m;
	struct csm_frame f;
	size_t n;

	if (size == 0 || size > CSM_MESSAGE_MAX)
		return 0;
	if (csm_scan(data, size, &n) != 0 || csm_frame_parse(data, n, &f) != 0) {
		const struct csm_msgdef *def = &csm_msgdefs[data[0] % CSM_MSGID__COUNT];

		(void)decode(def, (struct csm_bin){data + 1, size - 1}, data[0] < 128 ? CSM_UNKNOWN_REFUSE : CSM_UNKNOWN_SKIP);
		return 0;
	}
	if (f.type != CSM_RESPONSE) {
		m = csm_method_find(f.method);
		if (m != NULL)
			(void)decode(m->request, f.params, CSM_UNKNOWN_REFUSE);
	} else if (f.error.p != NULL) {
		(void)decode(CSM_DEF(error), f.error, CSM_UNKNOWN_SKIP);
	} else {
		for (size_t i = 0; i < CSM_MSGID__COUNT; i++)
			(void)decode(&csm_msgdefs[i], f.result, CSM_UNKNOWN_SKIP);
	}
	return 0;
}
