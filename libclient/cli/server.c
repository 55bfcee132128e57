/* csm-server, as a command asks it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libclient/cli/server.h"
#include "libclient/cli/wrap.h"

#define DEFAULT_SOCKET "/run/csm/server-admin.sock"
#define PAGES_MAX 100000u

struct server {
	struct csm_rest *rest;
	char socket[108]; /* "": by its URL */
	char *ca_file;    /* NULL: by its socket */
};

static const char *setting(const char *name)
{
	const char *v = secure_getenv(name);

	return v != NULL && *v != '\0' ? v : NULL;
}

static int find_server(bool local, struct csm_rest_options *opt)
{
	const char *token = setting("CSM_TOKEN");

	opt->url = local ? NULL : setting("CSM_SERVER");
	if (opt->url == NULL) {
		opt->socket = setting("CSM_SERVER_ADMIN_SOCKET");
		if (opt->socket == NULL)
			opt->socket = DEFAULT_SOCKET;
		return 0;
	}
	opt->ca_file = setting("CSM_CACERT");
	if (opt->ca_file == NULL)
		return cli_usage("CSM_CACERT has to name the file with the root certificate of %s", opt->url);
	opt->cert_file = setting("CSM_ADMIN_CERT");
	opt->key_file = setting("CSM_ADMIN_KEY");
	if ((opt->cert_file == NULL) != (opt->key_file == NULL))
		return cli_usage("CSM_ADMIN_CERT and CSM_ADMIN_KEY go together");
	if (opt->cert_file == NULL && token != NULL)
		opt->token = (struct csm_bin){(const uint8_t *)token, strlen(token)};
	return 0;
}

int server_open(struct cli *cli, bool local, struct server **ret)
{
	struct csm_rest_options opt = {.proxy_from_env = true};
	const char *timeout = cli->value[O_TIMEOUT];
	char why[CSM_REST_WHY_MAX + 1];
	struct server *s = NULL;
	uint64_t seconds = 0;
	int r;

	if ((r = find_server(local, &opt)) != 0 ||
		(timeout != NULL && (r = parse_u64("--timeout", timeout, 86400, &seconds)) != 0))
		return r;
	opt.timeout_ms = (unsigned)seconds * 1000u;
	if (csm_rest_prepare() != 0 || (s = calloc(1, sizeof(*s))) == NULL)
		return client_err_plain(CSM_ENOMEM);
	if (opt.ca_file != NULL && (s->ca_file = strdup(opt.ca_file)) == NULL) {
		server_close(s);
		return client_err_plain(CSM_ENOMEM);
	}
	if ((r = csm_rest_new(&opt, &s->rest, why)) != 0) {
		server_close(s);
		return client_err(r, "%s", why);
	}
	if (opt.socket != NULL)
		(void)snprintf(s->socket, sizeof(s->socket), "%s", opt.socket);
	*ret = s;
	return 0;
}

void server_close(struct server *s)
{
	if (s == NULL)
		return;
	csm_rest_free(s->rest);
	free(s->ca_file);
	free(s);
}

static int failed(const struct server *s, int r, const char *why)
{
	/* what libcurl says of a socket speaks of a host */
	if (r == CSM_EUNREACHABLE && s->socket[0] != '\0')
		return client_err(r, "csm-server does not listen on %s; CSM_SERVER names one elsewhere", s->socket);
	/* libcurl's words of a chain that does not hold */
	if (r == CSM_EUNREACHABLE && s->ca_file != NULL && strstr(why, "SSL certificate problem") != NULL)
		return client_err(r, "%s (by the root in CSM_CACERT, %s)", why, s->ca_file);
	return client_err(r, "%s", why);
}

int server_call(struct server *s, const char *method, const char *path, const json_t *body, json_t **ret)
{
	struct csm_rest_res res;
	int r;

	csm_rest_res_init(&res);
	r = csm_rest_json(s->rest, method, path, body, &res);
	if (r != 0)
		r = failed(s, r, res.why);
	else
		*ret = json_incref(res.json);
	csm_rest_res_clear(&res);
	return r;
}

int server_fetch(struct server *s, const char *path, struct csm_buf *out, char type[static 64])
{
	const struct csm_rest_req req = {.method = "GET", .path = path, .accept = "*/*"};
	struct csm_rest_res res;
	int r;

	csm_rest_res_init(&res);
	r = csm_rest_send(s->rest, &req, &res);
	if (r != 0) {
		r = failed(s, r, res.why);
	} else {
		(void)snprintf(type, 64, "%s", res.type);
		r = res.body.len > 0 ? csm_buf_put(out, csm_buf_ptr(&res.body), res.body.len) : 0;
		if (r != 0)
			r = client_err_plain(r);
	}
	csm_rest_res_clear(&res);
	return r;
}

