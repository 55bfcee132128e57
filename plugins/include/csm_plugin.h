/* csm's plugin ABI: what a back end for keys offers to the broker.
 *
 * A back end is one const table. Slots marked optional may be NULL. The broker calls
 * every slot through one wrapper (daemon/svc/backend.c), which checks sizes, counts and
 * times; a back end need not repeat that, and must not trust sizes inside blobs.
 *
 * Threads: a back end with CSM_PLUGIN_SERIAL is only ever called from one thread, its
 * owner. Any other back end's slots may be called from several threads at once, but one
 * loaded key (struct csm_plugin_key) only from one thread at a time.
 *
 * Memory: outputs go to the caller's struct csm_plugin_out, whose size the caller sets.
 * Private blobs are handed out in, and read from, locked memory of the caller; a back end
 * keeps copies of secrets only in memory that it wipes.
 *
 * Errors are CSM_E* of err.h: UNSUPPORTED, UNAVAILABLE (away now, may come back; nothing
 * has changed), LOCKOUT, INVALID (the caller's data: a ciphertext that does not decrypt),
 * TOO_LARGE (an output does not fit), TAMPERED (a stored form is damaged), NOT_FOUND and CONFLICT (find only), DENIED (seal
 * and unseal only), BACKEND (all else).
 * A scheme or use that the key does not have is UNSUPPORTED. */
#ifndef CSM_PLUGIN_H
#define CSM_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include "libclient/base/err.h"

/* 2: host->secret, secret_refused and reset; find. 3: keyspec.tag, discard. */
#define CSM_PLUGIN_ABI 3u

enum csm_alg {
	CSM_ALG_P256,
	CSM_ALG_P384,
	CSM_ALG_P521,
	CSM_ALG_RSA2048,
	CSM_ALG_RSA3072,
	CSM_ALG_RSA4096,
	CSM_ALG_ED25519,
	CSM_ALG__COUNT
};

enum csm_hash { CSM_HASH_NONE, CSM_HASH_SHA256, CSM_HASH_SHA384, CSM_HASH_SHA512 };

enum csm_scheme_kind {
	CSM_SCHEME_ECDSA,     /* input: a digest; output: DER ECDSA-Sig-Value */
	CSM_SCHEME_RSA_PKCS1, /* input: a digest, hash names it (RFC 8017 8.2) */
	CSM_SCHEME_RSA_PSS,   /* salt as long as the digest, MGF1 with the same hash (RFC 8017 8.1) */
	CSM_SCHEME_ED25519,   /* input: the message; hash is CSM_HASH_NONE (RFC 8032, pure) */
	CSM_SCHEME_RSA_OAEP,  /* decryption only; MGF1 with the same hash (RFC 8017 7.1) */
};
struct csm_scheme {
	enum csm_scheme_kind kind;
	enum csm_hash hash;
};

enum csm_use { CSM_USE_SIGN = 1, CSM_USE_DECRYPT = 2, CSM_USE_DERIVE = 4 };

enum csm_plugin_flag {
	CSM_PLUGIN_SERIAL = 1,    /* all calls from one owner thread */
	CSM_PLUGIN_INLINE_EC = 2, /* load and signature of P-256 and Ed25519 take under 200 us: the loop may call */
};

/* A challenge, as TPM2_MakeCredential gives it: the Names of the keys that it is for, and the encrypted secret. */
struct csm_plugin_credential {
	const uint8_t *ak_name, *ek_name, *blob, *secret;
	size_t ak_name_len, ek_name_len, blob_len, secret_len;
};
#define CSM_PLUGIN_PROOF "csm attest proof"
#define CSM_PLUGIN_PROOF_LEN 32u
#define CSM_PLUGIN_WITNESS_MAX 512u

/* Where an output goes: at most cap bytes at p; len is set by the back end on success. */
struct csm_plugin_out {
	uint8_t *p;
	size_t cap;
	size_t len;
};

struct csm_plugin_keyspec {
	enum csm_alg alg;
	unsigned use; /* enum csm_use, or'ed */
	bool exportable;
	/* generate only: CSM_PLUGIN_TAG bytes, drawn at random, by which discard finds what was made. May be NULL. */
	const uint8_t *tag;
};
#define CSM_PLUGIN_TAG 16u

/* The stored form of a key: SubjectPublicKeyInfo (DER), and an opaque public and private part.
 * The private part is a secret unless the back end's table says wrapped. */
struct csm_plugin_blob {
	const uint8_t *spki;
	size_t spki_len;
	const uint8_t *pub; /* back end's own public data, may be empty */
	size_t pub_len;
	const uint8_t *priv;
	size_t priv_len;
};
#define CSM_PLUGIN_PUB_MAX 2048u
#define CSM_PLUGIN_PRIV_MAX 4096u
#define CSM_PLUGIN_REF_MAX 512u
#define CSM_PLUGIN_STORAGE_MAX 768u

struct csm_plugin_ctx; /* an opened back end */
struct csm_plugin_key; /* a loaded key */
struct csm_plugin_op;  /* a multi-part signature */

