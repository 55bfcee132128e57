/* A preload that knows what a power cut could take away. It is loaded into the broker of a private node, or into csm-server;
 * for every file below one folder it keeps, in a log, what each write replaced and which syncs came back. After the cut
 * (tests/lib/powercut.py) whatever was not synced can be taken back, in part, in any order, down to single sectors.
 *
 * Environment: CSM_POWERCUT_DIR   the folder; absolute
 *              CSM_POWERCUT_LOG   the log, made here when it is not there
 *              CSM_POWERCUT_AT    cut the power at the n-th operation (0 or unset: not by itself)
 *              CSM_POWERCUT_DEAF  "all", "sync" or "dsync": such syncs change nothing, for tests of the test
 *              CSM_POWERCUT_EIO   each n-th sync of a file in a folder `audit` fails; what was not synced of it is forgotten
 *                                 at once, as the kernel may do
 *              CSM_POWERCUT_WHO   the first argument of the process that it is for; "--broker" unless given
 *
 * In a log that ends with a cut no broker starts any more: whoever starts brokers may go on trying. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define LOG_BYTES (1ull << 30) /* sparse */
#define FILES_MAX 32
#define FDS_MAX 1024
#define MAGIC UINT64_C(0x747563726577706f)

struct head {
	uint64_t magic;
	_Atomic uint64_t used; /* bytes of records behind the head */
	_Atomic uint64_t ops, cut_at; /* cut_at may be changed from outside */
	uint32_t cut, full;
	uint32_t pid, unused;
};

enum type { T_FILE = 1, T_WRITE, T_TRUNC, T_SYNC, T_DIRSYNC, T_RENAME, T_UNLINK, T_MKDIR };
enum { STARTED, DONE, DURABLE };

struct rec {
	uint32_t type, state;
	uint64_t ino, off, len, old_size, payload; /* payload: bytes that follow, padded to 8 */
};

static struct {
	pthread_mutex_t lock;
	struct head *head; /* NULL: not in a broker */
	uint8_t *at;
	char dir[PATH_MAX];
	bool deaf_sync, deaf_dsync;
	unsigned long eio, syncs; /* eio 0: none fails */
	struct file {
		ino_t ino;
		int fd; /* ours, for reading */
		char path[PATH_MAX];
		bool dir;
		uint64_t synced; /* the log's bytes when it was synced last */
	} files[FILES_MAX];
	size_t n_files;
	struct {
		struct file *file;
		bool dsync;
	} fds[FDS_MAX];
} pc = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define REAL(ret, name, ...) \
	static ret (*real_##name)(__VA_ARGS__); \
	static void find_##name(void) { *(void **)&real_##name = dlsym(RTLD_NEXT, #name); }
REAL(int, open, const char *, int, ...)
REAL(int, openat, int, const char *, int, ...)
REAL(int, close, int)
REAL(int, closedir, DIR *)
REAL(int, fcntl, int, int, ...)
REAL(ssize_t, write, int, const void *, size_t)
REAL(ssize_t, writev, int, const struct iovec *, int)
REAL(ssize_t, pwrite, int, const void *, size_t, off_t)
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t)
REAL(int, ftruncate, int, off_t)
REAL(int, fsync, int)
REAL(int, fdatasync, int)
REAL(int, rename, const char *, const char *)
REAL(int, renameat, int, const char *, int, const char *)
REAL(int, unlink, const char *)
REAL(int, unlinkat, int, const char *, int)
REAL(int, mkdir, const char *, mode_t)
REAL(int, mkdirat, int, const char *, mode_t)

static void die(const char *what)
{
	dprintf(2, "powercut: %s: %s\n", what, strerror(errno));
	abort();
}

/* ---- the log; all of this under the lock ---- */

static struct rec *append(enum type type, uint64_t ino, size_t payload)
{
	uint64_t used = pc.head->used, need = sizeof(struct rec) + ((payload + 7) & ~(uint64_t)7);
	struct rec *r = (struct rec *)(void *)(pc.at + used);

	if (sizeof(struct head) + used + need > LOG_BYTES) {
		pc.head->full = 1;
		die("the log is full");
	}
	*r = (struct rec){.type = type, .ino = ino, .payload = payload};
	pc.head->used = used + need;
	return r;
}

