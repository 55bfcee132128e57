/* What the files of csm-pkcs11.so share.
 *
 * A function of the standard begins with p11_enter (or session_enter) and ends with p11_leave (session_leave): C_Finalize
 * waits for those who are inside. Locks, in the order in which they may be taken: a session's, the table's, which
 * guards slots, sessions and objects as sets and is never held over a request to csmd, and ossl_in. */
#ifndef CSM_P11_P11_H
#define CSM_P11_P11_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include "libclient/base/err.h"
#include "libclient/include/csm/csm.h"
#include "libclient/p11/cryptoki.h"

#define P11_SIGNATURE_MAX 512u
#define P11_INPUT_MAX (768u * 1024u) /* what is gathered of a message that has to be whole */
#define P11_NAMESPACE_MAX 63u
#define P11_NAME_MAX 128u
#define P11_REF_MAX (P11_NAMESPACE_MAX + 1 + P11_NAME_MAX)
#define P11_ID_MAX 64u
#define P11_ID_LEN 20u
#define P11_FINGERPRINT_LEN 64u
#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* ---- lock.c: the application's mutexes, or the system's ---- */
struct lock {
	void *app;
	pthread_mutex_t os;
};
CSM_MUST CK_RV lock_init(struct lock *l);
void lock_free(struct lock *l);
void lock_take(struct lock *l);
void lock_give(struct lock *l);
/* A new one in a child of fork, where another thread of the parent may have held it. */
void lock_renew(struct lock *l);

/* ---- lib.c: the library's life ---- */
struct lib {
	CK_C_INITIALIZE_ARGS args; /* mutex functions; NULL where the system's are used */
	struct csm *csm;
	struct lock table;
	_Atomic(OSSL_LIB_CTX *) ossl;
};
extern struct lib lib;
/* CKR_CRYPTOKI_NOT_INITIALIZED; a p11_leave belongs to each success. */
CSM_MUST CK_RV p11_enter(void);
void p11_leave(void);
bool p11_ending(void); /* C_Finalize waits */
/* Around calls of OpenSSL that take locks of it: a fork waits until no thread is there, so that a child finds none held.
 * May be nested. The table's lock is not taken in between. */
void ossl_in(void);
void ossl_out(void);
/* OpenSSL as it is without the application's configuration, which may have this very module in it. NULL: no memory. */
OSSL_LIB_CTX *p11_ossl(void);

/* ---- err.c ---- */
/* A code of csm as the standard's; denied: what a refusal by policy is in this function. */
CK_RV p11_rv(int r, CK_RV denied);
/* The same for the use of a key; invalid: what csmd's refusal of the input is. */
CK_RV p11_use_rv(int r, CK_RV invalid);
/* Whether a request that was answered with r is worth asking again: waits a moment, at most some seconds in all. */
bool p11_again(int r, unsigned *tries);
/* Sends req, unless making it has failed with r, until it is answered otherwise than busy; frees it. */
CSM_MUST int p11_send(int r, struct csm_request *req, struct csm_reply **ret);
CSM_MUST int p11_send_by(struct csm *csm, int r, struct csm_request *req, struct csm_reply **ret);
void p11_pad(CK_UTF8CHAR *to, size_t n, const char *text);
void p11_wipe_free(void *p, size_t n);

/* ---- alg.c: algorithms of keys, mechanisms ---- */
struct alg {
	const char *name; /* csm's */
	CK_KEY_TYPE type;
	unsigned bits;
	unsigned field; /* EC: bytes of a coordinate */
	const uint8_t *params; /* CKA_EC_PARAMS */
	size_t params_len;
	CK_MECHANISM_TYPE gen;
};
const struct alg *alg_by_name(const char *name);
const struct alg *alg_by_params(CK_KEY_TYPE type, const void *params, size_t n);
const struct alg *alg_by_bits(CK_ULONG bits); /* RSA */
/* The algorithm of a public key, NULL for one that csm does not have. */
const struct alg *alg_of_pkey(const EVP_PKEY *pkey);
size_t alg_signature_len(const struct alg *alg);

