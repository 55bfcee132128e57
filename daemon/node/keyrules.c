#include "daemon/node/keyrules.h"
#include <string.h>

#define POOL_MAX (16u * 1024u)

int keyrules_pack(const struct csm_msg_issuer_rules *rules, struct csm_buf *out)
{
	struct csm_msg_issuer_rules kept = *rules;

	kept.path_len.set = true; /* what is not said is 0, also for a later version */
	return csm_msg_encode(CSM_DEF(issuer_rules), &kept, out);
}

static void keep(struct csm_str *to, struct csm_strs *list)
{
	if (list->n > 0)
		memcpy(to, list->v, list->n * sizeof(*to));
	list->v = to;
}

int keyrules_unpack(struct csm_bin packed, struct keyrules *ret)
{
	struct csm_pool pool;
	struct csm_str bad;
	int r;

	csm_pool_init(&pool, POOL_MAX);
	/* Rules that this version does not know would not be kept: such a key is not used. */
	r = csm_msg_decode(CSM_DEF(issuer_rules), packed, CSM_UNKNOWN_REFUSE, &pool, &ret->rules, &bad);
	if (r == 0) {
		keep(ret->names, &ret->rules.permitted);
		keep(ret->names + CSM_ISSUER_NAMES_MAX, &ret->rules.excluded);
	}
	csm_pool_free(&pool);
	return r == 0 || r == CSM_ENOMEM ? r : CSM_ETAMPERED;
}
