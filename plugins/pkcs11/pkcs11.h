/* The inside of the PKCS#11 back end: keys in a token that somebody else's library drives.
 *
 * The library is believed in nothing: a return of 0 is a claim. What it gives out is checked for its length and form,
 * and a key is not believed to be the one that was stored before it has proved it with its public half.
 *
 * Threads: any. `lock` guards what is marked; calls into the library are made without it. While `changing` or with
 * `up` false nobody but the thread that brings the token up is inside the library. */
#ifndef CSM_PKCS11_H
#define CSM_PKCS11_H

#include <pthread.h>
#include <openssl/evp.h>
#include <p11-kit-1/p11-kit/pkcs11.h>
#include <p11-kit-1/p11-kit/uri.h>
#include "plugins/include/csm_alg.h"
#include "plugins/include/csm_plugin.h"
#include "proto-spec/limits.h"

#define P11_SESSIONS_MAX 64u
#define P11_SESSIONS_DEFAULT 8u
#define P11_ID_MAX 64u
#define P11_LABEL_MAX 128u
#define P11_ID_NEW 16u /* CKA_ID of a key made here */
#define P11_PIN_MAX 256u
#define P11_OUT_MAX 1024u
#define P11_FIELD_MAX 66u
#define P11_POINT_MAX (2 * P11_FIELD_MAX + 1)
#define P11_KINDS (CSM_SCHEME_RSA_OAEP + 1)
/* A TPM takes only labels that end in a zero. */
enum { P11_LABEL_NONE, P11_LABEL_ZERO_ENDED, P11_LABEL_OTHER, P11_LABELS };
#define P11_HASHES (CSM_HASH_SHA512 + 1)

enum p11_pin { P11_PIN_UNKNOWN, P11_PIN_GOOD, P11_PIN_REFUSED };

struct csm_plugin_ctx {
	const struct csm_plugin_host *host;
	CK_FUNCTION_LIST_PTR f;
	P11KitUri *uri;
	unsigned sessions_wanted;
	/* Written while bringing up, read by those inside. */
	CK_SLOT_ID slot;
	CK_TOKEN_INFO token;
	bool initialized, login_needed;
	enum p11_pin pin;
	struct csm_plugin_caps caps;

	pthread_mutex_t lock;
	pthread_cond_t freed;
	/* under lock */
	bool up, changing;
	unsigned inside; /* threads between p11_begin and p11_end */
	uint64_t generation; /* how often the token was brought up; handles are of one generation */
	uint64_t retry_at, suspect_at, suspected; /* milliseconds */
	unsigned suspect_wait;
	unsigned sessions; /* how many the token lets us have */
	struct p11_session {
		CK_SESSION_HANDLE h;
		bool open, taken;
	} pool[P11_SESSIONS_MAX];
	_Atomic(const char *) reason; /* why it is not usable: a constant */
};

/* Where a key lies: kept in clear in the key's record. */
struct p11_ref {
	bool made; /* by csm: only such a key is ever removed */
	uint8_t serial[16];
	uint8_t id[P11_ID_MAX];
	size_t id_len;
	uint8_t label[P11_LABEL_MAX];
	size_t label_len;
};

/* One thread at a time. */
struct csm_plugin_key {
	enum csm_alg alg;
	unsigned use;
	struct p11_ref ref;
	uint8_t spki[CSM_SPKI_MAX];
	size_t spki_len;
	EVP_PKEY *pkey; /* public */
	/* The object in the token, if generation is the context's. */
	uint64_t generation;
	CK_OBJECT_HANDLE h;
	/* What it has proved to do since it was found. */
	bool derives, signs[P11_KINDS][P11_HASHES], opens[P11_HASHES][P11_LABELS];
};

/* A session taken out of the pool. */
struct p11_use {
	CK_SESSION_HANDLE session;
	uint64_t generation;
	unsigned slot;
};

/* ---- module.c: the library, and what its answers mean ---- */

/* Load the library that the configuration names. It stays mapped. CSM_EINVALID, CSM_EBACKEND. */
CSM_MUST int p11_module_load(struct csm_plugin_ctx *ctx, const char *path);
/* CSM_E* of an answer. */
int p11_error(CK_RV rv);
/* The token or the sessions are gone: all has to be opened anew. */
bool p11_lost(CK_RV rv);
/* Might be: a library that answers so often has lost its token without saying it. */
bool p11_suspect(CK_RV rv);
/* The handle of an object is no longer one. */
bool p11_stale(CK_RV rv);
/* The mechanism, its parameters or the key's kind are not offered. */
bool p11_unsupported(CK_RV rv);
void p11_log(const struct csm_plugin_ctx *ctx, int level, const char *what, CK_RV rv);

/* ---- token.c: finding the token, and the PIN ---- */

/* Parse the URI of the configuration: it names a token and nothing else. CSM_EINVALID. */
CSM_MUST int p11_uri_token(const char *text, P11KitUri **ret);
/* End what was there, and begin anew: library, slot, first session, login. Nobody else is inside. */
CSM_MUST int p11_bring_up(struct csm_plugin_ctx *ctx);
void p11_take_down(struct csm_plugin_ctx *ctx);
/* caps.c: what the token can. In a session of the token. */
void p11_caps_read(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session);

/* ---- pool.c ---- */

