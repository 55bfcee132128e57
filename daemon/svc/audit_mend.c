/* After a crash: what was not synced may be there or not, sector by sector. The store tells which lines have to be there,
 * and has those that the file may lack; what follows them in the file stays as far as it is a chain. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"
#include "libclient/base/hex.h"

/* All that is behind `at` into m->rest. */
static int read_rest(const struct log_file *f, struct mend *m)
{
	size_t n = (size_t)(f->size - m->at), got = 0;
	uint8_t *p;
	int r;

	csm_buf_reset(&m->rest);
	if ((r = csm_buf_reserve(&m->rest, n + 1, &p)) != 0)
		return r;
	while (got < n) {
		ssize_t k = pread(f->fd, p + got, n - got, (off_t)(m->at + got));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return CSM_ESYSTEM;
		got += (size_t)k;
	}
	csm_buf_commit(&m->rest, n);
	return 0;
}

/* From here on the file is written anew. */
static int cut_here(struct csm_audit *a)
{
	struct log_file *f = &a->f;
	struct mend *m = &a->mend;
	int r = read_rest(f, m);

	if (r != 0)
		return r;
	if (ftruncate(f->fd, (off_t)m->at) != 0)
		return CSM_ESYSTEM;
	f->size = m->at;
	f->seq = m->seq;
	memcpy(f->head, m->head, CSM_CHAIN_HASH);
	m->anew = true;
	return 0;
}

static int append_line(struct csm_audit *a, const struct csm_chain_line *l, struct csm_str text)
{
	struct log_file *f = &a->f;
	int r;

	csm_buf_reset(&f->out);
	f->out_seq = l->seq;
	f->out_signed = 0;
	memcpy(f->out_head, l->next, CSM_CHAIN_HASH);
	if ((r = csm_buf_put(&f->out, text.p, text.n)) != 0 || (r = csm_buf_put(&f->out, "\n", 1)) != 0)
		return r;
	return log_write(f);
}

static void step(struct mend *m, const struct csm_chain_line *l, size_t n)
{
	m->at += n + 1;
	m->seq = l->seq;
	memcpy(m->head, l->next, CSM_CHAIN_HASH);
}

/* ---- lines that the store has ---- */

/* Where is the line before the first of them? */
static int begin(struct csm_audit *a, const struct csm_chain_line *l)
{
	struct mend *m = &a->mend;
	int r;

	if (l->seq == a->f.first) {
		m->at = 0;
		memcpy(m->head, l->prev, CSM_CHAIN_HASH);
	} else if ((r = log_locate(&a->f, l->seq - 1, m->head, &m->at)) != 0) {
		return r;
	}
	m->seq = l->seq - 1;
	m->begun = true;
	return 0;
}

/* There is no file any more: it begins with the lines that the store has, or, where they do not follow what is in older files,
 * with one that says which are gone. prev: what the line follows, as the store has it; its hash shows whether that is true. */
static int begin_anew(struct csm_audit *a, const struct csm_chain_line *l, const uint8_t *prev)
{
	struct log_file *f = &a->f;
	struct mend *m = &a->mend;
	int r;

	if (prev == NULL || !csm_chain_follows(l, prev))
		return CSM_ENOT_FOUND;
	if (l->seq == f->seq + 1) {
		if (!csm_str_eq(l->event, "file") || memcmp(prev, f->head, CSM_CHAIN_HASH) != 0)
			return CSM_ENOT_FOUND;
		if ((r = log_create(f)) != 0)
			return r;
		f->first = l->seq;
	} else {
		f->gone = (struct gone){.first = f->seq + 1, .seq = l->seq - 1};
		memcpy(f->gone.head, prev, CSM_CHAIN_HASH);
		a->gone_first = f->gone.first;
		a->gone_last = f->gone.seq;
		if ((r = log_room(f, NULL)) != 0)
			return r;
	}
	m->at = f->size;
	m->seq = l->seq - 1;
	memcpy(m->head, prev, CSM_CHAIN_HASH);
	m->anew = m->begun = true;
	return 0;
}

static bool is_there(const struct log_file *f, const struct mend *m, struct csm_str text)
{
	char there[CSM_CHAIN_LINE_MAX + 1];

	return text.n < CSM_CHAIN_LINE_MAX && pread(f->fd, there, text.n + 1, (off_t)m->at) == (ssize_t)text.n + 1 &&
		memcmp(there, text.p, text.n) == 0 && there[text.n] == '\n';
}

static int restore_line(struct csm_audit *a, struct csm_str text, const uint8_t *prev, struct csm_chain_line *line)
{
	struct log_file *f = &a->f;
	struct mend *m = &a->mend;
	struct csm_chain_line l;
	int r;

	if (csm_chain_parse(text.p, text.n, &l) != 0)
		return CSM_ETAMPERED;
	*line = l;
	/* A file is synced before another one follows it. */
	if (l.seq < f->first || (f->first == 0 && l.seq <= f->seq) || (m->begun && l.seq <= m->seq))
		return 0;
	if (f->first == 0 && (r = begin_anew(a, &l, prev)) != 0)
		return r;
	if ((!m->begun && begin(a, &l) != 0) || l.seq != m->seq + 1 || !csm_chain_follows(&l, m->head))
		return CSM_ENOT_FOUND;
	if (m->anew || !is_there(f, m, text)) {
		if ((!m->anew && (r = cut_here(a)) != 0) || (r = append_line(a, &l, text)) != 0)
			return r;
		a->restored++;
	}
	step(m, &l, text.n);
	return 0;
}

