/* The head of an HTTP/1 request, read strictly before anything else sees it, and said again in one form: two readers who take
 * the same bytes for different requests are how requests are smuggled. No I/O. */
#ifndef CSM_SVC_HTTP_HEAD_H
#define CSM_SVC_HTTP_HEAD_H

#include "libclient/base/buf.h"
#include "libclient/base/name.h"

struct http_field {
	struct csm_str name, value;
};
/* Slices into what was read. */
struct http_head {
	struct csm_str method, path, query; /* query.p NULL: there is none */
	struct csm_str type;                /* Content-Type, without parameters; p NULL: none */
	struct http_field field[64];
	size_t n_fields;
	unsigned minor;                     /* HTTP/1.minor */
	bool close;                         /* the client wants no further answer on this connection */
	bool expect;                        /* "100-continue" before it sends the body */
	bool authorization;
	bool chunked, has_length;
	uint64_t length;
};

/* Bytes of the head that p begins with, its empty line and all; 0: not whole yet. *seen is where to go on, 0 at first. A line
 * that does not end as it should ends the head there: http_head_read will tell. */
size_t http_head_size(const char *p, size_t n, size_t *seen);
/* 0, or the status to refuse it with and *why (static). *ret has at least what was understood before. */
int http_head_read(const char *p, size_t n, struct http_head *ret, const char **why);
/* The same request, as a reader of any kind understands it in one way: no framing but a length, nothing that is about this
 * connection only. */
CSM_MUST int http_head_write(const struct http_head *h, size_t body, struct csm_buf *out);

/* The chunked coding, decoded as it comes. */
struct http_chunks {
	enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER, CHUNK_DONE } state;
	uint64_t left;  /* of the chunk */
	size_t line;    /* bytes of trailers so far */
};
/* Takes *n bytes of p at most and says in *n how many it took; data(arg, ...) has what they decode to, and ends it by a status.
 * 0 (more is needed, or state is CHUNK_DONE), or the status to refuse it with. A line that is not whole is not taken. */
int http_chunks_read(struct http_chunks *c, const char *p, size_t *n, int (*data)(void *arg, const char *p, size_t n), void *arg);

#endif
