/* What the files of libcsm share. */
#ifndef CSM_CLIENT_INTERNAL_H
#define CSM_CLIENT_INTERNAL_H

#include <limits.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <sys/un.h>
#include "libclient/include/csm/csm.h"
#include "libclient/base/buf.h"
#include "libclient/wire/frame.h"
#include "libclient/wire/msg.h"

#define CLIENT_TIMEOUT_MS 10000u
#define CLIENT_SLOTS 64u
#define CLIENT_KEEP_MIN 8u
#define CLIENT_POOL_MAX (4u * 1024u * 1024u) /* decoded arrays of one reply */
/* a whole message, the room for one more read, and the spare byte of reply_parse */
#define CLIENT_BUF_MAX (CSM_MESSAGE_MAX + 64u * 1024u)
#define CLIENT_REQUEST_ID_LEN 32u            /* 16 random bytes as hex digits */

#define CLIENT_NO_UID UINT32_MAX

/* How a daemon is reached and which listener is trusted. */
struct settings {
	struct sockaddr_un addr;
	uint32_t timeout_ms;
	uint32_t trust_uid;
	bool trust_overflow;
};

/* One connection, and who made it: another process or another identity never uses it again. */
struct conn {
	int fd;
	uint32_t msgid;
	pid_t pid;
	uid_t euid;
	gid_t egid;
	uint32_t wait_ms; /* SO_RCVTIMEO */
	uint64_t used;    /* when the last exchange ended */
};

/* A place for a connection. A thread owns a slot from slot_take to slot_give. */
struct slot {
	_Atomic int state; /* enum slot_state */
	_Atomic int fd;    /* the connection's, for a child that has to drop it; -1 */
	struct conn conn;
};
enum slot_state { SLOT_FREE, SLOT_IDLE, SLOT_BUSY };

struct csm {
	struct settings set;
	unsigned keep;
	_Atomic pid_t owner; /* the process whose connections these are; negative while a child resets them */
	struct slot slots[CLIENT_SLOTS];
};

/* A decoded answer. buf holds the bytes that msg points into. */
struct csm_reply {
	const struct csm_msgdef *def;
	void *msg;
	bool matched; /* it answers the request: the connection is in order */
	struct csm_buf buf;
	struct csm_pool pool;
};

/* A deadline on the monotonic clock in nanoseconds; UINT64_MAX: none. */
typedef uint64_t deadline_t;
uint64_t client_now(void);
deadline_t client_deadline(uint32_t timeout_ms);
/* Milliseconds left, rounded up, at most INT_MAX; -1 without a deadline. */
int client_left_ms(deadline_t d);

/* ---- error.c: the thread's last error ---- */
void client_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void client_note_errno(const char *what); /* "what: text of errno" */
/* Each notes the text and gives r back, for the caller to return. */
static inline int client_same(int r)
{
	return r;
}
#define client_err(r, ...) client_same((client_note(__VA_ARGS__), (r)))
static inline int client_err_plain(int r) /* with the code's own text */
{
	client_note("%s", csm_err_text(r));
	return r;
}
static inline int client_err_errno(int r, const char *what)
{
	client_note_errno(what);
	return r;
}
/* An error map as csmd sent it: its code, with its text kept. */
int client_err_decode(struct csm_bin error);
void client_err_clear(void);
/* What the last error asks to be proven; n 0: nothing. */
#define CLIENT_NONCE_MAX 32u
struct client_nonce {
	size_t n;
	uint8_t b[CLIENT_NONCE_MAX];
};
struct client_nonce client_err_nonce(void);

/* ---- conn.c: one connection ---- */
CSM_MUST int conn_open(struct conn *conn, const struct settings *set, deadline_t d);
/* For an event loop: 0 connected, CSM_EBUSY when the listener's queue is full (try again later). */
CSM_MUST int conn_open_nonblock(struct conn *conn, const struct settings *set);
void conn_close(struct conn *conn);
bool conn_same_identity(const struct conn *conn);
/* The process that made it, and the same identity. */
bool conn_mine(const struct conn *conn);
/* Nothing has come in on an idle connection, and it is not at its end; taken for granted shortly after
 * its last use, since a lost connection is noticed in any case. */
bool conn_quiet(const struct conn *conn);
/* Send the request in out, receive the message that answers it into in (see reply_parse).
 * CSM_ECLOSED when the connection broke: a repeat on another one may help. */
