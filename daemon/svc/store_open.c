/* Opening in two steps (the environment; then the root key, the check of everything, the epoch), closing,
 * and what status tells. */
#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/lmdb_file.h"
#include "daemon/svc/store_internal.h"

#define MAP_MIN (1024u * 1024u)
#define READERS_MAX 512u
#define SCHEMA_LEN (sizeof(STORE_MAGIC) - 1 + 4)

static const struct csm_bin schema_name = {(const uint8_t *)"schema", 6};

void store_why(struct csm_store *s, const char *fmt, ...)
{
	va_list ap;

	if (s->why == NULL || s->why_len == 0)
		return;
	va_start(ap, fmt);
	vsnprintf(s->why, s->why_len, fmt, ap);
	va_end(ap);
}

static _Thread_local int last_rc;

int csm_store_last_errno(void)
{
	return last_rc > 0 ? last_rc : 0;
}

int store_err(int rc)
{
	if (rc != 0 && rc != MDB_NOTFOUND)
		last_rc = rc;
	return csm_lmdb_err(rc);
}

uint64_t store_monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t store_monotonic(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec;
}

int store_get(MDB_txn *txn, MDB_dbi dbi, struct csm_bin key, struct csm_bin *ret)
{
	MDB_val k = {key.n, (void *)(uintptr_t)key.p}, v;
	int r = store_err(mdb_get(txn, dbi, &k, &v));

	if (r == 0)
		*ret = val_bin(&v);
	return r;
}

int store_put(struct csm_store *s, MDB_txn *txn, MDB_dbi dbi, struct csm_bin key, struct csm_bin value)
{
	MDB_val k = {key.n, (void *)(uintptr_t)key.p}, v = {value.n, (void *)(uintptr_t)value.p};

	changes_add(s, dbi, key, &value);
	return store_err(mdb_put(txn, dbi, &k, &v, 0));
}

int store_del(struct csm_store *s, MDB_txn *txn, MDB_dbi dbi, struct csm_bin key)
{
	MDB_val k = {key.n, (void *)(uintptr_t)key.p};
	int rc = mdb_del(txn, dbi, &k, NULL);

	if (rc != MDB_NOTFOUND)
		changes_add(s, dbi, key, NULL);
	return store_err(rc);
}

int store_cursor_del(struct csm_store *s, MDB_cursor *cur, const MDB_val *key)
{
	changes_add(s, mdb_cursor_dbi(cur), val_bin(key), NULL);
	return mdb_cursor_del(cur, 0);
}

/* ---- the environment ---- */

static int lock_store(struct csm_store *s, const char *folder)
{
	int r = csm_lmdb_lock(folder, &s->lock_fd);

	if (r == CSM_EBUSY)
		store_why(s, "%s: another process has the store open", folder);
	else if (r != 0)
		store_why(s, "%s/owner.lock: %s", folder, strerror(errno));
	return r;
}

static int env_seed(struct csm_store *s, const char *folder)
{
	int rc = csm_lmdb_seed(folder);

	if (rc != 0)
		store_why(s, "%s/new.mdb: %s", folder, mdb_strerror(rc));
	return store_err(rc);
}

static int env_make(struct csm_store *s, const struct csm_store_options *opt)
{
	char *folder = NULL;
	int r = CSM_ESYSTEM, rc;

	if (asprintf(&folder, "%s/store", opt->dir) < 0)
		return CSM_ENOMEM;
	if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
		store_why(s, "%s: %s", folder, strerror(errno));
		goto out;
	}
	if ((r = lock_store(s, folder)) != 0 || (r = env_seed(s, folder)) != 0)
		goto out;
	if ((rc = mdb_env_create(&s->env)) != 0 ||
		(rc = mdb_env_set_mapsize(s->env, opt->map_size + MAP_RESERVE)) != 0 ||
		(rc = mdb_env_set_maxdbs(s->env, 16)) != 0 || (rc = mdb_env_set_maxreaders(s->env, READERS_MAX)) != 0 ||
		(rc = mdb_env_open(s->env, folder, MDB_NOTLS, 0600)) != 0 ||
		(rc = mdb_reader_check(s->env, NULL)) != 0) {
		store_why(s, "%s: %s", folder, mdb_strerror(rc));
		r = store_err(rc);
		goto out;
	}
	if ((r = journal_open(s, folder)) != 0)
		goto out;
	if ((r = csm_lmdb_sync_folder(folder)) != 0 || (r = csm_lmdb_sync_folder(opt->dir)) != 0)
		store_why(s, "%s: %s", folder, strerror(errno));
