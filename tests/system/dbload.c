/* Load on csm-server's database that may be ended at any moment, and a look at what is left.
 *
 * usage: dbload [--broker] load DIR LOG ROUND    threads in pairs, each pair racing for tokens of one use; what was answered goes to
 *                                                LOG, a line in one write. Goes on until it is killed, 20 s at most
 *        dbload [--broker] small DIR LOG ROUND   the same with so little room for its files that there is no journal
 *        dbload verify DIR LOG                   everything in LOG is there, no token was used twice
 *
 * --broker is what tests/fault/powercut.c asks for. */
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "daemon/central/db.h"
#include "daemon/pki/crl.h"

#define PAIRS 3u
#define NOW 1000u

static struct central_db *db;
static int log_fd;
static uint16_t round_no;

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "dbload: %s\n", what);
		exit(1);
	}
}

static void open_db(const char *dir)
{
	static const uint8_t key[DB_KEY_LEN] = {1, 2, 3};
	static char why[256] = "?";
	const struct db_options opt = {.dir = dir, .map_size = 256u << 20, .key = key, .journal_ms = 2, .why = why, .why_len = sizeof(why)};

	must(db_open(&opt, &db) == 0, why);
}

/* ---- load ---- */

static void token_make(struct db_token *t, unsigned pair, uint32_t i)
{
	*t = (struct db_token){.any_name = true, .profile = CSM_STR("p"), .role = CSM_STR("node"), .created = NOW, .expires = NOW + 10, .uses = 1,
		.by = CSM_STR("load")};
	t->id[0] = (uint8_t)(round_no >> 8);
	t->id[1] = (uint8_t)round_no;
	t->id[2] = (uint8_t)pair;
	for (size_t n = 0; n < 4; n++)
		t->id[12 + n] = (uint8_t)(i >> (8 * (3 - n)));
	crypto_hash_sha256(t->hash, t->id, sizeof(t->id));
}

static int issue(const struct db_token *t, uint8_t serial[static 16])
{
	static uint8_t der[600];
	char id[2 * DB_TOKEN_ID_LEN + 1], requester[64];
	uint8_t spki[32];
	struct csm_buf out;
	bool replayed;
	int r;

	randombytes_buf(serial, 16);
	serial[0] = (serial[0] & 0x3f) | 0x40;
	crypto_hash_sha256(spki, serial, 16);
	sodium_bin2hex(id, sizeof(id), t->id, sizeof(t->id));
	snprintf(requester, sizeof(requester), "token %s", id);
	csm_buf_init(&out, 64, false);
	r = db_issue(db, &(struct db_issue){.token = t->id, .now = NOW, .cert = &(struct db_cert){.serial = {serial, 16},
		.issuer = CSM_STR("default"), .profile = CSM_STR("p"), .role = CSM_STR("node"), .requester = csm_str_of(requester),
		.node = CSM_STR("n"), .subject = CSM_STR("/CN=n"), .spki_sha256 = {spki, 32}, .not_before = NOW, .not_after = 2 * NOW,
		.issued = NOW + t->id[15], .der = {der, sizeof(der)}}}, &replayed, &out);
	csm_buf_free(&out);
	return r;
}

static void told(const char *what, const uint8_t serial[static 16], const struct db_token *t)
{
	char line[160], hex[33], id[2 * DB_TOKEN_ID_LEN + 1];
	int n = snprintf(line, sizeof(line), "%s %s %s\n", what, sodium_bin2hex(hex, sizeof(hex), serial, 16),
		sodium_bin2hex(id, sizeof(id), t->id, sizeof(t->id)));

	must(write(log_fd, line, (size_t)n) == n, "log");
}

static void *load(void *arg)
{
	unsigned pair = (unsigned)(uintptr_t)arg / 2;
	struct db_token t;
	uint8_t serial[16];
	int r;

	for (uint32_t i = 0;; i++) {
		token_make(&t, pair, i);
		r = db_token_add(db, &t);
		must(r == 0 || r == CSM_EEXISTS, csm_err_name(r));
		r = issue(&t, serial);
		must(r == 0 || r == CSM_EDENIED, csm_err_name(r));
		if (r != 0)
			continue;
		told("cert", serial, &t);
		if (i % 5 == 0) {
			must(db_revoke(db, (struct csm_bin){serial, 16}, CSM_REASON_SUPERSEDED, NOW, CSM_STR("load")) == 0, "revoke");
			told("revoked", serial, &t);
		}
	}
	return NULL;
}

/* ---- verify ---- */

static size_t certs, used;