struct csm_plugin_caps {
	uint32_t algs;       /* bit per enum csm_alg: what can be generated and used */
	unsigned uses;       /* enum csm_use */
	const char *protection; /* "sealed", "tpm", "hsm", "hwplugin" */
};

/* What health tells; strings are the back end's, valid until its next call. */
struct csm_plugin_health {
	bool usable;
	const char *reason; /* why it is not; never a secret */
	/* a TPM only: device is NULL otherwise */
	const char *device;
	char manufacturer[8];
	bool shared; /* others use the device: keys are not kept hot */
	uint64_t commands;
	uint32_t loaded, slots;
	bool lockout;
	uint32_t lockout_counter;
	uint32_t lockout_seconds; /* upper bound of the time left */
	uint32_t resets;          /* TPM resets seen since open */
	const char *sealed;       /* what the last blob of seal or unseal is bound to besides the device: "none",
	                           * "sha256:0,2,7" (PCRs), "signed"; NULL: there was none */
	bool seal_due;            /* the configuration has something else by now: it should be sealed anew */
	bool other_device;        /* not the one that what is remembered belongs to: cleared, or replaced */
	const char *seal_refused; /* why that did not let it out; NULL: it did */
};

/* What a back end may ask of its host. All callbacks may be called from the owner thread only. */
struct csm_plugin_host {
	void *arg;
	/* A fresh descriptor to the device (the supervisor opens it); -1 with errno. */
	int (*device)(void *arg);
	/* Keep and recall a small record across restarts, by name: pins, device state. len is
	 * capacity on entry of recall; CSM_ENOT_FOUND. May be NULL (then nothing is pinned). */
	int (*remember)(void *arg, const char *name, const uint8_t *p, size_t len);
	int (*recall)(void *arg, const char *name, uint8_t *p, size_t *len);
	/* A line for the daemon's log, at debug, info or warning; no secrets. */
	void (*log)(void *arg, int syslog_level, const char *text);
	/* The back end's own section of the configuration: a string per name, NULL if unset. */
	const char *(*config)(void *arg, const char *name);
	/* A secret of the back end's configuration, by name ("pin"): len is capacity on entry;
	 * CSM_ENOT_FOUND, CSM_ETOO_LARGE; CSM_EDENIED: it was refused before. May be NULL (then there is none).
	 * Ask when it is needed and wipe the copy after use. */
	int (*secret)(void *arg, const char *name, uint8_t *p, size_t *len);
	/* The device has refused that secret: from now on, over restarts too, the host hands it out to nobody until its
	 * configuration changes. To be called at once, before anything else is tried. May be NULL. */
	void (*secret_refused)(void *arg, const char *name);
	/* A secret of this node's own, of 32 bytes, by name: the same each time as long as the node has its root key.
	 * CSM_EUNAVAILABLE until that is there. May be NULL (then there is none). Any thread; wipe the copy after use. */
	int (*node_secret)(void *arg, const char *name, uint8_t *p);
	/* The device does not answer, or not in its language: whoever runs it is to end it and to start it anew; the
	 * descriptors of before are dead. May be NULL. */
	void (*reset)(void *arg);
};

struct csm_plugin {
	uint32_t abi; /* CSM_PLUGIN_ABI; a host refuses another */
	const char *name;
	unsigned flags; /* enum csm_plugin_flag */

	/* Is the hardware there? Cheap. Optional: NULL means always. */
	int (*probe)(const struct csm_plugin_host *host);
	/* host outlives ctx. CSM_EUNAVAILABLE: may be tried again. */
	int (*open)(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret);
	/* All keys are unloaded before. */
	void (*close)(struct csm_plugin_ctx *ctx);
	int (*capabilities)(struct csm_plugin_ctx *ctx, struct csm_plugin_caps *ret);
	/* Optional. The owner's thread has had nothing to do for about 5 ms: give up what others may wait for. */
	void (*idle)(struct csm_plugin_ctx *ctx);
	/* Never fails to answer; fills what it knows. */
	void (*health)(struct csm_plugin_ctx *ctx, struct csm_plugin_health *ret);

	/* Make a key pair. spki: SubjectPublicKeyInfo DER. */
	int (*generate)(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
		struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv);
	/* Optional pair. The public key that keys are wrapped to, as a TPM2B_PUBLIC of at most CSM_PLUGIN_STORAGE_MAX
	 * bytes; and take a key wrapped to it (proto-spec/WRAPPED-KEY.md), or one that the device itself gave out for
	 * others (a TSS2 PRIVATE KEY). CSM_EINVALID: it is damaged, or was wrapped for another node. */
	int (*storage_key)(struct csm_plugin_ctx *ctx, struct csm_plugin_out *pub);
	int (*import)(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, const uint8_t *wrapped,
		size_t wrapped_len, struct csm_plugin_out *spki, struct csm_plugin_out *pub,
		struct csm_plugin_out *priv);
	/* Make a stored key usable. The blob is read during the call only. */
	int (*load)(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
		const struct csm_plugin_blob *blob, struct csm_plugin_key **ret);
	/* Forget a loaded key and wipe it. NULL is a no-op. */
	void (*unload)(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key);
	/* The public key of a loaded key as SubjectPublicKeyInfo DER, from the key itself. */
	int (*public_key)(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct csm_plugin_out *spki);

