/* Keys whose device is gone. Each has a mark beside the pins, in the sum that covers these: it goes with the key. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define MARK "lost:"
#define MARK_LEN (sizeof(MARK) + 2 * CSM_KEY_ID_LEN)

static void mark_of(const uint8_t id[static CSM_KEY_ID_LEN], char out[static MARK_LEN])
{
	memcpy(out, MARK, sizeof(MARK));
	sodium_bin2hex(out + sizeof(MARK) - 1, 2 * CSM_KEY_ID_LEN + 1, id, CSM_KEY_ID_LEN);
}

bool store_lost_is(struct csm_store *s, MDB_txn *txn, const uint8_t id[static CSM_KEY_ID_LEN])
{
	char mark[MARK_LEN];
	struct dbkey key;
	struct csm_bin v;

	mark_of(id, mark);
	return dbkey_meta(&key, "pin:", mark) == 0 && store_get(txn, s->meta, dbkey_bin(&key), &v) == 0;
}

int store_lost_forget(struct csm_store *s, MDB_txn *txn, struct root *root, const uint8_t id[static CSM_KEY_ID_LEN])
{
	char mark[MARK_LEN];
	int r;

	mark_of(id, mark);
	r = store_pin_del(s, txn, root, mark);
	return r == CSM_ENOT_FOUND ? 0 : r;
}

static int mark_put(struct csm_store *s, MDB_txn *txn, struct root *root, const uint8_t id[static CSM_KEY_ID_LEN])
{
	static const uint8_t yes = 1;
	char mark[MARK_LEN];

	mark_of(id, mark);
	return store_pin_put(s, txn, root, mark, (struct csm_bin){&yes, 1});
}

int store_lost_all(struct csm_store *s, MDB_txn *txn, struct root *root, struct csm_str backend, uint64_t *ret)
{
	struct csm_key_record key;
	uint64_t n = 0;
	MDB_cursor *cur;
	MDB_val k, v;
	struct rec rec;
	int rc, r = 0;

	if ((rc = mdb_cursor_open(txn, s->keys, &cur)) != 0)
		return store_err(rc);
	while (r == 0 && (rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0) {
		/* What is damaged is told by the check of all records, not here. */
		if (rec_parse(val_bin(&v), REC_KEY, &rec) != 0 || store_key_clear_get(rec.clear, &key) != 0 ||
			key.backend.n != backend.n || memcmp(key.backend.p, backend.p, backend.n) != 0 ||
			store_lost_is(s, txn, key.id))
			continue;
		r = mark_put(s, txn, root, key.id);
		n++;
	}
	mdb_cursor_close(cur);
	if (r == 0 && rc != 0 && rc != MDB_NOTFOUND)
		r = store_err(rc);
	if (r == 0 && ret != NULL)
		*ret = n;
	return r;
}

int csm_store_lost(struct csm_store *s, uint64_t *ret)
{
	static const char prefix[] = "pin:" MARK;
	MDB_val k = {sizeof(prefix) - 1, (void *)(uintptr_t)prefix}, v;
	MDB_cursor *cur;
	MDB_txn *txn;
	uint64_t n = 0;
	int rc;

	if ((rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn)) != 0)
		return store_err(rc);
	if ((rc = mdb_cursor_open(txn, s->meta, &cur)) == 0) {
		for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT), n++)
			if (k.mv_size < sizeof(prefix) - 1 || memcmp(k.mv_data, prefix, sizeof(prefix) - 1) != 0)
				break;
		mdb_cursor_close(cur);
	}
	mdb_txn_abort(txn);
	if (rc != 0 && rc != MDB_NOTFOUND)
		return store_err(rc);
	*ret = n;
	return 0;
}