struct hash {
	const char *name; /* OpenSSL's, and in csm's schemes "sha256" */
	const char *suffix;
	CK_MECHANISM_TYPE mech;
	CK_RSA_PKCS_MGF_TYPE mgf;
	size_t size;
	bool signs; /* csm has schemes with it */
};
const struct hash *hash_by_mech(CK_MECHANISM_TYPE mech);
const struct hash *hash_by_size(size_t n); /* of those that sign */

enum mech_kind {
	MECH_DIGEST,
	MECH_RSA_PKCS,
	MECH_RSA_PSS,
	MECH_RSA_OAEP,
	MECH_ECDSA,
	MECH_EDDSA,
	MECH_ECDH,
	MECH_GENERATE,
};
struct mech {
	CK_MECHANISM_TYPE type;
	enum mech_kind kind;
	CK_KEY_TYPE key_type;
	CK_MECHANISM_TYPE hash; /* 0: the caller hashes */
	CK_MECHANISM_INFO info;
};
const struct mech *mech_by_type(CK_MECHANISM_TYPE type);
size_t mech_list(CK_MECHANISM_TYPE *out, size_t room);

/* ---- slots.c, token.c, keyinfo.c: slots and the keys in them, as csmd tells them ---- */
/* What is known of a key once it was asked for. Immutable but for pkey. */
struct keyinfo {
	const struct alg *alg;
	bool sign, decrypt, derive;
	bool exportable;
	uint8_t id[P11_ID_LEN];
	char spki_sha256[P11_FINGERPRINT_LEN + 1]; /* goes with each use, so that no other key of the name takes its place */
	uint8_t *spki;
	size_t spki_len;
	EVP_PKEY *pkey;
};
/* A key of csmd, or a public key or secret of a session. Reference counted. */
struct key {
	_Atomic unsigned refs;
	CK_SLOT_ID slot;
	char name[P11_NAME_MAX + 1]; /* empty for a public key of a session */
	char ref[P11_REF_MAX + 1];
	char alg[16];
	uint64_t created;
	_Atomic(struct keyinfo *) info;
	_Atomic bool no_show; /* policy gives key.public only: the other is not asked for again */
	CK_OBJECT_HANDLE private, public;
	CK_OBJECT_HANDLE *certs; /* guarded by the table's lock, as is the rest */
	size_t n_certs;
	char fingerprint[P11_FINGERPRINT_LEN + 1]; /* of the first of them */
	char chain[P11_FINGERPRINT_LEN + 1]; /* of all of them together */
	uint64_t installed;
	uint64_t certs_told; /* when csmd last said that there are some */
	uint8_t own_id[P11_ID_MAX]; /* the key's tag: CKA_ID as its maker wanted it */
	size_t own_id_len;
	uint64_t told; /* when csmd last said that the key is there */
	/* A session's private key: the one connection whose key it is in csmd, which ends with it. Used by one thread at a
	 * time, and not by a child of fork. NULL: a key of csmd's store. */
	struct csm *own;
	struct lock own_lock;
	pid_t owner;
};
struct slot {
	char ns[P11_NAMESPACE_MAX + 1];
	bool present;
	bool event; /* it came or went, and nobody was told */
	bool no_list[2]; /* by enum listing: csmd said that it would deny that */
	CK_ULONG sessions, rw_sessions;
	CK_USER_TYPE user; /* NOBODY */
	struct key **keys; /* sorted by name */
	size_t n_keys, room;
};
enum listing { LIST_KEYS, LIST_CERTS };
#define NOBODY ((CK_USER_TYPE)-1)
/* Guarded by the table's lock; a slot stays where it is until C_Finalize, and keeps its namespace. */
#define SLOTS_MAX 1024u
extern struct slot *slots[SLOTS_MAX];
extern size_t n_slots;

