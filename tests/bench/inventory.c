/* csm-server's database with many certificates.
 *
 * usage: inventory fill DIR FROM TO TIME  certificates FROM to TO in a database whose key the csmd at CSM_SOCKET opens, as they are there
 *                                         at TIME: what they are follows from their numbers, tests/lib/manycerts.py says how
 *        inventory pages DIR N            a new database of N: what a page costs by itself, without HTTP, while others issue; what the list
 *                                         of revoked ones costs; the memory of this process
 *
 * Prints one JSON object. */
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "daemon/pki/crl.h"
#include "libclient/base/lockmem.h"
#include "libclient/include/csm/csm.h"
#include "tests/lib/dbfix.h"

#define WRITERS 64u /* as many share a commit */
#define REVOKED 10u  /* one of so many */
#define EXPIRED 20u  /* likewise; none is both */
#define PAGES 200u

static struct central_db *db;
static atomic_ulong at;
static unsigned long until;
static uint64_t now; /* 0: DBFIX_NOW, and certificates as dbfix_cert makes them */
static atomic_bool stop, filling;

/* In the place of the C library's, for LMDB: what is filled here need not outlive a power cut, and syncs would be all of its time. */
__attribute__((visibility("default"))) int fdatasync(int fd)
{
	return atomic_load(&filling) ? 0 : (int)syscall(SYS_fdatasync, fd);
}

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

/* Certificate i of a fill: the highest was issued last, just now. */
static void make(struct dbfix_cert *c, uint64_t i)
{
	dbfix_cert(c, i);
	if (now == 0)
		return;
	c->c.issued = now - 100000 + i / 100;
	c->c.not_before = c->c.issued;
	c->c.not_after = i % EXPIRED == EXPIRED - 1 ? now - 1000 - i % 5000 : now + 100000 + 60 * (i % 50000);
}

static void *issue_all(void *arg)
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
		make(&c, i);
		must(db_issue(db, &(struct db_issue){.cert = &c.c, .now = c.c.issued}, &replayed, &out) == 0, "issue");
	}
	csm_buf_free(&out);
	return NULL;
}

static void *revoke_all(void *arg)
{
	(void)arg;
	for (;;) {
		unsigned long i = atomic_fetch_add(&at, 1);
		struct dbfix_cert c;

		if (i >= until)
			return NULL;
		if (i % REVOKED != 0)
			continue;
		make(&c, i);
		must(db_revoke(db, c.c.serial, CSM_REASON_SUPERSEDED, now != 0 ? now - 5000 : DBFIX_NOW, CSM_STR("b")) == 0, "revoke");
	}
}

/* Milliseconds for numbers from to n. */
static double in_threads(void *(*fn)(void *), unsigned long from, unsigned long n)
{
	pthread_t t[WRITERS];
	double began = clock_ms(CLOCK_MONOTONIC);

	atomic_store(&at, from);
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

static void start(const char *dir, const uint8_t key[static DB_KEY_LEN])
{
	static char why[256] = "?";
	const struct db_options opt = {.dir = dir, .map_size = (size_t)16 << 30, .key = key, .why = why, .why_len = sizeof(why)};

	must(db_open(&opt, &db) == 0, why);
}

static void fill(const char *dir, unsigned long from, unsigned long n, const char *time)
{
	CSM_WIPED(key, DB_KEY_LEN);
	struct csm *csm;
	double ms;

	now = strtoull(time, NULL, 10);
	must(from < n && n <= 10000000 && now > 1000000, "usage");
	must(csm_new(&csm) == 0 && db_key_load(csm, dir, key) == 0, "the database's key");
	csm_free(csm);
	start(dir, key);
	atomic_store(&filling, true);
	ms = in_threads(issue_all, from, n);
	printf("{\"certificates\": %lu, \"issued_per_s\": %.0f, ", n - from, (double)(n - from) * 1e3 / ms);
	ms = in_threads(revoke_all, from, n);
	printf("\"revoked_per_s\": %.0f, ", (double)(n - from) / REVOKED * 1e3 / ms);
}

static void measure_pages(const char *dir, unsigned long n)
{
	static const uint8_t key[DB_KEY_LEN] = {1};
	pthread_t t[2];
	double ms;

	start(dir, key);
	atomic_store(&filling, true);
	ms = in_threads(issue_all, 0, n);
	printf("{\"certificates\": %lu, \"issued_per_s\": %.0f, ", n, (double)n * 1e3 / ms);
	ms = in_threads(revoke_all, 0, n);
	printf("\"revoked_per_s\": %.0f, ", (double)n / REVOKED * 1e3 / ms);
	atomic_store(&filling, false);
	atomic_store(&at, n);
	until = 2 * n;
	for (size_t i = 0; i < 2; i++)
		must(pthread_create(&t[i], NULL, issue_all, NULL) == 0, "thread");
	measure();
	atomic_store(&stop, true);
	for (size_t i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	printf("\"issued_meanwhile\": %lu, ", atomic_load(&at) - n);
}

int main(int argc, char **argv)
{
	struct db_stat st;

	must(sodium_init() >= 0, "sodium");
	if (argc == 6 && strcmp(argv[1], "fill") == 0)
		fill(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10), argv[5]);
	else if (argc == 4 && strcmp(argv[1], "pages") == 0)
		measure_pages(argv[2], strtoul(argv[3], NULL, 10));
	else
		must(false, "usage: inventory fill DIR FROM TO TIME | pages DIR CERTIFICATES");
	db_stat(db, &st);
	printf("\"bytes\": %llu}\n", (unsigned long long)st.used);
	db_close(db);
	return 0;
}
