/* What csm-ident keeps of root's rights, and the system calls that it needs. */
#ifndef CSM_IDENT_JAIL_H
#define CSM_IDENT_JAIL_H

#include <linux/openat2.h>
#include <stdbool.h>
#include <sys/types.h>
#include "libclient/base/err.h"

#define JAIL_SOCKET 3 /* the number of csmd's socket */

struct jail {
	int wake;                   /* a descriptor that is written; it, stderr and those below are never closed */
	const struct open_how *how; /* as look_init gives it: openat2 takes no other */
};

/* Become uid and gid with no rights but those to look at any process and to read any file; no way back, no core dumps,
 * its own system calls; only stderr and j->wake can be written, and no file can be made, emptied or opened to write.
 * uid (uid_t)-1: stay who we are. *full: all of it is in force. No Landlock: in a domain, the programs of others cannot
 * be looked at. */
CSM_MUST int jail_enter(uid_t uid, gid_t gid, const struct jail *j, bool *full);

#endif
