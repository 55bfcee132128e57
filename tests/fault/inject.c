#include <dlfcn.h>
#include <event2/event.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "tests/fault/inject.h"

#define EXPORT __attribute__((visibility("default")))

struct fault_page *fault_page;
bool fault_here;

const char *fault_name(enum fault_kind kind)
{
	static const char *const names[] = {
		"none", "malloc", "openssl", "mmap", "write", "sync", "read", "open", "name", "socket", "watch", "thread", "tpm", "clock"};

	return (size_t)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}

void fault_arm(enum fault_kind kind, uint64_t at, uint64_t span)
{
	fault_page->kind = FAULT_NONE;
	fault_page->calls = 0;
	fault_page->fired = 0;
	fault_page->at = at;
	fault_page->span = span;
	fault_page->kind = (int)kind;
}

void fault_disarm(void)
{
	fault_page->kind = FAULT_NONE;
}

/* Is this call one of those that fail? */
static bool fails(enum fault_kind kind)
{
	uint64_t n;

	if (!fault_here || fault_page->kind != (int)kind)
		return false;
	n = atomic_fetch_add(&fault_page->calls, 1) + 1;
	if (n < fault_page->at || n - fault_page->at >= fault_page->span)
		return false;
	atomic_fetch_add(&fault_page->fired, 1);
	return true;
}

/* ---- memory ---- */

/* Libraries that break by themselves when they get no memory are spared; each has its reason.
 * libseccomp 2.5.4 frees a rule twice, in the start, before the filter is there. */
static const char *const spared[] = {"/libseccomp.so"};
static struct range {
	uintptr_t from, to;
} ranges[8];
static size_t n_ranges;

static int note_range(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (size_t s = 0; s < sizeof(spared) / sizeof(spared[0]); s++) {
		if (strstr(info->dlpi_name, spared[s]) == NULL)
			continue;
		for (int i = 0; i < info->dlpi_phnum; i++) {
			const ElfW(Phdr) *p = &info->dlpi_phdr[i];

			if (p->p_type == PT_LOAD && (p->p_flags & PF_X) != 0 && n_ranges < 8)
				ranges[n_ranges++] = (struct range){info->dlpi_addr + p->p_vaddr,
					info->dlpi_addr + p->p_vaddr + p->p_memsz};
		}
	}
	return 0;
}

/* Threads are started by the sanitizer, which cannot do without memory: faults begin where their own function does. */
struct thread_start {
	void *(*fn)(void *);
	void *arg;
};
static _Thread_local bool in_thread, in_openssl;

void fault_thread(void)
{
	in_thread = true;
}

