/* How an issuer comes to be: signed by itself, by somebody else, or brought along. Its key is made in csmd, or imported there in
 * wrapped form; nothing of it passes through here in clear. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include "daemon/central/ca_int.h"
#include "daemon/pki/subject.h"
#include "daemon/svc/log.h"

#define DAY 86400u
#define BACKDATE_S 60u
#define WRAPPED_LABEL "CSM WRAPPED KEY"

/* ---- the rules of the key ---- */

/* What this issuer's profiles can ask for, and no more: csmd refuses the rest whatever becomes of csm-server. */
static void complete_rules(const struct central *c, struct ca_plan *plan)
{
	const struct profile_config *p;
	uint64_t life = 30 * DAY;
	unsigned path = 0;

	for (size_t i = 0; (p = profiles_at(ca_profiles(c->ca), i)) != NULL; i++) {
		if (strcmp(p->issuer->name, plan->config->name) != 0)
			continue;
		if (p->x509.max_life > life)
			life = p->x509.max_life;
		if (p->x509.ca && (unsigned)p->x509.path_len + 1 > path)
			path = (unsigned)p->x509.path_len + 1;
	}
	if (plan->rules.max_life == 0)
		plan->rules.max_life = life;
	if (plan->rules.path_len < path)
		plan->rules.path_len = path;
}

static int has_none_yet(struct central *c, const struct ca_plan *plan, char *why)
{
	struct ca_issuer *i = NULL;
	int r;

	if (plan->config->external != NULL)
		return ca_refuse(why, CSM_EEXISTS, "issuer %s is another authority", plan->config->name);
	r = ca_issuer_get(c->ca, csm_str_of(plan->config->name), &i);

	ca_issuer_unref(i);
	if (r == 0)
		return ca_refuse(why, CSM_EEXISTS, "issuer %s has a certificate", plan->config->name);
	return r == CSM_ESTATE ? 0 : ca_refuse(why, r, "issuer %s: csmd, which is to have its key, does not answer", plan->config->name);
}

/* The key as it is to be; one that was made at an earlier try is taken up. */
static int need_key(struct central *c, struct ca_plan *plan, char *why)
{
	struct csm_reply *shown = NULL;
	bool issuer;
	int r;

	complete_rules(c, plan);
	if ((r = csm_issuer_create(c->csm, plan->config->key, plan->alg, plan->backend, &plan->rules, NULL)) == 0)
		return 0;
	if (r != CSM_EEXISTS)
		return ca_csmd_error(r, why);
	if ((r = csm_key_show(c->csm, plan->config->key, &shown)) != 0)
		return ca_csmd_error(r, why);
	issuer = csm_view_count(csm_reply_view(shown), "issuer") == 1;
	csm_reply_free(shown);
	return issuer ? 0 : ca_refuse(why, CSM_EEXISTS, "csmd has a key %s that is not for issuing", plan->config->key);
}

static int key_public(struct central *c, const struct ca_plan *plan, uint8_t spki[static CSM_PUBLIC_BYTES], size_t *n, EVP_PKEY **ret,
	char *why)
{
	const unsigned char *at = spki;
	int r;

	*n = CSM_PUBLIC_BYTES;
	if ((r = csm_key_public(c->csm, plan->config->key, spki, n)) != 0)
		return ca_csmd_error(r, why);
	*ret = d2i_PUBKEY(NULL, &at, (long)*n);
	ERR_clear_error();
	return *ret != NULL ? 0 : ca_refuse(why, CSM_EUNSUPPORTED, "the key's kind is not one for certificates");
}

/* ---- signed by itself ---- */

static int subject_of(const struct ca_plan *plan, X509_NAME **ret, char *why)
{
	char bad[128] = "";
	int r = csm_subject_parse(csm_str_of(plan->subject), ret, bad);

	if (r != 0)
		return ca_refuse(why, r, "subject: %s", bad);
	if (X509_NAME_entry_count(*ret) > 0)
		return 0;
	X509_NAME_free(*ret);
	*ret = NULL;
	return ca_refuse(why, CSM_EINVALID, "subject: an authority needs a name");
}

