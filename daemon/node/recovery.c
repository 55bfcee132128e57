#include "daemon/node/recovery.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/svc/log.h"
#include "daemon/svc/shares.h"
#include "libclient/base/lockmem.h"

#define HEAD (1u + CSM_SHARE_SET + 2u + 8u)
#define BOX (crypto_secretbox_MACBYTES + 32u)

_Static_assert(RECOVERY_RECORD == HEAD + crypto_secretbox_NONCEBYTES + BOX, "as recovery.h says");

static int parse(struct csm_bin rec, struct recovery_info *ret)
{
	struct recovery_info info = {.created = 0};

	if (rec.n != RECOVERY_RECORD || rec.p[0] != 1)
		return CSM_ETAMPERED;
	memcpy(info.set, rec.p + 1, CSM_SHARE_SET);
	info.threshold = rec.p[5];
	info.count = rec.p[6];
	for (unsigned i = 7; i < HEAD; i++)
		info.created = info.created << 8 | rec.p[i];
	if (info.threshold < 2 || info.threshold > info.count || info.count > CSM_SHARES_MAX)
		return CSM_ETAMPERED;
	*ret = info;
	return 0;
}

int recovery_info(struct csm_store *store, struct recovery_info *ret)
{
	uint8_t record[RECOVERY_RECORD];
	size_t n = sizeof(record);
	/* Not opened yet. */
	int r = store != NULL ? csm_store_recall(store, RECOVERY_PIN, record, &n) : CSM_ESTATE;

	return r != 0 ? r : parse((struct csm_bin){record, n}, ret);
}

static void box_key(const uint8_t *shared, const uint8_t head[static HEAD], uint8_t key[static crypto_secretbox_KEYBYTES])
{
	crypto_generichash(key, crypto_secretbox_KEYBYTES, head, HEAD, shared, CSM_SHARE_LEN);
}

int recovery_make(const uint8_t root[static 32], struct recovery_info *info, uint8_t record[static RECOVERY_RECORD],
	struct csm_share *shares)
{
	CSM_WIPED(shared, CSM_SHARE_LEN);
	CSM_WIPED(key, crypto_secretbox_KEYBYTES);
	uint8_t *nonce = record + HEAD;
	int r;

	randombytes_buf(shared, sizeof(shared));
	randombytes_buf(info->set, sizeof(info->set));
	info->created = (uint64_t)time(NULL);
	if ((r = csm_shares_split(shared, info->threshold, info->count, shares)) != 0)
		return r;
	for (unsigned i = 0; i < info->count; i++) {
		memcpy(shares[i].set, info->set, CSM_SHARE_SET);
		shares[i].threshold = info->threshold;
		shares[i].count = info->count;
	}
	record[0] = 1;
	memcpy(record + 1, info->set, CSM_SHARE_SET);
	record[5] = info->threshold;
	record[6] = info->count;
	for (unsigned i = 0; i < 8; i++)
		record[7 + i] = (uint8_t)(info->created >> (56 - 8 * i));
	randombytes_buf(nonce, crypto_secretbox_NONCEBYTES);
	box_key(shared, record, key);
	crypto_secretbox_easy(nonce + crypto_secretbox_NONCEBYTES, root, 32, nonce, key);
	return 0;
}

/* Each of this set, none twice, as many as are needed. */
static const char *objection(const struct recovery_info *info, const struct csm_share *shares, size_t n, size_t *which)
{
	for (size_t i = 0; i < n; i++) {
		*which = i;
		if (memcmp(shares[i].set, info->set, CSM_SHARE_SET) != 0)
			return "it is of another set than the one in force";
		if (shares[i].threshold != info->threshold || shares[i].count != info->count)
			return "it says other numbers than the set has";
		for (size_t j = 0; j < i; j++)
			if (shares[j].index == shares[i].index)
				return "it is there twice";
	}
	*which = n;
	return n < info->threshold ? "there are too few: all together tell nothing" : NULL;
}

int recovery_open(struct csm_bin record, const struct csm_share *shares, size_t n, uint8_t root[static 32],
	const char **why, size_t *which)
{
	CSM_WIPED(shared, CSM_SHARE_LEN);
	CSM_WIPED(key, crypto_secretbox_KEYBYTES);
	const uint8_t *nonce = record.p + HEAD;
	struct recovery_info info;
	int r;

	*which = n;
	*why = "the copy of the root key is damaged";
	if ((r = parse(record, &info)) != 0)
		return r;
	if ((*why = objection(&info, shares, n, which)) != NULL)
		return CSM_EINVALID;
	*why = "they do not open the copy of the root key: one of them is false";
	if ((r = csm_shares_join(shares, info.threshold, shared)) != 0)
		return r;
	box_key(shared, record.p, key);
	if (crypto_secretbox_open_easy(root, nonce + crypto_secretbox_NONCEBYTES, BOX, nonce, key) != 0)
		return CSM_EINVALID;
	return 0;
}

