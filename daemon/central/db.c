/* Opening, keys of rows, batches. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/central/db_int.h"
#include "libclient/base/lockmem.h"

#define SCHEMA 2u /* 2: the journal, which an older csm-server would leave out. One of 1 is taken over */

/* ---- keys ---- */

void dbk_start(struct dbk *k, enum db_table t)
{
	k->p[0] = (uint8_t)t;
	k->n = 1;
}

void dbk_raw(struct dbk *k, const void *p, size_t n)
{
	if (n > sizeof(k->p) - k->n)
		abort(); /* all callers have bounded parts */
	if (n > 0)
		memcpy(k->p + k->n, p, n);
	k->n += n;
}

void dbk_u8(struct dbk *k, uint8_t v)
{
	dbk_raw(k, &v, 1);
}

void dbk_u64(struct dbk *k, uint64_t v)
{
	for (int shift = 56; shift >= 0; shift -= 8)
		dbk_u8(k, (uint8_t)(v >> shift));
}

void dbk_serial(struct dbk *k, struct csm_bin serial)
{
	dbk_u8(k, (uint8_t)serial.n);
	dbk_raw(k, serial.p, serial.n);
}

void dbk_place(struct dbk *k, uint64_t issued, struct csm_bin serial)
{
	dbk_u64(k, issued);
	dbk_serial(k, serial);
}

void dbk_facet(struct dbk *k, enum db_facet f, struct csm_str value)
{
	uint8_t hash[32];

	sha256_of(value.p, value.n, hash);
	dbk_start(k, DB_T_FACET);
	dbk_u8(k, (uint8_t)f);
	dbk_raw(k, hash, 8);
}

void db_sha256(uint8_t out[static 32], struct csm_str a, struct csm_str b)
{
	sha256_parts((const struct part[]){{a.p, a.n}, {"", 1}, {b.p, b.n}}, 3, out);
}

/* One form for one number: no leading zeros. */
bool db_serial_ok(struct csm_bin serial)
{
	return serial.n > 0 && serial.n <= DB_SERIAL_MAX && serial.p[0] != 0;
}

/* ---- batches ---- */

void plan_init(struct plan *p, struct central_db *db, size_t conds, size_t changes)
{
	*p = (struct plan){.db = db, .conds_max = conds, .changes_max = changes};
	csm_pool_init(&p->mem, 2 * (size_t)CSM_ENGINE_BATCH_MAX);
	p->conds = csm_pool_alloc(&p->mem, (conds + 1) * sizeof(*p->conds));
	p->changes = csm_pool_alloc(&p->mem, (changes + 1) * sizeof(*p->changes));
	if (p->conds == NULL || p->changes == NULL)
		p->r = CSM_ENOMEM;
}

void plan_free(struct plan *p)
{
	csm_pool_free(&p->mem);
}

static struct csm_bin plan_copy(struct plan *p, const uint8_t *from, size_t n)
{
	uint8_t *mem = NULL;

	if (p->r == 0 && csm_pool_full(&p->mem, n + 1))
		p->r = CSM_ETOO_LARGE;
	if (p->r == 0 && (mem = csm_pool_alloc(&p->mem, n + 1)) == NULL)
		p->r = CSM_ENOMEM;
	if (mem != NULL && n > 0)
		memcpy(mem, from, n);
	return (struct csm_bin){mem, mem == NULL ? 0 : n};
}

static void plan_cond(struct plan *p, enum csm_engine_need need, const struct dbk *k, struct csm_bin row)
{
	struct csm_engine_cond c = {.need = need, .key = plan_copy(p, k->p, k->n), .value = plan_copy(p, row.p, row.n)};

	if (p->r == 0 && p->n_conds == p->conds_max)
		p->r = CSM_EINTERNAL;
	if (p->r == 0)
		p->conds[p->n_conds++] = c;
}

void plan_absent(struct plan *p, const struct dbk *k)
{
	plan_cond(p, CSM_ENGINE_ABSENT, k, (struct csm_bin){NULL, 0});
}

void plan_same(struct plan *p, const struct dbk *k, struct csm_bin row)
{
	plan_cond(p, CSM_ENGINE_EQUALS, k, row);
}

static void plan_change(struct plan *p, const struct dbk *k, struct csm_bin row, bool del)
{
	struct csm_engine_change c = {.key = plan_copy(p, k->p, k->n), .value = plan_copy(p, row.p, row.n), .del = del};

	if (p->r == 0 && p->n_changes == p->changes_max)
		p->r = CSM_EINTERNAL;
	if (p->r == 0)
		p->changes[p->n_changes++] = c;
}

void plan_put(struct plan *p, const struct dbk *k, const struct rec_def *def, const void *in)
{
	struct csm_buf b;

	if (p->r != 0)
		return;
	csm_buf_init(&b, CSM_ENGINE_BATCH_MAX, false);
	p->r = rec_put(p->db->key, def, dbk_bin(k), in, &b);
	if (p->r == 0)
		plan_change(p, k, (struct csm_bin){csm_buf_ptr(&b), b.len}, false);
	csm_buf_free(&b);
}

