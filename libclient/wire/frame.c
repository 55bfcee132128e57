#include <string.h>
#include "libclient/wire/dec.h"
#include "libclient/wire/frame.h"
#include "libclient/wire/put.h"
#include "libclient/wire/walk.h"
#include "proto-spec/limits.h"

#define METHOD_MAX 64u

/* ---- reading ------------------------------------------------------------------ */

void csm_scanner_init(struct csm_scanner *s)
{
	csm_walk_init(s);
}

int csm_scanner_run(struct csm_scanner *s, const uint8_t *p, size_t n, size_t *ret)
{
	struct head h;
	int r;

	if (s->pos == 0 && head_read(p, n, &h) == 0 && (h.type != HEAD_ARRAY || (h.v != 3 && h.v != 4)))
		return CSM_EPROTOCOL;
	if (n < s->pos)
		return CSM_EINTERNAL;
	r = csm_walk(s, p, n, CSM_MESSAGE_MAX, ret);
	if (r == 0)
		*ret = s->pos;
	return r;
}

int csm_scan(const uint8_t *p, size_t n, size_t *ret)
{
	struct csm_scanner s;

	csm_scanner_init(&s);
	return csm_scanner_run(&s, p, n, ret);
}

static int dec_msgid(struct csm_dec *d, uint32_t *ret)
{
	uint64_t v;

	if (csm_dec_u64(d, &v) != 0 || v > UINT32_MAX)
		return CSM_EPROTOCOL;
	*ret = (uint32_t)v;
	return 0;
}

bool csm_scan_msgid(const uint8_t *p, size_t n, uint32_t *ret)
{
	struct csm_dec d;
	struct head h;
	uint64_t type;

	/* Not csm_dec_array, which wants the four values to be there. */
	if (head_read(p, n, &h) != 0 || h.type != HEAD_ARRAY || h.v != 4)
		return false;
	csm_dec_init(&d, p + h.size, n - h.size);
	if (csm_dec_u64(&d, &type) != 0 || type != CSM_REQUEST)
		return false;
	return dec_msgid(&d, ret) == 0;
}

/* The rest of a request or notification: method, [params]. */
static int parse_call(struct csm_dec *d, struct csm_frame *f)
{
	static const uint8_t empty_map[] = {0x80};
	struct csm_dec params;
	uint32_t n;

	if (csm_dec_str(d, &f->method) != 0 || f->method.n > METHOD_MAX)
		return CSM_EPROTOCOL;
	if (csm_dec_array(d, &n) != 0 || n > 1)
		return CSM_EPROTOCOL;
	if (n == 0) {
		f->params = (struct csm_bin){empty_map, sizeof(empty_map)};
		return csm_dec_end(d);
	}
	f->params = (struct csm_bin){d->p, (size_t)(d->end - d->p)};
	params = *d;
	return csm_dec_map(&params, &n);
}

/* The rest of a response: error, result. */
static int parse_answer(struct csm_dec *d, struct csm_frame *f)
{
	struct csm_dec map = *d;
	uint32_t n;

	if (csm_dec_nil(d) != 0) {
		if (csm_dec_map(&map, &n) != 0)
			return CSM_EPROTOCOL;
		f->error.p = d->p;
		if (csm_dec_skip(d) != 0)
			return CSM_EPROTOCOL;
		f->error.n = (size_t)(d->p - f->error.p);
	}
	f->result = (struct csm_bin){d->p, (size_t)(d->end - d->p)};
	return f->result.n > 0 ? 0 : CSM_EPROTOCOL;
}

int csm_frame_parse(const uint8_t *p, size_t n, struct csm_frame *ret)
{
	struct csm_frame f;
	struct csm_dec d;
	uint64_t type;
	uint32_t count;
	int r;

	memset(&f, 0, sizeof(f));
	csm_dec_init(&d, p, n);
	if (csm_dec_array(&d, &count) != 0 || csm_dec_u64(&d, &type) != 0 || type > CSM_NOTIFICATION)
		return CSM_EPROTOCOL;
	f.type = (enum csm_frame_type)type;
	if (count != (f.type == CSM_NOTIFICATION ? 3 : 4))
		return CSM_EPROTOCOL;
	if (f.type != CSM_NOTIFICATION && (r = dec_msgid(&d, &f.msgid)) != 0)
		return r;
	r = f.type == CSM_RESPONSE ? parse_answer(&d, &f) : parse_call(&d, &f);
	if (r == 0)
		*ret = f;
	return r;
}

/* ---- writing ------------------------------------------------------------------ */

/* Room for the envelope's `head` bytes, the map of *in, and `tail` bytes more. */
static int frame_reserve(struct csm_buf *b, size_t head, const struct csm_msgdef *def, const void *in, size_t tail,
	uint8_t **ret)
{
	size_t n;
	int r = csm_msg_size(def, in, &n);

	if (r != 0)
		return r;
	if (head + n + tail > CSM_MESSAGE_MAX)
		return CSM_ETOO_LARGE;
	return csm_buf_reserve(b, head + n + tail, ret);
}

