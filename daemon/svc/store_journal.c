/* What groups have changed since LMDB's last commit, in a journal: an entry is a group, its number that of the root record's commits, and
 * what the first one follows on is the root record that LMDB has. */
#include <errno.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define ROOM (JOURNAL_SIZE / 2)

/* ---- the file ---- */

void journal_init(struct csm_store *s)
{
	csm_journal_init(&s->journal, JOURNAL_SIZE, "csmjrnl1");
	csm_buf_init(&s->changes.rows, JOURNAL_SIZE, false);
}

int journal_open(struct csm_store *s, const char *folder)
{
	int r = csm_journal_open(&s->journal, folder, "journal");

	if (r != 0)
		store_why(s, "%s/journal: %s", folder, strerror(errno));
	return r;
}

void journal_close(struct csm_store *s)
{
	csm_journal_close(&s->journal);
	csm_buf_free(&s->changes.rows);
}

/* ---- changes ---- */

void changes_begin(struct csm_store *s)
{
	static const uint8_t head[JOURNAL_HEAD];
	struct changes *c = &s->changes;

	csm_buf_reset(&c->rows);
	c->on = true;
	c->n = 0;
	c->too_many = csm_buf_put(&c->rows, head, sizeof(head)) != 0;
}

struct changes_mark changes_mark(const struct csm_store *s)
{
	return (struct changes_mark){s->changes.n, s->changes.rows.len};
}

void changes_undo(struct csm_store *s, struct changes_mark mark)
{
	s->changes.n = mark.n;
	s->changes.rows.len = mark.len;
}

static unsigned number_of(const struct csm_store *s, MDB_dbi dbi)
{
	return dbi < STORE_DBS_MAX ? s->number[dbi] : 0;
}

void changes_add(struct csm_store *s, MDB_dbi dbi, struct csm_bin key, const struct csm_bin *value)
{
	struct csm_journal_row row = {.number = (uint8_t)number_of(s, dbi), .del = value == NULL, .key = key};
	struct changes *c = &s->changes;

	if (!c->on)
		return;
	if (value != NULL)
		row.value = *value;
	c->n++;
	if (c->too_many || key.n > STORE_KEY_MAX || csm_journal_row_len(key.n, row.value.n) > ROOM || csm_journal_row_put(&c->rows, &row) != 0)
		c->too_many = true;
}

static MDB_dbi database(const struct csm_store *s, unsigned number)
{
	for (MDB_dbi i = 0; i < STORE_DBS_MAX; i++)
		if (number != 0 && s->number[i] == number)
			return i;
	return 0;
}

int changes_next(const struct csm_store *s, struct csm_bin *rows, struct change_row *ret)
{
	struct csm_journal_row row;
	int r = csm_journal_row_next(rows, &row);

	if (r != 0)
		return r;
	*ret = (struct change_row){.dbi = database(s, row.number), .del = row.del, .key = row.key, .value = row.value};
	return ret->dbi == 0 || row.key.n > STORE_KEY_MAX ? CSM_ETAMPERED : 0;
}

/* ---- writing ---- */

int journal_base(struct csm_store *s, MDB_txn *txn)
{
	static const struct csm_bin name = {(const uint8_t *)"root", 4};
	struct csm_bin v;
	int r = store_get(txn, s->meta, name, &v);

	if (r == 0)
		prk_mac(s->journal.key, &(struct part){v.p, v.n}, 1, s->journal.head);
	return r;
}

bool journal_takes(const struct csm_store *s)
{
	return !s->changes.too_many && s->changes.rows.len <= ROOM && csm_journal_takes(&s->journal, s->changes.rows.len - JOURNAL_HEAD);
}

void journal_undo(struct csm_store *s)
{
	if (csm_journal_undo(&s->journal) != 0 && s->lost != NULL)
		s->lost();
}

int journal_append(struct csm_store *s, uint64_t generation)
{
	return csm_journal_append(&s->journal, &s->changes.rows, generation);
}

/* ---- reading ---- */

struct replay {
	struct csm_store *s;
	MDB_txn *txn;
};

static int rows_apply(void *arg, uint64_t number, struct csm_bin rows)
{
	const struct replay *to = arg;
	struct change_row c;
	int r = 0;

	(void)number;
	while (r == 0 && rows.n > 0) {
		if ((r = changes_next(to->s, &rows, &c)) != 0)
			break;
		r = c.del ? store_del(to->s, to->txn, c.dbi, c.key) : store_put(to->s, to->txn, c.dbi, c.key, c.value);
		if (c.del && r == CSM_ENOT_FOUND)
			r = 0;
	}
	return r;
}

int journal_replay(struct csm_store *s, MDB_txn *txn, uint64_t generation)
{
	int r = s->journal.fd >= 0 ? journal_base(s, txn) : 0;

	return r != 0 ? r : csm_journal_replay(&s->journal, generation, rows_apply, &(struct replay){s, txn});
}

int journal_reapply(struct csm_store *s, MDB_txn *txn)
{
	return csm_journal_again(&s->journal, rows_apply, &(struct replay){s, txn});
}
