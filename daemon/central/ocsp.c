#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <sodium.h>
#include "daemon/central/ocsp.h"
#include "daemon/pki/cert.h"
#include "daemon/pki/subject.h"
#include "daemon/svc/log.h"

#define BACKDATE 300u /* clocks differ */
#define CERT_MAX 8192u
#define POOL_MAX (256u * 1024u)

struct ocsp_responder *ocsp_responder_ref(struct ocsp_responder *r)
{
	(void)__atomic_add_fetch(&r->refs, 1, __ATOMIC_RELAXED);
	return r;
}

void ocsp_responder_unref(struct ocsp_responder *r)
{
	if (r == NULL || __atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	X509_free(r->issuer);
	X509_free(r->cert);
	free(r);
}

/* One that is being made. */
struct making {
	struct central *c;
	struct ca_issuer *issuer;
	char key[CSM_KEYREF_MAX + 1], value[CSM_KEYREF_MAX + 1]; /* names in csmd and in the database */
	uint8_t spki[CSM_PUBLIC_BYTES];
	size_t spki_len;
	char *why;
};

static int refused(struct making *m, int r, const char *what)
{
	(void)snprintf(m->why, CA_WHY, "%s: %s", what, csm_error_message());
	return r;
}

/* A software key where there is a back end for one: it signs one answer after the other, and it is worth little, since its
 * certificate is for that alone and lives for two weeks. */
static int key_make(struct making *m)
{
	static const char *const backends[] = {"soft", NULL};
	int r = CSM_EINTERNAL;

	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		r = csm_key_create(m->c->csm, m->key, "p256", backends[i], "sign", NULL);
		if (r == 0 || r == CSM_EEXISTS)
			return 0;
		if (r != CSM_EUNSUPPORTED && r != CSM_EUNAVAILABLE && r != CSM_ENOT_FOUND && r != CSM_EINVALID)
			break;
	}
	return refused(m, r, "making its key");
}

static int key_find(struct making *m)
{
	int r;

	m->spki_len = sizeof(m->spki);
	/* without the right to list, csmd does not say that there is none */
	if ((r = csm_key_public(m->c->csm, m->key, m->spki, &m->spki_len)) != CSM_ENOT_FOUND && r != CSM_EDENIED)
		return r == 0 ? 0 : refused(m, r, "finding its key");
	if ((r = key_make(m)) != 0)
		return r;
	m->spki_len = sizeof(m->spki);
	r = csm_key_public(m->c->csm, m->key, m->spki, &m->spki_len);
	return r == 0 ? 0 : refused(m, r, "finding its key");
}

static uint64_t time_of(const ASN1_TIME *t)
{
	struct tm tm;
	time_t at;

	return ASN1_TIME_to_tm(t, &tm) == 1 && (at = timegm(&tm)) > 0 ? (uint64_t)at : 0;
}

/* CSM_ENOT_FOUND: not a certificate of this key by this issuer. Takes the certificate. */
static int responder_of(struct making *m, X509 *cert, struct ocsp_responder **ret)
{
	struct ocsp_responder *r = calloc(1, sizeof(*r));
	uint64_t from, to;
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
	bool good = n > 0 && (size_t)n == m->spki_len && memcmp(der, m->spki, m->spki_len) == 0 &&
		X509_check_issued(m->issuer->cert, cert) == X509_V_OK && X509_verify(cert, m->issuer->pub) == 1;

	OPENSSL_free(der);
	ERR_clear_error();
	if (r == NULL || !good || X509_up_ref(m->issuer->cert) != 1) {
		free(r);
		X509_free(cert);
		return good ? CSM_ENOMEM : CSM_ENOT_FOUND;
	}
	from = time_of(X509_get0_notBefore(cert));
	to = time_of(X509_get0_notAfter(cert));
	*r = (struct ocsp_responder){.refs = 1, .name = m->issuer->config->name, .issuer = m->issuer->cert, .cert = cert,
		.renew_at = from + (to - from) / 3 * 2, .not_after = to};
	(void)snprintf(r->key, sizeof(r->key), "%s", m->key);
	*ret = r;
	return 0;
}

bool ocsp_responder_revoked(struct central *c, const struct ocsp_responder *r)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(r->cert);
	struct db_cert cert = {.state = DB_VALID};
	struct csm_pool pool;
	int e;

	csm_pool_init(&pool, POOL_MAX);
	e = db_cert_get(c->db, (struct csm_bin){serial->data, (size_t)serial->length}, &pool, &cert);
	csm_pool_free(&pool);
	return e == 0 && cert.state != DB_VALID;
}

/* CSM_ESTATE: it was revoked. */
static int responder_stored(struct making *m, struct ocsp_responder **ret)
{
	const unsigned char *at;
	struct csm_buf der;
	X509 *cert;
	int r;

	csm_buf_init(&der, CERT_MAX, false);
	if ((r = db_value_get(m->c->db, m->value, &der)) == 0) {
		at = csm_buf_ptr(&der);
		cert = d2i_X509(NULL, &at, (long)der.len);
		r = cert != NULL ? responder_of(m, cert, ret) : CSM_ENOT_FOUND;
	}
	csm_buf_free(&der);
	if (r == 0 && ocsp_responder_revoked(m->c, *ret)) {
		ocsp_responder_unref(*ret);
		r = CSM_ESTATE;
	}
	if (r == 0 && ((*ret)->renew_at <= m->c->now() || (*ret)->not_after > m->c->now() + OCSP_CERT_LIFE)) {
		ocsp_responder_unref(*ret);
		r = CSM_ENOT_FOUND;
	}
	return r;
}

/* ---- a new certificate ---- */

