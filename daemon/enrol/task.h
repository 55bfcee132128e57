/* One job of csmd's, from enrol.next to enrol.done. Each thread of csm-enrol does one at a time. */
#ifndef CSM_ENROL_TASK_H
#define CSM_ENROL_TASK_H

#include "libclient/rest/rest.h"
#include "plugins/remote/channel.h"

#define TASK_CHANNEL 3 /* the number of the first channel */

struct task {
	struct csm_channel *ch;
	struct csm_buf message;            /* in which the job's slices lie */
	struct csm_msg_enrol_job job;
	int64_t deadline_ms;
	EVP_PKEY *key;                     /* of the client, where the job has a tls_chain */
	uint8_t *basic;                    /* USER:PASSWORD, of `est`; csm_lock_alloc's */
	size_t basic_n;
	struct csm_bin pinned;             /* the root that root_sha256 names, in `seen` */
	struct csm_buf seen;
	int sign_failed;                   /* what csmd said in place of a signature */
	bool answered;                     /* a server has been spoken to: no other one is tried */
	/* what came of it */
	char why[CSM_REST_WHY_MAX + 1];
	bool retry;
	uint32_t retry_after_s;
	struct csm_buf chain, anchors;
};

/* A protocol: what it does with a connection to a server that is trusted. CSM_EUNSUPPORTED: not what it has. */
struct protocol {
	const char *name;
	/* Where the CA's certificates are told to everyone. */
	CSM_MUST int (*cacerts)(struct task *t, struct csm_rest *rest, struct csm_buf *out);
	CSM_MUST int (*run)(struct task *t, struct csm_rest *rest);
	bool basic; /* its token is sent by HTTP Basic */
};
extern const struct protocol protocol_cms, protocol_est;

/* Serve jobs until the channel ends; CSM_ECLOSED then, or what else it ended by. */
CSM_MUST int task_serve(struct csm_channel *ch);

/* ---- for the protocols ---- */
/* What a call said, for the job's end; err is returned. */
int task_note(struct task *t, const struct csm_rest_res *res, int err);
/* An end of our own making; err is returned. */
int task_fail(struct task *t, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool task_is(const struct task *t, const char *what);
/* What the server is trusted by, and where chains are to end. */
struct csm_bin task_anchors(const struct task *t);
/* The certificates of an answer, put in order into t->chain; `more` as certs_order has it. */
CSM_MUST int task_take_chain(struct task *t, struct csm_bin certs, struct csm_bin more);

#endif
