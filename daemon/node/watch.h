/* Who waits for certificates to change: cert.watch. What has changed is kept in a ring with numbers; requests wait on their
 * loops. */
#ifndef CSM_NODE_WATCH_H
#define CSM_NODE_WATCH_H

#include <pthread.h>
#include "daemon/node/loop.h"

#define CHANGES_KEPT 1024u

struct changes {
	pthread_mutex_t lock;
	uint64_t first, version; /* of the oldest that is kept, less one; of the newest. A start begins anew, far from any before */
	struct change_note {
		char text[CSM_KEYREF_MAX + 1]; /* "NS:KEY" */
	} ring[CHANGES_KEPT];
};

CSM_MUST int changes_new(struct changes **ret);
void changes_free(struct changes *c); /* NULL is a no-op */
/* The certificate of a key is another one, or none. Any thread. */
void changes_note(struct broker *b, struct csm_str ns, struct csm_str name);
/* Once a second, and while the loop drains: ends those whose time is over, or whose client is gone. */
void watch_tick(struct loop *l);
/* The loop has another policy: who may not watch any more is told so. */
void watch_judge(struct loop *l);

#endif
