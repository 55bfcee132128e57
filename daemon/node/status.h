/* What the daemon tells of itself. */
#ifndef CSM_NODE_STATUS_H
#define CSM_NODE_STATUS_H

#include "daemon/node/loop.h"

/* What a status answer points to. */
struct status_space {
	struct csm_msg_backend_status backends[BROKER_BACKENDS_MAX];
	struct csm_str algs[BROKER_BACKENDS_MAX][CSM_ALG__COUNT];
	struct csm_backend_health health[BROKER_BACKENDS_MAX];
	char storage_key[BROKER_BACKENDS_MAX][CSM_STORAGE_PEM_MAX];
	char storage_name[BROKER_BACKENDS_MAX][69];
	struct csm_msg_tpm_status tpm;
	struct csm_msg_store_status store;
	struct csm_msg_ident_status ident;
	struct csm_str notes[CSM_SANDBOX_NOTES];
	struct csm_str warnings[16];
	char text[16][256];
	char manufacturer[8];
};

/* totals: for the administrator. */
void status_fill(struct broker *b, bool totals, struct csm_pool *pool, struct status_space *space,
	struct csm_msg_status_res *ret);
/* Where the policy names an executable: csm-ident, and for everyone a warning when it is away. After status_fill. */
void status_ident(struct broker *b, bool totals, struct status_space *space, struct csm_msg_status_res *ret);
/* For the administrator: the targets of csm-deliver, and a warning where its configuration is at fault. After status_fill. */
void status_deliver(struct broker *b, bool totals, struct csm_pool *pool, struct status_space *space,
	struct csm_msg_status_res *ret);
CSM_MUST int stats_fill(struct broker *b, bool totals, struct csm_pool *pool, struct csm_msg_stats_res *ret);

#endif
