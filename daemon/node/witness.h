/* Now and then the back end that has an attestation key signs the end of the audit log. */
#ifndef CSM_NODE_WITNESS_H
#define CSM_NODE_WITNESS_H

#include "daemon/node/broker.h"

/* The main thread, each second: when it is due, the back end's own thread signs, and the log's writes the line. */
void witness_tick(struct broker *b);
/* Once more, after csm_audit_stop, while the back ends still run: what was written since is vouched for, up to the end. Waits. */
void witness_last(struct broker *b);

#endif