static bool no_memory_for(const void *caller)
{
	if (!in_thread)
		return false;

	for (size_t i = 0; i < n_ranges; i++)
		if ((uintptr_t)caller >= ranges[i].from && (uintptr_t)caller < ranges[i].to)
			return false;
	return fails(in_openssl ? FAULT_OPENSSL : FAULT_MALLOC);
}
void fault_init(void)
{
	void *p = mmap(NULL, sizeof(*fault_page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	fault_page = p;
	dl_iterate_phdr(note_range, NULL);
}

#define MALLOC_FAILS no_memory_for(__builtin_return_address(0))

#if defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *p, size_t n);
void *REAL(memalign)(size_t align, size_t n);

static void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

EXPORT void *malloc(size_t n) { return MALLOC_FAILS ? no_memory() : REAL(malloc)(n); }
EXPORT void *calloc(size_t n, size_t size) { return MALLOC_FAILS ? no_memory() : REAL(calloc)(n, size); }
EXPORT void *realloc(void *p, size_t n) { return MALLOC_FAILS ? no_memory() : REAL(realloc)(p, n); }
EXPORT void *aligned_alloc(size_t align, size_t n)
{
	return MALLOC_FAILS ? no_memory() : REAL(memalign)(align, n);
}
EXPORT int posix_memalign(void **ret, size_t align, size_t n)
{
	void *p = MALLOC_FAILS ? NULL : REAL(memalign)(align, n);

	if (p == NULL)
		return ENOMEM;
	*ret = p;
	return 0;
}
EXPORT char *strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = MALLOC_FAILS ? NULL : REAL(malloc)(n);

	return p == NULL ? NULL : memcpy(p, s, n);
}

/* ---- OpenSSL's share of it ---- */

static CRYPTO_malloc_fn hook_malloc;
static CRYPTO_realloc_fn hook_realloc;

static void *openssl_malloc(size_t n, const char *file, int line)
{
	void *p;

	in_openssl = true;
	p = hook_malloc(n, file, line);
	in_openssl = false;
	return p;
}

static void *openssl_realloc(void *old, size_t n, const char *file, int line)
{
	void *p;

	in_openssl = true;
	p = hook_realloc(old, n, file, line);
	in_openssl = false;
	return p;
}

/* ---- the others by name ---- */

/* Found at the first call; before that, in the loader, nothing is counted. */
#define NEXT(ret, name, ...) \
	static ret (*next)(__VA_ARGS__); \
	if (next == NULL) \
		*(void **)&next = dlsym(RTLD_NEXT, #name)

EXPORT int CRYPTO_set_mem_functions(CRYPTO_malloc_fn m, CRYPTO_realloc_fn r, CRYPTO_free_fn f)
{
	NEXT(int, CRYPTO_set_mem_functions, CRYPTO_malloc_fn, CRYPTO_realloc_fn, CRYPTO_free_fn);
	hook_malloc = m;
	hook_realloc = r;
	return next(openssl_malloc, openssl_realloc, f);
}

static int fail_with(int e)
{
	errno = e;
	return -1;
}

EXPORT void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
	NEXT(void *, mmap, void *, size_t, int, int, int, off_t);
	if ((flags & MAP_ANONYMOUS) != 0 && fails(FAULT_MMAP)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return next(at, n, prot, flags, fd, off);
}
/* ---- files ---- */

static bool is_file(int fd)
{
	struct stat st;

	return fault_here && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && fd != 2;
}

/* In turn: nothing of it with EIO, nothing with ENOSPC, half of it. n becomes the bytes to write; -1: fail. */
static int write_fails(int fd, size_t *n)
{
	static atomic_uint turn;

	if (!is_file(fd) || !fails(FAULT_WRITE))
		return 0;
	switch (turn++ % 3) {
	case 0:
		return fail_with(EIO);
	case 1:
		return fail_with(ENOSPC);
	default:
		*n /= 2;
		return *n == 0 ? fail_with(ENOSPC) : 0;
	}
}

static bool is_tpm(int fd);

EXPORT ssize_t write(int fd, const void *p, size_t n)
{
	NEXT(ssize_t, write, int, const void *, size_t);
	return write_fails(fd, &n) != 0 ? -1 : next(fd, p, n);
}
EXPORT ssize_t pwrite(int fd, const void *p, size_t n, off_t off)
{
	NEXT(ssize_t, pwrite, int, const void *, size_t, off_t);
	return write_fails(fd, &n) != 0 ? -1 : next(fd, p, n, off);
}
EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	size_t all = 0, some;
	NEXT(ssize_t, writev, int, const struct iovec *, int);
	for (int i = 0; i < n; i++)
		all += iov[i].iov_len;
	some = all;
	if (write_fails(fd, &some) != 0)
		return -1;
	/* Half of several is the first one's half. */
	return some == all ? next(fd, iov, n) : write(fd, iov[0].iov_base, iov[0].iov_len / 2);
}

EXPORT int fsync(int fd) { return fd >= 0 && fails(FAULT_SYNC) ? fail_with(EIO) : 0; }
EXPORT int fdatasync(int fd) { return fd >= 0 && fails(FAULT_SYNC) ? fail_with(EIO) : 0; }

EXPORT ssize_t pread(int fd, void *p, size_t n, off_t off)
{
	NEXT(ssize_t, pread, int, void *, size_t, off_t);
	return is_file(fd) && fails(FAULT_READ) ? fail_with(EIO) : next(fd, p, n, off);
}

static int open_any(int dirfd, const char *path, int flags, mode_t mode)
{
	NEXT(int, openat, int, const char *, int, ...);
	return fails(FAULT_OPEN) ? fail_with(EMFILE) : next(dirfd, path, flags, mode);
}
static mode_t mode_of(int flags, va_list ap)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
}
EXPORT int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return open_any(AT_FDCWD, path, flags, mode);
}
EXPORT int openat(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return open_any(dirfd, path, flags, mode);
}
EXPORT int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
	NEXT(int, accept4, int, struct sockaddr *, socklen_t *, int);
	return fails(FAULT_OPEN) ? fail_with(EMFILE) : next(fd, a, n, flags);
}
EXPORT int eventfd(unsigned n, int flags)
{
	NEXT(int, eventfd, unsigned, int);
	return fails(FAULT_OPEN) ? fail_with(EMFILE) : next(n, flags);
}
EXPORT int epoll_create1(int flags)
{
	NEXT(int, epoll_create1, int);
	return fails(FAULT_OPEN) ? fail_with(EMFILE) : next(flags);
}
EXPORT int rename(const char *from, const char *to)
{
	NEXT(int, rename, const char *, const char *);
	return fails(FAULT_NAME) ? fail_with(EIO) : next(from, to);
}
EXPORT int renameat(int fd, const char *from, int tfd, const char *to)
{
	NEXT(int, renameat, int, const char *, int, const char *);
	return fails(FAULT_NAME) ? fail_with(EIO) : next(fd, from, tfd, to);
}
EXPORT int unlink(const char *path)
{
	NEXT(int, unlink, const char *);
	return fails(FAULT_NAME) ? fail_with(EIO) : next(path);
}
EXPORT int unlinkat(int fd, const char *path, int flags)
{
	NEXT(int, unlinkat, int, const char *, int);
	return fails(FAULT_NAME) ? fail_with(EIO) : next(fd, path, flags);
}
EXPORT int mkdir(const char *path, mode_t mode)
{
	NEXT(int, mkdir, const char *, mode_t);
	return fails(FAULT_NAME) ? fail_with(EIO) : next(path, mode);
}
EXPORT int ftruncate(int fd, off_t len)
{
	NEXT(int, ftruncate, int, off_t);
	return fails(FAULT_NAME) ? fail_with(EIO) : next(fd, len);
}

