/* The files of an audit log. They are read by root; csmd only tells where they are and how the log ends. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "libclient/base/chain.h"
#include "libclient/cli/cli.h"

#define CHUNK (64u * 1024u)
#define CURRENT "audit.log"
#define FILES_MAX 10000u

void audit_files_free(struct audit_files *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->path[i]);
		if (f->fd[i] >= 0)
			close(f->fd[i]);
	}
	free(f->path);
	free(f->fd);
	*f = (struct audit_files){0};
}

/* Takes path. */
static int add(struct audit_files *f, char *path, int fd)
{
	char **paths = realloc(f->path, (f->n + 1) * sizeof(*paths));
	int *fds;

	if (paths != NULL)
		f->path = paths;
	fds = paths == NULL ? NULL : realloc(f->fd, (f->n + 1) * sizeof(*fds));
	if (fds != NULL)
		f->fd = fds;
	if (path == NULL || paths == NULL || fds == NULL || f->n == FILES_MAX) {
		free(path);
		if (fd >= 0)
			close(fd);
		return client_err_plain(CSM_ENOMEM);
	}
	f->path[f->n] = path;
	f->fd[f->n++] = fd;
	return 0;
}

static char *path_in(const char *folder, const char *name)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* audit-NNNNNNNNNNNN.log: the number has so many digits that the order of names is that of numbers. */
static int is_filled(const struct dirent *e)
{
	const char *s = e->d_name;
	size_t digits = strncmp(s, "audit-", 6) == 0 ? strspn(s + 6, "0123456789") : 0;

	return digits >= 12 && strcmp(s + 6 + digits, ".log") == 0;
}

/* The file in use is opened first: when it is filled meanwhile, it is in the list under its new name, too, and what is
 * newer is not asked for. */
int audit_files_of(const char *folder, struct audit_files *ret)
{
	char *current = path_in(folder, CURRENT);
	int fd = current == NULL ? -1 : open(current, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), n, r = 0;
	struct dirent **names = NULL;
	struct audit_files f = {0};
	struct stat now = {0}, st;

	if (fd >= 0 && fstat(fd, &now) != 0)
		now.st_ino = 0;
	n = scandir(folder, &names, is_filled, by_name);
	if (n < 0)
		r = client_err_errno(CSM_ESYSTEM, folder);
	for (int i = 0; i < n; i++) {
		char *path = r == 0 ? path_in(folder, names[i]->d_name) : NULL;

		if (path != NULL && fd >= 0 && stat(path, &st) == 0 && st.st_ino == now.st_ino && st.st_dev == now.st_dev)
			free(path);
		else if (r == 0)
			r = add(&f, path, -1);
		free(names[i]);
	}
	free(names);
	if (r == 0 && fd >= 0)
		r = add(&f, current, fd);
	else
		free(current);
	if (r == 0 && f.n == 0)
		r = client_err(CSM_ENOT_FOUND, "%s holds no audit log", folder);
	if (r != 0)
		audit_files_free(&f);
	else
		*ret = f;
	return r;
}

/* ---- files in any order ---- */

struct first {
	char *path;
	int fd;
	uint64_t seq;
};

static int by_first(const void *a, const void *b)
{
	uint64_t x = ((const struct first *)a)->seq, y = ((const struct first *)b)->seq;

	return x < y ? -1 : x > y;
}

uint64_t audit_file_first(int fd)
{
	char text[CSM_CHAIN_LINE_MAX];
	ssize_t n = pread(fd, text, sizeof(text), 0);
	const char *end = n <= 0 ? NULL : memchr(text, '\n', (size_t)n);
	struct csm_chain_line l;

	return end != NULL && csm_chain_parse(text, (size_t)(end - text), &l) == 0 ? l.seq : 0;
}

int audit_files_given(char *const *path, size_t n, struct audit_files *ret)
{
	struct first *first = calloc(n, sizeof(*first));
	struct audit_files f = {0};
	size_t i, opened = 0;
	int r = first == NULL ? client_err_plain(CSM_ENOMEM) : 0;

	for (; r == 0 && opened < n; opened++) {
		struct first *at = &first[opened];

		at->path = path[opened];
		at->fd = open(at->path, O_RDONLY | O_CLOEXEC);
		if (at->fd < 0) {
			r = client_err_errno(CSM_ESYSTEM, at->path);
			break;
		}
		at->seq = audit_file_first(at->fd);
	}
	if (r == 0)
		qsort(first, n, sizeof(*first), by_first);
	for (i = 0; i < opened; i++) {
		if (r == 0)
			r = add(&f, strdup(first[i].path), first[i].fd);
		else
			close(first[i].fd);
	}
	free(first);
	if (r != 0)
		audit_files_free(&f);
	else
		*ret = f;
	return r;
}

int audit_file_open(struct audit_files *f, size_t i, int *ret)
{
	if (f->fd[i] < 0)
		f->fd[i] = open(f->path[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	*ret = f->fd[i];
	if (f->fd[i] >= 0 || (i == 0 && errno == ENOENT))
		return 0;
	return client_err_errno(CSM_ESYSTEM, f->path[i]);
}

/* ---- lines ---- */

struct splitter {
	char *p; /* CSM_CHAIN_LINE_MAX bytes, the beginning of a line */
	size_t n;
	audit_line_fn *fn;
	void *arg;
};

static void take(struct splitter *s, const char *p, size_t n)
{
	while (n > 0) {
		const char *end = memchr(p, '\n', n);
		size_t len = end != NULL ? (size_t)(end - p) : n;
		size_t room = CSM_CHAIN_LINE_MAX - s->n;

		memcpy(s->p + s->n, p, len < room ? len : room);
		s->n += len < room ? len : room;
		if (end == NULL)
			return;
		s->fn(s->arg, s->p, s->n, false);
		s->n = 0;
		p += len + 1;
		n -= len + 1;
	}
}

int audit_file_read(int fd, const char *path, audit_line_fn *fn, void *arg)
{
	char *chunk = malloc(CHUNK + CSM_CHAIN_LINE_MAX);
	struct splitter s = {.fn = fn, .arg = arg};
	size_t got = 0;
	int r;

	if (chunk == NULL)
		return client_err_plain(CSM_ENOMEM);
	s.p = chunk + CHUNK;
	while ((r = io_read_some(fd, path, chunk, CHUNK, &got)) == 0 && got > 0)
		take(&s, chunk, got);
	if (r == 0 && s.n > 0)
		fn(arg, s.p, s.n, true);
	free(chunk);
	return r;
}