/* No longer than the issuer gives to anyone. */
static uint64_t life_of(const struct making *m, uint64_t now)
{
	const struct profile_config *p;
	uint64_t longest = 0;

	for (size_t i = 0; (p = profiles_at(ca_profiles(m->c->ca), i)) != NULL; i++)
		if (strcmp(p->issuer->name, m->issuer->config->name) == 0 && p->x509.max_life > longest)
			longest = p->x509.max_life;
	if (longest == 0 || longest > OCSP_CERT_LIFE)
		longest = OCSP_CERT_LIFE;
	if (m->issuer->max_life != 0 && m->issuer->max_life < longest)
		longest = m->issuer->max_life;
	if (m->issuer->not_after < now + longest)
		longest = m->issuer->not_after > now ? m->issuer->not_after - now : 0;
	return longest;
}

static int cert_sign(struct making *m, const struct csm_profile *profile, const X509_NAME *subject, struct csm_cert_order *o,
	struct csm_buf *der)
{
	struct ca_signing signing = {.csm = m->c->csm, .issuer = m->issuer, .kind = "certificate"};
	struct csm_signer signer = ca_signer(&signing);
	char why[CSM_CERTREQ_WHY] = "";
	int r;

	o->profile = profile;
	o->subject = subject;
	randombytes_buf(o->serial, sizeof(o->serial));
	o->serial[0] = (o->serial[0] & 0x7f) | 0x40;
	r = csm_cert_issue(o, &signer, der, why);
	if (r != 0)
		(void)snprintf(m->why, CA_WHY, "its certificate: %.400s", why[0] != '\0' ? why : signing.why);
	return r;
}

/* On record like every other one, so that the inventory tells all that the issuer has signed. */
static int cert_record(struct making *m, const struct csm_cert_order *o, struct csm_str subject, struct csm_bin der)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	struct db_cert cert = {.serial = {o->serial, sizeof(o->serial)}, .issuer = csm_str_of(m->issuer->config->name),
		.profile = CSM_STR("ocsp"), .role = CSM_STR(""), .requester = CSM_STR("csm-server"), .node = CSM_STR(""),
		.subject = subject, .spki_sha256 = {hash, sizeof(hash)}, .not_before = o->not_before, .not_after = o->not_after,
		.issued = m->c->now(), .state = DB_VALID, .der = der};
	const struct db_issue in = {.cert = &cert, .idempotency = CSM_STR(""), .caller = CSM_STR("csm-server"), .now = cert.issued};
	struct csm_buf serial;
	bool replayed = false;
	int r;

	(void)crypto_hash_sha256(hash, m->spki, m->spki_len);
	csm_buf_init(&serial, DB_SERIAL_MAX, false);
	r = db_issue(m->c->db, &in, &replayed, &serial);
	csm_buf_free(&serial);
	return r == 0 ? db_value_put(m->c->db, m->value, der, NULL) : r;
}

static int responder_new(struct making *m, struct ocsp_responder **ret)
{
	const uint64_t now = m->c->now(), since = time_of(X509_get0_notBefore(m->issuer->cert));
	const uint64_t from = now - BACKDATE > since ? now - BACKDATE : since;
	const struct csm_profile profile = {.keys = CSM_PROFILE_P256, .max_life = OCSP_CERT_LIFE, .key_usage = KU_DIGITAL_SIGNATURE,
		.ekus = {"OCSPSigning"}, .n_ekus = 1, .ocsp_no_check = true};
	struct csm_cert_order o = {.spki = {m->spki, m->spki_len}, .issuer = m->issuer->cert, .not_before = from,
		.not_after = from + life_of(m, now)};
	const unsigned char *at;
	char subject[192], why[128];
	X509_NAME *name = NULL;
	struct csm_buf der;
	X509 *cert;
	int r;

	(void)snprintf(subject, sizeof(subject), "/CN=OCSP responder of %s", m->issuer->config->name);
	csm_buf_init(&der, CERT_MAX, false);
	if ((r = csm_subject_parse(csm_str_of(subject), &name, why)) == 0 && (r = cert_sign(m, &profile, name, &o, &der)) == 0 &&
		(r = cert_record(m, &o, csm_str_of(subject), (struct csm_bin){csm_buf_ptr(&der), der.len})) == 0) {
		at = csm_buf_ptr(&der);
		cert = d2i_X509(NULL, &at, (long)der.len);
		r = cert != NULL ? responder_of(m, cert, ret) : CSM_ENOMEM;
	}
	X509_NAME_free(name);
	csm_buf_free(&der);
	return r == CSM_ENOT_FOUND ? CSM_EINTERNAL : r;
}

/* Nobody knows why it was revoked: the key may be somebody else's too. */
static int key_replace(struct making *m)
{
	log_warn("OCSP responder of issuer %s: its certificate was revoked: it gets a new key and certificate", m->issuer->config->name);
	if (csm_key_delete(m->c->csm, m->key) != 0)
		log_warn("OCSP responder of issuer %s: its key stays, with a new certificate: %s", m->issuer->config->name, csm_error_message());
	return key_find(m);
}

int ocsp_responder_make(struct central *c, struct ca_issuer *issuer, struct ocsp_responder **ret, char why[static CA_WHY])
{
	struct making m = {.c = c, .issuer = issuer, .why = why};
	int r;

	why[0] = '\0';
	(void)snprintf(m.key, sizeof(m.key), "ocsp-%s", issuer->config->name);
	(void)snprintf(m.value, sizeof(m.value), "ocsp/%s", issuer->config->name);
	if ((r = key_find(&m)) != 0)
		return r;
	r = responder_stored(&m, ret);
	if (r == CSM_ESTATE)
		r = key_replace(&m) == 0 ? CSM_ENOT_FOUND : CSM_EUNAVAILABLE;
	return r == CSM_ENOT_FOUND ? responder_new(&m, ret) : r;
}
