/* A broker in the test's own process: the real loop, connections, dispatcher, handlers, store and back ends, with the
 * test as its supervisor and its clients on socketpairs. The loop runs only inside testbroker_run, on the caller's
 * thread; the store's writer and the workers have theirs. */
#ifndef TESTS_LIB_TESTBROKER_H
#define TESTS_LIB_TESTBROKER_H

#include "daemon/node/accept.h"

struct testbroker {
	struct broker b; /* first */
	struct loop *loop;
	char dir[128];
	int control;        /* the supervisor's end */
	const char *policy; /* what the next reload brings */
	const char *config; /* more of csmd.yaml; set before the start, NULL: nothing */
	struct csm_bin anchors, token; /* of the first enrolment profile, likewise */
	const char *script; /* of the back end fake; set before the start, NULL: empty */
	struct acceptor public, admin;
	bool listening;
};

/* plugins: NULL-terminated. policy NULL: no file. Zero *t first. Returns 0 or a CSM_E*. */
CSM_MUST int testbroker_start(struct testbroker *t, const struct csm_plugin *const *plugins, const char *policy);
void testbroker_stop(struct testbroker *t);
/* A new connection of that role; the client's end. */
int testbroker_connect(struct testbroker *t, enum csm_role role);
/* The same through a listening socket and an acceptor, as uid (root only); the caller's thread is root again after.
 * The other end is non-blocking. -1 with errno. */
int testbroker_connect_as(struct testbroker *t, enum csm_role role, uid_t uid);
/* One turn of the loop; what is away stays away. */
void testbroker_step(struct testbroker *t);
/* Let the broker work until it has nothing to do and no operation is away, at most ms. False: time ran out. */
bool testbroker_run(struct testbroker *t, int ms);
/* Send one request of `method` and wait for its answer. 0 with *result decoded (struct of the method's response;
 * slices live in *answer until the next call), else the error's code; CSM_ECLOSED when the connection ends. */
CSM_MUST int testbroker_call(struct testbroker *t, int fd, const char *method, const void *params, struct csm_buf *answer,
	struct csm_pool *pool, void *result);

/* What a client reads: the bytes of several answers, one after the other. */
struct testreader {
	struct csm_buf buf;
	size_t used; /* of the answer given out last */
	struct csm_pool pool;
};
struct testanswer {
	uint32_t msgid;
	int error; /* 0: result is there */
	bool retryable;
	uint64_t retry_after_ms;
	char message[513];
	struct csm_bin nonce;     /* likewise */
	struct csm_bin result; /* valid until the next answer */
};
void testreader_init(struct testreader *r);
void testreader_free(struct testreader *r);
/* Send bytes while the broker works. CSM_ECLOSED when the other side is gone, CSM_EBUSY when it takes no more. */
CSM_MUST int testbroker_send(struct testbroker *t, int fd, const void *p, size_t n);
CSM_MUST int testbroker_request(struct testbroker *t, int fd, uint32_t msgid, const char *method, const void *params);
/* The next answer; CSM_ECLOSED at the end, CSM_ETIMEOUT after ms, CSM_EPROTOCOL when it is none. */
CSM_MUST int testbroker_answer(struct testbroker *t, int fd, struct testreader *r, int ms, struct testanswer *ret);

#endif