/* Whether it reached the disk before the power went is for the replay to say. */
static void maybe_cut(void)
{
	uint64_t ops = ++pc.head->ops, cut_at = pc.head->cut_at;

	/* It may have been set while operations went on. */
	if (cut_at == 0 || ops < cut_at)
		return;
	pc.head->cut = 1;
	__builtin_trap();
}

static void append_text(enum type type, const char *a, const char *b, int content_fd)
{
	size_t na = strlen(a) + 1, nb = b == NULL ? 0 : strlen(b) + 1, n = 0;
	struct stat st;
	struct rec *r;
	uint8_t *p;

	if (content_fd >= 0 && fstat(content_fd, &st) == 0 && S_ISREG(st.st_mode))
		n = (size_t)st.st_size;
	r = append(type, 0, na + nb + n);
	p = (uint8_t *)(r + 1);
	memcpy(p, a, na);
	if (b != NULL)
		memcpy(p + na, b, nb);
	r->off = content_fd >= 0; /* there was a file in the way */
	r->len = n;
	if (n > 0 && pread(content_fd, p + na + nb, n, 0) != (ssize_t)n)
		die("read what is replaced");
	r->state = DONE;
	maybe_cut();
}

/* ---- which files ---- */

static bool absolute(int dirfd, const char *path, char out[static PATH_MAX])
{
	char link[64], base[PATH_MAX];
	ssize_t n;

	if (path[0] == '/')
		return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
	snprintf(link, sizeof(link), dirfd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dirfd);
	n = readlink(link, base, sizeof(base) - 1);
	if (n < 0)
		return false;
	base[n] = '\0';
	return snprintf(out, PATH_MAX, "%s/%s", base, path) < PATH_MAX;
}