static void verify_line(char *line, struct csm_pool *pool)
{
	char what[16], hex[40], id[40], requester[64];
	uint8_t serial[16], hash[32], token[DB_TOKEN_ID_LEN];
	struct db_cert c, found;
	struct csm_str next;
	struct db_token t;
	struct db_cert *v;
	size_t n;

	must(sscanf(line, "%15s %32s %32s", what, hex, id) == 3, "a line of the log");
	must(sodium_hex2bin(serial, 16, hex, 32, NULL, NULL, NULL) == 0 &&
		sodium_hex2bin(token, sizeof(token), id, 32, NULL, NULL, NULL) == 0, "a line of the log");
	csm_pool_reset(pool);
	must(db_cert_get(db, (struct csm_bin){serial, 16}, pool, &c) == 0, "a certificate that was answered is not there");
	must(c.der.n == 600, "it is not whole");
	must(strcmp(what, "revoked") != 0 || c.state == DB_REVOKED, "a revocation that was answered is not there");
	crypto_hash_sha256(hash, token, sizeof(token));
	must(db_token_find(db, hash, pool, &t) == 0 && t.used == 1, "its token is not spent");
	snprintf(requester, sizeof(requester), "token %s", id);
	must(db_cert_list(db, &(struct db_filter){.requester = csm_str_of(requester)}, (struct csm_str){"", 0}, 5, pool, &v, &n, &next) == 0,
		"list");
	must(n == 1 && v[0].serial.n == 16 && memcmp(v[0].serial.p, serial, 16) == 0, "a token was used twice");
	must(db_cert_by_key(db, c.spki_sha256, pool, &found) == 0 && memcmp(found.serial.p, serial, 16) == 0, "not found by its key");
}

static bool count_revoked(void *arg, const struct db_revoked *r)
{
	(void)r;
	++*(size_t *)arg;
	return true;
}

/* As many certificates as uses of tokens, answered or not. */
static void verify_all(struct csm_pool *pool)
{
	char cursor[128] = "";
	struct csm_str next = {"", 0};
	size_t n, revoked = 0, listed = 0;
	struct db_token *t;
	struct db_cert *v;

	do {
		csm_pool_reset(pool);
		must(db_cert_list(db, &(struct db_filter){0}, next, 500, pool, &v, &n, &next) == 0, "list");
		for (size_t i = 0; i < n; i++)
			revoked += v[i].state == DB_REVOKED;
		certs += n;
		memcpy(cursor, next.p, next.n);
		next.p = cursor;
	} while (next.n > 0);
	do {
		csm_pool_reset(pool);
		must(db_token_list(db, next, 500, pool, &t, &n, &next) == 0, "tokens");
		for (size_t i = 0; i < n; i++)
			used += t[i].used;
		memcpy(cursor, next.p, next.n);
		next.p = cursor;
	} while (next.n > 0);
	must(certs == used, "not as many certificates as uses of tokens");
	must(db_revoked_each(db, CSM_STR("default"), 0, 0, count_revoked, &listed) == 0 && listed == revoked, "revoked and listed differ");
}

static void verify(const char *log)
{
	FILE *f = fopen(log, "re");
	struct csm_pool pool;
	char line[256];
	size_t lines = 0;

	must(f != NULL, log);
	csm_pool_init(&pool, 16u << 20);
	while (fgets(line, sizeof(line), f) != NULL) {
		verify_line(line, &pool);
		lines++;
	}
	fclose(f);
	verify_all(&pool);
	csm_pool_free(&pool);
	printf("%zu acknowledged, %zu certificates\n", lines, certs);
}

int main(int argc, char **argv)
{
	pthread_t t[2 * PAIRS];

	if (argc > 1 && strcmp(argv[1], "--broker") == 0) {
		argc--;
		argv++;
	}
	must(sodium_init() >= 0, "sodium");
	if (argc == 4 && strcmp(argv[1], "verify") == 0) {
		open_db(argv[2]);
		verify(argv[3]);
		db_close(db);
		return 0;
	}
	must(argc == 5 && (strcmp(argv[1], "load") == 0 || strcmp(argv[1], "small") == 0), "usage");
	must(strcmp(argv[1], "small") != 0 || setrlimit(RLIMIT_FSIZE, &(struct rlimit){60000000, 60000000}) == 0, "limit");
	log_fd = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	must(log_fd >= 0, argv[3]);
	round_no = (uint16_t)strtoul(argv[4], NULL, 10);
	open_db(argv[2]);
	for (uintptr_t i = 0; i < 2 * (uintptr_t)PAIRS; i++)
		must(pthread_create(&t[i], NULL, load, (void *)i) == 0, "thread");
	sleep(20);
	return 2;
}
