/* The module under many threads, over forks, with an application's mutexes, and ended while others work. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/p11fix.h"
#include "tests/lib/count.h"

#define THREADS 16

static CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0}, ecdsa256 = {CKM_ECDSA_SHA256, NULL, 0};
static CK_SLOT_ID slot;
static _Atomic bool stop;
static _Atomic unsigned done;
static pthread_barrier_t all_there;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Seconds here, or minutes with full counts. */
static double life(double seconds, double minutes)
{
	return long_run() ? 60 * minutes : seconds;
}

static CK_OBJECT_HANDLE find_quietly(CK_SESSION_HANDLE s, CK_OBJECT_CLASS class)
{
	CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_LABEL, (void *)(uintptr_t)"k", 1}};
	CK_OBJECT_HANDLE o = 0;
	CK_ULONG n = 0;

	if (p11_2->C_FindObjectsInit(s, t, 2) != CKR_OK || p11_2->C_FindObjects(s, &o, 1, &n) != CKR_OK ||
		p11_2->C_FindObjectsFinal(s) != CKR_OK)
		return 0;
	return o;
}

/* Sign and verify; what went wrong, or CKR_OK. */
static CK_RV round_trip(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE pub)
{
	CK_BYTE digest[32] = {7}, sig[64];
	CK_ULONG n = sizeof(sig);
	CK_RV rv = p11_2->C_SignInit(s, &ecdsa, key);

	if (rv == CKR_OK)
		rv = p11_2->C_Sign(s, digest, sizeof(digest), sig, &n);
	if (rv == CKR_OK && pub != 0)
		rv = p11_2->C_VerifyInit(s, &ecdsa, pub);
	if (rv == CKR_OK && pub != 0)
		rv = p11_2->C_Verify(s, digest, sizeof(digest), sig, n);
	return rv;
}

/* All that a key can be asked for, by name and by listing, while others do the same. */
static CK_RV work(unsigned turn)
{
	CK_SESSION_HANDLE s;
	CK_OBJECT_HANDLE key, pub, all[32];
	CK_SESSION_INFO info;
	CK_BYTE random[8];
	CK_ULONG n;
	CK_RV rv = p11_2->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s);

	if (rv != CKR_OK)
		return rv;
	key = find_quietly(s, CKO_PRIVATE_KEY);
	pub = find_quietly(s, CKO_PUBLIC_KEY);
	/* not found: the library was ended, or the key is lost */
	rv = key == 0 || pub == 0 ? p11_2->C_GetSessionInfo(s, &info) : CKR_OK;
	if (rv == CKR_OK && (key == 0 || pub == 0))
		rv = CKR_OBJECT_HANDLE_INVALID;
	for (unsigned i = 0; i < 5 && rv == CKR_OK; i++)
		rv = round_trip(s, key, pub);
	if (rv == CKR_OK && turn % 4 == 0)
		rv = p11_2->C_GenerateRandom(s, random, sizeof(random));
	if (rv == CKR_OK && turn % 4 == 1 && (rv = p11_2->C_FindObjectsInit(s, NULL, 0)) == CKR_OK)
		rv = p11_2->C_FindObjects(s, all, 32, &n);
	if (rv == CKR_OK)
		rv = p11_2->C_CloseSession(s);
	return rv;
}

static void *worker(void *arg)
{
	CK_RV rv = CKR_OK;

	(void)arg;
	pthread_barrier_wait(&all_there);
	for (unsigned turn = 0; !stop && rv == CKR_OK; turn++) {
		rv = work(turn);
		done++;
	}
	return (void *)rv;
}

static void start(pthread_t t[static THREADS], void *(*f)(void *), void *arg)
{
	stop = false;
	done = 0;
	assert_int_equal(pthread_barrier_init(&all_there, NULL, THREADS), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, f, arg), 0);
}

static void join(pthread_t t[static THREADS], CK_RV wanted, CK_RV or)
{
	for (unsigned i = 0; i < THREADS; i++) {
		void *rv;

		assert_int_equal(pthread_join(t[i], &rv), 0);
		if ((CK_RV)(uintptr_t)rv != wanted && (CK_RV)(uintptr_t)rv != or)
			fail_msg("a thread ended with 0x%lx", (CK_RV)(uintptr_t)rv);
	}
	pthread_barrier_destroy(&all_there);
}

static void rest(double seconds)
{
	double until = now() + seconds;

	while (now() < until)
		usleep(10000);
}

static void test_threads(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	slot = p11fix_up();
	start(t, worker, NULL);
	rest(life(3, 10));
	stop = true;
	join(t, CKR_OK, CKR_OK);
	assert_true(done > THREADS);
	p11fix_down();
}