out:
	free(folder);
	return r;
}

struct dbname {
	const char *name;
	MDB_dbi *dbi;
};

/* The journal numbers them in this order, from 1. */
static int dbs_open(struct csm_store *s, MDB_txn *txn, size_t *entries)
{
	const struct dbname dbs[] = {
		{"meta", &s->meta},
		{"scopes", &s->scopes},
		{"keys", &s->keys},
		{"certs", &s->certs},
		{"secrets", &s->secrets},
		{"requests", &s->requests},
		{"counts", &s->counts},
		{"serials", &s->serials},
		{"audit", &s->log},
	};
	size_t total = 0;
	MDB_stat st;
	int rc;

	for (size_t i = 0; i < sizeof(dbs) / sizeof(dbs[0]); i++) {
		if ((rc = mdb_dbi_open(txn, dbs[i].name, MDB_CREATE, dbs[i].dbi)) != 0 ||
			(rc = mdb_stat(txn, *dbs[i].dbi, &st)) != 0) {
			store_why(s, "database %s: %s", dbs[i].name, mdb_strerror(rc));
			return store_err(rc);
		}
		if (*dbs[i].dbi < STORE_DBS_MAX)
			s->number[*dbs[i].dbi] = (uint8_t)(i + 1);
		total += st.ms_entries;
	}
	*entries = total;
	return 0;
}

/* Schema first, before anything else is read: a newer one may have changed everything else. */
static int schema_check(struct csm_store *s, MDB_txn *txn, size_t entries)
{
	struct csm_bin v;
	int r = store_get(txn, s->meta, schema_name, &v);

	if (r == CSM_ENOT_FOUND && entries == 0) {
		s->fresh = true;
		return 0;
	}
	if (r != 0 || v.n != SCHEMA_LEN || memcmp(v.p, STORE_MAGIC, SCHEMA_LEN - 4) != 0) {
		store_why(s, "the folder holds something else, or its schema record is gone");
		return r != 0 && r != CSM_ENOT_FOUND ? r : CSM_ETAMPERED;
	}
	s->schema = get32(v.p + SCHEMA_LEN - 4);
	if (s->schema == 0 || s->schema > STORE_SCHEMA) {
		store_why(s, "the store has schema %u, this csmd knows %u", s->schema, STORE_SCHEMA);
		return CSM_EUNSUPPORTED;
	}
	r = store_root_mode(s, txn, &s->stored_mode);
	if (r != 0)
		store_why(s, "the record of the root key is missing or damaged");
	return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
}

/* Nothing that is there changes: with 2 a database of certificates came, with 3 issuers' keys and a database of serial numbers,
 * which an older csmd would take for damage; with 4 the journal, which it would leave out. So it has to know that it is too old. */
int store_schema_put(struct csm_store *s, MDB_txn *txn)
{
	uint8_t v[SCHEMA_LEN] = STORE_MAGIC;

	if (s->schema == STORE_SCHEMA)
		return 0;
	put32(v + SCHEMA_LEN - 4, STORE_SCHEMA);
	return store_put(s, txn, s->meta, schema_name, (struct csm_bin){v, sizeof(v)});
}

static int env_check(struct csm_store *s)
{
	MDB_txn *txn;
	size_t entries = 0;
	int rc, r;

	if ((rc = mdb_txn_begin(s->env, NULL, 0, &txn)) != 0) {
		store_why(s, "%s", mdb_strerror(rc));
		return store_err(rc);
	}
	if ((r = dbs_open(s, txn, &entries)) != 0 || (r = schema_check(s, txn, entries)) != 0) {
		mdb_txn_abort(txn);
		return r;
	}
	rc = mdb_txn_commit(txn);
	if (rc != 0)
		store_why(s, "%s", mdb_strerror(rc));
	return store_err(rc);
}

