#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "tests/lib/storefix.h"

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "storefix: %s\n", what);
		abort();
	}
}

static int fix_wrap(void *arg, const uint8_t key[static 32], struct csm_plugin_out *out)
{
	struct storefix *f = arg;

	if (out->cap < 32)
		return CSM_ETOO_LARGE;
	memcpy(f->root_key, key, 32);
	for (size_t i = 0; i < 32; i++)
		out->p[i] = (uint8_t)(key[i] ^ 0xa5);
	out->len = 32;
	return 0;
}

static int fix_unwrap(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32])
{
	struct storefix *f = arg;

	if (f->unwrap_fails || n != 32)
		return CSM_EUNAVAILABLE;
	for (size_t i = 0; i < 32; i++)
		key[i] = (uint8_t)(wrapped[i] ^ 0xa5);
	return 0;
}

static int fix_counter_read(void *arg, uint64_t *ret)
{
	struct storefix *f = arg;

	if (f->counter_fails)
		return CSM_EBACKEND;
	*ret = f->counter;
	return 0;
}

static int fix_counter_increment(void *arg, uint64_t *ret)
{
	struct storefix *f = arg;

	if (f->counter_fails || f->increment_fails)
		return CSM_EBACKEND;
	f->increments++;
	*ret = ++f->counter;
	if (f->counter_answer_lost) {
		f->counter_answer_lost = false;
		return CSM_EUNAVAILABLE;
	}
	return 0;
}

void storefix_init(struct storefix *f)
{
	*f = (struct storefix){.dir = "/tmp/csm-store-XXXXXX"};
	must(mkdtemp(f->dir) != NULL, "mkdtemp");
	f->opt = (struct csm_store_options){
		.dir = f->dir,
		.map_size = 256u << 20,
		.epoch_interval_s = 600,
		.root = {.mode = "file", .wrap = fix_wrap, .unwrap = fix_unwrap},
		.why_len = sizeof(f->why),
	};
}

int storefix_open(struct storefix *f)
{
	f->opt.root.arg = f;
	f->opt.why = f->why;
	f->why[0] = '\0';
	f->opt.root.counter_read = f->with_counter ? fix_counter_read : NULL;
	f->opt.root.counter_increment = f->with_counter ? fix_counter_increment : NULL;
	f->open_r = csm_store_open(&f->opt, &f->s);
	if (f->open_r != 0) {
		f->s = NULL;
		return f->open_r;
	}
	must(csm_store_start(f->s) == 0, "csm_store_start");
	must(csm_reader_new(f->s, &f->r) == 0, "csm_reader_new");
	return 0;
}

void storefix_close(struct storefix *f)
{
	csm_reader_free(f->r);
	csm_store_close(f->s);
	f->r = NULL;
	f->s = NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void storefix_free(struct storefix *f)
{
	storefix_close(f);
	(void)nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int storefix_setup(void **state)
{
	static struct storefix f;

	storefix_init(&f);
	*state = &f;
	return storefix_open(&f);
}

int storefix_teardown(void **state)
{
	storefix_free(*state);
	return 0;
}

struct waiter {
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool done;
};

static void op_done(struct csm_store_op *op)
{
	struct waiter *w = op->arg;

	pthread_mutex_lock(&w->mu);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->mu);
}

int storefix_do(struct storefix *f, struct csm_store_op *op)
{
	struct waiter w = {.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	int r;

	op->done = op_done;
	op->arg = &w;
	op->r = CSM_EINTERNAL;
	if ((r = csm_store_submit(f->s, op)) != 0)
		return r;
	pthread_mutex_lock(&w.mu);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.mu);
	pthread_mutex_unlock(&w.mu);
	return op->r;
}

int storefix_domain(struct storefix *f, const char *ns, const char *domain)
{
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE, .ns = csm_str_of(ns), .name = csm_str_of(domain)};

	return storefix_do(f, &op);
}

int storefix_set(struct storefix *f, const char *ns, const char *domain, const char *name, const char *value)
{
	struct csm_store_op op = {
		.kind = CSM_OP_SECRET_SET,
		.ns = csm_str_of(ns),
		.name = csm_str_of(domain),
		.secret = csm_str_of(name),
		.payload = {(const uint8_t *)value, strlen(value)},
	};

	return storefix_do(f, &op);
}

int storefix_get(struct storefix *f, const char *ns, const char *domain, const char *name, uint64_t version,
	char buf[static 256])
{
	uint64_t got = 0, created = 0;
	struct csm_buf out;
	int r;

	csm_buf_init(&out, 65536, true);
	if ((r = csm_reader_begin(f->r)) != 0)
		return r;
	r = csm_store_secret_get(
		f->r, csm_str_of(ns), csm_str_of(domain), csm_str_of(name), version, &out, &got, &created);
	csm_reader_end(f->r);
	if (r == 0) {
		must(out.len < 256, "value too long");
		must(version == 0 || got == version, "version");
		must(created > 0, "created");
		memcpy(buf, csm_buf_ptr(&out), out.len);
		buf[out.len] = '\0';
	}
	csm_buf_free(&out);
	return r;
}

int storefix_key(struct storefix *f, const char *ns, const char *name, const char *priv)
{
	struct csm_store_op op = {
		.kind = CSM_OP_KEY_CREATE,
		.ns = csm_str_of(ns),
		.name = csm_str_of(name),
		.key =
			{
				.backend = CSM_STR("soft"),
				.alg = CSM_ALG_P256,
				.use = CSM_USE_SIGN,
				.protection = CSM_STR("sealed"),
				.spki = {(const uint8_t *)"the spki", 8},
				.pub = {(const uint8_t *)"the pub", 7},
				.priv = {(const uint8_t *)priv, strlen(priv)},
			},
	};

	return storefix_do(f, &op);
}

