/* libcsm: keys and secrets of the node's csmd, used over its socket.
 *
 * Results. Calls return 0 or a positive code CSM_E* of <csm/errors.h>. An output is written
 * only when the call returns 0 (a size that was too small is the exception, below).
 * csm_error_message gives the daemon's words for the calling thread's last failure.
 *
 * Threads. One struct csm serves any number of threads at once; each call in progress has a
 * connection for itself, and idle connections are kept for the next calls. Every other object
 * (request, reply, stream, async) belongs to one thread at a time. The library starts no thread,
 * installs no signal handler and raises no SIGPIPE. Calls are not cancellation points that
 * leave things in order: do not cancel a thread inside one.
 *
 * Processes. After fork the child may go on with the same struct csm: it makes connections of
 * its own and is judged by csmd as itself. After setuid, setgid or the like new connections are
 * made likewise. Requests, replies and streams do not survive a fork: the child may only free
 * them.
 *
 * Strings are UTF-8 with a NUL at the end. NAME of a key is "[NAMESPACE:]KEY", of a secret
 * "[NAMESPACE:]DOMAIN/NAME"; without a namespace the caller's home. Strings and bytes that are
 * handed in are copied before the call returns and stay the caller's.
 *
 * Buffers for output: `out` with its size in *len. On success *len is what was written. When it
 * is too small the call returns CSM_ETOO_LARGE and *len is the size needed. */
#ifndef CSM_CSM_H
#define CSM_CSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <csm/errors.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef CSM_MUST
#define CSM_MUST __attribute__((warn_unused_result))
#endif

#pragma GCC visibility push(default)

/* Sizes that always suffice, in bytes. */
enum {
	CSM_SIGNATURE_BYTES = 1024,
	CSM_PUBLIC_BYTES = 1024,     /* SubjectPublicKeyInfo, DER */
	CSM_SHARED_BYTES = 128,      /* an ECDH result */
	CSM_PLAINTEXT_BYTES = 1024,  /* an RSA plaintext */
	CSM_REQUEST_BYTES = 16384,   /* a certificate request, DER */
	CSM_CHAIN_BYTES = 65536,     /* a certificate with its chain, DER */
	CSM_ATTESTATION_BYTES = 8192, /* a statement about a key */
	CSM_PROOF_BYTES = 32,        /* the answer to a challenge */
	CSM_SEAL_DATA_BYTES = 65536, /* what csm_seal takes */
	CSM_WRAPPED_BYTES = 4096,    /* a wrapped key, or a TSS2 PRIVATE KEY */
	CSM_SEAL_EXTRA_BYTES = 512,  /* by how much the sealed form may be longer */
};

/* ---- the handle ---------------------------------------------------------------------------- */

/* Where the daemon is and how to talk to it. Connects to nothing until the first call. The socket
 * is $CSM_SOCKET (ignored in set-user-ID programs) or /run/csm.sock. CSM_ENOMEM. */
struct csm;
CSM_MUST int csm_new(struct csm **ret);
/* Closes the connections. No call may be in progress. NULL is a no-op. */
void csm_free(struct csm *csm);

/* Settings: before the first call, by one thread. */
/* The socket's path. CSM_EINVALID where it does not fit in a socket address. */
CSM_MUST int csm_set_socket(struct csm *csm, const char *path);
/* The time that each call may take, all in all, in milliseconds: 10000 unless set; 0 waits without end. */
void csm_set_timeout(struct csm *csm, uint32_t ms);
/* How many idle connections are kept, at most 64: the number of processors, at least 8, unless set. */
void csm_set_connections(struct csm *csm, unsigned n);
/* Whose socket is trusted. The listening process (SO_PEERCRED) must be uid 0, the caller's own
 * effective uid, or this one; CSM_EUNTRUSTED else, before anything is sent. */
void csm_set_trust_uid(struct csm *csm, uint32_t uid);
/* In a user namespace foreign uids appear as the overflow uid (65534), which proves nothing. True
 * trusts it all the same: right where the socket's place is protected by other means. */
