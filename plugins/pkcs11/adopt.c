/* Taking a key into use that is in the token already. It is neither changed nor ever destroyed by csm. */
#include <string.h>
#include "plugins/pkcs11/pkcs11.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

struct found {
	CK_OBJECT_HANDLE h;
	struct p11_ref ref;
	struct csm_plugin_keyspec spec;
	EVP_PKEY *pkey;
};

/* The URI names a key by CKA_ID or label, of this token, and nothing that we do not look at. */
static int uri_parse(const struct csm_plugin_ctx *ctx, const char *text, P11KitUri **ret)
{
	P11KitUri *uri = p11_kit_uri_new();
	CK_SLOT_ID slot;
	CK_ATTRIBUTE *class;
	int r = CSM_EINVALID;

	if (uri == NULL)
		return CSM_ENOMEM;
	if (p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri) != P11_KIT_URI_OK ||
		p11_kit_uri_any_unrecognized(uri) != 0 || p11_kit_uri_get_pin_value(uri) != NULL ||
		p11_kit_uri_get_pin_source(uri) != NULL || p11_kit_uri_get_module_path(uri) != NULL ||
		p11_kit_uri_get_module_name(uri) != NULL)
		goto out;
	class = p11_kit_uri_get_attribute(uri, CKA_CLASS);
	if (class != NULL &&
		(class->ulValueLen != sizeof(CK_OBJECT_CLASS) || *(CK_OBJECT_CLASS *)class->pValue != CKO_PRIVATE_KEY))
		goto out;
	if (p11_kit_uri_get_attribute(uri, CKA_ID) == NULL && p11_kit_uri_get_attribute(uri, CKA_LABEL) == NULL)
		goto out;
	r = CSM_ENOT_FOUND; /* of another token */
	slot = p11_kit_uri_get_slot_id(uri);
	if ((slot != (CK_SLOT_ID)-1 && slot != ctx->slot) ||
		p11_kit_uri_match_token_info(uri, (CK_TOKEN_INFO *)(uintptr_t)&ctx->token) == 0)
		goto out;
	*ret = uri;
	uri = NULL;
	r = 0;
out:
	p11_kit_uri_free(uri);
	return r;
}

static int private_find(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, P11KitUri *uri, struct found *f, CK_RV *rv)
{
	static const CK_ATTRIBUTE_TYPE names[] = {CKA_ID, CKA_LABEL};
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE match[4] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_TOKEN, &yes, sizeof(yes)}}, *a;
	CK_OBJECT_HANDLE found[2];
	CK_ULONG n_match = 2, n = 0;

	for (size_t i = 0; i < N_ELEMS(names); i++)
		if ((a = p11_kit_uri_get_attribute(uri, names[i])) != NULL)
			match[n_match++] = *a;
	if ((*rv = p11_find(ctx, session, match, n_match, found, 2, &n)) != CKR_OK)
		return p11_error(*rv);
	f->h = found[0];
	return n == 0 ? CSM_ENOT_FOUND : n > 1 ? CSM_ECONFLICT : 0;
}

/* A flag of the object; one that it does not have is false. */
static bool flag(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, CK_ATTRIBUTE_TYPE type)
{
	CK_BBOOL value = CK_FALSE;
	CK_RV rv;

	return p11_attribute(ctx, session, h, type, &value, sizeof(value), &rv) == sizeof(value) && value != CK_FALSE;
}

/* How the key will be found again: by its own CKA_ID and label, whatever the URI said. */
static int ref_fill(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, struct found *f)
{
	CK_RV rv;
	size_t n;

	f->ref.made = false;
	memcpy(f->ref.serial, ctx->token.serialNumber, sizeof(f->ref.serial));
	n = p11_attribute(ctx, session, f->h, CKA_ID, f->ref.id, sizeof(f->ref.id), &rv);
	f->ref.id_len = n != SIZE_MAX ? n : 0;
	n = p11_attribute(ctx, session, f->h, CKA_LABEL, f->ref.label, sizeof(f->ref.label), &rv);
	f->ref.label_len = n != SIZE_MAX ? n : 0;
	return f->ref.id_len + f->ref.label_len > 0 ? 0 : CSM_EUNSUPPORTED;
}

/* The public half of an EC key is in an object beside it. */
static int public_beside(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, enum csm_alg alg, struct found *f, CK_RV *rv)
{
	CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE match[] = {
		{CKA_CLASS, &class, sizeof(class)},
		{CKA_TOKEN, &yes, sizeof(yes)},
		{f->ref.id_len > 0 ? CKA_ID : CKA_LABEL, f->ref.id_len > 0 ? f->ref.id : f->ref.label,
			f->ref.id_len > 0 ? f->ref.id_len : f->ref.label_len},
	};
	CK_OBJECT_HANDLE found[2];
	CK_ULONG n = 0;

	if ((*rv = p11_find(ctx, session, match, N_ELEMS(match), found, 2, &n)) != CKR_OK)
		return p11_error(*rv);
	if (n != 1)
		return n == 0 ? CSM_EUNSUPPORTED : CSM_ECONFLICT;
	return p11_public_of(ctx, session, found[0], alg, &f->pkey, rv);
}

