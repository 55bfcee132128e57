/* csm-server, as a command asks it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libclient/cli/server.h"
#include "libclient/cli/wrap.h"

#define DEFAULT_SOCKET "/run/csm/server-admin.sock"

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

/* `status` of HTTP: what csm-server calls malformed is what was typed. */
static int failed(const struct server *s, int r, int status, const char *why)
{
	if (status == 400)
		return cli_usage("%s: %s", csm_error_name(r), why);
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
		r = failed(s, r, res.status, res.why);
	else
		*ret = json_incref(res.json);
	csm_rest_res_clear(&res);
	return r;
}

int server_fetch(struct server *s, const char *path, struct csm_buf *out, char next[static CSM_REST_NEXT_MAX + 1])
{
	const struct csm_rest_req req = {.method = "GET", .path = path, .accept = "*/*"};
	struct csm_rest_res res;
	int r;

	csm_rest_res_init(&res);
	r = csm_rest_send(s->rest, &req, &res);
	if (r != 0) {
		r = failed(s, r, res.status, res.why);
	} else {
		memcpy(next, res.next, sizeof(res.next));
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
