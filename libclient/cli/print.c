/* Answers as people read them: lines, and tables of lists. JSON is next door. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <jansson.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/cli.h"
#include "libclient/cli/json.h"

#define LABEL_WIDTH 18 /* of lockout_counter, below tpm */
#define ROW_MAX 16

const char *time_text(uint64_t t, char buf[static 32])
{
	time_t at = (time_t)t;
	struct tm tm;

	if (gmtime_r(&at, &tm) == NULL || strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		(void)snprintf(buf, 32, "?");
	return buf;
}

/* A number as text: times as dates, all else as it is. */
static void number_text(const struct csm_field *f, uint64_t v, char buf[static 32])
{
	static const char *const times[] = {
		"created", "installed", "not_before", "not_after", "renew_at", "next_try", "delivered", "revoked",
		"old_key_until"};
	bool is_time = false;

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		is_time = is_time || strcmp(f->name, times[i]) == 0;
	if (is_time && v == 0)
		(void)snprintf(buf, 32, "none");
	else if (is_time)
		(void)time_text(v, buf);
	else
		(void)snprintf(buf, 32, "%llu", (unsigned long long)v);
}

/* Text from the daemon on a terminal: control characters stay out, newlines of PEM excepted. */
static void put_text(const char *s, bool lines)
{
	put_plain(stdout, s, strlen(s), lines);
}

static void put_strs(const struct csm_strs *list)
{
	size_t i;

	if (list->n == 0)
		fputs("none", stdout);
	for (i = 0; i < list->n; i++) {
		fputs(i > 0 ? ", " : "", stdout);
		put_text(list->v[i].p, false);
	}
}

/* The value of a field that holds no map. */
static void put_value(const struct csm_field *f, const void *at)
{
	char buf[32];

	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64:
		number_text(f, ((const struct csm_u64 *)at)->v, buf);
		fputs(buf, stdout);
		break;
	case CSM_K_BOOL:
		fputs(((const struct csm_bool *)at)->v ? "yes" : "no", stdout);
		break;
	case CSM_K_STR:
		put_text(((const struct csm_str *)at)->p, strcmp(f->name, "public") == 0);
		break;
	case CSM_K_BIN:
		printf("%zu bytes", ((const struct csm_bin *)at)->n);
		break;
	case CSM_K_STRS:
		put_strs(at);
		break;
	case CSM_K_MAP:
	case CSM_K_MAPS:
		break;
	}
}

static void print_message(const struct csm_msgdef *def, const void *msg, int indent)
{
	size_t i, k;

	for (i = 0; i < def->n_fields; i++) {
		const struct csm_field *f = &def->fields[i];
		struct csm_view v = {def, msg};
		/* what goes on below its label */
		bool below = f->kind == CSM_K_MAP || f->kind == CSM_K_MAPS ||
			     (f->kind == CSM_K_STR && strcmp(f->name, "public") == 0);
		int width = LABEL_WIDTH - indent - (int)strlen(f->name);

		/* a storage key is for csm wrap-key, which takes the JSON; people compare its Name */
		if (!csm_field_present(f, msg) || strcmp(f->name, "storage_key") == 0)
			continue;
		printf("%*s%s:%*s", indent, "", f->name, below ? 0 : width < 1 ? 1 : width, "");
		if (below)
			fputc('\n', stdout);
		put_value(f, field_of(f, msg));
		if (!below)
			fputc('\n', stdout);
		for (k = 0; (f->kind == CSM_K_MAP || f->kind == CSM_K_MAPS) && k < csm_view_count(v, f->name); k++) {
			if (k > 0)
				fputc('\n', stdout);
			print_message(f->sub, csm_view_at(v, f->name, k).msg, indent + 2);
		}
	}
}

int print_reply(struct cli *cli, struct csm_view v)
{
	json_t *j;
	int r;

	if (!cli->json) {
		print_message(v.def, v.msg, 0);
		return 0;
	}
	r = json_of(v.def, v.msg, &j);
	return r != 0 ? r : json_print(cli, j);
}

