/* C_Initialize, C_Finalize, fork. */
#include <string.h>
#include <time.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include "libclient/p11/p11.h"

enum state { STATE_OFF, STATE_ON };

struct lib lib;
static _Atomic int state = STATE_OFF;
static _Atomic unsigned users; /* threads inside a function of the standard */
static _Atomic bool ending;
static _Atomic bool forked; /* this process is a child that has not called C_Initialize itself */
static bool watching; /* under life */
static __thread bool fork_locked;
/* C_Initialize and C_Finalize, one at a time, and no fork meanwhile: a child finds the library whole, or not begun. */
static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;
static __thread unsigned ossl_depth;
static pthread_rwlock_t ossl_lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

static void nap(void)
{
	const struct timespec t = {.tv_nsec = 1000000};

	(void)nanosleep(&t, NULL);
}

CK_RV p11_enter(void)
{
	atomic_fetch_add(&users, 1);
	if (atomic_load(&state) == STATE_ON)
		return CKR_OK;
	atomic_fetch_sub(&users, 1);
	return CKR_CRYPTOKI_NOT_INITIALIZED;
}

void p11_leave(void)
{
	atomic_fetch_sub(&users, 1);
}

bool p11_ending(void)
{
	return atomic_load(&ending);
}

void ossl_in(void)
{
	if (ossl_depth++ == 0) {
		(void)pthread_rwlock_rdlock(&ossl_lock);
		/* what goes wrong here is not the application's to find in its queue of errors */
		(void)ERR_set_mark();
	}
}

void ossl_out(void)
{
	if (--ossl_depth == 0) {
		(void)ERR_pop_to_mark();
		(void)pthread_rwlock_unlock(&ossl_lock);
	}
}

OSSL_LIB_CTX *p11_ossl(void)
{
	OSSL_LIB_CTX *ctx = atomic_load(&lib.ossl), *none = NULL;

	if (ctx != NULL)
		return ctx;
	ossl_in();
	ctx = OSSL_LIB_CTX_new();
	if (ctx != NULL && !atomic_compare_exchange_strong(&lib.ossl, &none, ctx)) {
		OSSL_LIB_CTX_free(ctx);
		ctx = none;
	}
	ossl_out();
	return ctx;
}

/* ---- fork: a child goes on with the sessions it has copies of; its requests go over connections of its own ---- */

static void before_fork(void)
{
	(void)pthread_mutex_lock(&life);
	if (p11_enter() != CKR_OK)
		return;
	lock_take(&lib.table);
	(void)pthread_rwlock_wrlock(&ossl_lock);
	fork_locked = true;
}

static void after_fork_parent(void)
{
	if (fork_locked) {
		fork_locked = false;
		(void)pthread_rwlock_unlock(&ossl_lock);
		lock_give(&lib.table);
		p11_leave();
	}
	(void)pthread_mutex_unlock(&life);
}

