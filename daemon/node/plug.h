/* The broker as host of back ends in csm-plughost: their channels, and what they may ask for. */
#ifndef CSM_NODE_PLUG_H
#define CSM_NODE_PLUG_H

#include "daemon/node/host.h"
#include "plugins/remote/remote.h"

/* Make *a the host of the back end with this number in the configuration. Before the sandbox. */
void plug_init(struct host_arg *a, unsigned number);
unsigned plug_number(const struct plug *p);
/* A channel that the supervisor hands over, CTL_CONN. Main thread. */
void plug_take(struct broker *b, const struct control_msg *msg);

/* Now and then, on a thread that may call the back end: a PIN that was refused may have become another. */
void plug_look(struct host_arg *a);

#endif
