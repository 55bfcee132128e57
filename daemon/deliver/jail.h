/* What csm-deliver keeps of root's rights. */
#ifndef CSM_DELIVER_JAIL_H
#define CSM_DELIVER_JAIL_H

#include "daemon/deliver/config.h"

/* Root with CAP_CHOWN, CAP_DAC_OVERRIDE and CAP_FOWNER only (as an ordinary user: nothing more than before); no sockets, no
 * programs, no processes; only the folders around those of the targets and the state's can be opened. *full: all of it is
 * in force. */
CSM_MUST int delivery_jail(const struct delivery_config *c, bool *full);
/* The folder around a target's; CSM_ETOO_LARGE. */
CSM_MUST int delivery_around(const struct delivery_target *t, char *ret, size_t cap);

#endif
