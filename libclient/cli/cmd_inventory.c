/* csm ca cert list, export and verify: the inventory of csm-server, and signed copies of it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/evp.h>
#include <sodium.h>
#include "libclient/cli/server.h"

#define EXPORT "/v1/cms/inventory"
#define EXPORT_ROWS 500u
#define SCHEME "ecdsa-sha256"
#define SIGNATURE_MAX 256u
#define COPY_LINE_MAX (16u * 1024u * 1024u) /* no page that csm-server gives comes near it */

/* ---- list ---- */

static int query_time(struct path *p, const char *name, const struct cli *cli, enum opt_id id)
{
	char text[24];
	uint64_t at;

	if (cli->value[id] == NULL)
		return 0;
	if (parse_time(cli_opts[id].name, cli->value[id], &at) != 0)
		return -EXIT_USAGE;
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)at);
	path_query(p, name, text);
	return 0;
}

static int list_path(const struct cli *cli, struct path *p)
{
	if (cli->list_n > 1)
		return cli_usage("--san is given twice");
	path_start(p, "/v1/cms/certificates");
	path_query(p, "name", cli->value[O_NAME]);
	path_query(p, "san", cli->value[O_SAN]);
	path_query(p, "node", cli->value[O_NODE]);
	path_query(p, "requester", cli->value[O_REQUESTER]);
	path_query(p, "profile", cli->value[O_PROFILE]);
	path_query(p, "issuer", cli->value[O_ISSUER]);
	path_query(p, "serial", cli->value[O_SERIAL]);
	path_query(p, "state", cli->value[O_STATE]);
	if (query_time(p, "expires_before", cli, O_EXPIRES_BEFORE) != 0 || query_time(p, "expires_after", cli, O_EXPIRES_AFTER) != 0)
		return -EXIT_USAGE;
	return query_time(p, "issued_after", cli, O_ISSUED_AFTER);
}

int cmd_ca_cert_list(struct cli *cli)
{
	static const char *const columns[] = {"serial", "state", "not_after", "profile", "subject", "san", NULL};
	struct server *s;
	struct path p;
	int r;

	if (cli->json && cli->value[O_CSV] != NULL)
		return cli_usage("--json or --csv, not both");
	if ((r = list_path(cli, &p)) != 0 || (r = server_open(cli, false, &s)) != 0)
		return r;
	r = cli->value[O_CSV] != NULL ? server_csv(cli, s, &p) : server_list(cli, s, &p, "certificates", columns);
	server_close(s);
	return r;
}

/* ---- export ---- */

/* A line each, whose order and number the signed text of each tells. */
static int put_page(void *arg, const json_t *page)
{
	const struct out *o = arg;
	char *text = json_dumps(page, JSON_COMPACT);
	int r = text == NULL ? client_err_plain(CSM_ENOMEM) : io_write(o->fd, text, strlen(text));

	if (r == 0)
		r = io_write(o->fd, "\n", 1);
	free(text);
	return r;
}

int cmd_ca_cert_export(struct cli *cli)
{
	struct server *s;
	struct path p;
	struct out o;
	int r;

	path_start(&p, EXPORT);
	if ((r = server_open(cli, false, &s)) != 0)
		return r;
	if ((r = out_open(cli, false, &o)) == 0)
		r = out_close(&o, server_each_page(s, &p, EXPORT_ROWS, put_page, &o));
	server_close(s);
	return r;
}

int cmd_ca_cert_signer(struct cli *cli)
{
	json_t *page = NULL;
	struct server *s;
	const char *pem;
	int r = server_open(cli, false, &s);

	if (r != 0)
		return r;
	r = server_call(s, "GET", EXPORT "?limit=1", NULL, &page);
	if (r == 0 && (r = server_text(page, "public", &pem)) == 0)
		r = server_put_pem(cli, pem, "PUBLIC KEY", "public");
	json_decref(page);
	server_close(s);
	return r;
}

/* ---- verify ---- */

struct copy {
	const char *path;
	EVP_PKEY *key;
	struct out *out; /* of the certificates' lines; NULL: nowhere */
	char *after;     /* the cursor of the page that has to come; "" at first, NULL once the last one has been */
	uint64_t pages, certificates, from, to;
};

static int bad(const struct copy *c, const char *what)
{
	return client_err(CSM_ETAMPERED, "%s, line %llu: %s", c->path, (unsigned long long)c->pages + 1, what);
}

static bool is_signed(const struct copy *c, const char *text, const char *base64)
{
	uint8_t sig[SIGNATURE_MAX];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t n = 0;
	bool ok = ctx != NULL && sodium_base642bin(sig, sizeof(sig), base64, strlen(base64), NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
		EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, c->key) == 1 &&
		EVP_DigestVerify(ctx, sig, n, (const uint8_t *)text, strlen(text)) == 1;

	EVP_MD_CTX_free(ctx);
	return ok;
}

static bool number(const json_t *o, const char *name, uint64_t *ret)
{
	const json_t *v = json_object_get(o, name);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return false;
	*ret = (uint64_t)json_integer_value(v);
	return true;
}

static uint64_t lines_of(const char *text)
{
	uint64_t n = 0;

	for (; (text = strchr(text, '\n')) != NULL; text++)
		n++;
	return n;
}

