/* Making keys in the token. */
#include <string.h>
#include <syslog.h>
#include <sodium.h>
#include "plugins/pkcs11/pkcs11.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
_Static_assert(P11_ID_NEW == CSM_PLUGIN_TAG, "the tag is the CKA_ID");

struct made {
	CK_OBJECT_HANDLE pub, priv;
};

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;

static CK_MECHANISM_TYPE mechanism(enum csm_alg alg)
{
	if (csm_alg_is_rsa(alg))
		return CKM_RSA_PKCS_KEY_PAIR_GEN;
	return alg == CSM_ALG_ED25519 ? CKM_EC_EDWARDS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN;
}

/* Leave out what says no to a use: the last `uses` of n attributes. */
static CK_ULONG without_no(CK_ATTRIBUTE *a, CK_ULONG n, CK_ULONG uses)
{
	CK_ULONG kept = n - uses;

	for (CK_ULONG i = n - uses; i < n; i++)
		if (a[i].pValue != &no)
			a[kept++] = a[i];
	return kept;
}

/* Nothing but what was asked for may be done with the key, and it never leaves. Some tokens cannot make a key that does
 * less than the kind of key can: those are not asked to (lax), and it is csm alone that keeps to the uses. */
static CK_RV pair_make(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, const struct csm_plugin_keyspec *spec,
	const struct p11_ref *ref, bool lax, struct made *ret)
{
	static const unsigned bits[CSM_ALG__COUNT] = {
		[CSM_ALG_RSA2048] = 2048, [CSM_ALG_RSA3072] = 3072, [CSM_ALG_RSA4096] = 4096};
	bool rsa = csm_alg_is_rsa(spec->alg);
	CK_BBOOL *sign = spec->use & CSM_USE_SIGN ? &yes : &no, *derive = spec->use & CSM_USE_DERIVE ? &yes : &no;
	CK_BBOOL *decrypt = spec->use & CSM_USE_DECRYPT ? &yes : &no;
	CK_MECHANISM mech = {mechanism(spec->alg), NULL, 0};
	CK_BYTE e[] = {1, 0, 1};
	CK_ULONG modulus = bits[spec->alg];
	size_t curve_len;
	const uint8_t *curve = p11_curve(spec->alg, &curve_len);
	CK_ATTRIBUTE pub[] = {
		{CKA_TOKEN, &yes, sizeof(yes)},
		{CKA_PRIVATE, &no, sizeof(no)},
		{CKA_ID, (void *)(uintptr_t)ref->id, ref->id_len},
		{CKA_LABEL, (void *)(uintptr_t)ref->label, ref->label_len},
		{rsa ? CKA_MODULUS_BITS : CKA_EC_PARAMS, rsa ? (void *)&modulus : (void *)(uintptr_t)curve,
			rsa ? sizeof(modulus) : curve_len},
		{CKA_VERIFY, sign, sizeof(yes)},
		{CKA_ENCRYPT, decrypt, sizeof(yes)}, /* RSA only, as the next */
		{CKA_PUBLIC_EXPONENT, e, sizeof(e)},
	};
	CK_ATTRIBUTE priv[] = {
		{CKA_TOKEN, &yes, sizeof(yes)},
		{CKA_PRIVATE, &yes, sizeof(yes)},
		{CKA_SENSITIVE, &yes, sizeof(yes)},
		{CKA_EXTRACTABLE, &no, sizeof(no)},
		{CKA_ID, (void *)(uintptr_t)ref->id, ref->id_len},
		{CKA_LABEL, (void *)(uintptr_t)ref->label, ref->label_len},
		{CKA_SIGN, sign, sizeof(yes)},
		{rsa ? CKA_DECRYPT : CKA_DERIVE, rsa ? decrypt : derive, sizeof(yes)},
	};
	CK_ULONG n_pub = rsa ? N_ELEMS(pub) : N_ELEMS(pub) - 2, n_priv = N_ELEMS(priv);

	if (lax) {
		n_pub = without_no(pub, n_pub, rsa ? 3 : 1);
		n_priv = without_no(priv, n_priv, 2);
	}
	return ctx->f->C_GenerateKeyPair(session, &mech, pub, n_pub, priv, n_priv, &ret->pub, &ret->priv);
}

/* Whatever has this CKA_ID of ours: it was drawn at random, nobody else's object has it. */
static CK_RV sweep(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, const uint8_t id[static P11_ID_NEW])
{
	CK_ATTRIBUTE match = {CKA_ID, (void *)(uintptr_t)id, P11_ID_NEW};
	CK_OBJECT_HANDLE found[4];
	CK_ULONG n = 0;
	CK_RV rv = p11_find(ctx, session, &match, 1, found, N_ELEMS(found), &n);

	for (CK_ULONG i = 0; i < n && rv == CKR_OK; i++)
		rv = ctx->f->C_DestroyObject(session, found[i]);
	return rv;
}

static bool is_set(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, CK_ATTRIBUTE_TYPE type,
	CK_BBOOL wanted)
{
	CK_BBOOL value = 0x55;
	CK_RV rv;

	return p11_attribute(ctx, session, h, type, &value, sizeof(value), &rv) == sizeof(value) && value == wanted;
}

