/* Making keys and objects: what a template may say, and what becomes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/p11fix.h"

static CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
static CK_MECHANISM gen_ec = {CKM_EC_KEY_PAIR_GEN, NULL, 0}, gen_rsa = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};

static CK_RV generate(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *pub, CK_ULONG pub_n, CK_ATTRIBUTE *priv,
	CK_ULONG priv_n)
{
	CK_OBJECT_HANDLE a, b;

	return p11_2->C_GenerateKeyPair(s, m, pub, pub_n, priv, priv_n, &a, &b);
}

static void test_generate(void **state)
{
	CK_SLOT_ID slot = p11fix_up();
	CK_SESSION_HANDLE s = p11fix_session(slot, CKF_RW_SESSION), ro = p11fix_session(slot, 0);
	CK_ULONG bits = 1024, odd_bits = 2049, class = CKO_SECRET_KEY, type = CKK_RSA;
	CK_BYTE three[] = {3}, curve[] = {6, 1, 1};
	CK_ATTRIBUTE ec = {CKA_EC_PARAMS, p256, sizeof(p256)}, token = {CKA_TOKEN, &yes, 1};
	CK_ATTRIBUTE label = {CKA_LABEL, (void *)(uintptr_t)"made", 4}, slash = {CKA_LABEL, (void *)(uintptr_t)"a/b", 3};
	CK_ATTRIBUTE taken = {CKA_LABEL, (void *)(uintptr_t)"ec-soft", 7};
	CK_ATTRIBUTE t[3] = {token, label};
	CK_ATTRIBUTE rsa[] = {{CKA_MODULUS_BITS, &bits, sizeof(bits)}, {CKA_PUBLIC_EXPONENT, three, 1}};
	CK_OBJECT_HANDLE o;

	(void)state;
	want(CKR_ARGUMENTS_BAD, generate(s, NULL, &ec, 1, t, 2));
	want(CKR_ARGUMENTS_BAD, generate(s, &gen_ec, NULL, 1, t, 2));
	want(CKR_ARGUMENTS_BAD, p11_2->C_GenerateKeyPair(s, &gen_ec, &ec, 1, t, 2, NULL, &o));
	want(CKR_MECHANISM_INVALID, generate(s, &ecdsa, &ec, 1, t, 2));
	want(CKR_MECHANISM_PARAM_INVALID, generate(s, &(CK_MECHANISM){CKM_EC_KEY_PAIR_GEN, p256, 3}, &ec, 1, t, 2));
	want(CKR_SESSION_READ_ONLY, generate(ro, &gen_ec, &ec, 1, t, 2));
	want(CKR_TEMPLATE_INCOMPLETE, generate(s, &gen_ec, NULL, 0, t, 2));
	want(CKR_TEMPLATE_INCOMPLETE, generate(s, &gen_rsa, NULL, 0, t, 2));
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_rsa, &ec, 1, t, 2));
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &(CK_ATTRIBUTE){CKA_MODULUS_BITS, &bits, sizeof(bits)}, 1, t, 2));
	want(CKR_CURVE_NOT_SUPPORTED, generate(s, &gen_ec, &(CK_ATTRIBUTE){CKA_EC_PARAMS, curve, 3}, 1, t, 2));
	want(CKR_KEY_SIZE_RANGE, generate(s, &gen_rsa, rsa, 1, t, 2));
	rsa[0].pValue = &odd_bits;
	want(CKR_ATTRIBUTE_VALUE_INVALID, generate(s, &gen_rsa, rsa, 1, t, 2));
	bits = 2048;
	rsa[0].pValue = &bits;
	want(CKR_ATTRIBUTE_VALUE_INVALID, generate(s, &gen_rsa, rsa, 2, t, 2));
	t[2] = (CK_ATTRIBUTE){CKA_CLASS, &class, sizeof(class)};
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_KEY_TYPE, &type, sizeof(type)};
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_SENSITIVE, &no, 1};
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_UNWRAP, &yes, 1};
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_DECRYPT, &yes, 1};
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_SIGN, &no, 1};
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_SIGN, &yes, 2};
	want(CKR_ATTRIBUTE_VALUE_INVALID, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_SIGN, three, 1};
	want(CKR_ATTRIBUTE_VALUE_INVALID, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_VALUE, three, 1};
	want(CKR_ATTRIBUTE_READ_ONLY, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = (CK_ATTRIBUTE){CKA_VERIFY, &yes, 1};
	want(CKR_ATTRIBUTE_TYPE_INVALID, generate(s, &gen_ec, &ec, 1, t, 3));
	t[2] = label;
	want(CKR_TEMPLATE_INCONSISTENT, generate(s, &gen_ec, &ec, 1, t, 3));
	t[1] = slash;
	want(CKR_ATTRIBUTE_VALUE_INVALID, generate(s, &gen_ec, &ec, 1, t, 2));
	t[1] = taken;
	want(CKR_ATTRIBUTE_VALUE_INVALID, generate(s, &gen_ec, &ec, 1, t, 2));
	assert_int_equal(p11fix_find(s, CKO_PRIVATE_KEY, "made"), 0);
	p11fix_down();
}

static void test_create(void **state)
{
	CK_SLOT_ID slot = p11fix_up();
	CK_SESSION_HANDLE s = p11fix_session(slot, CKF_RW_SESSION), ro = p11fix_session(slot, 0);
	CK_ULONG public = CKO_PUBLIC_KEY, private = CKO_PRIVATE_KEY, ec = CKK_EC, dsa = CKK_DSA;
	CK_BYTE point[65] = {4};
	CK_ATTRIBUTE t[] = {{CKA_CLASS, &public, sizeof(public)}, {CKA_KEY_TYPE, &ec, sizeof(ec)},
		{CKA_EC_PARAMS, p256, sizeof(p256)}, {CKA_EC_POINT, point, sizeof(point)}, {CKA_TOKEN, &yes, 1}};
	CK_OBJECT_HANDLE o;

	(void)state;
	want(CKR_ARGUMENTS_BAD, p11_2->C_CreateObject(s, NULL, 1, &o));
	want(CKR_ARGUMENTS_BAD, p11_2->C_CreateObject(s, t, 4, NULL));
	want(CKR_TEMPLATE_INCOMPLETE, p11_2->C_CreateObject(s, NULL, 0, &o));
	want(CKR_TEMPLATE_INCOMPLETE, p11_2->C_CreateObject(s, t, 1, &o));
	want(CKR_TEMPLATE_INCOMPLETE, p11_2->C_CreateObject(s, t, 3, &o));
	want(CKR_ATTRIBUTE_VALUE_INVALID, p11_2->C_CreateObject(s, t, 4, &o)); /* not on the curve */
	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_CreateObject(s, t, 5, &o));
	want(CKR_SESSION_READ_ONLY, p11_2->C_CreateObject(ro, t, 5, &o));
	t[4] = (CK_ATTRIBUTE){CKA_SIGN, &yes, 1};
	want(CKR_ATTRIBUTE_TYPE_INVALID, p11_2->C_CreateObject(s, t, 5, &o));
	t[4] = (CK_ATTRIBUTE){CKA_LOCAL, &yes, 1};
	want(CKR_ATTRIBUTE_READ_ONLY, p11_2->C_CreateObject(s, t, 5, &o));
	t[1].pValue = &dsa;
	want(CKR_ATTRIBUTE_VALUE_INVALID, p11_2->C_CreateObject(s, t, 4, &o));
	/* no private key comes in */
	t[0].pValue = &private;
	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_CreateObject(s, t, 4, &o));
	p11fix_down();
}

