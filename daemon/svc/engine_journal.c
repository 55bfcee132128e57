/* The LMDB engine's journal. A group is durable when its entry is on the disk; what it changed stands in rows[0], which readers look
 * through before LMDB. When that is much or old it is sealed: it becomes rows[1], which a thread puts into LMDB, in the order of the
 * keys and each of them once, while groups go on with rows and a journal file of their own; so there are two files, of which one is
 * written while LMDB takes the other. In the same commit the row MARK says which group was the last, and its entry's MAC: entries up to
 * that number are old, and the next one follows on it.
 *
 * At a start both files are read back into rows[0] and rows[1], and LMDB is not written: a full disk stops no start. If LMDB cannot take
 * what is sealed, it stays where it is, and nothing more is accepted until it can. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/bytes.h"
#include "daemon/svc/engine_lmdb_int.h"
#include "daemon/svc/lmdb_file.h"
#include "daemon/svc/log.h"
#include "daemon/svc/thread.h"
#include "libclient/base/lockmem.h"

#define JOURNAL_SIZE (4u * 1024u * 1024u)
#define JOURNAL_MUCH (JOURNAL_SIZE / 2)
#define JOURNAL_AGE_MS 1000u
#define MEMORY_MUCH (4u * 1024u * 1024u)
#define RETRY_NS 1000000000u
#define LOOK_NS 10000000u /* again, where somebody else is about to */
#define MARK_LEN (8u + 2 * JOURNAL_MAC)

static const struct csm_bin mark_key = {(const uint8_t *)"", 1};

/* ---- the mark ---- */

static int mark_put(struct csm_engine *e, MDB_txn *txn, uint64_t number, const uint8_t head[static JOURNAL_MAC])
{
	uint8_t mark[MARK_LEN];
	MDB_val k = engine_val(mark_key), v = {sizeof(mark), mark};

	put64(mark, number);
	memcpy(mark + 8, head, JOURNAL_MAC);
	prk_mac(e->key, &(struct part){mark, 8 + JOURNAL_MAC}, 1, mark + 8 + JOURNAL_MAC);
	return csm_lmdb_err(mdb_put(txn, e->dbi, &k, &v, 0));
}

static int mark_read(struct csm_engine *e, MDB_txn *txn, uint64_t *number, uint8_t head[static JOURNAL_MAC])
{
	MDB_val k = engine_val(mark_key), v;
	int r = csm_lmdb_err(mdb_get(txn, e->dbi, &k, &v));
	uint8_t mac[JOURNAL_MAC];
	const uint8_t *p = v.mv_data;

	if (r != 0)
		return r;
	if (v.mv_size != MARK_LEN)
		return CSM_ETAMPERED;
	prk_mac(e->key, &(struct part){p, 8 + JOURNAL_MAC}, 1, mac);
	if (sodium_memcmp(mac, p + 8 + JOURNAL_MAC, JOURNAL_MAC) != 0)
		return CSM_ETAMPERED;
	*number = get64(p);
	memcpy(head, p + 8, JOURNAL_MAC);
	return 0;
}

int engine_mark_next(struct csm_engine *e, MDB_txn *txn)
{
	randombytes_buf(e->fresh_head, sizeof(e->fresh_head));
	return mark_put(e, txn, e->number + 1, e->fresh_head);
}

void engine_marked(struct csm_engine *e)
{
	pthread_mutex_lock(&e->mu);
	e->number++;
	pthread_mutex_unlock(&e->mu);
	csm_journal_restart(&e->journal[e->at], e->fresh_head);
	e->journal[0].dead = e->journal[1].dead = false;
}

/* ---- into LMDB ---- */

uint64_t engine_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int engine_commit(struct csm_engine *e, MDB_txn *txn)
{
	int rc = mdb_txn_commit(txn), again;
	MDB_txn *probe;

	if (rc == 0)
		return 0;
	again = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &probe);
	if (again == 0) {
		mdb_txn_abort(probe);
	} else if (again == MDB_PANIC) {
		atomic_store(&e->failed, true);
		return CSM_EUNAVAILABLE;
	}
	return rc == EIO && csm_lmdb_disk_left(e->env) < ENGINE_NO_DISK ? CSM_ENO_SPACE : csm_lmdb_err(rc);
}

