/* One broker for a test program, with short calls of the methods that many tests need. Their first argument is the
 * client's descriptor; they return 0 or the error's code. */
#ifndef TESTS_LIB_BROKERFIX_H
#define TESTS_LIB_BROKERFIX_H

#include <openssl/evp.h>
#include "tests/lib/testbroker.h"

/* One broker for all tests of a program, and for each test a connection of its own to the public socket:
 *
 *	if (!fix_prepare(120, script, policy))
 *		return 77;
 *	return cmocka_run_group_tests(tests, fix_begin, fix_end);
 *
 * fix_prepare bounds the run; false, having said so, without root, who plays the users. FIX_TEST is a row of tests; a
 * test that leaves a connection or an operation behind has failed. */
extern int pub;
bool fix_prepare(unsigned seconds, const char *script, const char *policy);
int fix_begin(void **state);
int fix_end(void **state);
int fix_setup(void **state);
int fix_teardown(void **state);
#define FIX_TEST(f) cmocka_unit_test_setup_teardown(f, fix_setup, fix_teardown)

/* Of the broker that fix_begin starts; see testbroker.h. */
extern const char *fix_config;
extern struct csm_bin fix_anchors, fix_token;

struct brokerfix {
	struct testbroker t;
	struct testreader reader;   /* for answers taken one by one */
	struct csm_buf answer;      /* behind the slices of the last result */
	struct csm_pool pool;
	struct testanswer last;     /* of fix_ask */
};
extern struct brokerfix fix;

/* With the back ends soft (preferred) and fake. script and policy may be NULL. Aborts when it does not start. */
void fix_start(const char *script, const char *policy);
void fix_stop(void);
int fix_connect(enum csm_role role);
/* As an unprivileged uid; closes what cannot be. */
int fix_connect_as(uid_t uid);
void fix_close(int fd);

int fix_call(int fd, const char *method, const void *params, void *result);
/* The whole answer in fix.last; the return value is its error, or CSM_ECLOSED, CSM_ETIMEOUT. */
int fix_ask(int fd, const char *method, const void *params);
/* A request whose params are an empty map, whatever the method wants. */
int fix_ask_empty(int fd, struct csm_str method);
/* The next answer to any request. */
int fix_next(int fd);
/* True when the broker ends the connection; answers before that are dropped. */
bool fix_ends(int fd);

int fix_create(int fd, const char *name, const char *alg, const char *backend, const char *use);
int fix_sign(int fd, const char *name, struct csm_msg_sign_res *res);
/* A key's public half, by asking for it on pub; the caller's. The name of a scheme's hash, NULL: it has none. */
EVP_PKEY *fix_public(const char *key);
const char *fix_hash_name(const char *scheme);
/* Was it made over that text by that key? By OpenSSL; the public key is asked for on pub. */
bool fix_verified(const char *key, const char *scheme, const char *text, struct csm_bin sig);
int fix_domain(int fd, const char *method, const char *name);
/* expect < 0: none */
int fix_set(int fd, const char *name, const char *value, int64_t expect, const char *request_id, uint64_t *version);
/* The first pair's value of the newest version. */
int fix_get(int fd, const char *name, char out[static 256]);

#endif
