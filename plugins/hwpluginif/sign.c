/* Signatures. csm gives digests, so a library is asked for PKCS#1 of a DigestInfo or PSS of a digest, and where it
 * cannot do that for the bare operation on what we have encoded. What it answers is verified before it is believed. */
#include "plugins/hwpluginif/hwpluginif.h"

#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <openssl/crypto.h>

/* Room behind what a library is told of, for one that does not look. */
#define SLACK 512u

struct csm_hw_pss hw_pss_of(enum csm_hash hash)
{
	static const struct csm_hw_pss of[] = {
		[CSM_HASH_SHA256] = {CSM_HW_HASH_SHA256, CSM_HW_MGF1_SHA256, 32},
		[CSM_HASH_SHA384] = {CSM_HW_HASH_SHA384, CSM_HW_MGF1_SHA384, 48},
		[CSM_HASH_SHA512] = {CSM_HW_HASH_SHA512, CSM_HW_MGF1_SHA512, 64},
	};

	return of[hash];
}

/* One call of the library in one part. */
static int call(struct csm_plugin_key *k, unsigned long mechanism, void *param, int param_len, uint8_t *in, size_t in_len,
	uint8_t *sig)
{
	const SSHSM_HW_FUNCTIONS_t *fn = &k->key->lib->fn;
	uint8_t out[HW_MODULUS_MAX + SLACK] = {0};
	int len = (int)k->len;
	uint64_t handle;
	void *ref = NULL;

	memcpy(&handle, k->key->handle, sizeof(handle));
	if (fn->rsa_sign_init != NULL && fn->rsa_sign_init(&handle, mechanism, param, param_len, &ref) != 0)
		return CSM_EUNAVAILABLE;
	memcpy(&handle, k->key->handle, sizeof(handle));
	if (fn->rsa_sign(&handle, mechanism, in, (int)in_len, ref, out, &len) != 0) {
		if (fn->rsa_sign_cleanup != NULL) {
			memcpy(&handle, k->key->handle, sizeof(handle));
			(void)fn->rsa_sign_cleanup(&handle, mechanism, ref);
		}
		return CSM_EUNAVAILABLE;
	}
	if (len < 0 || (size_t)len != k->len)
		return CSM_EBACKEND;
	memcpy(sig, out, k->len);
	return 0;
}

static int try_digest(struct csm_plugin_key *k, const struct csm_scheme *s, const uint8_t *digest, uint8_t *sig)
{
	struct csm_hw_pss pss = hw_pss_of(s->hash);
	uint8_t in[HW_DIGESTINFO_MAX];
	size_t n = csm_hash_size(s->hash);

	if (s->kind == CSM_SCHEME_RSA_PSS) {
		memcpy(in, digest, n);
		return call(k, CSM_HW_RSA_PSS, &pss, (int)sizeof(pss), in, n, sig);
	}
	n = hw_digestinfo(s->hash, digest, in);
	return call(k, CSM_HW_RSA_PKCS, NULL, 0, in, n, sig);
}

static int try_bare(struct csm_plugin_key *k, const struct csm_scheme *s, const uint8_t *digest, uint8_t *sig)
{
	uint8_t em[HW_MODULUS_MAX];
	int r;

	if ((r = hw_public_encode(k->pkey, s, digest, em)) != 0)
		return r;
	return call(k, CSM_HW_RSA, NULL, 0, em, k->len, sig);
}

int hw_try(struct csm_plugin_key *k, const struct csm_scheme *s, const uint8_t *digest, uint8_t *sig)
{
	unsigned kind = s->kind == CSM_SCHEME_RSA_PSS;
	uint8_t made[HW_MODULUS_MAX];
	int r = CSM_EUNAVAILABLE, worst = CSM_EUNAVAILABLE;

	for (unsigned i = 0; i < 2; i++) {
		bool bare = k->bare[kind] != (i > 0);

		r = bare ? try_bare(k, s, digest, made) : try_digest(k, s, digest, made);
		if (r == 0 && !hw_public_verifies(k->pkey, s, digest, made, k->len))
			r = CSM_EBACKEND;
		if (r == 0) {
			k->bare[kind] = bare;
			k->has_done[kind] = true;
			memcpy(sig, made, k->len);
			return 0;
		}
		if (r != CSM_EUNAVAILABLE)
			worst = r;
	}
	return worst;
}

