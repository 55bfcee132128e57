/* The file: lines are made, chained and appended, files follow one another. Under the log's file_lock. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"
#include "libclient/base/hex.h"

#define LOOSE_KEEP (128u * 1024u)

/* ---- lines ---- */

void log_begin(struct log_file *f)
{
	csm_buf_reset(&f->out);
	f->out_seq = f->seq;
	f->out_signed = 0;
	memcpy(f->out_head, f->head, CSM_CHAIN_HASH);
}

static int log_line_at(struct log_file *f, time_t now, const char *event, const char *body)
{
	char hex[2 * CSM_CHAIN_HASH + 1];
	uint8_t *p;
	int n, r;

	if ((r = csm_buf_reserve(&f->out, CSM_CHAIN_LINE_MAX, &p)) != 0)
		return r;
	n = snprintf((char *)p, CSM_CHAIN_LINE_MAX, "{\"seq\":%llu,\"time\":%lld,\"event\":\"%s\"%s",
		(unsigned long long)f->out_seq + 1, (long long)now, event, body);
	if (n < 0 || (size_t)n + sizeof(hex) + 12 >= CSM_CHAIN_LINE_MAX)
		return CSM_ETOO_LARGE;
	f->out_seq++;
	csm_chain_hash(f->out_head, (struct csm_bin){p, (size_t)n}, f->out_head);
	csm_hex(f->out_head, CSM_CHAIN_HASH, hex);
	n += snprintf((char *)p + n, CSM_CHAIN_LINE_MAX - (size_t)n, ",\"hash\":\"%s\"}\n", hex);
	csm_buf_commit(&f->out, (size_t)n);
	return 0;
}

int log_line(struct log_file *f, const char *event, const char *body)
{
	return log_line_at(f, time(NULL), event, body);
}

/* As a JSON string. Names have no control characters and no backslash; nothing else gets here unharmed either. */
static void json_text(struct csm_str s, char *out, size_t cap)
{
	bool good = csm_utf8_valid(s.p, s.n);
	size_t n = 0;

	for (size_t i = 0; i < s.n && n + 3 < cap; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\')
			out[n++] = '\\';
		out[n++] = c < 0x20 || (c >= 0x80 && !good) ? '?' : (char)c;
	}
	out[n] = '\0';
}

static const char *place_text(const struct csm_audit_place *p)
{
	return p == NULL ? "" : p->text;
}

int log_event(struct log_file *f, const struct csm_audit_event *e)
{
	char object[2 * CSM_SECRETREF_MAX + 8], body[sizeof(object) + AUDIT_PLACE_MAX + CSM_AUDIT_DETAIL + 256];

	json_text(e->object, object, sizeof(object));
	snprintf(body, sizeof(body), ",\"method\":\"%s\",\"uid\":%u,\"pid\":%d%s,\"object\":\"%s\"%s,\"result\":\"%s\"", e->method,
		e->uid, (int)e->pid, place_text(e->place), object, e->detail != NULL ? e->detail : "", e->result);
	return log_line(f, e->kind == CSM_AUDIT_CHANGE ? "change" : "denied", body);
}

int log_count(struct log_file *f, const char *event, const struct row *w)
{
	char object[2 * CSM_SECRETREF_MAX + 8], body[sizeof(object) + AUDIT_PLACE_MAX + 256];

	json_text((struct csm_str){w->object, w->object_len}, object, sizeof(object));
	snprintf(body, sizeof(body), ",\"method\":\"%s\",\"uid\":%u%s,\"object\":\"%s\",\"count\":%llu", w->method, w->uid,
		place_text(w->place), object, (unsigned long long)w->n);
	return log_line(f, event, body);
}

