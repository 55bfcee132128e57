/* What csm-server answers, for people: values a line each, tables, and lists that come in pages. */
#include <stdlib.h>
#include <string.h>
#include "libclient/cli/server.h"

#define PAGES_MAX 100000u
#define PAGE_ROWS 1000u
#define PAGE_BYTES (4u * 1024u * 1024u)

static bool is_time(const char *name)
{
	static const char *const times[] = {
		"not_before", "not_after", "created", "expires", "issued", "revoked", "decided", "last_used"};

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (strcmp(times[i], name) == 0)
			return true;
	return false;
}

static void put_value(FILE *f, const char *name, const json_t *v)
{
	char buf[32];
	json_t *item;
	size_t i;

	if (json_is_string(v)) {
		put_plain(f, json_string_value(v), json_string_length(v), false);
	} else if (json_is_integer(v) && is_time(name) && json_integer_value(v) > 0) {
		fputs(time_text((uint64_t)json_integer_value(v), buf), f);
	} else if (json_is_integer(v)) {
		fprintf(f, "%lld", (long long)json_integer_value(v));
	} else if (json_is_boolean(v)) {
		fputs(json_is_true(v) ? "yes" : "no", f);
	} else if (json_is_array(v)) {
		json_array_foreach((json_t *)v, i, item) {
			if (i > 0)
				fputc(' ', f);
			put_value(f, name, item);
		}
	} else {
		fputc('-', f);
	}
}

int server_print(struct cli *cli, json_t *j)
{
	const char *name;
	json_t *v;

	if (cli->json)
		return json_print(cli, j);
	json_object_foreach(j, name, v) {
		/* PEM is for --json, and for those commands that print nothing else */
		if (json_is_object(v) || (json_is_string(v) && strstr(json_string_value(v), "-----BEGIN") != NULL))
			continue;
		put_plain(stdout, name, strlen(name), false);
		printf(":%*s", (int)(strlen(name) < 15 ? 16 - strlen(name) : 1), "");
		put_value(stdout, name, v);
		fputc('\n', stdout);
	}
	json_decref(j);
	return 0;
}

#define COLUMNS_MAX 8u

/* What a value looks like, for the table; malloced. */
static char *cell_text(const char *column, const json_t *v)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	if (f == NULL)
		return NULL;
	put_value(f, column, v);
	if (fclose(f) == 0)
		return text;
	free(text);
	return NULL;
}

/* Under the names of the columns, as csm's other tables. */
static int print_rows(const json_t *rows, const char *const *columns)
{
	size_t width[COLUMNS_MAX], n = 0, i, k;
	json_t *row;

	for (; n < COLUMNS_MAX && columns[n] != NULL; n++)
		width[n] = strlen(columns[n]);
	for (int pass = 0; pass < 2; pass++) {
		for (k = 0; k < n && pass == 1; k++)
			printf("%-*s%s", k + 1 < n ? (int)width[k] : 0, columns[k], k + 1 < n ? "  " : "\n");
		json_array_foreach((json_t *)rows, i, row) {
			for (k = 0; k < n; k++) {
				char *text = cell_text(columns[k], json_object_get(row, columns[k]));

				if (text == NULL)
					return client_err_plain(CSM_ENOMEM);
				if (pass == 0)
					width[k] = strlen(text) > width[k] ? strlen(text) : width[k];
				else
					printf("%-*s%s", k + 1 < n ? (int)width[k] : 0, text, k + 1 < n ? "  " : "\n");
				free(text);
			}
		}
	}
	return 0;
}

/* ---- pages ---- */

/* What --limit and --after leave of a list, from page to page. */
struct pages {
	const struct path *first;
	uint64_t left, page; /* rows that are wanted still, and in one page */
	bool bounded, more;
	char after[CSM_REST_NEXT_MAX + 1];
	unsigned asked;
};

static int set_next(struct pages *g, const char *next)
{
	if (strlen(next) > CSM_REST_NEXT_MAX || g->asked > PAGES_MAX)
		return client_err(CSM_EPROTOCOL, "csm-server's list has no end");
	for (const char *at = next; *at != '\0'; at++)
		if (*at <= ' ' || *at > '~') /* it is told at a terminal */
			return client_err(CSM_EPROTOCOL, "csm-server's list goes on at what is no cursor");
	memmove(g->after, next, strlen(next) + 1);
	g->more = *next != '\0';
	return 0;
}

static int pages_begin(const struct cli *cli, const struct path *first, struct pages *g)
{
	const char *limit = cli->value[O_LIMIT], *after = cli->value[O_AFTER];
	int r;

	*g = (struct pages){.first = first, .left = UINT64_MAX, .page = PAGE_ROWS, .bounded = limit != NULL};
	if (limit != NULL && (r = parse_u64("--limit", limit, UINT32_MAX, &g->left)) != 0)
		return r;
	if (g->left == 0)
		return cli_usage("--limit: at least 1");
	if (after != NULL && strlen(after) > CSM_REST_NEXT_MAX)
		return cli_usage("--after: what the page before told");
	r = set_next(g, after != NULL ? after : "");
	g->more = true;
	return r;
}

/* The path of the next page; false: that is all. */
static bool pages_path(struct pages *g, struct path *p)
{
	char number[24];

	if (!g->more || g->left == 0)
		return false;
	(void)snprintf(number, sizeof(number), "%llu", (unsigned long long)(g->left < g->page ? g->left : g->page));
	*p = *g->first;
	path_query(p, "limit", number);
	path_query(p, "after", g->after[0] != '\0' ? g->after : NULL);
	g->asked++;
	return true;
}