/* Does it sign at all? Then what it refused is what it cannot do. */
static bool still_signs(struct csm_plugin_key *k)
{
	static const struct csm_scheme s = {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256};
	static const uint8_t digest[CSM_DIGEST_MAX] = "is it there?";
	uint8_t sig[HW_MODULUS_MAX];

	return hw_try(k, &s, digest, sig) == 0;
}

/* The key as it is, loaded anew (a library may have one place for all keys, or have lost it), after a new start. */
static int sign_somehow(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *s,
	const uint8_t *digest, uint8_t *sig)
{
	int r;

	if (hw_key_in(k->key) == 0 && hw_try(k, s, digest, sig) == 0)
		return 0;
	hw_key_out(k->key);
	if ((r = hw_key_in(k->key)) == 0 && (r = hw_try(k, s, digest, sig)) == 0)
		return 0;
	if (r == CSM_EUNAVAILABLE && !k->has_done[s->kind == CSM_SCHEME_RSA_PSS] && k->key->loaded && still_signs(k))
		return CSM_EUNSUPPORTED;
	if (r == CSM_EUNAVAILABLE && hw_library_restart(k->key->lib) == 0 && (r = hw_key_in(k->key)) == 0)
		r = hw_try(k, s, digest, sig);
	if (r == CSM_EBACKEND)
		hw_tell(c, LOG_WARNING, "%s: the library says success, and what it gives is no signature of the key",
			k->key->name);
	else if (r != 0)
		hw_tell(c, LOG_WARNING, "%s: the library refuses to sign", k->key->name);
	return r;
}

static int check(const struct csm_plugin_key *k, const struct csm_scheme *s)
{
	if ((s->kind != CSM_SCHEME_RSA_PKCS1 && s->kind != CSM_SCHEME_RSA_PSS) || s->hash == CSM_HASH_NONE)
		return CSM_EUNSUPPORTED;
	return csm_scheme_check(k->alg, s) != 0 ? CSM_EUNSUPPORTED : 0;
}

int hw_sign(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme, const uint8_t *in,
	size_t in_len, struct csm_plugin_out *sig)
{
	uint8_t made[HW_MODULUS_MAX], digest[CSM_DIGEST_MAX];
	int r;

	if ((r = check(k, scheme)) != 0)
		return r;
	if (in_len != csm_hash_size(scheme->hash))
		return CSM_EINVALID;
	if (sig->cap < k->len)
		return CSM_ETOO_LARGE;
	memcpy(digest, in, in_len);
	if ((r = sign_somehow(c, k, scheme, digest, made)) != 0)
		return r;
	c->why[0] = '\0';
	memcpy(sig->p, made, k->len);
	sig->len = k->len;
	return 0;
}

/* ---- in parts ---- */

struct csm_plugin_op {
	struct csm_plugin_key *k;
	struct csm_scheme scheme;
	EVP_MD_CTX *md; /* our own: what the library hashes is verified against it */
	bool theirs;    /* the library has this operation too */
	unsigned load;  /* of the key */
	void *ref;
};

static unsigned long parts_mechanism(const struct csm_scheme *s)
{
	unsigned long first = s->kind == CSM_SCHEME_RSA_PSS ? CSM_HW_RSA_SHA256_PSS : CSM_HW_RSA_SHA256;

	return first + (unsigned long)s->hash - CSM_HASH_SHA256;
}

static uint64_t handle_of(const struct csm_plugin_op *op)
{
	uint64_t handle;

	memcpy(&handle, op->k->key->handle, sizeof(handle));
	return handle;
}

/* Is the library's part of the operation still there? A key that was loaded anew has taken it along. */
static bool is_theirs(const struct csm_plugin_op *op)
{
	return op->theirs && op->k->key->loaded && op->load == op->k->key->load && op->k->key->life == op->k->key->lib->life;
}