int cli_show(struct cli *cli, enum csm_method_id m, void *msg)
{
	struct csm_reply *rep;
	int r = client_call_new(cli->csm, m, msg, &rep);

	if (r != 0)
		return r;
	r = print_reply(cli, csm_reply_view(rep));
	csm_reply_free(rep);
	return r;
}

/* ---- lists ---- */

struct printer {
	struct cli *cli;
	json_t *array;
	const struct csm_msgdef *def;
	char **cells; /* rows of def->n_fields */
	size_t rows, room;
};

int printer_new(struct cli *cli, struct printer **ret)
{
	struct printer *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return client_err_plain(CSM_ENOMEM);
	p->cli = cli;
	if (cli->json && (p->array = json_array()) == NULL) {
		free(p);
		return client_err_plain(CSM_ENOMEM);
	}
	*ret = p;
	return 0;
}

static char *cell_text(const struct csm_field *f, const void *at)
{
	char buf[32];

	if (f->kind == CSM_K_STR)
		return strdup(((const struct csm_str *)at)->p != NULL ? ((const struct csm_str *)at)->p : "");
	number_text(f, f->kind == CSM_K_U64 ? ((const struct csm_u64 *)at)->v : 0, buf);
	return strdup(f->kind == CSM_K_U64 ? buf : f->kind == CSM_K_BOOL && ((const struct csm_bool *)at)->v ? "yes" : "no");
}

static int add_row(struct printer *p, struct csm_view item)
{
	const struct csm_msgdef *def = item.def;
	size_t i;

	if (p->rows == p->room) {
		size_t room = p->room == 0 ? ROW_MAX : p->room * 2;
		char **cells = reallocarray(p->cells, room * def->n_fields, sizeof(char *));

		if (cells == NULL)
			return client_err_plain(CSM_ENOMEM);
		p->cells = cells;
		p->room = room;
	}
	p->def = def;
	for (i = 0; i < def->n_fields; i++) {
		char *s = cell_text(&def->fields[i], field_of(&def->fields[i], item.msg));

		if (s == NULL) {
			while (i > 0)
				free(p->cells[p->rows * def->n_fields + --i]);
			return client_err_plain(CSM_ENOMEM);
		}
		p->cells[p->rows * def->n_fields + i] = s;
	}
	p->rows++;
	return 0;
}

int printer_add(struct printer *p, struct csm_view item)
{
	json_t *j;
	int r;

	if (p->array == NULL)
		return add_row(p, item);
	r = json_of(item.def, item.msg, &j);
	if (r == 0 && json_array_append_new(p->array, j) != 0)
		r = client_err_plain(CSM_ENOMEM);
	return r;
}

/* Characters of a cell, which is UTF-8. */
static size_t text_width(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static size_t column_width(const struct printer *p, size_t column)
{
	size_t n = strlen(p->def->fields[column].name), i;

	for (i = 0; i < p->rows; i++) {
		size_t k = text_width(p->cells[i * p->def->n_fields + column]);

		n = k > n ? k : n;
	}
	return n;
}

static void print_table(const struct printer *p)
{
	size_t n = p->def->n_fields, width[ROW_MAX], i, k;

	for (k = 0; k < n && k < ROW_MAX; k++)
		width[k] = column_width(p, k);
	for (i = 0; i <= p->rows; i++) {
		for (k = 0; k < n && k < ROW_MAX; k++) {
			const char *s = i == 0 ? p->def->fields[k].name : p->cells[(i - 1) * n + k];

			put_text(s, false);
			printf("%*s", k + 1 < n ? (int)(width[k] - text_width(s)) + 2 : 0, "");
		}
		fputc('\n', stdout);
	}
}

int printer_end(struct printer *p, int r)
{
	size_t i;

	if (r == 0 && p->array != NULL)
		r = json_print(p->cli, p->array);
	else if (p->array != NULL)
		json_decref(p->array);
	else if (r == 0 && p->rows > 0)
		print_table(p);
	for (i = 0; p->def != NULL && i < p->rows * p->def->n_fields; i++)
		free(p->cells[i]);
	free(p->cells);
	free(p);
	return r;
}
