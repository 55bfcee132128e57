#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include "tests/fault/badtoken.h"

#define OBJECTS 64u
#define SESSIONS 64u


struct object {
	bool there;
	CK_OBJECT_CLASS class;
	CK_KEY_TYPE type;
	unsigned char id[64], label[64], value[66];
	CK_ULONG id_len, label_len, value_len;
	CK_BBOOL sign, derive, extractable;
	EVP_PKEY *pkey;
};

static struct object objects[OBJECTS];
static struct session {
	bool open;
	CK_OBJECT_HANDLE key; /* of the signature that was begun */
	CK_ATTRIBUTE match[8];
	CK_ULONG n_match, at;
	bool finding;
} sessions[SESSIONS];
static bool logged_in, up, wrong_pin, hidden;
static CK_ULONG base = 1; /* handles of sessions that were lost are never handed out again */
static atomic_int inside;
static struct badtoken control;

static CK_RV enter(const char *function)
{
	if (atomic_fetch_add(&inside, 1) > 0 && control.cannot_lock)
		control.clashes++;
	if (control.cannot_lock)
		usleep(200);
	if (control.fail == NULL || strcmp(control.fail, function) != 0 || control.fail_times == 0)
		return CKR_OK;
	if (control.fail_after > 0) {
		control.fail_after--;
		return CKR_OK;
	}
	control.fail_times--;
	return control.fail_rv;
}

static CK_RV leave(CK_RV rv)
{
	atomic_fetch_sub(&inside, 1);
	return rv;
}

#define ENTER(name) \
	do { \
		CK_RV entered = enter(name); \
		if (entered != CKR_OK) \
			return leave(entered); \
	} while (0)

static struct session *session_of(CK_SESSION_HANDLE h)
{
	return up && h >= base && h < base + SESSIONS && sessions[h - base].open ? &sessions[h - base] : NULL;
}

static struct object *object_of(CK_OBJECT_HANDLE h)
{
	return h >= 1 && h <= OBJECTS && objects[h - 1].there && !hidden ? &objects[h - 1] : NULL;
}

static struct object *object_new(CK_OBJECT_HANDLE *h)
{
	for (CK_ULONG i = 0; i < OBJECTS; i++)
		if (!objects[i].there) {
			memset(&objects[i], 0, sizeof(objects[i]));
			objects[i].there = true;
			*h = i + 1;
			return &objects[i];
		}
	return NULL;
}

static void object_end(struct object *o)
{
	EVP_PKEY_free(o->pkey);
	memset(o, 0, sizeof(*o));
}

/* ---- general ---- */

static CK_RV initialize(CK_VOID_PTR args)
{
	const CK_C_INITIALIZE_ARGS *a = args;

	ENTER("C_Initialize");
	if (control.cannot_lock && a != NULL)
		return leave(CKR_CANT_LOCK);
	if (up)
		return leave(CKR_CRYPTOKI_ALREADY_INITIALIZED);
	up = true;
	control.initialized++;
	return leave(CKR_OK);
}

static CK_RV finalize(CK_VOID_PTR reserved)
{
	(void)reserved;
	ENTER("C_Finalize");
	up = logged_in = false;
	memset(sessions, 0, sizeof(sessions));
	base += SESSIONS;
	return leave(CKR_OK);
}

static CK_RV slot_list(CK_BBOOL present, CK_SLOT_ID *ids, CK_ULONG *n)
{
	ENTER("C_GetSlotList");
	(void)present;
	*n = control.gone ? 0 : control.twins ? 2 : 1;
	for (CK_ULONG i = 0; i < *n; i++)
		ids[i] = 7 + i;
	return leave(CKR_OK);
}

static CK_RV slot_info(CK_SLOT_ID id, CK_SLOT_INFO *info)
{
	(void)id;
	ENTER("C_GetSlotInfo");
	memset(info, ' ', sizeof(info->slotDescription) + sizeof(info->manufacturerID));
	info->flags = CKF_TOKEN_PRESENT;
	return leave(CKR_OK);
}

