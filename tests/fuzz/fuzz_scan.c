/* The scanner: in pieces as at once, never more wanted than the end, and msgpack-c agrees that what
 * it passes is one whole value. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <msgpack.h>
#include "libclient/wire/dec.h"
#include "libclient/wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x) \
	do { \
		if (!(x)) \
			abort(); \
	} while (0)

static void check_oracle(const uint8_t *data, size_t n)
{
	struct csm_dec d;
	msgpack_unpacked u;
	size_t off = 0;

	msgpack_unpacked_init(&u);
	MUST(msgpack_unpack_next(&u, (const char *)data, n, &off) == MSGPACK_UNPACK_SUCCESS);
	MUST(off == n && u.data.type == MSGPACK_OBJECT_ARRAY);
	MUST(u.data.via.array.size == 3 || u.data.via.array.size == 4);
	msgpack_unpacked_destroy(&u);
	csm_dec_init(&d, data, n);
	MUST(csm_dec_skip(&d) == 0 && csm_dec_end(&d) == 0);
}

/* In pieces whose sizes the input gives. */
static int scan_pieces(const uint8_t *data, size_t size, size_t *ret)
{
	struct csm_scanner s;
	int r = CSM_EBUSY;

	csm_scanner_init(&s);
	for (size_t n = 0;;) {
		r = csm_scanner_run(&s, data, n, ret);
		MUST(s.pos <= n && s.depth <= CSM_DEPTH_MAX);
		if (r != CSM_EBUSY || n == size)
			return r;
		MUST(*ret > n);
		n += 1 + data[n] % 29u;
		n = n < size ? n : size;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t n = 0, again = 0;
	struct csm_frame f;
	uint32_t msgid;
	int r;

	if (size > CSM_MESSAGE_MAX)
		return 0;
	(void)csm_scan_msgid(data, size, &msgid);
	(void)csm_frame_parse(data, size, &f);
	r = csm_scan(data, size, &n);
	MUST(scan_pieces(data, size, &again) == r);
	if (r == CSM_EBUSY)
		MUST(n > size && n <= CSM_MESSAGE_MAX && n == again);
	if (r != 0)
		return 0;
	MUST(n > 0 && n <= size && n == again);
	/* no shorter prefix passes */
	MUST(csm_scan(data, n - 1, &again) == CSM_EBUSY && again <= n);
	check_oracle(data, n);
	return 0;
}
