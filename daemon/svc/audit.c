#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "daemon/svc/audit.h"
#include "proto-spec/limits.h"

#define LINE_MAX_BYTES 2048
#define DENIED_ALONE 10u  /* of one uid in a minute, a line each */
#define ROWS_MAX 4096u    /* counted rows of one minute; further ones share a row */
#define ROW_BUCKETS 1024u

/* A counted row: uses by identity, method and object, or denials of an identity beyond the first ten. */
struct row {
	enum csm_audit_kind kind;
	const char *method; /* static */
	uid_t uid;
	uint64_t n;
	size_t object_len;
	struct row *next;
	char object[];
};

struct csm_audit {
	pthread_mutex_t lock;
	int fd;
	bool strict, failing, dirty;
	bool torn; /* the file ends in half a line */
	time_t minute;
	size_t n_rows;
	struct row *rows[ROW_BUCKETS];
};

/* A crash, or a disk without room, may have left half a line. */
static bool ends_torn(int fd)
{
	struct stat st;
	char last;

	return fstat(fd, &st) == 0 && st.st_size > 0 && pread(fd, &last, 1, st.st_size - 1) == 1 && last != '\n';
}

int csm_audit_open(const char *dir, bool strict, struct csm_audit **ret)
{
	struct csm_audit *a = calloc(1, sizeof(*a));
	char path[512];

	if (a == NULL)
		return CSM_ENOMEM;
	a->fd = -1;
	a->strict = strict;
	pthread_mutex_init(&a->lock, NULL);
	if ((size_t)snprintf(path, sizeof(path), "%s/audit.log", dir) < sizeof(path) &&
		(mkdir(dir, 0700) == 0 || errno == EEXIST))
		a->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (a->fd < 0) {
		csm_audit_close(a);
		return CSM_ESYSTEM;
	}
	a->torn = ends_torn(a->fd);
	a->minute = time(NULL) / 60;
	*ret = a;
	return 0;
}

static const char *kind_name(enum csm_audit_kind kind)
{
	return kind == CSM_AUDIT_CHANGE ? "change" : kind == CSM_AUDIT_DENIED ? "denied" : "use";
}

static void write_line(struct csm_audit *a, json_t *row)
{
	char *text = row == NULL ? NULL : json_dumps(row, JSON_COMPACT);
	char line[LINE_MAX_BYTES];
	/* Half a line is ended first: the next one stays whole. */
	int n = text == NULL ? -1 : snprintf(line, sizeof(line), "%s%s\n", a->torn ? "\n" : "", text);
	ssize_t done = n < 0 || (size_t)n >= sizeof(line) ? -1 : write(a->fd, line, (size_t)n);

	a->failing = done < 0 || done != n;
	if (done > 0)
		a->torn = line[done - 1] != '\n';
	a->dirty = true;
	free(text);
	json_decref(row);
}

static json_t *base_row(enum csm_audit_kind kind, const char *method, uid_t uid, struct csm_str object)
{
	return json_pack("{s:I, s:s, s:s, s:I, s:s%}", "time", (json_int_t)time(NULL), "event", kind_name(kind), "method",
		method, "uid", (json_int_t)uid, "object", object.n > 0 ? object.p : "", object.n);
}

static unsigned hash_of(uid_t uid, const char *method, struct csm_str object)
{
	unsigned h = 2166136261u ^ uid;

	for (const char *p = method; *p != '\0'; p++)
		h = (h ^ (unsigned char)*p) * 16777619u;
	for (size_t i = 0; i < object.n; i++)
		h = (h ^ (unsigned char)object.p[i]) * 16777619u;
	return h % ROW_BUCKETS;
}

static struct row *row_of(struct csm_audit *a, enum csm_audit_kind kind, const char *method, uid_t uid,
	struct csm_str object)
{
	struct row **head, *w;

