/* How fast the store is: reads, durable writes, opening. `store_bench [records]`, 100,000 by default. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/base/lockmem.h"
#include "tests/lib/storefix.h"

#define VALUE 64u
#define DOMAINS 100u

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct {
	pthread_mutex_t mu;
	pthread_cond_t cond;
	size_t in_flight;
	size_t failed;
} gate = {.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

struct write_op {
	struct csm_store_op op;
	char domain[32], name[32];
	uint8_t value[VALUE];
	bool busy;
};

static void write_done(struct csm_store_op *op)
{
	struct write_op *w = op->arg;

	pthread_mutex_lock(&gate.mu);
	gate.failed += op->r != 0;
	gate.in_flight--;
	w->busy = false;
	pthread_cond_signal(&gate.cond);
	pthread_mutex_unlock(&gate.mu);
}

/* n sets with at most `depth` in flight; the seconds they take. */
static double put_many(struct storefix *f, size_t n, size_t depth, const char *prefix)
{
	struct write_op *ops = calloc(depth, sizeof(*ops));
	double start = now();

	if (ops == NULL)
		abort();
	for (size_t i = 0; i < n; i++) {
		struct write_op *w = NULL;

		pthread_mutex_lock(&gate.mu);
		while (gate.in_flight == depth)
			pthread_cond_wait(&gate.cond, &gate.mu);
		for (size_t j = 0; w == NULL; j++)
			w = ops[j].busy ? NULL : &ops[j];
		w->busy = true;
		gate.in_flight++;
		pthread_mutex_unlock(&gate.mu);
		snprintf(w->domain, sizeof(w->domain), "domain-%zu", i % DOMAINS);
		snprintf(w->name, sizeof(w->name), "%s-%zu", prefix, i);
		memset(w->value, (int)i, VALUE);
		w->op = (struct csm_store_op){.kind = CSM_OP_SECRET_SET,
			.ns = CSM_STR("bench"),
			.name = csm_str_of(w->domain),
			.secret = csm_str_of(w->name),
			.payload = {w->value, VALUE},
			.done = write_done,
			.arg = w};
		if (csm_store_submit(f->s, &w->op) != 0)
			abort();
	}
	pthread_mutex_lock(&gate.mu);
	while (gate.in_flight > 0)
		pthread_cond_wait(&gate.cond, &gate.mu);
	pthread_mutex_unlock(&gate.mu);
	free(ops);
	return now() - start;
}

static void bench_get(struct storefix *f, size_t records, size_t n)
{
	struct csm_buf out;
	uint64_t version, created;
	char domain[32], name[32];
	double start = now();

	csm_buf_init(&out, 65536, true);
	for (size_t i = 0; i < n; i++) {
		size_t at = (i * 7919) % records;

		snprintf(domain, sizeof(domain), "domain-%zu", at % DOMAINS);
		snprintf(name, sizeof(name), "s-%zu", at);
		csm_buf_reset(&out);
		if (csm_reader_begin(f->r) != 0 ||
			csm_store_secret_get(f->r, CSM_STR("bench"), csm_str_of(domain), csm_str_of(name), 0, &out,
				&version, &created) != 0)
			abort();
		csm_reader_end(f->r);
	}
	printf("secret get, %u bytes (renew, get, reset): %8.0f ns\n", VALUE, (now() - start) / (double)n * 1e9);
	csm_buf_free(&out);
}

static void bench_key(struct storefix *f, size_t n, bool priv)
{
	struct csm_key_record rec;
	struct csm_buf out;
	double start = now();

	csm_buf_init(&out, 65536, true);
	for (size_t i = 0; i < n; i++) {
		if (csm_reader_begin(f->r) != 0 ||
			csm_store_key_get(f->r, CSM_STR("bench"), CSM_STR("key"), priv, &out, &rec) != 0)
			abort();
		csm_reader_end(f->r);
	}
	printf("key get%s: %8.0f ns\n", priv ? " with private part" : "", (now() - start) / (double)n * 1e9);
	csm_buf_free(&out);
}

int main(int argc, char **argv)
{
	size_t records = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
	static const size_t depths[] = {1, 8, 64, 256};
	struct storefix f;
	char name[32];
	double t;

	if (records == 0 || csm_lockmem_init(4u << 20) != 0)
		return 1;
	storefix_init(&f);
	f.opt.map_size = (size_t)4 << 30;
	if (storefix_open(&f) != 0)
		return 1;
	for (size_t i = 0; i < DOMAINS; i++) {
		snprintf(name, sizeof(name), "domain-%zu", i);
		if (storefix_domain(&f, "bench", name) != 0)
			return 1;
	}
	if (storefix_key(&f, "bench", "key",
		    "a private part of a usual length, 121 bytes or so..........................................................") !=
		0)
		return 1;
	t = put_many(&f, records, 256, "s");
	printf("%zu secrets in %.1f s, %zu failed\n", records, t, gate.failed);
	storefix_close(&f);
	for (int i = 0; i < 3; i++) {
		struct csm_store *s;

		t = now();
		if (csm_store_open(&f.opt, &s) != 0)
			return 1;
		printf("open and check %zu records: %6.1f ms\n", records, (now() - t) * 1e3);
		csm_store_close(s);
	}
	if (storefix_open(&f) != 0)
		return 1;
	bench_get(&f, records, 500000);
	bench_get(&f, 1000, 500000);
	bench_key(&f, 500000, false);
	bench_key(&f, 500000, true);
	for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		size_t n = depths[i] == 1 ? 2000 : 20000;

		snprintf(name, sizeof(name), "d%zu", depths[i]);
		t = put_many(&f, n, depths[i], name);
		printf("durable sets, %3zu in flight: %8.0f a second\n", depths[i], (double)n / t);
	}
	storefix_free(&f);
	return gate.failed != 0;
}
