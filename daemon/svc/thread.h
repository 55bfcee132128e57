/* Threads of the daemon. Any thread. */
#ifndef CSM_SVC_THREAD_H
#define CSM_SVC_THREAD_H

#include <pthread.h>
#include "libclient/base/err.h"

/* A thread that gets no signals: these are for the first one. CSM_ESYSTEM. */
CSM_MUST int csm_thread_start(pthread_t *ret, void *(*run)(void *arg), void *arg);
/* Calls fn on a stack that is locked, and waits: on the first thread, whose stack is not, by a thread of its own. fn wipes
 * what it leaves. CSM_ESYSTEM: it was not called. */
CSM_MUST int csm_thread_sheltered(void (*fn)(void *arg), void *arg);

#endif