/* ---- what is right ---- */

static CK_BYTE p384[] = {6, 5, 0x2b, 0x81, 4, 0, 0x22}, p521[] = {6, 5, 0x2b, 0x81, 4, 0, 0x23},
	       ed25519[] = {6, 3, 0x2b, 0x65, 0x70},
	       ed_name[] = {0x13, 12, 'e', 'd', 'w', 'a', 'r', 'd', 's', '2', '5', '5', '1', '9'};

static bool flag(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type)
{
	CK_BBOOL b = 7;
	CK_ATTRIBUTE a = {type, &b, 1};

	want(CKR_OK, p11_2->C_GetAttributeValue(s, o, &a, 1));
	assert_true(b == CK_TRUE || b == CK_FALSE);
	return b == CK_TRUE;
}

static CK_ULONG number(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type)
{
	CK_ULONG n = 0;
	CK_ATTRIBUTE a = {type, &n, sizeof(n)};

	want(CKR_OK, p11_2->C_GetAttributeValue(s, o, &a, 1));
	return n;
}

/* A key as csm makes it: nothing of the private part is to be had. */
static void check_protected(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_KEY_TYPE type, CK_MECHANISM_TYPE gen)
{
	assert_int_equal(number(s, o, CKA_KEY_TYPE), type);
	assert_int_equal(number(s, o, CKA_CLASS), CKO_PRIVATE_KEY);
	assert_int_equal(number(s, o, CKA_KEY_GEN_MECHANISM), gen);
	assert_true(flag(s, o, CKA_TOKEN) && flag(s, o, CKA_PRIVATE) && flag(s, o, CKA_LOCAL));
	assert_true(flag(s, o, CKA_SENSITIVE) && flag(s, o, CKA_ALWAYS_SENSITIVE) && flag(s, o, CKA_NEVER_EXTRACTABLE));
	assert_false(flag(s, o, CKA_EXTRACTABLE) || flag(s, o, CKA_ALWAYS_AUTHENTICATE) || flag(s, o, CKA_MODIFIABLE));
}

