/* Change records of a stopped store behind csmd's back, for the tests of tampering. The bytes are not looked into.
 *
 *   lmdbedit FOLDER list                     a line for each record: database, key and a hash of the value
 *   lmdbedit FOLDER delete DB KEYHEX
 *   lmdbedit FOLDER copy FROM DB KEYHEX      put the value that the store in folder FROM has under the key
 *   lmdbedit FOLDER move DB FROMHEX TOHEX    put the value of one key under another, too
 *   lmdbedit FOLDER flip DB KEYHEX OFFSET    change one bit; an OFFSET below 0 counts from the end
 */
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct env {
	MDB_env *env;
	MDB_txn *txn;
};

static void die(const char *what, int rc)
{
	fprintf(stderr, "lmdbedit: %s: %s\n", what, rc != 0 ? mdb_strerror(rc) : "not possible");
	exit(1);
}

static struct env open_env(const char *folder, unsigned flags)
{
	struct env e = {NULL, NULL};
	int rc;

	if ((rc = mdb_env_create(&e.env)) != 0 || (rc = mdb_env_set_maxdbs(e.env, 32)) != 0 ||
		(rc = mdb_env_set_mapsize(e.env, (size_t)1 << 37)) != 0 ||
		(rc = mdb_env_open(e.env, folder, flags, 0600)) != 0 ||
		(rc = mdb_txn_begin(e.env, NULL, flags & MDB_RDONLY, &e.txn)) != 0)
		die(folder, rc);
	return e;
}

static MDB_dbi open_db(struct env *e, const char *name)
{
	MDB_dbi dbi;
	int rc = mdb_dbi_open(e->txn, name, 0, &dbi);

	if (rc != 0)
		die(name, rc);
	return dbi;
}

static MDB_val unhex(const char *hex)
{
	size_t n = strlen(hex) / 2;
	unsigned char *p = malloc(n + 1);

	if (p == NULL || strlen(hex) % 2 != 0)
		die(hex, 0);
	for (size_t i = 0; i < n; i++) {
		char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'}, *end;

		p[i] = (unsigned char)strtoul(two, &end, 16);
		if (*end != '\0')
			die(hex, 0);
	}
	return (MDB_val){n, p};
}

static uint64_t hash(const MDB_val *v)
{
	uint64_t h = 1469598103934665603u;

	for (size_t i = 0; i < v->mv_size; i++)
		h = (h ^ ((const unsigned char *)v->mv_data)[i]) * 1099511628211u;
	return h;
}

static void list_db(struct env *e, const char *name)
{
	MDB_dbi dbi = open_db(e, name);
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc = mdb_cursor_open(e->txn, dbi, &cursor);

	if (rc != 0)
		die(name, rc);
	while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		printf("%s ", name);
		for (size_t i = 0; i < k.mv_size; i++)
			printf("%02x", ((const unsigned char *)k.mv_data)[i]);
		printf(" %016" PRIx64 "\n", hash(&v));
	}
	mdb_cursor_close(cursor);
}

static void list(struct env *e)
{
	MDB_dbi main_db;
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc;

	if ((rc = mdb_dbi_open(e->txn, NULL, 0, &main_db)) != 0 || (rc = mdb_cursor_open(e->txn, main_db, &cursor)) != 0)
		die("list", rc);
	/* The main database holds the names of the others. */
	while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		char name[64];

		if (k.mv_size >= sizeof(name))
			continue;
		memcpy(name, k.mv_data, k.mv_size);
		name[k.mv_size] = '\0';
		list_db(e, name);
	}
	mdb_cursor_close(cursor);
}

/* The value of a key, copied so that it may be changed and outlives its transaction. */
static MDB_val take(struct env *e, const char *db, MDB_val key)
{
	MDB_val v;
	unsigned char *p;
	int rc = mdb_get(e->txn, open_db(e, db), &key, &v);

	if (rc != 0)
		die("no such record", rc);
	if ((p = malloc(v.mv_size + 1)) == NULL)
		die("memory", 0);
	memcpy(p, v.mv_data, v.mv_size);
	return (MDB_val){v.mv_size, p};
}

static void put(struct env *e, const char *db, MDB_val key, MDB_val v)
{
	int rc = mdb_put(e->txn, open_db(e, db), &key, &v, 0);

	if (rc != 0)
		die("put", rc);
}

static void flip(struct env *e, const char *db, const char *hex, long offset)
{
	MDB_val key = unhex(hex), v = take(e, db, key);

	if (offset < 0)
		offset += (long)v.mv_size;
	if (offset < 0 || (size_t)offset >= v.mv_size)
		die("offset", 0);
	((unsigned char *)v.mv_data)[offset] ^= 1;
	put(e, db, key, v);
}

int main(int argc, char **argv)
{
	struct env e, from;
	MDB_val key;
	int rc;

	if (argc < 3)
		die("usage", 0);
	e = open_env(argv[1], 0);
	if (strcmp(argv[2], "list") == 0) {
		list(&e);
	} else if (strcmp(argv[2], "delete") == 0 && argc == 5) {
		key = unhex(argv[4]);
		if ((rc = mdb_del(e.txn, open_db(&e, argv[3]), &key, NULL)) != 0)
			die("delete", rc);
	} else if (strcmp(argv[2], "copy") == 0 && argc == 6) {
		from = open_env(argv[3], MDB_RDONLY);
		key = unhex(argv[5]);
		put(&e, argv[4], key, take(&from, argv[4], key));
	} else if (strcmp(argv[2], "move") == 0 && argc == 6) {
		put(&e, argv[3], unhex(argv[5]), take(&e, argv[3], unhex(argv[4])));
	} else if (strcmp(argv[2], "flip") == 0 && argc == 6) {
		flip(&e, argv[3], argv[4], strtol(argv[5], NULL, 10));
	} else {
		die("usage", 0);
	}
	if ((rc = mdb_txn_commit(e.txn)) != 0)
		die("commit", rc);
	return 0;
}
