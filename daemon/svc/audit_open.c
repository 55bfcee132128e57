/* Finding the end of the chain at a start, and the line that the store names. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"

#define WINDOW_FIRST (64u * 1024u)

/* The last bytes of a file, from the start of a line. */
struct window {
	char *p;
	size_t n;
	uint64_t off; /* of p in the file */
};

static int read_window(int fd, uint64_t size, uint64_t want, struct window *w)
{
	uint64_t off = size > want ? size - want : 0;
	size_t n = (size_t)(size - off), got = 0;
	char *p = malloc(n + 1), *line;

	if (p == NULL)
		return CSM_ENOMEM;
	while (got < n) {
		ssize_t k = pread(fd, p + got, n - got, (off_t)(off + got));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			break;
		got += (size_t)k;
	}
	if (off > 0) {
		line = memchr(p, '\n', got);
		line = line == NULL ? p + got : line + 1;
		got -= (size_t)(line - p);
		off += (uint64_t)(line - p);
		memmove(p, line, got);
	}
	*w = (struct window){p, got, off};
	return 0;
}

/* The next whole line; false at the end, or where half a line is left. */
static bool next_line(const struct window *w, size_t *at, struct csm_str *ret)
{
	const char *p = w->p + *at;
	const char *end = memchr(p, '\n', w->n - *at);

	if (end == NULL)
		return false;
	*ret = (struct csm_str){p, (size_t)(end - p)};
	*at += ret->n + 1;
	return true;
}

/* The last line of the window that follows from what stands before it. */
static void end_of_window(const struct window *w, struct log_end *e)
{
	uint8_t before[CSM_CHAIN_HASH];
	struct csm_chain_line l;
	bool known = false;
	struct csm_str s;
	size_t at = 0;

	while (next_line(w, &at, &s)) {
		if (csm_chain_parse(s.p, s.n, &l) != 0) {
			known = false;
			continue;
		}
		if ((known && csm_chain_follows(&l, before)) || (l.has_prev && csm_chain_follows(&l, l.prev))) {
			e->seq = l.seq;
			e->valid = w->off + at;
			e->garbage_seq = 0;
			memcpy(e->head, l.next, CSM_CHAIN_HASH);
		} else if (e->seq != 0 && l.seq > e->garbage_seq) {
			e->garbage_seq = l.seq;
		}
		memcpy(before, l.next, CSM_CHAIN_HASH);
		known = true;
	}
	e->whole = w->off + at;
}

static uint64_t first_number(int fd, uint8_t prev[static CSM_CHAIN_HASH])
{
	char text[CSM_CHAIN_LINE_MAX];
	ssize_t n = pread(fd, text, sizeof(text), 0);
	const char *end = n <= 0 ? NULL : memchr(text, '\n', (size_t)n);
	struct csm_chain_line l;

	if (end == NULL || csm_chain_parse(text, (size_t)(end - text), &l) != 0)
		return 0;
	memcpy(prev, l.prev, CSM_CHAIN_HASH);
	return l.seq;
}

int log_find_end(int fd, struct log_end *ret)
{
	uint8_t prev[CSM_CHAIN_HASH];
	struct log_end e = {0};
	struct window w;
	struct stat st;
	int r;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return CSM_ESYSTEM;
	e.size = (uint64_t)st.st_size;
	e.first = first_number(fd, prev);
	for (uint64_t want = WINDOW_FIRST; e.seq == 0; want *= 2) {
		if ((r = read_window(fd, e.size, want, &w)) != 0)
			return r;
		end_of_window(&w, &e);
		free(w.p);
		if (want >= e.size)
			break;
	}
	*ret = e;
	return 0;
}

/* What is known of a line. */
struct place {
	uint8_t hash[CSM_CHAIN_HASH];
	uint64_t end;
	char event[16];
};

static int find_in(int fd, uint64_t seq, struct place *ret)
{
	struct csm_chain_line l;
	struct window w;
	struct stat st;
	struct csm_str s;
	int r = CSM_ENOT_FOUND;

	if (fstat(fd, &st) != 0)
		return CSM_ESYSTEM;
	for (uint64_t want = WINDOW_FIRST; r == CSM_ENOT_FOUND; want *= 2) {
		size_t at = 0;

		if (read_window(fd, (uint64_t)st.st_size, want, &w) != 0)
			return CSM_ENOMEM;
		while (r == CSM_ENOT_FOUND && next_line(&w, &at, &s))
			if (csm_chain_parse(s.p, s.n, &l) == 0 && l.seq == seq) {
				memcpy(ret->hash, l.next, CSM_CHAIN_HASH);
				ret->end = w.off + at;
				snprintf(ret->event, sizeof(ret->event), "%.*s", (int)l.event.n, l.event.p);
				r = 0;
			}
		free(w.p);
		if (want >= (uint64_t)st.st_size)
			break;
	}
	return r;
}

