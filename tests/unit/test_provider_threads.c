/* The provider in programs with many threads, and with jobs that are paused while csmd works. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/async.h>
#include <openssl/rsa.h>
#include "tests/lib/provfix.h"
#include "tests/lib/count.h"

#define THREADS 16
#define JOBS 8

static EVP_PKEY *soft, *soft_pub, *tpm, *tpm_pub, *rsa, *rsa_pub, *ed, *ed_pub, *dh;
static unsigned rounds;

static int setup(void **state)
{
	(void)state;
	rounds = long_run() ? 2000 : 25;
	provfix_key("k", "p256", "soft", NULL);
	provfix_key("t", "p256", "tpm2", NULL);
	provfix_key("r", "rsa2048", "soft", NULL);
	provfix_key("e", "ed25519", "soft", NULL);
	provfix_key("d", "p256", "soft", "derive");
	soft = provfix_uri("csm:k");
	tpm = provfix_uri("csm:t");
	rsa = provfix_uri("csm:r");
	ed = provfix_uri("csm:e");
	dh = provfix_uri("csm:d");
	soft_pub = provfix_public("k");
	tpm_pub = provfix_public("t");
	rsa_pub = provfix_public("r");
	ed_pub = provfix_public("e");
	assert_true(soft != NULL && tpm != NULL && rsa != NULL && ed != NULL && dh != NULL);
	return 0;
}

static int teardown(void **state)
{
	EVP_PKEY *all[] = {soft, soft_pub, tpm, tpm_pub, rsa, rsa_pub, ed, ed_pub, dh};

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		EVP_PKEY_free(all[i]);
	return 0;
}

/* One signature, verified by the default provider; no assertions: it runs in threads and jobs. */
static bool sign_once(EVP_PKEY *key, EVP_PKEY *pub, unsigned n)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new(), *check = EVP_MD_CTX_new();
	const char *md = EVP_PKEY_is_a(key, "ED25519") ? NULL : "SHA256";
	uint8_t sig[CSM_SIGNATURE_BYTES];
	char text[32];
	size_t len = sizeof(sig);
	int k = snprintf(text, sizeof(text), "message %u", n);
	bool ok = EVP_DigestSignInit_ex(ctx, NULL, md, lib, NULL, key, NULL) == 1 &&
		EVP_DigestSign(ctx, sig, &len, (uint8_t *)text, (size_t)k) == 1 &&
		EVP_DigestVerifyInit_ex(check, NULL, md, lib, NULL, pub, NULL) == 1 &&
		EVP_DigestVerify(check, sig, len, (uint8_t *)text, (size_t)k) == 1;

	EVP_MD_CTX_free(ctx);
	EVP_MD_CTX_free(check);
	return ok;
}

/* ---- threads ---- */

static _Atomic unsigned failures;

/* Each with the shared keys, and with one that it loads and frees itself. */
static void *work(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < rounds; i++) {
		EVP_PKEY *own = provfix_uri("csm:k");

		if (own == NULL || !sign_once(own, soft_pub, i) || !sign_once(soft, soft_pub, i))
			(void)atomic_fetch_add(&failures, 1);
		if (i % 8 == id % 8 && (!sign_once(tpm, tpm_pub, i) || !sign_once(ed, ed_pub, i)))
			(void)atomic_fetch_add(&failures, 1);
		EVP_PKEY_free(own);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	atomic_store(&failures, 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&failures), 0);
}

/* Forks in the middle of what the other threads do: the child signs as well. It goes on with what was set up before: to
 * look up methods takes locks of OpenSSL's, which a thread that is not in the child may have held. */
