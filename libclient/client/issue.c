/* What an issuer's key signs: certificates, CRLs, OCSP responses. */
#include <stdlib.h>
#include <string.h>
#include "libclient/client/internal.h"

static int names_of(const char *const *from, size_t n, struct csm_str *v, struct csm_strs *ret)
{
	if (n > CSM_ISSUER_NAMES_MAX)
		return client_err(CSM_ETOO_LARGE, "at most %u name constraints", CSM_ISSUER_NAMES_MAX);
	for (size_t i = 0; i < n; i++)
		v[i] = csm_str_of(from[i]);
	*ret = (struct csm_strs){v, n};
	return 0;
}

int csm_issuer_create(struct csm *c, const char *key, const char *alg, const char *backend,
	const struct csm_issuer_rules *rules, struct csm_reply **ret)
{
	struct csm_str permitted[CSM_ISSUER_NAMES_MAX], excluded[CSM_ISSUER_NAMES_MAX], use = CSM_STR("issuer");
	struct csm_msg_issuer_rules issuer = {
		.max_life = {rules->max_life, true},
		.path_len = {rules->path_len, true},
		.rate = {rules->rate, rules->rate > 0},
	};
	struct csm_msg_key_create_req req = {
		.key = csm_str_of(key),
		.alg = csm_str_of(alg),
		.backend = csm_str_of(backend),
		.use = {&use, 1},
		.issuer = &issuer,
	};
	int r;

	if ((r = names_of(rules->permitted, rules->n_permitted, permitted, &issuer.permitted)) != 0 ||
		(r = names_of(rules->excluded, rules->n_excluded, excluded, &issuer.excluded)) != 0)
		return r;
	return client_call_new(c, CSM_M_KEY_CREATE, &req, ret);
}

/* ---- in parts ---- */

struct csm_issue {
	struct client_stream s;
};

int csm_issue_begin(struct csm *c, const char *key, const char *kind, const char *scheme, const void *head, size_t head_len,
	struct csm_issue **ret)
{
	struct csm_msg_issue_begin_req req = {
		.key = csm_str_of(key),
		.kind = csm_str_of(kind),
		.head = client_bin(head, head_len),
		.scheme = csm_str_of(scheme),
	};
	struct csm_issue *i = calloc(1, sizeof(*i));
	struct csm_reply rep;
	int r;

	if (i == NULL)
		return client_err_plain(CSM_ENOMEM);
	if ((r = client_stream_open(&i->s, c, CSM_M_ISSUE_BEGIN, &req, &rep)) != 0) {
		free(i);
		return r;
	}
	i->s.stream = ((struct csm_msg_issue_begin_res *)rep.msg)->stream.v;
	reply_clear(&rep);
	*ret = i;
	return 0;
}

int csm_issue_update(struct csm_issue *i, const void *entries, size_t entries_len)
{
	struct csm_msg_issue_update_req req = {
		.stream = {i->s.stream, true}, .entries = client_bin(entries, entries_len)};
	struct csm_reply rep;
	int r = i->s.open ? 0 : client_err(CSM_ESTATE, "the list is used up");

	if (r == 0)
		r = client_stream_step(&i->s, CSM_M_ISSUE_UPDATE, &req, &rep);
	if (r == 0)
		reply_clear(&rep);
	return r;
}

int csm_issue_finish(struct csm_issue *i, const void *tail, size_t tail_len, void *out, size_t *len)
{
	struct csm_msg_issue_finish_req req = {.stream = {i->s.stream, true}};
	struct csm_reply rep;
	int r = i->s.open ? 0 : client_err(CSM_ESTATE, "the list is used up");

	if (r != 0)
		return r;
	if (tail_len > 0)
		req.tail = client_bin(tail, tail_len);
	i->s.open = false;
	r = client_stream_step(&i->s, CSM_M_ISSUE_FINISH, &req, &rep);
	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_sign_res *)rep.msg)->signature, out, len);
	reply_clear(&rep);
	return r;
}

void csm_issue_free(struct csm_issue *i)
{
	if (i == NULL)
		return;
	client_stream_close(&i->s);
	free(i);
}

/* ---- a long list that is in memory ---- */

/* One DER value at p: the bytes of its tag and length, and those of its contents. False where it does not fit into n. */
static bool der_head(const uint8_t *p, size_t n, size_t *head, size_t *body)
{
	size_t bytes, len = 0;

	if (n < 2)
		return false;
	bytes = p[1] < 0x80 ? 0 : p[1] & 0x7fu;
	if (p[1] == 0x80 || bytes > 4 || n < 2 + bytes)
		return false;
	for (size_t i = 0; i < bytes; i++)
		len = len << 8 | p[2 + i];
	*head = 2 + bytes;
	*body = bytes == 0 ? p[1] : len;
	return *body <= n - *head;
}

/* Where the entries of a TBSCertList begin and end: behind version, algorithm, issuer and two times comes their SEQUENCE.
 * What is wrong otherwise is csmd's to find. */
static bool crl_entries(const uint8_t *p, size_t n, size_t *from, size_t *to)
{
	size_t at, head, body;

	if (!der_head(p, n, &at, &body) || at + body != n)
		return false;
	for (int field = 0; field < 5; field++) {
		if (!der_head(p + at, n - at, &head, &body))
			return false;
		at += head + body;
	}
	if (at == n || p[at] != 0x30 || !der_head(p + at, n - at, &head, &body))
		return false;
	*from = at + head;
	*to = *from + body;
	return true;
}

/* As many whole entries as go into one request. */
static size_t some_entries(const uint8_t *p, size_t n)
{
	size_t at = 0, head, body;

	while (at < n && der_head(p + at, n - at, &head, &body) && at + head + body <= CSM_TBS_MAX)
		at += head + body;
	return at;
}

static int sign_long(struct csm *c, const char *key, const char *kind, const char *scheme, struct csm_bin tbs, void *out,
	size_t *len)
{
	const uint8_t *p = tbs.p;
	struct csm_issue *i;
	size_t from, to, n;
	int r;

	if (!crl_entries(p, tbs.n, &from, &to))
		return client_err(CSM_ETOO_LARGE, "longer than %u bytes, and no list of revoked certificates", CSM_TBS_MAX);
	if ((r = csm_issue_begin(c, key, kind, scheme, p, from, &i)) != 0)
		return r;
	for (; r == 0 && from < to; from += n) {
		n = some_entries(p + from, to - from);
		r = n == 0 ? client_err(CSM_EINVALID, "the list's entries are not DER") : csm_issue_update(i, p + from, n);
	}
	if (r == 0)
		r = csm_issue_finish(i, p + to, tbs.n - to, out, len);
	csm_issue_free(i);
	return r;
}

int csm_issue_sign(struct csm *c, const char *key, const char *kind, const char *scheme, const void *tbs, size_t tbs_len,
	void *out, size_t *len)
{
	struct csm_msg_issue_sign_req req = {
		.key = csm_str_of(key),
		.kind = csm_str_of(kind),
		.tbs = client_bin(tbs, tbs_len),
		.scheme = csm_str_of(scheme),
	};
	struct csm_reply rep;
	int r;

	if (tbs_len > CSM_TBS_MAX)
		return sign_long(c, key, kind, scheme, req.tbs, out, len);
	r = client_call(c, CSM_M_ISSUE_SIGN, &req, &rep);
	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_sign_res *)rep.msg)->signature, out, len);
	reply_clear(&rep);
	return r;
}
