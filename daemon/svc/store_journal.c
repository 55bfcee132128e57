/* The journal: what groups have changed since LMDB's last commit, in a file of fixed size that is written in place, so that a sync of
 * it writes a few pages in a row and no metadata. An entry is a group. It is sealed with a MAC, names the one before it (the first:
 * the root record that it follows on), and starts a page of its own, so that no answered byte is ever written again. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/store_internal.h"

#define MAGIC "csmjrnl1"
#define PAGE 4096u
#define OFF_GENERATION 8u
#define OFF_LENGTH 16u
#define OFF_PREV 24u
#define MAC_LEN 32u
#define ROW_HEAD 8u /* database (1), 1: a deletion (1), length of the key (2), of the value (4) */
#define ROOM (JOURNAL_SIZE / 2)
#define STRIDE (1024u * 1024u) /* of a look over the whole */

_Static_assert(OFF_PREV + MAC_LEN == JOURNAL_HEAD, "an entry's head");

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
			return store_err(done < 0 ? errno : EIO);
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
	return r == 0 && fdatasync(fd) != 0 ? store_err(errno) : r;
}

/* The file; -1: there is none. */
static int make(const char *folder, const char *path)
{
	char *fresh = NULL;
	int fd, r;

	if (asprintf(&fresh, "%s/new.journal", folder) < 0)
		return -1;
	(void)unlink(fresh);
	fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = fd < 0 ? store_err(errno) : zeros(fd, JOURNAL_SIZE);
	if (r == 0 && (fsync(fd) != 0 || rename(fresh, path) != 0))
		r = store_err(errno);
	if (r != 0 && fd >= 0) {
		close(fd);
		(void)unlink(fresh);
	}
	free(fresh);
	return r == 0 ? fd : -1;
}

/* One of another size was never used: it gets its name when it is whole. Without room for one there is none, and every group is
 * committed. */
