/* The audit log's start, where it is compared with what the store knows of it, and its end. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

/* A folder that has just been made stays, too. */
static int sync_parent(const char *dir)
{
	char parent[PATH_MAX];
	const char *end = strrchr(dir, '/');
	int fd, r;

	if (end == NULL || (size_t)(end - dir) >= sizeof(parent))
		return CSM_ESYSTEM;
	snprintf(parent, sizeof(parent), "%.*s", end == dir ? 1 : (int)(end - dir), dir);
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return CSM_ESYSTEM;
	r = fsync(fd) == 0 ? 0 : CSM_ESYSTEM;
	close(fd);
	return r;
}

static int open_folder(struct csm_audit *a, const char *dir)
{
	if (mkdir(dir, 0700) == 0 ? sync_parent(dir) != 0 : errno != EEXIST)
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
	csm_buf_init(&a->mend.rest, SIZE_MAX, false);
	pthread_mutex_init(&a->lock, NULL);
	pthread_mutex_init(&a->file_lock, NULL);
	pthread_mutex_init(&a->sync_lock, NULL);
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

int audit_make_break(struct csm_audit *a)
{
	const struct start *s = &a->start;
	uint64_t seq = a->f.out_seq > s->seq ? a->f.out_seq : s->seq;
	uint8_t prev[CSM_CHAIN_HASH];

	if (!s->broken)
		return 0;
	memcpy(prev, s->other ? s->prev : a->f.out_head, sizeof(prev));
	return log_break(&a->f, seq, prev, s->why);
}

int audit_make_start(struct csm_audit *a)
{
	char body[160], gone[80] = "";
	int r;

	if (a->gone_last != 0)
		snprintf(gone, sizeof(gone), ",\"first\":%llu,\"last\":%llu", (unsigned long long)a->gone_first,
			(unsigned long long)a->gone_last);
	snprintf(body, sizeof(body), ",\"version\":\"%s\",\"anchor\":%llu%s", CSM_VERSION, (unsigned long long)a->start.anchor,
		gone);
	r = log_line(&a->f, "start", body);
	return r != 0 ? r : audit_make_checkpoint(a, NULL);
}

/* Under the file's lock: is the log as it was left? */
static void compare(struct csm_audit *a, uint64_t seq, const uint8_t *head, struct start *s)
{
	struct log_file *f = &a->f;
	int r = seq == 0 ? 0 : log_find_line(f, seq, head);

	*s = (struct start){.due = true, .anchor = seq, .seq = f->seq};
	if (f->first == 0 && seq > f->seq) {
		/* All of it is gone, or the last file: the next one says so, and goes on behind what the store names. */
		f->gone = (struct gone){.first = f->seq + 1, .seq = seq};
		memcpy(f->gone.head, head, CSM_CHAIN_HASH);
		a->gone_first = f->gone.first;
		a->gone_last = seq;
		return;
	}
	if (r != 0) {
		snprintf(s->why, sizeof(s->why), "line %llu, which the store names last, is %s", (unsigned long long)seq,
			r == CSM_ETAMPERED ? "another one" : "not there");
		memcpy(s->prev, head, CSM_CHAIN_HASH);
		s->other = true;
		s->seq = seq > f->seq ? seq : f->seq;
	} else if (f->damaged) {
		snprintf(s->why, sizeof(s->why), "the last lines do not follow from those before them");
	}
	s->broken = r != 0 || f->damaged;
}

void csm_audit_attach(struct csm_audit *a, uint64_t seq, const uint8_t head[static CSM_CHAIN_HASH],
	const struct csm_audit_signer *signer)
{
	uint8_t end_head[CSM_CHAIN_HASH];
	uint64_t end;
	const struct start *s = &a->start;

	pthread_mutex_lock(&a->file_lock);
	if (audit_settle(a, seq, head) != 0)
		log_err("the end of the audit log cannot be read or mended: %s", strerror(errno));
	compare(a, seq, head, &a->start);
	a->signer = *signer;
	a->has_signer = true;
	end = a->f.seq;
	memcpy(end_head, a->f.head, CSM_CHAIN_HASH);
	pthread_mutex_unlock(&a->file_lock);
	pthread_mutex_lock(&a->lock);
	/* What was mended may end before the file that was found; lines of these numbers are written anew. */
	a->st.seq = end;
	memcpy(a->st.head, end_head, CSM_CHAIN_HASH);
	a->anchored = seq;
	memcpy(a->anchored_head, head, CSM_CHAIN_HASH);
	a->st.broken = s->broken;
	a->st.gone_first = a->gone_first;
	a->st.gone_last = a->gone_last;
	a->st.has_key = true;
	memcpy(a->st.key, signer->key, CSM_CHAIN_KEY);
	pthread_mutex_unlock(&a->lock);
	if (a->restored > 0)
		log_info("the audit log got %llu lines back that a crash had kept from it", (unsigned long long)a->restored);
	if (s->broken)
		log_err("the audit log was changed behind csmd: %s", s->why);
	if (a->gone_last != 0)
		log_err("audit.log is not there: lines %llu to %llu of the audit log are gone", (unsigned long long)a->gone_first,
			(unsigned long long)a->gone_last);
	if (audit_put(a, NULL, NULL, NULL) != 0)
		log_err("the line of the start is not in the audit log yet");
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
	if (a->has_signer && audit_put(a, make_stop, NULL, NULL) != 0) {
		log_err("the audit log's last line could not be written");
		/* If it was the sync, once more. */
		if (audit_put(a, NULL, NULL, NULL) != 0)
			log_err("nor could what was written before it be synced");
	}
	pthread_mutex_lock(&a->file_lock);
	a->has_signer = false;
	pthread_mutex_unlock(&a->file_lock);
	pthread_mutex_lock(&a->lock);
	a->stopped = true;
	pthread_mutex_unlock(&a->lock);
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
	csm_buf_free(&a->mend.rest);
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->file_lock);
	pthread_mutex_destroy(&a->sync_lock);
	pthread_mutex_destroy(&a->lock);
	free(a);
}
