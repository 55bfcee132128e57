/* The OpenSSL provider csm: keys of the node's csmd for programs that use OpenSSL. What its files share.
 *
 * Threads as OpenSSL has them: a struct prov and a struct pkey serve any number at once, a context one at a time. After
 * fork all of them go on: libcsm makes connections of its own, and csmd judges the child as who it is.
 *
 * Functions for OpenSSL return 1 or 0, and on 0 have put an error into its queue, unless they say otherwise. Functions
 * of this folder's own return 0 or a CSM_E*, likewise with an error in the queue. */
#ifndef CSM_PROVIDER_PROVIDER_H
#define CSM_PROVIDER_PROVIDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/evp.h>
#include "libclient/include/csm/csm.h"
#include "libclient/base/keyref.h"

/* With its properties, as algorithms are told from others of the same name. */
#define PROV_PROPERTIES "provider=csm"
#define PROV_STRUCTURE "CSMKeyReference"
#define PROV_NAMES_EC "EC:id-ecPublicKey:1.2.840.10045.2.1"
#define PROV_NAMES_RSA "RSA:rsaEncryption:1.2.840.113549.1.1.1"
#define PROV_NAMES_ED25519 "ED25519:1.3.101.112"

enum { MD_SHA256, MD_SHA384, MD_SHA512, MD__COUNT };

#define PROV_REASONS_MAX 64
#define PROV_ASYNC_KEPT 32 /* connections of jobs that wait for their next use */
struct async_conn;
struct pkey;
struct prov {
	const OSSL_CORE_HANDLE *core;
	OSSL_LIB_CTX *lib; /* a library of our own, with the default provider: for hashes and the public halves */
	struct csm *csm;
	EVP_MD *md[MD__COUNT];
	_Atomic(struct pkey *) left; /* decoder.c */
	_Atomic(struct async_conn *) async[PROV_ASYNC_KEPT];
	OSSL_ITEM reasons[PROV_REASONS_MAX];
	OSSL_FUNC_core_new_error_fn *new_error;
	OSSL_FUNC_core_set_error_debug_fn *set_error_debug;
	OSSL_FUNC_core_vset_error_fn *vset_error;
	OSSL_FUNC_BIO_read_ex_fn *bio_read;
};

/* ---- provider.c: errors ---- */
#define prov_err(prov, r, ...) prov_err_at(prov, r, __FILE__, __LINE__, __func__, __VA_ARGS__)
/* Puts the error into OpenSSL's queue; r is returned. */
int prov_err_at(const struct prov *p, int r, const char *file, int line, const char *func, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
/* What the thread's last call of libcsm failed with, about that key. */
#define prov_err_csm(prov, r, name) prov_err(prov, r, "%s: %s", name, csm_error_message())

/* ---- params.c: a parameter that OpenSSL sends as a number or as a word ---- */
struct prov_word {
	const char *word; /* NULL: the last one */
	int value;
};
bool prov_get_word(const OSSL_PARAM *p, const struct prov_word *words, int *ret);
bool prov_set_word(OSSL_PARAM *p, const struct prov_word *words, int value);

/* ---- key.c: a key of csmd, or just a public key ---- */
enum kind { KIND_EC, KIND_RSA, KIND_ED25519, KIND__COUNT };
extern const char *const kind_names[KIND__COUNT]; /* as OpenSSL has them */

struct pkey {
	_Atomic unsigned refs;
	struct prov *prov;
	enum kind kind;
	EVP_PKEY *pub;   /* in prov->lib; NULL: nothing was imported yet */
	bool whole;      /* pub has a public key, not just its parameters */
	char *name;      /* NAMESPACE:NAME; NULL: a public key, and nothing else */
	struct csm_keyref ref; /* its slices lie in name */
	char hash_hex[2 * CSM_KEYREF_HASH + 1]; /* of ref */
	uint64_t loaded_ms; /* decoder.c: when it was left for another decoder; 0: it was not */
	size_t size;     /* of a signature, at most */
};
/* Without a public half. NULL: no memory. */
struct pkey *pkey_new(struct prov *p, enum kind kind);
struct pkey *pkey_ref(struct pkey *key);
void pkey_unref(struct pkey *key);
/* pub becomes the key's. */
void pkey_set_public(struct pkey *key, EVP_PKEY *pub);
/* Ask csmd for a key. ref->ns.p NULL: in the caller's home, which then is part of the key's name for good, whoever uses
 * it later. hash: what the public half's has to be, NULL: anything. */
CSM_MUST int pkey_load(struct prov *p, const struct csm_ref *ref, const uint8_t *hash, struct pkey **ret);
/* Hand the key, which is given away, to OpenSSL as the object of a store or a decoder; what the callback says. */
int pkey_give(struct pkey *key, OSSL_CALLBACK *cb, void *arg);
/* The DER of the public half's SubjectPublicKeyInfo; the caller frees it with OPENSSL_free. */
CSM_MUST int pkey_spki(const struct pkey *key, uint8_t **der, size_t *len);

/* ---- scheme.c: what csmd signs with ---- */
struct scheme {
	const char *name; /* csmd's */
	enum kind kind;
	int pad; /* RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING; 0: not RSA */
	int md;  /* MD_*, -1: the message itself */
	struct csm_bin aid; /* AlgorithmIdentifier of the signature, DER */
};
/* NULL: there is none. */
const struct scheme *scheme_find(enum kind kind, int pad, int md);
/* The hash of this name, -1: csmd signs with no such one. */
int scheme_md(const struct prov *p, const char *name);
/* A DigestInfo of one of the hashes: that hash, and its value; -1: it is none. */
int scheme_digest_info(struct csm_bin info, struct csm_bin *digest);

/* ---- async.c ---- */
/* Is this an ASYNC_JOB? */
bool async_wanted(void);
/* csm_call; without an error in the queue. */
CSM_MUST int async_call(struct prov *p, const struct csm_request *req, struct csm_reply **ret);
void async_end(struct prov *p);

/* ---- call.c: what a key is used for; in an ASYNC_JOB others run while csmd works ---- */
/* *len: the room, then what there is. md -1: data is the message. */
CSM_MUST int call_sign(const struct pkey *key, const struct scheme *s, const void *data, size_t data_len, void *out,
	size_t *len);
CSM_MUST int call_decrypt(const struct pkey *key, const char *scheme, struct csm_bin cipher, struct csm_bin label,
	void *out, size_t *len);
CSM_MUST int call_derive(const struct pkey *key, struct csm_bin peer, void *out, size_t *len);

/* ---- what OpenSSL asks for ---- */
extern const OSSL_ALGORITHM prov_keymgmt[], prov_signature[], prov_cipher[], prov_exchange[], prov_store[], prov_decoder[],
	prov_encoder[];

#endif