/* ---- between loop and main thread ---- */

int recovery_post(struct broker *b, struct restore *w)
{
	int r = 0;

	pthread_mutex_lock(&b->reload_lock);
	if (b->reload_stopped)
		r = CSM_ESHUTDOWN;
	else if (b->restore != NULL)
		r = CSM_EBUSY;
	else
		b->restore = w;
	pthread_mutex_unlock(&b->reload_lock);
	return r;
}

struct restore *recovery_take(struct broker *b)
{
	struct restore *w;

	pthread_mutex_lock(&b->reload_lock);
	w = b->restore;
	b->restore = NULL;
	pthread_mutex_unlock(&b->reload_lock);
	return w;
}

void recovery_stop(struct broker *b)
{
	struct restore *w = recovery_take(b);

	if (w != NULL)
		recovery_done(b, w, CSM_ESHUTDOWN);
}

void recovery_done(struct broker *b, struct restore *w, int r)
{
	if (r == 0)
		log_warn("the root key was brought back by recovery shares: %s", w->object);
	if (r != 0 && w->why[0] == '\0' && b->store == NULL)
		snprintf(w->why, sizeof(w->why), "%.200s", b->store_why);
	csm_lock_free(w->s);
	w->s = NULL;
	w->op.r = r;
	if (op_post(&w->op) != 0)
		abort();
}

/* ---- the work, on the TPM's owner's thread ---- */

struct to_tpm {
	struct broker *b;
	struct restore *w;
	int r;
};

static void to_tpm(void *arg)
{
	struct to_tpm *t = arg;
	struct restore *w = t->w;
	struct csm_backend *be = broker_backend(t->b, CSM_STR("tpm2"));

	if ((t->r = csm_be_adopt(be, false, &w->changed)) != 0) {
		snprintf(w->why, sizeof(w->why), "no TPM answers to which the root key could be sealed");
		return;
	}
	if (w->changed && !w->accept_counter) {
		snprintf(w->why, sizeof(w->why),
			"the TPM is another one than before, or was cleared, and its counter with it: an older copy of the store could "
			"not be told from the newest one. To accept the store as it is: --accept-counter");
		t->r = CSM_ECONFLICT;
		return;
	}
	if (w->changed && (t->r = csm_be_adopt(be, true, &w->changed)) != 0) {
		snprintf(w->why, sizeof(w->why), "the TPM that is there cannot be used");
		return;
	}
	if ((t->r = root_seal_proven(t->b, w->s->rec.key, &w->seal)) != 0)
		memcpy(w->why, w->seal.why, sizeof(w->why));
}

static int by_shares(struct csm_store *opening, struct restore *w)
{
	uint8_t record[RECOVERY_RECORD];
	size_t n = sizeof(record), which;
	const char *why;
	int r = csm_store_recall(opening, RECOVERY_PIN, record, &n);

	if (r == CSM_ENOT_FOUND) {
		snprintf(w->why, sizeof(w->why), "no recovery shares were made for this store");
		return CSM_ESTATE;
	}
	if (r != 0)
		return r;
	if ((r = recovery_open((struct csm_bin){record, n}, w->s->shares, w->n, w->s->rec.key, &why, &which)) != 0) {
		if (which < w->n)
			snprintf(w->why, sizeof(w->why), "share %zu: %s", which + 1, why);
		else
			snprintf(w->why, sizeof(w->why), "the shares: %s", why);
		return r;
	}
	if ((r = csm_store_root_check(opening, w->s->rec.key)) != 0)
		snprintf(w->why, sizeof(w->why), "the copy is of another store's root key");
	return r;
}

int recovery_prepare(struct broker *b, struct csm_store *opening, struct restore *w)
{
	struct csm_backend *be = broker_backend(b, CSM_STR("tpm2"));
	struct to_tpm t = {.b = b, .w = w};
	int r;

	if (be == NULL || be->ctx == NULL) {
		snprintf(w->why, sizeof(w->why), "no TPM answers to which the root key could be sealed");
		return CSM_EUNAVAILABLE;
	}
	if ((r = by_shares(opening, w)) != 0 || (r = csm_backend_run(be, to_tpm, &t)) != 0 || (r = t.r) != 0)
		return r;
	w->s->rec.wrapped = (struct csm_bin){w->seal.wrapped, w->seal.len};
	w->s->rec.new_device = w->changed;
	w->s->rec.backend = CSM_STR("tpm2");
	w->s->rec.lost = &w->lost;
	return 0;
}
