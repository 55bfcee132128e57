#include <string.h>
#include "daemon/central/ocsp.h"
#include "daemon/central/pub.h"
#include "daemon/svc/log.h"

#define POOL_MAX (256u * 1024u)

static int sign(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	const struct ocsp_responder *r = ((void **)arg)[0];
	struct central *c = ((void **)arg)[1];
	uint8_t bytes[CSM_DIGEST_MAX];
	struct csm_bin digest;
	int e = csm_sigalg_digest(scheme, tbs, bytes, &digest);

	*n = CSM_SIGNATURE_MAX;
	if (e == 0)
		e = csm_key_sign(c->csm, r->key, csm_scheme_name(scheme), digest.p, digest.n, sig, n);
	/* without its key it is the responder that is away, not the certificate that was asked about */
	return e == CSM_ENOT_FOUND || e == CSM_EDENIED ? CSM_EUNAVAILABLE : e;
}

/* The responder of an issuer that something was asked about. CSM_ENOT_FOUND: it is nobody's that is known here. */
static int responder_for(struct central *c, struct csm_str issuer, const struct csm_ocsp_request *q, struct ocsp_responder **ret)
{
	const struct issuer_config *config;
	struct ocsp_responder *r = NULL;
	int found = CSM_ENOT_FOUND, e;

	for (size_t i = 0; (config = profiles_issuer_at(ca_profiles(c->ca), i)) != NULL; i++) {
		if (config->external != NULL || (issuer.n > 0 && !csm_str_eq(issuer, config->name)))
			continue;
		e = pub_responder(c->pub, csm_str_of(config->name), &r);
		for (size_t a = 0; e == 0 && a < q->n; a++)
			if (csm_ocsp_is_of(q, a, r->issuer)) {
				*ret = r;
				return 0;
			}
		if (e == 0)
			ocsp_responder_unref(r);
		else
			found = e; /* it may have been that one */
	}
	return found;
}

static int single_fill(struct central *c, const struct ocsp_responder *by, const struct csm_ocsp_request *q, size_t i, uint64_t now,
	struct csm_pool *pool, struct csm_ocsp_single *ret)
{
	struct db_cert cert;
	int r;

	*ret = (struct csm_ocsp_single){.id = q->asked[i].id, .state = CSM_OCSP_UNKNOWN, .this_update = now,
		.next_update = now + OCSP_LIFE < by->not_after ? now + OCSP_LIFE : by->not_after};
	if (!csm_ocsp_is_of(q, i, by->issuer))
		return 0;
	r = db_cert_get(c->db, q->asked[i].serial, pool, &cert);
	if (r == CSM_ENOT_FOUND || (r == 0 && !csm_str_eq(cert.issuer, by->name)))
		return 0;
	if (r != 0)
		return r;
	ret->state = cert.state == DB_VALID ? CSM_OCSP_GOOD : CSM_OCSP_REVOKED;
	if (cert.state != DB_VALID) {
		ret->revoked_at = cert.revoked < now ? cert.revoked : now;
		ret->reason = cert.reason;
	}
	return 0;
}

static int answer_signed(struct central *c, const struct ocsp_responder *by, const struct csm_ocsp_request *q, struct csm_buf *out,
	struct ocsp_told *told)
{
	const void *both[2] = {by, c};
	struct csm_ocsp_single singles[CSM_OCSP_ASKED_MAX];
	const uint64_t now = c->now();
	struct csm_ocsp_order o = {.responder = by->cert, .issuer = by->issuer, .produced_at = now, .singles = singles, .n = q->n,
		.nonce = q->nonce};
	struct csm_signer signer = {.pub = X509_get0_pubkey(by->cert), .scheme = csm_scheme_default(CSM_ALG_P256), .sign = sign,
		.arg = (void *)both};
	struct csm_pool pool;
	int r = now < by->not_after ? 0 : CSM_EUNAVAILABLE;

	csm_pool_init(&pool, POOL_MAX);
	for (size_t i = 0; i < q->n && r == 0; i++) {
		csm_pool_reset(&pool);
		r = single_fill(c, by, q, i, now, &pool, &singles[i]);
	}
	csm_pool_free(&pool);
	if (r == 0)
		r = csm_ocsp_respond(&o, &signer, out);
	if (r == 0)
		*told = (struct ocsp_told){q->nonce.n == 0, now};
	return r;
}

static int failed(struct central *c, int r, struct csm_buf *out)
{
	int status = OCSP_RESPONSE_STATUS_INTERNALERROR;

	if (r == CSM_ENOT_FOUND)
		status = OCSP_RESPONSE_STATUS_UNAUTHORIZED;
	else if (csm_err_retryable(csm_err_on_wire(r)) || csm_err_class(r) == CSM_CLASS_UNREACHABLE)
		status = OCSP_RESPONSE_STATUS_TRYLATER;
	/* a flood of requests is not to become one of lines */
	if (r != CSM_ENOT_FOUND && csm_rates_take(c->log_rates, "", 0, c->now() * 1000, NULL) == 0)
		log_warn("OCSP answer: %s", csm_err_text(r));
	return csm_ocsp_error(status, out);
}

int ocsp_answer(struct central *c, struct csm_str issuer, struct csm_bin request, struct csm_buf *out, struct ocsp_told *told)
{
	struct csm_ocsp_request *q = NULL;
	struct ocsp_responder *by = NULL;
	int r;

	*told = (struct ocsp_told){false, 0};
	if ((r = csm_ocsp_read(request, &q)) != 0)
		return r == CSM_ENOMEM ? r : csm_ocsp_error(OCSP_RESPONSE_STATUS_MALFORMEDREQUEST, out);
	if ((r = responder_for(c, issuer, q, &by)) == 0)
		r = answer_signed(c, by, q, out, told);
	if (r != 0)
		r = failed(c, r, out);
	ocsp_responder_unref(by);
	csm_ocsp_free(q);
	return r;
}