/* ---- paths ---- */

static void add(struct path *p, const char *text)
{
	int n = snprintf(p->text + p->n, sizeof(p->text) - p->n, "%s", text);

	if (n < 0 || (size_t)n >= sizeof(p->text) - p->n)
		p->full = true;
	else
		p->n += (size_t)n;
}

static void add_typed(struct path *p, const char *typed)
{
	if (csm_rest_escape(csm_str_of(typed), p->text + p->n, sizeof(p->text) - p->n) != 0)
		p->full = true;
	else
		p->n += strlen(p->text + p->n);
}

void path_start(struct path *p, const char *text)
{
	*p = (struct path){.n = 0};
	add(p, text);
}

void path_segment(struct path *p, const char *typed)
{
	add(p, "/");
	add_typed(p, typed);
}

void path_query(struct path *p, const char *name, const char *typed)
{
	if (typed == NULL)
		return;
	add(p, p->query ? "&" : "?");
	p->query = true;
	add(p, name);
	add(p, "=");
	add_typed(p, typed);
}

/* ---- answers ---- */

int server_text(const json_t *object, const char *name, const char **ret)
{
	*ret = csm_rest_text(object, name);
	return *ret != NULL ? 0 : client_err(CSM_EPROTOCOL, "csm-server's answer has no %s", name);
}

static bool is_time(const char *name)
{
	static const char *const times[] = {
		"not_before", "not_after", "created", "expires", "issued", "revoked", "decided", "last_used"};

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (strcmp(times[i], name) == 0)
			return true;
	return false;
}

/* What a server sends is not believed to be fit for a terminal. */
static void put_plain(FILE *f, const char *s)
{
	for (; *s != '\0'; s++)
		fputc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, f);
}

static void put_value(FILE *f, const char *name, const json_t *v)
{
	char buf[32];
	json_t *item;
	size_t i;

	if (json_is_string(v)) {
		put_plain(f, json_string_value(v));
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
		put_plain(stdout, name);
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

int server_pages(struct server *s, const struct path *first, const char *field, json_t **ret)
{
	json_t *all = json_array();
	int r = all != NULL ? 0 : client_err_plain(CSM_ENOMEM);
	struct path p = *first;
	bool more = true;

	path_query(&p, "limit", "1000");
	for (unsigned i = 0; r == 0 && more && i < PAGES_MAX; i++) {
		json_t *page = NULL, *rows;
		const char *next;

		r = p.full ? client_err(CSM_ETOO_LARGE, "what is asked for is too long") : server_call(s, "GET", p.text, NULL, &page);
		if (r != 0)
			break;
		rows = json_object_get(page, field);
		next = csm_rest_text(page, "next");
		more = next != NULL && *next != '\0';
		if (!json_is_array(rows))
			r = client_err(CSM_EPROTOCOL, "csm-server's answer has no %s", field);
		else if (json_array_extend(all, rows) != 0)
			r = client_err_plain(CSM_ENOMEM);
		p = *first;
		path_query(&p, "limit", "1000");
		path_query(&p, "after", more ? next : NULL);
		json_decref(page);
	}
	if (r != 0)
		json_decref(all);
	else
		*ret = all;
	return r;
}

int server_rows(struct cli *cli, json_t *rows, const char *const *columns)
{
	if (cli->json)
		return json_print(cli, rows);
	int r = json_array_size(rows) > 0 ? print_rows(rows, columns) : 0;

	json_decref(rows);
	return r;
}

int server_list(struct cli *cli, struct server *s, const struct path *p, const char *field, const char *const *columns)
{
	json_t *rows;
	int r = server_pages(s, p, field, &rows);

	return r != 0 ? r : server_rows(cli, rows, columns);
}

int server_put_pem(struct cli *cli, const char *pem, const char *label, const char *field)
{
	struct csm_buf der;
	int r;

	if (cli->value[O_DER] == NULL)
		return print_text_field(cli, field, pem, strlen(pem));
	csm_buf_init(&der, CSM_MESSAGE_MAX, false);
	r = pem_get(pem, strlen(pem), label, &der);
	if (r == 0)
		r = print_bytes(cli, field, csm_buf_ptr(&der), der.len);
	csm_buf_free(&der);
	return r;
}