void csm_set_trust_overflow(struct csm *csm, bool trust);

/* ---- errors -------------------------------------------------------------------------------- */

/* What was wrong with the last call of this thread that failed: the daemon's text where it sent
 * one. Never NULL, valid until the thread's next call. It holds no secret. */
const char *csm_error_message(void);
/* When the daemon named one (CSM_EBUSY): how long to wait before asking again, else 0. */
uint32_t csm_error_retry_after_ms(void);
/* The short name ("denied"), the general text, and whether a repeat can help. Any number will do. */
const char *csm_error_name(int code);
const char *csm_error_text(int code);
bool csm_error_retryable(int code);

/* The library's version, "0.1.0". */
const char *csm_version(void);

/* ---- any method: requests and replies -------------------------------------------------------- */

/* The fields of every method and its answer are listed in PROTOCOL.md. */
struct csm_request;
struct csm_reply;

/* A request for a method ("key.sign"). CSM_EUNKNOWN_METHOD, CSM_ENOMEM. */
CSM_MUST int csm_request_new(const char *method, struct csm_request **ret);
/* Wipes what it held. NULL is a no-op. Not for what csm_request_add_map gave. */
void csm_request_free(struct csm_request *req);
/* Each sets one field, a second time in place of the first. CSM_EUNSUPPORTED_FIELD (the method has
 * none of this name), CSM_EINVALID (another type, or not UTF-8), CSM_ETOO_LARGE, CSM_ENOMEM. */
CSM_MUST int csm_request_u64(struct csm_request *req, const char *field, uint64_t value);
CSM_MUST int csm_request_bool(struct csm_request *req, const char *field, bool value);
CSM_MUST int csm_request_str(struct csm_request *req, const char *field, const char *value);
CSM_MUST int csm_request_bin(struct csm_request *req, const char *field, const void *value, size_t len);
/* Append to a list: a string, or a map whose fields are set through *item, which the request owns. */
CSM_MUST int csm_request_add_str(struct csm_request *req, const char *field, const char *value);
CSM_MUST int csm_request_add_map(struct csm_request *req, const char *field, struct csm_request **item);

/* Send and wait for the answer; *reply (may be NULL) is to be freed. The request can be sent again.
 *
 * A connection that breaks before the answer is made anew and the request sent once more within the
 * deadline; methods that change something carry a random request_id for that (unless the caller set
 * one), so that the daemon does the work once. After CSM_ETIMEOUT or CSM_ECLOSED the daemon may or
 * may not have done it: a caller who set the request_id can ask again.
 *
 * Every error of the daemon; CSM_EUNREACHABLE, CSM_ECLOSED, CSM_EUNTRUSTED, CSM_ETIMEOUT, CSM_ENOMEM,
 * CSM_ESYSTEM; CSM_EPROTOCOL for an answer that is none; CSM_EINVALID where a required field is
 * missing; CSM_EUNSUPPORTED for the steps of a stream (csm_sign_start is for those). */
CSM_MUST int csm_call(struct csm *csm, const struct csm_request *req, struct csm_reply **reply);

/* Wipes it if it can hold a secret. NULL is a no-op. */
void csm_reply_free(struct csm_reply *reply);

/* A reply, or a part of one: two words that may be copied, valid until the reply is freed. */
struct csm_view {
	const void *def;
	const void *msg;
};
struct csm_view csm_reply_view(const struct csm_reply *reply);
/* True where the field is present. Lists always are. */
bool csm_view_has(struct csm_view v, const char *field);
/* The field's value; 0, false or NULL where it is absent or of another type. What they point at
 * belongs to the reply. A NUL follows the bytes of strings and of csm_view_bin. */
uint64_t csm_view_u64(struct csm_view v, const char *field);
bool csm_view_bool(struct csm_view v, const char *field);
const char *csm_view_str(struct csm_view v, const char *field);
const void *csm_view_bin(struct csm_view v, const char *field, size_t *len);
/* Lists: the number of entries, the i-th string (NULL past the end), the i-th map. A single map has
 * one entry, or none where it is absent. A view past the end has no fields. */
