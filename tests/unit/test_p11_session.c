/* Key pairs of a session: keys of csmd's that are stored nowhere and end with their session. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/p11fix.h"

#define MOST 64 /* of them in a process */

static CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
static CK_MECHANISM gen_ec = {CKM_EC_KEY_PAIR_GEN, NULL, 0}, gen_rsa = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
static CK_ATTRIBUTE ec = {CKA_EC_PARAMS, p256, sizeof(p256)};

static CK_OBJECT_HANDLE make(CK_SESSION_HANDLE s, CK_ATTRIBUTE *priv, CK_ULONG n, CK_OBJECT_HANDLE *pub)
{
	CK_OBJECT_HANDLE k = 0;

	want(CKR_OK, p11_2->C_GenerateKeyPair(s, &gen_ec, &ec, 1, priv, n, pub, &k));
	return k;
}

static bool flag(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type)
{
	CK_BBOOL b = 7;
	CK_ATTRIBUTE a = {type, &b, 1};

	want(CKR_OK, p11_2->C_GetAttributeValue(s, o, &a, 1));
	return b == CK_TRUE;
}

static void signs(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE pub)
{
	CK_BYTE in[32] = {7}, sig[512];
	CK_ULONG n = p11fix_sign(s, m, key, in, sizeof(in), sig, sizeof(sig));

	assert_true(n > 0);
	want(CKR_OK, p11_2->C_VerifyInit(s, m, pub));
	want(CKR_OK, p11_2->C_Verify(s, in, sizeof(in), sig, n));
	sig[n / 2] ^= 1;
	want(CKR_OK, p11_2->C_VerifyInit(s, m, pub));
	want(CKR_SIGNATURE_INVALID, p11_2->C_Verify(s, in, sizeof(in), sig, n));
}

static struct csm *admin; /* one connection */

/* What csmd has open, without the one that asks. */
static uint64_t connections(void)
{
	struct csm_request *req;
	struct csm_reply *reply;
	uint64_t n;

	assert_int_equal(csm_request_new("status", &req), 0);
	assert_int_equal(csm_call(admin, req, &reply), 0);
	n = csm_view_u64(csm_reply_view(reply), "connections") - 1;
	csm_reply_free(reply);
	csm_request_free(req);
	return n;
}

/* csmd sees an end a moment after it. */
static bool connections_are(uint64_t wanted)
{
	for (int i = 0; i < 500; i++) {
		if (connections() == wanted)
			return true;
		(void)usleep(10000);
	}
	return false;
}

static void test_kinds(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_ULONG bits = 2048;
	CK_BYTE id[32], label[32], ed25519[] = {6, 3, 0x2b, 0x65, 0x70};
	CK_ATTRIBUTE rsa = {CKA_MODULUS_BITS, &bits, sizeof(bits)}, edwards = {CKA_EC_PARAMS, ed25519, sizeof(ed25519)},
		     named[] = {{CKA_LABEL, (void *)(uintptr_t)"a/b", 3}, {CKA_ID, (void *)(uintptr_t)"id", 2}, {CKA_TOKEN, &no, 1}},
		     got[] = {{CKA_ID, id, sizeof(id)}, {CKA_LABEL, label, sizeof(label)}};
	CK_OBJECT_HANDLE pub, key;
	struct csm *csm;

	(void)state;
	/* no right to write is needed, and a label may be anything */
	key = make(s, named, 3, &pub);
	assert_true(flag(s, key, CKA_PRIVATE) && flag(s, key, CKA_LOCAL) && flag(s, key, CKA_SENSITIVE));
	assert_true(flag(s, key, CKA_ALWAYS_SENSITIVE) && flag(s, key, CKA_NEVER_EXTRACTABLE) && flag(s, key, CKA_SIGN));
	assert_false(flag(s, key, CKA_TOKEN) || flag(s, pub, CKA_TOKEN) || flag(s, key, CKA_EXTRACTABLE));
	want(CKR_ATTRIBUTE_SENSITIVE, p11_2->C_GetAttributeValue(s, key, &(CK_ATTRIBUTE){CKA_VALUE, id, sizeof(id)}, 1));
	want(CKR_OK, p11_2->C_GetAttributeValue(s, pub, got, 2));
	assert_true(got[0].ulValueLen == 2 && got[1].ulValueLen == 3 && memcmp(label, "a/b", 3) == 0);
	assert_int_equal(p11fix_find(s, CKO_PRIVATE_KEY, "a/b"), key);
	signs(s, &ecdsa, key, pub);
	/* csmd has stored nothing */
	assert_int_equal(csm_new(&csm), 0);
	assert_int_equal(csm_key_delete(csm, "a/b"), CSM_EINVALID);
	assert_int_equal(csm_key_delete(csm, ".key"), CSM_ENOT_FOUND);
	csm_free(csm);
	/* without a name; its identifier is the key's hash */
	key = make(s, NULL, 0, &pub);
	got[0].ulValueLen = sizeof(id);
	want(CKR_OK, p11_2->C_GetAttributeValue(s, key, got, 1));
	assert_int_equal(got[0].ulValueLen, 20);
	want(CKR_OK, p11_2->C_GenerateKeyPair(s, &(CK_MECHANISM){CKM_EC_EDWARDS_KEY_PAIR_GEN, NULL, 0}, &edwards, 1, NULL, 0,
			     &pub, &key));
	signs(s, &(CK_MECHANISM){CKM_EDDSA, NULL, 0}, key, pub);
	want(CKR_OK, p11_2->C_GenerateKeyPair(s, &gen_rsa, &rsa, 1, NULL, 0, &pub, &key));
	signs(s, &(CK_MECHANISM){CKM_SHA256_RSA_PKCS, NULL, 0}, key, pub);
	p11fix_down();
	assert_true(connections_are(0));
}