CSM_MUST CK_RV slots_init(void);
void slots_free(void);
/* Ask csmd who we are: slots come up or lose their token. grow: new slots may be added. */
void slots_refresh(bool grow);
/* May the slot be listed, as far as csmd says? What was refused once is asked anew; no refusal is asked for. */
bool slot_lists(CK_SLOT_ID id, enum listing what);
/* Hands page after page of the slot's keys or certificates to take. *whole: all of them were
 * taken; false with CKR_OK where they may not be listed. */
CSM_MUST CK_RV slot_list(CK_SLOT_ID id, enum listing what, CK_RV (*take)(CK_SLOT_ID id, struct csm_view page), bool *whole);
/* Under the table's lock: NULL for a number that is none. */
struct slot *slot_get(CK_SLOT_ID id);

struct key *key_ref(struct key *k);
void key_unref(struct key *k);
/* What is known of the key, after asking for it if need be. It lives as long as the key. */
CSM_MUST CK_RV key_load(struct key *k, const struct keyinfo **ret);
/* An info with its public key from a SubjectPublicKeyInfo; copies. CKR_KEY_TYPE_INCONSISTENT: not one of csm's. */
CSM_MUST CK_RV keyinfo_new(const uint8_t *spki, size_t n, struct keyinfo **ret);
CSM_MUST CK_RV keyinfo_new_pem(const char *pem, struct keyinfo **ret);
void keyinfo_free(struct keyinfo *i);
/* Bring the slot's keys up to date: all of them, or the one of this name. The set of objects follows. */
CSM_MUST CK_RV token_list(CK_SLOT_ID slot);
CSM_MUST CK_RV token_look(CK_SLOT_ID slot, const char *name, size_t n, bool certs);
/* A new key, as the answer to its creation tells it; its objects. */
CSM_MUST CK_RV token_take(CK_SLOT_ID slot, struct csm_view v, CK_OBJECT_HANDLE *private, CK_OBJECT_HANDLE *public);
/* A key pair of a session, as the answer to its creation on `own` tells it. own is taken over on success.
 * CKR_DEVICE_MEMORY: there are too many. */
CSM_MUST CK_RV key_of_session(CK_SLOT_ID slot, struct csm *own, struct csm_view v, struct key **private,
	struct key **public);
#define P11_OWN_NAME ".key"
void token_remove(CK_SLOT_ID slot, struct key *k);
/* A request for this very key. CSM_ECONFLICT from key_send: the name is another's by now, and the key is taken out. */
CSM_MUST int key_request(const char *method, const struct key *k, const struct keyinfo *i, struct csm_request **ret);
/* Frees the request, NULL too, where r is an error that is given back. ret may be NULL. */
CSM_MUST int key_send(int r, struct csm_request *req, struct key *k, struct csm_reply **ret);
/* d2i_X509 in the module's own context. Inside ossl_in. */
X509 *keyinfo_x509(const unsigned char **p, size_t n);
/* SHA-256 as hexadecimal digits. */
bool keyinfo_fingerprint(const uint8_t *p, size_t n, char out[static P11_FINGERPRINT_LEN + 1]);

/* Counts up with each thing told: what was told before a listing began, and not by it, is gone. */
uint64_t token_now(void);
uint64_t token_tick(void);
/* One by name, under the table's lock; the n-th, referenced. NULL. */
struct key *token_key(CK_SLOT_ID slot, const char *name);
struct key *token_nth(CK_SLOT_ID slot, size_t n);
bool keyinfo_id(const uint8_t *spki, size_t n, uint8_t id[static P11_ID_LEN]);

struct object;
/* ---- certs.c ---- */
/* Bring the certificates of the slot's keys up to date, or those of one key. */
CSM_MUST CK_RV certs_list(CK_SLOT_ID slot);
CSM_MUST CK_RV certs_look(CK_SLOT_ID slot, struct key *k);
/* Under the table's lock. */
void certs_drop(struct key *k);
CSM_MUST CK_RV certs_create(CK_SLOT_ID slot, const CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *ret);
CSM_MUST CK_RV certs_destroy(const struct object *o);