size_t csm_view_count(struct csm_view v, const char *field);
const char *csm_view_item(struct csm_view v, const char *field, size_t i);
struct csm_view csm_view_at(struct csm_view v, const char *field, size_t i);

/* ---- event-driven ---------------------------------------------------------------------------- */

/* One connection of its own with many requests in flight, for a program with an event loop. The
 * settings of csm are copied. One thread at a time. CSM_ENOMEM. */
struct csm_async;
CSM_MUST int csm_async_new(const struct csm *csm, struct csm_async **ret);
/* Calls back for all that is unanswered with CSM_ECLOSED (in a forked child: for nothing), then
 * frees. May be called from a callback. NULL is a no-op. */
void csm_async_free(struct csm_async *a);

/* Called once for each submitted request: error 0 and a reply, which the callee now owns, or a code
 * and NULL (csm_error_message then tells more). Only from csm_process and csm_async_free. */
typedef void csm_done_fn(void *arg, int error, struct csm_reply *reply);
/* Take the request up; nothing is sent before csm_process. The request may be freed or changed at
 * once. timeout_ms 0: the handle's. Lost connections as in csm_call, except for the steps of a stream.
 * CSM_EINVALID, CSM_EBUSY (65536 wait already), CSM_ENOMEM, CSM_ESTATE in a forked child. */
CSM_MUST int csm_submit(struct csm_async *a, const struct csm_request *req, uint32_t timeout_ms,
	csm_done_fn *done, void *arg);
/* What to wait for: the descriptor (-1: none now), POLLIN and POLLOUT as poll takes them, and the
 * longest time in milliseconds (-1: no bound, 0: call csm_process now). All three may change with each
 * csm_submit and csm_process. */
int csm_fd(const struct csm_async *a);
short csm_events(const struct csm_async *a);
int csm_timeout_ms(const struct csm_async *a);
/* Connect, send, receive and call back, without waiting. 0, or the error that has just ended the
 * connection; the requests concerned have been told, and the next csm_submit begins anew. */
int csm_process(struct csm_async *a);
/* For a program without a loop: until nothing is pending, at most as long as the requests' times. All that was submitted goes out
 * together. What csm_process said when it was not 0 last, else 0. CSM_ESTATE. */
int csm_process_all(struct csm_async *a);
/* Requests submitted and not answered. */
size_t csm_pending(const struct csm_async *a);

/* ---- the common calls ------------------------------------------------------------------------- */

/* Errors as of csm_call. Where a parameter may be NULL it says so. */

CSM_MUST int csm_ping(struct csm *csm);
/* Fields: whoami_res and status_res of PROTOCOL.md. */
CSM_MUST int csm_whoami(struct csm *csm, struct csm_reply **ret);
CSM_MUST int csm_status(struct csm *csm, struct csm_reply **ret);

/* alg ("p256", "rsa3072", "ed25519", ...; NULL: p256); backend (NULL: the strongest present); use:
 * "sign", "decrypt", "derive" with commas between, NULL: what fits the algorithm. *ret (may be NULL):
 * key_info. CSM_EEXISTS. */
CSM_MUST int csm_key_create(struct csm *csm, const char *key, const char *alg, const char *backend, const char *use,
	struct csm_reply **ret);
CSM_MUST int csm_key_show(struct csm *csm, const char *key, struct csm_reply **ret);
/* The public key: SubjectPublicKeyInfo as DER. */
CSM_MUST int csm_key_public(struct csm *csm, const char *key, void *out, size_t *len);
CSM_MUST int csm_key_delete(struct csm *csm, const char *key);
/* Make a key of one that was wrapped for this node: the bytes in the CSM WRAPPED KEY of csm wrap-key (WRAPPED-KEY.md), or
 * in a TSS2 PRIVATE KEY made in this node's TPM, without their PEM. Never a private key in clear. exposed: the key was in
 * files that told it to everyone; it is kept with the key. *ret (may be NULL): key_info. CSM_EEXISTS; CSM_EINVALID: it is
 * damaged, or for another node, and nothing has changed. */
