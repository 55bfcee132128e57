#include "libclient/p11/p11.h"

CK_RV lock_init(struct lock *l)
{
	l->app = NULL;
	if (lib.args.CreateMutex != NULL)
		return lib.args.CreateMutex(&l->app);
	return pthread_mutex_init(&l->os, NULL) == 0 ? CKR_OK : CKR_HOST_MEMORY;
}

void lock_free(struct lock *l)
{
	if (lib.args.CreateMutex != NULL)
		(void)lib.args.DestroyMutex(l->app);
	else
		(void)pthread_mutex_destroy(&l->os);
}

void lock_take(struct lock *l)
{
	if (lib.args.CreateMutex != NULL)
		(void)lib.args.LockMutex(l->app);
	else
		(void)pthread_mutex_lock(&l->os);
}

void lock_give(struct lock *l)
{
	if (lib.args.CreateMutex != NULL)
		(void)lib.args.UnlockMutex(l->app);
	else
		(void)pthread_mutex_unlock(&l->os);
}

void lock_renew(struct lock *l)
{
	/* the old one may be held by a thread that is not in this process: it is left as it is */
	if (lib.args.CreateMutex != NULL)
		(void)lib.args.CreateMutex(&l->app);
	else
		(void)pthread_mutex_init(&l->os, NULL);
}