/* ---- object.c ---- */
/* Reference counted; immutable but for label, id and the flags of a session's object (table's lock). */
struct object {
	_Atomic unsigned refs;
	CK_OBJECT_HANDLE handle;
	CK_SLOT_ID slot;
	CK_OBJECT_CLASS class;
	CK_SESSION_HANDLE session; /* 0: of the token */
	struct key *key; /* a certificate of the token: its key too */
	uint8_t *value; /* secret or certificate */
	size_t value_len;
	size_t chain; /* a certificate's place, 0 is the key's own */
	CK_KEY_TYPE secret_type;
	bool sensitive, extractable, always_sensitive, never_extractable, local;
	uint8_t label[P11_NAME_MAX], id[P11_ID_MAX]; /* of a session's object */
	size_t label_len, id_len;
};
struct session;
CSM_MUST CK_RV objects_init(void);
void objects_free(void);
/* Takes the table's lock. */
CSM_MUST CK_RV object_add(struct object *o); /* consumes a reference in any case */
/* Under the table's lock: the same, and taking one out. */
CSM_MUST CK_RV object_add_locked(struct object *o);
void object_drop_locked(CK_OBJECT_HANDLE h);
void objects_drop_session(CK_SESSION_HANDLE session);
/* The object as the session may see it, referenced; NULL. */
struct object *object_get(const struct session *s, CK_OBJECT_HANDLE h);
/* session_enter, a template without a NULL, and the object, referenced. Each success: object_leave. */
CSM_MUST CK_RV object_enter(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE object, const CK_ATTRIBUTE *t, CK_ULONG n,
	struct session **ret_s, struct object **ret);
CK_RV object_leave(struct session *s, struct object *o, CK_RV rv);
struct object *object_new(CK_SLOT_ID slot, CK_OBJECT_CLASS class, CK_SESSION_HANDLE session, struct key *key);
struct object *object_ref(struct object *o);
void object_unref(struct object *o);
/* All objects of a slot that the session may see, referenced. */
CSM_MUST CK_RV objects_of(CK_SLOT_ID slot, struct object ***ret, size_t *n);

/* ---- attr.c ---- */
/* One attribute of an object, as C_GetAttributeValue gives it: CKR_OK, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID,
 * CKR_BUFFER_TOO_SMALL, or why the object could not be read. */
CK_RV attr_get(const struct object *o, CK_ATTRIBUTE *a);
bool attr_matches(const struct object *o, const CK_ATTRIBUTE *a);

/* ---- template.c ---- */
/* CKR_ARGUMENTS_BAD: a NULL with a length. */
CSM_MUST CK_RV template_check(const CK_ATTRIBUTE *t, CK_ULONG n);
const CK_ATTRIBUTE *template_find(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type);
/* *ret stays where the template has none. CKR_ATTRIBUTE_VALUE_INVALID. */
CSM_MUST CK_RV template_bool(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type, bool *ret);
CSM_MUST CK_RV template_ulong(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type, CK_ULONG *ret);
CSM_MUST CK_RV template_bytes(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type, uint8_t *to, size_t room,
	size_t *len);