CSM_MUST int csm_key_import(struct csm *csm, const char *key, const void *wrapped, size_t wrapped_len, bool exposed,
	struct csm_reply **ret);
/* The TSS2 PRIVATE KEY (DER) of a TPM's key that was made exportable, else CSM_EUNSUPPORTED; for the administrator, on
 * the administrator's socket. Whoever has it and may use the TPM, signs: the caller wipes it. */
CSM_MUST int csm_key_export(struct csm *csm, const char *key, void *out, size_t *len);

/* Sign, decrypt, derive, csr and delete go by the key's name. A caller who holds a key's public half for long, and is
 * not to be served by another key that has taken the name, makes the request by csm_request_new and sets its field
 * spki_sha256 (key.show tells it; CSM_ECONFLICT). */
/* Sign a digest. scheme: "ecdsa-sha256", "rsa-pss-sha256", ..., NULL: what fits the key; its hash
 * sets the digest's length. ECDSA signatures are DER. */
CSM_MUST int csm_key_sign(struct csm *csm, const char *key, const char *scheme, const void *digest, size_t digest_len,
	void *out, size_t *len);
/* Sign a message of any length; csmd hashes it. Ed25519 takes at most 786432 bytes (CSM_ETOO_LARGE). */
CSM_MUST int csm_key_sign_message(struct csm *csm, const char *key, const char *scheme, const void *message,
	size_t message_len, void *out, size_t *len);
/* The same in pieces, for messages that are not in memory. A stream has a connection for itself; when
 * that breaks, its calls return CSM_ECLOSED, and the stream has to be started again. */
struct csm_sign;
CSM_MUST int csm_sign_start(struct csm *csm, const char *key, const char *scheme, struct csm_sign **ret);
CSM_MUST int csm_sign_update(struct csm_sign *s, const void *data, size_t len);
/* The stream is used up, whatever the result; it is still to be freed. */
CSM_MUST int csm_sign_finish(struct csm_sign *s, void *out, size_t *len);
/* Gives up a stream that was not finished. NULL is a no-op. */
void csm_sign_free(struct csm_sign *s);

/* RSA-OAEP; scheme NULL: rsa-oaep-sha256. The plaintext is a secret: the caller wipes it. */
CSM_MUST int csm_key_decrypt(struct csm *csm, const char *key, const char *scheme, const void *ciphertext,
	size_t ciphertext_len, void *out, size_t *len);
/* ECDH with the peer's SubjectPublicKeyInfo (DER): the x coordinate, a secret: the caller wipes it. */
CSM_MUST int csm_key_derive(struct csm *csm, const char *key, const void *peer, size_t peer_len, void *out,
	size_t *len);
/* A certificate request (PKCS#10, DER). subject "/O=x/CN=y"; sans: n of "dns:a", "ip:1.2.3.4",
 * "uri:spiffe://x/y", "email:a@b" (NULL with n 0). */
CSM_MUST int csm_key_csr(struct csm *csm, const char *key, const char *subject, const char *const *sans, size_t n,
	void *out, size_t *len);

/* A statement of the TPM that it holds the key, over a nonce of at most 32 bytes (NULL with 0: none): the map
 * `attestation` of PROTOCOL.md in MessagePack; `csm attest verify` reads it in PEM, with the label CSM ATTESTATION.
 * CSM_EUNSUPPORTED: the key's back end makes no statements. */
CSM_MUST int csm_key_attest(struct csm *csm, const char *key, const void *nonce, size_t nonce_len, void *out, size_t *len);
/* For the administrator, on the administration socket: prove that the attestation key and the endorsement key of these
 * Names are in this node's TPM, by a credential that was made for them (TPM2_MakeCredential). The proof is an HMAC of the
 * Names with the credential's secret, see PROTOCOL.md. CSM_EINVALID: they are not, or the credential was changed. */