int log_checkpoint(struct log_file *f, const struct csm_audit_signer *s)
{
	uint8_t text[sizeof(CSM_CHAIN_SIGNED) + CSM_CHAIN_HASH + 256], signature[CSM_CHAIN_SIGNATURE];
	char key[2 * CSM_CHAIN_KEY + 1], hex[2 * CSM_CHAIN_SIGNATURE + 1], body[512];
	size_t n = sizeof(CSM_CHAIN_SIGNED) - 1;
	time_t now = time(NULL);
	int len, r;

	csm_hex(s->key, CSM_CHAIN_KEY, key);
	memcpy(text, CSM_CHAIN_SIGNED, n);
	memcpy(text + n, f->out_head, CSM_CHAIN_HASH);
	n += CSM_CHAIN_HASH;
	len = snprintf((char *)text + n, sizeof(text) - n, "{\"seq\":%llu,\"time\":%lld,\"event\":\"checkpoint\",\"key\":\"%s\"",
		(unsigned long long)f->out_seq + 1, (long long)now, key);
	if (len < 0 || (size_t)len >= sizeof(text) - n)
		return CSM_EINTERNAL;
	if ((r = s->sign(s->arg, text, n + (size_t)len, signature)) != 0)
		return r;
	csm_hex(signature, sizeof(signature), hex);
	snprintf(body, sizeof(body), ",\"key\":\"%s\",\"signature\":\"%s\"", key, hex);
	f->out_signed = f->out_seq + 1;
	return log_line_at(f, now, "checkpoint", body);
}

int log_break(struct log_file *f, uint64_t seq, const uint8_t prev[static CSM_CHAIN_HASH], const char *why)
{
	char hex[2 * CSM_CHAIN_HASH + 1], body[512];

	f->out_seq = seq;
	memcpy(f->out_head, prev, CSM_CHAIN_HASH);
	csm_hex(prev, CSM_CHAIN_HASH, hex);
	snprintf(body, sizeof(body), ",\"prev\":\"%s\",\"reason\":\"%s\"", hex, why);
	return log_line(f, "break", body);
}

int log_write(struct log_file *f)
{
	const uint8_t *p = csm_buf_ptr(&f->out);
	uint8_t *loose;
	size_t done = 0;

	/* So much has not been synced for long. While that fails, there is room for as much again. */
	if (f->loose.len + f->out.len > f->loose.max / 2 && f->syncing == 0 && log_sync(f) != 0)
		log_debug("the audit log cannot be synced: %s", strerror(errno));
	if (csm_buf_reserve(&f->loose, f->out.len, &loose) != 0) {
		errno = f->unsure ? EIO : ENOMEM;
		return CSM_ENOMEM;
	}
	while (done < f->out.len) {
		ssize_t n = write(f->fd, p + done, f->out.len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int e = n < 0 ? errno : EIO;

			/* A part of it is taken back; what stays, before the next write. */
			f->torn = done > 0 && ftruncate(f->fd, (off_t)f->size) != 0;
			if (f->torn)
				log_warn("half a line stays in the audit log until it is written again");
			errno = e;
			return CSM_ESYSTEM;
		}
		done += (size_t)n;
	}
	f->size += done;
	if (f->kept_at == f->loose_at + f->loose.len)
		memcpy(f->kept_head, f->head, CSM_CHAIN_HASH);
	memcpy(loose, p, done);
	csm_buf_commit(&f->loose, done);
	if (f->out_signed != 0) {
		f->signed_seq = f->out_signed;
		f->signed_at = time(NULL);
	}
	f->seq = f->out_seq;
	memcpy(f->head, f->out_head, CSM_CHAIN_HASH);
	return 0;
}

/* ---- what is not synced ---- */

/* The hash that goes on behind the last of these lines. */
static void hash_after(const uint8_t *p, size_t n, uint8_t hash[static CSM_CHAIN_HASH])
{
	const uint8_t *start = n < 2 ? NULL : memrchr(p, '\n', n - 1);
	struct csm_chain_line l;

	start = start == NULL ? p : start + 1;
	if (n > 0 && csm_chain_parse((const char *)start, (size_t)(p + n - start) - 1, &l) == 0)
		memcpy(hash, l.next, CSM_CHAIN_HASH);
}

void log_kept(struct log_file *f, uint64_t at)
{
	if (at <= f->kept_at)
		return;
	hash_after(csm_buf_ptr(&f->loose), (size_t)(at - f->loose_at), f->kept_head);
	f->kept_at = at;
}

void log_synced(struct log_file *f, uint64_t at)
{
	if (at <= f->loose_at)
		return;
	log_kept(f, at);
	csm_buf_consume(&f->loose, (size_t)(at - f->loose_at));
	f->loose_at = at;
	/* A burst's memory is given back. */
	if (f->loose.len == 0 && f->loose.cap > LOOSE_KEEP)
		csm_buf_free(&f->loose);
}