/* ---- session.c ---- */
enum op_kind { OP_NONE, OP_FIND, OP_SIGN, OP_VERIFY, OP_ENCRYPT, OP_DECRYPT, OP_DIGEST };
struct op {
	enum op_kind kind;
	const struct mech *mech;
	const struct hash *hash; /* of the message, or of PSS and OAEP */
	struct object *object;
	const struct keyinfo *info;
	CK_ULONG salt;
	uint8_t label[256]; /* of OAEP */
	size_t label_len;
	bool updated; /* in parts */
	EVP_MD_CTX *md; /* the message's hash, or */
	uint8_t *in; /* the message */
	size_t in_len, in_room;
	CK_OBJECT_HANDLE *found;
	size_t n_found, next;
};
struct session {
	_Atomic unsigned refs;
	CK_SESSION_HANDLE handle;
	CK_SLOT_ID slot;
	CK_FLAGS flags;
	struct lock lock;
	bool closed, busy;
	struct op op;
};
CSM_MUST CK_RV sessions_init(void);
void sessions_free(void);
/* p11_enter, and the session for this thread alone. CKR_SESSION_HANDLE_INVALID. */
CSM_MUST CK_RV session_enter(CK_SESSION_HANDLE h, struct session **ret);
/* Gives rv back. */
CK_RV session_leave(struct session *s, CK_RV rv);
/* In a child of fork: what other threads were at is given up. */
void sessions_after_fork(void);
bool session_writes(const struct session *s);

void op_end(struct op *op);
/* For the Init functions. CKR_OPERATION_ACTIVE. A NULL mechanism ends an operation of this kind: *ended. */
CSM_MUST CK_RV op_begin(struct session *s, enum op_kind kind, const CK_MECHANISM *m, bool *ended);
/* All of it, for those that take a key. */
CSM_MUST CK_RV op_init(CK_SESSION_HANDLE h, enum op_kind kind, const CK_MECHANISM *m, CK_OBJECT_HANDLE key);
/* The mechanism is one for this use, the key one for the mechanism: sets mech, object and info. */
CSM_MUST CK_RV op_key(struct session *s, struct op *op, const CK_MECHANISM *m, CK_OBJECT_HANDLE key);
/* Parameters of signing, verifying, encrypting and decrypting. */
CSM_MUST CK_RV op_param(struct op *op, const CK_MECHANISM *m);
/* More of the message. CKR_DATA_LEN_RANGE where it has to be whole, and is too long. */
CSM_MUST CK_RV op_data(struct op *op, const void *p, size_t n);
/* What is to be signed or verified: the digest, or the message. Ends the hash. */
CSM_MUST CK_RV op_input(struct op *op, const uint8_t **p, size_t *n, uint8_t digest[static EVP_MAX_MD_SIZE]);
/* session_enter, and an operation of this kind goes on. CKR_OPERATION_NOT_INITIALIZED. */
CSM_MUST CK_RV op_enter(CK_SESSION_HANDLE h, enum op_kind kind, struct session **ret);
/* C_SignUpdate and its like: all of it. */
CSM_MUST CK_RV op_update(CK_SESSION_HANDLE h, enum op_kind kind, const void *part, CK_ULONG n);
/* C_Sign and C_SignFinal, and their like: all of it, for a result whose length is known before. */
struct op_result {
	enum op_kind kind;
	size_t (*len)(const struct op *op);
	CK_RV (*make)(struct op *op, uint8_t *out); /* of the whole message; out has room for len */
};
CSM_MUST CK_RV op_once(
	const struct op_result *c, CK_SESSION_HANDLE h, const void *data, CK_ULONG n, uint8_t *out, CK_ULONG *len);
CSM_MUST CK_RV op_final(const struct op_result *c, CK_SESSION_HANDLE h, uint8_t *out, CK_ULONG *len);

/* ---- pub.c: with a public key, by OpenSSL ---- */
CSM_MUST CK_RV pub_verify(const struct op *op, const uint8_t *in, size_t n, const uint8_t *sig, size_t sig_len);
CSM_MUST CK_RV pub_encrypt(const struct op *op, const uint8_t *in, size_t n, uint8_t *out, size_t *len);
EVP_MD *pub_md(const struct hash *h); /* to be freed */
/* ECDSA: DER to the standard's r and s, n bytes each; 0 where it is none. */
CSM_MUST int pub_ecdsa_plain(const uint8_t *der, size_t len, uint8_t *out, size_t n);

#endif