void plan_mark(struct plan *p, const struct dbk *k)
{
	plan_change(p, k, (struct csm_bin){NULL, 0}, false);
}

void plan_del(struct plan *p, const struct dbk *k)
{
	plan_change(p, k, (struct csm_bin){NULL, 0}, true);
}

/* In the order in which they came to pass here; the number keeps two of one nanosecond apart. */
void plan_event(struct plan *p, uint64_t at, const char *what, struct csm_str object, struct csm_str by)
{
	const struct db_event e = {.at = at, .what = csm_str_of(what), .object = object, .by = by};
	struct timespec now;
	struct dbk k;

	clock_gettime(CLOCK_REALTIME, &now);
	dbk_start(&k, DB_T_EVENT);
	dbk_u64(&k, at);
	dbk_u64(&k, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
	dbk_u64(&k, atomic_fetch_add(&p->db->events, 1));
	plan_put(p, &k, &rec_event, &e);
}

void plan_event_cert(struct plan *p, uint64_t at, const char *what, struct csm_bin serial, struct csm_str by)
{
	char hex[2 * DB_SERIAL_MAX + 1];

	if (serial.n <= DB_SERIAL_MAX)
		plan_event(p, at, what, csm_str_of(sodium_bin2hex(hex, sizeof(hex), serial.p, serial.n)), by);
}

static struct csm_engine_batch plan_batch(const struct plan *p)
{
	return (struct csm_engine_batch){
		.conds = p->conds, .n_conds = p->n_conds, .changes = p->changes, .n_changes = p->n_changes, .urgent = p->urgent};
}

int plan_write(struct plan *p)
{
	const struct csm_engine_batch b = plan_batch(p);

	return p->r != 0 ? p->r : p->db->ops->write(p->db->engine, &b, NULL);
}

/* ---- rounds ---- */

/* Which of several are in this round, and what is written of them. */
struct round {
	struct plan plan[PLAN_TOGETHER_MAX];
	struct csm_engine_batch batch[PLAN_TOGETHER_MAX];
	const struct csm_engine_batch *of[PLAN_TOGETHER_MAX];
	int results[PLAN_TOGETHER_MAX];
	size_t who[PLAN_TOGETHER_MAX], n;
};

/* Read in one view; what is refused, or needs no writing, leaves the round. */
static int round_read(struct round *o, const struct plan_work *w, const void *const *args, int *results, size_t n)
{
	struct csm_engine_txn *t;
	int r = w->db->ops->begin(w->db->engine, &t);

	o->n = 0;
	for (size_t i = 0; i < n && r == 0; i++) {
		struct plan *p = &o->plan[o->n];

		if (results[i] != CSM_ECONFLICT)
			continue;
		plan_init(p, w->db, w->conds, w->changes);
		p->urgent = w->urgent;
		results[i] = p->r != 0 ? p->r : w->once(p, t, args[i]);
		if (results[i] == 0 && (results[i] = p->r) == 0) {
			o->batch[o->n] = plan_batch(p);
			o->of[o->n] = &o->batch[o->n];
			o->who[o->n++] = i;
		} else {
			plan_free(p);
		}
	}
	if (r == 0)
		w->db->ops->end(t);
	return r;
}

static void round_write(struct round *o, const struct plan_work *w, int *results)
{
	if (o->n == 0)
		return;
	/* the first that is not 0 is told as each one's own, too */
	(void)w->db->ops->write_all(w->db->engine, o->of, o->n, o->results);
	for (size_t i = 0; i < o->n; i++) {
		results[o->who[i]] = o->results[i];
		plan_free(&o->plan[i]);
	}
}

static bool any_conflict(const int *results, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (results[i] == CSM_ECONFLICT)
			return true;
	return false;
}

void plan_rounds_together(const struct plan_work *w, const void *const *args, int *results, size_t n)
{
	struct round *o = malloc(sizeof(*o));
	int r = o == NULL ? CSM_ENOMEM : 0;

	for (size_t i = 0; i < n; i++)
		results[i] = CSM_ECONFLICT;
	for (unsigned round = 0; r == 0 && round < DB_ROUNDS && any_conflict(results, n); round++)
		if ((r = round_read(o, w, args, results, n)) == 0)
			round_write(o, w, results);
	for (size_t i = 0; i < n; i++)
		if (results[i] == CSM_ECONFLICT)
			results[i] = r != 0 ? r : CSM_EBUSY;
	free(o);
}

int plan_rounds(struct central_db *db, size_t conds, size_t changes, bool urgent, plan_fn *once, const void *arg)
{
	const struct plan_work w = {db, conds, changes, urgent, once};
	int r;

	plan_rounds_together(&w, &arg, &r, 1);
	return r;
}

/* ---- reading ---- */

int db_row(struct central_db *db, struct csm_engine_txn *t, const struct dbk *k, const struct rec_def *def, struct csm_pool *pool,
	void *out, struct csm_bin *row)
{
	struct csm_bin v;
	int r = db->ops->get(t, dbk_bin(k), &v);

	if (r != 0 || (r = rec_get(db->key, def, dbk_bin(k), v, pool, out)) != 0)
		return r;
	if (row != NULL)
		*row = v;
	return 0;
}

int db_copy(struct csm_pool *pool, const void **p, size_t n)
{
	uint8_t *mem;

	if (csm_pool_full(pool, n + 1))
		return CSM_ETOO_LARGE;
	if ((mem = csm_pool_alloc(pool, n + 1)) == NULL)
		return CSM_ENOMEM;
	if (n > 0)
		memcpy(mem, *p, n);
	*p = mem;
	return 0;
}

int db_copy_strs(struct csm_pool *pool, const struct csm_str **v, size_t n)
{
	struct csm_str *mem;
	int r = 0;

	if (n == 0) {
		*v = NULL;
		return 0;
	}
	if (csm_pool_full(pool, n * sizeof(*mem)))
		return CSM_ETOO_LARGE;
	if ((mem = csm_pool_alloc(pool, n * sizeof(*mem))) == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++) {
		mem[i] = (*v)[i];
		r = db_copy(pool, (const void **)&mem[i].p, mem[i].n);
	}
	if (r == 0)
		*v = mem;
	return r;
}

/* ---- opening ---- */

static int why(const struct db_options *opt, int r, const char *text)
{
	if (opt->why != NULL && opt->why_len > 0)
		snprintf(opt->why, opt->why_len, "%s: %s", opt->dir, text);
	return r;
}

/* was: NULL where there is none yet. */
static int schema_put(struct central_db *db, const struct dbk *k, const struct csm_bin *was)
{
	const struct rec_schema schema = {SCHEMA};
	struct plan p;
	int r;

	plan_init(&p, db, 1, 1);
	if (was == NULL)
		plan_absent(&p, k);
	else
		plan_same(&p, k, *was);
	plan_put(&p, k, &rec_schema, &schema);
	r = plan_write(&p);
	plan_free(&p);
	return r;
}

static int schema_make(struct central_db *db, struct csm_engine_txn *t, const struct dbk *k, const struct db_options *opt)
{
	struct csm_engine_row row;
	int r = db->ops->next(t, (struct csm_bin){(const uint8_t *)"", 1}, true, &row);

	if (r == 0)
		return why(opt, CSM_ETAMPERED, "the record of its form is gone, or it is something else");
	return r != CSM_ENOT_FOUND ? r : schema_put(db, k, NULL);
}

/* Also: is it this key's? *taken: it was of the form before. */
static int schema_check(struct central_db *db, const struct db_options *opt, bool *taken)
{
	struct rec_schema schema = {0};
	struct csm_engine_txn *t;
	struct csm_bin row;
	struct dbk k;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	dbk_start(&k, DB_T_SCHEMA);
	r = db_row(db, t, &k, &rec_schema, NULL, &schema, &row);
	if (r == CSM_ENOT_FOUND)
		r = schema_make(db, t, &k, opt);
	else if (r == 0 && schema.version == SCHEMA - 1)
		*taken = (r = schema_put(db, &k, &row)) == 0;
	else if (r == 0 && schema.version != SCHEMA)
		r = why(opt, CSM_EUNSUPPORTED, "it has the form of another version of csm-server");
	else if (r != 0)
		r = why(opt, r, "its key is another one, or it was changed");
	db->ops->end(t);
	return r;
}

int db_open(const struct db_options *opt, struct central_db **ret)
{
	CSM_WIPED(journal, CSM_ENGINE_SECRET_LEN);
	const struct csm_engine_options eo = {.dir = opt->dir, .map_size = opt->map_size, .key = journal,
		.journal_ms = opt->journal_ms, .why = opt->why, .why_len = opt->why_len};
	struct central_db *db = calloc(1, sizeof(*db));
	bool taken = false;
	int r = CSM_ENOMEM;

	if (db == NULL)
		return r;
	db->ops = &csm_engine_lmdb;
	db->key = csm_lock_alloc(sizeof(*db->key));
	if (db->key == NULL)
		goto out;
	rec_key_init(db->key, opt->key);
	rec_key_engine(opt->key, journal);
	if ((r = db->ops->open(&eo, &db->engine)) != 0 || (r = schema_check(db, opt, &taken)) != 0)
		goto out;
	if (taken) {
		/* An older csm-server does not read the journal: nothing else may be in it before LMDB has the form, as it has by this. */
		db->ops->close(db->engine);
		db->engine = NULL;
		if ((r = db->ops->open(&eo, &db->engine)) != 0)
			goto out;
	}
	*ret = db;
out:
	if (r != 0)
		db_close(db);
	return r;
}

void db_close(struct central_db *db)
{
	if (db == NULL)
		return;
	db->ops->close(db->engine);
	csm_lock_free(db->key);
	free(db);
}

void db_stat(struct central_db *db, struct db_stat *ret)
{
	struct csm_engine_stat st;

	db->ops->stat(db->engine, &st);
	*ret = (struct db_stat){.used = st.used, .size = st.size, .low_space = st.low_space, .failed = st.failed, .commits = st.commits,
		.writes = st.batches};
}