/* Two keys of the session agree on a secret. */
static void test_agreement(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_BYTE point[2][67], value[2][32];
	CK_ATTRIBUTE derive = {CKA_DERIVE, &yes, 1};
	CK_ULONG len = 32;
	CK_OBJECT_HANDLE key[2], pub[2], o;

	(void)state;
	for (int i = 0; i < 2; i++) {
		CK_ATTRIBUTE a = {CKA_EC_POINT, point[i], sizeof(point[i])};

		key[i] = make(s, &derive, 1, &pub[i]);
		want(CKR_OK, p11_2->C_GetAttributeValue(s, pub[i], &a, 1));
	}
	for (int i = 0; i < 2; i++) {
		CK_ECDH1_DERIVE_PARAMS p = {CKD_NULL, 0, NULL, sizeof(point[0]), point[!i]};
		CK_ATTRIBUTE t = {CKA_VALUE_LEN, &len, sizeof(len)}, v = {CKA_VALUE, value[i], sizeof(value[i])};

		want(CKR_OK, p11_2->C_DeriveKey(s, &(CK_MECHANISM){CKM_ECDH1_DERIVE, &p, sizeof(p)}, key[i], &t, 1, &o));
		want(CKR_OK, p11_2->C_GetAttributeValue(s, o, &v, 1));
	}
	assert_memory_equal(value[0], value[1], 32);
	want(CKR_KEY_FUNCTION_NOT_PERMITTED, p11_2->C_SignInit(s, &ecdsa, key[0]));
	p11fix_down();
}

static void test_ends(void **state)
{
	CK_SLOT_ID slot = p11fix_up();
	CK_SESSION_HANDLE s = p11fix_session(slot, 0), other = p11fix_session(slot, 0);
	CK_OBJECT_HANDLE pub, key, copy;
	uint64_t before;

	(void)state;
	key = make(s, NULL, 0, &pub);
	signs(s, &ecdsa, key, pub); /* the connection that the program has besides is there, too */
	before = connections();
	key = make(s, NULL, 0, &pub);
	assert_int_equal(connections(), before + 1);
	signs(other, &ecdsa, key, pub); /* a session's objects are the program's */
	want(CKR_OK, p11_2->C_DestroyObject(s, key));
	assert_true(connections_are(before)); /* and with it the key */
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_SignInit(s, &ecdsa, key));
	want(CKR_OK, p11_2->C_VerifyInit(s, &ecdsa, pub));
	/* the last of two objects of a key */
	key = make(s, NULL, 0, &pub);
	want(CKR_OK, p11_2->C_CopyObject(other, key, NULL, 0, &copy));
	want(CKR_OK, p11_2->C_CloseSession(s));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_SignInit(other, &ecdsa, key));
	assert_int_not_equal(p11fix_sign(other, &ecdsa, copy, "12345678901234567890123456789012", 32, (CK_BYTE[64]){0}, 64), 0);
	assert_true(connections_are(before)); /* the first key ended with s */
	want(CKR_OK, p11_2->C_CloseAllSessions(slot));
	assert_true(connections_are(before - 1));
	p11fix_down();
}