/* The file in use by another descriptor; this one, where the file was moved away. */
static int open_again(const struct log_file *f)
{
	int fd = openat(f->dir, AUDIT_FILE, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat ours, there;

	if (fd >= 0 && fstat(f->fd, &ours) == 0 && fstat(fd, &there) == 0 && ours.st_ino == there.st_ino &&
		ours.st_dev == there.st_dev)
		return fd;
	if (fd >= 0)
		close(fd);
	return f->fd;
}

static int write_at(int fd, const uint8_t *p, size_t n, uint64_t at)
{
	while (n > 0) {
		ssize_t k = pwrite(fd, p, n, (off_t)at);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return CSM_ESYSTEM;
		p += k;
		n -= (size_t)k;
		at += (uint64_t)k;
	}
	return 0;
}

/* After a sync that failed, the kernel takes what it could not write for written, and may forget it. */
static int write_again(struct log_file *f)
{
	int fd = open_again(f), e, r = CSM_ESYSTEM;

	/* With O_APPEND it would come behind the end. */
	if (fcntl(fd, F_SETFL, 0) == 0 &&
		write_at(fd, csm_buf_ptr(&f->loose), f->loose.len, f->size - f->loose.len) == 0 && fdatasync(fd) == 0)
		r = 0;
	e = errno;
	if (fcntl(fd, F_SETFL, O_APPEND) != 0)
		r = CSM_ESYSTEM;
	if (fd != f->fd) {
		close(r == 0 ? f->fd : fd);
		f->fd = r == 0 ? fd : f->fd;
	}
	if (r == 0)
		log_warn("%zu bytes of the audit log were written once more, since a sync had failed", f->loose.len);
	errno = e;
	return r;
}

int log_sync(struct log_file *f)
{
	if (f->unnamed && fsync(f->dir) != 0)
		return CSM_ESYSTEM;
	f->unnamed = false;
	if (f->unsure ? write_again(f) != 0 : fdatasync(f->fd) != 0) {
		f->unsure = true;
		return CSM_ESYSTEM;
	}
	f->unsure = false;
	log_synced(f, f->loose_at + f->loose.len);
	f->synced = f->seq;
	return 0;
}

/* ---- one file after the other ---- */

static void rotated_name(uint64_t first, char name[static AUDIT_NAME_MAX])
{
	snprintf(name, AUDIT_NAME_MAX, "audit-%012llu.log", (unsigned long long)first);
}

static bool is_rotated(const char *name, uint64_t *first)
{
	char *end, again[AUDIT_NAME_MAX];

	if (strncmp(name, "audit-", 6) != 0 || name[6] < '0' || name[6] > '9')
		return false;
	*first = strtoull(name + 6, &end, 10);
	rotated_name(*first, again);
	return strcmp(again, name) == 0;
}

/* How many there are, and the oldest and the newest. */
static size_t rotated_files(int dir, uint64_t *oldest, uint64_t *newest)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	uint64_t first;
	size_t n = 0;

	if (d == NULL) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while ((e = readdir(d)) != NULL) {
		if (!is_rotated(e->d_name, &first))
			continue;
		if (n == 0 || first < *oldest)
			*oldest = first;
		if (n == 0 || first > *newest)
			*newest = first;
		n++;
	}
	closedir(d);
	return n;
}

bool log_newest(int dir, char name[static AUDIT_NAME_MAX], uint64_t *first)
{
	uint64_t oldest = 0, newest = 0;

	if (rotated_files(dir, &oldest, &newest) == 0)
		return false;
	rotated_name(newest, name);
	*first = newest;
	return true;
}