static int same_in(int fd, uint64_t seq, const uint8_t *hash)
{
	struct place p;
	int r = find_in(fd, seq, &p);

	return r != 0 ? r : memcmp(p.hash, hash, CSM_CHAIN_HASH) == 0 ? 0 : CSM_ETAMPERED;
}

int log_locate(const struct log_file *f, uint64_t seq, uint8_t hash[static CSM_CHAIN_HASH], uint64_t *end)
{
	struct place p;
	int r = find_in(f->fd, seq, &p);

	if (r != 0)
		return r;
	memcpy(hash, p.hash, CSM_CHAIN_HASH);
	*end = p.end;
	return 0;
}

bool log_is_event(const struct log_file *f, uint64_t seq, const char *event)
{
	struct place p;

	return find_in(f->fd, seq, &p) == 0 && strcmp(p.event, event) == 0;
}

int log_prev(const struct log_file *f, uint8_t prev[static CSM_CHAIN_HASH])
{
	return first_number(f->fd, prev) == f->first ? 0 : CSM_ENOT_FOUND;
}

int log_find_line(const struct log_file *f, uint64_t seq, const uint8_t hash[static CSM_CHAIN_HASH])
{
	uint8_t prev[CSM_CHAIN_HASH];
	char name[AUDIT_NAME_MAX];
	uint64_t first;
	int fd, r;

	if (seq > f->seq)
		return CSM_ENOT_FOUND;
	if (f->first != 0 && seq >= f->first)
		return same_in(f->fd, seq, hash);
	/* The line before the first is known by the first. */
	if (f->first != 0 && seq + 1 == f->first && first_number(f->fd, prev) == f->first)
		return memcmp(prev, hash, CSM_CHAIN_HASH) == 0 ? 0 : CSM_ETAMPERED;
	if (!log_newest(f->dir, name, &first) || first > seq)
		return CSM_ENOT_FOUND;
	fd = openat(f->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return CSM_ENOT_FOUND;
	r = same_in(fd, seq, hash);
	close(fd);
	return r;
}

/* ---- opening ---- */

/* The end of the newest file that was filled, when audit.log itself is not there. */
static int open_after_rotated(struct log_file *f)
{
	char name[AUDIT_NAME_MAX];
	struct log_end e;
	uint64_t first;
	int fd, r;

	if (!log_newest(f->dir, name, &first))
		return 0;
	fd = openat(f->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return CSM_ESYSTEM;
	r = log_find_end(fd, &e);
	close(fd);
	if (r != 0)
		return r;
	f->seq = e.seq;
	memcpy(f->head, e.head, CSM_CHAIN_HASH);
	return 0;
}

/* Nothing in it is a line of ours: it is kept under another name. */
static int put_aside(struct log_file *f)
{
	char name[AUDIT_NAME_MAX];

	snprintf(name, sizeof(name), "damaged-%lld.log", (long long)time(NULL));
	log_warn("audit.log has no line of an audit log: it is kept as %s", name);
	close(f->fd);
	f->fd = -1;
	return renameat(f->dir, AUDIT_FILE, f->dir, name) == 0 ? open_after_rotated(f) : CSM_ESYSTEM;
}

int log_open(struct log_file *f, uint64_t *repaired)
{
	struct log_end e;
	int r;

	*repaired = 0;
	f->fd = openat(f->dir, AUDIT_FILE, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
	if (f->fd < 0)
		return errno == ENOENT ? open_after_rotated(f) : CSM_ESYSTEM;
	if ((r = log_find_end(f->fd, &e)) != 0)
		return r;
	if (e.size > e.whole) {
		*repaired = e.size - e.whole;
		if (ftruncate(f->fd, (off_t)e.whole) != 0)
			return CSM_ESYSTEM;
	}
	if (e.whole == 0) { /* a crash before the first line was whole */
		close(f->fd);
		f->fd = -1;
		return unlinkat(f->dir, AUDIT_FILE, 0) == 0 ? open_after_rotated(f) : CSM_ESYSTEM;
	}
	if (e.seq == 0)
		return put_aside(f);
	f->size = e.whole;
	f->first = e.first != 0 ? e.first : e.seq;
	/* Lines that do not follow stay for who looks into it; their numbers are not used again. */
	f->seq = e.garbage_seq > e.seq ? e.garbage_seq : e.seq;
	f->damaged = e.valid != e.whole;
	memcpy(f->head, e.head, CSM_CHAIN_HASH);
	return 0;
}
