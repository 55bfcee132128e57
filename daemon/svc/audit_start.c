/* The audit log's start, where it is compared with what the store knows of it, and its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"

#define MAX_SIZE (64u * 1024u * 1024u)
#define MAX_FILES 16u
#define OUT_MAX (2u * AUDIT_BATCH * CSM_CHAIN_LINE_MAX)
#define LOOSE_MAX (8u * 1024u * 1024u)

static int open_folder(struct csm_audit *a, const char *dir)
{
	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return CSM_ESYSTEM;
	a->f.dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return a->f.dir < 0 ? CSM_ESYSTEM : log_open(&a->f, &a->repaired);
}

int csm_audit_open(const struct csm_audit_options *opt, struct csm_audit **ret)
{
	struct csm_audit *a = calloc(1, sizeof(*a));
	pthread_condattr_t attr;
	int r;

	if (a == NULL)
		return CSM_ENOMEM;
	rows_init();
	a->strict = opt->strict;
	a->tail = &a->head;
	a->f.dir = a->f.fd = -1;
	a->f.max_size = opt->max_size > 0 ? opt->max_size : MAX_SIZE;
	a->f.max_files = opt->max_files > 0 ? opt->max_files : MAX_FILES;
	a->minute = time(NULL) / 60;
	csm_buf_init(&a->f.out, OUT_MAX, false);
	csm_buf_init(&a->f.loose, LOOSE_MAX, false);
	pthread_mutex_init(&a->lock, NULL);
	pthread_mutex_init(&a->file_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
	if ((r = open_folder(a, opt->dir)) != 0) {
		csm_audit_close(a);
		return r;
	}
	a->st.seq = a->f.seq;
	memcpy(a->st.head, a->f.head, CSM_CHAIN_HASH);
	*ret = a;
	return 0;
}

struct start {
	uint64_t anchor;
	bool broken;
	uint64_t seq; /* for the line of the break: behind this one, */
	const uint8_t *prev;
	char why[160];
};

static int make_start(struct csm_audit *a, void *arg)
{
	const struct start *s = arg;
	char body[64];
	int r = 0;

	if (s->broken)
		r = log_break(&a->f, s->seq, s->prev, s->why);
	snprintf(body, sizeof(body), ",\"version\":\"%s\",\"anchor\":%llu", CSM_VERSION, (unsigned long long)s->anchor);
	if (r == 0)
		r = log_line(&a->f, "start", body);
	return r != 0 ? r : audit_make_checkpoint(a, NULL);
}

/* Under the file's lock: is the log as it was left? */
static void compare(struct csm_audit *a, uint64_t seq, const uint8_t *head, struct start *s)
{
	struct log_file *f = &a->f;
	int r = seq == 0 ? 0 : log_find_line(f, seq, head);

	*s = (struct start){.anchor = seq, .seq = f->seq, .prev = f->head};
	if (f->first == 0 && (f->seq == 0 || r != 0)) {
		/* All of it was moved away, or the last file: what is written follows what the store names. */
		if (seq > f->seq) {
			f->seq = seq;
			memcpy(f->head, head, CSM_CHAIN_HASH);
		}
		return;
	}
	if (r != 0) {
		snprintf(s->why, sizeof(s->why), "line %llu, which the store names last, is %s", (unsigned long long)seq,
			r == CSM_ETAMPERED ? "another one" : "not there");
		s->prev = head;
		s->seq = seq > f->seq ? seq : f->seq;
	} else if (f->damaged) {
		snprintf(s->why, sizeof(s->why), "the last lines do not follow from those before them");
	}
	s->broken = r != 0 || f->damaged;
}

