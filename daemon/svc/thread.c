#include <signal.h>
#include <unistd.h>
#include "daemon/svc/thread.h"
#include "libclient/base/lockmem.h"

int csm_thread_start(pthread_t *ret, void *(*run)(void *arg), void *arg)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
		return CSM_ESYSTEM;
	rc = pthread_create(ret, NULL, run, arg);
	if (pthread_sigmask(SIG_SETMASK, &before, NULL) != 0 || rc != 0)
		return CSM_ESYSTEM;
	return 0;
}

struct shelter {
	void (*fn)(void *arg);
	void *arg;
};

static void *shelter_main(void *arg)
{
	const struct shelter *s = arg;

	csm_lock_stack();
	s->fn(s->arg);
	return NULL;
}

int csm_thread_sheltered(void (*fn)(void *arg), void *arg)
{
	struct shelter s = {fn, arg};
	pthread_t thread;
	int r;

	if (gettid() != getpid()) {
		fn(arg);
		return 0;
	}
	if ((r = csm_thread_start(&thread, shelter_main, &s)) != 0)
		return r;
	pthread_join(thread, NULL);
	return 0;
}
