/* A csm-plughost that an attacker inside the library has taken over, in a thread of the test's: it does as it should until it is
 * asked for what it lies at. And a host for the remote back end over it, which starts the next one when that is cut off. */
#ifndef TESTS_LIB_PLUGPEER_H
#define TESTS_LIB_PLUGPEER_H

#include <pthread.h>
#include <stdatomic.h>
#include "plugins/remote/channel.h"
#include "plugins/remote/remote.h"

struct peer;
typedef void deed(struct peer *p, uint32_t msgid);
struct peer {
	struct csm_channel c; /* the first channel; nobody asks on the others */
	int others[CSM_PLUG_CHANNELS];
	enum csm_plug_method at; /* when asked this, it does */
	deed *bad;               /* this; NULL: never */
	bool other_instance, other_abi, other_name, no_hello;
	bool halves;             /* not SERIAL, a small buffer to it, and much time */
	atomic_int step;         /* of the two sides, where they wait for each other */
	atomic_bool gave_up;     /* it waited for a step that did not come */
	unsigned told;           /* notifications */
	pthread_t thread;
};

struct peer_host {
	struct csm_plugin_host host;
	struct peer peer;
	struct peer next; /* how the next process is: at, bad, ... */
	int fd[CSM_PLUG_CHANNELS];
	size_t given;
	bool running;
	unsigned starts, resets, kept, secrets, recalls;
	char line[513]; /* logged last */
	const char *ms;
};
void peer_host_init(struct peer_host *h);
/* Wait for its end; the back end is closed, or never took the channels. */
void peer_end(struct peer_host *h);

/* Of the peer's thread. */
extern const struct csm_msg_plug_state peer_good_state;
void peer_hello(struct peer *p);
void peer_answer(struct peer *p, uint32_t msgid, const struct csm_msg_plug_result *m);
void peer_answer_state(struct peer *p, uint32_t msgid, const struct csm_msg_plug_state *m);
void peer_answer_well(struct peer *p, enum csm_plug_method what, uint32_t msgid);

#endif
