/* The memory of requests with a request_id: what was done, under whose identity, with which answer. Two rows
 * each: the record below a keyed hash of who and id, and one in order of time, for pruning. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define MAC_LEN 32u
#define HASH_LEN 32u
#define BY_HASH 'h'
#define BY_TIME 't'

void store_request_key(const struct csm_store *s, const struct csm_request_id *rid, struct dbkey *k)
{
	uint8_t len[8];
	const struct part parts[] = {{len, sizeof(len)}, {rid->who.p, rid->who.n}, {rid->id.p, rid->id.n}};

	put64(len, rid->who.n);
	k->p[0] = BY_HASH;
	prk_mac(&s->sub->request, parts, 3, k->p + 1);
	k->n = 1 + MAC_LEN;
}

static void time_key(uint64_t t, const struct dbkey *hash, struct dbkey *k)
{
	k->p[0] = BY_TIME;
	put64(k->p + 1, t);
	memcpy(k->p + 9, hash->p + 1, MAC_LEN);
	k->n = 9 + MAC_LEN;
}

static bool expired(uint64_t t, uint64_t now)
{
	return now > t && now - t > CSM_REQUEST_ID_TTL_S;
}

int store_request_find(struct csm_store *s, MDB_txn *txn, struct aead *a, const struct csm_request_id *rid,
	uint64_t now, struct csm_buf *answer)
{
	struct dbkey k;
	struct csm_bin v;
	int r;

	store_request_key(s, rid, &k);
	r = store_get(txn, s->requests, dbkey_bin(&k), &v);
	return r != 0 ? r : store_request_open(s, a, rid, &k, v, now, answer);
}

int store_request_open(struct csm_store *s, struct aead *a, const struct csm_request_id *rid, const struct dbkey *k,
	struct csm_bin v, uint64_t now, struct csm_buf *answer)
{
	uint8_t *plain = NULL;
	struct rec rec;
	size_t n;
	int r = rec_parse(v, REC_REQUEST, &rec);

	if (r != 0)
		return r;
	if (expired(rec.time, now))
		return CSM_ENOT_FOUND;
	n = rec_plain_len(&rec);
	if (n < HASH_LEN)
		return CSM_ETAMPERED;
	plain = malloc(n);
	if (plain == NULL)
		return CSM_ENOMEM;
	if ((r = rec_open(a, &s->sub->request, &rec, dbkey_bin(k), plain)) != 0)
		goto out;
	if (sodium_memcmp(plain, rid->hash, HASH_LEN) != 0) {
		r = CSM_ECONFLICT;
		goto out;
	}
	r = csm_buf_put(answer, plain + HASH_LEN, n - HASH_LEN);
out:
	free(plain);
	return r;
}

int store_request_put(struct csm_store *s, MDB_txn *txn, struct aead *a, const struct csm_request_id *rid, uint64_t now,
	struct csm_bin answer)
{
	size_t n = HDR_LEN + HASH_LEN + answer.n + TAG_LEN;
	uint8_t *value = NULL, *plain = NULL;
	struct dbkey k, t;
	int r = CSM_ENOMEM;

	if (answer.n > CSM_MESSAGE_MAX)
		return CSM_ETOO_LARGE;
	value = malloc(n);
	plain = malloc(HASH_LEN + answer.n);
	if (value == NULL || plain == NULL)
		goto out;
	store_request_key(s, rid, &k);
	time_key(now, &k, &t);
	memcpy(plain, rid->hash, HASH_LEN);
	if (answer.n > 0)
		memcpy(plain + HASH_LEN, answer.p, answer.n);
	rec_header(value, REC_REQUEST, now, NULL, 0);
	if ((r = rec_seal(a, &s->sub->request, REC_REQUEST, dbkey_bin(&k), value, HDR_LEN,
		     (struct csm_bin){plain, HASH_LEN + answer.n})) != 0 ||
		(r = store_put(s, txn, s->requests, dbkey_bin(&k), (struct csm_bin){value, n})) != 0)
		goto out;
	r = store_put(s, txn, s->requests, dbkey_bin(&t), (struct csm_bin){(const uint8_t *)"", 0});
out:
	free(plain);
	free(value);
	return r;
}

/* The record of a row of times, unless it was written anew since. */
static int drop_record(struct csm_store *s, MDB_txn *txn, const uint8_t *mac, uint64_t t)
{
	struct dbkey k = {.p = {BY_HASH}, .n = 1 + MAC_LEN};
	struct csm_bin v;
	struct rec rec;
	int r;

	memcpy(k.p + 1, mac, MAC_LEN);
	r = store_get(txn, s->requests, dbkey_bin(&k), &v);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? 0 : r;
	if (rec_parse(v, REC_REQUEST, &rec) == 0 && rec.time != t)
		return 0;
	return store_del(s, txn, s->requests, dbkey_bin(&k));
}

int store_request_prune(struct csm_store *s, MDB_txn *txn, uint64_t now, size_t max, size_t *ret)
{
	MDB_val k = {1, (void *)"t"}, v;
	MDB_cursor *cur;
	size_t n = 0;
	int rc, r;

	if ((rc = mdb_cursor_open(txn, s->requests, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0 && n < max;
		rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT), n++) {
		uint8_t row[9 + MAC_LEN];

		if (k.mv_size != sizeof(row))
			break;
		memcpy(row, k.mv_data, sizeof(row));
		if (!expired(get64(row + 1), now))
			break;
		if ((r = drop_record(s, txn, row + 9, get64(row + 1))) != 0)
			goto out;
		if ((rc = mdb_cursor_del(cur, 0)) != 0)
			break;
	}
	r = rc == MDB_NOTFOUND ? 0 : store_err(rc);
	if (r == 0)
		*ret = n;
out:
	mdb_cursor_close(cur);
	return r;
}