static bool below(const char *path)
{
	size_t n = strlen(pc.dir), len = strlen(path);

	/* Locks are gone with the processes that held them. */
	if (len > 5 && (strcmp(path + len - 5, ".lock") == 0 || (len > 9 && strcmp(path + len - 9, "/lock.mdb") == 0)))
		return false;
	return strncmp(path, pc.dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool watched(int dirfd, const char *path, char out[static PATH_MAX])
{
	return pc.head != NULL && absolute(dirfd, path, out) && below(out);
}

static struct file *file_of(int fd, const char *path)
{
	struct file *f = NULL;
	struct stat st;
	int own;

	if (fstat(fd, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
		return NULL;
	for (size_t i = 0; i < pc.n_files && f == NULL; i++)
		if (pc.files[i].ino == st.st_ino && pc.files[i].dir == S_ISDIR(st.st_mode))
			f = &pc.files[i];
	if (f == NULL) {
		if (pc.n_files == FILES_MAX)
			die("too many files");
		f = &pc.files[pc.n_files++];
		*f = (struct file){.ino = st.st_ino, .fd = -1, .dir = S_ISDIR(st.st_mode)};
		own = f->dir ? -1 : real_open(path, O_RDONLY | O_CLOEXEC);
		if (own >= 0) {
			f->fd = real_fcntl(own, F_DUPFD_CLOEXEC, 700); /* out of the way of the broker's own */
			real_close(own);
		}
	}
	snprintf(f->path, sizeof(f->path), "%s", path);
	return f;
}

static void opened(int fd, const char *path, int flags, bool existed)
{
	struct file *f;
	struct rec *r;

	if (fd < 0 || fd >= FDS_MAX)
		return;
	pthread_mutex_lock(&pc.lock);
	f = file_of(fd, path);
	pc.fds[fd].file = f;
	pc.fds[fd].dsync = (flags & O_DSYNC) != 0;
	if (f != NULL && !f->dir) {
		r = append(T_FILE, f->ino, strlen(path) + 1);
		memcpy(r + 1, path, strlen(path) + 1);
		r->off = !existed;
		r->state = DONE;
		if (!existed)
			maybe_cut();
	}
	pthread_mutex_unlock(&pc.lock);
}

static struct file *file_at(int fd)
{
	return pc.head == NULL || fd < 0 || fd >= FDS_MAX ? NULL : pc.fds[fd].file;
}

/* ---- writes ---- */

/* Under the lock: what stands there now is kept. */
static struct rec *write_record(int fd, const struct file *f, off_t off, size_t n)
{
	struct stat st;
	struct rec *r;
	size_t old;

	if (f->fd < 0 || fstat(f->fd, &st) != 0)
		die(f->path);
	if (off < 0) {
		int flags = fcntl(fd, F_GETFL);

		off = (flags & O_APPEND) != 0 ? st.st_size : lseek(fd, 0, SEEK_CUR);
	}
	old = off >= st.st_size ? 0 : st.st_size - off < (off_t)n ? (size_t)(st.st_size - off) : n;
	r = append(T_WRITE, f->ino, old);
	r->off = (uint64_t)off;
	r->len = n;
	r->old_size = (uint64_t)st.st_size;
	if (pread(f->fd, r + 1, old, off) != (ssize_t)old)
		die("read what is overwritten");
	return r;
}

/* A write is begun. Takes the lock, write_end gives it back. */
static struct rec *write_begin(int fd, const struct file *f, off_t off, size_t n)
{
	pthread_mutex_lock(&pc.lock);
	return write_record(fd, f, off, n);
}

static void write_end(int fd, struct rec *r, ssize_t done)
{
	int e = errno;

	maybe_cut();
	if (done < 0)
		r->len = 0;
	else
		r->len = (uint64_t)done;
	r->state = pc.fds[fd].dsync && !pc.deaf_dsync ? DURABLE : DONE;
	pthread_mutex_unlock(&pc.lock);
	errno = e;
}

static size_t iov_bytes(const struct iovec *iov, int n)
{
	size_t all = 0;

	for (int i = 0; i < n; i++)
		all += iov[i].iov_len;
	return all;
}

EXPORT ssize_t write(int fd, const void *p, size_t n)
{
	struct file *f = file_at(fd);
	struct rec *r;
	ssize_t done;

	if (f == NULL)
		return real_write(fd, p, n);
	r = write_begin(fd, f, -1, n);
	done = real_write(fd, p, n);
	write_end(fd, r, done);
	return done;
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	struct file *f = file_at(fd);
	struct rec *r;
	ssize_t done;

	if (f == NULL)
		return real_writev(fd, iov, n);
	r = write_begin(fd, f, -1, iov_bytes(iov, n));
	done = real_writev(fd, iov, n);
	write_end(fd, r, done);
	return done;
}

EXPORT ssize_t pwrite(int fd, const void *p, size_t n, off_t off)
{
	struct file *f = file_at(fd);
	struct rec *r;
	ssize_t done;

	if (f == NULL)
		return real_pwrite(fd, p, n, off);
	r = write_begin(fd, f, off, n);
	done = real_pwrite(fd, p, n, off);
	write_end(fd, r, done);
	return done;
}

EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	struct file *f = file_at(fd);
	struct rec *r;
	ssize_t done;

	if (f == NULL)
		return real_pwritev(fd, iov, n, off);
	r = write_begin(fd, f, off, iov_bytes(iov, n));
	done = real_pwritev(fd, iov, n, off);
	write_end(fd, r, done);
	return done;
}

EXPORT int ftruncate(int fd, off_t len)
{
	struct file *f = file_at(fd);
	struct rec *r;
	int rc, e;

	if (f == NULL)
		return real_ftruncate(fd, len);
	/* What lies behind the new end is as good as overwritten. */
	r = write_begin(fd, f, len, (size_t)1 << 40);
	r->type = T_TRUNC;
	rc = real_ftruncate(fd, len);
	e = errno;
	maybe_cut();
	r->state = rc == 0 ? DONE : STARTED;
	pthread_mutex_unlock(&pc.lock);
	errno = e;
	return rc;
}

/* ---- syncs ---- */

/* One write: what stood there before comes back, or zeros. That is a write by itself, which a power cut may undo. */
static void forget_write(int fd, const struct file *f, const struct rec *w)
{
	size_t n = (size_t)w->len, old = (size_t)w->payload < n ? (size_t)w->payload : n;
	uint8_t *was = calloc(1, n);
	struct rec *r;

	if (was == NULL)
		die("forget");
	memcpy(was, w + 1, old);
	r = write_record(fd, f, (off_t)w->off, n);
	if (real_pwrite(fd, was, n, (off_t)w->off) != (ssize_t)n)
		die("forget");
	r->state = DONE;
	free(was);
}

/* Under the lock. */
static void forget_unsynced(int of, const struct file *f)
{
	uint64_t end = pc.head->used;
	const struct rec *writes[4096];
	char link[64];
	size_t n = 0;
	int fd;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", of);
	fd = real_open(link, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("open for forgetting");
	for (uint64_t at = f->synced; at < end;) {
		const struct rec *r = (const struct rec *)(const void *)(pc.at + at);

		at += sizeof(*r) + ((r->payload + 7) & ~(uint64_t)7);
		if (r->type != T_WRITE || r->ino != f->ino || r->len == 0)
			continue;
		if (n == sizeof(writes) / sizeof(writes[0]))
			die("too many writes to forget");
		writes[n++] = r;
	}
	while (n-- > 0)
		forget_write(fd, f, writes[n]);
	real_close(fd);
}

static int sync_with(int fd, int (*real)(int))
{
	struct file *f = file_at(fd);
	struct rec *r;
	uint64_t used;
	int rc, e;

	if (f == NULL)
		return real(fd);
	pthread_mutex_lock(&pc.lock);
	maybe_cut();
	if (pc.eio > 0 && !f->dir && strstr(f->path, "/audit/") != NULL && ++pc.syncs % pc.eio == 0) {
		forget_unsynced(fd, f);
		pthread_mutex_unlock(&pc.lock);
		errno = EIO;
		return -1;
	}
	used = pc.head->used;
	r = append(f->dir ? T_DIRSYNC : T_SYNC, f->ino, strlen(f->path) + 1);
	memcpy(r + 1, f->path, strlen(f->path) + 1);
	pthread_mutex_unlock(&pc.lock);
	rc = real(fd);
	e = errno;
	if (rc == 0 && !pc.deaf_sync) {
		r->state = DONE;
		f->synced = used;
	}
	errno = e;
	return rc;
}

EXPORT int fsync(int fd) { return sync_with(fd, real_fsync); }
EXPORT int fdatasync(int fd) { return sync_with(fd, real_fdatasync); }

/* ---- names ---- */

static int open_any(int dirfd, const char *path, int flags, mode_t mode)
{
	char full[PATH_MAX];
	bool watch = watched(dirfd, path, full), existed;
	int fd;

	if (!watch)
		return real_openat(dirfd, path, flags, mode);
	existed = access(full, F_OK) == 0;
	fd = real_openat(dirfd, path, flags, mode);
	if ((flags & O_TRUNC) != 0 && existed)
		die("O_TRUNC is not known here");
	opened(fd, full, flags, existed || (flags & O_CREAT) == 0);
	return fd;
}

static mode_t mode_of(int flags, va_list ap)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
}

/* The arguments of each before the path, and the folder that they name. */
#define OPEN(name, at, ...) \
	EXPORT int name(__VA_ARGS__ const char *path, int flags, ...); \
	EXPORT int name(__VA_ARGS__ const char *path, int flags, ...) \
	{ \
		va_list ap; \
		mode_t mode; \
		va_start(ap, flags); \
		mode = mode_of(flags, ap); \
		va_end(ap); \
		return open_any(at, path, flags, mode); \
	}
#define FOLDER int dirfd,
OPEN(open, AT_FDCWD, )
OPEN(open64, AT_FDCWD, )
OPEN(openat, dirfd, FOLDER)
OPEN(openat64, dirfd, FOLDER)
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int dirfd, const char *path, int flags);
EXPORT int __openat_2(int dirfd, const char *path, int flags) { return open_any(dirfd, path, flags, 0); }
EXPORT ssize_t pwrite64(int fd, const void *p, size_t n, off_t off) { return pwrite(fd, p, n, off); }
EXPORT ssize_t pwritev64(int fd, const struct iovec *iov, int n, off_t off) { return pwritev(fd, iov, n, off); }
EXPORT int ftruncate64(int fd, off_t len) { return ftruncate(fd, len); }

EXPORT int close(int fd)
{
	if (file_at(fd) != NULL)
		pc.fds[fd].file = NULL;
	return real_close(fd);
}

EXPORT int closedir(DIR *d)
{
	int fd = dirfd(d);

	if (file_at(fd) != NULL)
		pc.fds[fd].file = NULL;
	return real_closedir(d);
}

/* A copy of a descriptor is one of the same file. */
EXPORT int fcntl(int fd, int what, ...)
{
	va_list ap;
	void *arg;
	int rc;

	va_start(ap, what);
	arg = va_arg(ap, void *);
	va_end(ap);
	rc = real_fcntl(fd, what, arg);
	if ((what == F_DUPFD || what == F_DUPFD_CLOEXEC) && file_at(fd) != NULL && rc >= 0 && rc < FDS_MAX)
		pc.fds[rc] = pc.fds[fd];
	return rc;
}

EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	char a[PATH_MAX], b[PATH_MAX];
	int rc, was;

	if (!watched(from_dir, from, a) || !watched(to_dir, to, b))
		return real_renameat(from_dir, from, to_dir, to);
	pthread_mutex_lock(&pc.lock);
	was = real_open(b, O_RDONLY | O_CLOEXEC);
	rc = real_renameat(from_dir, from, to_dir, to);
	if (rc == 0)
		append_text(T_RENAME, a, b, was);
	pthread_mutex_unlock(&pc.lock);
	if (was >= 0)
		real_close(was);
	return rc;
}
EXPORT int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
EXPORT int renameat2(int fd, const char *from, int tfd, const char *to, unsigned flags)
{
	if (flags != 0 && pc.head != NULL)
		die("renameat2 with flags is not known here");
	return renameat(fd, from, tfd, to);
}

EXPORT int unlinkat(int dirfd, const char *path, int flags)
{
	char full[PATH_MAX];
	int rc, was;

	if (flags != 0 || !watched(dirfd, path, full))
		return real_unlinkat(dirfd, path, flags);
	pthread_mutex_lock(&pc.lock);
	was = real_open(full, O_RDONLY | O_CLOEXEC);
	rc = real_unlinkat(dirfd, path, flags);
	if (rc == 0)
		append_text(T_UNLINK, full, NULL, was);
	pthread_mutex_unlock(&pc.lock);
	if (was >= 0)
		real_close(was);
	return rc;
}
EXPORT int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

EXPORT int mkdirat(int dirfd, const char *path, mode_t mode)
{
	char full[PATH_MAX];
	int rc = real_mkdirat(dirfd, path, mode);

	if (rc == 0 && watched(dirfd, path, full)) {
		pthread_mutex_lock(&pc.lock);
		append_text(T_MKDIR, full, NULL, -1);
		pthread_mutex_unlock(&pc.lock);
	}
	return rc;
}
EXPORT int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ---- start ---- */

static bool in_broker(void)
{
	const char *who = getenv("CSM_POWERCUT_WHO");
	char line[256];
	int fd = real_open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

	if (fd >= 0)
		real_close(fd);
	if (n <= 0)
		return false;
	line[n] = '\0';
	return (size_t)n > strlen(line) + 1 && strcmp(line + strlen(line) + 1, who == NULL ? "--broker" : who) == 0;
}

static void open_log(const char *path)
{
	int fd = real_open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	void *p;

	if (fd < 0 || real_ftruncate(fd, (off_t)LOG_BYTES) != 0)
		die(path);
	p = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die(path);
	real_close(fd);
	if (((struct head *)p)->cut != 0)
		_exit(9);
	pc.at = (uint8_t *)p + sizeof(struct head);
	pc.head = p;
	pc.head->magic = MAGIC;
	pc.head->pid = (uint32_t)getpid();
}

__attribute__((constructor)) static void start(void)
{
	static void (*const find[])(void) = {find_open, find_openat, find_close, find_closedir, find_fcntl, find_write, find_writev, find_pwrite,
		find_pwritev, find_ftruncate, find_fsync, find_fdatasync, find_rename, find_renameat, find_unlink,
		find_unlinkat, find_mkdir, find_mkdirat};
	const char *dir = getenv("CSM_POWERCUT_DIR"), *log = getenv("CSM_POWERCUT_LOG"), *at = getenv("CSM_POWERCUT_AT");
	const char *deaf = getenv("CSM_POWERCUT_DEAF"), *eio = getenv("CSM_POWERCUT_EIO");

	for (size_t i = 0; i < sizeof(find) / sizeof(find[0]); i++)
		find[i]();
	if (dir == NULL || log == NULL || !in_broker())
		return;
	snprintf(pc.dir, sizeof(pc.dir), "%s", dir);
	pc.deaf_sync = deaf != NULL && (strcmp(deaf, "all") == 0 || strcmp(deaf, "sync") == 0);
	pc.deaf_dsync = deaf != NULL && (strcmp(deaf, "all") == 0 || strcmp(deaf, "dsync") == 0);
	pc.eio = eio == NULL ? 0 : strtoul(eio, NULL, 10);
	open_log(log);
	if (at != NULL)
		pc.head->cut_at = strtoull(at, NULL, 10);
}