/* Under the lock, while no group is being made. */
static int seal(struct csm_engine *e)
{
	struct engine_rows *rows = engine_rows_new();

	if (rows == NULL)
		return CSM_ENOMEM;
	e->rows[1] = e->rows[0];
	e->need[1] = e->need[0];
	e->rows[0] = rows;
	e->need[0] = 0;
	e->since = 0;
	memcpy(e->sealed_head, e->journal[e->at].head, JOURNAL_MAC);
	if (e->journal[e->at].dead) {
		/* An entry that was refused may be behind them, of the next number, which is old by this, too. */
		e->number++;
		randombytes_buf(e->sealed_head, JOURNAL_MAC);
	}
	e->sealed_number = e->number;
	e->at ^= 1;
	csm_journal_restart(&e->journal[e->at], e->sealed_head);
	return 0;
}

struct taking {
	MDB_txn *txn;
	MDB_cursor *cur;
	MDB_dbi dbi;
};

static int take_row(void *arg, const struct engine_found *row)
{
	MDB_val k = engine_val(row->key), v = engine_val(row->value);
	struct taking *t = arg;
	int rc;

	if (!row->del)
		return csm_lmdb_err(mdb_cursor_put(t->cur, &k, &v, 0));
	rc = mdb_del(t->txn, t->dbi, &k, NULL);
	return rc == MDB_NOTFOUND ? 0 : csm_lmdb_err(rc);
}

static int take_txn(struct csm_engine *e)
{
	struct taking t = {.dbi = e->dbi};
	int r;

	if ((r = csm_lmdb_err(mdb_txn_begin(e->env, NULL, 0, &t.txn))) != 0)
		return r;
	if ((r = csm_lmdb_err(mdb_cursor_open(t.txn, e->dbi, &t.cur))) == 0) {
		r = engine_rows_each(e->rows[1], take_row, &t);
		mdb_cursor_close(t.cur);
	}
	if (r != 0 || (r = mark_put(e, t.txn, e->sealed_number, e->sealed_head)) != 0) {
		mdb_txn_abort(t.txn);
		return r;
	}
	return engine_commit(e, t.txn);
}

/* Whoever has e->taking: LMDB takes rows[1]. */
static int take(struct csm_engine *e)
{
	int r = take_txn(e), was;
	struct engine_rows *done = NULL;

	pthread_mutex_lock(&e->mu);
	was = e->stuck;
	e->stuck = r;
	e->stuck_at = engine_now();
	if (r == 0) {
		done = e->rows[1];
		e->rows[1] = NULL;
		e->need[1] = 0;
	}
	pthread_mutex_unlock(&e->mu);
	engine_rows_unref(done);
	if (r != 0 && was == 0)
		log_err("the database cannot take what its journal has: %s", csm_err_name(r));
	if (r == 0 && was != 0)
		log_info("the database has taken what its journal has");
	engine_resident_look(e);
	return r;
}

/* Under the lock. */
static bool much(const struct csm_engine *e)
{
	return e->journal[e->at].used >= JOURNAL_MUCH || engine_rows_memory(e->rows[0]) >= MEMORY_MUCH;
}

static bool old(const struct csm_engine *e)
{
	return e->since != 0 && engine_now() - e->since >= e->age_ns;
}

void engine_journal_look(struct csm_engine *e)
{
	if (e->since == 0 || e->rows[1] != NULL || !(much(e) || old(e)))
		return;
	if (seal(e) == 0)
		pthread_cond_broadcast(&e->moved);
}

static void wait_ns(struct csm_engine *e, uint64_t until)
{
	struct timespec at = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};

	pthread_cond_timedwait(&e->moved, &e->mu, &at);
}

/* Under the lock. When the thread has something to do, if nobody wakes it before; 0: then only. */
static uint64_t due(const struct csm_engine *e)
{
	uint64_t now = engine_now(), at = 0;

	if (e->rows[1] != NULL && !e->taking)
		at = e->stuck == 0 ? now : e->stuck_at + RETRY_NS;
	else if (e->rows[1] == NULL && e->since != 0)
		at = e->since + e->age_ns < now ? now + LOOK_NS : e->since + e->age_ns;
	return at;
}

static void *taker(void *arg)
{
	struct csm_engine *e = arg;

	pthread_mutex_lock(&e->mu);
	while (!e->stopping) {
		uint64_t at;

		if (!e->led)
			engine_journal_look(e);
		at = atomic_load(&e->failed) ? 0 : due(e);
		if (at == 0) {
			pthread_cond_wait(&e->moved, &e->mu);
		} else if (e->rows[1] == NULL || at > engine_now()) {
			wait_ns(e, at);
		} else {
			e->taking = true;
			pthread_mutex_unlock(&e->mu);
			(void)take(e);
			pthread_mutex_lock(&e->mu);
			e->taking = false;
			pthread_cond_broadcast(&e->moved);
		}
	}
	pthread_mutex_unlock(&e->mu);
	return NULL;
}

