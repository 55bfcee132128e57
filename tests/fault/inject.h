/* Faults at the n-th call. Linked into a program, the calls below are its own, and its libraries' too: they count, fail
 * when told to, and else go on to the real ones. */
#ifndef TESTS_FAULT_INJECT_H
#define TESTS_FAULT_INJECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum fault_kind {
	FAULT_NONE,
	FAULT_MALLOC,  /* malloc, calloc, realloc, posix_memalign, aligned_alloc, strdup, but OpenSSL's: NULL */
	FAULT_OPENSSL, /* what OpenSSL asks its hooks for: NULL */
	FAULT_MMAP,    /* mmap of memory: ENOMEM. Not mprotect, whose failure libsodium passes over */
	FAULT_WRITE,   /* of regular files: EIO, ENOSPC or half of it, in turn */
	FAULT_SYNC,    /* fsync, fdatasync: EIO */
	FAULT_READ,    /* of regular files: EIO */
	FAULT_OPEN,    /* what makes a descriptor: EMFILE */
	FAULT_NAME,    /* rename, unlink, mkdir, ftruncate: EIO */
	FAULT_SOCKET,  /* what is sent and received: ENOBUFS, ECONNRESET */
	FAULT_WATCH,   /* epoll_ctl: ENOMEM */
	FAULT_THREAD,  /* pthread_create: EAGAIN */
	FAULT_TPM,     /* what is sent to the TPM and received from it: EIO, or nothing more */
	FAULT_CLOCK,   /* from there on the time is another */
	FAULT_KINDS
};

/* Shared with the forked process in which the faults happen. */
struct fault_page {
	_Atomic int kind;
	_Atomic uint64_t at;    /* the first call that fails, from 1; UINT64_MAX: only count */
	_Atomic uint64_t span;  /* so many fail */
	_Atomic uint64_t calls; /* of this kind since it was armed */
	_Atomic uint64_t fired;
	_Atomic int64_t jump_real_s, jump_mono_s; /* FAULT_CLOCK */
};
extern struct fault_page *fault_page;
extern bool fault_here; /* set in the process in which calls fail */

/* In the forked process's first thread: calls may fail in it. */
void fault_thread(void);

const char *fault_name(enum fault_kind kind);
/* Make the page; abort without memory. */
void fault_init(void);
void fault_arm(enum fault_kind kind, uint64_t at, uint64_t span);
/* From now on no call fails, and the time is the true one. */
void fault_disarm(void);

#endif