/* Is it what was asked for? A library may take a template and not keep to it. */
static bool is_kept(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h)
{
	return is_set(ctx, session, h, CKA_TOKEN, CK_TRUE) && is_set(ctx, session, h, CKA_SENSITIVE, CK_TRUE) &&
		is_set(ctx, session, h, CKA_EXTRACTABLE, CK_FALSE);
}

static int spki_make(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, const struct csm_plugin_keyspec *spec,
	const struct made *made, struct csm_plugin_out *spki, CK_RV *rv)
{
	EVP_PKEY *pkey = NULL;
	int r;

	if (!is_kept(ctx, session, made->priv))
		return CSM_EBACKEND;
	if ((r = p11_public_of(ctx, session, made->pub, spec->alg, &pkey, rv)) == 0)
		r = p11_spki_write(pkey, spki);
	/* It has done each of its works once before anybody hears of it. */
	if (r == 0 && (spec->use & CSM_USE_SIGN) != 0)
		r = p11_signs(ctx, session, made->priv, spec->alg, pkey, rv);
	if (r == 0 && (spec->use & CSM_USE_DECRYPT) != 0)
		r = p11_opens(ctx, session, made->priv, pkey, CSM_HASH_SHA256, NULL, 0, rv);
	EVP_PKEY_free(pkey);
	return r;
}

static void name_make(const struct csm_plugin_ctx *ctx, const uint8_t *tag, struct p11_ref *ref)
{
	char hex[2 * P11_ID_NEW + 1];

	ref->made = true;
	memcpy(ref->serial, ctx->token.serialNumber, sizeof(ref->serial));
	ref->id_len = P11_ID_NEW;
	if (tag != NULL)
		memcpy(ref->id, tag, ref->id_len);
	else
		randombytes_buf(ref->id, ref->id_len);
	sodium_bin2hex(hex, sizeof(hex), ref->id, 4);
	memcpy(ref->label, "csm-", 4);
	memcpy(ref->label + 4, hex, 8);
	ref->label_len = 12;
}

static int pair_and_forms(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, const struct csm_plugin_keyspec *spec,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, CK_RV *rv)
{
	struct made made = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
	uint8_t spki_p[CSM_SPKI_MAX], pub_p[CSM_PLUGIN_PUB_MAX];
	struct csm_plugin_out spki_made = {spki_p, sizeof(spki_p), 0}, pub_made = {pub_p, sizeof(pub_p), 0};
	struct p11_ref ref = {0};
	int r;

	name_make(ctx, spec->tag, &ref);
	*rv = pair_make(ctx, session, spec, &ref, false, &made);
	if (*rv != CKR_OK && !p11_lost(*rv) && !p11_unsupported(*rv)) {
		(void)sweep(ctx, session, ref.id);
		*rv = pair_make(ctx, session, spec, &ref, true, &made);
	}
	if (*rv != CKR_OK) {
		r = p11_error(*rv);
		goto out;
	}
	if ((r = spki_make(ctx, session, spec, &made, &spki_made, rv)) == 0 &&
		(r = p11_ref_write(&ref, spec->alg, spki_p, spki_made.len, &pub_made)) == 0 &&
		spki_made.len <= spki->cap && pub_made.len <= pub->cap) {
		if (p11_out(spki, spki_p, spki_made.len) == 0 && p11_out(pub, pub_p, pub_made.len) == 0)
			return 0;
	}
	r = r != 0 ? r : CSM_ETOO_LARGE;
out:
	(void)sweep(ctx, session, ref.id); /* nobody knows of it yet: it goes again */
	return r;
}

/* A session that may write, for this only: tokens have few of them. */
static int writer_open(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE *ret, CK_RV *rv)
{
	if (ctx->pin != P11_PIN_GOOD)
		return CSM_EUNAVAILABLE;
	*rv = ctx->f->C_OpenSession(ctx->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, ret);
	return p11_error(*rv);
}

int p11_generate(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
	CK_RV rv = CKR_OK;
	struct p11_use use;
	int r;

	if ((r = p11_spec_check(ctx, spec)) != 0)
		return r;
	if ((r = p11_begin(ctx, &use)) != 0)
		return r;
	if ((r = writer_open(ctx, &session, &rv)) == 0) {
		if ((r = pair_and_forms(ctx, session, spec, spki, pub, &rv)) == 0)
			priv->len = 0;
		else
			p11_log(ctx, LOG_INFO, "a key was not made", rv);
		(void)ctx->f->C_CloseSession(session);
	}
	p11_end(ctx, &use, rv);
	return r;
}

int p11_discard(struct csm_plugin_ctx *ctx, const uint8_t tag[CSM_PLUGIN_TAG])
{
	CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
	CK_RV rv = CKR_OK;
	struct p11_use use;
	int r;

	if ((r = p11_begin(ctx, &use)) != 0)
		return r;
	if ((r = writer_open(ctx, &session, &rv)) == 0) {
		rv = sweep(ctx, session, tag);
		r = p11_error(rv);
		(void)ctx->f->C_CloseSession(session);
	}
	p11_end(ctx, &use, rv);
	return r;
}
