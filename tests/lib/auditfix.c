#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/log.h"
#include "libclient/base/hex.h"
#include "tests/lib/auditfix.h"

char audit_folder[80], audit_file[96], audit_aside[96];
struct csm_audit_options audit_options;
struct audit_found audit_found;
size_t audit_lines;
size_t audit_done;
int audit_last_r;

static char dir[64];
static json_t *lines[8192];
static uint8_t secret_key[64];
struct csm_audit_signer audit_signer;

static int sign(void *arg, const uint8_t *p, size_t n, uint8_t signature[static CSM_CHAIN_SIGNATURE])
{
	(void)arg;
	return crypto_sign_detached(signature, NULL, p, n, secret_key) == 0 ? 0 : CSM_EINTERNAL;
}

int audit_setup(void **state)
{
	(void)state;

	snprintf(dir, sizeof(dir), "/tmp/csm-audit-XXXXXX");
	if (sodium_init() < 0 || mkdtemp(dir) == NULL)
		return -1;
	snprintf(audit_folder, sizeof(audit_folder), "%s/audit", dir);
	snprintf(audit_file, sizeof(audit_file), "%s/audit.log", audit_folder);
	snprintf(audit_aside, sizeof(audit_aside), "%s/aside", dir);
	audit_options = (struct csm_audit_options){.dir = audit_folder};
	crypto_sign_keypair(audit_signer.key, secret_key);
	audit_signer.sign = sign;
	signal(SIGXFSZ, SIG_IGN);
	csm_log_level(LOG_CRIT);
	return 0;
}

static void forget_lines(void)
{
	while (audit_lines > 0)
		json_decref(lines[--audit_lines]);
}

/* Names in the folder, sorted: the files that were filled come before audit.log. */
size_t audit_names(char names[][64], size_t max)
{
	DIR *d = opendir(audit_folder);
	struct dirent *e;
	size_t n = 0;

	if (d == NULL)
		return 0;
	while ((e = readdir(d)) != NULL && n < max)
		if (e->d_name[0] != '.')
			snprintf(names[n++], 64, "%.63s", e->d_name);
	closedir(d);
	qsort(names, n, 64, (int (*)(const void *, const void *))strcmp);
	return n;
}

void audit_take_away(const char *name)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%.63s", audit_folder, name);
	unlink(path);
}

int audit_teardown(void **state)
{
	char names[128][64];
	size_t n = audit_names(names, 128);

	(void)state;
	forget_lines();
	for (size_t i = 0; i < n; i++)
		audit_take_away(names[i]);
	rmdir(audit_folder);
	unlink(audit_aside);
	return rmdir(dir);
}

struct csm_audit *audit_opened(void)
{
	struct csm_audit *a = NULL;

	assert_int_equal(csm_audit_open(&audit_options, &a), 0);
	return a;
}

struct csm_audit *audit_attached(const struct csm_audit_mark *mark)
{
	static const uint8_t zeros[32];
	struct csm_audit *a = audit_opened();

	csm_audit_attach(a, mark == NULL ? 0 : mark->seq, mark == NULL ? zeros : mark->head, &audit_signer);
	return a;
}

/* ---- reading ---- */

static void on_found(void *arg, const struct csm_chain_finding *f)
{
	(void)arg;
	if (f->problem == CSM_CHAIN_NOTE) {
		audit_found.notes++;
		return;
	}
	/* Without a head, lines behind the last checkpoint are no problem here. */
	if (f->problem == CSM_CHAIN_UNCOVERED)
		return;
	if (audit_found.problems++ > 0)
		return;
	audit_found.first = f->problem;
	audit_found.seq = f->seq;
	audit_found.last = f->last;
	audit_found.line = f->line;
	snprintf(audit_found.file, sizeof(audit_found.file), "%s", f->file);
}