int journal_open(struct csm_store *s, const char *folder)
{
	struct journal *j = &s->journal;
	struct stat st;
	char *path = NULL;
	int r = 0;

	if (asprintf(&path, "%s/journal", folder) < 0)
		return CSM_ENOMEM;
	j->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (j->fd < 0 && errno != ENOENT) {
		store_why(s, "%s: %s", path, strerror(errno));
		r = store_err(errno);
	} else if (j->fd >= 0 && (fstat(j->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size != JOURNAL_SIZE)) {
		close(j->fd);
		j->fd = -1;
	}
	j->high = JOURNAL_SIZE;
	if (r == 0 && j->fd < 0) {
		j->fd = make(folder, path);
		j->high = 0;
	}
	free(path);
	return r;
}

void journal_close(struct csm_store *s)
{
	if (s->journal.fd >= 0)
		close(s->journal.fd);
	csm_buf_free(&s->changes.rows);
	csm_buf_free(&s->journal.in);
}

int journal_erase(struct csm_store *s)
{
	struct journal *j = &s->journal;
	int r = j->fd >= 0 && j->high > 0 ? zeros(j->fd, j->high) : 0;

	if (r == 0)
		j->high = 0;
	return r;
}

/* ---- changes ---- */

void changes_begin(struct csm_store *s)
{
	static const uint8_t head[JOURNAL_HEAD];
	struct changes *c = &s->changes;

	csm_buf_reset(&c->rows);
	c->on = true;
	c->n = 0;
	c->too_many = csm_buf_put(&c->rows, head, sizeof(head)) != 0;
}

struct changes_mark changes_mark(const struct csm_store *s)
{
	return (struct changes_mark){s->changes.n, s->changes.rows.len};
}

void changes_undo(struct csm_store *s, struct changes_mark mark)
{
	s->changes.n = mark.n;
	s->changes.rows.len = mark.len;
}

static unsigned number_of(const struct csm_store *s, MDB_dbi dbi)
{
	return dbi < STORE_DBS_MAX ? s->number[dbi] : 0;
}

void changes_add(struct csm_store *s, MDB_dbi dbi, struct csm_bin key, const struct csm_bin *value)
{
	struct changes *c = &s->changes;
	size_t n = ROW_HEAD + key.n + (value != NULL ? value->n : 0);
	uint8_t *p;

	if (!c->on)
		return;
	c->n++;
	if (c->too_many || key.n > STORE_KEY_MAX || n > ROOM || csm_buf_reserve(&c->rows, n, &p) != 0) {
		c->too_many = true;
		return;
	}
	p[0] = (uint8_t)number_of(s, dbi);
	p[1] = value == NULL;
	put16(p + 2, (uint16_t)key.n);
	put32(p + 4, value != NULL ? (uint32_t)value->n : 0);
	memcpy(p + ROW_HEAD, key.p, key.n);
	if (value != NULL && value->n > 0)
		memcpy(p + ROW_HEAD + key.n, value->p, value->n);
	csm_buf_commit(&c->rows, n);
}

static MDB_dbi database(const struct csm_store *s, unsigned number)
{
	for (MDB_dbi i = 0; i < STORE_DBS_MAX; i++)
		if (number != 0 && s->number[i] == number)
			return i;
	return 0;
}

int changes_next(const struct csm_store *s, struct csm_bin *rows, struct change_row *ret)
{
	const uint8_t *p = rows->p;
	struct change_row c;

	if (rows->n < ROW_HEAD)
		return CSM_ETAMPERED;
	c = (struct change_row){.dbi = database(s, p[0]), .del = p[1] != 0, .key = {p + ROW_HEAD, get16(p + 2)}};
	c.value = (struct csm_bin){p + ROW_HEAD + c.key.n, get32(p + 4)};
	if (c.dbi == 0 || p[1] > 1 || c.key.n == 0 || c.key.n > STORE_KEY_MAX || rows->n - ROW_HEAD < c.key.n ||
		rows->n - ROW_HEAD - c.key.n < c.value.n)
		return CSM_ETAMPERED;
	*rows = (struct csm_bin){c.value.p + c.value.n, rows->n - ROW_HEAD - c.key.n - c.value.n};
	*ret = c;
	return 0;
}

/* ---- writing ---- */

int journal_base(struct csm_store *s, MDB_txn *txn)
{
	static const struct csm_bin name = {(const uint8_t *)"root", 4};
	struct csm_bin v;
	int r = store_get(txn, s->meta, name, &v);

	if (r == 0)
		prk_mac(&s->sub->journal, &(struct part){v.p, v.n}, 1, s->journal.head);
	return r;
}

bool journal_takes(const struct csm_store *s)
{
	const struct journal *j = &s->journal;
	size_t n = whole_pages(s->changes.rows.len + MAC_LEN);

	return j->fd >= 0 && !s->changes.too_many && n <= ROOM && n <= JOURNAL_SIZE - j->used;
}

/* An entry that may be on the disk though it was not answered must not count. */
static void entry_kill(struct csm_store *s)
{
	static const uint8_t zero[PAGE];
	struct journal *j = &s->journal;

	if (write_at(j->fd, zero, sizeof(zero), j->used) == 0 && fdatasync(j->fd) == 0)
		return;
	j->dead = true;
	if (s->lost != NULL)
		s->lost();
}

void journal_undo(struct csm_store *s)
{
	if (s->journal.unsure)
		entry_kill(s);
	s->journal.unsure = false;
}

int journal_append(struct csm_store *s, uint64_t generation)
{
	struct csm_buf *b = &s->changes.rows;
	struct journal *j = &s->journal;
	size_t n = b->len, whole = whole_pages(n + MAC_LEN);
	uint8_t *p, mac[MAC_LEN];
	int r;

	if ((r = csm_buf_reserve(b, whole - n, &p)) != 0)
		return r;
	memset(p, 0, whole - n);
	csm_buf_commit(b, whole - n);
	p = b->p + b->off;
	memcpy(p, MAGIC, OFF_GENERATION);
	put64(p + OFF_GENERATION, generation);
	put64(p + OFF_LENGTH, n - JOURNAL_HEAD);
	memcpy(p + OFF_PREV, j->head, MAC_LEN);
	prk_mac(&s->sub->journal, &(struct part){p, n}, 1, mac);
	memcpy(p + n, mac, MAC_LEN);
	b->len = n; /* what comes behind is no row */
	j->unsure = true;
	if (j->high < j->used + whole)
		j->high = j->used + whole;
	if ((r = write_at(j->fd, p, whole, j->used)) != 0)
		return r;
	if (fdatasync(j->fd) != 0)
		return store_err(errno);
	j->unsure = false;
	memcpy(j->head, mac, MAC_LEN);
	j->used += whole;
	j->entries++;
	return 0;
}

/* ---- reading ---- */

struct entry {
	uint64_t generation;
	uint8_t prev[MAC_LEN], mac[MAC_LEN];
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
			return store_err(got < 0 ? errno : EIO);
		p += got;
		n -= (size_t)got;
		at += (size_t)got;
	}
	return 0;
}

/* Could it be the head of an entry there, newer than `generation`? */
static bool head_fits(const uint8_t head[static JOURNAL_HEAD], size_t at, uint64_t generation)
{
	return memcmp(head, MAGIC, OFF_GENERATION) == 0 && get64(head + OFF_GENERATION) > generation &&
		get64(head + OFF_LENGTH) <= JOURNAL_SIZE - at - JOURNAL_HEAD - MAC_LEN;
}

