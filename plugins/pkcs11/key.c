/* Loaded keys. */
#include <stdlib.h>
#include <string.h>
#include "plugins/pkcs11/pkcs11.h"

int p11_spec_check(const struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec)
{
	int r;

	if ((unsigned)spec->alg >= CSM_ALG__COUNT || spec->exportable)
		return CSM_EUNSUPPORTED;
	if ((r = csm_alg_check_use(spec->alg, spec->use)) != 0)
		return r;
	if ((ctx->caps.algs & 1u << spec->alg) == 0 || (spec->use & ~ctx->caps.uses) != 0)
		return CSM_EUNSUPPORTED;
	return 0;
}

/* What the token shows of the key must be its public half. Of an RSA key that is in the private object itself; of
 * others it is in an object beside, which may be missing: the proof is then the first use. */
static int shown_matches(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, const struct csm_plugin_key *key,
	CK_OBJECT_HANDLE h, CK_RV *rv)
{
	EVP_PKEY *shown = NULL;
	int r = p11_public_of(ctx, session, h, key->alg, &shown, rv);

	if (r == 0 && EVP_PKEY_eq(shown, key->pkey) != 1)
		r = CSM_ETAMPERED;
	EVP_PKEY_free(shown);
	if (r == CSM_EBACKEND) /* a modulus of another size, a point of another curve */
		r = *rv == CKR_OK ? CSM_ETAMPERED : r;
	return r;
}

static int public_matches(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, const struct csm_plugin_key *key,
	CK_OBJECT_HANDLE private, CK_RV *rv)
{
	CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE match[] = {
		{CKA_CLASS, &class, sizeof(class)},
		{CKA_TOKEN, &yes, sizeof(yes)},
		{CKA_ID, (void *)(uintptr_t)key->ref.id, key->ref.id_len},
	};
	CK_OBJECT_HANDLE found[1];
	CK_ULONG n = 0;

	if (csm_alg_is_rsa(key->alg))
		return shown_matches(ctx, session, key, private, rv);
	if (key->ref.id_len == 0)
		return 0;
	if ((*rv = p11_find(ctx, session, match, 3, found, 1, &n)) != CKR_OK)
		return p11_error(*rv);
	return n == 0 ? 0 : shown_matches(ctx, session, key, found[0], rv);
}

static int locate(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct p11_use *use, CK_RV *rv)
{
	CK_OBJECT_HANDLE h = CK_INVALID_HANDLE;
	int r;

	if ((r = p11_find_private(ctx, use->session, key->alg, &key->ref, &h, rv)) != 0 ||
		(r = public_matches(ctx, use->session, key, h, rv)) != 0)
		return r;
	key->h = h;
	key->generation = use->generation;
	key->derives = false;
	memset(key->signs, 0, sizeof(key->signs));
	memset(key->opens, 0, sizeof(key->opens));
	return 0;
}

int p11_key_begin(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct p11_use *use)
{
	CK_RV rv = CKR_OK;
	int r;

	/* Twice: the first to notice that the token went is not the one to suffer from it. */
	for (unsigned i = 0; i < 2; i++) {
		if ((r = p11_begin(ctx, use)) != 0)
			return r;
		if (ctx->pin != P11_PIN_GOOD)
			r = CSM_EUNAVAILABLE;
		else if (key->generation == use->generation || (r = locate(ctx, key, use, &rv)) == 0)
			return 0;
		p11_end(ctx, use, rv);
		if (!p11_lost(rv) && !p11_suspect(rv))
			break;
	}
	return r;
}

void p11_unload(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	(void)ctx;
	if (key == NULL)
		return;
	EVP_PKEY_free(key->pkey);
	free(key);
}

int p11_load(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, const struct csm_plugin_blob *blob,
	struct csm_plugin_key **ret)
{
	struct csm_plugin_key *key;
	struct p11_use use;
	int r;

	if ((r = p11_spec_check(ctx, spec)) != 0)
		return r;
	if ((key = calloc(1, sizeof(*key))) == NULL)
		return CSM_ENOMEM;
	key->alg = spec->alg;
	key->use = spec->use;
	if ((r = p11_ref_read(&key->ref, spec->alg, blob)) != 0)
		goto out;
	r = CSM_ETAMPERED;
	if (p11_spki_read(spec->alg, blob->spki, blob->spki_len, &key->pkey) != 0)
		goto out;
	memcpy(key->spki, blob->spki, blob->spki_len);
	key->spki_len = blob->spki_len;
	if ((r = p11_key_begin(ctx, key, &use)) != 0)
		goto out;
	p11_end(ctx, &use, CKR_OK);
	*ret = key;
	key = NULL;
out:
	p11_unload(ctx, key);
	return r;
}

int p11_public_key(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct csm_plugin_out *spki)
{
	(void)ctx;
	return p11_out(spki, key->spki, key->spki_len);
}