int csm_store_env_open(const struct csm_store_options *opt, struct csm_store **ret)
{
	struct csm_store *s;
	int r;

	if (opt->dir == NULL || opt->dir[0] != '/' || opt->map_size < MAP_MIN || opt->map_size > SIZE_MAX / 2)
		return CSM_EINVALID;
	if (sodium_init() < 0)
		return CSM_ESYSTEM;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return CSM_ENOMEM;
	s->lock_fd = -1;
	journal_init(s);
	s->why = opt->why;
	s->why_len = opt->why_len;
	s->map_size = opt->map_size;
	s->epoch_interval_s = opt->epoch_interval_s;
	s->tail = &s->head;
	s->lines_tail = &s->lines;
	s->no_sodium = opt->no_sodium;
	s->keep_journal = opt->keep_journal;
	s->lost = opt->lost;
	s->stat.schema = STORE_SCHEMA;
	s->stat.size = opt->map_size;
	s->stat_at = UINT64_MAX;
	pthread_mutex_init(&s->mu, NULL);
	pthread_mutex_init(&s->view_mu, NULL);
	if ((r = store_writer_init(s)) != 0) {
		free(s);
		return r;
	}
	s->dir = strdup(opt->dir);
	if (s->dir == NULL) {
		r = CSM_ENOMEM;
		goto out;
	}
	if ((r = aead_init(&s->aead, s->no_sodium)) != 0 || (r = env_make(s, opt)) != 0 || (r = env_check(s)) != 0)
		goto out;
	*ret = s;
	r = 0;
out:
	if (r != 0)
		csm_store_close(s);
	return r;
}

const char *csm_store_mode(const struct csm_store *s)
{
	return s->stored_mode;
}

/* ---- with the root key ---- */

static int counter_read(struct csm_store *s)
{
	int r;

	s->counter = 0;
	if (s->root.counter_read == NULL || s->root.counter_increment == NULL) {
		s->root.counter_increment = NULL;
		return 0;
	}
	r = s->root.counter_read(s->root.arg, &s->counter);
	if (r == 0)
		return 0;
	store_why(s, "the counter beside the store cannot be read (%s)", csm_err_text(r));
	return CSM_EUNAVAILABLE;
}

static int root_make(struct csm_store *s, MDB_txn *txn, struct root *root)
{
	*root = (struct root){.created = (uint64_t)time(NULL)};
	randombytes_buf(root->set_key, sizeof(root->set_key));
	return store_root_key_make(s, txn);
}

static bool is_new_device(const struct csm_store *s)
{
	return s->root.recovery != NULL && s->root.recovery->new_device;
}

/* Is what was found whole? Fills s->damaged; an error only where that cannot be said. */
static int root_check(struct csm_store *s, MDB_txn *txn, struct root *root)
{
	uint8_t pins[SUM_LEN];
	struct names *bad = store_names_new(NULL);
	int r = CSM_ENOMEM;

	if (bad == NULL)
		return r;
	store_names_free(s->damaged); /* of an attempt before */
	s->damaged = bad;
	r = store_root_read(s, txn, &s->aead, root);
	if (r == CSM_ETAMPERED) {
		store_names_add(bad, NULL, "root");
		return 0;
	}
	if (r != 0)
		return r;
	if ((r = journal_replay(s, txn, root->generation)) == CSM_ETAMPERED)
		store_names_add(bad, NULL, "root");
	else if (r != 0)
		return r;
	if ((r = store_root_read(s, txn, &s->aead, root)) != 0 || (r = store_scan_check(s, txn, root, bad)) != 0 ||
		(r = store_pins_sum(s, txn, root, pins)) != 0)
		return r;
	if (sodium_memcmp(pins, root->pins, SUM_LEN) != 0)
		store_names_add(bad, NULL, "root");
	if (!is_new_device(s) && root->counted && s->root.counter_increment != NULL && root->epoch != s->counter &&
		root->epoch != s->counter + 1)
		store_names_add(bad, NULL, "root");
	return 0;
}

static int root_start(struct csm_store *s, MDB_txn *txn, struct root *root)
{
	int r;

	if ((r = store_schema_put(s, txn)) != 0 || (r = store_early_pins(s, txn, root)) != 0)
		return r;
	(void)store_root_epoch_next(s, root);
	return store_root_write(s, txn, &s->aead, root);
}

