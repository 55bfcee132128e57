/* The TPM 2.0 back end's own header: the opened TPM, and what each file offers to the others.
 * Owner thread only. TSS2_RC is what the TPM or the TSS said; int is CSM_E*. */
#ifndef PLUGINS_TPM2_TPM2_H
#define PLUGINS_TPM2_TPM2_H

#include <stdbool.h>
#include <tss2/tss2_sys.h>
#include "plugins/include/csm_plugin.h"
#include "plugins/tpm2/crypt.h"
#include "plugins/tpm2/tcti.h"

#define T2_SRK_HANDLE 0x81000001u
#define T2_NV_INDEX 0x01800C53u /* the first of T2_NV_CHOICES, one for each store on this TPM */
#define T2_NV_CHOICES 16u
/* First handles of their kinds; the TSS's own macros shift into the sign bit. */
#define T2_TRANSIENT_FIRST 0x80000000u
#define T2_LOADED_SESSIONS 0x02000000u
#define T2_SAVED_SESSIONS 0x03000000u
#define T2_SLOTS_MAX 16u
#define T2_FRESH_MAX 32u
#define T2_NONCE_LEN 16u
#define T2_SEAL_MAX 128u
#define T2_PIN_MAX 64u

/* How long a command may take: making keys is slow on a chip. */
#define T2_TIMEOUT_MS 5000
#define T2_TIMEOUT_PROBE_MS 1000
#define T2_TIMEOUT_KEYGEN_MS 180000
/* How long one call waits for a TPM that went away. */
#define T2_RECONNECT_MS 150
/* A socket is given up at the end of an operation when it was held for so long. */
#define T2_HOLD_MS 100
/* After a refusal or a failed wait: no new look at the TPM for so long. */
#define T2_REFUSED_MS 1000

/* Codes of our own, in the layer that the TSS leaves to applications. */
#define T2_RC_LAYER TSS2_RC_LAYER(0xff)
#define T2_RC_BAD_HMAC (T2_RC_LAYER | 1u)  /* the response was not made by the TPM of this session */
#define T2_RC_CRYPTO (T2_RC_LAYER | 2u)    /* OpenSSL refused */
#define T2_RC_FOREIGN (T2_RC_LAYER | 3u)   /* an object came back with another Name */
#define T2_RC_BAD_ANSWER (T2_RC_LAYER | 4u) /* well signed, but not what was asked for */

struct t2_session {
	TPM2_HANDLE handle; /* 0: none */
	uint8_t key[T2_HASH_LEN];
	TPM2B_NONCE nonce_tpm;
};

/* What a blob is sealed under besides this TPM (policy.c). */
#define T2_POLICY_REF_MAX 32u
#define T2_POLICY_TEXT_MAX 80u
enum t2_policy_kind { T2_POLICY_NONE, T2_POLICY_PCR, T2_POLICY_SIGNED }; /* numbers stand in sealed forms */
struct t2_policy {
	enum t2_policy_kind kind;
	uint32_t pcrs; /* PCR: of the SHA-256 bank, as a mask */
	uint8_t ref[T2_POLICY_REF_MAX];
	size_t ref_len;
	TPMT_PUBLIC signer; /* SIGNED */
};

/* What tells one life of the chip from the next (TPM2_ReadClock). */
struct t2_boot {
	bool known;
	uint32_t reset_count, restart_count;
	uint64_t time_ms;
};

struct t2_srk {
	bool pinned;        /* name is fixed: it was remembered, or pinned by this process */
	bool endorsement;   /* no owner auth: a primary of the endorsement hierarchy, transient */
	TPM2_HANDLE handle; /* T2_SRK_HANDLE, or the transient one; 0: not there */
	TPM2B_NAME name;
	TPMT_PUBLIC pub;
};

/* Properties of the TPM, asked once in each of its lives (slots, algorithms) or at most once a second. */
struct t2_props {
	bool known;
	char manufacturer[8];
	uint32_t slots;
	uint32_t algs; /* bit per enum csm_alg */
	uint64_t read_ms;
	bool lockout;
	uint32_t lockout_counter, max_auth_fail, lockout_interval;
	uint64_t lockout_ms; /* since when the counter is known to have this value */
	uint32_t lockout_life;
};

