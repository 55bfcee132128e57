/* A store in a folder of its own, with a root key in the clear and a counter in memory; synchronous calls for
 * its operations. */
#ifndef TESTS_LIB_STOREFIX_H
#define TESTS_LIB_STOREFIX_H

#include <lmdb.h>
#include "daemon/svc/store.h"

struct storefix {
	char dir[64];
	uint8_t root_key[32];
	uint64_t counter;
	bool with_counter;
	bool counter_fails;
	bool increment_fails;
	bool counter_answer_lost; /* the next increment is made, and reported as failed */
	bool unwrap_fails;
	unsigned increments;
	struct csm_store_options opt;
	char why[256];
	struct csm_store *s;
	struct csm_reader *r;
	int open_r;
};

/* For cmocka: *state is a struct storefix that is open. */
int storefix_setup(void **state);
int storefix_teardown(void **state);

/* A folder; nothing is opened. */
void storefix_init(struct storefix *f);
/* Closes and removes. */
void storefix_free(struct storefix *f);
/* Open, start and make a reader; open_r tells what csm_store_open said. */
int storefix_open(struct storefix *f);
void storefix_close(struct storefix *f);

/* Submit and wait; op->r, or what csm_store_submit said. */
int storefix_do(struct storefix *f, struct csm_store_op *op);
int storefix_domain(struct storefix *f, const char *ns, const char *domain);
int storefix_set(struct storefix *f, const char *ns, const char *domain, const char *name, const char *value);
/* The newest value as text (version 0), or a version, into buf; the error. */
int storefix_get(struct storefix *f, const char *ns, const char *domain, const char *name, uint64_t version,
	char buf[static 256]);
int storefix_key(struct storefix *f, const char *ns, const char *name, const char *priv);
/* Read a key that storefix_key made; what is in the clear must be right, and the private part, unless priv is NULL. */
int storefix_key_get(
	struct storefix *f, const char *ns, const char *name, const char *priv, struct csm_key_record *rec);
void storefix_sleep_ms(unsigned ms);
/* True when `text` is among the damaged ones. */
bool storefix_damaged(struct storefix *f, const char *text);
size_t storefix_n_damaged(struct storefix *f);

/* The stopped store by plain LMDB calls. */
struct rawstore {
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi meta, scopes, keys, certs, secrets, requests, counts;
};
void raw_open(struct storefix *f, struct rawstore *w);
void raw_close(struct rawstore *w);
/* A copy of a value, malloc'ed; NULL if there is none. */
uint8_t *raw_get(struct rawstore *w, MDB_dbi dbi, const void *key, size_t n, size_t *len);
void raw_put(struct rawstore *w, MDB_dbi dbi, const void *key, size_t n, const void *p, size_t len);
void raw_del(struct rawstore *w, MDB_dbi dbi, const void *key, size_t n);
/* The key of version v of a secret. */
size_t raw_secret_key(uint8_t out[static 511], const char *ns, const char *domain, const char *name, uint64_t v);
/* Copy the store's files aside, or back. */
void store_copy(struct storefix *f, const char *from, const char *to);

#endif