int engine_take_all(struct csm_engine *e)
{
	int r = e->rows[1] != NULL ? take(e) : 0;

	if (r == 0 && e->since != 0) {
		pthread_mutex_lock(&e->mu);
		r = seal(e);
		pthread_mutex_unlock(&e->mu);
		if (r == 0)
			r = take(e);
	}
	return r;
}

void engine_taking(struct csm_engine *e, bool on)
{
	pthread_mutex_lock(&e->mu);
	while (on && e->taking)
		pthread_cond_wait(&e->moved, &e->mu);
	e->taking = on;
	if (!on)
		pthread_cond_broadcast(&e->moved);
	pthread_mutex_unlock(&e->mu);
}

/* ---- groups ---- */

bool engine_journal_ready(struct csm_engine *e, size_t bytes, uint64_t need, bool urgent)
{
	uint64_t used, room = e->map_size + (urgent ? ENGINE_RESERVE : 0);
	bool ready;

	if (e->journal[0].fd < 0 || e->journal[1].fd < 0 || csm_lmdb_disk_left(e->env) < ENGINE_LOW_DISK || engine_used(e, &used) != 0)
		return false;
	pthread_mutex_lock(&e->mu);
	while (e->stuck == 0 && e->rows[1] != NULL && !csm_journal_takes(&e->journal[e->at], bytes))
		pthread_cond_wait(&e->moved, &e->mu);
	ready = e->stuck == 0 && used + e->need[0] + e->need[1] + need <= room;
	if (ready && !csm_journal_takes(&e->journal[e->at], bytes)) {
		ready = e->since != 0 && seal(e) == 0 && csm_journal_takes(&e->journal[e->at], bytes);
		pthread_cond_broadcast(&e->moved);
	}
	pthread_mutex_unlock(&e->mu);
	return ready;
}

int engine_group_begin(struct csm_engine *e)
{
	static const uint8_t head[JOURNAL_HEAD];

	csm_buf_reset(&e->entry);
	return csm_buf_put(&e->entry, head, sizeof(head));
}

int engine_group_add(struct csm_engine *e, const struct csm_engine_change *c)
{
	struct csm_journal_row row = {.del = c->del, .key = c->key};
	int r;

	if (!c->del)
		row.value = c->value;
	if ((r = csm_journal_row_put(&e->entry, &row)) != 0)
		return r;
	return engine_rows_add(e->rows[0], e->number + 1, c);
}

int engine_group_end(struct csm_engine *e, uint64_t need)
{
	struct csm_journal *j = &e->journal[e->at];
	int r;

	if (e->entry.len == JOURNAL_HEAD)
		return 0; /* all were refused */
	if ((r = csm_journal_append(j, &e->entry, e->number + 1)) != 0) {
		(void)csm_journal_undo(j);
		return r;
	}
	pthread_mutex_lock(&e->mu);
	e->number++;
	e->need[0] += need;
	if (e->since == 0) {
		e->since = engine_now();
		pthread_cond_broadcast(&e->moved);
	}
	pthread_mutex_unlock(&e->mu);
	return 0;
}

void engine_group_undo(struct csm_engine *e)
{
	struct engine_rows *was = e->rows[0], *rows;

	engine_rows_undo(was, e->number + 1);
	/* Without a group nobody else has them, and they never become old: what is refused again and again would stay in memory. */
	if (e->since != 0 || (rows = engine_rows_new()) == NULL)
		return;
	pthread_mutex_lock(&e->mu);
	e->rows[0] = rows;
	pthread_mutex_unlock(&e->mu);
	engine_rows_unref(was);
}

/* ---- opening ---- */

static int replay_group(void *arg, uint64_t number, struct csm_bin rows)
{
	struct csm_engine *e = arg;
	struct csm_journal_row row;
	uint64_t n = 0, bytes = rows.n;
	int r;

	for (; rows.n > 0; n++) {
		if ((r = csm_journal_row_next(&rows, &row)) != 0)
			return r;
		if (row.number != 0 || row.key.n > CSM_ENGINE_KEY_MAX || row.key.p[0] == 0)
			return CSM_ETAMPERED;
		if ((r = engine_rows_add(e->rows[0], number, &(struct csm_engine_change){row.key, row.value, row.del})) != 0)
			return r;
	}
	e->number = number;
	e->need[0] += engine_need(bytes) * (1 + n / 10);
	e->since = engine_now();
	return 0;
}