/* The endorsement key: made again from the TPM's seed when a command needs it. */
struct t2_ek {
	bool known;
	TPMT_PUBLIC template, pub;
	TPM2B_NAME name;
	uint8_t *cert; /* DER; NULL: none, for the reason in missing */
	size_t cert_len;
	const char *missing;
	bool absent; /* there is no key either */
};

struct csm_plugin_ctx {
	const struct csm_plugin_host *host;
	struct t2_tcti tcti;
	TSS2_SYS_CONTEXT *sys;
	size_t sys_size;
	struct t2_crypt crypt;

	bool shared, accept_foreign;
	TPM2_HANDLE parent; /* where the storage root key is: T2_SRK_HANDLE, or one that is given and never made */
	bool ready;          /* storage root key verified, session up; the connection may be given up */
	bool opened;         /* leftovers of an earlier process were dealt with */
	bool lost_answer;    /* an object may have been made that we know nothing of */
	bool check_hot;      /* another client meddled: look whether our handles are still ours */
	bool auth_failed;    /* and the session may be the one that is not */
	bool key_used;       /* in this try of a step: so what is refused may be the key's own authorisation */
	uint64_t refused_ms; /* when the storage root key was last refused; 0: it was not */
	uint64_t away_ms;    /* when a wait for the TPM was last in vain; 0: it was not */
	char reason[192];
	char device[128];    /* as the configuration names it */
	uint32_t resets;
	unsigned connects;   /* of the connection that our handles are of, where that matters */
	uint32_t life;       /* which life of the TPM: saved contexts are good in their own only */
	uint64_t own_commands; /* sent by health, not counted as work */

	struct t2_boot boot;
	struct t2_srk srk;
	struct t2_session session;
	struct t2_props props;

	struct csm_plugin_key *hot[T2_SLOTS_MAX]; /* keys in the TPM now, last used first */
	size_t nhot;
	/* Keys made and not yet loaded by the broker, the newest first: most are used at once. */
	struct csm_plugin_key *fresh[T2_FRESH_MAX];
	size_t nfresh;
	bool two;      /* for a command that names two keys: the one put in first stays beside the other */
	struct csm_plugin_key *ak; /* the attestation key; NULL until it is asked for */
	struct t2_ek ek;
	TPM2_HANDLE loose; /* an object in the TPM that is no key: 0, or until the next t2_room */
	TPM2B_NAME external; /* of a public key that was being loaded when an answer got lost; size 0: none */
	TPM2_HANDLE other_session; /* a policy session: 0, or until it has served or the session is renewed */
	char seal_text[T2_POLICY_TEXT_MAX]; /* what the last blob that was sealed or unsealed is under */
	bool other_device;      /* the storage root key is gone, or another one than was pinned */
	bool seal_due;          /* the configuration says otherwise */
	char seal_refused[160]; /* why its policy did not let it out; empty: it did */

	TPM2B_AUTH owner_auth;
	TPMI_RH_NV_INDEX nv_index; /* the counter's; until nv_auth_known the first to be looked at */
	TPMI_RH_NV_INDEX nv_first; /* of those to be looked at */
	unsigned nv_choices;
	TPM2B_AUTH nv_auth;
	bool nv_auth_known;
};

/* A key of the broker's. Its two blobs are kept; the rest is what can be lost at any time. */
struct csm_plugin_key {
	enum csm_alg alg;
	unsigned use;
	TPMT_PUBLIC pub;
	TPM2B_NAME name;
	TPM2B_PRIVATE *priv;
	TPM2_HANDLE handle;  /* 0: not in the TPM */
	TPMS_CONTEXT *saved; /* NULL: none */
	uint32_t saved_life;
};

/* ---- session.c: authorisation ----------------------------------------------------- */

/* Start a session, salted to the key (loaded at its handle). */
TSS2_RC t2_session_start(struct csm_plugin_ctx *c, TPM2_SE type, TPM2_HANDLE salt_key, const TPMT_PUBLIC *salt_pub,
	struct t2_session *ret);
void t2_session_wipe(struct t2_session *s);

