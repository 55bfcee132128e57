#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/lib/dbfix.h"

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "dbfix: %s\n", what);
		abort();
	}
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void dbfix_init(struct dbfix *f)
{
	const char *tmp = getenv("TMPDIR");

	*f = (struct dbfix){.map_size = 64u << 20};
	must(snprintf(f->dir, sizeof(f->dir), "%s/dbfixXXXXXX", tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp") < (int)sizeof(f->dir) &&
		mkdtemp(f->dir) != NULL, "mkdtemp");
	memset(f->key, 7, sizeof(f->key));
	csm_pool_init(&f->pool, 64u << 20);
	csm_buf_init(&f->out, 1u << 20, false);
}

int dbfix_open(struct dbfix *f)
{
	const struct db_options opt = {.dir = f->dir, .map_size = f->map_size, .key = f->key, .why = f->why, .why_len = sizeof(f->why)};

	return db_open(&opt, &f->db);
}

void dbfix_close(struct dbfix *f)
{
	db_close(f->db);
	f->db = NULL;
}

void dbfix_free(struct dbfix *f)
{
	dbfix_close(f);
	csm_pool_free(&f->pool);
	csm_buf_free(&f->out);
	must(nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0, "remove");
}

int dbfix_setup(void **state)
{
	struct dbfix *f = malloc(sizeof(*f));

	must(f != NULL, "memory");
	dbfix_init(f);
	must(dbfix_open(f) == 0, f->why);
	*state = f;
	return 0;
}

int dbfix_teardown(void **state)
{
	dbfix_free(*state);
	free(*state);
	return 0;
}

void dbfix_cert(struct dbfix_cert *c, uint64_t i)
{
	memset(c, 0, sizeof(*c));
	for (size_t n = 0; n < 16; n++) /* scattered, as random ones are, but never twice */
		c->serial[n] = n == 0 ? 0x40 : n < 8 ? (uint8_t)((i * 2654435761u) >> (8 * (n % 4))) : (uint8_t)(i >> (8 * (15 - n)));
	for (size_t n = 0; n < 32; n++)
		c->spki[n] = (uint8_t)((i * 40503u + n) >> (n % 8));
	memcpy(c->spki, c->serial, 16);
	memset(c->der, 0x30, sizeof(c->der));
	memcpy(c->der, c->serial, 16);
	snprintf(c->subject, sizeof(c->subject), "/O=x/CN=host%llu.example", (unsigned long long)i);
	snprintf(c->san[0], sizeof(c->san[0]), "dns:host%llu.example", (unsigned long long)i);
	snprintf(c->san[1], sizeof(c->san[1]), "uri:spiffe://td/%llu", (unsigned long long)i);
	snprintf(c->node, sizeof(c->node), "node%llu", (unsigned long long)(i % 100));
	snprintf(c->requester, sizeof(c->requester), "cert %llu", (unsigned long long)(i % 10));
	c->sans[0] = csm_str_of(c->san[0]);
	c->sans[1] = csm_str_of(c->san[1]);
	c->c = (struct db_cert){
		.serial = {c->serial, 16},
		.issuer = CSM_STR("default"),
		.profile = i % 1000 == 0 ? CSM_STR("rare") : CSM_STR("default"),
		.role = CSM_STR(""),
		.requester = csm_str_of(c->requester),
		.node = csm_str_of(c->node),
		.subject = csm_str_of(c->subject),
		.sans = c->sans,
		.n_sans = 2,
		.spki_sha256 = {c->spki, 32},
		.not_before = DBFIX_NOW,
		.not_after = DBFIX_NOW + 100000 + i % 50000,
		.issued = DBFIX_NOW + i / 10,
		.state = DB_VALID,
		.der = {c->der, sizeof(c->der)},
	};
}

int dbfix_issue(struct dbfix *f, uint64_t i)
{
	struct dbfix_cert c;
	bool replayed;

	dbfix_cert(&c, i);
	return db_issue(f->db, &(struct db_issue){.cert = &c.c, .now = DBFIX_NOW}, &replayed, &f->out);
}

void dbfix_token(struct db_token *t, uint8_t n, uint64_t uses)
{
	*t = (struct db_token){.any_name = true, .profile = CSM_STR("default"), .role = CSM_STR("node"), .created = DBFIX_NOW,
		.expires = DBFIX_NOW + 3600, .uses = uses, .by = CSM_STR("uid 0")};
	memset(t->id, n, sizeof(t->id));
	memset(t->hash, n ^ 0xff, sizeof(t->hash));
}

int dbfix_issue_by(struct dbfix *f, uint64_t i, uint8_t token)
{
	uint8_t id[DB_TOKEN_ID_LEN];
	struct dbfix_cert c;
	struct csm_buf out;
	bool replayed;
	int r;

	memset(id, token, sizeof(id));
	dbfix_cert(&c, i);
	csm_buf_init(&out, 64, false);
	r = db_issue(f->db, &(struct db_issue){.cert = &c.c, .now = DBFIX_NOW, .token = id}, &replayed, &out);
	csm_buf_free(&out);
	return r;
}

size_t dbfix_resident(bool files)
{
	FILE *f = fopen("/proc/self/statm", "re");
	char line[128] = "", *at = line;
	unsigned long pages = 0;

	must(f != NULL && fgets(line, sizeof(line), f) != NULL, "statm");
	fclose(f);
	for (int i = 0; i < (files ? 3 : 2); i++)
		pages = strtoul(at, &at, 10);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}