static bool bin_is(struct csm_bin b, const char *text)
{
	return b.n == strlen(text) && memcmp(b.p, text, b.n) == 0;
}

int storefix_key_get(struct storefix *f, const char *ns, const char *name, const char *priv, struct csm_key_record *rec)
{
	struct csm_buf buf;
	int r;

	csm_buf_init(&buf, 65536, true);
	must(csm_reader_begin(f->r) == 0, "begin");
	r = csm_store_key_get(f->r, csm_str_of(ns), csm_str_of(name), priv != NULL, &buf, rec);
	if (r == 0) {
		must(csm_str_eq(rec->backend, "soft") && csm_str_eq(rec->protection, "sealed"), "names of a key");
		must(rec->alg == CSM_ALG_P256 && rec->use == CSM_USE_SIGN && !rec->exportable, "uses of a key");
		must(rec->created > 1600000000, "time of a key");
		must(bin_is(rec->spki, "the spki") && bin_is(rec->pub, "the pub"), "public parts of a key");
		must(priv != NULL ? bin_is(rec->priv, priv) : rec->priv.p == NULL, "private part of a key");
	}
	csm_reader_end(f->r);
	csm_buf_free(&buf);
	return r;
}

void storefix_sleep_ms(unsigned ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

bool storefix_damaged(struct storefix *f, const char *text)
{
	struct csm_store_stat st;

	csm_store_stat(f->s, &st);
	for (size_t i = 0; i < st.n_damaged; i++) {
		if (strcmp(st.damaged[i], text) == 0)
			return true;
	}
	return false;
}

size_t storefix_n_damaged(struct storefix *f)
{
	struct csm_store_stat st;

	csm_store_stat(f->s, &st);
	return st.n_damaged;
}

/* ---- plain LMDB ---- */

void raw_open(struct storefix *f, struct rawstore *w)
{
	const struct {
		const char *name;
		MDB_dbi *dbi;
	} dbs[] = {{"meta", &w->meta}, {"scopes", &w->scopes}, {"keys", &w->keys}, {"certs", &w->certs},
		{"secrets", &w->secrets},
		{"requests", &w->requests}, {"counts", &w->counts}};
	char path[96];

	snprintf(path, sizeof(path), "%s/store", f->dir);
	must(mdb_env_create(&w->env) == 0 && mdb_env_set_maxdbs(w->env, 8) == 0 &&
			mdb_env_set_mapsize(w->env, 1u << 30) == 0 && mdb_env_open(w->env, path, 0, 0600) == 0,
		"raw open");
	must(mdb_txn_begin(w->env, NULL, 0, &w->txn) == 0, "raw begin");
	for (size_t i = 0; i < sizeof(dbs) / sizeof(dbs[0]); i++)
		must(mdb_dbi_open(w->txn, dbs[i].name, MDB_CREATE, dbs[i].dbi) == 0, "raw dbi");
}

void raw_close(struct rawstore *w)
{
	must(mdb_txn_commit(w->txn) == 0, "raw commit");
	mdb_env_close(w->env);
}

uint8_t *raw_get(struct rawstore *w, MDB_dbi dbi, const void *key, size_t n, size_t *len)
{
	MDB_val k = {n, (void *)(uintptr_t)key}, v;
	uint8_t *copy;

	if (mdb_get(w->txn, dbi, &k, &v) != 0)
		return NULL;
	copy = malloc(v.mv_size > 0 ? v.mv_size : 1);
	must(copy != NULL, "malloc");
	memcpy(copy, v.mv_data, v.mv_size);
	*len = v.mv_size;
	return copy;
}

void raw_put(struct rawstore *w, MDB_dbi dbi, const void *key, size_t n, const void *p, size_t len)
{
	MDB_val k = {n, (void *)(uintptr_t)key}, v = {len, (void *)(uintptr_t)p};

	must(mdb_put(w->txn, dbi, &k, &v, 0) == 0, "raw put");
}

void raw_del(struct rawstore *w, MDB_dbi dbi, const void *key, size_t n)
{
	MDB_val k = {n, (void *)(uintptr_t)key};

	must(mdb_del(w->txn, dbi, &k, NULL) == 0, "raw del");
}

size_t raw_secret_key(uint8_t out[static 511], const char *ns, const char *domain, const char *name, uint64_t v)
{
	size_t n = 0;
	const char *parts[] = {ns, domain, name};

	for (int i = 0; i < 3; i++) {
		memcpy(out + n, parts[i], strlen(parts[i]) + 1);
		n += strlen(parts[i]) + 1;
	}
	for (int i = 0; i < 8; i++)
		out[n++] = (uint8_t)(~v >> (56 - 8 * i));
	return n;
}

void store_copy(struct storefix *f, const char *from, const char *to)
{
	char a[160], b[160], block[65536];
	size_t n;
	FILE *in, *out;

	snprintf(a, sizeof(a), "%s/%s", f->dir, from);
	snprintf(b, sizeof(b), "%s/%s", f->dir, to);
	in = fopen(a, "rb");
	out = fopen(b, "wb");
	must(in != NULL && out != NULL, "copy");
	while ((n = fread(block, 1, sizeof(block), in)) > 0)
		must(fwrite(block, 1, n, out) == n, "copy");
	fclose(in);
	must(fclose(out) == 0, "copy");
}
