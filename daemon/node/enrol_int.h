/* What the files of the enrol thread share. All of it is that thread's, but for what says otherwise. */
#ifndef CSM_NODE_ENROL_INT_H
#define CSM_NODE_ENROL_INT_H

#include "daemon/node/enrol.h"
#include "daemon/pki/enrolled.h"
#include "daemon/svc/renew.h"

#define ENROL_JOBS_MAX 32u
#define ENROL_POOL_MAX (512u * 1024u)
#define ENROL_WHY (CSM_ERROR_TEXT_MAX + 1)

/* A certificate that is wanted; everything else about it stands in its record. */
struct entry {
	struct csm_renew_item item; /* first */
	struct eprofile *p;
	char ns[CSM_NAMESPACE_MAX + 1], name[CSM_NAME_MAX + 1];
	uint8_t id[CSM_KEY_ID_LEN];
	bool turning;               /* the request is by the next key, which takes this one's place with the certificate */
	uint8_t next_id[CSM_KEY_ID_LEN];
	uint64_t before_until_ms;   /* by the boot clock: so long is the key before this one there; 0: there is none */
	uint8_t before_id[CSM_KEY_ID_LEN]; /* its, where it was there in this process; who asks may have met it still */
	unsigned wanted;            /* how often what is wanted was changed */
	struct csm_buf csr;         /* of the attempts for one certificate: a CA that waits for a person knows it again */
	uint8_t once[16];           /* drawn with it: tells the CA a repeated attempt from the next certificate */
	struct enrol_op *waiters;
	uint64_t reported;          /* signatures up to the last report of use that the CA has */
	uint64_t told_to;           /* the end of the last period that was told of it */
};

enum errand_what { ERRAND_CSR, ERRAND_REVOKE, ERRAND_CACERTS, ERRAND_USAGE };
/* Something to be asked of a CA once. */
struct errand {
	enum errand_what what;
	struct eprofile *p;
	struct enrol_op *op; /* who wait, or NULL: the first began it, the others asked for the same with its request_id */
	uint8_t once[16];    /* CSR */
	struct csm_buf body; /* CSR, or report */
	char serial[CSM_TOKEN_STR_MAX + 1];
	bool under_way;
	struct errand *next;
};

struct eprofile {
	const struct csm_enrol_profile *cfg;
	unsigned index;
	struct entry *own;        /* of the profile's key; NULL: there is none yet */
	bool wanted;              /* somebody needs it */
	struct csm_buf anchors;   /* who is trusted, DER; written under the lock, by the thread */
	char anchors_of[65];      /* what that rests on */
	uint64_t own_after_ms, cacerts_after_ms, usage_after_ms; /* by the boot clock */
	struct csm_buf report;    /* of use, as it is in the store until the CA has it; empty: there is none */
	bool reporting;           /* an errand has it */
	bool usage_told;          /* something of the period */
	uint64_t usage_from, usage_to; /* the period; to 0: none is being told */
	char why[ENROL_WHY];      /* why its key is not there */
	char key_backend[CSM_TOKEN_STR_MAX + 1]; /* of its key; empty: not looked at yet */
};

struct ejob {
	uint64_t id; /* 0: free */
	const char *what;
	struct entry *entry;    /* either */
	struct errand *errand;  /* or */
	unsigned wanted;
	uint64_t until_ms;
};

struct enrol_told {
	const char *state; /* static */
	uint64_t certificates, failing, not_after, next_try;
	char error[ENROL_WHY], key_backend[CSM_TOKEN_STR_MAX + 1];
};

struct enrol {
	struct broker *b;
	pthread_mutex_t lock; /* told, and anchors of profiles */
	struct enrol_told told[CSM_ENROL_PROFILES_MAX];
	struct csm_workq *queue; /* NULL: no profiles */
	struct csm_job tick;
	atomic_bool ticking;
	char hostname[65];
	struct eprofile profile[CSM_ENROL_PROFILES_MAX];
	size_t n_profiles;
	/* the thread's */
	struct csm_reader *reader;
	bool loaded, stopped;
	struct csm_times now;
	struct csm_renew renew;
	struct errand *errands;
	struct ejob jobs[ENROL_JOBS_MAX];
	uint64_t last_job;
	struct enrol_op *parked, *parked_last; /* channels that wait for a job */
};

/* ---- enrol_record.c: what the store has ---- */
struct erecord {
	struct csm_pool pool;
	struct csm_buf buf;
	struct csm_msg_cert_info info;
	struct csm_bin chain;
};
void erecord_init(struct erecord *rec);
void erecord_free(struct erecord *rec);
/* CSM_ENOT_FOUND: there is none. An empty one then. */
CSM_MUST int erecord_load(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN],
	struct erecord *rec);
/* Durable when it returns. sop may bring an event, a request_id and which key this one takes the place of; NULL: neither. */
CSM_MUST int erecord_save(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN],
	const struct erecord *rec, struct csm_store_op *sop);
/* Are these the names that it asks for, in this order? */
bool erecord_is_for(const struct csm_msg_cert_info *info, struct csm_str subject, const struct csm_strs *sans);
CSM_MUST int enrol_commit(struct enrol *e, struct csm_store_op *sop);
/* A line of the audit log, not waited for. */
void enrol_audit_refused(struct enrol *e, const struct entry *en, int r);
CSM_MUST int enrol_info_answer(const struct erecord *rec, struct csm_str ns, struct csm_str name, uint64_t now, struct csm_buf *out);
struct csm_str entry_ns(const struct entry *en);
struct csm_str entry_name(const struct entry *en);