/* Keys come and go while others are listed and used: nobody's key is lost to another's listing. */
static void *maker(void *arg)
{
	static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
	static _Atomic unsigned number;
	CK_BBOOL yes = CK_TRUE;
	CK_MECHANISM gen = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
	CK_OBJECT_HANDLE pub, key, all[64];
	CK_SESSION_HANDLE s;
	CK_ULONG n;
	char label[32];
	CK_RV rv = p11_2->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &s);

	(void)arg;
	pthread_barrier_wait(&all_there);
	while (!stop && rv == CKR_OK) {
		int len = snprintf(label, sizeof(label), "made-%u", number++);
		CK_ATTRIBUTE t = {CKA_EC_PARAMS, p256, sizeof(p256)},
			     p[] = {{CKA_TOKEN, &yes, 1}, {CKA_LABEL, label, (CK_ULONG)len}};

		if ((rv = p11_2->C_GenerateKeyPair(s, &gen, &t, 1, p, 2, &pub, &key)) == CKR_OK &&
			(rv = p11_2->C_FindObjectsInit(s, NULL, 0)) == CKR_OK &&
			(rv = p11_2->C_FindObjects(s, all, 64, &n)) == CKR_OK &&
			(rv = p11_2->C_FindObjectsFinal(s)) == CKR_OK && (rv = round_trip(s, key, pub)) == CKR_OK)
			rv = p11_2->C_DestroyObject(s, key);
		done++;
	}
	return (void *)rv;
}

static void test_keys_come_and_go(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	slot = p11fix_up();
	start(t, maker, NULL);
	rest(life(2, 2));
	stop = true;
	join(t, CKR_OK, CKR_OK);
	assert_true(done > THREADS);
	p11fix_down();
}

/* One session for all: the calls take turns, and none of them breaks anything. */
static void *sharer(void *arg)
{
	CK_SESSION_HANDLE s = *(CK_SESSION_HANDLE *)arg;
	CK_BYTE digest[32] = {1}, sig[64];
	CK_ULONG n;

	pthread_barrier_wait(&all_there);
	for (unsigned i = 0; i < 100; i++) {
		(void)p11_2->C_SignInit(s, &ecdsa256, find_quietly(s, CKO_PRIVATE_KEY));
		(void)p11_2->C_SignUpdate(s, digest, sizeof(digest));
		n = sizeof(sig);
		(void)p11_2->C_SignFinal(s, sig, &n);
		(void)p11_2->C_FindObjectsFinal(s);
	}
	return NULL;
}

static void test_shared_session(void **state)
{
	pthread_t t[THREADS];
	CK_SESSION_HANDLE s;

	(void)state;
	slot = p11fix_up();
	s = p11fix_session(slot, 0);
	start(t, sharer, &s);
	join(t, CKR_OK, CKR_OK);
	(void)p11->C_SessionCancel(s, ~0UL);
	assert_true(find_quietly(s, CKO_PRIVATE_KEY) != 0);
	p11fix_down();
}

/* What a session makes while it is closed goes with it: no secret is left for the next one to find. */
static void *deriver(void *arg)
{
	CK_BYTE *point = arg;
	CK_ECDH1_DERIVE_PARAMS p = {CKD_NULL, 0, NULL, 67, point};
	CK_MECHANISM m = {CKM_ECDH1_DERIVE, &p, sizeof(p)};
	CK_SESSION_HANDLE s;
	CK_OBJECT_HANDLE key, o;

	pthread_barrier_wait(&all_there);
	while (!stop) {
		if (p11_2->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s) != CKR_OK)
			return (void *)1;
		key = find_quietly(s, CKO_PRIVATE_KEY);
		while (!stop && key != 0 && p11_2->C_DeriveKey(s, &m, key, NULL, 0, &o) == CKR_OK)
			done++;
	}
	return NULL;
}

static void test_closed_sessions_keep_nothing(void **state)
{
	CK_BYTE point[80];
	CK_ATTRIBUTE q = {CKA_EC_POINT, point, sizeof(point)};
	CK_ULONG n = 0, class = CKO_SECRET_KEY;
	CK_ATTRIBUTE secrets = {CKA_CLASS, &class, sizeof(class)};
	CK_OBJECT_HANDLE found[8];
	CK_SESSION_HANDLE s;
	pthread_t t[THREADS];

	(void)state;
	slot = p11fix_up();
	s = p11fix_session(slot, 0);
	want(CKR_OK, p11_2->C_GetAttributeValue(s, find_quietly(s, CKO_PUBLIC_KEY), &q, 1));
	assert_int_equal(q.ulValueLen, 67);
	start(t, deriver, point);
	for (unsigned i = 0; i < 30 || done < THREADS; i++) {
		usleep(1000);
		want(CKR_OK, p11_2->C_CloseAllSessions(slot));
	}
	stop = true;
	join(t, CKR_OK, CKR_OK);
	want(CKR_OK, p11_2->C_CloseAllSessions(slot));
	s = p11fix_session(slot, 0);
	want(CKR_OK, p11_2->C_FindObjectsInit(s, &secrets, 1));
	want(CKR_OK, p11_2->C_FindObjects(s, found, 8, &n));
	assert_int_equal(n, 0);
	p11fix_down();
}