/* A crash between commit and increment leaves the store one ahead; the counter catches up first. */
static int counter_catch_up(struct csm_store *s, const struct root *root)
{
	int r;

	if (!root->counted)
		return 0;
	if (is_new_device(s) && !s->ready_to_count) /* the next epoch goes by the new counter */
		return 0;
	s->epoch = root->epoch;
	r = store_root_counter_follow(s);
	if (r != 0)
		store_why(s, "the counter beside the store cannot be raised (%s)", csm_err_text(r));
	return r;
}

static int root_open(struct csm_store *s, MDB_txn *txn, struct root *root)
{
	int r;

	if ((r = counter_read(s)) != 0)
		return r;
	if (s->fresh)
		return (r = root_make(s, txn, root)) != 0 ? r : root_start(s, txn, root);
	if ((r = store_root_key_get(s, txn)) != 0 || (r = root_check(s, txn, root)) != 0)
		return r;
	if (is_new_device(s) && (r = store_lost_all(s, txn, s->damaged->n > 0 ? NULL : root, s->root.recovery->backend,
					 s->root.recovery->lost)) != 0)
		return r;
	if (s->damaged->n > 0) {
		atomic_store(&s->locked, true);
		return is_new_device(s) ? store_early_pins(s, txn, NULL) : 0;
	}
	return (r = counter_catch_up(s, root)) != 0 ? r : root_start(s, txn, root);
}

int csm_store_root_open(struct csm_store *s, const struct csm_root_source *source)
{
	CSM_WIPED(mem, sizeof(struct root));
	struct root *root = (struct root *)mem;
	uint64_t n_lost = 0;
	MDB_txn *txn;
	int rc, r;

	if (s->ready || source->unwrap == NULL || source->mode == NULL)
		return CSM_ESTATE;
	s->root = *source;
	free(s->mode);
	s->mode = strdup(source->mode);
	if (s->mode == NULL)
		return CSM_ENOMEM;
	if ((rc = mdb_txn_begin(s->env, NULL, 0, &txn)) != 0)
		return store_err(rc);
	r = root_open(s, txn, root);
	if (r != 0) {
		mdb_txn_abort(txn);
		goto out;
	}
	if ((r = store_commit_err(s, mdb_txn_commit(txn))) != 0)
		goto out;
	store_early_done(s, true);
	csm_journal_restart(&s->journal, NULL);
	if (!csm_store_locked(s))
		(void)csm_journal_erase(&s->journal); /* what it has is older than what is committed now */
	s->fresh = false; /* whatever comes: the root key is in it now */
	if (!csm_store_locked(s)) {
		s->schema = STORE_SCHEMA;
		s->epoch = root->epoch;
		s->ready_to_count = true;
		if ((r = counter_catch_up(s, root)) != 0)
			goto out;
	}
	s->ready = true;
	s->why = NULL;
	s->epoch_raised = store_monotonic();
	atomic_store(&s->any_lost, csm_store_lost(s, &n_lost) != 0 || n_lost > 0);
	s->audit_seq = root->audit_seq;
	memcpy(s->audit_head, root->audit_head, sizeof(s->audit_head));
	store_totals(s, root);
	r = 0;
out:
	s->root.recovery = NULL; /* whoever gave it takes it back */
	if (r != 0) {
		store_early_done(s, false);
		sodium_free(s->sub);
		s->sub = NULL;
	}
	return r;
}

int csm_store_open(const struct csm_store_options *opt, struct csm_store **ret)
{
	struct csm_store *s;
	int r;

	if ((r = csm_store_env_open(opt, &s)) != 0)
		return r;
	if ((r = csm_store_root_open(s, &opt->root)) != 0) {
		csm_store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void csm_store_close(struct csm_store *s)
{
	if (s == NULL)
		return;
	store_writer_free(s);
	if (s->env != NULL)
		mdb_env_close(s->env);
	view_unref(s->next_view);
	store_lines_free(s);
	journal_close(s);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	aead_free(&s->aead);
	sodium_free(s->sub);
	for (struct pin *p = s->early, *next; p != NULL; p = next) {
		next = p->next;
		free(p);
	}
	store_names_free(s->damaged);
	store_names_free(s->removed);
	pthread_mutex_destroy(&s->view_mu);
	pthread_mutex_destroy(&s->mu);
	free(s->stored_mode);
	free(s->mode);
	free(s->dir);
	free(s);
}
