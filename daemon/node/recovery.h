/* Recovery shares: a copy of the root key, under a random key that is shared out and kept nowhere. The copy is the pin
 * "recovery" of the store:
 *
 *   1 format: 1, 4 id of the set, 1 threshold, 1 shares, 8 created (big-endian), 24 nonce, 48 secretbox of the root key
 *
 * The secretbox's key is BLAKE2b of the first 15 bytes under the shared key. */
#ifndef CSM_NODE_RECOVERY_H
#define CSM_NODE_RECOVERY_H

#include "daemon/node/op.h"
#include "daemon/node/root.h"
#include "libclient/base/share.h"

#define RECOVERY_PIN "recovery"
#define RECOVERY_RECORD 87u

struct recovery_info {
	uint8_t set[CSM_SHARE_SET];
	uint8_t threshold, count;
	uint64_t created;
};
/* The set in force. CSM_ENOT_FOUND: there is none; CSM_ETAMPERED; CSM_ESTATE: store is NULL, not opened yet. Any thread. */
CSM_MUST int recovery_info(struct csm_store *store, struct recovery_info *ret);

/* A new set of info's threshold and count, whose id is drawn here: the copy, and info->count shares. CSM_EINVALID. */
CSM_MUST int recovery_make(const uint8_t root[static 32], struct recovery_info *info, uint8_t record[static RECOVERY_RECORD],
	struct csm_share *shares);
/* The root key by these shares. CSM_EINVALID with *why (static) and the index of the share that is meant, n for none. */
CSM_MUST int recovery_open(struct csm_bin record, const struct csm_share *shares, size_t n, uint8_t root[static 32],
	const char **why, size_t *which);

/* A recovery.restore on its way: made on a loop, done on the main thread. */
struct restore_secrets { /* in locked memory */
	struct csm_share shares[CSM_SHARES_MAX];
	struct csm_root_recovery rec;
};
struct restore {
	struct op op;
	struct restore_secrets *s;
	size_t n;
	bool accept_counter, changed;
	uint64_t lost;
	struct root_reseal seal;
	char why[240], object[96];
};
/* Loop thread: hand it to the main thread. CSM_EBUSY: one is on its way; CSM_ESHUTDOWN. */
CSM_MUST int recovery_post(struct broker *b, struct restore *w);
/* Main thread: the one that waits; NULL: none. */
struct restore *recovery_take(struct broker *b);
/* Main thread: by the shares to a recovered root key, sealed to the TPM that is there. w->why says what is wrong. */
CSM_MUST int recovery_prepare(struct broker *b, struct csm_store *opening, struct restore *w);
/* Main thread: back to its loop, which answers. */
void recovery_done(struct broker *b, struct restore *w, int r);
/* The broker stops: nobody takes what waits, or comes, any more. */
void recovery_stop(struct broker *b);

#endif