static void let_go(struct csm_plugin_op *op)
{
	const SSHSM_HW_FUNCTIONS_t *fn = &op->k->key->lib->fn;
	uint64_t handle = handle_of(op);

	if (is_theirs(op) && fn->rsa_sign_cleanup != NULL)
		(void)fn->rsa_sign_cleanup(&handle, parts_mechanism(&op->scheme), op->ref);
	op->theirs = false;
}

int hw_sign_init(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme,
	struct csm_plugin_op **ret)
{
	const SSHSM_HW_FUNCTIONS_t *fn = &k->key->lib->fn;
	struct csm_plugin_op *op;
	struct csm_hw_pss pss;
	bool is_pss = scheme->kind == CSM_SCHEME_RSA_PSS;
	uint64_t handle;
	int r;

	(void)c;
	if ((r = check(k, scheme)) != 0)
		return r;
	if ((op = calloc(1, sizeof(*op))) == NULL || (op->md = EVP_MD_CTX_new()) == NULL ||
		EVP_DigestInit_ex(op->md, EVP_get_digestbyname(csm_hash_name(scheme->hash)), NULL) != 1) {
		if (op != NULL)
			EVP_MD_CTX_free(op->md);
		free(op);
		return CSM_ENOMEM;
	}
	op->k = k;
	op->scheme = *scheme;
	if (fn->rsa_sign_update != NULL && fn->rsa_sign_final != NULL && hw_key_in(k->key) == 0) {
		pss = hw_pss_of(scheme->hash);
		handle = handle_of(op);
		op->load = k->key->load;
		op->theirs = fn->rsa_sign_init == NULL ||
			fn->rsa_sign_init(&handle, parts_mechanism(scheme), is_pss ? &pss : NULL,
				is_pss ? (int)sizeof(pss) : 0, &op->ref) == 0;
	}
	*ret = op;
	return 0;
}

int hw_sign_update(struct csm_plugin_ctx *c, struct csm_plugin_op *op, const uint8_t *in, size_t in_len)
{
	const SSHSM_HW_FUNCTIONS_t *fn = &op->k->key->lib->fn;
	uint64_t handle = handle_of(op);

	(void)c;
	if (in_len > INT32_MAX)
		return CSM_ETOO_LARGE;
	if (in_len == 0)
		return 0;
	if (EVP_DigestUpdate(op->md, in, in_len) != 1)
		return CSM_EBACKEND;
	/* One that takes no more, or not so much, need not: the digest is ours too. */
	if (is_theirs(op) &&
		fn->rsa_sign_update(&handle, parts_mechanism(&op->scheme), (unsigned char *)(uintptr_t)in, (int)in_len,
			op->ref) != 0)
		let_go(op);
	return 0;
}

int hw_sign_final(struct csm_plugin_ctx *c, struct csm_plugin_op *op, struct csm_plugin_out *sig)
{
	const SSHSM_HW_FUNCTIONS_t *fn = &op->k->key->lib->fn;
	uint8_t out[HW_MODULUS_MAX + SLACK] = {0}, digest[CSM_DIGEST_MAX];
	uint64_t handle = handle_of(op);
	int len = (int)op->k->len, r = CSM_EBACKEND;

	if (EVP_DigestFinal_ex(op->md, digest, NULL) != 1)
		goto out;
	r = CSM_ETOO_LARGE;
	if (sig->cap < op->k->len)
		goto out;
	r = CSM_EUNAVAILABLE;
	if (is_theirs(op)) {
		op->theirs = false;
		if (fn->rsa_sign_final(&handle, parts_mechanism(&op->scheme), op->ref, out, &len) == 0 && len >= 0 &&
			(size_t)len == op->k->len &&
			hw_public_verifies(op->k->pkey, &op->scheme, digest, out, op->k->len)) {
			memcpy(sig->p, out, op->k->len);
			sig->len = op->k->len;
			r = 0;
		}
	}
	if (r != 0)
		r = hw_sign(c, op->k, &op->scheme, digest, csm_hash_size(op->scheme.hash), sig);
out:
	hw_sign_cleanup(c, op);
	return r;
}

void hw_sign_cleanup(struct csm_plugin_ctx *c, struct csm_plugin_op *op)
{
	(void)c;
	if (op == NULL)
		return;
	let_go(op);
	EVP_MD_CTX_free(op->md);
	free(op);
}
