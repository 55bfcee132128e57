/* csm secret set and get. Values live in locked memory from where they are read to where they are
 * written; no message shows one. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <jansson.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/json.h"

/* ---- set ---- */

struct pairs {
	struct csm_msg_pair v[CSM_PAIRS_MAX];
	struct csm_buf value[CSM_PAIRS_MAX];
	size_t n;
	bool stdin_used;
	json_t *json; /* holds the names where they came as JSON */
};

static void pairs_clear(struct pairs *p)
{
	size_t i;

	for (i = 0; i < p->n; i++)
		csm_buf_free(&p->value[i]);
	if (p->json != NULL)
		json_decref(p->json);
}

static int pairs_next(struct pairs *p, struct csm_str name, struct csm_buf **value)
{
	size_t i;

	for (i = 0; i < p->n; i++)
		if (csm_str_same(p->v[i].name, name))
			return cli_usage("%.*s is given twice", (int)name.n, name.p);
	if (p->n == CSM_PAIRS_MAX)
		return cli_usage("a secret has at most %u pairs", CSM_PAIRS_MAX);
	*value = &p->value[p->n];
	csm_buf_init(*value, CSM_SECRET_MAX, true);
	p->v[p->n++] = (struct csm_msg_pair){.name = name};
	return 0;
}

/* type NULL: text where it is UTF-8 without a NUL, else bytes. */
static void pairs_finish(struct pairs *p, const char *type)
{
	struct csm_msg_pair *pair = &p->v[p->n - 1];
	const struct csm_buf *b = &p->value[p->n - 1];

	pair->value = client_bin(b->len > 0 ? csm_buf_ptr(b) : NULL, b->len);
	if (type == NULL)
		type = b->len == 0 || (csm_utf8_valid((const char *)csm_buf_ptr(b), b->len) &&
					      memchr(csm_buf_ptr(b), 0, b->len) == NULL) ? "text" : "bytes";
	pair->type = csm_str_of(type);
}

/* K=V, K=@file, K=-, or K alone for a prompt. The literal is wiped from the command line once it has
 * been read. */
static int add_argument(struct pairs *p, char *arg)
{
	char *eq = strchrnul(arg, '=');
	struct csm_buf *b;
	int r;

	if (eq == arg || strcmp(eq, "=@") == 0)
		return cli_usage("a pair has the form K=V, K=@FILE, K=- or K");
	r = pairs_next(p, (struct csm_str){arg, (size_t)(eq - arg)}, &b);
	if (r != 0)
		return r;
	if (*eq == '\0') {
		r = prompt_secret(p->v[p->n - 1].name, b);
	} else if (strcmp(eq + 1, "-") == 0) {
		if (p->stdin_used)
			return cli_usage("standard input is used twice");
		p->stdin_used = true;
		r = io_read("-", b);
	} else if (eq[1] == '@') {
		r = io_read(eq + 2, b);
	} else {
		r = csm_buf_put(b, eq + 1, strlen(eq + 1));
		if (r != 0)
			r = client_err_plain(r);
		sodium_memzero(eq + 1, strlen(eq + 1));
	}
	if (r == 0)
		pairs_finish(p, NULL);
	return r;
}