static void after_fork_child(void)
{
	pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	/* the threads that were inside, or waiting to begin or end the library, are not here */
	(void)pthread_mutex_unlock(&life);
	life = fresh;
	atomic_store(&users, 0);
	if (!fork_locked)
		return;
	fork_locked = false;
	/* those who wait for it in the parent are counted in it: anew */
	(void)pthread_rwlock_unlock(&ossl_lock);
	ossl_lock = (pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
	lock_give(&lib.table);
	atomic_store(&forked, true);
	sessions_after_fork();
}

/* ---- life ---- */

static CK_RV read_args(const CK_C_INITIALIZE_ARGS *a, CK_C_INITIALIZE_ARGS *ret)
{
	bool all, none;

	*ret = (CK_C_INITIALIZE_ARGS){0};
	if (a == NULL)
		return CKR_OK;
	all = a->CreateMutex != NULL && a->DestroyMutex != NULL && a->LockMutex != NULL && a->UnlockMutex != NULL;
	none = a->CreateMutex == NULL && a->DestroyMutex == NULL && a->LockMutex == NULL && a->UnlockMutex == NULL;
	if (a->pReserved != NULL || (!all && !none))
		return CKR_ARGUMENTS_BAD;
	/* with both allowed, the system's */
	if (all && (a->flags & CKF_OS_LOCKING_OK) == 0)
		*ret = *a;
	return CKR_OK;
}

/* What C_Finalize takes down. After OpenSSL's own end (a C_Finalize from an exit handler) its objects are gone. */
static void take_down(void)
{
	OSSL_LIB_CTX *ctx = atomic_exchange(&lib.ossl, NULL);
	bool openssl = OPENSSL_init_crypto(0, NULL) == 1;

	if (openssl) {
		sessions_free();
		objects_free();
		slots_free();
		OSSL_LIB_CTX_free(ctx);
	}
	csm_free(lib.csm);
	lib.csm = NULL;
	lock_free(&lib.table);
}

static CK_RV bring_up(void)
{
	CK_RV rv = CKR_HOST_MEMORY;

	if (csm_new(&lib.csm) != 0)
		return CKR_HOST_MEMORY;
	if (lock_init(&lib.table) != CKR_OK) {
		csm_free(lib.csm);
		lib.csm = NULL;
		return CKR_CANT_LOCK;
	}
	if ((rv = slots_init()) != CKR_OK || (rv = objects_init()) != CKR_OK || (rv = sessions_init()) != CKR_OK)
		take_down();
	return rv;
}

/* Close the door, and wait until nobody is inside. */
static void drain(void)
{
	atomic_store(&ending, true);
	while (atomic_load(&users) != 0)
		nap();
	atomic_store(&ending, false);
}

static CK_RV begin(const CK_C_INITIALIZE_ARGS *args)
{
	CK_RV rv;

	if (atomic_load(&state) == STATE_ON) {
		/* a child of fork may begin anew, once */
		if (!atomic_exchange(&forked, false))
			return CKR_CRYPTOKI_ALREADY_INITIALIZED;
		atomic_store(&state, STATE_OFF);
		drain();
		take_down();
	}
	if (!watching) {
		watching = true;
		(void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
	}
	lib.args = *args;
	rv = bring_up();
	if (rv == CKR_OK)
		atomic_store(&state, STATE_ON);
	return rv;
}

CK_RV C_Initialize(CK_VOID_PTR p)
{
	CK_C_INITIALIZE_ARGS args;
	CK_RV rv = read_args(p, &args);

	if (rv != CKR_OK)
		return rv;
	(void)pthread_mutex_lock(&life);
	rv = begin(&args);
	(void)pthread_mutex_unlock(&life);
	return rv;
}

CK_RV C_Finalize(CK_VOID_PTR reserved)
{
	CK_RV rv = CKR_CRYPTOKI_NOT_INITIALIZED;
	int on = STATE_ON;

	if (reserved != NULL)
		return CKR_ARGUMENTS_BAD;
	(void)pthread_mutex_lock(&life);
	if (atomic_compare_exchange_strong(&state, &on, STATE_OFF)) {
		drain();
		take_down();
		atomic_store(&forked, false);
		rv = CKR_OK;
	}
	(void)pthread_mutex_unlock(&life);
	return rv;
}

CK_RV C_GetInfo(CK_INFO_PTR info)
{
	CK_RV rv = p11_enter();
	const char *v = csm_version();

	if (rv != CKR_OK)
		return rv;
	p11_leave();
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	memset(info, 0, sizeof(*info));
	info->cryptokiVersion = (CK_VERSION){3, 0};
	p11_pad(info->manufacturerID, sizeof(info->manufacturerID), "csm");
	p11_pad(info->libraryDescription, sizeof(info->libraryDescription), "keys of the node's csmd");
	info->libraryVersion = (CK_VERSION){(CK_BYTE)(v[0] - '0'), v[1] == '.' ? (CK_BYTE)(v[2] - '0') : 0};
	return CKR_OK;
}