static CK_RV token_info(CK_SLOT_ID id, CK_TOKEN_INFO *info)
{
	(void)id;
	ENTER("C_GetTokenInfo");
	memset(info, 0, sizeof(*info));
	memset(info->label, ' ', sizeof(info->label));
	memset(info->manufacturerID, ' ', sizeof(info->manufacturerID));
	memset(info->model, ' ', sizeof(info->model));
	memset(info->serialNumber, '0', sizeof(info->serialNumber));
	memcpy(info->label, "bad", 3);
	info->flags = CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED | (wrong_pin ? CKF_USER_PIN_COUNT_LOW : 0) |
		control.token_flags;
	return leave(CKR_OK);
}

static CK_RV mechanism_info(CK_SLOT_ID id, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
	(void)id;
	ENTER("C_GetMechanismInfo");
	*info = (CK_MECHANISM_INFO){256, 2048, CKF_SIGN | CKF_DERIVE | CKF_GENERATE_KEY_PAIR};
	switch (type) {
	case CKM_EC_KEY_PAIR_GEN:
	case CKM_ECDSA:
	case CKM_ECDH1_DERIVE:
		info->ulMaxKeySize = 256;
		return leave(CKR_OK);
	case CKM_RSA_PKCS_KEY_PAIR_GEN:
	case CKM_RSA_PKCS:
		return leave(CKR_OK);
	default:
		return leave(CKR_MECHANISM_INVALID);
	}
}

/* ---- sessions ---- */

static unsigned count_sessions(void)
{
	unsigned n = 0;

	for (size_t i = 0; i < SESSIONS; i++)
		n += sessions[i].open;
	return n;
}

static CK_RV open_session(CK_SLOT_ID id, CK_FLAGS flags, CK_VOID_PTR app, CK_NOTIFY notify, CK_SESSION_HANDLE *ret)
{
	(void)id;
	(void)flags;
	(void)app;
	(void)notify;
	ENTER("C_OpenSession");
	if (control.gone)
		return leave(CKR_TOKEN_NOT_PRESENT);
	if (control.sessions_max != 0 && count_sessions() >= control.sessions_max)
		return leave(CKR_SESSION_COUNT);
	for (CK_ULONG i = 0; i < SESSIONS; i++)
		if (!sessions[i].open) {
			memset(&sessions[i], 0, sizeof(sessions[i]));
			sessions[i].open = true;
			*ret = base + i;
			return leave(CKR_OK);
		}
	return leave(CKR_SESSION_COUNT);
}

