/* csm-server's listening sockets, and what it gives up once it has them. */
#ifndef CSM_CENTRAL_DOORS_H
#define CSM_CENTRAL_DOORS_H

#include "daemon/central/config.h"

struct doors {
	int tls, plain, local; /* -1: none */
};
/* As root, or as whoever has started it. What cannot be had is logged. */
CSM_MUST int doors_open(const struct central_config *c, struct doors *ret);
void doors_close(struct doors *d);

/* Root becomes config's user, an ordinary user stays what he is; *admin is who is the administrator at the local socket. Then no
 * core files, no tracing, only these folders, only the system calls of a server. config: the file that a reload reads. */
CSM_MUST int central_jail(const struct central_config *c, const char *config, uid_t *admin);

#endif
