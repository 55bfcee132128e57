/* csm-server's own TLS certificate: a P-256 key that is made at each start and kept in memory alone, a certificate of its own
 * authority, and another one of both before that ends. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include "daemon/central/ca_int.h"
#include "daemon/pki/subject.h"
#include "daemon/svc/log.h"

#define LIFE_S (7u * 86400u)
#define RETRY_S 10u
#define BACKDATE_S 60u
#define POOL_MAX 65536u
#define HOSTS_MAX CONFIG_HOSTNAMES_MAX
#define HOST_TEXT 300u

static const struct csm_profile profile = {.keys = CSM_PROFILE_P256, .max_life = LIFE_S, .key_usage = KU_DIGITAL_SIGNATURE,
	.ekus = {"serverAuth"}, .n_ekus = 1, .path_len = CSM_PATH_ANY};

/* ---- its certificate ---- */

static int host_names(const struct central_config *config, GENERAL_NAMES **ret)
{
	char text[HOSTS_MAX][HOST_TEXT], why[128];
	struct csm_str names[HOSTS_MAX];
	uint8_t address[16];
	size_t n = 0;

	for (; n < HOSTS_MAX && config->hostnames[n] != NULL; n++) {
		const char *host = config->hostnames[n];
		bool ip = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
		int len = snprintf(text[n], sizeof(text[n]), "%s:%s", ip ? "ip" : "dns", host);

		if (len < 0 || (size_t)len >= sizeof(text[n]))
			return CSM_EINVALID;
		names[n] = (struct csm_str){text[n], (size_t)len};
	}
	return csm_sans_parse(names, n, ret, why);
}

static int sign(struct central *c, struct ca_issuer *issuer, struct csm_cert_order *order, struct csm_buf *der, char *why)
{
	struct ca_signing signing = {.csm = c->csm, .issuer = issuer, .kind = "certificate"};
	struct csm_signer signer = ca_signer(&signing);
	char bad[CSM_CERTREQ_WHY] = "";
	int r = csm_cert_issue(order, &signer, der, bad);

	return r == 0 ? 0 : ca_refuse(why, r, "%s", signing.why[0] != '\0' ? signing.why : bad);
}

/* It stands in the inventory like every other one. */
static int record(struct central *c, const struct ca_issuer *issuer, const struct csm_cert_order *order, const struct csm_buf *der)
{
	struct db_cert row = {.issuer = csm_str_of(issuer->config->name), .profile = CSM_STR("csm-server"),
		.role = CSM_STR(""), .requester = CSM_STR("csm-server"), .node = CSM_STR(""), .issued = c->now()};
	struct db_issue in = {.cert = &row, .caller = CSM_STR("csm-server"), .idempotency = CSM_STR(""), .now = c->now()};
	struct csm_pool pool;
	struct csm_buf serial;
	bool replayed;
	int r;

	csm_pool_init(&pool, POOL_MAX);
	csm_buf_init(&serial, DB_SERIAL_MAX, false);
	if ((r = ca_row(order, &pool, &row)) == 0) {
		row.der = (struct csm_bin){csm_buf_ptr(der), der->len};
		r = db_issue(c->db, &in, &replayed, &serial);
	}
	csm_buf_free(&serial);
	csm_pool_free(&pool);
	return r;
}

static int certify(struct central *c, struct ca_issuer *issuer, EVP_PKEY *key, X509 **ret, char *why)
{
	struct csm_cert_order order = {.profile = &profile, .issuer = issuer->cert, .not_before = c->now() - BACKDATE_S};
	X509_NAME *none = X509_NAME_new();
	GENERAL_NAMES *names = NULL;
	unsigned char *spki = NULL;
	const unsigned char *at;
	struct csm_buf der;
	int n = i2d_PUBKEY(key, &spki), r;

	csm_buf_init(&der, CSM_CERT_CHAIN_MAX, false);
	if (none == NULL || n <= 0) {
		r = ca_refuse(why, CSM_ENOMEM, "no memory");
		goto out;
	}
	if ((r = host_names(c->config, &names)) != 0) {
		(void)ca_refuse(why, r, "hostnames of server.yaml cannot stand in a certificate");
		goto out;
	}
	order.subject = none;
	order.sans = names;
	order.spki = (struct csm_bin){spki, (size_t)n};
	order.not_after = ca_until(issuer, order.not_before, LIFE_S);
	ca_serial(order.serial);
	if ((r = sign(c, issuer, &order, &der, why)) != 0)
		goto out;
	if ((r = record(c, issuer, &order, &der)) != 0) {
		(void)ca_refuse(why, r, "the database: %s", csm_err_text(r));
		goto out;
	}
	at = csm_buf_ptr(&der);
	if ((*ret = d2i_X509(NULL, &at, (long)der.len)) == NULL)
		r = ca_refuse(why, CSM_EINTERNAL, "the certificate cannot be read");
	else
		ca_tls(c->ca)->renew_at = order.not_before + (order.not_after - order.not_before) * 2 / 3;
out:
	csm_buf_free(&der);
	OPENSSL_free(spki);
	GENERAL_NAMES_free(names);
	X509_NAME_free(none);
	return r;
}