/* ---- C_Finalize while others work: they are told, none crashes ---- */

static void test_finalize(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		slot = p11fix_up();
		start(t, worker, NULL);
		while (done < THREADS)
			usleep(1000);
		p11fix_down();
		join(t, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_SESSION_HANDLE_INVALID);
	}
}

static void *waiter(void *arg)
{
	CK_SLOT_ID s;
	CK_RV rv;

	(void)arg;
	pthread_barrier_wait(&all_there);
	do
		rv = p11_2->C_WaitForSlotEvent(0, &s, NULL);
	while (rv == CKR_OK);
	return (void *)rv;
}

static void test_finalize_ends_waiting(void **state)
{
	pthread_t t[THREADS];

	(void)state;
	slot = p11fix_up();
	start(t, waiter, NULL);
	usleep(50000);
	p11fix_down();
	join(t, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED);
}

/* ---- fork ---- */

static int exit_of(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* 0: a child signs with its copy of the session, then begins anew, and signs again. */
static int child(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
	CK_SESSION_HANDLE mine;

	alarm(20);
	if (round_trip(s, key, 0) != CKR_OK)
		return 1;
	if (p11_2->C_Initialize(NULL) != CKR_OK)
		return 2;
	if (p11_2->C_Initialize(NULL) != CKR_CRYPTOKI_ALREADY_INITIALIZED)
		return 3;
	if (round_trip(s, key, 0) != CKR_SESSION_HANDLE_INVALID)
		return 4;
	if (p11_2->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &mine) != CKR_OK)
		return 5;
	if (round_trip(mine, find_quietly(mine, CKO_PRIVATE_KEY), 0) != CKR_OK)
		return 6;
	return p11_2->C_Finalize(NULL) == CKR_OK ? 0 : 7;
}

static void test_fork(void **state)
{
	CK_SESSION_HANDLE s;
	CK_OBJECT_HANDLE key;
	pid_t pid;

	(void)state;
	slot = p11fix_up();
	s = p11fix_session(slot, 0);
	key = find_quietly(s, CKO_PRIVATE_KEY);
	want(CKR_OK, round_trip(s, key, 0));
	pid = fork();
	if (pid == 0)
		_exit(child(s, key));
	assert_int_equal(exit_of(pid), 0);
	/* an operation that was begun before goes on in both */
	want(CKR_OK, p11_2->C_SignInit(s, &ecdsa256, key));
	want(CKR_OK, p11_2->C_SignUpdate(s, (CK_BYTE *)(uintptr_t)"ab", 2));
	pid = fork();
	if (pid == 0) {
		CK_BYTE sig[64];
		CK_ULONG n = sizeof(sig);

		_exit(p11_2->C_SignFinal(s, sig, &n) == CKR_OK ? 0 : 1);
	}
	assert_int_equal(exit_of(pid), 0);
	want(CKR_OK, p11->C_SessionCancel(s, CKF_SIGN));
	want(CKR_OK, round_trip(s, key, 0));
	p11fix_down();
}

/* Forks at any moment of sixteen threads' work: no child hangs, each can sign. */
static void test_fork_in_the_middle(void **state)
{
	CK_SESSION_HANDLE s;
	CK_OBJECT_HANDLE key;
	pthread_t t[THREADS];

	(void)state;
	slot = p11fix_up();
	s = p11fix_session(slot, 0);
	key = find_quietly(s, CKO_PRIVATE_KEY);
	start(t, worker, NULL);
	for (unsigned i = 0; i < 15; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(child(s, key));
		assert_int_equal(exit_of(pid), 0);
	}
	stop = true;
	join(t, CKR_OK, CKR_OK);
	want(CKR_OK, round_trip(s, key, 0));
	p11fix_down();
}