CSM_MUST int conn_exchange(struct conn *conn, struct csm_buf *out, struct csm_buf *in, deadline_t d);

/* ---- handle.c ---- */
/* A connection for this thread; *ret is to be given back. fresh: not one that has waited idle. */
struct lease {
	struct slot *slot; /* NULL: conn is the lease's own */
	struct conn own;
	struct conn *conn;
};
CSM_MUST int lease_take(struct csm *c, struct lease *l, bool fresh, deadline_t d);
/* good: the connection can be used again. */
void lease_give(struct csm *c, struct lease *l, bool good);

/* ---- call.c ---- */
/* Call m with the structure msg of m->request. A missing request_id is filled in (msg is changed
 * until the return). *rep is whole on success, and to be cleared with reply_clear. */
CSM_MUST int client_call(struct csm *c, enum csm_method_id m, void *msg, struct csm_reply *rep);
/* The same with an answer on the heap; ret may be NULL. */
CSM_MUST int client_call_new(struct csm *c, enum csm_method_id m, void *msg, struct csm_reply **ret);
/* The same for what waits for others than csmd: at least so long, whatever the handle's time. */
CSM_MUST int client_call_long(struct csm *c, enum csm_method_id m, void *msg, uint32_t least_ms, struct csm_reply **ret);
/* One exchange on a given connection, without a second try; where policy names an executable, what it asks for is
 * proven first. */
CSM_MUST int client_call_on(struct conn *conn, const struct csm_method *m, const void *msg, deadline_t d,
	struct csm_reply *rep);
/* Required fields that are absent: CSM_EINVALID. */
CSM_MUST int client_check(const struct csm_msgdef *def, const void *msg);
/* Whether a method's call may be repeated on another connection. */
bool client_repeatable(const struct csm_method *m);
/* Where msg has an empty request_id: fill it from id, which must outlive msg's use. */
void client_request_id(const struct csm_method *m, void *msg, char id[static CLIENT_REQUEST_ID_LEN + 1]);

/* ---- keys.c ---- */
/* The rule of csm.h for buffers. */
CSM_MUST int client_give(struct csm_bin from, void *out, size_t *len);
/* A value that is present, empty ones too. */
struct csm_bin client_bin(const void *p, size_t n);

/* Work in steps, on a connection of its own. */
struct client_stream {
	struct csm *csm;
	struct lease lease;
	pid_t pid;
	uint64_t stream;
	bool open; /* the daemon holds state for it */
	bool good; /* the connection has answered all so far */
};
/* The first step; on failure there is nothing to close. The caller takes the stream's number from *rep. */
CSM_MUST int client_stream_open(struct client_stream *s, struct csm *c, enum csm_method_id m, const void *msg,
	struct csm_reply *rep);
/* On failure *rep is cleared. */
CSM_MUST int client_stream_step(struct client_stream *s, enum csm_method_id m, const void *msg, struct csm_reply *rep);
void client_stream_close(struct client_stream *s);

/* csm_sign_finish, with the whole answer. */
CSM_MUST int client_sign_finish(struct csm_sign *s, struct csm_reply **ret);

/* ---- request.c ---- */
const struct csm_method *request_method(const struct csm_request *req);
/* The request's structure, its arrays from the pool; borrows req. */
CSM_MUST int request_build(const struct csm_request *req, struct csm_pool *pool, void **ret);

/* ---- reply.c ---- */
void reply_init(struct csm_reply *rep, const struct csm_method *m);
/* Wipe and give back all but the structure itself. */
void reply_clear(struct csm_reply *rep);
/* rep->buf holds one whole message: decode it. The daemon's error, or CSM_EPROTOCOL. */
CSM_MUST int reply_parse(struct csm_reply *rep, const struct csm_method *m, uint32_t msgid);
/* Move to the heap; rep is empty afterwards. On failure it is cleared. */
CSM_MUST int reply_take(struct csm_reply *rep, struct csm_reply **ret);
/* A field of def, NULL if it has none of this name. */
const struct csm_field *client_field(const struct csm_msgdef *def, const char *name);
/* Buffer for what may be secret: a cached locked block where one is free. */
void client_buf_init(struct csm_buf *b, bool secret);
void client_buf_free(struct csm_buf *b);

static inline void *field_at(const struct csm_field *f, void *msg)
{
	return (uint8_t *)msg + f->off;
}
static inline const void *field_of(const struct csm_field *f, const void *msg)
{
	return (const uint8_t *)msg + f->off;
}

#endif
