#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/bytes.h"
#include "daemon/svc/journal.h"
#include "daemon/svc/lmdb_file.h"

#define PAGE 4096u
#define OFF_NUMBER 8u
#define OFF_LENGTH 16u
#define OFF_PREV 24u
#define STRIDE (1024u * 1024u) /* of a look over the whole */

_Static_assert(OFF_PREV + JOURNAL_MAC == JOURNAL_HEAD, "an entry's head");

static size_t whole_pages(size_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

/* ---- the file ---- */

static int write_at(int fd, const uint8_t *p, size_t n, size_t at)
{
	while (n > 0) {
		ssize_t done = pwrite(fd, p, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return csm_lmdb_err(done < 0 ? errno : EIO);
		p += done;
		n -= (size_t)done;
		at += (size_t)done;
	}
	return 0;
}

/* One write: memory that was never written costs nothing. */
static int zeros(int fd, size_t n)
{
	uint8_t *zero = calloc(1, n);
	int r;

	if (zero == NULL)
		return CSM_ENOMEM;
	r = write_at(fd, zero, n, 0);
	free(zero);
	return r == 0 && fdatasync(fd) != 0 ? csm_lmdb_err(errno) : r;
}

/* The file; -1: there is none. */
static int make(const char *folder, const char *name, const char *path, size_t size)
{
	char *fresh = NULL;
	int fd, r;

	if (asprintf(&fresh, "%s/new.%s", folder, name) < 0)
		return -1;
	(void)unlink(fresh);
	fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = fd < 0 ? csm_lmdb_err(errno) : zeros(fd, size);
	if (r == 0 && (fsync(fd) != 0 || rename(fresh, path) != 0))
		r = csm_lmdb_err(errno);
	if (r != 0 && fd >= 0) {
		close(fd);
		(void)unlink(fresh);
	}
	free(fresh);
	return r == 0 ? fd : -1;
}

void csm_journal_init(struct csm_journal *j, size_t size, const char *magic)
{
	*j = (struct csm_journal){.size = size, .magic = magic, .fd = -1};
	csm_buf_init(&j->in, size, false);
}

int csm_journal_open(struct csm_journal *j, const char *folder, const char *name)
{
	char *path = NULL;
	struct stat st;
	int saved = 0;

	if (asprintf(&path, "%s/%s", folder, name) < 0)
		return CSM_ENOMEM;
	j->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (j->fd < 0 && errno != ENOENT) {
		saved = errno;
	} else if (j->fd >= 0 && (fstat(j->fd, &st) != 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size != j->size)) {
		close(j->fd);
		j->fd = -1;
	}
	j->high = j->size;
	if (saved == 0 && j->fd < 0) {
		j->fd = make(folder, name, path, j->size);
		j->high = 0;
	}
	free(path);
	errno = saved;
	return csm_lmdb_err(saved);
}

void csm_journal_close(struct csm_journal *j)
{
	if (j->fd >= 0)
		close(j->fd);
	j->fd = -1;
	csm_buf_free(&j->in);
}

int csm_journal_erase(struct csm_journal *j)
{
	int r = j->fd >= 0 && j->high > 0 ? zeros(j->fd, j->high) : 0;

	if (r == 0)
		j->high = 0;
	return r;
}

void csm_journal_restart(struct csm_journal *j, const uint8_t *head)
{
	j->used = 0;
	j->entries = 0;
	j->unsure = false;
	if (head != NULL)
		memcpy(j->head, head, JOURNAL_MAC);
}

/* ---- rows ---- */

int csm_journal_row_put(struct csm_buf *b, const struct csm_journal_row *row)
{
	size_t n = csm_journal_row_len(row->key.n, row->value.n);
	uint8_t *p;
	int r;

	if (row->key.n > UINT16_MAX || row->value.n > UINT32_MAX)
		return CSM_ETOO_LARGE;
	if ((r = csm_buf_reserve(b, n, &p)) != 0)
		return r;
	p[0] = row->number;
	p[1] = row->del;
	put16(p + 2, (uint16_t)row->key.n);
	put32(p + 4, (uint32_t)row->value.n);
	if (row->key.n > 0)
		memcpy(p + JOURNAL_ROW_HEAD, row->key.p, row->key.n);
	if (row->value.n > 0)
		memcpy(p + JOURNAL_ROW_HEAD + row->key.n, row->value.p, row->value.n);
	csm_buf_commit(b, n);
	return 0;
}

int csm_journal_row_next(struct csm_bin *rows, struct csm_journal_row *ret)
{
	const uint8_t *p = rows->p;
	struct csm_journal_row c;
	size_t left;

	if (rows->n < JOURNAL_ROW_HEAD)
		return CSM_ETAMPERED;
	left = rows->n - JOURNAL_ROW_HEAD;
	c = (struct csm_journal_row){.number = p[0], .del = p[1] != 0, .key = {p + JOURNAL_ROW_HEAD, get16(p + 2)}};
	c.value.n = get32(p + 4);
	if (p[1] > 1 || c.key.n == 0 || left < c.key.n || left - c.key.n < c.value.n)
		return CSM_ETAMPERED;
	c.value.p = c.key.p + c.key.n;
	*rows = (struct csm_bin){c.value.p + c.value.n, left - c.key.n - c.value.n};
	*ret = c;
	return 0;
}

/* ---- writing ---- */

bool csm_journal_takes(const struct csm_journal *j, size_t n)
{
	return j->fd >= 0 && n <= j->size && whole_pages(JOURNAL_HEAD + n + JOURNAL_MAC) <= j->size - j->used;
}

int csm_journal_undo(struct csm_journal *j)
{
	static const uint8_t zero[PAGE];

	if (!j->unsure)
		return 0;
	j->unsure = false;
	if (write_at(j->fd, zero, sizeof(zero), j->used) == 0 && fdatasync(j->fd) == 0)
		return 0;
	j->dead = true;
	return CSM_EUNAVAILABLE;
}

int csm_journal_append(struct csm_journal *j, struct csm_buf *b, uint64_t number)
{
	size_t n = b->len, whole = whole_pages(n + JOURNAL_MAC);
	uint8_t *p, mac[JOURNAL_MAC];
	int r;

	if ((r = csm_buf_reserve(b, whole - n, &p)) != 0)
		return r;
	memset(p, 0, whole - n);
	p = b->p + b->off;
	memcpy(p, j->magic, OFF_NUMBER);
	put64(p + OFF_NUMBER, number);
	put64(p + OFF_LENGTH, n - JOURNAL_HEAD);
	memcpy(p + OFF_PREV, j->head, JOURNAL_MAC);
	prk_mac(j->key, &(struct part){p, n}, 1, mac);
	memcpy(p + n, mac, JOURNAL_MAC); /* behind what b has */
	j->unsure = true;
	if (j->high < j->used + whole)
		j->high = j->used + whole;
	if ((r = write_at(j->fd, p, whole, j->used)) != 0)
		return r;
	if (fdatasync(j->fd) != 0)
		return csm_lmdb_err(errno);
	j->unsure = false;
	memcpy(j->head, mac, JOURNAL_MAC);
	j->used += whole;
	j->entries++;
	return 0;
}

/* ---- reading ---- */

struct entry {
	uint64_t number;
	uint8_t prev[JOURNAL_MAC], mac[JOURNAL_MAC];
	struct csm_bin rows; /* in the journal's buffer */
	size_t whole;
};

static int read_at(int fd, uint8_t *p, size_t n, size_t at)
{
	while (n > 0) {
		ssize_t got = pread(fd, p, n, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return csm_lmdb_err(got < 0 ? errno : EIO);
		p += got;
		n -= (size_t)got;
		at += (size_t)got;
	}
	return 0;
}

/* Could it be the head of an entry there, newer than `number`? */
static bool head_fits(const struct csm_journal *j, const uint8_t head[static JOURNAL_HEAD], size_t at, uint64_t number)
{
	return memcmp(head, j->magic, OFF_NUMBER) == 0 && get64(head + OFF_NUMBER) > number &&
		get64(head + OFF_LENGTH) <= j->size - at - JOURNAL_HEAD - JOURNAL_MAC;
}

/* A genuine entry there, newer than `number`. CSM_ENOT_FOUND: none. */
static int entry_read(struct csm_journal *j, size_t at, uint64_t number, struct entry *ret)
{
	uint8_t head[JOURNAL_HEAD], mac[JOURNAL_MAC], *p;
	size_t n;
	int r;

	if (at + PAGE > j->size)
		return CSM_ENOT_FOUND;
	if ((r = read_at(j->fd, head, sizeof(head), at)) != 0)
		return r;
	if (!head_fits(j, head, at, number))
		return CSM_ENOT_FOUND;
	n = JOURNAL_HEAD + (size_t)get64(head + OFF_LENGTH);
	csm_buf_reset(&j->in);
	if ((r = csm_buf_reserve(&j->in, n + JOURNAL_MAC, &p)) != 0 || (r = read_at(j->fd, p, n + JOURNAL_MAC, at)) != 0)
		return r;
	prk_mac(j->key, &(struct part){p, n}, 1, mac);
	if (sodium_memcmp(mac, p + n, JOURNAL_MAC) != 0)
		return CSM_ENOT_FOUND;
	*ret = (struct entry){.number = get64(p + OFF_NUMBER), .rows = {p + JOURNAL_HEAD, n - JOURNAL_HEAD},
		.whole = whole_pages(n + JOURNAL_MAC)};
	memcpy(ret->prev, p + OFF_PREV, JOURNAL_MAC);
	memcpy(ret->mac, mac, JOURNAL_MAC);
	return 0;
}

/* Each entry was synced before the next was written: a genuine one behind the end was cut off from those that it follows on. */
static int nothing_behind(struct csm_journal *j, size_t at, uint64_t number)
{
	uint8_t *p = malloc(STRIDE);
	struct entry e;
	int r = CSM_ENOT_FOUND;

	if (p == NULL)
		return CSM_ENOMEM;
	for (; at < j->size && r == CSM_ENOT_FOUND; at += STRIDE) {
		size_t n = j->size - at < STRIDE ? j->size - at : STRIDE;

		if ((r = read_at(j->fd, p, n, at)) != 0)
			break;
		r = CSM_ENOT_FOUND;
		for (size_t i = 0; i < n && r == CSM_ENOT_FOUND; i += PAGE) {
			j->high = sodium_is_zero(p + i, JOURNAL_HEAD) ? j->high : j->size;
			if (head_fits(j, p + i, at + i, number))
				r = entry_read(j, at + i, number, &e);
		}
	}
	free(p);
	return r == CSM_ENOT_FOUND ? 0 : r == 0 ? CSM_ETAMPERED : r;
}

bool csm_journal_begins(struct csm_journal *j, uint64_t number)
{
	struct entry e;

	return j->fd >= 0 && entry_read(j, 0, number - 1, &e) == 0 && e.number == number;
}

int csm_journal_replay(struct csm_journal *j, uint64_t number, csm_journal_apply *apply, void *arg)
{
	struct entry e;
	int r;

	csm_journal_restart(j, NULL);
	j->high = j->size;
	if (j->fd < 0)
		return 0;
	while ((r = entry_read(j, j->used, number, &e)) == 0) {
		if (e.number != number + 1 || sodium_memcmp(e.prev, j->head, JOURNAL_MAC) != 0)
			return CSM_ETAMPERED;
		if ((r = apply(arg, e.number, e.rows)) != 0)
			return r;
		number = e.number;
		memcpy(j->head, e.mac, JOURNAL_MAC);
		j->used += e.whole;
		j->entries++;
	}
	if (r != CSM_ENOT_FOUND)
		return r;
	j->high = j->used; /* it may have nothing to erase */
	r = nothing_behind(j, j->used, number);
	csm_buf_free(&j->in);
	return r;
}

int csm_journal_again(struct csm_journal *j, csm_journal_apply *apply, void *arg)
{
	struct entry e = {0};
	size_t at = 0;
	int r = 0;

	for (uint64_t i = 0; i < j->entries && r == 0; i++, at += e.whole)
		if ((r = entry_read(j, at, 0, &e)) == 0)
			r = apply(arg, e.number, e.rows);
	csm_buf_free(&j->in);
	if (r == CSM_ENOT_FOUND || (r == 0 && (at != j->used || sodium_memcmp(e.mac, j->head, JOURNAL_MAC) != 0)))
		return CSM_ESYSTEM;
	return r;
}
