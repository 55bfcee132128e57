/* csm-server's database with many certificates: how long a filtered page takes while others issue, and the list of what is revoked;
 * how much memory the process holds.
 *
 * usage: inventory DIR CERTIFICATES      prints one JSON object */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/pki/crl.h"
#include "tests/lib/dbfix.h"

#define WRITERS 8u
#define PAGES 200u

static struct central_db *db;
static atomic_ulong at;
static unsigned long until;
static atomic_bool stop;

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "inventory: %s\n", what);
		exit(1);
	}
}

static double clock_ms(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double resident_mib(void)
{
	return (double)dbfix_resident(false) / 1048576;
}

static void *issue(void *arg)
{
	struct csm_buf out;

	(void)arg;
	csm_buf_init(&out, 64, false);
	for (;;) {
		unsigned long i = atomic_fetch_add(&at, 1);
		struct dbfix_cert c;
		bool replayed;

		if (i >= until || atomic_load(&stop))
			break;
		dbfix_cert(&c, i);
		must(db_issue(db, &(struct db_issue){.cert = &c.c, .now = DBFIX_NOW}, &replayed, &out) == 0, "issue");
	}
	csm_buf_free(&out);
	return NULL;
}

static void *revoke(void *arg)
{
	(void)arg;
	for (;;) {
		unsigned long i = atomic_fetch_add(&at, 1) * 10;
		struct dbfix_cert c;

		if (i >= until)
			return NULL;
		dbfix_cert(&c, i);
		must(db_revoke(db, c.c.serial, CSM_REASON_SUPERSEDED, DBFIX_NOW, CSM_STR("b")) == 0, "revoke");
	}
}

static double in_threads(void *(*fn)(void *), unsigned long n)
{
	pthread_t t[WRITERS];
	double began = clock_ms(CLOCK_MONOTONIC);

	atomic_store(&at, 0);
	until = n;
	for (size_t i = 0; i < WRITERS; i++)
		must(pthread_create(&t[i], NULL, fn, NULL) == 0, "thread");
	for (size_t i = 0; i < WRITERS; i++)
		pthread_join(t[i], NULL);
	return clock_ms(CLOCK_MONOTONIC) - began;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Pages one after the other, from the first again when they are at an end. */
static void pages(const char *name, const struct db_filter *f, double *most, const char *comma)
{
	double ms[PAGES], cpu[PAGES], began, cpu_began;
	struct csm_pool pool;
	char cursor[128];
	struct csm_str next = {"", 0};
	size_t n, told = 0;
	struct db_cert *v;

	csm_pool_init(&pool, 8u << 20);
	for (size_t i = 0; i < PAGES; i++) {
		csm_pool_reset(&pool);
		began = clock_ms(CLOCK_MONOTONIC);
		cpu_began = clock_ms(CLOCK_THREAD_CPUTIME_ID);
		must(db_cert_list(db, f, next, 100, &pool, &v, &n, &next) == 0, "list");
		ms[i] = clock_ms(CLOCK_MONOTONIC) - began;
		cpu[i] = clock_ms(CLOCK_THREAD_CPUTIME_ID) - cpu_began;
		told += n;
		memcpy(cursor, next.p, next.n);
		next.p = cursor;
	}
	csm_pool_free(&pool);
	qsort(ms, PAGES, sizeof(ms[0]), by_size);
	qsort(cpu, PAGES, sizeof(cpu[0]), by_size);
	*most = resident_mib() > *most ? resident_mib() : *most;
	printf("\"%s\": {\"p50_ms\": %.2f, \"p95_ms\": %.2f, \"max_ms\": %.2f, \"p95_cpu_ms\": %.2f, \"told\": %zu}%s", name,
		ms[PAGES / 2], ms[PAGES * 95 / 100], ms[PAGES - 1], cpu[PAGES * 95 / 100], told, comma);
}

static bool count(void *arg, const struct db_revoked *r)
{
	(void)r;
	++*(size_t *)arg;
	return true;
}

static void measure(void)
{
	const uint64_t late = DBFIX_NOW + 125000;
	const struct { const char *name; struct db_filter f; } f[] = {
		{"all", {.now = 1}},
		{"node", {.node = CSM_STR("node7")}},
		{"name", {.name = CSM_STR("host4242.example")}},
		{"name_glob", {.name = CSM_STR("*42.example")}},
		{"name_glob_of_none", {.name = CSM_STR("*no such name*")}},
		{"san_glob", {.san = CSM_STR("uri:spiffe://td/77*")}},
		{"requester", {.requester = CSM_STR("cert 3")}},
		{"requester_of_a_node", {.requester = CSM_STR("cert 3"), .node = CSM_STR("node4")}},
		{"profile", {.profile = CSM_STR("rare")}},
		{"revoked", {.state = CSM_STR("revoked")}},
		{"valid", {.state = CSM_STR("valid"), .now = late}},
		{"expired", {.state = CSM_STR("expired"), .now = late}},
		{"expires", {.expires_after = late, .expires_before = late + 5000}},
		{"expires_profile", {.expires_after = late, .profile = CSM_STR("rare")}},
	};
	size_t n = sizeof(f) / sizeof(f[0]), revoked = 0;
	double most = 0, began;

	printf("\"pages\": {");
	for (size_t i = 0; i < n; i++)
		pages(f[i].name, &f[i].f, &most, i + 1 < n ? ", " : "}, ");
	began = clock_ms(CLOCK_MONOTONIC);
	must(db_revoked_each(db, CSM_STR("default"), 0, DBFIX_NOW, count, &revoked) == 0, "revoked");
	printf("\"revoked\": {\"n\": %zu, \"ms\": %.1f}, ", revoked, clock_ms(CLOCK_MONOTONIC) - began);
	most = resident_mib() > most ? resident_mib() : most;
	printf("\"resident_mib\": %.1f, ", most);
}

int main(int argc, char **argv)
{
	static const uint8_t key[DB_KEY_LEN] = {1};
	static char why[256] = "?";
	const struct db_options opt = {.dir = argc > 1 ? argv[1] : "", .map_size = (size_t)16 << 30, .key = key, .why = why,
		.why_len = sizeof(why)};
	unsigned long n;
	struct db_stat st;
	pthread_t t[2];
	double ms;

	must(argc == 3, "usage: inventory DIR CERTIFICATES");
	n = strtoul(argv[2], NULL, 10);
	must(db_open(&opt, &db) == 0, why);
	ms = in_threads(issue, n);
	printf("{\"certificates\": %lu, \"issued_per_s\": %.0f, ", n, (double)n * 1e3 / ms);
	ms = in_threads(revoke, n);
	printf("\"revoked_per_s\": %.0f, ", (double)n / 10 * 1e3 / ms);
	atomic_store(&at, n);
	until = 2 * n;
	for (size_t i = 0; i < 2; i++)
		must(pthread_create(&t[i], NULL, issue, NULL) == 0, "thread");
	measure();
	atomic_store(&stop, true);
	for (size_t i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	db_stat(db, &st);
	printf("\"issued_meanwhile\": %lu, \"bytes\": %llu}\n", atomic_load(&at) - n, (unsigned long long)st.used);
	db_close(db);
	return 0;
}