static size_t read_one(const char *name, struct csm_chain_check *c)
{
	char path[200], line[4096];
	size_t bad = 0, n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%.63s", audit_folder, name);
	f = fopen(path, "re");
	assert_non_null(f);
	csm_chain_check_file(c, name);
	while (fgets(line, sizeof(line), f) != NULL) {
		json_t *row = json_loads(line, JSON_REJECT_DUPLICATES, NULL);

		bool whole = (n = strlen(line)) > 0 && line[n - 1] == '\n';

		if (whole)
			csm_chain_check_line(c, line, n - 1);
		else
			csm_chain_check_torn(c);
		if (row == NULL || !json_is_object(row) || !whole)
			bad++;
		if (row != NULL && audit_lines < sizeof(lines) / sizeof(lines[0]))
			lines[audit_lines++] = row;
		else
			json_decref(row);
	}
	fclose(f);
	return bad;
}

/* All files: how many lines are no JSON; `found` says what the check of the chain has found. */
size_t audit_read(const struct csm_audit_mark *head)
{
	char names[128][64];
	struct csm_chain_check *c;
	struct csm_chain_sum sum;
	size_t bad = 0, n = audit_names(names, 128);

	forget_lines();
	memset(&audit_found, 0, sizeof(audit_found));
	assert_int_equal(csm_chain_check_new(on_found, NULL, &c), 0);
	csm_chain_check_key(c, audit_signer.key);
	if (head != NULL)
		csm_chain_check_head(c, head->seq, head->head, true);
	for (size_t i = 0; i < n; i++)
		if (strncmp(names[i], "audit", 5) == 0)
			bad += read_one(names[i], c);
	csm_chain_check_end(c, &sum);
	csm_chain_check_free(c);
	return bad;
}

void audit_assert_whole(const struct csm_audit_mark *head)
{
	assert_int_equal(audit_read(head), 0);
	if (audit_found.problems > 0)
		fail_msg("%s:%u: %s, line number %u", audit_found.file, (unsigned)audit_found.line, csm_chain_problem_name(audit_found.first),
			(unsigned)audit_found.seq);
}

const char *audit_text(size_t i, const char *name)
{
	const char *s = json_string_value(json_object_get(lines[i], name));

	return s != NULL ? s : "(none)";
}

json_int_t audit_number(size_t i, const char *name)
{
	json_t *n = json_object_get(lines[i], name);

	return n == NULL ? -1 : json_integer_value(n);
}

size_t audit_count(const char *event)
{
	size_t n = 0;

	for (size_t i = 0; i < audit_lines; i++)
		n += strcmp(audit_text(i, "event"), event) == 0;
	return n;
}

size_t audit_index(const char *event)
{
	for (size_t i = 0; i < audit_lines; i++)
		if (strcmp(audit_text(i, "event"), event) == 0)
			return i;
	fail_msg("no line of %s", event);
	return 0;
}

struct csm_audit_mark audit_last(void)
{
	struct csm_audit_mark mark = {.seq = (uint64_t)audit_number(audit_lines - 1, "seq")};

	assert_int_equal(csm_unhex(csm_str_of(audit_text(audit_lines - 1, "hash")), mark.head, sizeof(mark.head)), 0);
	return mark;
}

/* ---- events ---- */

struct csm_audit_event audit_event_of(enum csm_audit_kind kind, const char *method, uid_t uid, const char *object)
{
	return (struct csm_audit_event){.kind = kind, .method = method, .uid = uid, .pid = 77,
		.object = {object, strlen(object)}, .result = kind == CSM_AUDIT_DENIED ? "denied" : "ok"};
}

int audit_change(struct csm_audit *a, const char *object, struct csm_audit_mark *mark)
{
	struct csm_audit_event e = audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, object);

	return csm_audit_group(a, &e, 1, NULL, mark);
}

static void on_done(struct csm_audit_wait *w)
{
	audit_done++;
	audit_last_r = w->r;
	free(w);
}

void audit_denied(struct csm_audit *a, const char *method, uid_t uid)
{
	struct csm_audit_wait *w;

	if (csm_audit_denied_counted(a, uid))
		return;
	w = calloc(1, sizeof(*w));
	assert_non_null(w);
	w->event = audit_event_of(CSM_AUDIT_DENIED, method, uid, "other:k");
	w->done = on_done;
	csm_audit_submit(a, w);
}

void audit_limit_file(rlim_t size)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

rlim_t audit_file_size(void)
{
	struct stat st;

	assert_int_equal(stat(audit_file, &st), 0);
	return (rlim_t)st.st_size;
}