/* ---- the context of the door ---- */

/* The issuers are trusted by themselves: what another authority below the same root has issued does not get in. What a
 * certificate's holder may do is in the database, not in its extended usages: a server renews its own with it. */
static int trust_issuers(struct central *c, SSL_CTX *ctx)
{
	X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	const struct profiles *profiles = ca_profiles(c->ca);
	const struct issuer_config *config;

	for (size_t i = 0; (config = profiles_issuer_at(profiles, i)) != NULL; i++) {
		struct ca_issuer *issuer = NULL;
		int ok;

		if (ca_issuer_get(c->ca, csm_str_of(config->name), &issuer) != 0)
			continue;
		ok = X509_STORE_add_cert(store, issuer->cert) == 1 && SSL_CTX_add_client_CA(ctx, issuer->cert) == 1;
		ca_issuer_unref(issuer);
		if (!ok)
			return CSM_ENOMEM;
	}
	if (X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN) != 1 ||
		X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_ANY) != 1)
		return CSM_EINTERNAL;
	SSL_CTX_set_verify_depth(ctx, 4);
	return 0;
}

/* The whole way up but the root, which who trusts it has. */
static int add_chain(SSL_CTX *ctx, const struct ca_issuer *issuer)
{
	const unsigned char *at = issuer->chain.p, *end = at + issuer->chain.n;

	while (at < end) {
		X509 *x = d2i_X509(NULL, &at, (long)(end - at));

		if (x == NULL)
			return CSM_EINTERNAL;
		/* SSL_CTX_add0_chain_cert takes it over; the root goes along for those who trust it by its digest (first contact) */
		if (SSL_CTX_add0_chain_cert(ctx, x) != 1) {
			X509_free(x);
			return CSM_ENOMEM;
		}
	}
	return 0;
}

static int make_ctx(struct central *c, const struct ca_issuer *issuer, EVP_PKEY *key, X509 *cert, SSL_CTX **ret)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	int r = CSM_ENOMEM;

	if (ctx == NULL)
		return r;
	if (SSL_CTX_use_certificate(ctx, cert) != 1 || SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
		r = CSM_EINTERNAL;
	else if ((r = add_chain(ctx, issuer)) == 0)
		r = trust_issuers(c, ctx);
	if (r == 0)
		*ret = ctx;
	else
		SSL_CTX_free(ctx);
	return r;
}

static int renew(struct central *c, char *why)
{
	struct ca_issuer *issuer = NULL;
	EVP_PKEY *key = NULL;
	SSL_CTX *ctx = NULL;
	X509 *cert = NULL;
	int r = ca_issuer_get(c->ca, CSM_STR(""), &issuer);

	if (r != 0)
		return r == CSM_ESTATE ? r : ca_refuse(why, r, "the issuer: %s", csm_err_text(r));
	if ((key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256")) == NULL)
		r = ca_refuse(why, CSM_EINTERNAL, "no key");
	else if ((r = certify(c, issuer, key, &cert, why)) == 0 && (r = make_ctx(c, issuer, key, cert, &ctx)) != 0)
		(void)ca_refuse(why, r, "TLS: %s", csm_err_text(r));
	if (r == 0)
		csm_http_set_tls(c->http, ctx);
	ERR_clear_error();
	X509_free(cert);
	EVP_PKEY_free(key);
	ca_issuer_unref(issuer);
	return r;
}

/* A clock that went back by more than was to be waited for counts as past it. */
static bool is_past(uint64_t at, uint64_t now, uint64_t most)
{
	return now >= at || at - now > most;
}

void tls_tick(struct central *c)
{
	struct ca_tls *t = ca_tls(c->ca);
	char why[CA_WHY] = "";
	unsigned changes;
	uint64_t now;

	(void)pthread_mutex_lock(&t->lock);
	/* not before: whoever held the lock may have seen more issuers */
	changes = ca_changes(c->ca);
	now = c->now();
	if ((changes != t->seen || is_past(t->renew_at, now, LIFE_S)) && is_past(t->retry_at, now, RETRY_S)) {
		int r = renew(c, why);

		t->retry_at = r == 0 || r == CSM_ESTATE ? 0 : now + RETRY_S;
		if (r == 0) {
			t->seen = changes;
			log_info("csm-server's own certificate is new");
		} else if (r != CSM_ESTATE) {
			log_warn("csm-server's own certificate: %s", why);
		}
	}
	(void)pthread_mutex_unlock(&t->lock);
}