int csm_audit_restore(struct csm_audit *a, struct csm_bin lines)
{
	const char *p = (const char *)lines.p, *all = p + lines.n, *end;
	uint8_t prev[CSM_CHAIN_HASH];
	struct csm_chain_line l;
	bool known = false; /* prev */
	int r = 0;

	pthread_mutex_lock(&a->file_lock);
	for (; r == 0 && p < all; p = end + 1) {
		end = memchr(p, '\n', (size_t)(all - p));
		if (end == NULL) {
			r = CSM_ETAMPERED;
		} else if (!known && *p != '{') {
			r = csm_unhex((struct csm_str){p, (size_t)(end - p)}, prev, sizeof(prev)) == 0 ? 0 : CSM_ETAMPERED;
		} else if ((r = restore_line(a, (struct csm_str){p, (size_t)(end - p)}, known ? prev : NULL, &l)) == 0) {
			memcpy(prev, l.next, CSM_CHAIN_HASH);
		}
		known = true;
		if (end == NULL)
			break;
	}
	pthread_mutex_unlock(&a->file_lock);
	return r;
}

/* ---- what follows ---- */

static bool ends_in_stop(const struct log_file *f, uint64_t seq)
{
	return seq > 1 && log_is_event(f, seq - 1, "stop") && log_is_event(f, seq, "checkpoint");
}

/* What is cut off is kept beside the log, if it is more than half a line. */
static void put_aside(const struct log_file *f, const uint8_t *p, size_t n)
{
	char name[AUDIT_NAME_MAX];
	int fd;

	if (n == 0 || memchr(p, '\n', n) == NULL)
		return;
	snprintf(name, sizeof(name), "damaged-%lld.log", (long long)time(NULL));
	fd = openat(f->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		log_warn("%zu bytes behind the end of the audit log are lost", n);
	else
		log_warn("%zu bytes behind the end of the audit log are kept as %s", n, name);
	if (fd >= 0)
		close(fd);
}

/* The lines of rest that go on where m is; *used: bytes up to the end of the last one, without junk before them. */
static int go_on(struct csm_audit *a, size_t *used)
{
	struct mend *m = &a->mend;
	const char *p = (const char *)csm_buf_ptr(&m->rest), *all = p + m->rest.len, *end;
	struct csm_chain_line l;
	int r = 0;

	*used = 0;
	for (; r == 0 && p < all && (end = memchr(p, '\n', (size_t)(all - p))) != NULL; p = end + 1) {
		struct csm_str text = {p, (size_t)(end - p)};

		if (csm_chain_parse(p, text.n, &l) != 0 || l.seq != m->seq + 1 || !csm_chain_follows(&l, m->head)) {
			/* Lines that were restored before stood here, too. */
			if (m->anew && *used == 0)
				continue;
			break;
		}
		if (m->anew)
			r = append_line(a, &l, text);
		step(m, &l, text.n);
		*used += text.n + 1;
	}
	return r;
}

/* Where the chain has to go on: behind the lines that were restored, else behind the one that the store names. */
static int find_place(struct csm_audit *a, uint64_t seq, const uint8_t *head)
{
	struct log_file *f = &a->f;
	struct mend *m = &a->mend;
	int r;

	if (m->begun)
		return 0;
	if (seq < f->first) {
		m->at = 0;
		m->seq = f->first - 1;
		return log_prev(f, m->head);
	}
	m->seq = seq;
	if ((r = log_locate(f, seq, m->head, &m->at)) != 0)
		return r;
	return memcmp(m->head, head, CSM_CHAIN_HASH) == 0 ? 0 : CSM_ETAMPERED;
}

int audit_settle(struct csm_audit *a, uint64_t seq, const uint8_t *head)
{
	struct log_file *f = &a->f;
	struct mend *m = &a->mend;
	size_t used, dropped;
	int r;

	/* What is not there, or another line, is not mended: that is told. */
	if (f->first == 0 || find_place(a, seq, head) != 0)
		return 0;
	if (!m->anew && (r = read_rest(f, m)) != 0)
		return r;
	if ((r = go_on(a, &used)) != 0)
		return r;
	dropped = m->rest.len - used;
	f->seq = m->seq;
	memcpy(f->head, m->head, CSM_CHAIN_HASH);
	f->damaged = false;
	if (dropped > 0 && !m->anew && used == 0 && ends_in_stop(f, seq)) {
		f->damaged = true; /* after a clean stop there is nothing */
	} else if (dropped > 0) {
		if (!m->anew && ftruncate(f->fd, (off_t)m->at) != 0)
			return CSM_ESYSTEM;
		if (!m->anew)
			put_aside(f, csm_buf_ptr(&m->rest) + used, dropped);
		f->size = m->at;
		a->repaired += dropped;
	}
	csm_buf_free(&m->rest);
	csm_buf_init(&m->rest, SIZE_MAX, false);
	return 0;
}