struct csm_credential {
	const void *ak_name, *ek_name; /* TPM2B_NAME without its size, and so the others */
	size_t ak_name_len, ek_name_len;
	const void *credential, *secret; /* TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET */
	size_t credential_len, secret_len;
};
CSM_MUST int csm_attest_activate(struct csm *csm, const struct csm_credential *c, void *proof, size_t *len);

/* A key's certificate. A chain is DER certificates one after the other: the key's own, its issuer's, and so
 * on; the root's may be left out. csm_cert_install puts it in the place of what was there, after csmd has
 * checked that it is the key's (CSM_EINVALID with what is wrong). CSM_ENOT_FOUND where the key has none;
 * csm_key_delete takes it along. */
CSM_MUST int csm_cert_install(struct csm *csm, const char *key, const void *chain, size_t len);
CSM_MUST int csm_cert_chain(struct csm *csm, const char *key, void *out, size_t *len);
/* Fields: cert_info of PROTOCOL.md, with the chain. */
CSM_MUST int csm_cert_show(struct csm *csm, const char *key, struct csm_reply **ret);
CSM_MUST int csm_cert_delete(struct csm *csm, const char *key);

/* A certificate from a CA, which csmd asks for and renews as a profile of its configuration says. These wait for the CA for
 * up to 90 seconds, whatever the handle's time. ret may be NULL; fields: cert_info of PROTOCOL.md.
 * What to ask for: zeros for what the profile says. */
struct csm_enrol {
	const char *profile, *subject; /* NULL: "default"; the profile's */
	const char *const *sans;       /* as for csm_key_csr */
	size_t n_sans;
	const void *csr;  /* a request made elsewhere, DER or PEM: it is forwarded, and the answer has the chain; key is then a name */
	size_t csr_len;   /*  that policy decides by */
	uint32_t ttl;     /* seconds */
	bool no_wait;     /* answer at once; the state is "pending" until there is one */
};
CSM_MUST int csm_cert_enrol(struct csm *csm, const char *key, const struct csm_enrol *what, struct csm_reply **ret);
/* Now, not when it is due. CSM_ESTATE: no profile renews it. */
CSM_MUST int csm_cert_renew(struct csm *csm, const char *key, bool wait, struct csm_reply **ret);
/* The CA revokes it, and csmd renews it no more; the key stays. reason NULL: "unspecified". */
CSM_MUST int csm_cert_revoke(struct csm *csm, const char *key, const char *reason, struct csm_reply **ret);
/* Wait until the certificate of one of these keys changes (n 0: of one of the caller's home namespace), at most timeout_ms (0: a
 * minute; at most 300000). Fields: version, for the next call's `after` (0 in the first call, which answers at once), all (look
 * at each of them), and the list keys of whole names. */
CSM_MUST int csm_cert_watch(struct csm *csm, const char *const *keys, size_t n, uint64_t after, uint32_t timeout_ms,
	struct csm_reply **ret);

/* A certificate authority's key, with the use `issuer`: it signs nothing but whole certificates, CRLs and OCSP responses of
 * that authority, which csmd reads and holds against these rules, for good. */
struct csm_issuer_rules {
	uint64_t max_life;            /* seconds, of what it issues */
	unsigned path_len;            /* how many CAs may stand below it; 0: none */
	const char *const *permitted; /* "dns:.example.org", "ip:10.0.0.0/8", "uri:.host", "email:host" */
	size_t n_permitted;
	const char *const *excluded;
	size_t n_excluded;
	uint64_t rate; /* signatures an hour; 0: no limit */
};
/* As csm_key_create. */
CSM_MUST int csm_issuer_create(struct csm *csm, const char *key, const char *alg, const char *backend,
	const struct csm_issuer_rules *rules, struct csm_reply **ret);
/* Sign a to-be-signed of the kind "certificate", "crl" (any length: a long one goes by csm_issue_begin) or "ocsp", DER, as
 * `issue.sign` of PROTOCOL.md says. *len: the room, then the signature's length. scheme: NULL, or it has to be the one that tbs
 * names. A serial number is used once, also when its signature never came: CSM_EEXISTS. CSM_EDENIED with the rule. */
