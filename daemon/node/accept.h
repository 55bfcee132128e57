/* Accepting connections on the main thread and handing each to the loop with the fewest. */
#ifndef CSM_NODE_ACCEPT_H
#define CSM_NODE_ACCEPT_H

#include "daemon/node/loop.h"

struct acceptor {
	struct broker *b;
	int fd;
	enum csm_role role;
	bool paused; /* no descriptors left; tried again by acceptor_resume */
	struct event event;
};
void acceptor_start(struct acceptor *a, struct broker *b);
void acceptor_resume(struct acceptor *a);
void acceptor_stop(struct acceptor *a);
/* A connection of a fixed role, made by the supervisor. */
void accept_role(struct broker *b, int fd, enum csm_role role);

#endif