int csm_frame_request(struct csm_buf *b, uint32_t msgid, const char *method, const struct csm_msgdef *def,
	const void *params)
{
	size_t len = strlen(method);
	uint8_t *start, *p;
	int r;

	if (len > METHOD_MAX)
		return CSM_ETOO_LARGE;
	r = frame_reserve(b, 2 + size_u64(msgid) + size_str_head(len) + len + 1, def, params, 0, &start);
	if (r != 0)
		return r;
	p = put_array(start, 4);
	p = put_u64(p, CSM_REQUEST);
	p = put_u64(p, msgid);
	p = put_str(p, method, len);
	p = put_array(p, 1);
	p = csm_msg_put(def, params, p);
	csm_buf_commit(b, (size_t)(p - start));
	return 0;
}

#define NIL 0xc0

static uint8_t *put_answer_head(uint8_t *p, uint32_t msgid)
{
	p = put_array(p, 4);
	p = put_u64(p, CSM_RESPONSE);
	return put_u64(p, msgid);
}

int csm_frame_result(struct csm_buf *b, uint32_t msgid, const struct csm_msgdef *def, const void *result)
{
	uint8_t *start, *p;
	int r = frame_reserve(b, 2 + size_u64(msgid) + 1, def, result, 0, &start);

	if (r != 0)
		return r;
	p = put_answer_head(start, msgid);
	*p++ = NIL;
	p = csm_msg_put(def, result, p);
	csm_buf_commit(b, (size_t)(p - start));
	return 0;
}

int csm_frame_result_room(struct csm_buf *b, uint32_t msgid, size_t n, uint8_t **ret)
{
	size_t head = 2 + size_u64(msgid) + 1;
	uint8_t *start, *p;
	int r;

	if (n > CSM_MESSAGE_MAX - head)
		return CSM_ETOO_LARGE;
	if (n == 0)
		return CSM_EINVALID;
	if ((r = csm_buf_reserve(b, head + n, &start)) != 0)
		return r;
	p = put_answer_head(start, msgid);
	*p++ = NIL;
	csm_buf_commit(b, head + n);
	*ret = p;
	return 0;
}

int csm_frame_result_raw(struct csm_buf *b, uint32_t msgid, struct csm_bin result)
{
	uint8_t *p;
	int r = csm_frame_result_room(b, msgid, result.n, &p);

	if (r == 0)
		memcpy(p, result.p, result.n);
	return r;
}

/* What may stand in `message`: the code's own text for none or one that is not UTF-8, and no more
 * than fits, cut between characters. */
static struct csm_str error_text(int code, const char *message)
{
	struct csm_str s = csm_str_of(message);

	if (s.p == NULL || !csm_utf8_valid(s.p, s.n))
		s = csm_str_of(csm_err_text(code));
	if (s.n > CSM_ERROR_TEXT_MAX) {
		s.n = CSM_ERROR_TEXT_MAX;
		while (s.n > 0 && ((uint8_t)s.p[s.n] & 0xc0) == 0x80)
			s.n--;
	}
	return s;
}

static int frame_error(struct csm_buf *b, uint32_t msgid, const struct csm_msg_error *e)
{
	uint8_t *start, *p;
	int r = frame_reserve(b, 2 + size_u64(msgid), CSM_DEF(error), e, 1, &start);

	if (r != 0)
		return r;
	p = put_answer_head(start, msgid);
	p = csm_msg_put(CSM_DEF(error), e, p);
	*p++ = NIL;
	csm_buf_commit(b, (size_t)(p - start));
	return 0;
}

int csm_frame_error(struct csm_buf *b, uint32_t msgid, int code, const char *message, uint32_t retry_after_ms)
{
	int wire = csm_err_on_wire(code);
	struct csm_msg_error e = {
		.code = {(uint64_t)wire, true},
		.name = csm_str_of(csm_err_name(wire)),
		.message = error_text(wire, message),
		.retryable = {csm_err_retryable(wire), true},
		.retry_after_ms = {retry_after_ms, retry_after_ms > 0},
	};

	return frame_error(b, msgid, &e);
}

int csm_frame_proof_required(struct csm_buf *b, uint32_t msgid, struct csm_bin nonce)
{
	struct csm_msg_error e = {
		.code = {CSM_EPROOF_REQUIRED, true},
		.name = csm_str_of(csm_err_name(CSM_EPROOF_REQUIRED)),
		.message = error_text(CSM_EPROOF_REQUIRED, NULL),
		.retryable = {csm_err_retryable(CSM_EPROOF_REQUIRED), true},
		.nonce = nonce,
	};

	return frame_error(b, msgid, &e);
}

int csm_frame_notify(struct csm_buf *b, const char *method, const struct csm_msgdef *def, const void *params)
{
	size_t len = strlen(method);
	uint8_t *start, *p;
	int r;

	if (len > METHOD_MAX)
		return CSM_ETOO_LARGE;
	r = frame_reserve(b, 2 + size_str_head(len) + len + 1, def, params, 0, &start);
	if (r != 0)
		return r;
	p = put_array(start, 3);
	p = put_u64(p, CSM_NOTIFICATION);
	p = put_str(p, method, len);
	p = put_array(p, 1);
	p = csm_msg_put(def, params, p);
	csm_buf_commit(b, (size_t)(p - start));
	return 0;
}
