/* One channel between the broker and csm-plughost: whole messages of plughost.def over a stream socket, one request at a
 * time, within a deadline. Used on both sides; one thread at a time. What passes is kept in locked memory and wiped. */
#ifndef CSM_REMOTE_CHANNEL_H
#define CSM_REMOTE_CHANNEL_H

#include "libclient/wire/frame.h"

enum csm_plug_method {
#define X(sym, name, req, res) CSM_PLUG_##sym,
#include "proto-spec/plughost.def"
#undef X
	CSM_PLUG__COUNT
};
struct csm_plug_row {
	const char *name;
	const struct csm_msgdef *request, *response;
};
extern const struct csm_plug_row csm_plug_rows[CSM_PLUG__COUNT];
/* CSM_PLUG__COUNT for a name that is none. */
enum csm_plug_method csm_plug_find(struct csm_str name);

struct csm_channel {
	int fd; /* blocking */
	struct csm_buf in, out;
	size_t taken;          /* bytes of the message that was given out last */
	struct csm_scanner scanner; /* of the one that is coming */
	uint32_t next_msgid;
	int64_t recv_ms;       /* SO_RCVTIMEO as it is set; 0: waits for ever */
	struct csm_pool pool;  /* of the message that was decoded last */
};
void csm_channel_init(struct csm_channel *c, int fd);
void csm_channel_free(struct csm_channel *c); /* closes fd */

int64_t csm_channel_now_ms(void); /* monotonic */

/* The next message: one whole, within the wire's limits. deadline_ms: on the clock above, 0 for none. Slices live until the next
 * receive. CSM_ECLOSED, CSM_ETIMEOUT, CSM_EPROTOCOL, CSM_ENOMEM, CSM_ESYSTEM: the channel cannot be used any more.
 * passed: where a descriptor that came along goes (-1: none), or NULL: none is taken. */
CSM_MUST int csm_channel_recv(struct csm_channel *c, int64_t deadline_ms, struct csm_frame *ret, int *passed);
/* The same without waiting: CSM_EBUSY while it is not whole. */
CSM_MUST int csm_channel_poll(struct csm_channel *c, struct csm_frame *ret);
/* Nothing came that nobody has asked for. */
bool csm_channel_quiet(const struct csm_channel *c);
/* The same of the socket, too: else CSM_EPROTOCOL, or CSM_ECLOSED at its end, or CSM_ESYSTEM. */
CSM_MUST int csm_channel_idle(const struct csm_channel *c);
#define CSM_CHANNEL_NO_WAIT (-1)
/* Send what is in c->out, and empties it. The other side reads at once, or has died. deadline_ms CSM_CHANNEL_NO_WAIT: what does
 * not go at once is CSM_ETIMEOUT; part of it may have gone. */
CSM_MUST int csm_channel_send(struct csm_channel *c, int64_t deadline_ms, int pass_fd);
/* Put a request of this row into c->out; *msgid is what its answer bears. A row without an answer is a notification. */
CSM_MUST int csm_channel_put(struct csm_channel *c, enum csm_plug_method what, const void *params, uint32_t *msgid);
/* The body of a message that was received, strictly. */
CSM_MUST int csm_channel_decode(struct csm_channel *c, const struct csm_msgdef *def, struct csm_bin body, void *ret);
/* The CSM_E* of an error body; CSM_EPROTOCOL for one that cannot be read or names no error. */
int csm_channel_error(struct csm_channel *c, struct csm_bin body);

#endif