/* What the signed text says of itself: it is the page that has to come, and whole. */
static int take_head(struct copy *c, const json_t *head, const char *rows)
{
	const char *after = csm_rest_text(head, "after"), *next = csm_rest_text(head, "next");
	uint64_t form, at, n;

	if (!number(head, "inventory", &form) || form != 1 || !number(head, "time", &at) || !number(head, "certificates", &n) ||
		after == NULL || next == NULL)
		return bad(c, "it is no page of an inventory that this version knows");
	if (strcmp(after, c->after) != 0)
		return bad(c, "it is another page than the one that has to follow here: one is missing, or out of its place");
	if (at < c->to)
		return bad(c, "it is older than the page before: it comes from another copy");
	if (lines_of(rows) != n)
		return bad(c, "it has not as many certificates as it says");
	free(c->after);
	c->after = *next != '\0' ? strdup(next) : NULL;
	if (*next != '\0' && c->after == NULL)
		return client_err_plain(CSM_ENOMEM);
	c->from = c->pages == 0 ? at : c->from;
	c->to = at;
	c->certificates += n;
	c->pages++;
	return c->out != NULL && *rows != '\0' ? io_write(c->out->fd, rows, strlen(rows)) : 0;
}

static int take_page(struct copy *c, const char *line, size_t n)
{
	json_t *page = json_loadb(line, n, JSON_REJECT_DUPLICATES, NULL), *head = NULL;
	const char *text = csm_rest_text(page, "inventory"), *scheme = csm_rest_text(page, "scheme"), *sig = csm_rest_text(page, "signature");
	const char *end = text != NULL ? strchr(text, '\n') : NULL;
	int r;

	if (c->after == NULL)
		r = bad(c, "there is more after the last page");
	else if (end == NULL || scheme == NULL || sig == NULL || strcmp(scheme, SCHEME) != 0)
		r = bad(c, "it is no page of csm ca cert export");
	else if (!is_signed(c, text, sig))
		r = bad(c, "the key has not signed this");
	else {
		head = json_loadb(text, (size_t)(end - text), JSON_REJECT_DUPLICATES, NULL);
		r = take_head(c, head, end + 1);
	}
	json_decref(head);
	json_decref(page);
	return r;
}

/* The next line, into b; CSM_ENOT_FOUND: there is none. Whose file it is is not known before its signature is checked. */
static int read_line(const struct copy *c, FILE *f, struct csm_buf *b)
{
	uint8_t part[4096];
	size_t n = 0;
	int ch = 0, r = 0;

	csm_buf_reset(b);
	while (r == 0 && ch != '\n' && (ch = getc_unlocked(f)) != EOF) {
		part[n++] = (uint8_t)ch;
		if (ch == '\n' || n == sizeof(part)) {
			r = csm_buf_put(b, part, n);
			n = 0;
		}
	}
	if (r == 0 && n > 0)
		r = csm_buf_put(b, part, n);
	if (r != 0)
		return r == CSM_ETOO_LARGE ? bad(c, "it is longer than any page") : client_err_plain(r);
	if (ferror(f))
		return client_err_errno(CSM_ESYSTEM, c->path);
	return b->len > 0 ? 0 : CSM_ENOT_FOUND;
}

static int take_file(struct copy *c, FILE *f)
{
	struct csm_buf line;
	int r;

	csm_buf_init(&line, COPY_LINE_MAX, false);
	while ((r = read_line(c, f, &line)) == 0)
		if ((r = take_page(c, (const char *)csm_buf_ptr(&line), line.len)) != 0)
			break;
	if (r == CSM_ENOT_FOUND)
		r = c->after != NULL ? bad(c, "the copy ends before its last page") : 0;
	csm_buf_free(&line);
	return r;
}

static int verify(struct copy *c)
{
	bool input = strcmp(c->path, "-") == 0;
	FILE *f = input ? stdin : fopen(c->path, "re");
	int r;

	if (f == NULL)
		return client_err_errno(CSM_ESYSTEM, c->path);
	r = take_file(c, f);
	if (!input)
		(void)fclose(f);
	return r;
}

static int tell(struct cli *cli, const struct copy *c)
{
	char from[32], to[32];
	json_t *j;

	if (!cli->json) {
		printf("%llu certificates, as csm-server knew them from %s to %s\n", (unsigned long long)c->certificates,
			time_text(c->from, from), time_text(c->to, to));
		return 0;
	}
	j = json_pack("{s:b, s:I, s:I, s:I, s:I}", "valid", true, "certificates", (json_int_t)c->certificates, "pages", (json_int_t)c->pages,
		"from", (json_int_t)c->from, "to", (json_int_t)c->to);
	if (j == NULL)
		return client_err_plain(CSM_ENOMEM);
	cli->value[O_OUTPUT] = NULL; /* there are the certificates */
	return json_print(cli, j);
}

int cmd_ca_cert_verify(struct cli *cli)
{
	struct copy c = {.path = cli->arg[0]};
	struct out o;
	int r;

	if (cli->value[O_KEY] == NULL)
		return cli_usage("--key is missing: the file with what csm ca cert signer prints, from whom you trust to know it");
	if ((r = public_of_file(cli->value[O_KEY], &c.key)) != 0)
		return r;
	if ((c.after = strdup("")) == NULL)
		r = client_err_plain(CSM_ENOMEM);
	else if (cli->value[O_OUTPUT] == NULL)
		r = verify(&c);
	else if ((r = out_open(cli, false, &o)) == 0) {
		c.out = &o;
		r = out_close(&o, verify(&c));
	}
	if (r == 0)
		r = tell(cli, &c);
	free(c.after);
	EVP_PKEY_free(c.key);
	return r;
}
