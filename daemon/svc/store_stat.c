/* What status tells: names of damaged records, totals, room. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/lmdb_file.h"
#include "daemon/svc/store_internal.h"

#define LOW_PERCENT 90u
#define LOW_DISK (64u * 1024u * 1024u)
#define NO_DISK (4u * 1024u * 1024u)

struct names *store_names_new(struct names *older)
{
	struct names *n = calloc(1, sizeof(*n));

	if (n != NULL)
		n->older = older;
	return n;
}

void store_names_drop(struct names *names)
{
	if (names != NULL)
		names->older = NULL;
	store_names_free(names);
}

void store_names_free(struct names *names)
{
	while (names != NULL) {
		struct names *older = names->older;

		for (size_t i = 0; i < names->n; i++)
			free(names->v[i]);
		free(names);
		names = older;
	}
}

/* "ns:domain/name", "ns:domain", "ns:key" or "ns:"; NULL where a name is not one that csm gives. */
static char *parts_text(const struct dbparts *p)
{
	char *text = NULL;
	bool both = p->domain.n > 0 && p->name.n > 0;

	if (!csm_namespace_valid(p->ns) || (p->domain.n > 0 && !csm_name_valid(p->domain)) ||
		(p->name.n > 0 && !csm_name_valid(p->name)))
		return NULL;
	if (asprintf(&text, "%.*s:%.*s%s%.*s", (int)p->ns.n, p->ns.p, (int)p->domain.n,
		    p->domain.n > 0 ? p->domain.p : "", both ? "/" : "", (int)p->name.n,
		    p->name.n > 0 ? p->name.p : "") < 0)
		return NULL;
	return text;
}

void store_names_add(struct names *names, const struct dbparts *parts, const char *text)
{
	char *own = NULL;

	if (parts != NULL)
		own = parts_text(parts);
	if (own == NULL)
		own = strdup(parts != NULL ? "root" : text);
	if (own == NULL)
		return;
	for (size_t i = 0; i < names->n; i++) {
		if (strcmp(names->v[i], own) == 0) {
			free(own);
			return;
		}
	}
	if (names->n == sizeof(names->v) / sizeof(names->v[0])) {
		free(own);
		return;
	}
	names->v[names->n++] = own;
}

void store_totals(struct csm_store *s, const struct root *root)
{
	pthread_mutex_lock(&s->mu);
	s->stat.epoch = root->epoch;
	s->stat.keys = root->n_keys;
	s->stat.domains = root->n_domains;
	s->stat.secrets = root->n_secrets;
	pthread_mutex_unlock(&s->mu);
}

bool store_disk_low(struct csm_store *s)
{
	return csm_lmdb_disk_left(s->env) < LOW_DISK;
}

/* In a transaction of its own: LMDB shows its list of free pages to readers only. */
int store_used(struct csm_store *s, uint64_t *ret)
{
	MDB_envinfo info;
	MDB_stat st;
	MDB_txn *txn;
	int rc;

	if ((rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn)) != 0)
		return store_err(rc);
	if ((rc = mdb_env_info(s->env, &info)) == 0 && (rc = mdb_env_stat(s->env, &st)) == 0)
		*ret = (uint64_t)(info.me_last_pgno + 1 - csm_lmdb_free_pages(txn)) * st.ms_psize;
	mdb_txn_abort(txn);
	return store_err(rc);
}

void csm_store_stat(struct csm_store *s, struct csm_store_stat *ret)
{
	uint64_t now = store_monotonic(), used = 0;
	bool low = false, known = false;

	pthread_mutex_lock(&s->mu);
	if (s->stat_at != now) {
		s->stat_at = now;
		pthread_mutex_unlock(&s->mu);
		known = store_used(s, &used) == 0;
		low = used >= s->map_size / 100 * LOW_PERCENT || store_disk_low(s);
		pthread_mutex_lock(&s->mu);
	}
	if (known) {
		s->stat.used = used;
		s->stat.low_space = low;
	}
	*ret = s->stat;
	if (s->damaged != NULL && s->damaged->n > 0) {
		ret->damaged = (const char *const *)s->damaged->v;
		ret->n_damaged = s->damaged->n;
	}
	if (s->removed != NULL) {
		ret->removed = (const char *const *)s->removed->v;
		ret->n_removed = s->removed->n;
	}
	pthread_mutex_unlock(&s->mu);
}

bool csm_store_locked(const struct csm_store *s)
{
	return atomic_load_explicit(&s->locked, memory_order_acquire);
}

/* LMDB cannot know what the disk has when its last write fails, and refuses all further work. */
static bool env_lost(struct csm_store *s)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

	if (rc == 0)
		mdb_txn_abort(txn);
	return rc == MDB_PANIC;
}

/* A disk that fills in the middle of a write is told by LMDB as EIO. */
int store_commit_err(struct csm_store *s, int rc)
{
	if (rc != 0 && s->lost != NULL && env_lost(s))
		s->lost();
	if (rc == EIO && csm_lmdb_disk_left(s->env) < NO_DISK)
		rc = ENOSPC;
	return store_err(rc);
}
