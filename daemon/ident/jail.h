/* What csm-ident keeps of root's rights, and the system calls that it needs. */
#ifndef CSM_IDENT_JAIL_H
#define CSM_IDENT_JAIL_H

#include <sys/types.h>
#include "libclient/base/err.h"

/* Become uid and gid with no rights but those to look at any process and to read any file; no way back, no core dumps,
 * its own system calls; only stderr and the descriptor `wake` can be written. uid (uid_t)-1: stay who we are. *full:
 * all of it is in force. No Landlock: in a domain, the programs of others cannot be looked at. */
CSM_MUST int jail_enter(uid_t uid, gid_t gid, int wake, bool *full);

#endif
