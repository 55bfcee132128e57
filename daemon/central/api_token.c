/* Enrolment tokens: made, listed, withdrawn. A token is told once; what is stored is its SHA-256. */
#include <stdio.h>
#include <string.h>
#include <sodium.h>
#include "daemon/central/api_int.h"
#include "daemon/pki/subject.h"
#include "libclient/base/lockmem.h"

#define TOKEN_BYTES 32u /* random ones */
#define TOKEN_TEXT (sodium_base64_ENCODED_LEN(TOKEN_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING))
#define TTL_DEFAULT 3600u
#define TTL_MAX (UINT64_C(90) * 86400)
#define USES_MAX 1000000u
#define LIST_DEFAULT 100u

struct asked {
	struct body_strs names;
	struct csm_str profile, role;
	bool any_name;
	uint64_t ttl, uses;
};

static bool fail(struct csm_http_res *res, int r, const char *text)
{
	csm_http_fail(res, r, "%s", text);
	return false;
}

/* ---- what a token is for ---- */

/* A name without a form is a host's; each has to be one that a certificate can have. */
static bool take_name(struct csm_str name, struct csm_pool *pool, struct csm_str *ret, struct csm_http_res *res)
{
	static const char *const forms[] = {"dns:", "ip:", "uri:", "email:", "cn:"};
	GENERAL_NAMES *parsed = NULL;
	char why[128] = "";
	char *text;
	size_t i = 0;
	int r;

	while (i < 5 && (name.n < strlen(forms[i]) || memcmp(name.p, forms[i], strlen(forms[i])) != 0))
		i++;
	if (i == 4) { /* a CN may be any text */
		*ret = name;
		return name.n > 3 || fail(res, CSM_EINVALID, "names: a CN is empty");
	}
	if ((text = csm_pool_alloc(pool, name.n + 5)) == NULL)
		return fail(res, CSM_EBUSY, "no memory");
	(void)snprintf(text, name.n + 5, "%s%.*s", i == 5 ? "dns:" : "", (int)name.n, name.p);
	*ret = csm_str_of(text);
	r = csm_sans_parse(ret, 1, &parsed, why);
	GENERAL_NAMES_free(parsed);
	if (r != 0)
		csm_http_fail(res, CSM_EINVALID, "names: %s", why);
	return r == 0;
}

static bool take_names(const struct asked *a, struct csm_pool *pool, struct db_token *t, struct csm_http_res *res)
{
	struct csm_str *v = csm_pool_alloc(pool, (a->names.n + 1) * sizeof(*v));

	if (v == NULL)
		return fail(res, CSM_EBUSY, "no memory");
	if (a->any_name && a->names.n > 0)
		return fail(res, CSM_EINVALID, "names and any_name: one of them");
	if (!a->any_name && a->names.n == 0 && a->profile.n == 0)
		return fail(res, CSM_EINVALID, "names, profile or any_name: at least one of them");
	for (size_t i = 0; i < a->names.n; i++)
		if (!take_name(a->names.v[i], pool, &v[i], res))
			return false;
	t->names = v;
	t->n_names = a->names.n;
	t->any_name = a->names.n == 0;
	return true;
}

/* Who makes a token can hand out no more than he could ask for himself. */
static bool take_role(struct central *c, const struct caller *by, const struct asked *a, struct db_token *t,
	struct csm_http_res *res)
{
	const struct profile_config *p = NULL;

	if (a->profile.n > 0 && (p = profiles_get(ca_profiles(c->ca), a->profile)) == NULL)
		return fail(res, CSM_EINVALID, "profile: there is none of that name");
	if (p != NULL && (p->ask & ASK_TOKEN) == 0)
		return fail(res, CSM_EDENIED, "profile: it is not for tokens to ask");
	t->profile = p != NULL ? csm_str_of(p->name) : CSM_STR("");
	t->role = a->role.p != NULL ? a->role : csm_str_of(p != NULL ? p->role : "");
	if (csm_str_eq(t->role, "service"))
		t->role = CSM_STR("");
	if (t->role.n > 0 && !csm_str_eq(t->role, "node") && !csm_str_eq(t->role, "operator") &&
		!csm_str_eq(t->role, "administrator"))
		return fail(res, CSM_EINVALID, "role: service, node, operator or administrator");
	if (p != NULL && p->role[0] != '\0' && !csm_str_eq(t->role, p->role))
		return fail(res, CSM_EINVALID, "role: the profile gives another one");
	if ((csm_str_eq(t->role, "operator") || csm_str_eq(t->role, "administrator")) && by->role != CALLER_ADMINISTRATOR)
		return fail(res, CSM_EDENIED, "role: an administrator's to give");
	return true;
}

