/* Signatures of the issuers' keys, which are in the csmd beside it: one, or those of several certificates in one exchange. */
#include <string.h>
#include <time.h>
#include "daemon/central/ca_int.h"

static bool names_key(const struct ca_signing *s)
{
	return strcmp(s->kind, "certificate") == 0 && s->issuer->spki_sha256[0] != '\0';
}

static int give(const struct csm_reply *reply, uint8_t *sig, size_t *n)
{
	size_t len = 0;
	const void *p = csm_view_bin(csm_reply_view(reply), "signature", &len);

	if (p == NULL || len > CSM_SIGNATURE_MAX)
		return CSM_EPROTOCOL;
	memcpy(sig, p, len);
	*n = len;
	return 0;
}

/* By the key that the certificate is of, and no other that has come to have its name. */
static int request_new(const struct ca_issuer *i, struct csm_bin tbs, const char *scheme, struct csm_request **ret)
{
	struct csm_request *req = NULL;
	int r;

	if ((r = csm_request_new("issue.sign", &req)) == 0 && (r = csm_request_str(req, "key", i->config->key)) == 0 &&
		(r = csm_request_str(req, "spki_sha256", i->spki_sha256)) == 0 &&
		(r = csm_request_str(req, "kind", "certificate")) == 0 && (r = csm_request_str(req, "scheme", scheme)) == 0 &&
		(r = csm_request_bin(req, "tbs", tbs.p, tbs.n)) == 0)
		*ret = req;
	else
		csm_request_free(req);
	return r;
}

static int sign_by_key(struct ca_signing *s, struct csm_bin tbs, const char *scheme, uint8_t *sig, size_t *n)
{
	struct csm_request *req = NULL;
	struct csm_reply *reply = NULL;
	int r = request_new(s->issuer, tbs, scheme, &req);

	if (r == 0 && (r = csm_call(s->csm, req, &reply)) == 0)
		r = give(reply, sig, n);
	csm_reply_free(reply);
	csm_request_free(req);
	return r == CSM_ECONFLICT ? CSM_EBACKEND : r;
}

static int sign(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	struct ca_signing *s = arg;
	const char *name = csm_scheme_name(scheme);
	size_t len = CSM_SIGNATURE_MAX;
	int r;

	if (names_key(s))
		r = sign_by_key(s, tbs, name, sig, &len);
	else
		r = csm_issue_sign(s->csm, s->issuer->config->key, s->kind, name, tbs.p, tbs.n, sig, &len);
	if (r != 0)
		return ca_csmd_error(r, s->why);
	*n = len;
	return 0;
}

struct csm_signer ca_signer(struct ca_signing *s)
{
	s->why[0] = '\0';
	return (struct csm_signer){
		.pub = s->issuer->pub, .scheme = s->issuer->scheme, .believed = names_key(s), .sign = sign, .arg = s};
}

/* ---- several at once ---- */

void ca_lines_init(struct ca_lines *l)
{
	l->n = 0;
	(void)pthread_mutex_init(&l->lock, NULL);
}

void ca_lines_free(struct ca_lines *l)
{
	while (l->n > 0)
		csm_async_free(l->idle[--l->n]);
	(void)pthread_mutex_destroy(&l->lock);
}

static int line_take(struct ca_lines *l, const struct csm *csm, struct csm_async **ret)
{
	struct csm_async *a = NULL;

	(void)pthread_mutex_lock(&l->lock);
	if (l->n > 0)
		a = l->idle[--l->n];
	(void)pthread_mutex_unlock(&l->lock);
	if (a == NULL)
		return csm_async_new(csm, ret);
	*ret = a;
	return 0;
}

static void line_give(struct ca_lines *l, struct csm_async *a)
{
	(void)pthread_mutex_lock(&l->lock);
	if (l->n < CA_LINES_MAX && csm_pending(a) == 0) {
		l->idle[l->n++] = a;
		a = NULL;
	}
	(void)pthread_mutex_unlock(&l->lock);
	/* what it has not told yet it tells now */
	csm_async_free(a);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static void refused(struct ca_to_sign *s, int r)
{
	s->r = ca_csmd_error(r == CSM_ECONFLICT ? CSM_EBACKEND : r, s->why);
}

static void answered(void *arg, int error, struct csm_reply *reply)
{
	struct ca_to_sign *s = arg;
	int r = error != 0 ? error : give(reply, s->sig, &s->n);

	csm_reply_free(reply);
	if (r != 0)
		refused(s, r);
	else
		s->r = 0;
	ca_issuer_took(s->issuer, now_ms() - s->asked);
}

static int ask(struct csm_async *line, struct ca_to_sign *s)
{
	struct csm_request *req = NULL;
	int r = request_new(s->issuer, s->tbs, csm_scheme_name(&s->issuer->scheme), &req);

	s->asked = now_ms();
	if (r == 0)
		r = csm_submit(line, req, 0, answered, s);
	csm_request_free(req);
	return r;
}

void ca_sign_together(struct central *c, struct ca_to_sign *const *v, size_t n)
{
	struct csm_async *line = NULL;
	int r = line_take(ca_lines(c->ca), c->csm, &line);

	for (size_t i = 0; i < n; i++) {
		int own = r != 0 ? r : ask(line, v[i]);

		if (own != 0)
			refused(v[i], own);
	}
	if (r != 0)
		return;
	/* each has been told by itself what was wrong */
	(void)csm_process_all(line);
	line_give(ca_lines(c->ca), line);
}

static int is_there(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	const struct ca_to_sign *s = arg;

	(void)tbs;
	(void)scheme;
	memcpy(sig, s->sig, s->n);
	*n = s->n;
	return 0;
}

struct csm_signer ca_signed(struct ca_to_sign *s)
{
	return (struct csm_signer){
		.pub = s->issuer->pub, .scheme = s->issuer->scheme, .believed = true, .sign = is_there, .arg = s};
}