static void test_kinds(void **state)
{
	static const struct {
		const char *name;
		CK_MECHANISM_TYPE gen;
		CK_KEY_TYPE type;
		CK_BYTE *params;
		CK_ULONG len;
	} v[] = {
		{"made-256", CKM_EC_KEY_PAIR_GEN, CKK_EC, p256, sizeof(p256)},
		{"made-384", CKM_EC_KEY_PAIR_GEN, CKK_EC, p384, sizeof(p384)},
		{"made-521", CKM_EC_KEY_PAIR_GEN, CKK_EC, p521, sizeof(p521)},
		{"made-ed", CKM_EC_EDWARDS_KEY_PAIR_GEN, CKK_EC_EDWARDS, ed25519, sizeof(ed25519)},
		{"made-name", CKM_EC_EDWARDS_KEY_PAIR_GEN, CKK_EC_EDWARDS, ed_name, sizeof(ed_name)},
		{"made-rsa", CKM_RSA_PKCS_KEY_PAIR_GEN, CKK_RSA, NULL, 0},
	};
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), CKF_RW_SESSION);
	CK_ULONG bits = 2048;

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		CK_ATTRIBUTE rsa = {CKA_MODULUS_BITS, &bits, sizeof(bits)}, ec = {CKA_EC_PARAMS, v[i].params, v[i].len};
		CK_ATTRIBUTE priv[] = {{CKA_TOKEN, &yes, 1}, {CKA_LABEL, (void *)(uintptr_t)v[i].name, strlen(v[i].name)},
			{CKA_ID, (void *)(uintptr_t)"id", 2}};
		CK_BYTE id[20];
		CK_ATTRIBUTE a = {CKA_ID, id, sizeof(id)};
		CK_OBJECT_HANDLE pub_key, key;

		want(CKR_OK, p11_2->C_GenerateKeyPair(s, &(CK_MECHANISM){v[i].gen, NULL, 0},
					     v[i].params == NULL ? &rsa : &ec, 1, priv, 3, &pub_key, &key));
		check_protected(s, key, v[i].type, v[i].gen);
		assert_int_equal(p11fix_find(s, CKO_PRIVATE_KEY, v[i].name), key);
		assert_int_equal(p11fix_find(s, CKO_PUBLIC_KEY, v[i].name), pub_key);
		assert_true(flag(s, key, CKA_SIGN) && flag(s, pub_key, CKA_VERIFY));
		assert_int_equal(flag(s, key, CKA_DECRYPT), v[i].type == CKK_RSA);
		want(CKR_OK, p11_2->C_GetAttributeValue(s, key, &a, 1));
		assert_int_equal(a.ulValueLen, 2);
		want(CKR_OK, p11_2->C_DestroyObject(s, key));
		want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_GetAttributeValue(s, key, &a, 1));
		want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_GetAttributeValue(s, pub_key, &a, 1));
		want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_DestroyObject(s, key));
		assert_int_equal(p11fix_find(s, CKO_PRIVATE_KEY, v[i].name), 0);
	}
	p11fix_down();
}