CSM_MUST int csm_issue_sign(struct csm *csm, const char *key, const char *kind, const char *scheme, const void *tbs,
	size_t tbs_len, void *out, size_t *len);
/* A long CRL without having it in memory: head is the TBSCertList up to its first entry, with the lengths of the whole; then
 * entries, whole ones; then, with the signature, what stands behind them. As with csm_sign_start, a connection of its own. */
struct csm_issue;
CSM_MUST int csm_issue_begin(struct csm *csm, const char *key, const char *kind, const char *scheme, const void *head,
	size_t head_len, struct csm_issue **ret);
CSM_MUST int csm_issue_update(struct csm_issue *i, const void *entries, size_t entries_len);
/* It is used up, whatever the result; it is still to be freed. */
CSM_MUST int csm_issue_finish(struct csm_issue *i, const void *tail, size_t tail_len, void *out, size_t *len);
void csm_issue_free(struct csm_issue *i);

/* The root key, on the administrator's socket. csm_reseal seals it anew as csmd.yaml has it by now; field: sealed.
 * CSM_EDENIED: it would not come out again, and nothing has changed. */
CSM_MUST int csm_reseal(struct csm *csm, struct csm_reply **ret);
/* Shares by which the root key can be brought back when its TPM is gone: 2 <= threshold <= shares <= 32. Fields: set,
 * threshold and the list shares, texts that are told this once; the reply's memory is locked, and wiped when it is freed.
 * A new set takes the place of the one before. */
CSM_MUST int csm_recovery_create(struct csm *csm, unsigned shares, unsigned threshold, struct csm_reply **ret);
/* Fields: recovery_status_res of PROTOCOL.md. */
CSM_MUST int csm_recovery_status(struct csm *csm, struct csm_reply **ret);
/* Bring it back by n shares, as many as are needed. accept_counter: the TPM's counter is a new one, and the store is taken for
 * the newest all the same (CSM_ECONFLICT without). Fields: new_tpm, keys_lost, sealed. CSM_EINVALID tells which share is
 * wrong; CSM_ESTATE: the store is open, or has no shares. */
CSM_MUST int csm_recovery_restore(struct csm *csm, const char *const *shares, size_t n, bool accept_counter,
	struct csm_reply **ret);

CSM_MUST int csm_domain_create(struct csm *csm, const char *domain);
CSM_MUST int csm_domain_delete(struct csm *csm, const char *domain);

/* One pair of a secret: type "text" (UTF-8), "bytes" or "json"; NULL: bytes. */
struct csm_pair {
	const char *name;
	const char *type;
	const void *value;
	size_t len;
};
/* Replace all pairs of a secret and make its next version, whose number goes to *version (may be
 * NULL). At most 256 pairs and 786432 bytes in all. */
CSM_MUST int csm_secret_set(struct csm *csm, const char *secret, const struct csm_pair *pairs, size_t n,
	uint64_t *version);
/* key NULL: all pairs. version 0: the newest. Fields: version, created, and the list pairs with name,
 * type and value. The reply's memory is locked, and wiped when it is freed. */
CSM_MUST int csm_secret_get(struct csm *csm, const char *secret, const char *key, uint64_t version,
	struct csm_reply **ret);
/* The value of one key of the newest version. The caller wipes it. */
CSM_MUST int csm_secret_value(struct csm *csm, const char *secret, const char *key, void *out, size_t *len);
CSM_MUST int csm_secret_delete(struct csm *csm, const char *secret);

/* len random bytes, any number. */
CSM_MUST int csm_random(struct csm *csm, void *out, size_t len);
/* Data bound to this node and, if given, to a context (at most 256 bytes; NULL with 0: none), which
 * csm_unseal wants again. The data is a secret: the caller wipes it. */
CSM_MUST int csm_seal(struct csm *csm, const void *data, size_t data_len, const void *context, size_t context_len,
	void *out, size_t *len);
CSM_MUST int csm_unseal(struct csm *csm, const void *sealed, size_t sealed_len, const void *context,
	size_t context_len, void *out, size_t *len);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
