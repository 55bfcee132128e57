/* From one whole message to its handler: method, role, state, fields; and what handlers share: names, policy, the
 * one answer. Loop thread only. */
#ifndef CSM_NODE_DISPATCH_H
#define CSM_NODE_DISPATCH_H

#include "daemon/node/conn.h"

#define CSM_OWN_NAMESPACE "csm" /* of csmd's own keys */

struct look; /* proof.h */

/* One request in hand. Slices point into the message; all is gone when the handler returns. */
struct req {
	struct conn *conn;
	struct loop *loop;
	const struct csm_method *method;
	uint32_t msgid;
	const void *params; /* the method's request structure */
	struct csm_bin raw; /* its bytes */
	const struct look *look; /* at the peer's program; NULL where no rule asks for one */
};

/* A name as the request gives it, made whole: text is what policy is asked about. */
struct object {
	struct csm_str ns, name, secret;
	struct csm_str text; /* "NS:NAME", "NS:DOMAIN/NAME", "NS:" or "NS:DOMAIN/" */
	char buf[CSM_SECRETREF_MAX + 4];
};

void dispatch_message(struct conn *c, const uint8_t *p, size_t n);
/* A request that was put off until its peer's program had been looked at. */
void dispatch_again(struct conn *c, const struct csm_method *m, uint32_t msgid, struct csm_bin raw, const struct look *look);
/* The connection is closing: its signatures in parts and its keys go too. */
void dispatch_forget(struct conn *c);
void issue_forget(struct conn *c); /* its lists too (do_issue.c) */

/* The handlers, one a row of methods.def. */
#define X(sym, num, name, perm, states, roles, where, rq, rs, flags) void do_##sym(struct req *q);
#include "proto-spec/methods.def"
#undef X

/* ---- for handlers ---- */
void req_result(struct req *q, const void *result); /* of the method's response structure */
void req_result_raw(struct req *q, struct csm_bin result);
CSM_MUST int req_result_room(struct req *q, size_t n, uint8_t **ret); /* see conn_result_room */
void req_error(struct req *q, int r, const char *message);

/* Make names whole: a bare one gets the caller's home namespace. On failure the request has been answered. */
CSM_MUST int req_object(struct req *q, struct csm_str ref, struct object *o);
/* Of a key; also "NS:.KEY", see connkey.h. */
CSM_MUST int req_key_object(struct req *q, struct csm_str ref, struct object *o);
CSM_MUST int req_secret_object(struct req *q, struct csm_str ref, struct object *o);
/* "NS:" of the given or the home namespace. */
CSM_MUST int req_namespace(struct req *q, struct csm_str ns, struct object *o);
/* "NS:DOMAIN/" of a domain. */
CSM_MUST int req_domain_list(struct req *q, struct csm_str ref, struct object *o);
/* Why a peer is denied, where it is csmd itself that cannot tell who it is; else NULL. */
const char *req_degraded(const struct req *q);
/* Does policy allow the method's permission on the object? On refusal the request has been answered. */
CSM_MUST int req_authorize(struct req *q, const struct object *o);
/* The answer "denied", or another error that refuses, once the audit log tells of it. object: at most a whole name. */
void req_refuse(struct req *q, int r, struct csm_str object, const char *why);
/* Answer for an object that is not there: not_found for who may list, else denied. */
void req_missing(struct req *q, int list_perm, const struct object *o);
bool req_may(struct req *q, int perm, struct csm_str object);
/* The same with its reason: CSM_EDENIED is policy's own answer; nothing is told of it to anyone. */
CSM_MUST int req_decide(struct req *q, int perm, struct csm_str object);
/* The caller under the policy, with its program where that is proven. */
CSM_MUST int req_subject(struct req *q, const struct csm_subject **ret);
/* A copy whose slices point into itself. */
void object_copy(struct object *to, const struct object *from);
/* An open read transaction; req_end_read closes it. On failure the request has been answered. */
CSM_MUST int req_begin_read(struct req *q, struct csm_reader **ret);
void req_end_read(struct req *q);
/* Is there such a domain? If not, or on failure, the request has been answered: only who may list domains is told. */
CSM_MUST int req_domain(struct req *q, const struct object *o, struct csm_domain_info *info);
/* Room for the entries of a list's answer: as many as the request's limit, each of `size` bytes, zeroed; an open read
 * transaction with it. On failure the request has been answered. */
CSM_MUST int req_begin_list(struct req *q, struct csm_u64 limit, size_t size, size_t *n, void **items,
	struct csm_reader **reader);
/* The end of a list: the answer, or the error. */
void req_end_list(struct req *q, int r, const void *result);
/* The request_id of a mutating method, and the answer it had before: true when that answer was given. An id is
 * known per uid, socket and namespace; it stands for method, whole name of the object, and parameters. After req_authorize only. */
#define REQ_WHO_MAX (24 + CSM_NAMESPACE_MAX)
bool req_replayed(struct req *q, const struct object *o, struct csm_str request_id, struct csm_request_id *rid,
	char who[static REQ_WHO_MAX]);
/* Only what the store is to know it by. */
void req_identify(struct req *q, const struct object *o, struct csm_str request_id, struct csm_request_id *rid,
	char who[static REQ_WHO_MAX]);
/* The caller's numbers; 0 on a role's descriptor. */
uid_t req_uid(const struct req *q);
pid_t req_pid(const struct req *q);
struct csm_audit_place *req_place(const struct req *q); /* the peer's; NULL: not known */
/* It was used: counted in the audit log. */
void req_used(struct req *q, struct csm_str object);
/* ---- for operations that change the store ---- */
/* A change of one object, with its own copies of the object's name and of the request_id. */
struct change {
	struct op op; /* first */
	struct object object;
	char who[REQ_WHO_MAX], request_id[CSM_REQUEST_ID_MAX];
};
/* A new change, which the audit log is told of, of `size` bytes that begins with struct change, zeroed but for these copies and what the store is told
 * of them. rid may be empty. On failure the request has been answered. */
CSM_MUST int req_change(struct req *q, const struct object *o, const struct csm_request_id *rid, enum csm_op_kind kind,
	size_t size, void (*clear)(struct op *op), struct change **ret);
/* op_to_store; where it is refused, the answer and the end of the operation. */
void op_commit(struct op *op, void (*apply)(struct op *));
/* The answer of a request_id that was done before. */
void op_replay(struct op *op);
/* Answer (empty, or the error) and end, for changes that answer nothing. */
void op_finish_change(struct op *op);

#endif