/* The handles of a command, and what its first one is authorised with. */
struct t2_auth {
	struct t2_part names[3];
	size_t nnames;
	const TPM2B_AUTH *auth; /* NULL: empty */
	TPMA_SESSION flags;     /* TPMA_SESSION_DECRYPT, _ENCRYPT: which parameters are secret */
	struct t2_session *session; /* NULL: the context's */
	TPM2_HANDLE second; /* of the second handle: TPM2_RH_PW with an empty value, or a policy session; 0: none */
};
/* For the command prepared in c->sys: encrypt its first parameter, add the authorisation. */
TSS2_RC t2_session_apply(struct csm_plugin_ctx *c, const struct t2_auth *a, TPM2B_NONCE *nonce_caller);
/* For the response in c->sys: check its HMAC, decrypt its first parameter. */
TSS2_RC t2_session_check(struct csm_plugin_ctx *c, const struct t2_auth *a, const TPM2B_NONCE *nonce_caller);

/* ---- cmd.c: commands --------------------------------------------------------------- */

TSS2_RC t2_sys_init(struct csm_plugin_ctx *c);
/* Forget what the SAPI context's buffer holds: after a secret, and after a lost answer. */
void t2_sys_wipe(struct csm_plugin_ctx *c);
/* Send the prepared command, in the session if a is not NULL, and take its response. */
TSS2_RC t2_exec(struct csm_plugin_ctx *c, const struct t2_auth *a, int timeout_ms);

TSS2_RC t2_cmd_startup(struct csm_plugin_ctx *c);
TSS2_RC t2_cmd_shutdown(struct csm_plugin_ctx *c);
TSS2_RC t2_cmd_flush(struct csm_plugin_ctx *c, TPM2_HANDLE h);
TSS2_RC t2_cmd_clock(struct csm_plugin_ctx *c, struct t2_boot *ret);
/* The Name is computed from the public area, not taken from the TPM. qn may be NULL. */
TSS2_RC t2_cmd_read_public(struct csm_plugin_ctx *c, TPM2_HANDLE h, TPMT_PUBLIC *pub, TPM2B_NAME *name, TPM2B_NAME *qn);
TSS2_RC t2_cmd_capability(struct csm_plugin_ctx *c, TPM2_CAP cap, UINT32 first, UINT32 count,
	TPMS_CAPABILITY_DATA *ret);
TSS2_RC t2_cmd_create_primary(struct csm_plugin_ctx *c, const struct t2_auth *a, TPMI_RH_HIERARCHY hierarchy,
	const TPMT_PUBLIC *template, TPM2_HANDLE *handle, TPMT_PUBLIC *pub, TPM2B_NAME *name);
TSS2_RC t2_cmd_create(struct csm_plugin_ctx *c, const TPMT_PUBLIC *template, const TPM2B_SENSITIVE_DATA *data,
	TPM2B_PUBLIC *pub, TPM2B_PRIVATE *priv);
TSS2_RC t2_cmd_load(struct csm_plugin_ctx *c, const TPM2B_PUBLIC *pub, const TPM2B_PRIVATE *priv,
	const TPM2B_NAME *name, TPM2_HANDLE *ret);
CSM_MUST int t2_name_of(struct csm_plugin_ctx *c, const TPMT_PUBLIC *pub, TPM2B_NAME *ret);
bool t2_name_equal(const TPM2B_NAME *a, const TPM2B_NAME *b);
struct t2_part t2_name_part(const TPM2B_NAME *n);

/* A key of these blobs, not loaded; the caller frees it by t2_unload (key.c). */
CSM_MUST int t2_key_new(struct csm_plugin_ctx *c, enum csm_alg alg, unsigned use, const TPMT_PUBLIC *pub,
	const TPM2B_PRIVATE *priv, struct csm_plugin_key **ret);
void t2_key_free(struct csm_plugin_key *k); /* that is not in the TPM */
/* Forget the keys that were made and never loaded (key.c). */
void t2_fresh_drop(struct csm_plugin_ctx *c);
/* A stored TPM2B_PUBLIC at *off, which is moved behind it; CSM_EINVALID (key.c). */
CSM_MUST int t2_public_parse(const uint8_t *p, size_t len, size_t *off, TPM2B_PUBLIC *ret);

/* ---- policy.c: PCRs and signed policies ----------------------------------------------- */

