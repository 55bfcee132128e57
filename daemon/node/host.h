/* The broker as host of its back ends: loading, opening, what they may ask for. */
#ifndef CSM_NODE_HOST_H
#define CSM_NODE_HOST_H

#include "daemon/node/broker.h"

/* Load the objects of all back ends that are to be there. Before the sandbox. */
CSM_MUST int host_load_backends(struct broker *b);
/* Open what can be opened; choose the preferred one. pins: where small records are kept. Before threads. */
CSM_MUST int host_open_backends(struct broker *b, struct csm_store *pins);
/* Once a second, main thread: try again what is not open, look at what is. */
void host_tick(struct broker *b);

#endif
