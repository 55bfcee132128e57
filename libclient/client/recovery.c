/* The root key's calls, on the administrator's socket. */
#include "libclient/client/internal.h"
#include "libclient/base/share.h"

int csm_reseal(struct csm *c, struct csm_reply **ret)
{
	struct csm_msg_empty req = {0};

	return client_call_new(c, CSM_M_RESEAL, &req, ret);
}

int csm_recovery_status(struct csm *c, struct csm_reply **ret)
{
	struct csm_msg_empty req = {0};

	return client_call_new(c, CSM_M_RECOVERY_STATUS, &req, ret);
}

int csm_recovery_create(struct csm *c, unsigned shares, unsigned threshold, struct csm_reply **ret)
{
	struct csm_msg_recovery_create_req req = {.shares = {shares, true}, .threshold = {threshold, true}};

	return client_call_new(c, CSM_M_RECOVERY_CREATE, &req, ret);
}

int csm_recovery_restore(struct csm *c, const char *const *shares, size_t n, bool accept_counter, struct csm_reply **ret)
{
	struct csm_str v[CSM_SHARES_MAX];
	struct csm_msg_recovery_restore_req req = {.shares = {v, n}, .accept_counter = {accept_counter, accept_counter}};

	if (n > CSM_SHARES_MAX)
		return client_err(CSM_EINVALID, "more than %u shares", CSM_SHARES_MAX);
	for (size_t i = 0; i < n; i++)
		v[i] = csm_str_of(shares[i]);
	return client_call_new(c, CSM_M_RECOVERY_RESTORE, &req, ret);
}
