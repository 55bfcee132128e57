/* One load generator for csm and for what stands beside it: the clients, the clock and the counting are the same,
 * only the bytes differ. Closed loop: each client keeps `depth` requests in flight. */
#ifndef TESTS_BENCH_GEN_H
#define TESTS_BENCH_GEN_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "libclient/base/buf.h"

#define GEN_CLIENTS_MAX 256u
#define GEN_DEPTH_MAX 64u
#define GEN_RING 128u /* different requests of one client, at least twice the depth */
#define GEN_SECRETS 1000u
#define GEN_VALUE_LEN 64u

struct target {
	const struct work *work;
	const char *socket;
	const char *key;     /* name, of the csm key or the PKCS#11 object */
	const char *backend; /* of a csm key that has to be made */
	const char *module;  /* PKCS#11 */
	const char *pin;
	unsigned clients, depth;
	bool epoll;     /* one thread for all connections, else one blocking client each */
	bool processes; /* blocking clients are processes of their own, not threads */
	bool gate;      /* the caller says when to measure, see load.c */
	double seconds;
	uint64_t count; /* requests in all, in place of a time; 0: by time */
	EVP_PKEY *public; /* of the key that signs, where the work learns it */
	uint8_t blob[256]; /* ssh-agent's name of its key */
	size_t blob_len;
};

/* What a client does. Either requests on a stream, or calls. Everything returns 0 or CSM_E*, having told stderr. */
struct work {
	const char *name;
	/* Once, before the clients: makes what the requests are about. May be NULL. */
	int (*prepare)(struct target *t);
	/* Append request i (below GEN_RING) of a client. Called before the run; the bytes are sent again and again. */
	int (*request)(const struct target *t, unsigned client, unsigned i, struct csm_buf *out);
	/* The first answer in p[0..n): its length in *len, and in *id the i it belongs to; untouched where answers come
	 * in the order of requests. CSM_EBUSY: not whole. */
	int (*reply)(const uint8_t *p, size_t n, size_t *len, uint32_t *id);
	/* Is this answer right in every byte? Asked for the first ones of each client. May be NULL. */
	bool (*right)(const struct target *t, unsigned client, unsigned i, const uint8_t *p, size_t n);
	/* One client's state, and one call of it. */
	int (*open)(const struct target *t, void **ret);
	int (*call)(void *state);
};
/* NULL: no such work. */
const struct work *work_find(const char *name);
extern const struct work works_csm[], works_peers[], works_calls[], works_front[], works_issue[]; /* each ends with name NULL */

/* A connected stream socket whose reads give up after 20 s; -1, told. */
int gen_connect(const char *path);
/* ECDSA over the digest of all requests. */
bool gen_signature_right(EVP_PKEY *public, const uint8_t *der, size_t n);
const uint8_t *gen_digest(void);         /* 32 bytes */
void gen_value(unsigned secret, uint8_t *out); /* GEN_VALUE_LEN bytes; each secret has its own */
unsigned gen_secret_of(unsigned client, unsigned i); /* which one request i of a client reads */
uint64_t gen_now_ns(void);

/* Times in a log-linear histogram: a quantile is right to half of 1/128 of its value. */
#define HIST_BITS 7u
#define HIST_SUB (1u << HIST_BITS)
#define HIST_BUCKETS (HIST_SUB * 36u)
struct hist {
	uint64_t n[HIST_BUCKETS];
	uint64_t count, max;
};
void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *to, const struct hist *from);
uint64_t hist_quantile(const struct hist *h, double q); /* ns; 0 when empty */

struct result {
	double seconds;
	struct hist hist;
};
/* Connect all, run, count. 0, or CSM_E*: told. */
int run_load(const struct target *t, struct result *ret);

#endif
