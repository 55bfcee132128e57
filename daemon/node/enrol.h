/* Certificates from a CA: what is wanted for which key, asked for by csm-enrol, checked and kept. One thread does all of it
 * ("enrol"), which may wait for back ends and for the store; loops hand it operations and get them back. */
#ifndef CSM_NODE_ENROL_H
#define CSM_NODE_ENROL_H

#include "daemon/node/dispatch.h"
#include "proto-spec/limits.h"

struct enrol;
CSM_MUST int enrol_new(struct broker *b, struct enrol **ret);
/* Starts the thread, where the configuration has profiles. */
CSM_MUST int enrol_start(struct enrol *e);
void enrol_tick(struct enrol *e); /* once a second, main thread */
/* Whoever waits is answered, and nothing is begun any more. */
void enrol_stop(struct enrol *e);
void enrol_free(struct enrol *e); /* NULL is a no-op */
/* The connection of csm-enrol is closing, with a job in hand; told false: it was never handed out. Its loop's thread. */
void enrol_channel_closed(struct enrol *e, uint64_t job, bool told);
/* The profile of this name; -1: there is none, or no thread. Any thread. */
int enrol_profile(const struct enrol *e, struct csm_str name);

enum enrol_kind { ENROL_ENROL, ENROL_RENEW, ENROL_REVOKE, ENROL_NEXT, ENROL_DONE };
/* An operation with its own copies of what was asked. */
struct enrol_op {
	struct change change; /* first */
	enum enrol_kind kind;
	int profile;
	bool wait;
	uint8_t key_id[CSM_KEY_ID_LEN];
	char name[CSM_NAMESPACE_MAX + 1]; /* of the profile */
	struct csm_pool pool;
	struct csm_str subject, reason;
	struct csm_strs sans;
	uint64_t ttl;
	struct csm_buf csr;     /* ENROL: a request made elsewhere */
	/* DONE */
	uint64_t job, retry_after_s;
	struct csm_str error, why;
	struct csm_buf chain, anchors;
	/* the thread's */
	struct csm_buf answer;  /* encoded; secret for NEXT */
	const struct csm_enrol_profile *sign_for; /* NEXT: whose key serves enrol.sign */
	uint8_t sign_id[CSM_KEY_ID_LEN];
	char refusal[CSM_ERROR_TEXT_MAX + 1]; /* empty: the code's own text */
	struct enrol_op *next;
};
/* Give it to the thread; on failure it is answered and gone. */
void enrol_submit(struct enrol *e, struct enrol_op *op);

/* ---- enrol_names.c ---- */
struct enrol_who {
	const char *hostname;
	struct csm_str ns, name;
	const char *unit, *pod; /* NULL: in none */
};
/* A template with what stands for its braces, in the pool. CSM_EINVALID with *why: the caller has none of that, or it has
 * characters that would be more than a name. */
CSM_MUST int enrol_expand(const char *text, const struct enrol_who *who, struct csm_pool *pool, struct csm_str *ret,
	const char **why);
/* May callers ask for this subject and these names by themselves? CSM_EDENIED with *why. */
CSM_MUST int enrol_allowed(const struct csm_enrol_profile *p, struct csm_str subject, const struct csm_str *sans, size_t n,
	const char **why);
/* The profiles and how they stand, within a second. Any thread. */
void enrol_status(struct enrol *e, struct csm_pool *pool, struct csm_msg_status_res *ret);
/* Whom the profile of this name trusts, DER certificates one after the other, in the pool; empty: nobody yet, or there is no
 * such profile. Any thread. */
struct csm_bin enrol_anchors(struct enrol *e, struct csm_str profile, struct csm_pool *pool);
const char *enrol_hostname(const struct enrol *e);
const struct csm_enrol_profile *enrol_config(const struct enrol *e, int profile);

#endif