/* ---- enrol_key.c: keys ---- */
/* A request for the names of the record, by the entry's key, or the next one where it is turning, appended. */
CSM_MUST int enrol_csr(struct enrol *e, struct entry *en, const struct csm_msg_cert_info *want, struct csm_buf *out,
	char why[static 128]);
/* The name in the store of the key that signs its requests; in buf where it is the next one. */
struct csm_str entry_key(const struct entry *en, char buf[static CSM_KEY_BESIDE_NAME]);
const uint8_t *entry_key_id(const struct entry *en);
/* Whether a key of this back end can be made here: CSM_EUNAVAILABLE, CSM_EUNSUPPORTED: the device keeps it. */
struct enrol_make {
	struct csm_backend *be;
	struct csm_plugin_keyspec spec;
	struct csm_bin tag;            /* of the record */
	struct csm_str ns, name, object; /* the audit log's */
	const char *detail;            /* the audit log's, or NULL */
};
/* A key in the store, durable. */
CSM_MUST int enrol_make_key(struct enrol *e, const struct enrol_make *m, uint8_t id[static CSM_KEY_ID_LEN]);
/* The SubjectPublicKeyInfo, appended; alg may be NULL. */
CSM_MUST int enrol_spki(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN],
	struct csm_buf *out, enum csm_alg *alg, uint64_t *signatures);
/* The profile's key_backend is filled in, where it has a key. */
CSM_MUST int enrol_own_backend(struct enrol *e, struct eprofile *p);
/* The profile's own key: found or made. CSM_EUNSUPPORTED: the back end that it names keeps keys in its device. */
CSM_MUST int enrol_own_key(struct enrol *e, struct eprofile *p, uint8_t id[static CSM_KEY_ID_LEN]);

/* ---- enrol_turn.c: renewals for another key ---- */
/* Before a request is made: which key signs it. Whatever was begun and is not wanted any more is deleted. */
CSM_MUST int enrol_choose_key(struct enrol *e, struct entry *en, const struct erecord *rec, char why[static 128]);
/* The next key has taken its place. */
void enrol_turned(struct enrol *e, struct entry *en);
/* Of an entry from the store: until when the key before it is there, by the wall clock. */
void enrol_before_kept(struct enrol *e, struct entry *en, uint64_t until_s);
/* Once a second: deletes those before whose time is over. */
void enrol_before_due(struct enrol *e);
/* Nobody looks after the key: what is beside it is deleted. */
void enrol_beside_drop(struct enrol *e, struct csm_str ns, struct csm_str name);

/* ---- enrol_jobs.c: what csm-enrol is given ---- */
void enrol_dispatch(struct enrol *e);
void enrol_fail(struct enrol *e, struct entry *en, int r, const char *why, uint64_t retry_after_s);
bool own_is_valid(const struct enrol *e, const struct eprofile *p);
void errand_end(struct enrol *e, struct errand *d, int r, const char *why);
CSM_MUST int errand_new(struct enrol *e, struct eprofile *p, enum errand_what what, struct errand **ret);

/* ---- enrol_done.c: what it brings ---- */
void enrol_done(struct enrol *e, struct enrol_op *op);
void enrol_job_lost(struct enrol *e, struct ejob *job, int r, const char *why);
/* Nobody was told of it: it is for the next channel. */
void enrol_job_back(struct ejob *job);

/* ---- enrol_entries.c ---- */
struct entry *entry_find(struct enrol *e, struct csm_str ns, struct csm_str name);
CSM_MUST int entry_new(struct enrol *e, struct eprofile *p, struct csm_str ns, struct csm_str name,
	const uint8_t id[static CSM_KEY_ID_LEN], struct entry **ret);
/* r, why: for who waits; CSM_ENOT_FOUND: nothing is wanted for the key any more. */
void entry_remove(struct enrol *e, struct entry *en, int r, const char *why);
/* All that the records tell; not complete where they cannot be read. */
void enrol_load(struct enrol *e);
/* The profile's key and what is wanted for it, once somebody needs it. */
void enrol_prepare_own(struct enrol *e, struct eprofile *p);
/* Whom the profile trusts: what the configuration says; then what was fetched under it. */
void enrol_load_anchors(struct enrol *e, struct eprofile *p);
void enrol_kept_anchors(struct enrol *e, struct eprofile *p);

/* ---- enrol_ops.c: each answers the operation, now or when there is an answer ---- */
void enrol_start_enrol(struct enrol *e, struct enrol_op *o);
void enrol_start_renew(struct enrol *e, struct enrol_op *o);
void enrol_start_revoke(struct enrol *e, struct enrol_op *o);

/* ---- enrol.c ---- */
/* With its request_id it is the same request as this one. */
bool enrol_op_same(const struct enrol_op *a, const struct enrol_op *b);
/* What was done for it, in its answer, is kept under its request_id, where it has one. */
void enrol_keep_outcome(struct enrol *e, struct enrol_op *op);
/* Answers an operation: r 0 with what is in its answer. */
void enrol_reply(struct enrol_op *op, int r, const char *why);
void entry_reply(struct enrol *e, struct entry *en, int r, const char *why);

/* ---- enrol_status.c ---- */
/* From now on the profile trusts these; on failure nobody. */
CSM_MUST int enrol_trust(struct enrol *e, struct eprofile *p, struct csm_bin anchors);
void enrol_tell(struct enrol *e);

/* ---- enrol_usage.c: what keys were used for, told exactly once ---- */
/* What was being told when csmd ended. */
void enrol_usage_load(struct enrol *e, struct eprofile *p);
/* Once a second: an errand, where there is something to be told now. */
void enrol_usage_due(struct enrol *e, struct eprofile *p);
/* The errand's end: r 0 when the CA has the report. */
void enrol_usage_ended(struct enrol *e, struct eprofile *p, int r);

#endif