/* An identifier of the maker's choice is the key's for everybody, and its certificate's; without one it is the key's hash. */
static void test_id_stays(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), CKF_RW_SESSION);
	CK_ATTRIBUTE pub = {CKA_EC_PARAMS, p256, sizeof(p256)}, id = {CKA_ID, (void *)(uintptr_t)"\001\002", 2},
		     priv[] = {{CKA_TOKEN, &yes, 1}, {CKA_LABEL, (void *)(uintptr_t)"with-id", 7}, id};
	CK_OBJECT_HANDLE p, k, found[4];
	CK_BYTE hash[20];
	CK_ATTRIBUTE a = {CKA_ID, hash, sizeof(hash)};
	CK_ULONG n = 0;

	(void)state;
	want(CKR_OK, p11_2->C_GenerateKeyPair(s, &gen_ec, &pub, 1, priv, 3, &p, &k));
	p11fix_down();
	s = p11fix_session(p11fix_up(), CKF_RW_SESSION);
	want(CKR_OK, p11_2->C_FindObjectsInit(s, &id, 1));
	want(CKR_OK, p11_2->C_FindObjects(s, found, 4, &n));
	want(CKR_OK, p11_2->C_FindObjectsFinal(s));
	assert_int_equal(n, 2);
	want(CKR_OK, p11_2->C_DestroyObject(s, p11fix_find(s, CKO_PRIVATE_KEY, "with-id")));
	want(CKR_OK, p11_2->C_GetAttributeValue(s, p11fix_find(s, CKO_PRIVATE_KEY, "ec-soft"), &a, 1));
	assert_int_equal(a.ulValueLen, 20);
	p11fix_down();
}

/* A key that was made anew under the name of another is not that one: what is meant for the old is not done to it. */
static void test_replaced_key(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), CKF_RW_SESSION);
	CK_OBJECT_HANDLE old, new;
	CK_BYTE digest[32] = {1}, sig[64];
	CK_ULONG n = sizeof(sig);
	struct csm *csm;

	(void)state;
	assert_int_equal(csm_new(&csm), 0);
	p11fix_key("replaced", "p256", NULL, NULL);
	old = p11fix_find(s, CKO_PRIVATE_KEY, "replaced");
	want(CKR_OK, p11_2->C_SignInit(s, &ecdsa, old));
	assert_int_equal(csm_key_delete(csm, "replaced"), 0);
	p11fix_key("replaced", "p256", NULL, NULL);
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_Sign(s, digest, sizeof(digest), sig, &n));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_SignInit(s, &ecdsa, old));
	assert_int_equal(csm_key_delete(csm, "replaced"), 0);
	for (int i = 0; i < 2; i++) {
		p11fix_key("replaced", "p256", NULL, NULL);
		old = p11fix_find(s, CKO_PRIVATE_KEY, "replaced");
		assert_true(flag(s, old, CKA_SIGN));
		assert_int_equal(csm_key_delete(csm, "replaced"), 0);
		p11fix_key("replaced", "p256", NULL, NULL);
		want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_DestroyObject(s, old));
		want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_DestroyObject(s, old));
		new = p11fix_find(s, CKO_PRIVATE_KEY, "replaced");
		assert_true(new != 0 && new != old);
		want(CKR_OK, p11_2->C_DestroyObject(s, new));
	}
	csm_free(csm);
	p11fix_down();
}

/* Without a label the key has a name all the same; with a use it has no other. */
static void test_nameless(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), CKF_RW_SESSION);
	CK_ATTRIBUTE pub = {CKA_EC_PARAMS, p256, sizeof(p256)}, priv[] = {{CKA_TOKEN, &yes, 1}, {CKA_DERIVE, &yes, 1}};
	CK_BYTE label[64], digest[32] = {0}, sig[64];
	CK_ATTRIBUTE a = {CKA_LABEL, label, sizeof(label)};
	CK_OBJECT_HANDLE p, k;
	CK_MECHANISM gen = {CKM_EC_KEY_PAIR_GEN, NULL, 0};

	(void)state;
	want(CKR_OK, p11_2->C_GenerateKeyPair(s, &gen, &pub, 1, priv, 2, &p, &k));
	want(CKR_OK, p11_2->C_GetAttributeValue(s, k, &a, 1));
	assert_memory_equal(label, "key-", 4);
	assert_true(flag(s, k, CKA_DERIVE) && !flag(s, k, CKA_SIGN));
	want(CKR_KEY_FUNCTION_NOT_PERMITTED, p11_2->C_SignInit(s, &ecdsa, k));
	assert_int_equal(p11fix_sign(s, &ecdsa, k, digest, sizeof(digest), sig, sizeof(sig)), 0);
	want(CKR_OK, p11_2->C_DestroyObject(s, k));
	p11fix_down();
}