/* As the configuration has it. CSM_EDENIED: it names a key that cannot be had (t2_policy_refused has been told). */
CSM_MUST int t2_policy_configured(struct csm_plugin_ctx *c, struct t2_policy *ret);
bool t2_policy_equal(const struct t2_policy *a, const struct t2_policy *b);
void t2_policy_text(const struct t2_policy *p, char out[static T2_POLICY_TEXT_MAX]);
/* Its stored form at *off, which is moved behind it; not for T2_POLICY_NONE. CSM_ETOO_LARGE, CSM_EINVALID. */
CSM_MUST int t2_policy_put(const struct t2_policy *p, uint8_t *out, size_t cap, size_t *off);
CSM_MUST int t2_policy_get(const uint8_t *p, size_t n, size_t *off, struct t2_policy *ret);
/* The authPolicy of an object under p, which is not T2_POLICY_NONE. */
TSS2_RC t2_policy_digest(struct csm_plugin_ctx *c, const struct t2_policy *p, TPM2B_DIGEST *ret);
/* Call use with a salted policy session in which p is satisfied, again when a PCR was extended meanwhile. *refused: the PCRs
 * or approvals do not fit (t2_policy_refused has been told), and what use did is void. */
typedef TSS2_RC (*t2_with_session)(struct csm_plugin_ctx *c, struct t2_session *s, void *arg);
TSS2_RC t2_policy_use(struct csm_plugin_ctx *c, const struct t2_policy *p, bool *refused, t2_with_session use, void *arg);
void t2_policy_refused(struct csm_plugin_ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- srk.c: the storage root key ---------------------------------------------------- */

/* Read the pin, if there is one and it was not read yet. */
CSM_MUST int t2_pin_recall(struct csm_plugin_ctx *c);
/* Find the storage root key, or make it if none was ever pinned; compare with the pin, or pin it.
 * CSM_EUNAVAILABLE with a reason when it is refused; else *rc is what the TPM said, and 0 all is well. */
CSM_MUST int t2_srk_open(struct csm_plugin_ctx *c, TSS2_RC *rc);

/* ---- object.c: slots ------------------------------------------------------------------ */

/* Flush keys, the longest unused first, until n more objects have room, and the parent's copy that a
 * command naming it takes. */
TSS2_RC t2_room(struct csm_plugin_ctx *c, unsigned n, bool names_parent);
/* Put the key into the TPM if it is not there. */
TSS2_RC t2_key_use(struct csm_plugin_ctx *c, struct csm_plugin_key *k);
void t2_key_drop(struct csm_plugin_ctx *c, struct csm_plugin_key *k); /* forget its handle, no command */
TSS2_RC t2_key_flush(struct csm_plugin_ctx *c, struct csm_plugin_key *k);
TSS2_RC t2_evict_all(struct csm_plugin_ctx *c);

/* ---- leftover.c: what a lost answer or an earlier process left in the TPM --------------- */

/* Flush objects that are proven ours (by their qualified Name) and in no key's hands. */
TSS2_RC t2_orphans(struct csm_plugin_ctx *c);
/* Once after open: what an earlier process of ours left behind. */
TSS2_RC t2_leftovers(struct csm_plugin_ctx *c);
/* Tell the next process which session is ours; without a session, that none is. */
void t2_note_session(struct csm_plugin_ctx *c);

/* ---- attest.c, ek.c: statements ---------------------------------------------------------- */

/* The attestation key as it was remembered, where it was: without a command. */
void t2_ak_recall(struct csm_plugin_ctx *c);
/* Give it up: it was in another TPM. */
CSM_MUST int t2_ak_forget(struct csm_plugin_ctx *c);
/* Have c->ak; made and remembered where there was none. *r: the TPM may have nothing against it, and yet. */
TSS2_RC t2_ak_ensure(struct csm_plugin_ctx *c, int *r);
/* What is known of the endorsement key and its certificate; asked once in each life of the TPM. */
TSS2_RC t2_ek_look(struct csm_plugin_ctx *c);
void t2_ek_forget(struct csm_plugin_ctx *c);

/* ---- recover.c: getting through ------------------------------------------------------- */

typedef TSS2_RC (*t2_step)(struct csm_plugin_ctx *c, void *arg);
/* Run step until it succeeds, fails for good, or its repeats are used up. A step may be repeated as a
 * whole after any failure. At the end the connection is released when it is due. */
CSM_MUST int t2_run(struct csm_plugin_ctx *c, t2_step step, void *arg);
/* Be ready for commands; wait_ms for a TPM that is away. */
CSM_MUST int t2_ready(struct csm_plugin_ctx *c, int wait_ms);
void t2_reason(struct csm_plugin_ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool t2_rc_is_transport(TSS2_RC rc);
/* A format-one code without its parameter, handle or session number; others as they are. */
TSS2_RC t2_rc_base(TSS2_RC rc);

/* ---- health.c ---------------------------------------------------------------------------- */

TSS2_RC t2_props_read(struct csm_plugin_ctx *c);
TSS2_RC t2_lockout_read(struct csm_plugin_ctx *c);

/* ---- slots of the table -------------------------------------------------------------------- */

int t2_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret);
void t2_close(struct csm_plugin_ctx *c);
int t2_capabilities(struct csm_plugin_ctx *c, struct csm_plugin_caps *ret);
void t2_health(struct csm_plugin_ctx *c, struct csm_plugin_health *ret);
int t2_generate(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv);
int t2_storage_key(struct csm_plugin_ctx *c, struct csm_plugin_out *pub);
int t2_import(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, const uint8_t *wrapped,
	size_t wrapped_len, struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv);
int t2_load(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, const struct csm_plugin_blob *blob,
	struct csm_plugin_key **ret);
void t2_unload(struct csm_plugin_ctx *c, struct csm_plugin_key *k);
int t2_public_key(struct csm_plugin_ctx *c, struct csm_plugin_key *k, struct csm_plugin_out *spki);
int t2_sign(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme, const uint8_t *in,
	size_t in_len, struct csm_plugin_out *sig);
int t2_decrypt(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme, const uint8_t *in,
	size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain);
int t2_derive(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared);
int t2_seal(struct csm_plugin_ctx *c, const uint8_t *in, size_t in_len, struct csm_plugin_out *sealed);
int t2_unseal(struct csm_plugin_ctx *c, const uint8_t *sealed, size_t sealed_len, struct csm_plugin_out *out);
int t2_counter_read(struct csm_plugin_ctx *c, uint64_t *ret);
int t2_counter_increment(struct csm_plugin_ctx *c, uint64_t *ret);
int t2_random(struct csm_plugin_ctx *c, uint8_t *p, size_t len);
int t2_attest(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const uint8_t *nonce, size_t nonce_len,
	struct csm_plugin_out *statement);
int t2_witness(struct csm_plugin_ctx *c, const uint8_t *text, size_t len, struct csm_plugin_out *sig,
	struct csm_plugin_out *spki);
int t2_activate(struct csm_plugin_ctx *c, const struct csm_plugin_credential *credential, struct csm_plugin_out *proof);
void t2_idle(struct csm_plugin_ctx *c);
int t2_adopt(struct csm_plugin_ctx *c, bool take, bool *changed);
/* Give up what is remembered of the counter (counter.c). */
CSM_MUST int t2_counter_forget(struct csm_plugin_ctx *c);

/* ---- rsa.c, sign.c ---------------------------------------------------------------------------- */

int t2_put_ecdsa(const TPMS_SIGNATURE_ECDSA *in, struct csm_plugin_out *sig); /* DER */
int t2_put_rsa(const struct csm_plugin_key *k, const TPM2B_PUBLIC_KEY_RSA *in, struct csm_plugin_out *sig);
/* A PSS signature over the digest, with the salt as long as it? */
/* TPM2_Sign of the digest; whatever scheme and hash the TPM takes. */
CSM_MUST int t2_sign_with(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const TPMT_SIG_SCHEME *scheme,
	const uint8_t *digest, size_t len, TPMT_SIGNATURE *ret);
/* The bare private operation on a block as long as the modulus; CSM_EUNSUPPORTED unless the key may decrypt. */
CSM_MUST int t2_rsa_bare(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const uint8_t *in, size_t len,
	struct csm_plugin_out *out);
bool t2_pss_is_ours(const struct csm_plugin_key *k, enum csm_hash hash, const uint8_t *digest,
	const struct csm_plugin_out *sig);
/* PSS by our own encoding and the bare private operation; CSM_EUNSUPPORTED unless the key may decrypt. */
CSM_MUST int t2_pss_raw(struct csm_plugin_ctx *c, struct csm_plugin_key *k, enum csm_hash hash, const uint8_t *digest,
	struct csm_plugin_out *sig);
TPMI_ALG_HASH t2_hash_alg(enum csm_hash hash);

#endif