/* ---- making one ---- */

static json_t *names_json(const struct db_token *t)
{
	json_t *all = json_array();

	for (size_t i = 0; i < t->n_names; i++)
		if (json_array_append_new(all, body_str(t->names[i])) != 0) {
			json_decref(all);
			return NULL;
		}
	return all;
}

static json_t *token_json(const struct db_token *t)
{
	return json_pack("{s:o, s:o, s:b, s:o, s:o, s:I, s:I, s:I, s:I, s:o}", "id",
		body_hex((struct csm_bin){t->id, DB_TOKEN_ID_LEN}), "names", names_json(t), "any_name", t->any_name, "profile",
		body_str(t->profile), "role", t->role.n > 0 ? body_str(t->role) : json_string("service"), "created",
		(json_int_t)t->created, "expires", (json_int_t)t->expires, "uses", (json_int_t)t->uses, "used",
		(json_int_t)t->used, "by", body_str(t->by));
}

/* The token itself, as text, and its hash. With an Idempotency-Key it follows from its id and the database's key, so that it can be told
 * again to who asks again, and is kept nowhere. */
static void make_secret(const struct central *c, struct db_token *t, bool again, uint8_t text[static TOKEN_TEXT])
{
	CSM_WIPED(secret, TOKEN_BYTES);

	if (again)
		db_token_secret(c->db, t->id, secret);
	else
		randombytes_buf(secret, TOKEN_BYTES);
	(void)sodium_bin2base64((char *)text, TOKEN_TEXT, secret, TOKEN_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	crypto_hash_sha256(t->hash, text, TOKEN_TEXT - 1);
}

/* *t is the one that was made then. */
static int take_first(const struct central *c, const struct csm_buf *id, struct csm_pool *pool, struct db_token *t,
	uint8_t text[static TOKEN_TEXT])
{
	uint8_t hash[sizeof(t->hash)];
	int r = id->len == DB_TOKEN_ID_LEN ? db_token_get(c->db, csm_buf_ptr(id), pool, t) : CSM_ETAMPERED;

	if (r != 0)
		return r;
	memcpy(hash, t->hash, sizeof(hash));
	make_secret(c, t, true, text);
	t->used = 0; /* as it was told then */
	return sodium_memcmp(hash, t->hash, sizeof(hash)) == 0 ? 0 : CSM_ETAMPERED;
}

static void make_token(struct central *c, struct db_token *t, const struct db_asked *asked, struct csm_pool *pool,
	struct csm_http_res *res)
{
	CSM_WIPED(text, TOKEN_TEXT);
	bool replayed = false;
	struct csm_buf first;
	json_t *answer;
	int r;

	csm_buf_init(&first, DB_SERIAL_MAX, false);
	make_secret(c, t, asked->idempotency.n > 0, text);
	r = db_token_add_asked(c->db, t, asked, &replayed, &first);
	if (r == 0 && replayed && (r = take_first(c, &first, pool, t, text)) == CSM_ENOT_FOUND)
		r = CSM_EEXISTS;
	csm_buf_free(&first);
	if (r != 0) {
		csm_http_fail(res, r, "%s", r == CSM_ECONFLICT ? "this Idempotency-Key was used with another request" :
			r == CSM_EEXISTS ? "the token that was made with this Idempotency-Key is withdrawn" :
			r == CSM_EDENIED ? "the certificate by which was asked is revoked" : csm_err_text(r));
		return;
	}
	answer = token_json(t);
	if (answer != NULL && json_object_set_new(answer, "token", json_string((const char *)text)) != 0) {
		json_decref(answer);
		answer = NULL;
	}
	body_answer(res, 201, answer);
}

void api_token_create(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct asked a = {.names.n = 0, .ttl = TTL_DEFAULT, .uses = 1};
	const struct body_field fields[] = {
		{"names", BODY_STRS, false, CSM_SAN_MAX, &a.names}, {"profile", BODY_STR, false, API_NAME_MAX, &a.profile},
		{"any_name", BODY_BOOL, false, 0, &a.any_name}, {"role", BODY_STR, false, 16, &a.role},
		{"ttl", BODY_U64, false, TTL_MAX, &a.ttl}, {"uses", BODY_U64, false, USES_MAX, &a.uses},
	};
	struct central *c = arg;
	uint8_t hash[32];
	struct db_asked asked;
	struct db_token t = {.used = 0};
	char why[BODY_WHY];
	struct csm_pool pool;
	struct caller by;
	json_t *root = NULL;
	int r;

	if (!api_admin(c, req, true, &pool, &by, res) || !api_asked(req, &by, "token", hash, &asked, res))
		goto out;
	if ((r = body_read(req, fields, sizeof(fields) / sizeof(fields[0]), &root, why)) != 0) {
		csm_http_fail(res, r, "%s", why);
		goto out;
	}
	if (a.ttl == 0 || a.uses == 0) {
		csm_http_fail(res, CSM_EINVALID, "ttl, uses: at least 1");
		goto out;
	}
	if (!take_names(&a, &pool, &t, res) || !take_role(c, &by, &a, &t, res))
		goto out;
	randombytes_buf(t.id, sizeof(t.id));
	t.created = c->now();
	t.expires = t.created + a.ttl;
	t.uses = a.uses;
	t.by = csm_str_of(by.name);
	make_token(c, &t, &asked, &pool, res);
out:
	json_decref(root);
	csm_pool_free(&pool);
}

/* ---- those that are there ---- */

void api_token_list(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct csm_str after = csm_http_query(req, "after"), limit = csm_http_query(req, "limit"), next = {NULL, 0};
	struct central *c = arg;
	uint64_t n_max = LIST_DEFAULT;
	struct db_token *v = NULL;
	json_t *all = NULL;
	struct csm_pool pool;
	struct caller by;
	size_t n = 0;
	int r;

	if (!api_admin(c, req, true, &pool, &by, res))
		goto out;
	if (limit.p != NULL && (!csm_parse_number(limit, CSM_LIST_MAX, &n_max) || n_max == 0)) {
		csm_http_fail(res, CSM_EINVALID, "limit: 1 to %u", CSM_LIST_MAX);
		goto out;
	}
	if (after.p == NULL)
		after = CSM_STR("");
	if ((r = db_token_list(c->db, after, n_max, &pool, &v, &n, &next)) != 0) {
		csm_http_fail(res, r, "%s", csm_err_text(r));
		goto out;
	}
	all = json_array();
	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(all, token_json(&v[i])) != 0) {
			csm_http_fail(res, CSM_EBUSY, "no memory");
			goto out;
		}
	body_answer(res, 200, json_pack("{s:O, s:o}", "tokens", all, "next", body_str(next)));
out:
	json_decref(all);
	csm_pool_free(&pool);
}

void api_token_delete(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	uint8_t id[DB_TOKEN_ID_LEN];
	struct central *c = arg;
	struct csm_pool pool;
	struct caller by;
	size_t n = 0;
	int r;

	if (!api_admin(c, req, true, &pool, &by, res))
		goto out;
	if (req->n_params < 1 || !body_unhex(req->param[0], id, sizeof(id), &n) || n != sizeof(id))
		csm_http_fail(res, CSM_EINVALID, "the id of a token is %u digits of hex", 2 * DB_TOKEN_ID_LEN);
	else if ((r = db_token_delete(c->db, id, c->now(), csm_str_of(by.name))) == CSM_ENOT_FOUND)
		csm_http_fail(res, r, "there is no such token");
	else if (r != 0)
		csm_http_fail(res, r, "%s", csm_err_text(r));
	else
		res->status = 204;
out:
	csm_pool_free(&pool);
}