/* ---- sockets and the TPM ---- */

/* A connection to a swtpm's socket. */
static bool is_tpm(int fd)
{
	struct sockaddr_un a = {0};
	socklen_t n = sizeof(a);
	size_t len;

	if (!fault_here || fault_page->kind != FAULT_TPM || getpeername(fd, (struct sockaddr *)&a, &n) != 0 ||
		a.sun_family != AF_UNIX)
		return false;
	len = strnlen(a.sun_path, sizeof(a.sun_path));
	return len > 5 && memcmp(a.sun_path + len - 5, "/sock", 5) == 0;
}

EXPORT ssize_t read(int fd, void *p, size_t n)
{
	NEXT(ssize_t, read, int, void *, size_t);
	if (is_tpm(fd) && fails(FAULT_TPM)) {
		/* The answer is lost: the other end is gone, or the call fails. */
		if (fault_page->calls % 2 == 0)
			return 0;
		return fail_with(EIO);
	}
	return is_file(fd) && fails(FAULT_READ) ? fail_with(EIO) : next(fd, p, n);
}
EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	NEXT(ssize_t, sendmsg, int, const struct msghdr *, int);
	if (is_tpm(fd) && fails(FAULT_TPM))
		return fail_with(EIO);
	return fails(FAULT_SOCKET) ? fail_with(ENOBUFS) : next(fd, m, flags);
}
EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	NEXT(ssize_t, recvmsg, int, struct msghdr *, int);
	return fails(FAULT_SOCKET) ? fail_with(ENOMEM) : next(fd, m, flags);
}
EXPORT ssize_t send(int fd, const void *p, size_t n, int flags)
{
	NEXT(ssize_t, send, int, const void *, size_t, int);
	return fails(FAULT_SOCKET) ? fail_with(ENOBUFS) : next(fd, p, n, flags);
}
EXPORT ssize_t recv(int fd, void *p, size_t n, int flags)
{
	NEXT(ssize_t, recv, int, void *, size_t, int);
	return fails(FAULT_SOCKET) ? fail_with(ECONNRESET) : next(fd, p, n, flags);
}
EXPORT int epoll_ctl(int ep, int op, int fd, struct epoll_event *e)
{
	NEXT(int, epoll_ctl, int, int, int, struct epoll_event *);
	return op != EPOLL_CTL_DEL && fails(FAULT_WATCH) ? fail_with(ENOMEM) : next(ep, op, fd, e);
}