static void pages_took(struct pages *g, uint64_t rows)
{
	if (g->bounded)
		g->left -= rows < g->left ? rows : g->left;
}

/* A page may be more than an answer holds: then a smaller one is asked for. Returns whether that is to be tried. */
static bool pages_smaller(struct pages *g, int r)
{
	if (r != CSM_ETOO_LARGE || g->page == 1)
		return false;
	g->page /= 2;
	return true;
}

static int one_page(struct server *s, struct pages *g, const struct path *p, const char *field, json_t *all)
{
	json_t *page = NULL, *rows;
	const char *next;
	int r = server_call(s, "GET", p->text, NULL, &page);

	if (r != 0)
		return pages_smaller(g, r) ? 0 : r;
	rows = json_object_get(page, field);
	next = csm_rest_text(page, "next");
	if (!json_is_array(rows))
		r = client_err(CSM_EPROTOCOL, "csm-server's answer has no %s", field);
	else if (json_array_extend(all, rows) != 0)
		r = client_err_plain(CSM_ENOMEM);
	else
		r = set_next(g, next != NULL ? next : "");
	if (r == 0)
		pages_took(g, json_array_size(rows));
	json_decref(page);
	return r;
}

static int get_pages(struct server *s, struct pages *g, const char *field, json_t **ret)
{
	json_t *all = json_array();
	int r = all != NULL ? 0 : client_err_plain(CSM_ENOMEM);
	struct path p;

	while (r == 0 && pages_path(g, &p))
		r = p.full ? client_err(CSM_ETOO_LARGE, "what is asked for is too long") : one_page(s, g, &p, field, all);
	if (r != 0)
		json_decref(all);
	else
		*ret = all;
	return r;
}

/* To people, whatever is printed. */
static void tell_more(const struct pages *g)
{
	if (g->more)
		cli_note("there are more: --after %s", g->after);
}

static int put_rows(struct cli *cli, json_t *rows, const char *const *columns)
{
	if (cli->json)
		return json_print(cli, rows);
	int r = json_array_size(rows) > 0 ? print_rows(rows, columns) : 0;

	json_decref(rows);
	return r;
}

int server_list(struct cli *cli, struct server *s, const struct path *p, const char *field, const char *const *columns)
{
	struct pages g;
	json_t *rows, *o;
	int r;

	if ((r = pages_begin(cli, p, &g)) != 0 || (r = get_pages(s, &g, field, &rows)) != 0)
		return r;
	if (!cli->json || !g.bounded) {
		tell_more(&g);
		return put_rows(cli, rows, columns);
	}
	o = json_pack("{s:o, s:s}", field, rows, "next", g.more ? g.after : "");
	return o != NULL ? json_print(cli, o) : client_err_plain(CSM_ENOMEM);
}

/* ---- tables for other programs ---- */

/* Of CSV: ends of lines that are not in quotes. */
static uint64_t lines_of(const struct csm_buf *b)
{
	const uint8_t *p = b->len > 0 ? csm_buf_ptr(b) : NULL;
	bool quoted = false;
	uint64_t n = 0;

	for (size_t i = 0; i < b->len; i++) {
		quoted ^= p[i] == '"';
		n += p[i] == '\n' && !quoted;
	}
	return n;
}

static int csv_page(struct server *s, struct pages *g, const struct path *p, struct out *o)
{
	char next[CSM_REST_NEXT_MAX + 1];
	bool first = g->after[0] == '\0';
	struct csm_buf b;
	uint64_t lines;
	int r;

	csm_buf_init(&b, PAGE_BYTES, false);
	r = server_fetch(s, p->text, &b, next);
	if (r != 0)
		r = pages_smaller(g, r) ? 0 : r;
	else if ((r = set_next(g, next)) == 0) {
		lines = lines_of(&b);
		pages_took(g, first && lines > 0 ? lines - 1 : lines);
		r = b.len > 0 ? io_write(o->fd, csm_buf_ptr(&b), b.len) : 0;
	}
	csm_buf_free(&b);
	return r;
}

int server_csv(struct cli *cli, struct server *s, const struct path *path)
{
	struct path with = *path, p;
	struct pages g;
	struct out o;
	int r;

	path_query(&with, "format", "csv");
	if ((r = pages_begin(cli, &with, &g)) != 0 || (r = out_open(cli, false, &o)) != 0)
		return r;
	while (r == 0 && pages_path(&g, &p))
		r = p.full ? client_err(CSM_ETOO_LARGE, "what is asked for is too long") : csv_page(s, &g, &p, &o);
	if (r == 0)
		tell_more(&g);
	return out_close(&o, r);
}

/* ---- pages as they come ---- */

int server_each_page(struct server *s, const struct path *path, uint64_t rows, server_page_fn *fn, void *arg)
{
	struct pages g = {.first = path, .left = UINT64_MAX, .page = rows, .more = true};
	struct path p;
	int r = 0;

	while (r == 0 && pages_path(&g, &p)) {
		json_t *page = NULL;
		const char *next;

		r = server_call(s, "GET", p.text, NULL, &page);
		if (r != 0) {
			r = pages_smaller(&g, r) ? 0 : r;
			continue;
		}
		next = csm_rest_text(page, "next");
		r = set_next(&g, next != NULL ? next : "");
		if (r == 0)
			r = fn(arg, page);
		json_decref(page);
	}
	return r;
}