static int sign_root(struct central *c, const struct ca_plan *plan, struct csm_cert_order *order, EVP_PKEY *pub,
	struct csm_buf *der, char *why)
{
	struct ca_issuer self = {.config = plan->config, .pub = pub};
	struct ca_signing signing = {.csm = c->csm, .issuer = &self, .kind = "certificate"};
	struct csm_signer signer;
	char bad[CSM_CERTREQ_WHY] = "";
	int r = ca_scheme(plan->config, pub, &self.scheme);

	if (r != 0)
		return ca_refuse(why, CSM_EINVALID, "the key does not sign by the scheme of server.yaml");
	signer = ca_signer(&signing);
	if ((r = csm_cert_issue(order, &signer, der, bad)) == 0)
		return 0;
	return ca_refuse(why, r, "%s", signing.why[0] != '\0' ? signing.why : bad[0] != '\0' ? bad : csm_err_text(r));
}

int ca_init_root(struct central *c, struct ca_plan *plan, char why[static CA_WHY])
{
	struct csm_profile profile = {.keys = CSM_PROFILE_P256, .max_life = plan->life, .ca = true,
		.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN};
	struct csm_cert_order order = {.profile = &profile, .not_before = c->now() - BACKDATE_S};
	uint8_t spki[CSM_PUBLIC_BYTES];
	X509_NAME *subject = NULL;
	EVP_PKEY *pub = NULL;
	struct csm_buf der;
	size_t n = 0;
	int r;

	csm_buf_init(&der, CSM_CERT_CHAIN_MAX, false);
	if ((r = subject_of(plan, &subject, why)) != 0 || (r = has_none_yet(c, plan, why)) != 0 ||
		(r = need_key(c, plan, why)) != 0 || (r = key_public(c, plan, spki, &n, &pub, why)) != 0)
		goto out;
	profile.path_len = (int)plan->rules.path_len;
	order.subject = subject;
	order.spki = (struct csm_bin){spki, n};
	order.not_after = order.not_before + plan->life;
	ca_serial(order.serial);
	if ((r = sign_root(c, plan, &order, pub, &der, why)) != 0)
		goto out;
	r = ca_install(c->ca, plan->config, (struct csm_bin){csm_buf_ptr(&der), der.len}, why);
out:
	csm_buf_free(&der);
	EVP_PKEY_free(pub);
	X509_NAME_free(subject);
	return r;
}

/* ---- signed by somebody else ---- */

int ca_init_request(struct central *c, struct ca_plan *plan, struct csm_buf *csr, char why[static CA_WHY])
{
	X509_NAME *subject = NULL;
	uint8_t *p;
	size_t n = CSM_REQUEST_BYTES;
	int r;

	if ((r = subject_of(plan, &subject, why)) != 0)
		return r;
	X509_NAME_free(subject);
	if ((r = has_none_yet(c, plan, why)) != 0 || (r = need_key(c, plan, why)) != 0)
		return r;
	if (csm_buf_reserve(csr, n, &p) != 0)
		return ca_refuse(why, CSM_EBUSY, "no memory");
	if ((r = csm_key_csr(c->csm, plan->config->key, plan->subject, NULL, 0, p, &n)) != 0)
		return ca_csmd_error(r, why);
	csm_buf_commit(csr, n);
	return 0;
}

/* ---- a chain from outside, with or without the key ---- */

static int is_authority(X509 *x, char *why)
{
	if (X509_check_ca(x) != 1)
		return ca_refuse(why, CSM_EINVALID, "chain: the first certificate is not a CA's");
	if ((X509_get_key_usage(x) & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != (KU_KEY_CERT_SIGN | KU_CRL_SIGN))
		return ca_refuse(why, CSM_EINVALID, "chain: the first certificate may not sign both certificates and CRLs");
	return 0;
}

static int is_root(X509 *x, char *why)
{
	if (X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) != 0 || X509_verify(x, X509_get0_pubkey(x)) != 1)
		return ca_refuse(why, CSM_EINVALID, "chain: the last certificate is not a root: its issuer's is missing");
	return 0;
}