/* ---- threads and time ---- */

static void *run_thread(void *arg)
{
	struct thread_start start = *(struct thread_start *)arg;

	free(arg);
	in_thread = true;
	return start.fn(start.arg);
}

EXPORT int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	struct thread_start *start;
	int rc;
	NEXT(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	if (fails(FAULT_THREAD) || (start = REAL(malloc)(sizeof(*start))) == NULL)
		return EAGAIN;
	*start = (struct thread_start){fn, arg};
	rc = next(t, attr, run_thread, start);
	if (rc != 0)
		free(start);
	return rc;
}

/* The jump is made by the call that fails, and stays. */
static bool jumped(void)
{
	if (!fault_here || fault_page->kind != FAULT_CLOCK)
		return false;
	fails(FAULT_CLOCK);
	return fault_page->calls >= fault_page->at;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *t)
{
	int r;
	NEXT(int, clock_gettime, clockid_t, struct timespec *);
	r = next(clock, t);
	if (r == 0 && jumped())
		t->tv_sec += clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? fault_page->jump_real_s :
											 fault_page->jump_mono_s;
	return r;
}
/* The kernel waits by its own clock; all of csm's conditions are of the monotonic one. */
EXPORT int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until)
{
	struct timespec t = *until;
	NEXT(int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
	if (fault_here && fault_page->kind == FAULT_CLOCK && fault_page->calls >= fault_page->at)
		t.tv_sec -= fault_page->jump_mono_s;
	return next(cond, lock, &t);
}
EXPORT time_t time(time_t *ret)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (ret != NULL)
		*ret = t.tv_sec;
	return t.tv_sec;
}
EXPORT int gettimeofday(struct timeval *ret, void *zone)
{
	struct timespec t;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &t);
	*ret = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
	return 0;
}

/* ---- what the broker does once a second (it opens a store again, accepts again) it does here twenty times: nothing rests on
 * how long that takes, and a fault of each call is waited out ---- */

#define SECOND_US 50000

EXPORT int event_add(struct event *ev, const struct timeval *after)
{
	const struct timeval soon = {.tv_usec = SECOND_US};
	NEXT(int, event_add, struct event *, const struct timeval *);

	return next(ev, fault_here && after != NULL && after->tv_sec == 1 && after->tv_usec == 0 ? &soon : after);
}

EXPORT int timerfd_settime(int fd, int flags, const struct itimerspec *t, struct itimerspec *old)
{
	const struct timespec soon = {.tv_nsec = SECOND_US * 1000};
	const struct itimerspec both = {soon, soon};
	NEXT(int, timerfd_settime, int, int, const struct itimerspec *, struct itimerspec *);

	return next(fd, flags, fault_here && t->it_interval.tv_sec == 1 ? &both : t, old);
}
