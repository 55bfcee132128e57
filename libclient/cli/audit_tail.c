/* csm audit tail. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <jansson.h>
#include "libclient/base/chain.h"
#include "libclient/cli/cli.h"
#include "libclient/cli/json.h"

#define LINES_DEFAULT 10u
#define LINES_MAX 10000u
#define POLL_MS 200

/* ---- one line ---- */

static void put_field(const json_t *row, const char *name, const char *before)
{
	const json_t *v = json_object_get(row, name);

	if (json_is_string(v)) {
		fputs(before, stdout);
		put_plain(stdout, json_string_value(v), json_string_length(v), false);
	} else if (json_is_integer(v)) {
		printf("%s%lld", before, (long long)json_integer_value(v));
	}
}

static void put_text(const char *p, size_t n)
{
	json_t *row = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
	char when[32];

	if (!json_is_object(row)) {
		fputs("? ", stdout);
		put_plain(stdout, p, n, false);
	} else {
		fputs(time_text((uint64_t)json_integer_value(json_object_get(row, "time")), when), stdout);
		put_field(row, "seq", " ");
		put_field(row, "event", " ");
		put_field(row, "method", " ");
		put_field(row, "object", " ");
		put_field(row, "result", " ");
		put_field(row, "uid", " uid=");
		put_field(row, "pid", " pid=");
		put_field(row, "count", " count=");
		put_field(row, "first", " first=");
		put_field(row, "last", " last=");
		put_field(row, "since", " since=");
		put_field(row, "changes", " changes=");
		put_field(row, "denied", " denied=");
		put_field(row, "bytes", " bytes=");
		put_field(row, "name", " name=");
		put_field(row, "anchor", " anchor=");
		put_field(row, "reason", " reason=");
		put_field(row, "unit", " unit=");
		put_field(row, "user_unit", " user_unit=");
		put_field(row, "pod", " pod=");
		put_field(row, "container", " container=");
	}
	fputc('\n', stdout);
	json_decref(row);
}

/* A line of the log is JSON already; one that is not, since it was changed, is a string. */
static json_t *line_json(const char *p, size_t n)
{
	json_t *row = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);

	if (row == NULL)
		row = json_stringn(p, n);
	return row != NULL ? row : json_string("?");
}

/* ---- the last lines ---- */

struct last {
	char **line; /* a ring */
	size_t *len;
	size_t max, n, next;
};

static void keep(void *arg, const char *p, size_t n, bool torn)
{
	struct last *l = arg;
	char *copy = torn ? NULL : malloc(n + 1);

	if (copy == NULL)
		return;
	memcpy(copy, p, n);
	copy[n] = '\0';
	free(l->line[l->next]);
	l->line[l->next] = copy;
	l->len[l->next] = n;
	l->next = (l->next + 1) % l->max;
	l->n += l->n < l->max;
}

/* Where the last `lines` lines of a file begin at the latest; they cannot be longer than CSM_CHAIN_LINE_MAX each. */
static off_t near_end(int fd, size_t lines)
{
	off_t room = (off_t)(lines * CSM_CHAIN_LINE_MAX);
	struct stat st;
	char c;

	if (fstat(fd, &st) != 0 || st.st_size <= room)
		return 0;
	for (off_t at = st.st_size - room; at < st.st_size; at++)
		if (pread(fd, &c, 1, at) == 1 && c == '\n')
			return at + 1;
	return 0;
}

/* From the newest file back, as far as the lines may reach. */
static int read_last(struct audit_files *f, struct last *l)
{
	size_t i = f->n, missing = l->max;
	int fd, r = 0;

	while (i > 0 && missing > 0) {
		struct stat st;

		i--;
		if ((r = audit_file_open(f, i, &fd)) != 0)
			return r;
		if (fd < 0 || fstat(fd, &st) != 0)
			break;
		if (lseek(fd, near_end(fd, missing), SEEK_SET) < 0)
			return client_err_errno(CSM_ESYSTEM, f->path[i]);
		/* There are so many lines in it at least. */
		missing -= (size_t)st.st_size / CSM_CHAIN_LINE_MAX >= missing ? missing : (size_t)st.st_size / CSM_CHAIN_LINE_MAX;
	}
	for (; r == 0 && i < f->n; i++)
		if ((r = audit_file_open(f, i, &fd)) == 0 && fd >= 0)
			r = audit_file_read(fd, f->path[i], keep, l);
	return r;
}

