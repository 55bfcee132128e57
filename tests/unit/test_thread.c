/* Threads: who gets signals, and where keys are used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dlfcn.h>
#include <signal.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/audit.h"
#include "daemon/svc/store.h"
#include "daemon/svc/thread.h"
#include "tests/lib/storefix.h"

/* The library's calls that see the key of the checkpoints, counted by where they are made. */
static atomic_uint on_first, elsewhere;

static void count_call(void)
{
	atomic_fetch_add(gettid() == getpid() ? &on_first : &elsewhere, 1);
}

int crypto_sign_detached(unsigned char *sig, unsigned long long *len, const unsigned char *m, unsigned long long n,
	const unsigned char *sk)
{
	static int (*real)(unsigned char *, unsigned long long *, const unsigned char *, unsigned long long,
		const unsigned char *);

	*(void **)&real = dlsym(RTLD_NEXT, "crypto_sign_detached");
	count_call();
	return real(sig, len, m, n, sk);
}

int crypto_sign_seed_keypair(unsigned char *pk, unsigned char *sk, const unsigned char *seed)
{
	static int (*real)(unsigned char *, unsigned char *, const unsigned char *);

	*(void **)&real = dlsym(RTLD_NEXT, "crypto_sign_seed_keypair");
	count_call();
	return real(pk, sk, seed);
}

static void note_thread(void *arg)
{
	*(pid_t *)arg = gettid();
}

static void *inside(void *arg)
{
	pid_t *tid = arg;

	/* This one is not the first: it goes on where it is. */
	assert_int_equal(csm_thread_sheltered(note_thread, tid), 0);
	assert_int_equal(*tid, gettid());
	return NULL;
}

static void shelter_is_not_the_first_thread(void **state)
{
	pthread_t other;
	pid_t tid = 0;

	(void)state;
	assert_int_equal(csm_thread_sheltered(note_thread, &tid), 0);
	assert_int_not_equal(tid, 0);
	assert_int_not_equal(tid, getpid());
	tid = 0;
	assert_int_equal(csm_thread_start(&other, inside, &tid), 0);
	pthread_join(other, NULL);
	assert_int_not_equal(tid, 0);
}

static void *mask_of(void *arg)
{
	pthread_sigmask(SIG_BLOCK, NULL, arg);
	return NULL;
}

static void signals_are_for_the_first_thread(void **state)
{
	sigset_t before, after, theirs;
	pthread_t other;

	(void)state;
	pthread_sigmask(SIG_BLOCK, NULL, &before);
	assert_int_equal(csm_thread_start(&other, mask_of, &theirs), 0);
	pthread_join(other, NULL);
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	for (int s = 1; s < 32; s++) {
		assert_int_equal(sigismember(&after, s), sigismember(&before, s));
		if (s != SIGKILL && s != SIGSTOP)
			assert_true(sigismember(&theirs, s));
	}
}

/* At a start, at a stop, and when the first thread tells of a reload. */
static void checkpoints_are_not_signed_on_the_first_thread(void **state)
{
	struct csm_audit_event e = {.kind = CSM_AUDIT_CHANGE, .method = "policy.reload", .object = CSM_STR("policy"),
		.result = "ok"};
	struct csm_audit_options opt = {.max_size = 2048};
	struct csm_audit_mark mark;
	struct csm_audit *a;
	struct storefix f;
	char folder[80];

	(void)state;
	storefix_init(&f);
	f.opt.root.arg = &f;
	f.opt.why = f.why;
	snprintf(folder, sizeof(folder), "%s/audit", f.dir);
	opt.dir = folder;
	assert_int_equal(csm_audit_open(&opt, &a), 0);
	assert_int_equal(csm_store_open(&f.opt, &f.s), 0);
	assert_int_equal(csm_store_tell(f.s, a), 0);
	for (int i = 0; i < 40; i++)
		assert_int_equal(csm_audit_group(a, &e, 1, NULL, &mark), 0);
	csm_audit_stop(a);
	storefix_free(&f);
	csm_audit_close(a);
	assert_true(elsewhere > 10); /* each file ends in one */
	assert_int_equal(on_first, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shelter_is_not_the_first_thread),
		cmocka_unit_test(signals_are_for_the_first_thread),
		cmocka_unit_test(checkpoints_are_not_signed_on_the_first_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
