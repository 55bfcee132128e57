/* Framing: where one message ends on a stream, and its MessagePack-RPC envelope. */
#ifndef CSM_WIRE_FRAME_H
#define CSM_WIRE_FRAME_H

#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "libclient/wire/msg.h"

/* The bounds of the first message in p[0..n): its length in *ret when whole and within the
 * limits (size, depth, counts against the bytes that could hold them). CSM_EBUSY: more bytes are
 * needed (*ret is at least how many in all, a lower bound: no need to ask before they are there).
 * CSM_ETOO_LARGE (size, count or depth, told as soon as it is certain), CSM_EPROTOCOL (no array of
 * 3 or 4 values; a float, an ext or the byte 0xc1, which csm's messages do not have): the stream
 * cannot be used any more. Strings are not looked into. No allocation. */
CSM_MUST int csm_scan(const uint8_t *p, size_t n, size_t *ret);

/* The same in pieces, each byte looked at once however small the pieces are: csm_scan begins at the
 * first byte on each call, and a message of very many small values that dribbles in would cost the
 * square of its size. For a connection's partial message. */
struct csm_scanner {
	size_t pos;                   /* whole values end here */
	uint64_t owed;                /* values that must still come */
	uint32_t left[CSM_DEPTH_MAX]; /* of them in each open container */
	uint32_t depth;
};
void csm_scanner_init(struct csm_scanner *s);
/* p is the message's first byte, as on the calls before (it may have moved), n all that is there
 * now. Results as csm_scan. */
CSM_MUST int csm_scanner_run(struct csm_scanner *s, const uint8_t *p, size_t n, size_t *ret);

/* The msgid of a request whose envelope could be read though the message is bad; false if not. */
bool csm_scan_msgid(const uint8_t *p, size_t n, uint32_t *ret);

enum csm_frame_type { CSM_REQUEST = 0, CSM_RESPONSE = 1, CSM_NOTIFICATION = 2 };
struct csm_frame {
	enum csm_frame_type type;
	uint32_t msgid;        /* request, response */
	struct csm_str method; /* request, notification */
	struct csm_bin params; /* request, notification: the bytes of the one map in params */
	struct csm_bin error;  /* response: the bytes of the error map, p NULL when nil */
	struct csm_bin result; /* response: the bytes of result */
};
/* One whole message as csm_scan measured it; nothing may be left over. An empty params array
 * counts as an empty map. Slices borrow p. CSM_EPROTOCOL. On bytes that csm_scan has not passed the
 * slices are within p, but params and result are only as well formed as their decoder finds them. */
CSM_MUST int csm_frame_parse(const uint8_t *p, size_t n, struct csm_frame *ret);

/* Append a request, a response with a result, or a response with an error. On failure the
 * buffer is as before. `params`/`result` are structures of `def`. */
CSM_MUST int csm_frame_request(struct csm_buf *b, uint32_t msgid, const char *method,
	const struct csm_msgdef *def, const void *params);
CSM_MUST int csm_frame_result(struct csm_buf *b, uint32_t msgid, const struct csm_msgdef *def, const void *result);
/* A response whose result is already encoded as a map. */
CSM_MUST int csm_frame_result_raw(struct csm_buf *b, uint32_t msgid, struct csm_bin result);
/* The same for a result that the caller writes himself: all n bytes, from *ret, before b is used again. */
CSM_MUST int csm_frame_result_room(struct csm_buf *b, uint32_t msgid, size_t n, uint8_t **ret);
/* message NULL or not UTF-8: the code's own text; cut at 512 bytes. retry_after_ms 0: none. */
CSM_MUST int csm_frame_error(struct csm_buf *b, uint32_t msgid, int code, const char *message, uint32_t retry_after_ms);
/* CSM_EPROOF_REQUIRED with what `prove` has to echo. */
CSM_MUST int csm_frame_proof_required(struct csm_buf *b, uint32_t msgid, struct csm_bin nonce);
/* Append a notification. */
CSM_MUST int csm_frame_notify(struct csm_buf *b, const char *method, const struct csm_msgdef *def, const void *params);

#endif