static int print_last(struct cli *cli, const struct last *l)
{
	json_t *all = cli->json && cli->value[O_FOLLOW] == NULL ? json_array() : NULL;

	for (size_t k = 0; k < l->n; k++) {
		size_t at = (l->next + l->max - l->n + k) % l->max;

		if (all != NULL)
			(void)json_array_append_new(all, line_json(l->line[at], l->len[at]));
		else if (cli->json)
			printf("%s\n", l->line[at]);
		else
			put_text(l->line[at], l->len[at]);
	}
	return all != NULL ? json_print(cli, all) : 0;
}

/* ---- what is added ---- */

static void put_new(void *arg, const char *p, size_t n, bool torn)
{
	const struct cli *cli = arg;

	if (torn)
		return;
	if (cli->json)
		printf("%.*s\n", (int)n, p);
	else
		put_text(p, n);
}

/* Back to the beginning of a line that is not whole yet. */
static void back_to_line(int fd)
{
	off_t at = lseek(fd, 0, SEEK_CUR);
	char c;

	while (at > 0 && pread(fd, &c, 1, at - 1) == 1 && c != '\n')
		at--;
	(void)lseek(fd, at, SEEK_SET);
}

/* The file was filled, and others after it, perhaps more than one: fd becomes the newest. */
static int follow_on(struct cli *cli, int fd, const char *path)
{
	const uint64_t first = audit_file_first(fd);
	const char *end = strrchr(path, '/');
	char *folder = end == NULL ? strdup(".") : strndup(path, (size_t)(end - path));
	struct audit_files f = {0};
	int next, r = folder == NULL ? client_err_plain(CSM_ENOMEM) : audit_files_of(folder, &f);

	for (size_t i = 0; r == 0 && i < f.n; i++) {
		uint64_t its;

		if ((r = audit_file_open(&f, i, &next)) != 0 || next < 0)
			continue;
		its = audit_file_first(next);
		if (its <= first && (its != 0 || i + 1 < f.n))
			continue;
		r = audit_file_read(next, f.path[i], put_new, cli);
		if (r == 0 && dup2(next, fd) < 0)
			r = client_err_errno(CSM_ESYSTEM, path);
	}
	audit_files_free(&f);
	free(folder);
	return r == CSM_ENOT_FOUND ? 0 : r; /* in a moment there is one */
}

static int follow(struct cli *cli, int fd, const char *path)
{
	const struct timespec pause = {0, POLL_MS * 1000000L};
	struct stat now, there;
	int r = 0;

	for (;;) {
		bool other = stat(path, &there) == 0 && fstat(fd, &now) == 0 && there.st_ino != now.st_ino;

		if ((r = audit_file_read(fd, path, put_new, cli)) != 0)
			return r;
		back_to_line(fd);
		if (other && (r = follow_on(cli, fd, path)) != 0)
			return r;
		back_to_line(fd);
		if (fflush(stdout) != 0)
			return client_err_errno(CSM_ESYSTEM, "standard output");
		nanosleep(&pause, NULL);
	}
}

static int find_files(struct cli *cli, struct audit_files *ret)
{
	struct csm_msg_empty req = {0};
	const struct csm_msg_audit_head_res *head;
	struct csm_reply *rep;
	int r;

	if (cli->arg_n > 0)
		return audit_files_given(cli->arg, cli->arg_n, ret);
	if ((r = client_call_new(cli->csm, CSM_M_AUDIT_HEAD, &req, &rep)) != 0)
		return r;
	head = rep->msg;
	r = audit_files_of(head->folder.p, ret);
	csm_reply_free(rep);
	return r;
}

int cmd_audit_tail(struct cli *cli)
{
	struct audit_files files = {0};
	struct last l = {0};
	uint64_t lines = LINES_DEFAULT;
	int r = 0;

	if (cli->value[O_LINES] != NULL && (r = parse_u64("--lines", cli->value[O_LINES], LINES_MAX, &lines)) != 0)
		return r;
	if ((r = find_files(cli, &files)) != 0)
		return r;
	l.max = lines > 0 ? (size_t)lines : 1;
	l.line = calloc(l.max, sizeof(*l.line));
	l.len = calloc(l.max, sizeof(*l.len));
	r = l.line == NULL || l.len == NULL ? client_err_plain(CSM_ENOMEM) : read_last(&files, &l);
	if (lines == 0)
		l.n = 0;
	if (r == 0)
		r = print_last(cli, &l);
	for (size_t i = 0; l.line != NULL && i < l.max; i++)
		free(l.line[i]);
	free(l.line);
	free(l.len);
	if (r == 0 && cli->value[O_FOLLOW] != NULL) {
		back_to_line(files.fd[files.n - 1]);
		r = follow(cli, files.fd[files.n - 1], files.path[files.n - 1]);
	}
	audit_files_free(&files);
	return r;
}