/* A public key of the session's own verifies, is copied, changed, and goes with its session. */
static void test_session_public_key(void **state)
{
	CK_SLOT_ID slot = p11fix_up();
	CK_SESSION_HANDLE s = p11fix_session(slot, 0), other = p11fix_session(slot, 0);
	CK_OBJECT_HANDLE key = p11fix_find(s, CKO_PRIVATE_KEY, "ec-soft"), token_pub = p11fix_find(s, CKO_PUBLIC_KEY, "ec-soft");
	CK_BYTE point[128], params[32], digest[32] = {9}, sig[64];
	CK_ATTRIBUTE t[] = {{CKA_EC_POINT, point, sizeof(point)}, {CKA_EC_PARAMS, params, sizeof(params)}, {0}, {0}, {0}};
	CK_ULONG class = CKO_PUBLIC_KEY, type = CKK_EC;
	CK_ATTRIBUTE name = {CKA_LABEL, (void *)(uintptr_t)"b", 1};
	CK_OBJECT_HANDLE mine, copy;

	(void)state;
	want(CKR_OK, p11_2->C_GetAttributeValue(s, token_pub, t, 2));
	t[2] = (CK_ATTRIBUTE){CKA_CLASS, &class, sizeof(class)};
	t[3] = (CK_ATTRIBUTE){CKA_KEY_TYPE, &type, sizeof(type)};
	t[4] = (CK_ATTRIBUTE){CKA_LABEL, (void *)(uintptr_t)"a", 1};
	want(CKR_OK, p11_2->C_CreateObject(s, t, 5, &mine));
	assert_int_equal(p11fix_sign(s, &ecdsa, key, digest, 32, sig, sizeof(sig)), 64);
	want(CKR_OK, p11_2->C_VerifyInit(other, &ecdsa, mine));
	want(CKR_OK, p11_2->C_Verify(other, digest, 32, sig, 64));
	sig[10] ^= 1;
	want(CKR_OK, p11_2->C_VerifyInit(other, &ecdsa, mine));
	want(CKR_SIGNATURE_INVALID, p11_2->C_Verify(other, digest, 32, sig, 64));
	assert_false(flag(s, mine, CKA_TOKEN) || flag(s, mine, CKA_LOCAL));
	want(CKR_OK, p11_2->C_CopyObject(s, mine, &name, 1, &copy));
	want(CKR_OK, p11_2->C_SetAttributeValue(s, mine, &name, 1));
	want(CKR_ATTRIBUTE_READ_ONLY, p11_2->C_SetAttributeValue(s, mine, &t[3], 0) == CKR_OK ?
		p11_2->C_SetAttributeValue(s, mine, &(CK_ATTRIBUTE){CKA_CLASS, &type, sizeof(type)}, 1) : 0);
	want(CKR_OK, p11_2->C_DestroyObject(s, copy));
	want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_DestroyObject(s, copy));
	want(CKR_OK, p11_2->C_CloseSession(s));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_VerifyInit(other, &ecdsa, mine));
	p11fix_down();
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		P11FIX_TEST(test_generate),
		P11FIX_TEST(test_create),
		P11FIX_TEST(test_kinds),
		P11FIX_TEST(test_id_stays),
		P11FIX_TEST(test_replaced_key),
		P11FIX_TEST(test_nameless),
		P11FIX_TEST(test_session_public_key),
	};

	(void)argc;
	p11fix_main(argv, "soft", 100);
	p11fix_key("ec-soft", "p256", NULL, "sign,derive");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