/* A session for one operation; brings the token up if it is not. CSM_EUNAVAILABLE, CSM_EBUSY. */
CSM_MUST int p11_begin(struct csm_plugin_ctx *ctx, struct p11_use *ret);
/* Give it back; rv is the answer that ended the operation. */
void p11_end(struct csm_plugin_ctx *ctx, const struct p11_use *use, CK_RV rv);
/* An operation failed in this session, and may still be active in it: it becomes another one. */
void p11_renew(struct csm_plugin_ctx *ctx, struct p11_use *use);
uint64_t p11_now_ms(void);

/* ---- ref.c: the stored form ---- */

/* CSM_ETOO_LARGE. */
CSM_MUST int p11_ref_write(const struct p11_ref *ref, enum csm_alg alg, const uint8_t *spki, size_t spki_len,
	struct csm_plugin_out *out);
/* CSM_ETAMPERED: damaged, or of another public key. */
CSM_MUST int p11_ref_read(struct p11_ref *ret, enum csm_alg alg, const struct csm_plugin_blob *blob);

/* ---- spki.c: public keys ---- */

/* A point as PKCS#11 gives it: bare, or in an OCTET STRING. CSM_EBACKEND when it is none of alg's curve. */
CSM_MUST int p11_spki_of_point(enum csm_alg alg, const uint8_t *p, size_t n, EVP_PKEY **ret);
CSM_MUST int p11_spki_of_rsa(
	enum csm_alg alg, const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len, EVP_PKEY **ret);
/* DER; CSM_ETOO_LARGE, CSM_EBACKEND. */
CSM_MUST int p11_spki_write(EVP_PKEY *pkey, struct csm_plugin_out *out);
/* A public key of alg in its one form; else CSM_EINVALID. */
CSM_MUST int p11_spki_read(enum csm_alg alg, const uint8_t *spki, size_t n, EVP_PKEY **ret);
/* Which algorithm is it? CSM_EUNSUPPORTED. */
CSM_MUST int p11_spki_alg(EVP_PKEY *pkey, enum csm_alg *ret);
/* The uncompressed point of a NIST curve; its length, 0 on failure. */
size_t p11_point(EVP_PKEY *pkey, uint8_t point[static P11_POINT_MAX]);
size_t p11_field(enum csm_alg alg); /* bytes of a coordinate; 0 for others than NIST curves */
/* DER of the curve's name; NULL for RSA. */
const uint8_t *p11_curve(enum csm_alg alg, size_t *n);
/* r|s to ECDSA-Sig-Value. False where a half is zero. */
bool p11_ecdsa_der(const uint8_t *rs, size_t half, uint8_t out[static CSM_SIGNATURE_MAX], size_t *n);
/* Copy n bytes to out; CSM_ETOO_LARGE, with nothing written, when they do not fit. */
CSM_MUST int p11_out(struct csm_plugin_out *out, const void *p, size_t n);

/* ---- find.c: objects of the token ---- */

/* The one private key of the reference. CSM_EUNAVAILABLE: none is there; CSM_ETAMPERED: more than one. */
CSM_MUST int p11_find_private(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, enum csm_alg alg,
	const struct p11_ref *ref, CK_OBJECT_HANDLE *ret, CK_RV *rv);
/* Does the private key h agree on what pkey's owner would? CSM_ETAMPERED: no. */
CSM_MUST int p11_derives(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, enum csm_alg alg,
	EVP_PKEY *pkey, CK_RV *rv);
/* The handles that match, at most cap; the count, which says cap when there may be more. */
CK_RV p11_find(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_ATTRIBUTE *match, CK_ULONG n_match,
	CK_OBJECT_HANDLE *found, CK_ULONG cap, CK_ULONG *n);
/* The public key that object h shows: a public key's object, or an RSA private key's. */
CSM_MUST int p11_public_of(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h,
	enum csm_alg alg, EVP_PKEY **ret, CK_RV *rv);
/* One attribute of at most cap bytes; its length, or SIZE_MAX. */
size_t p11_attribute(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h,
	CK_ATTRIBUTE_TYPE type, void *p, size_t cap, CK_RV *rv);

/* ---- key.c and make.c: slots ---- */

/* A session, and in it the key's object, found anew where it must be. */
CSM_MUST int p11_key_begin(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct p11_use *use);
int p11_load(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, const struct csm_plugin_blob *blob,
	struct csm_plugin_key **ret);
void p11_unload(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key);
int p11_public_key(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct csm_plugin_out *spki);
CSM_MUST int p11_spec_check(const struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec);
int p11_generate(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv);

int p11_discard(struct csm_plugin_ctx *ctx, const uint8_t tag[CSM_PLUGIN_TAG]);
/* adopt.c */
int p11_adopt(struct csm_plugin_ctx *ctx, const char *ref, struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv);

/* ---- use.c, sign.c: slots ---- */
int p11_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *sig);
int p11_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain);
int p11_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared);
int p11_random(struct csm_plugin_ctx *ctx, uint8_t *p, size_t len);
/* Does the private key h sign, in this session, what pkey accepts? CSM_EUNSUPPORTED. */
CSM_MUST int p11_signs(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, enum csm_alg alg,
	EVP_PKEY *pkey, CK_RV *rv);
/* Does the private key h open, in this session, what pkey has sealed? CSM_EUNSUPPORTED: not with this hash and label. */
CSM_MUST int p11_opens(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, EVP_PKEY *pkey,
	enum csm_hash hash, const uint8_t *label, size_t label_len, CK_RV *rv);
/* Parameters of OAEP; the label is the caller's. */
void p11_oaep(enum csm_hash hash, const uint8_t *label, size_t label_len, CK_RSA_PKCS_OAEP_PARAMS *ret);

#endif