static CK_RV close_session(CK_SESSION_HANDLE h)
{
	struct session *s = session_of(h);

	ENTER("C_CloseSession");
	if (s == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	s->open = false;
	logged_in = logged_in && count_sessions() > 0;
	return leave(CKR_OK);
}

static CK_RV login(CK_SESSION_HANDLE h, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG n)
{
	(void)user;
	control.logins++;
	ENTER("C_Login");
	if (session_of(h) == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	wrong_pin = n != strlen(BADTOKEN_PIN) || memcmp(pin, BADTOKEN_PIN, n) != 0;
	logged_in = !wrong_pin;
	return leave(wrong_pin ? CKR_PIN_INCORRECT : CKR_OK);
}

/* ---- objects ---- */

static CK_RV no_create(CK_SESSION_HANDLE h, CK_ATTRIBUTE *a, CK_ULONG n, CK_OBJECT_HANDLE *ret)
{
	(void)h;
	(void)a;
	(void)n;
	(void)ret;
	return CKR_FUNCTION_NOT_SUPPORTED;
}

static CK_RV destroy(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE o)
{
	ENTER("C_DestroyObject");
	if (session_of(h) == NULL || object_of(o) == NULL)
		return leave(CKR_OBJECT_HANDLE_INVALID);
	control.destroyed += objects[o - 1].class != CKO_SECRET_KEY;
	object_end(&objects[o - 1]);
	return leave(CKR_OK);
}

static CK_RV give(CK_ATTRIBUTE *a, const void *p, CK_ULONG n)
{
	if (control.huge) {
		a->ulValueLen = 1u << 20;
		return CKR_OK;
	}
	if (n > a->ulValueLen) {
		a->ulValueLen = (CK_ULONG)-1;
		return CKR_BUFFER_TOO_SMALL;
	}
	memcpy(a->pValue, p, n);
	a->ulValueLen = n;
	return CKR_OK;
}

static CK_RV give_bn(CK_ATTRIBUTE *a, EVP_PKEY *pkey, const char *name)
{
	unsigned char p[512];
	BIGNUM *bn = NULL;
	int n = EVP_PKEY_get_bn_param(pkey, name, &bn) == 1 ? BN_bn2bin(bn, p) : 0;

	BN_free(bn);
	return n > 0 ? give(a, p, (CK_ULONG)n) : CKR_ATTRIBUTE_TYPE_INVALID;
}

static CK_RV attribute(struct object *o, CK_ATTRIBUTE *a)
{
	static const unsigned char p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
	CK_BBOOL yes = CK_TRUE;
	unsigned char point[67] = {0x04, 65};
	size_t n = 0;

	switch (a->type) {
	case CKA_CLASS:
		return give(a, &o->class, sizeof(o->class));
	case CKA_KEY_TYPE:
		return give(a, &o->type, sizeof(o->type));
	case CKA_TOKEN:
	case CKA_SENSITIVE:
		return give(a, &yes, sizeof(yes));
	case CKA_EXTRACTABLE:
		return give(a, &o->extractable, sizeof(o->extractable));
	case CKA_SIGN:
		return give(a, &o->sign, sizeof(o->sign));
	case CKA_DERIVE:
		return give(a, &o->derive, sizeof(o->derive));
	case CKA_ALWAYS_AUTHENTICATE:
		yes = control.always_authenticate;
		return give(a, &yes, sizeof(yes));
	case CKA_ID:
		return give(a, o->id, o->id_len);
	case CKA_LABEL:
		return give(a, o->label, o->label_len);
	case CKA_EC_PARAMS:
		return give(a, p256, sizeof(p256));
	case CKA_EC_POINT:
		if (EVP_PKEY_get_octet_string_param(o->pkey, OSSL_PKEY_PARAM_PUB_KEY, point + 2, 65, &n) != 1)
			return CKR_ATTRIBUTE_TYPE_INVALID;
		return give(a, point, n + 2);
	case CKA_MODULUS:
		return give_bn(a, o->pkey, OSSL_PKEY_PARAM_RSA_N);
	case CKA_PUBLIC_EXPONENT:
		return give_bn(a, o->pkey, OSSL_PKEY_PARAM_RSA_E);
	case CKA_VALUE:
		return give(a, o->value, o->value_len);
	default:
		return CKR_ATTRIBUTE_TYPE_INVALID;
	}
}

static CK_RV get_attributes(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *a, CK_ULONG n)
{
	CK_RV rv = CKR_OK;

	ENTER("C_GetAttributeValue");
	if (session_of(h) == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	if (object_of(o) == NULL)
		return leave(CKR_OBJECT_HANDLE_INVALID);
	for (CK_ULONG i = 0; i < n && rv == CKR_OK; i++)
		rv = attribute(object_of(o), &a[i]);
	return leave(rv);
}

static bool matches(struct object *o, const CK_ATTRIBUTE *match, CK_ULONG n)
{
	unsigned char p[512];
	bool huge = control.huge, same = true;

	control.huge = false;
	for (CK_ULONG i = 0; i < n && same; i++) {
		CK_ATTRIBUTE a = {match[i].type, p, sizeof(p)};

		same = attribute(o, &a) == CKR_OK && a.ulValueLen == match[i].ulValueLen &&
			memcmp(p, match[i].pValue, a.ulValueLen) == 0;
	}
	control.huge = huge;
	return same;
}

static CK_RV find_init(CK_SESSION_HANDLE h, CK_ATTRIBUTE *match, CK_ULONG n)
{
	struct session *s = session_of(h);

	control.finds++;
	ENTER("C_FindObjectsInit");
	if (s == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	if (s->finding)
		return leave(CKR_OPERATION_ACTIVE);
	memcpy(s->match, match, n * sizeof(*match)); /* the caller's values stay until it has found */
	s->n_match = n;
	s->at = 0;
	s->finding = true;
	return leave(CKR_OK);
}

/* One at a time. */
static CK_RV find(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE *ret, CK_ULONG cap, CK_ULONG *n)
{
	struct session *s = session_of(h);

	ENTER("C_FindObjects");
	*n = 0;
	if (s == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	for (; s->at < OBJECTS && *n == 0 && cap > 0; s->at++)
		if (objects[s->at].there && logged_in && !hidden && matches(&objects[s->at], s->match, s->n_match))
			ret[(*n)++] = s->at + 1;
	if (control.many)
		*n = cap + 1;
	return leave(CKR_OK);
}

static CK_RV find_final(CK_SESSION_HANDLE h)
{
	ENTER("C_FindObjectsFinal");
	if (session_of(h) != NULL)
		session_of(h)->finding = false;
	return leave(CKR_OK);
}

/* ---- keys ---- */

static void named(struct object *o, const CK_ATTRIBUTE *a, CK_ULONG n)
{
	for (CK_ULONG i = 0; i < n; i++) {
		CK_ULONG len = a[i].ulValueLen < 64 ? a[i].ulValueLen : 64;

		if (a[i].type == CKA_ID) {
			memcpy(o->id, a[i].pValue, len);
			o->id_len = len;
		} else if (a[i].type == CKA_LABEL) {
			memcpy(o->label, a[i].pValue, len);
			o->label_len = len;
		} else if (a[i].type == CKA_SIGN) {
			o->sign = *(CK_BBOOL *)a[i].pValue;
		} else if (a[i].type == CKA_DERIVE) {
			o->derive = *(CK_BBOOL *)a[i].pValue;
		} else if (a[i].type == CKA_EXTRACTABLE) {
			o->extractable = *(CK_BBOOL *)a[i].pValue || control.extractable;
		}
	}
}

static EVP_PKEY *pkey_make(CK_KEY_TYPE type)
{
	return type == CKK_RSA ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048)
			       : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
}

static CK_RV generate(CK_SESSION_HANDLE h, CK_MECHANISM *mech, CK_ATTRIBUTE *pub, CK_ULONG n_pub, CK_ATTRIBUTE *priv,
	CK_ULONG n_priv, CK_OBJECT_HANDLE *ret_pub, CK_OBJECT_HANDLE *ret_priv)
{
	CK_KEY_TYPE type = mech->mechanism == CKM_RSA_PKCS_KEY_PAIR_GEN ? CKK_RSA : CKK_EC;
	struct object *a, *b;

	ENTER("C_GenerateKeyPair");
	if (session_of(h) == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	if (!logged_in)
		return leave(CKR_USER_NOT_LOGGED_IN);
	if ((a = object_new(ret_pub)) == NULL || (b = object_new(ret_priv)) == NULL)
		return leave(CKR_DEVICE_MEMORY);
	a->class = CKO_PUBLIC_KEY;
	b->class = CKO_PRIVATE_KEY;
	a->type = b->type = type;
	a->pkey = pkey_make(type);
	EVP_PKEY_up_ref(b->pkey = a->pkey);
	named(a, pub, n_pub);
	named(b, priv, n_priv);
	control.made++;
	return leave(CKR_OK);
}

static CK_RV sign_init(CK_SESSION_HANDLE h, CK_MECHANISM *mech, CK_OBJECT_HANDLE key)
{
	struct session *s = session_of(h);

	(void)mech;
	control.sign_inits++;
	ENTER("C_SignInit");
	if (s == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	if (!logged_in)
		return leave(CKR_USER_NOT_LOGGED_IN);
	if (s->key != 0)
		return leave(CKR_OPERATION_ACTIVE);
	if (object_of(key) == NULL)
		return leave(CKR_KEY_HANDLE_INVALID);
	s->key = key;
	return leave(CKR_OK);
}

static void ecdsa_raw(EVP_PKEY *pkey, const unsigned char *in, CK_ULONG n, unsigned char out[64])
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	unsigned char der[80];
	const unsigned char *at = der;
	size_t len = sizeof(der);
	ECDSA_SIG *sig;

	if (EVP_PKEY_sign_init(c) == 1 && EVP_PKEY_sign(c, der, &len, in, n) == 1 &&
		(sig = d2i_ECDSA_SIG(NULL, &at, (long)len)) != NULL) {
		BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, 32);
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + 32, 32);
		ECDSA_SIG_free(sig);
	}
	EVP_PKEY_CTX_free(c);
}

static void rsa_raw(EVP_PKEY *pkey, const unsigned char *in, CK_ULONG n, unsigned char *out)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	size_t len = 256;

	if (EVP_PKEY_sign_init(c) == 1 && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PADDING) == 1)
		(void)!EVP_PKEY_sign(c, out, &len, in, n); /* a DigestInfo, as it is */
	EVP_PKEY_CTX_free(c);
}

static CK_RV sign(CK_SESSION_HANDLE h, CK_BYTE *in, CK_ULONG n, CK_BYTE *out, CK_ULONG *out_len)
{
	struct session *s = session_of(h);
	struct object *o;
	EVP_PKEY *pkey;

	control.signs++;
	ENTER("C_Sign"); /* where that fails, the operation stays begun, as it must not */
	if (s == NULL || (o = object_of(s->key)) == NULL)
		return leave(CKR_OPERATION_NOT_INITIALIZED);
	s->key = 0;
	if (control.sign == BAD_UNTOUCHED)
		return leave(CKR_OK);
	if (control.sign == BAD_LONG) {
		*out_len = 1u << 20;
		return leave(CKR_OK);
	}
	*out_len = o->type == CKK_RSA ? 256 : 64;
	if (control.sign == BAD_SHORT)
		*out_len -= 1;
	if (control.sign == BAD_SILENT)
		return leave(CKR_OK);
	pkey = control.sign == BAD_OTHER_KEY ? pkey_make(o->type) : o->pkey;
	if (o->type == CKK_RSA)
		rsa_raw(pkey, in, n, out);
	else
		ecdsa_raw(pkey, in, n, out);
	if (pkey != o->pkey)
		EVP_PKEY_free(pkey);
	return leave(CKR_OK);
}

static CK_RV derive(CK_SESSION_HANDLE h, CK_MECHANISM *mech, CK_OBJECT_HANDLE key, CK_ATTRIBUTE *a, CK_ULONG n,
	CK_OBJECT_HANDLE *ret)
{
	const CK_ECDH1_DERIVE_PARAMS *p = mech->pParameter;
	struct object *o = object_of(key), *made;
	EVP_PKEY *peer = EVP_PKEY_new();
	EVP_PKEY_CTX *c = NULL;
	size_t len = sizeof(made->value);
	CK_RV rv = CKR_KEY_HANDLE_INVALID;

	(void)a;
	(void)n;
	ENTER("C_DeriveKey");
	if (session_of(h) == NULL || o == NULL || (made = object_new(ret)) == NULL)
		goto out;
	made->class = CKO_SECRET_KEY;
	rv = CKR_MECHANISM_PARAM_INVALID;
	if (EVP_PKEY_copy_parameters(peer, o->pkey) == 1 &&
		EVP_PKEY_set1_encoded_public_key(peer, p->pPublicData, p->ulPublicDataLen) == 1 &&
		(c = EVP_PKEY_CTX_new(o->pkey, NULL)) != NULL && EVP_PKEY_derive_init(c) == 1 &&
		EVP_PKEY_derive_set_peer(c, peer) == 1 && EVP_PKEY_derive(c, made->value, &len) == 1) {
		made->value_len = len;
		rv = CKR_OK;
	} else {
		object_end(made);
	}
out:
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(peer);
	return leave(rv);
}

static CK_RV no_init(CK_SESSION_HANDLE h, CK_MECHANISM *mech, CK_OBJECT_HANDLE key)
{
	(void)h;
	(void)mech;
	(void)key;
	return CKR_FUNCTION_NOT_SUPPORTED;
}

static CK_RV no_decrypt(CK_SESSION_HANDLE h, CK_BYTE *in, CK_ULONG n, CK_BYTE *out, CK_ULONG *out_len)
{
	(void)h;
	(void)in;
	(void)n;
	(void)out;
	(void)out_len;
	return CKR_FUNCTION_NOT_SUPPORTED;
}

static CK_RV generate_random(CK_SESSION_HANDLE h, CK_BYTE *p, CK_ULONG n)
{
	ENTER("C_GenerateRandom");
	if (session_of(h) == NULL)
		return leave(CKR_SESSION_HANDLE_INVALID);
	return leave(RAND_bytes(p, (int)n) == 1 ? CKR_OK : CKR_DEVICE_ERROR);
}

/* ---- what happens to it ---- */

static unsigned count_objects(void)
{
	unsigned n = 0;

	for (size_t i = 0; i < OBJECTS; i++)
		n += objects[i].there;
	return n;
}

static void lose_sessions(void)
{
	memset(sessions, 0, sizeof(sessions));
	base += SESSIONS;
	logged_in = false;
}

static void swap_keys(void)
{
	for (size_t i = 0; i < OBJECTS; i++)
		if (objects[i].there && objects[i].class == CKO_PRIVATE_KEY) {
			EVP_PKEY_free(objects[i].pkey);
			objects[i].pkey = pkey_make(objects[i].type);
		}
}

static void double_keys(void)
{
	CK_OBJECT_HANDLE h;

	for (size_t i = 0; i < OBJECTS / 2; i++)
		if (objects[i].there && objects[i].class == CKO_PRIVATE_KEY) {
			struct object *o = object_new(&h);

			*o = objects[i];
			EVP_PKEY_up_ref(o->pkey);
			return;
		}
}

static void hide_keys(bool hide)
{
	hidden = hide;
}

static void wipe(void)
{
	for (size_t i = 0; i < OBJECTS; i++)
		if (objects[i].there)
			object_end(&objects[i]);
	lose_sessions();
	up = wrong_pin = hidden = false;
	memset(&control, 0, offsetof(struct badtoken, objects));
}

static struct badtoken control = {
	.objects = count_objects,
	.sessions = count_sessions,
	.lose_sessions = lose_sessions,
	.swap_keys = swap_keys,
	.double_keys = double_keys,
	.hide_keys = hide_keys,
	.wipe = wipe,
};
extern struct badtoken *const badtoken;
__attribute__((visibility("default"))) struct badtoken *const badtoken = &control;

static CK_FUNCTION_LIST list = {
	.version = {2, 40},
	.C_Initialize = initialize,
	.C_Finalize = finalize,
	.C_GetSlotList = slot_list,
	.C_GetSlotInfo = slot_info,
	.C_GetTokenInfo = token_info,
	.C_GetMechanismInfo = mechanism_info,
	.C_OpenSession = open_session,
	.C_CloseSession = close_session,
	.C_Login = login,
	.C_CreateObject = no_create,
	.C_DestroyObject = destroy,
	.C_GetAttributeValue = get_attributes,
	.C_FindObjectsInit = find_init,
	.C_FindObjects = find,
	.C_FindObjectsFinal = find_final,
	.C_EncryptInit = no_init,
	.C_DecryptInit = no_init,
	.C_Decrypt = no_decrypt,
	.C_SignInit = sign_init,
	.C_Sign = sign,
	.C_GenerateKeyPair = generate,
	.C_DeriveKey = derive,
	.C_GenerateRandom = generate_random,
};

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR ret);
__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR ret)
{
	*ret = &list;
	return CKR_OK;
}