/* A genuine entry there, newer than `generation`. CSM_ENOT_FOUND: none. */
static int entry_read(struct csm_store *s, size_t at, uint64_t generation, struct entry *ret)
{
	struct journal *j = &s->journal;
	uint8_t head[JOURNAL_HEAD], mac[MAC_LEN], *p;
	size_t n;
	int r;

	if (at + PAGE > JOURNAL_SIZE)
		return CSM_ENOT_FOUND;
	if ((r = read_at(j->fd, head, sizeof(head), at)) != 0)
		return r;
	if (!head_fits(head, at, generation))
		return CSM_ENOT_FOUND;
	n = JOURNAL_HEAD + (size_t)get64(head + OFF_LENGTH);
	csm_buf_reset(&j->in);
	if ((r = csm_buf_reserve(&j->in, n + MAC_LEN, &p)) != 0 || (r = read_at(j->fd, p, n + MAC_LEN, at)) != 0)
		return r;
	prk_mac(&s->sub->journal, &(struct part){p, n}, 1, mac);
	if (sodium_memcmp(mac, p + n, MAC_LEN) != 0)
		return CSM_ENOT_FOUND;
	*ret = (struct entry){.generation = get64(p + OFF_GENERATION), .rows = {p + JOURNAL_HEAD, n - JOURNAL_HEAD},
		.whole = whole_pages(n + MAC_LEN)};
	memcpy(ret->prev, p + OFF_PREV, MAC_LEN);
	memcpy(ret->mac, mac, MAC_LEN);
	return 0;
}

static int rows_apply(struct csm_store *s, MDB_txn *txn, struct csm_bin rows)
{
	struct change_row c;
	int r = 0;

	while (r == 0 && rows.n > 0) {
		if ((r = changes_next(s, &rows, &c)) != 0)
			break;
		r = c.del ? store_del(s, txn, c.dbi, c.key) : store_put(s, txn, c.dbi, c.key, c.value);
		if (c.del && r == CSM_ENOT_FOUND)
			r = 0;
	}
	return r;
}

/* Each entry was synced before the next was written: a genuine one behind the end was cut off from those that it follows on. */
static int nothing_behind(struct csm_store *s, size_t at, uint64_t generation)
{
	uint8_t *p = malloc(STRIDE);
	struct entry e;
	int r = CSM_ENOT_FOUND;

	if (p == NULL)
		return CSM_ENOMEM;
	for (; at < JOURNAL_SIZE && r == CSM_ENOT_FOUND; at += STRIDE) {
		size_t n = JOURNAL_SIZE - at < STRIDE ? JOURNAL_SIZE - at : STRIDE;

		if ((r = read_at(s->journal.fd, p, n, at)) != 0)
			break;
		r = CSM_ENOT_FOUND;
		for (size_t i = 0; i < n && r == CSM_ENOT_FOUND; i += PAGE) {
			s->journal.high = sodium_is_zero(p + i, JOURNAL_HEAD) ? s->journal.high : JOURNAL_SIZE;
			if (head_fits(p + i, at + i, generation))
				r = entry_read(s, at + i, generation, &e);
		}
	}
	free(p);
	return r == CSM_ENOT_FOUND ? 0 : r == 0 ? CSM_ETAMPERED : r;
}

int journal_replay(struct csm_store *s, MDB_txn *txn, uint64_t generation)
{
	struct journal *j = &s->journal;
	struct entry e;
	int r;

	j->used = 0;
	j->entries = 0;
	j->high = JOURNAL_SIZE;
	if (j->fd < 0)
		return 0;
	if ((r = journal_base(s, txn)) != 0)
		return r;
	while ((r = entry_read(s, j->used, generation, &e)) == 0) {
		if (e.generation != generation + 1 || sodium_memcmp(e.prev, j->head, MAC_LEN) != 0)
			return CSM_ETAMPERED;
		if ((r = rows_apply(s, txn, e.rows)) != 0)
			return r;
		generation = e.generation;
		memcpy(j->head, e.mac, MAC_LEN);
		j->used += e.whole;
		j->entries++;
	}
	if (r != CSM_ENOT_FOUND)
		return r;
	j->high = j->used; /* it may have nothing to erase */
	r = nothing_behind(s, j->used, generation);
	csm_buf_free(&j->in);
	return r;
}

int journal_reapply(struct csm_store *s, MDB_txn *txn)
{
	struct journal *j = &s->journal;
	size_t used = j->used;
	uint64_t entries = j->entries;
	struct entry e = {0};
	size_t at = 0;
	int r = 0;

	for (uint64_t i = 0; i < entries && r == 0; i++, at += e.whole)
		if ((r = entry_read(s, at, 0, &e)) == 0)
			r = rows_apply(s, txn, e.rows);
	csm_buf_free(&j->in);
	if (r == CSM_ENOT_FOUND || (r == 0 && (at != used || sodium_memcmp(e.mac, j->head, MAC_LEN) != 0)))
		return CSM_ESYSTEM; /* what was synced cannot be read back */
	return r;
}