static void test_bounded(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_OBJECT_HANDLE pub, key = 0, more;

	(void)state;
	for (int i = 0; i < MOST; i++)
		key = make(s, NULL, 0, &pub);
	want(CKR_DEVICE_MEMORY, p11_2->C_GenerateKeyPair(s, &gen_ec, &ec, 1, NULL, 0, &pub, &more));
	want(CKR_OK, p11_2->C_DestroyObject(s, key));
	(void)make(s, NULL, 0, &pub);
	p11fix_down();
	s = p11fix_session(p11fix_up(), 0);
	for (int i = 0; i < 2 * MOST; i++)
		want(CKR_OK, p11_2->C_DestroyObject(s, make(s, NULL, 0, &pub)));
	p11fix_down();
}

static void test_refused(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), CKF_RW_SESSION);
	CK_ATTRIBUTE pub[] = {ec, {CKA_TOKEN, &yes, 1}}, taken = {CKA_EXTRACTABLE, &yes, 1},
		     token[] = {{CKA_TOKEN, &yes, 1}, {CKA_LABEL, (void *)(uintptr_t)"half", 4}};
	CK_OBJECT_HANDLE a, b;

	(void)state;
	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_GenerateKeyPair(s, &gen_ec, pub, 2, NULL, 0, &a, &b));
	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_GenerateKeyPair(s, &gen_ec, pub, 1, &taken, 1, &a, &b));
	pub[1].pValue = &no;
	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_GenerateKeyPair(s, &gen_ec, pub, 2, token, 2, &a, &b));
	p11fix_down();
}

/* A child has copies of the handles, and no right to the key of its parent's connection; the parent goes on. */
static void test_fork(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_OBJECT_HANDLE pub, key = make(s, NULL, 0, &pub);
	CK_BYTE digest[32] = {1}, sig[64];
	CK_ULONG n = sizeof(sig);
	int status = 1;
	pid_t pid;

	(void)state;
	signs(s, &ecdsa, key, pub);
	pid = fork();
	if (pid == 0) {
		bool ok = p11_2->C_SignInit(s, &ecdsa, key) == CKR_OK &&
		          p11_2->C_Sign(s, digest, sizeof(digest), sig, &n) == CKR_KEY_HANDLE_INVALID;

		/* one of its own */
		ok = ok && p11_2->C_GenerateKeyPair(s, &gen_ec, &ec, 1, NULL, 0, &pub, &key) == CKR_OK &&
		     p11fix_sign(s, &ecdsa, key, digest, sizeof(digest), sig, sizeof(sig)) == 64;
		ok = ok && p11_2->C_Finalize(NULL) == CKR_OK;
		_exit(ok ? 0 : 1);
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
	assert_int_equal(status, 0);
	signs(s, &ecdsa, key, pub);
	p11fix_down();
}

static CK_OBJECT_HANDLE shared;
static CK_SLOT_ID shared_slot;

static void *use_shared(void *arg)
{
	CK_SESSION_HANDLE s = 0;
	CK_BYTE digest[32] = {2}, sig[64];
	unsigned *bad = arg;

	*bad = p11_2->C_OpenSession(shared_slot, CKF_SERIAL_SESSION, NULL, NULL, &s) != CKR_OK;
	for (int i = 0; i < 50 && *bad == 0; i++) {
		CK_ULONG n = sizeof(sig);

		*bad = p11_2->C_SignInit(s, &ecdsa, shared) != CKR_OK || p11_2->C_Sign(s, digest, sizeof(digest), sig, &n) != CKR_OK;
	}
	return NULL;
}

static void test_threads(void **state)
{
	CK_OBJECT_HANDLE pub;
	CK_SESSION_HANDLE s;
	pthread_t t[4];
	unsigned bad[4];

	(void)state;
	shared_slot = p11fix_up();
	s = p11fix_session(shared_slot, 0);
	shared = make(s, NULL, 0, &pub);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, use_shared, &bad[i]), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(t[i], NULL), 0);
		assert_int_equal(bad[i], 0);
	}
	p11fix_down();
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		P11FIX_TEST(test_kinds),
		P11FIX_TEST(test_agreement),
		P11FIX_TEST(test_ends),
		P11FIX_TEST(test_bounded),
		P11FIX_TEST(test_refused),
		P11FIX_TEST(test_fork),
		P11FIX_TEST(test_threads),
	};

	int r;

	(void)argc;
	p11fix_main(argv, "soft", 100);
	if (csm_new(&admin) != 0 || csm_set_socket(admin, getenv("CSM_ADMIN_SOCKET")) != 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	csm_free(admin);
	return r;
}