/* A child of any moment in which another thread begins or ends the library can begin it, and use its keys. */
static void *turner(void *arg)
{
	(void)arg;
	while (!stop) {
		CK_SLOT_ID s[4];
		CK_SESSION_HANDLE h;
		CK_ULONG n = 4;

		if (p11_2->C_Initialize(NULL) != CKR_OK || p11_2->C_GetSlotList(CK_TRUE, s, &n) != CKR_OK ||
			p11_2->C_OpenSession(s[0], CKF_SERIAL_SESSION, NULL, NULL, &h) != CKR_OK ||
			round_trip(h, find_quietly(h, CKO_PRIVATE_KEY), 0) != CKR_OK || p11_2->C_Finalize(NULL) != CKR_OK)
			return (void *)1;
	}
	return NULL;
}

static int beginner(void)
{
	CK_SESSION_HANDLE s;
	CK_SLOT_ID v[4];
	CK_ULONG n = 4;

	alarm(20);
	if (p11_2->C_Initialize(NULL) != CKR_OK)
		return 1;
	if (p11_2->C_GetSlotList(CK_TRUE, v, &n) != CKR_OK || n == 0)
		return 2;
	if (p11_2->C_OpenSession(v[0], CKF_SERIAL_SESSION, NULL, NULL, &s) != CKR_OK)
		return 3;
	if (round_trip(s, find_quietly(s, CKO_PRIVATE_KEY), 0) != CKR_OK)
		return 4;
	return p11_2->C_Finalize(NULL) == CKR_OK ? 0 : 5;
}

static void test_fork_while_it_begins_and_ends(void **state)
{
	unsigned forks = life(1, 1) > 1 ? 2000 : 40;
	pthread_t t;
	void *failed;

	(void)state;
	stop = false;
	assert_int_equal(pthread_create(&t, NULL, turner, NULL), 0);
	for (unsigned i = 0; i < forks; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(beginner());
		assert_int_equal(exit_of(pid), 0);
		usleep(i * 37 % 1000);
	}
	stop = true;
	assert_int_equal(pthread_join(t, &failed), 0);
	assert_null(failed);
}

/* ---- an application's own mutexes ---- */

static _Atomic int made, held;
struct mutex {
	pthread_mutex_t m;
};

static CK_RV mutex_make(CK_VOID_PTR *ret)
{
	struct mutex *m = malloc(sizeof(struct mutex));

	if (m == NULL)
		return CKR_HOST_MEMORY;
	pthread_mutex_init(&m->m, NULL);
	made++;
	*ret = m;
	return CKR_OK;
}

static CK_RV mutex_free(CK_VOID_PTR m)
{
	pthread_mutex_destroy(m);
	free(m);
	made--;
	return CKR_OK;
}

static CK_RV mutex_lock(CK_VOID_PTR m)
{
	held++;
	return pthread_mutex_lock(m) == 0 ? CKR_OK : CKR_MUTEX_BAD;
}

static CK_RV mutex_unlock(CK_VOID_PTR m)
{
	return pthread_mutex_unlock(m) == 0 ? CKR_OK : CKR_MUTEX_NOT_LOCKED;
}

static void with_args(CK_C_INITIALIZE_ARGS *a, bool mine)
{
	CK_SLOT_ID slots[8];
	CK_ULONG n = 8;
	pthread_t t[THREADS];

	held = 0;
	want(CKR_OK, p11_2->C_Initialize(a));
	want(CKR_OK, p11_2->C_GetSlotList(CK_TRUE, slots, &n));
	slot = slots[0];
	start(t, worker, NULL);
	while (done < THREADS)
		usleep(1000);
	stop = true;
	join(t, CKR_OK, CKR_OK);
	assert_int_equal(held > 0, mine);
	p11fix_down();
	assert_int_equal(made, 0);
}

static void test_locking_models(void **state)
{
	CK_C_INITIALIZE_ARGS a = {mutex_make, mutex_free, mutex_lock, mutex_unlock, 0, NULL}, none = {.flags = 0};

	(void)state;
	with_args(NULL, false);
	with_args(&none, false);
	with_args(&a, true);
	a.flags = CKF_OS_LOCKING_OK;
	with_args(&a, false);
	a.flags = CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS;
	with_args(&a, false);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		P11FIX_TEST(test_threads),
		P11FIX_TEST(test_keys_come_and_go),
		P11FIX_TEST(test_shared_session),
		P11FIX_TEST(test_closed_sessions_keep_nothing),
		P11FIX_TEST(test_finalize),
		P11FIX_TEST(test_finalize_ends_waiting),
		P11FIX_TEST(test_fork),
		P11FIX_TEST(test_fork_in_the_middle),
		P11FIX_TEST(test_fork_while_it_begins_and_ends),
		P11FIX_TEST(test_locking_models),
	};

	(void)argc;
	p11fix_main(argv, "soft", (unsigned)life(240, 25));
	p11fix_key("k", "p256", NULL, "sign,derive");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