/* PEM to DER, one after the other. csmd looks at how they hang together when it gets them. */
static int read_chain(struct csm_str pem, struct csm_buf *der, char *why)
{
	BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
	X509 *x = NULL, *next;
	int r = in != NULL ? 0 : CSM_ENOMEM;
	size_t count = 0;

	while (r == 0 && (next = PEM_read_bio_X509(in, NULL, NULL, NULL)) != NULL) {
		unsigned char *bytes = NULL;
		int n = i2d_X509(next, &bytes);

		X509_free(x);
		x = next;
		if (count++ == 0)
			r = is_authority(x, why);
		if (r == 0 && (n <= 0 || count > CSM_CERTS_MAX || csm_buf_put(der, bytes, (size_t)n) != 0))
			r = ca_refuse(why, CSM_ETOO_LARGE, "chain: too long");
		OPENSSL_free(bytes);
	}
	if (r == 0)
		r = x != NULL ? is_root(x, why) : ca_refuse(why, CSM_EINVALID, "chain: no certificate in PEM");
	ERR_clear_error();
	X509_free(x);
	BIO_free(in);
	return r;
}

static int add_rules(struct csm_request *req, const struct csm_issuer_rules *rules)
{
	struct csm_request *map = NULL;
	int r;

	if ((r = csm_request_add_map(req, "issuer", &map)) != 0 || (r = csm_request_u64(map, "max_life", rules->max_life)) != 0 ||
		(r = csm_request_u64(map, "path_len", rules->path_len)) != 0 ||
		(rules->rate > 0 && (r = csm_request_u64(map, "rate", rules->rate)) != 0))
		return r;
	for (size_t i = 0; i < rules->n_permitted && r == 0; i++)
		r = csm_request_add_str(map, "permitted", rules->permitted[i]);
	for (size_t i = 0; i < rules->n_excluded && r == 0; i++)
		r = csm_request_add_str(map, "excluded", rules->excluded[i]);
	return r;
}

static int import_key(struct central *c, const struct ca_plan *plan, struct csm_bin wrapped, char *why)
{
	struct csm_request *req = NULL;
	int r;

	if ((r = csm_request_new("key.import", &req)) == 0 && (r = csm_request_str(req, "key", plan->config->key)) == 0 &&
		(r = csm_request_bin(req, "wrapped", wrapped.p, wrapped.n)) == 0 && (r = add_rules(req, &plan->rules)) == 0)
		r = csm_call(c->csm, req, NULL);
	csm_request_free(req);
	return r != 0 ? ca_csmd_error(r, why) : 0;
}

static int import_pem(struct central *c, const struct ca_plan *plan, struct csm_str pem, char *why)
{
	BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
	char *name = NULL, *header = NULL;
	unsigned char *bytes = NULL;
	long n = 0;
	int r;

	if (in == NULL)
		return ca_refuse(why, CSM_EBUSY, "no memory");
	if (PEM_read_bio(in, &name, &header, &bytes, &n) != 1 || strcmp(name, WRAPPED_LABEL) != 0)
		r = ca_refuse(why, CSM_EINVALID, "key: must be a %s, as csm wrap-key makes it for this issuer's csmd", WRAPPED_LABEL);
	else
		r = import_key(c, plan, (struct csm_bin){bytes, (size_t)n}, why);
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_clear_free(bytes, (size_t)n);
	ERR_clear_error();
	BIO_free(in);
	return r;
}

int ca_init_chain(struct central *c, struct ca_plan *plan, struct csm_str chain, struct csm_str wrapped, char why[static CA_WHY])
{
	struct csm_buf der;
	int r;

	csm_buf_init(&der, CSM_CERT_CHAIN_MAX, false);
	complete_rules(c, plan);
	if ((r = read_chain(chain, &der, why)) != 0 || (wrapped.n > 0 && (r = has_none_yet(c, plan, why)) != 0) ||
		(wrapped.n > 0 && (r = import_pem(c, plan, wrapped, why)) != 0))
		goto out;
	r = ca_install(c->ca, plan->config, (struct csm_bin){csm_buf_ptr(&der), der.len}, why);
	/* a key without its certificate is of no use, and stands in the way of the next try */
	if (r != 0 && wrapped.n > 0 && csm_key_delete(c->csm, plan->config->key) != 0)
		log_warn("issuer %s: its key was imported, and cannot be taken away again: %s", plan->config->name, csm_error_message());
out:
	csm_buf_free(&der);
	return r;
}