/* One line of the store's behind the last one of the file. */
static int restore_line(struct csm_audit *a, struct csm_str text)
{
	struct log_file *f = &a->f;
	struct csm_chain_line l;
	int r;

	if (csm_chain_parse(text.p, text.n, &l) != 0)
		return CSM_ETAMPERED;
	if (l.seq <= f->valid_seq)
		return 0;
	if (f->fd < 0 || l.seq != f->valid_seq + 1 || !csm_chain_follows(&l, f->head))
		return CSM_ENOT_FOUND;
	/* What a crash has left behind the end of the chain was never durable. */
	if (f->size > f->valid) {
		if (ftruncate(f->fd, (off_t)f->valid) != 0)
			return CSM_ESYSTEM;
		a->repaired += f->size - f->valid;
		f->size = f->valid;
		f->damaged = false;
	}
	csm_buf_reset(&f->out);
	f->out_seq = l.seq;
	f->out_signed = 0;
	memcpy(f->out_head, l.hash, CSM_CHAIN_HASH);
	if (csm_buf_put(&f->out, text.p, text.n) != 0 || csm_buf_put(&f->out, "\n", 1) != 0)
		return CSM_ENOMEM;
	if ((r = log_write(f)) != 0)
		return r;
	f->valid = f->size;
	f->valid_seq = l.seq;
	a->restored++;
	return 0;
}

int csm_audit_restore(struct csm_audit *a, struct csm_bin lines)
{
	const char *p = (const char *)lines.p, *all = p + lines.n, *end;
	int r = 0;

	pthread_mutex_lock(&a->file_lock);
	for (; r == 0 && p < all; p = end + 1) {
		end = memchr(p, '\n', (size_t)(all - p));
		if (end == NULL)
			r = CSM_ETAMPERED;
		else
			r = restore_line(a, (struct csm_str){p, (size_t)(end - p)});
		if (r != 0)
			break;
	}
	pthread_mutex_unlock(&a->file_lock);
	return r;
}

void csm_audit_attach(struct csm_audit *a, uint64_t seq, const uint8_t head[static CSM_CHAIN_HASH],
	const struct csm_audit_signer *signer)
{
	struct start s;

	pthread_mutex_lock(&a->file_lock);
	compare(a, seq, head, &s);
	a->signer = *signer;
	a->has_signer = true;
	pthread_mutex_unlock(&a->file_lock);
	pthread_mutex_lock(&a->lock);
	a->st.broken = s.broken;
	a->st.has_key = true;
	memcpy(a->st.key, signer->key, CSM_CHAIN_KEY);
	pthread_mutex_unlock(&a->lock);
	a->anchored = seq;
	if (a->restored > 0)
		log_info("the audit log got %llu lines back that a crash had kept from it", (unsigned long long)a->restored);
	if (s.broken)
		log_err("the audit log was changed behind csmd: %s", s.why);
	if (audit_put(a, make_start, &s, NULL) != 0)
		log_err("the line of the start is not in the audit log");
}

static int make_stop(struct csm_audit *a, void *arg)
{
	int r = log_line(&a->f, "stop", "");

	return r != 0 ? r : audit_make_checkpoint(a, arg);
}

void csm_audit_stop(struct csm_audit *a)
{
	if (a == NULL || a->stopped)
		return;
	pthread_mutex_lock(&a->lock);
	a->stopping = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
	if (a->started)
		pthread_join(a->thread, NULL);
	audit_serve_waiting(a);
	audit_collect(a);
	audit_write_counted(a);
	if (a->has_signer && audit_put(a, make_stop, NULL, NULL) != 0)
		log_err("the audit log's last line could not be written");
	a->stopped = true;
	pthread_mutex_lock(&a->file_lock);
	a->has_signer = false;
	pthread_mutex_unlock(&a->file_lock);
}

void csm_audit_close(struct csm_audit *a)
{
	if (a == NULL)
		return;
	csm_audit_stop(a);
	if (a->f.fd >= 0)
		close(a->f.fd);
	if (a->f.dir >= 0)
		close(a->f.dir);
	rows_clear(&a->denied);
	rows_clear(&a->left);
	rows_clear(&a->counted);
	rows_clear(&a->refused);
	csm_buf_free(&a->f.out);
	csm_buf_free(&a->f.loose);
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->file_lock);
	pthread_mutex_destroy(&a->lock);
	free(a);
}