static int add_base64(struct csm_buf *b, const json_t *j)
{
	size_t n = json_string_length(j), got;
	uint8_t *to;
	int r = csm_buf_reserve(b, n > 0 ? n : 1, &to);

	if (r != 0)
		return client_err_plain(r);
	if (sodium_base642bin(to, n, json_string_value(j), n, NULL, &got, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
		return cli_usage("a value of \"base64\" is not base64");
	csm_buf_commit(b, got);
	return 0;
}

static int dump_some(const char *p, size_t n, void *arg)
{
	return csm_buf_put(arg, p, n);
}

static int add_json_value(struct pairs *p, struct csm_str name, const json_t *value)
{
	const json_t *base64 = json_object_size(value) == 1 ? json_object_get(value, "base64") : NULL;
	const char *type = "json";
	struct csm_buf *b;
	int r = pairs_next(p, name, &b);

	if (r != 0)
		return r;
	if (json_is_string(value)) {
		type = "text";
		r = csm_buf_put(b, json_string_value(value), json_string_length(value));
	} else if (json_is_string(base64)) {
		type = "bytes";
		r = add_base64(b, base64);
	} else {
		r = json_dump_callback(value, dump_some, b, JSON_ENCODE_ANY | JSON_COMPACT) != 0 ? CSM_ETOO_LARGE : 0;
	}
	if (r == 0)
		pairs_finish(p, type);
	return r;
}

static int add_json(struct pairs *p)
{
	struct csm_buf b;
	json_error_t e;
	const char *name;
	json_t *value;
	int r;

	csm_buf_init(&b, 4 * CSM_SECRET_MAX, true);
	r = io_read("-", &b);
	if (r == 0) {
		p->json = json_loadb((const char *)csm_buf_ptr(&b), b.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
		/* jansson's text may hold a piece of the input */
		if (!json_is_object(p->json))
			r = cli_usage("standard input is not a JSON object%s",
				p->json == NULL ? ", is not JSON at all, or has a name twice" : "");
	}
	csm_buf_free(&b);
	if (r != 0)
		return r;
	json_object_foreach(p->json, name, value) {
		r = add_json_value(p, csm_str_of(name), value);
		if (r != 0)
			return r;
	}
	return 0;
}

static int read_pairs(struct cli *cli, struct pairs *p)
{
	size_t i;
	int r = 0;

	if (cli->arg_n == 2 && strcmp(cli->arg[1], "-") == 0)
		return add_json(p);
	for (i = 1; r == 0 && i < cli->arg_n; i++)
		r = add_argument(p, cli->arg[i]);
	return r;
}

int cmd_secret_set(struct cli *cli)
{
	struct pairs *p = calloc(1, sizeof(*p));
	struct csm_msg_secret_set_req req = {
		.secret = csm_str_of(cli->arg[0]),
		.request_id = csm_str_of(cli->value[O_REQUEST_ID]),
	};
	int r;

	if (p == NULL)
		return client_err_plain(CSM_ENOMEM);
	json_protect();
	if (cli->value[O_EXPECT] != NULL) {
		r = parse_u64("--expect", cli->value[O_EXPECT], INT64_MAX, &req.expect.v);
		req.expect.set = true;
		if (r != 0)
			goto out;
	}
	r = read_pairs(cli, p);
	csm_wipe_stack(SIZE_MAX); /* of what the readers left, before the daemon takes its time */
	if (r != 0)
		goto out;
	req.pairs.v = p->v;
	req.pairs.n = p->n;
	r = cli_show(cli, CSM_M_SECRET_SET, &req);
out:
	pairs_clear(p);
	free(p);
	return r;
}

/* ---- get ---- */

static bool is_text(struct csm_str type, struct csm_bin v)
{
	return !csm_str_eq(type, "bytes") && csm_utf8_valid((const char *)v.p, v.n);
}

static int json_pair(const struct csm_msg_pair *p, json_t *values, json_t *types)
{
	bool text = is_text(p->type, p->value);
	json_t *v = NULL;
	int r = 0;

	if (text)
		v = json_stringn((const char *)p->value.p, p->value.n);
	else
		r = json_base64(p->value.p, p->value.n, &v);
	if (r != 0)
		return r;
	if (v == NULL || json_object_set_new(values, p->name.p, v) != 0 ||
		json_object_set_new(types, p->name.p, json_string(p->type.n > 0 && (text || csm_str_eq(p->type, "bytes")) ?
									  p->type.p :
									  text ? "text" : "bytes")) != 0)
		return client_err_plain(CSM_ENOMEM);
	return 0;
}

static int get_json(struct cli *cli, const struct csm_msg_secret_get_res *res)
{
	json_t *values = json_object(), *types = json_object(), *j;
	size_t i;
	int r = values == NULL || types == NULL ? client_err_plain(CSM_ENOMEM) : 0;

	for (i = 0; r == 0 && i < res->pairs.n; i++)
		r = json_pair(&res->pairs.v[i], values, types);
	if (r != 0) {
		json_decref(values);
		json_decref(types);
		return r;
	}
	j = json_pack("{s:I, s:I, s:o, s:o}", "version", (json_int_t)res->version.v, "created",
		(json_int_t)res->created.v, "pairs", values, "types", types);
	return j == NULL ? client_err_plain(CSM_ENOMEM) : json_print(cli, j);
}

/* Nothing that a terminal acts on: of UTF-8, the C1 controls (U+0080 to U+009F) too. */
static bool one_line(struct csm_bin v)
{
	size_t i;

	for (i = 0; i < v.n; i++)
		if (v.p[i] < 0x20 || v.p[i] == 0x7f || (v.p[i] == 0xc2 && i + 1 < v.n && v.p[i + 1] <= 0x9f))
			return false;
	return true;
}

static int put_pair(const struct csm_msg_pair *p, struct csm_buf *b)
{
	size_t size = sodium_base64_ENCODED_LEN(p->value.n, sodium_base64_VARIANT_ORIGINAL);
	uint8_t *to;
	int r = csm_buf_put(b, p->name.p, p->name.n);

	if (r != 0)
		return r;
	if (is_text(p->type, p->value) && one_line(p->value)) {
		r = csm_buf_put(b, "=", 1);
		if (r == 0)
			r = csm_buf_put(b, p->value.p, p->value.n);
	} else {
		r = csm_buf_put(b, ":base64=", 8);
		if (r == 0)
			r = csm_buf_reserve(b, size, &to);
		if (r == 0) {
			(void)sodium_bin2base64((char *)to, size, p->value.p, p->value.n, sodium_base64_VARIANT_ORIGINAL);
			csm_buf_commit(b, size - 1);
		}
	}
	return r == 0 ? csm_buf_put(b, "\n", 1) : r;
}

static int get_text(struct cli *cli, const struct csm_msg_secret_get_res *res)
{
	struct csm_buf b;
	size_t i;
	int r = 0;

	csm_buf_init(&b, 4 * CSM_SECRET_MAX, true);
	for (i = 0; r == 0 && i < res->pairs.n; i++)
		r = put_pair(&res->pairs.v[i], &b);
	if (r != 0)
		r = client_err_plain(r);
	else
		r = out_put(cli, false, b.len > 0 ? csm_buf_ptr(&b) : NULL, b.len);
	csm_buf_free(&b);
	return r;
}

static int get_value(struct cli *cli, const struct csm_msg_secret_get_res *res)
{
	struct csm_bin v;
	int r;

	if (res->pairs.n != 1 || !csm_str_eq(res->pairs.v[0].name, cli->arg[1]))
		return client_err(CSM_EPROTOCOL, "the daemon did not answer with the one pair asked for");
	v = res->pairs.v[0].value;
	r = out_put(cli, false, v.p, v.n);
	if (r == 0 && cli->value[O_OUTPUT] == NULL && isatty(STDOUT_FILENO))
		r = io_write(STDOUT_FILENO, "\n", 1);
	return r;
}

int cmd_secret_get(struct cli *cli)
{
	struct csm_msg_secret_get_req req = {
		.secret = csm_str_of(cli->arg[0]),
		.key = csm_str_of(cli->arg_n > 1 ? cli->arg[1] : NULL),
	};
	struct csm_reply *rep;
	int r;

	json_protect();
	if (cli->value[O_VERSION] != NULL) {
		r = parse_u64("--version", cli->value[O_VERSION], INT64_MAX, &req.version.v);
		req.version.set = true;
		if (r != 0)
			return r;
	}
	r = client_call_new(cli->csm, CSM_M_SECRET_GET, &req, &rep);
	if (r != 0)
		return r;
	if (cli->json)
		r = get_json(cli, rep->msg);
	else if (cli->arg_n > 1)
		r = get_value(cli, rep->msg);
	else
		r = get_text(cli, rep->msg);
	csm_reply_free(rep);
	return r;
}