	if (a->n_rows >= ROWS_MAX)
		object = CSM_STR("(others)");
	head = &a->rows[hash_of(uid, method, object)];
	for (w = *head; w != NULL; w = w->next)
		if (w->kind == kind && w->uid == uid && strcmp(w->method, method) == 0 && w->object_len == object.n &&
			memcmp(w->object, object.p, object.n) == 0)
			return w;
	w = calloc(1, sizeof(*w) + object.n + 1);
	if (w == NULL)
		return NULL;
	w->kind = kind;
	w->method = method;
	w->uid = uid;
	w->object_len = object.n;
	memcpy(w->object, object.p, object.n);
	w->next = *head;
	*head = w;
	a->n_rows++;
	return w;
}

/* The minute is over: its counted rows become lines. */
static void flush_rows(struct csm_audit *a)
{
	for (size_t i = 0; i < ROW_BUCKETS; i++) {
		struct row *w;

		while ((w = a->rows[i]) != NULL) {
			uint64_t n = w->n;

			a->rows[i] = w->next;
			/* Of denials the first ten have had their own lines. */
			if (w->kind == CSM_AUDIT_DENIED)
				n = n > DENIED_ALONE ? n - DENIED_ALONE : 0;
			if (n > 0) {
				json_t *row = base_row(w->kind, w->method, w->uid, (struct csm_str){w->object, w->object_len});

				if (row != NULL)
					json_object_set_new(row, "count", json_integer((json_int_t)n));
				write_line(a, row);
			}
			free(w);
		}
	}
	a->n_rows = 0;
}

static void next_minute(struct csm_audit *a)
{
	time_t now = time(NULL) / 60;

	if (now == a->minute)
		return;
	flush_rows(a);
	a->minute = now;
}

static void write_event(struct csm_audit *a, const struct csm_audit_event *e)
{
	json_t *row = base_row(e->kind, e->method, e->uid, e->object);

	if (row != NULL) {
		json_object_set_new(row, "pid", json_integer(e->pid));
		json_object_set_new(row, "result", json_string(e->result));
	}
	write_line(a, row);
}

int csm_audit_event(struct csm_audit *a, const struct csm_audit_event *e)
{
	struct row *w;
	int r;

	pthread_mutex_lock(&a->lock);
	next_minute(a);
	if (e->kind == CSM_AUDIT_CHANGE) {
		write_event(a, e);
	} else {
		/* Denials are counted per identity, whatever was asked for. */
		w = e->kind == CSM_AUDIT_USE ? row_of(a, e->kind, e->method, e->uid, e->object) :
					       row_of(a, e->kind, "*", e->uid, CSM_STR(""));
		if (w != NULL)
			w->n++;
		if (e->kind == CSM_AUDIT_DENIED && (w == NULL || w->n <= DENIED_ALONE))
			write_event(a, e);
	}
	r = a->strict && a->failing ? CSM_EUNAVAILABLE : 0;
	pthread_mutex_unlock(&a->lock);
	return r;
}

void csm_audit_tick(struct csm_audit *a)
{
	bool dirty;

	pthread_mutex_lock(&a->lock);
	next_minute(a);
	if (a->failing)
		write_line(a, json_pack("{s:I, s:s}", "time", (json_int_t)time(NULL), "event", "resumed"));
	dirty = a->dirty;
	a->dirty = false;
	pthread_mutex_unlock(&a->lock);
	if (dirty && fdatasync(a->fd) != 0) {
		pthread_mutex_lock(&a->lock);
		a->failing = true;
		pthread_mutex_unlock(&a->lock);
	}
}

bool csm_audit_refuses(struct csm_audit *a)
{
	return a->strict && csm_audit_failing(a);
}

bool csm_audit_failing(struct csm_audit *a)
{
	bool failing;

	pthread_mutex_lock(&a->lock);
	failing = a->failing;
	pthread_mutex_unlock(&a->lock);
	return failing;
}

void csm_audit_close(struct csm_audit *a)
{
	if (a == NULL)
		return;
	if (a->fd >= 0) {
		flush_rows(a);
		fdatasync(a->fd);
		close(a->fd);
	}
	pthread_mutex_destroy(&a->lock);
	free(a);
}
