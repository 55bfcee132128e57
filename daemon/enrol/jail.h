/* What is left to csm-enrol: the network, its channels, and the files of the name service. */
#ifndef CSM_ENROL_JAIL_H
#define CSM_ENROL_JAIL_H

#include <stdbool.h>
#include <sys/types.h>
#include "libclient/base/err.h"

/* Become uid and gid for good ((uid_t)-1: stay who we are), no core dumps, not to be traced, no file but those, none to be written,
 * sockets of IPv4 and IPv6 alone, no programs, no processes. *full: all of it is in force. While there is one thread. */
CSM_MUST int enrol_jail(uid_t uid, gid_t gid, bool *full);

#endif