static int public_get(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, struct found *f, CK_RV *rv)
{
	static const enum csm_alg rsa[] = {CSM_ALG_RSA2048, CSM_ALG_RSA3072, CSM_ALG_RSA4096};
	CK_KEY_TYPE type = CK_UNAVAILABLE_INFORMATION;
	uint8_t curve[32];
	size_t n, len;
	int r = CSM_EUNSUPPORTED;

	if (p11_attribute(ctx, session, f->h, CKA_KEY_TYPE, &type, sizeof(type), rv) != sizeof(type))
		return p11_error(*rv);
	if (type == CKK_RSA) {
		for (size_t i = 0; i < N_ELEMS(rsa) && f->pkey == NULL; i++)
			r = p11_public_of(ctx, session, f->h, rsa[i], &f->pkey, rv);
		return r == CSM_EBACKEND && *rv == CKR_OK ? CSM_EUNSUPPORTED : r;
	}
	if ((n = p11_attribute(ctx, session, f->h, CKA_EC_PARAMS, curve, sizeof(curve), rv)) == SIZE_MAX)
		return *rv != CKR_OK ? p11_error(*rv) : CSM_EUNSUPPORTED;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++)
		if (p11_curve(alg, &len) != NULL && len == n && memcmp(p11_curve(alg, &len), curve, n) == 0)
			return public_beside(ctx, session, alg, f, rv);
	return CSM_EUNSUPPORTED;
}

static unsigned uses_of(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, const struct found *f)
{
	unsigned use = 0;

	if (flag(ctx, session, f->h, CKA_SIGN))
		use |= CSM_USE_SIGN;
	if (csm_alg_is_rsa(f->spec.alg) && flag(ctx, session, f->h, CKA_DECRYPT))
		use |= CSM_USE_DECRYPT;
	if (csm_alg_is_ec(f->spec.alg) && flag(ctx, session, f->h, CKA_DERIVE))
		use |= CSM_USE_DERIVE;
	return use & ctx->caps.uses;
}

/* The private key must be that public key's: it does each of its works once. What it cannot do is no use of it. */
static int proof(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, struct found *f, CK_RV *rv)
{
	int r = CSM_EUNSUPPORTED;

	if ((f->spec.use & CSM_USE_SIGN) != 0 &&
		(r = p11_signs(ctx, session, f->h, f->spec.alg, f->pkey, rv)) == CSM_EUNSUPPORTED)
		f->spec.use &= ~(unsigned)CSM_USE_SIGN;
	if ((r == 0 || r == CSM_EUNSUPPORTED) && (f->spec.use & CSM_USE_DERIVE) != 0 &&
		(r = p11_derives(ctx, session, f->h, f->spec.alg, f->pkey, rv)) == CSM_EUNSUPPORTED)
		f->spec.use &= ~(unsigned)CSM_USE_DERIVE;
	if ((r == 0 || r == CSM_EUNSUPPORTED) && (f->spec.use & CSM_USE_DECRYPT) != 0 &&
		(r = p11_opens(ctx, session, f->h, f->pkey, CSM_HASH_SHA256, NULL, 0, rv)) == CSM_EUNSUPPORTED)
		f->spec.use &= ~(unsigned)CSM_USE_DECRYPT;
	if (r == 0 || r == CSM_EUNSUPPORTED)
		r = f->spec.use != 0 ? 0 : CSM_EUNSUPPORTED;
	return r;
}

static int adopt_in(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, P11KitUri *uri, struct found *f, CK_RV *rv)
{
	int r;

	if ((r = private_find(ctx, session, uri, f, rv)) != 0 || (r = ref_fill(ctx, session, f)) != 0 ||
		(r = public_get(ctx, session, f, rv)) != 0 || (r = p11_spki_alg(f->pkey, &f->spec.alg)) != 0)
		return r;
	/* One that wants the PIN for each use is not for a daemon. */
	f->spec.use = uses_of(ctx, session, f);
	if (flag(ctx, session, f->h, CKA_ALWAYS_AUTHENTICATE) || f->spec.use == 0 ||
		(ctx->caps.algs & 1u << f->spec.alg) == 0)
		return CSM_EUNSUPPORTED;
	return proof(ctx, session, f, rv);
}

static int forms(const struct found *f, struct csm_plugin_out *spki, struct csm_plugin_out *pub)
{
	uint8_t spki_p[CSM_SPKI_MAX], pub_p[CSM_PLUGIN_PUB_MAX];
	struct csm_plugin_out spki_made = {spki_p, sizeof(spki_p), 0}, pub_made = {pub_p, sizeof(pub_p), 0};
	int r;

	if ((r = p11_spki_write(f->pkey, &spki_made)) != 0 ||
		(r = p11_ref_write(&f->ref, f->spec.alg, spki_p, spki_made.len, &pub_made)) != 0)
		return r;
	if (spki_made.len > spki->cap || pub_made.len > pub->cap)
		return CSM_ETOO_LARGE;
	(void)!p11_out(spki, spki_p, spki_made.len);
	return p11_out(pub, pub_p, pub_made.len);
}

int p11_adopt(struct csm_plugin_ctx *ctx, const char *ref, struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct found f = {.h = CK_INVALID_HANDLE};
	P11KitUri *uri = NULL;
	struct p11_use use;
	CK_RV rv = CKR_OK;
	int r;

	if ((r = p11_begin(ctx, &use)) != 0)
		return r;
	if ((r = uri_parse(ctx, ref, &uri)) == 0) {
		r = ctx->pin == P11_PIN_GOOD ? adopt_in(ctx, use.session, uri, &f, &rv) : CSM_EUNAVAILABLE;
		if (rv != CKR_OK)
			p11_renew(ctx, &use);
	}
	p11_end(ctx, &use, rv);
	if (r == 0 && (r = forms(&f, spki, pub)) == 0) {
		*spec = f.spec;
		priv->len = 0;
	}
	EVP_PKEY_free(f.pkey);
	p11_kit_uri_free(uri);
	return r;
}
