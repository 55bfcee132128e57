/* One use of a key's private half: on the loop where that is quick, else as an operation on the back end's queue; the
 * answer is the same. */
#ifndef CSM_NODE_KEYCALL_H
#define CSM_NODE_KEYCALL_H

#include "daemon/node/dispatch.h"
#include "daemon/pki/csr.h"

enum key_what { KEY_WHAT_SIGN, KEY_WHAT_DECRYPT, KEY_WHAT_DERIVE, KEY_WHAT_CSR, KEY_WHAT_ATTEST };

struct key_call {
	enum key_what what;
	struct csm_scheme scheme;
	struct csm_bin in;    /* digest, message, cipher text, peer or nonce; borrowed until key_call_run returns */
	struct csm_bin label;
	struct csm_csr *csr;  /* CSR: its tbs is what gets signed; key_call_run takes it over */
};

struct connkey;
/* A key found and allowed for the caller; read transaction open until req_end_read. */
struct key_found {
	struct object object;
	struct csm_key_record rec; /* without priv */
	struct csm_backend *be;
	struct csm_reader *reader;
	struct connkey *own; /* a key of this connection, in no store; else NULL */
	char before[CSM_KEY_BESIDE_NAME]; /* where it is the one whose place another took: its name in the store; else empty */
};
/* Name, policy, record, use, back end. want: the request's spki_sha256, p NULL for none: another key is CSM_ECONFLICT, but for
 * the one whose place it took, while that is there. On failure the request has been answered and nothing is open. */
CSM_MUST int key_find(struct req *q, struct csm_str ref, struct csm_str want, unsigned use, struct key_found *f);
/* Without a use: for show and public. */
CSM_MUST int key_look(struct req *q, struct csm_str ref, struct csm_str want, struct key_found *f);
/* Likewise, and as for key_find the one whose place another took is found while it is there: what tells a key, and changes nothing. */
CSM_MUST int key_look_before(struct req *q, struct csm_str ref, struct csm_str want, struct key_found *f);
#define KEY_ANY ((struct csm_str){NULL, 0})
/* The scheme of the request, or the key's default; checked against the key. */
CSM_MUST int key_scheme(struct req *q, const struct key_found *f, struct csm_str name, struct csm_scheme *ret);
/* Do it and answer; closes the transaction of f in any case. */
void key_call_run(struct req *q, struct key_found *f, struct key_call *call);
/* The call itself with a key whose record has its private part: loaded from there, or taken from the cache, which is that of
 * the threads that call the back end. On such a thread. */
CSM_MUST int key_call_on(struct csm_keycache *cache, struct csm_backend *be, const struct csm_key_record *rec,
	const struct key_call *call, struct csm_plugin_out *out, uint64_t now_ms);
/* Now and then, on the loop: give up what has taken too long. */
void key_call_tick(struct loop *l);

#endif