static int replay(struct csm_engine *e)
{
	int r;

	e->at = csm_journal_begins(&e->journal[0], e->number + 1) ? 0 : 1;
	memcpy(e->journal[e->at].head, e->sealed_head, JOURNAL_MAC);
	if ((r = csm_journal_replay(&e->journal[e->at], e->number, replay_group, e)) != 0)
		return r;
	if (!csm_journal_begins(&e->journal[e->at ^ 1], e->number + 1))
		return csm_journal_replay(&e->journal[e->at ^ 1], e->number, replay_group, e); /* there is nothing newer */
	if (e->since != 0 && (r = seal(e)) != 0)
		return r;
	return csm_journal_replay(&e->journal[e->at], e->number, replay_group, e);
}

/* The first mark. Without room for it there is no journal. */
static int mark_make(struct csm_engine *e)
{
	MDB_txn *txn;
	int r = csm_lmdb_err(mdb_txn_begin(e->env, NULL, 0, &txn));

	if (r != 0)
		return r;
	e->number = 0;
	randombytes_buf(e->sealed_head, JOURNAL_MAC);
	if ((r = mark_put(e, txn, 0, e->sealed_head)) != 0) {
		mdb_txn_abort(txn);
		return r;
	}
	return engine_commit(e, txn);
}

static int mark_load(struct csm_engine *e)
{
	MDB_txn *txn;
	int r = csm_lmdb_err(mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn));

	if (r != 0)
		return r;
	r = mark_read(e, txn, &e->number, e->sealed_head);
	mdb_txn_abort(txn);
	return r == CSM_ENOT_FOUND ? mark_make(e) : r;
}

static int fail(const struct csm_engine_options *opt, int r, const char *what)
{
	if (opt->why != NULL && opt->why_len > 0)
		snprintf(opt->why, opt->why_len, "%s: %s", opt->dir, what);
	return r;
}

int engine_journal_init(struct csm_engine *e, const struct csm_engine_options *opt)
{
	for (unsigned i = 0; i < 2; i++)
		csm_journal_init(&e->journal[i], JOURNAL_SIZE, "csmdbjn1");
	csm_buf_init(&e->entry, JOURNAL_SIZE, false);
	e->age_ns = 1000000 * (uint64_t)(opt->journal_ms == 0 ? JOURNAL_AGE_MS : opt->journal_ms);
	e->rows[0] = engine_rows_new();
	e->key = csm_lock_alloc(sizeof(*e->key));
	if (e->rows[0] == NULL || e->key == NULL)
		return CSM_ENOMEM;
	prk_init(e->key, opt->key);
	e->journal[0].key = e->journal[1].key = e->key;
	return 0;
}

int engine_journal_open(struct csm_engine *e, const struct csm_engine_options *opt)
{
	static const char *const names[] = {"journal.0", "journal.1"};
	int r = 0;

	for (unsigned i = 0; i < 2 && r == 0; i++)
		if ((r = csm_journal_open(&e->journal[i], opt->dir, names[i])) != 0)
			return fail(opt, r, strerror(errno));
	if ((r = csm_lmdb_sync_folder(opt->dir)) != 0)
		return fail(opt, r, strerror(errno));
	if ((r = mark_load(e)) == CSM_ENO_SPACE) {
		csm_journal_close(&e->journal[0]);
		r = 0;
	} else if (r == CSM_ETAMPERED) {
		return fail(opt, r, "its key is another one, or data.mdb was changed");
	} else if (r == 0 && (r = replay(e)) == CSM_ETAMPERED) {
		return fail(opt, r, "journal.0 or journal.1 was changed, or data.mdb is an older one");
	}
	if (r != 0)
		return fail(opt, r, csm_err_text(r));
	if ((r = csm_thread_start(&e->thread, taker, e)) != 0)
		return fail(opt, r, "no thread");
	e->threaded = true;
	return 0;
}

void engine_journal_close(struct csm_engine *e)
{
	if (e->threaded) {
		pthread_mutex_lock(&e->mu);
		e->stopping = true;
		pthread_cond_broadcast(&e->moved);
		pthread_mutex_unlock(&e->mu);
		pthread_join(e->thread, NULL);
		if (!atomic_load(&e->failed))
			(void)engine_take_all(e);
	}
	for (unsigned i = 0; i < 2; i++) {
		csm_journal_close(&e->journal[i]);
		engine_rows_unref(e->rows[i]);
	}
	csm_buf_free(&e->entry);
	csm_lock_free(e->key);
}
