/* What is left to a foreign library: its own user, its own files, and the system calls that such libraries need. */
#ifndef CSM_PLUGHOST_JAIL_H
#define CSM_PLUGHOST_JAIL_H

#include <stdbool.h>
#include <sys/types.h>
#include "libclient/base/err.h"

#define PLUGHOST_PATHS_MAX 32u

enum jail_network {
	JAIL_NO_SOCKETS,    /* no socket can be made at all */
	JAIL_LOCAL_SOCKETS, /* Unix sockets only */
	JAIL_NETWORK,
};
struct jail {
	uid_t uid; /* (uid_t)-1: stay who we are */
	gid_t gid;
	enum jail_network network;
	const char *read[PLUGHOST_PATHS_MAX + 1]; /* files and folders, NULL ends; what is not there is passed over */
	const char *write[PLUGHOST_PATHS_MAX + 1];
};

/* Drop to uid and gid for good, no new privileges, no core dumps, not to be traced, only those files (and the system's
 * libraries), no execve, no processes, no sockets but those. *full: all of it is in force. */
CSM_MUST int plughost_jail(const struct jail *j, bool *full);

#endif