	/* Sign a digest (ED25519: a message). */
	int (*sign)(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
		const uint8_t *in, size_t in_len, struct csm_plugin_out *sig);
	/* Optional, all or none: a message in parts, for back ends that must hash themselves.
	 * Without them the broker hashes and calls sign. cleanup ends an op that final did not. */
	int (*sign_init)(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
		struct csm_plugin_op **ret);
	int (*sign_update)(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, const uint8_t *in, size_t in_len);
	int (*sign_final)(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, struct csm_plugin_out *sig);
	void (*sign_cleanup)(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op);

	/* RSA-OAEP. label may be empty. One error (INVALID) for every ciphertext that does not open. */
	int (*decrypt)(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
		const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len,
		struct csm_plugin_out *plain);
	/* ECDH (SP 800-56A 5.7.1.2): the x coordinate, as long as the field. peer: SPKI DER of the same
	 * curve; a point off the curve is INVALID. */
	int (*derive)(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
		struct csm_plugin_out *shared);
	/* Optional: a statement by the device over the key and nonce (at most 32 bytes, may be none), in the form that its
	 * kind has; a TPM's is the message `attestation` of messages.def. */
	int (*attest)(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *nonce, size_t nonce_len,
		struct csm_plugin_out *statement);

	/* Optional pair: at most 128 bytes bound to this device, and to the state of it that the configuration names (a TPM:
	 * PCRs, or a signed policy). CSM_EDENIED: the device is in another state; health tells which. */
	int (*seal)(struct csm_plugin_ctx *ctx, const uint8_t *in, size_t in_len, struct csm_plugin_out *sealed);
	int (*unseal)(struct csm_plugin_ctx *ctx, const uint8_t *sealed, size_t sealed_len, struct csm_plugin_out *out);
	/* Optional pair: a counter of the device that only grows, made at its first use. */
	int (*counter_read)(struct csm_plugin_ctx *ctx, uint64_t *ret);
	int (*counter_increment)(struct csm_plugin_ctx *ctx, uint64_t *ret);
	/* Optional: bytes from the device's generator. */
	int (*random)(struct csm_plugin_ctx *ctx, uint8_t *p, size_t len);

	/* Optional: prove that the key which signs statements is in the device that the credential was made for. proof (32
	 * bytes): HMAC-SHA256 with the credential's secret over CSM_PLUGIN_PROOF, its NUL, ak_name and ek_name. CSM_EINVALID:
	 * the credential is not for these two keys of this device, or was changed. */
	int (*activate)(struct csm_plugin_ctx *ctx, const struct csm_plugin_credential *credential,
		struct csm_plugin_out *proof);
	/* Optional: sign text (at most CSM_PLUGIN_WITNESS_MAX bytes) with that key. sig as OpenSSL verifies it with SHA-256,
	 * spki the key's public half. It is the broker's own, and not counted among a TPM's commands. */
	int (*witness)(struct csm_plugin_ctx *ctx, const uint8_t *text, size_t len, struct csm_plugin_out *sig,
		struct csm_plugin_out *spki);

	/* Optional. Is the device another one than what is remembered belongs to (cleared, or replaced)? *changed says so. With
	 * take, such a one is taken for the right one from now on, and what was remembered of the old one is given up: an
	 * administrator's word, since nothing made in the old one works any more. CSM_EUNAVAILABLE: no device answers. */
	int (*adopt)(struct csm_plugin_ctx *ctx, bool take, bool *changed);

	/* Optional. Take a key that is in the device already into use: ref is the back end's own way to name it
	 * (a PKCS#11 URI, a key folder's name), at most CSM_PLUGIN_REF_MAX bytes. spec and the stored form are filled
	 * in as generate would; spec's exportable is false. The key is neither made nor changed, and csm never
	 * deletes it. CSM_ENOT_FOUND: there is none; CSM_ECONFLICT: ref fits several. */
	int (*find)(struct csm_plugin_ctx *ctx, const char *ref, struct csm_plugin_keyspec *spec,
		struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv);
	/* Optional: of a device that itself keeps what generate makes. End the key that was made under this tag, and
	 * nothing else: it was never stored, or its record was deleted. 0 too when there is none. */
	int (*discard)(struct csm_plugin_ctx *ctx, const uint8_t tag[CSM_PLUGIN_TAG]);
};

extern const struct csm_plugin csm_plugin_soft;
extern const struct csm_plugin csm_plugin_tpm2;
extern const struct csm_plugin csm_plugin_fake;
extern const struct csm_plugin csm_plugin_pkcs11;
extern const struct csm_plugin csm_plugin_hwpluginif;

#endif
