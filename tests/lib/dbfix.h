/* A database of csm-server in a folder of its own, and certificates for it that need no signature. */
#ifndef TESTS_LIB_DBFIX_H
#define TESTS_LIB_DBFIX_H

#include "daemon/central/db.h"

#define DBFIX_NOW 1000000u

struct dbfix {
	char dir[64];
	uint8_t key[DB_KEY_LEN];
	size_t map_size;
	char why[256];
	struct central_db *db;
	struct csm_pool pool;
	struct csm_buf out;
};
/* For cmocka: *state is a struct dbfix that is open. */
int dbfix_setup(void **state);
int dbfix_teardown(void **state);
/* A folder; nothing is opened. */
void dbfix_init(struct dbfix *f);
void dbfix_free(struct dbfix *f);
CSM_MUST int dbfix_open(struct dbfix *f);
void dbfix_close(struct dbfix *f);

/* Certificate number i: serial, names, key hash and so on follow from it. */
struct dbfix_cert {
	struct db_cert c;
	uint8_t serial[16], spki[32], der[700];
	char subject[64], san[2][64], node[64], requester[64];
	struct csm_str sans[2];
};
void dbfix_cert(struct dbfix_cert *c, uint64_t i);
/* What db_issue says to certificate i alone. */
CSM_MUST int dbfix_issue(struct dbfix *f, uint64_t i);
void dbfix_token(struct db_token *t, uint8_t n, uint64_t uses);
/* Issue certificate i by token n. */
CSM_MUST int dbfix_issue_by(struct dbfix *f, uint64_t i, uint8_t token);

/* Bytes of this process in memory; `files`: just those of mapped files. */
size_t dbfix_resident(bool files);

#endif