int log_create(struct log_file *f)
{
	int fd = openat(f->dir, AUDIT_FILE, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return CSM_ESYSTEM;
	f->fd = fd;
	f->size = 0;
	f->unnamed = true;
	return 0;
}

/* Says what the file follows, and which lines before it are gone. */
static int first_line(struct log_file *f)
{
	char prev[2 * CSM_CHAIN_HASH + 1], head[2 * CSM_CHAIN_HASH + 1], body[256];
	const struct gone *g = &f->gone;
	int r;

	log_begin(f);
	csm_hex(f->head, CSM_CHAIN_HASH, prev);
	if (g->seq == 0) {
		snprintf(body, sizeof(body), ",\"prev\":\"%s\",\"version\":1", prev);
		return log_line(f, "file", body);
	}
	csm_hex(g->head, CSM_CHAIN_HASH, head);
	snprintf(body, sizeof(body), ",\"prev\":\"%s\",\"first\":%llu,\"head\":\"%s\"", prev, (unsigned long long)g->first,
		head);
	f->out_seq = g->seq - 1;
	if ((r = log_line(f, "missing", body)) == 0)
		memcpy(f->out_head, g->head, CSM_CHAIN_HASH);
	return r;
}

/* A new audit.log. What was written before is synced. */
static int new_file(struct log_file *f)
{
	int old = f->fd, r;
	uint64_t size = f->size;

	if (log_create(f) != 0)
		return CSM_ESYSTEM;
	if ((r = first_line(f)) == 0 && (r = log_write(f)) == 0) {
		if (old >= 0)
			close(old);
		f->first = f->seq;
		f->gone.seq = 0;
		/* When that fails it is for those to see who want their lines synced. */
		if (log_sync(f) != 0)
			log_debug("a new file of the audit log is not synced: %s", strerror(errno));
		return 0;
	}
	int e = errno;
	unlinkat(f->dir, AUDIT_FILE, 0);
	close(f->fd);
	f->fd = old;
	f->size = size;
	f->torn = false;
	errno = e;
	return r;
}

/* The oldest files go when there are too many; the log says which. */
static int drop_oldest(struct log_file *f)
{
	uint64_t oldest = 0, newest = 0;
	char name[AUDIT_NAME_MAX], body[128];
	int r;

	while (rotated_files(f->dir, &oldest, &newest) + 1 > f->max_files) {
		rotated_name(oldest, name);
		snprintf(body, sizeof(body), ",\"name\":\"%s\",\"first\":%llu", name, (unsigned long long)oldest);
		log_begin(f);
		if ((r = log_line(f, "removed", body)) != 0 || (r = log_write(f)) != 0)
			return r;
		if (unlinkat(f->dir, name, 0) != 0) {
			log_warn("the oldest file of the audit log, %s, cannot be removed: %s", name, strerror(errno));
			break;
		}
	}
	return 0;
}

static int rotate(struct log_file *f, const struct csm_audit_signer *s)
{
	char name[AUDIT_NAME_MAX];
	int r;

	/* While it cannot be synced, the file stays in use. */
	if (log_sync(f) != 0)
		return 0;
	log_begin(f);
	if (s != NULL && ((r = log_checkpoint(f, s)) != 0 || (r = log_write(f)) != 0))
		return r;
	if (log_sync(f) != 0)
		return 0;
	rotated_name(f->first, name);
	if (renameat(f->dir, AUDIT_FILE, f->dir, name) != 0)
		return CSM_ESYSTEM;
	if ((r = new_file(f)) == 0)
		return drop_oldest(f);
	int e = errno;
	if (renameat(f->dir, name, f->dir, AUDIT_FILE) != 0)
		log_warn("the audit log stays in %s", name);
	errno = e;
	return r;
}

/* audit.log is not what we write to any more: somebody moved it away, or put another one there. */
static int again(struct log_file *f)
{
	uint8_t head[CSM_CHAIN_HASH];
	char name[AUDIT_NAME_MAX];
	int r;

	/* What syncs the new file is to cover what is in this one. */
	if (log_sync(f) != 0)
		return CSM_ESYSTEM;
	if (faccessat(f->dir, AUDIT_FILE, F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
		log_warn("audit.log was moved away: a new one begins");
		return new_file(f);
	}
	snprintf(name, sizeof(name), "damaged-%lld.log", (long long)time(NULL));
	log_warn("another file was put in the place of audit.log: it is kept as %s", name);
	if (renameat(f->dir, AUDIT_FILE, f->dir, name) != 0)
		return CSM_ESYSTEM;
	if ((r = new_file(f)) != 0)
		return r;
	memcpy(head, f->head, sizeof(head));
	log_begin(f);
	r = log_break(f, f->seq, head, "another file was put in the place of audit.log");
	return r != 0 ? r : log_write(f);
}

int log_room(struct log_file *f, const struct csm_audit_signer *s)
{
	struct stat ours, there;

	if (f->first == 0)
		return new_file(f);
	if (f->torn && ftruncate(f->fd, (off_t)f->size) != 0)
		return CSM_ESYSTEM;
	f->torn = false;
	/* The next write will do. */
	if (f->syncing > 0)
		return 0;
	if (fstat(f->fd, &ours) != 0)
		return CSM_ESYSTEM;
	if (fstatat(f->dir, AUDIT_FILE, &there, AT_SYMLINK_NOFOLLOW) != 0 || there.st_ino != ours.st_ino ||
		there.st_dev != ours.st_dev)
		return again(f);
	return f->size < f->max_size ? 0 : rotate(f, s);
}
