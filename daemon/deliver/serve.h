/* csm-deliver's talk with csmd: all targets and how they stand, the one that is due, its end. While the hook of one runs, others
 * have their turn, up to DELIVERY_LANES at once. */
#ifndef CSM_DELIVER_SERVE_H
#define CSM_DELIVER_SERVE_H

#include "daemon/deliver/config.h"

#define DELIVERY_LANES 4u

struct delivery_server {
	int sock;    /* csmd's */
	int hooks;   /* of delivery_hooks_start, for what is no hook */
	int lane[DELIVERY_LANES]; /* likewise, for one hook each at a time */
	int state;   /* of delivery_state_open */
	int signals; /* a signalfd: SIGHUP (the configuration may be another one) and SIGTERM */
	const struct delivery_config *config;
	char config_error[DELIVERY_WHY]; /* "": the configuration is in force */
};
/* 0 when csmd is gone, or when everything is to begin anew: another configuration, other folders around the targets'. */
CSM_MUST int delivery_serve(struct delivery_server *s);

#endif