static void test_fork_beside_threads(void **state)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, soft, NULL);
	uint8_t sig[CSM_SIGNATURE_BYTES], digest[32] = {1};
	pthread_t threads[4];

	(void)state;
	assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
	atomic_store(&failures, 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	for (size_t i = 0; i < 10; i++) {
		size_t n = sizeof(sig);
		pid_t pid = fork();
		int status = -1;

		assert_true(pid >= 0);
		if (pid == 0) {
			alarm(30);
			_exit(EVP_PKEY_sign(ctx, sig, &n, digest, sizeof(digest)) == 1 ? 0 : 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&failures), 0);
	EVP_PKEY_CTX_free(ctx);
}

/* ---- jobs ---- */

enum what { SIGN_SOFT, SIGN_TPM, SIGN_RSA, SIGN_ED, DECRYPT, DERIVE, SIGN_NONE };

static bool decrypt_once(void)
{
	EVP_PKEY_CTX *e = EVP_PKEY_CTX_new_from_pkey(lib, rsa_pub, NULL), *d = EVP_PKEY_CTX_new_from_pkey(lib, rsa, NULL);
	uint8_t cipher[CSM_PLAINTEXT_BYTES], plain[CSM_PLAINTEXT_BYTES];
	size_t n = sizeof(cipher), m = sizeof(plain);
	bool ok = EVP_PKEY_encrypt_init(e) == 1 && EVP_PKEY_CTX_set_rsa_padding(e, RSA_PKCS1_OAEP_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_oaep_md_name(e, "SHA256", NULL) == 1 &&
		EVP_PKEY_encrypt(e, cipher, &n, (const uint8_t *)"plain", 5) == 1 && EVP_PKEY_decrypt_init(d) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(d, RSA_PKCS1_OAEP_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_oaep_md_name(d, "SHA256", NULL) == 1 && EVP_PKEY_decrypt(d, plain, &m, cipher, n) == 1 &&
		m == 5 && memcmp(plain, "plain", 5) == 0;

	EVP_PKEY_CTX_free(e);
	EVP_PKEY_CTX_free(d);
	return ok;
}

static bool derive_once(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, dh, NULL);
	uint8_t z[64];
	size_t n = sizeof(z);
	bool ok = EVP_PKEY_derive_init(ctx) == 1 && EVP_PKEY_derive_set_peer(ctx, soft_pub) == 1 &&
		EVP_PKEY_derive(ctx, z, &n) == 1 && n == 32;

	EVP_PKEY_CTX_free(ctx);
	return ok;
}

static int job(void *arg)
{
	switch (*(enum what *)arg) {
	case SIGN_SOFT:
		return sign_once(soft, soft_pub, 1);
	case SIGN_TPM:
		return sign_once(tpm, tpm_pub, 2);
	case SIGN_RSA:
		return sign_once(rsa, rsa_pub, 3);
	case SIGN_ED:
		return sign_once(ed, ed_pub, 4);
	case DECRYPT:
		return decrypt_once();
	case DERIVE:
		return derive_once();
	default:
		return sign_once(dh, soft_pub, 5); /* not a key that signs */
	}
}

struct one {
	ASYNC_JOB *job;
	ASYNC_WAIT_CTX *wait;
	enum what what;
	unsigned pauses;
	bool done;
	int ret;
};

static void step(struct one *o)
{
	switch (ASYNC_start_job(&o->job, o->wait, &o->ret, job, &o->what, sizeof(o->what))) {
	case ASYNC_PAUSE:
		o->pauses++;
		break;
	case ASYNC_FINISH:
		o->done = true;
		break;
	default:
		fail_msg("a job does not start");
	}
}

/* Until one of the jobs' descriptors is ready. */
static void wait_for(struct one *o, size_t n)
{
	struct pollfd fds[JOBS];
	nfds_t k = 0;

	for (size_t i = 0; i < n; i++) {
		OSSL_ASYNC_FD fd;
		size_t count = 1;

		if (o[i].done)
			continue;
		assert_int_equal(ASYNC_WAIT_CTX_get_all_fds(o[i].wait, NULL, &count), 1);
		assert_int_equal(count, 1);
		assert_int_equal(ASYNC_WAIT_CTX_get_all_fds(o[i].wait, &fd, &count), 1);
		fds[k++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	assert_true(poll(fds, k, 20000) > 0);
}

static void start_jobs(struct one *o, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		o[i].wait = ASYNC_WAIT_CTX_new();
		step(&o[i]);
	}
}

/* To their ends; wait: only when a descriptor says that there is something to do. */
static void end_jobs(struct one *o, size_t n, bool wait)
{
	size_t left = n;

	for (size_t i = 0; i < n; i++)
		left -= o[i].done;
	while (left > 0) {
		if (wait)
			wait_for(o, n);
		for (size_t i = 0; i < n; i++) {
			if (o[i].done)
				continue;
			step(&o[i]);
			left -= o[i].done;
		}
	}
	for (size_t i = 0; i < n; i++)
		ASYNC_WAIT_CTX_free(o[i].wait);
}

static void run_jobs(struct one *o, size_t n, bool wait)
{
	start_jobs(o, n);
	end_jobs(o, n, wait);
}

static pid_t broker(void)
{
	const char *s = getenv("CSM_PID");
	long pid = s != NULL ? strtol(s, NULL, 10) : 0;

	assert_true(pid > 1);
	return (pid_t)pid;
}

/* While csmd does nothing at all, each job is begun and paused: none holds the thread up. */
static void test_jobs_are_paused(void **state)
{
	struct one jobs[JOBS] = {
		{.what = SIGN_TPM}, {.what = SIGN_TPM}, {.what = SIGN_RSA}, {.what = SIGN_SOFT}, {.what = SIGN_ED},
		{.what = DECRYPT}, {.what = DERIVE}, {.what = SIGN_NONE},
	};

	(void)state;
	assert_int_equal(ASYNC_init_thread(JOBS, JOBS), 1);
	assert_int_equal(kill(broker(), SIGSTOP), 0);
	start_jobs(jobs, JOBS);
	assert_int_equal(kill(broker(), SIGCONT), 0);
	for (size_t i = 0; i < JOBS; i++)
		assert_true(jobs[i].pauses == 1 && !jobs[i].done);
	end_jobs(jobs, JOBS, true);
	for (size_t i = 0; i < JOBS; i++)
		assert_int_equal(jobs[i].ret, jobs[i].what != SIGN_NONE);
	assert_true(provfix_error(CSM_EUNSUPPORTED, "uid-0:d"));
	/* resumed for no reason, again and again */
	for (size_t i = 0; i < 3; i++) {
		struct one busy[2] = {{.what = SIGN_TPM}, {.what = SIGN_SOFT}};

		run_jobs(busy, 2, false);
		assert_true(busy[0].ret == 1 && busy[1].ret == 1);
	}
	ASYNC_cleanup_thread();
}

/* The connections of jobs are not the child's. */
static void test_jobs_after_fork(void **state)
{
	struct one o = {.what = SIGN_SOFT};
	int status = -1;
	pid_t pid;

	(void)state;
	assert_int_equal(ASYNC_init_thread(JOBS, 1), 1);
	run_jobs(&o, 1, true);
	assert_int_equal(o.ret, 1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct one c = {.what = SIGN_TPM};

		alarm(30);
		run_jobs(&c, 1, true);
		_exit(c.ret == 1 ? 0 : 1);
	}
	for (size_t i = 0; i < 10; i++) {
		o = (struct one){.what = SIGN_SOFT};
		run_jobs(&o, 1, true);
		assert_int_equal(o.ret, 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	ASYNC_cleanup_thread();
}

static size_t open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	if (d == NULL)
		return 0;
	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n;
}

/* A client that goes away in the middle of a handshake: the server frees what the job waits with, and never resumes it. In a
 * child, since OpenSSL itself forgets the stack of such a job. */
static int abandon(void)
{
	size_t before = 0;

	if (ASYNC_init_thread(JOBS, 0) != 1)
		return 1;
	for (size_t i = 0; i < JOBS; i++) {
		struct one o = {.what = SIGN_SOFT, .wait = ASYNC_WAIT_CTX_new()};

		if (i == 1)
			before = open_files();
		if (ASYNC_start_job(&o.job, o.wait, &o.ret, job, &o.what, sizeof(o.what)) != ASYNC_PAUSE)
			return 2;
		ASYNC_WAIT_CTX_free(o.wait);
	}
	return before > 0 && open_files() == before ? 0 : 3;
}

static void test_jobs_given_up(void **state)
{
	int status = -1;
	pid_t pid;

	(void)state;
	assert_int_equal(kill(broker(), SIGSTOP), 0);
	pid = fork();
	if (pid == 0) {
		alarm(30);
		_exit(abandon());
	}
	if (pid > 0)
		(void)waitpid(pid, &status, 0);
	assert_int_equal(kill(broker(), SIGCONT), 0);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_fork_beside_threads),
		cmocka_unit_test(test_jobs_are_paused),
		cmocka_unit_test(test_jobs_after_fork),
		cmocka_unit_test(test_jobs_given_up),
	};

	provfix_main(long_run() ? 3000 : 200);
	return cmocka_run_group_tests(tests, setup, teardown);
}
