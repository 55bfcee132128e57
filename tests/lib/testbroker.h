/* A broker in the test's own process: the real loop, connections, dispatcher, handlers, store and back ends, with the
 * test as its supervisor and its clients on socketpairs. The loop runs only inside testbroker_run, on the caller's
 * thread; the store's writer and the workers have theirs. */
#ifndef TESTS_LIB_TESTBROKER_H
#define TESTS_LIB_TESTBROKER_H

#include "daemon/node/loop.h"

struct testbroker {
	struct broker b;
	struct loop *loop;
	char dir[128];
	int control;       /* the supervisor's end */
	const char *policy; /* what the next reload brings */
};

/* plugins: NULL-terminated. policy NULL: no file. Zero *t first. Returns 0 or a CSM_E*. */
CSM_MUST int testbroker_start(struct testbroker *t, const struct csm_plugin *const *plugins, const char *policy);
void testbroker_stop(struct testbroker *t);
/* A new connection of that role; the client's end. */
int testbroker_connect(struct testbroker *t, enum csm_role role);
/* Let the broker work until it has nothing to do and no operation is away, at most ms. False: time ran out. */
bool testbroker_run(struct testbroker *t, int ms);
/* Send one request of `method` and wait for its answer. 0 with *result decoded (struct of the method's response;
 * slices live in *answer until the next call), else the error's code; CSM_ECLOSED when the connection ends. */
CSM_MUST int testbroker_call(struct testbroker *t, int fd, const char *method, const void *params, struct csm_buf *answer,
	struct csm_pool *pool, void *result);

#endif
