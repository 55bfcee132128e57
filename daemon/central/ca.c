#include "daemon/central/ca.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sodium.h>
#include "daemon/central/ca_int.h"
#include "daemon/svc/log.h"

#define ISSUERS_MAX 16u
#define SLOW_MS 25u /* for a signature, with all that csmd does for it */

struct kept {
	struct ca_issuer i;
	atomic_uint refs;
	atomic_bool slow;
	struct csm_buf der, pem;
};

struct ca {
	struct central *c;
	pthread_mutex_t lock; /* of what follows */
	const struct profiles *profiles;
	struct ca_issuer *issuers[ISSUERS_MAX]; /* in the order of profiles; NULL: no certificate, or not known yet */
	bool asked[ISSUERS_MAX];                /* csmd has said what it has */
	unsigned changes;
	struct ca_tls tls;
	struct ca_lines lines;
	pthread_mutex_t making;
};

int ca_refuse(char *why, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	csm_text_vput(why, CA_WHY, fmt, ap);
	va_end(ap);
	return r;
}

int ca_csmd_error(int r, char *why)
{
	switch (r) {
	case CSM_EUNREACHABLE:
	case CSM_ECLOSED:
	case CSM_EUNTRUSTED:
	case CSM_ETIMEOUT:
	case CSM_ESYSTEM:
	case CSM_EUNAVAILABLE:
	case CSM_ESHUTDOWN:
		return ca_refuse(why, CSM_EUNAVAILABLE, "csmd, which has the issuer's key: %s", csm_error_message());
	case CSM_ENOMEM:
		return ca_refuse(why, CSM_EBUSY, "no memory");
	case CSM_EBUSY:
	case CSM_ELOCKOUT:
		return ca_refuse(why, r, "csmd, which has the issuer's key: %s", csm_error_message());
	default:
		return ca_refuse(why, r < 100 ? r : CSM_EINTERNAL, "csmd, which has the issuer's key: %s", csm_error_message());
	}
}

/* ---- an issuer ---- */

void ca_issuer_unref(struct ca_issuer *i)
{
	struct kept *k = (struct kept *)i;

	if (i == NULL || atomic_fetch_sub(&k->refs, 1) > 1)
		return;
	X509_free(k->i.cert);
	EVP_PKEY_free(k->i.pub);
	csm_buf_free(&k->der);
	csm_buf_free(&k->pem);
	free(k);
}

/* Each certificate of the chain as PEM, one after the other; where the last one begins is *last, where the first ends *first. */
static int chain_pem(struct csm_bin chain, struct csm_buf *pem, size_t *first, size_t *last)
{
	const unsigned char *at = chain.p;
	int r = 0;

	for (*first = 0; r == 0 && at < chain.p + chain.n;) {
		X509 *x = d2i_X509(NULL, &at, (long)(chain.p + chain.n - at));

		*last = pem->len;
		r = x == NULL ? CSM_EINVALID : ca_cert_pem(x, pem);
		X509_free(x);
		if (*first == 0)
			*first = pem->len;
	}
	return r;
}

int ca_scheme(const struct issuer_config *config, EVP_PKEY *pub, struct csm_scheme *ret)
{
	static const struct {
		int id, bits;
		enum csm_alg alg;
	} rows[] = {{EVP_PKEY_EC, 256, CSM_ALG_P256}, {EVP_PKEY_EC, 384, CSM_ALG_P384}, {EVP_PKEY_EC, 521, CSM_ALG_P521},
		{EVP_PKEY_RSA, 0, CSM_ALG_RSA2048}, {EVP_PKEY_ED25519, 0, CSM_ALG_ED25519}};

	if (config->scheme != NULL) {
		if (csm_scheme_parse(csm_str_of(config->scheme), ret) != 0)
			return CSM_EINTERNAL;
		return csm_sigalg_fits(pub, ret) ? 0 : CSM_EINVALID;
	}
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (EVP_PKEY_get_base_id(pub) == rows[i].id && (rows[i].bits == 0 || EVP_PKEY_get_bits(pub) == rows[i].bits)) {
			*ret = csm_scheme_default(rows[i].alg);
			return 0;
		}
	return CSM_EUNSUPPORTED;
}

static int digest_of(X509 *cert, char hex[static 65])
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);

	if (n <= 0)
		return CSM_ENOMEM;
	crypto_hash_sha256(hash, der, (size_t)n);
	sodium_bin2hex(hex, 2 * sizeof(hash) + 1, hash, sizeof(hash));
	OPENSSL_free(der);
	return 0;
}

uint64_t ca_until(const struct ca_issuer *i, uint64_t from, uint64_t life)
{
	uint64_t most = i->max_life != 0 && i->max_life < life ? i->max_life : life;

	return from + most < i->not_after ? from + most : i->not_after;
}

int ca_issuer_make(const struct issuer_config *config, struct csm_bin chain, struct ca_issuer **ret)
{
	struct kept *k = calloc(1, sizeof(*k));
	const unsigned char *at = chain.p;
	size_t first = 0, last = 0;
	int r;

	if (k == NULL)
		return CSM_ENOMEM;
	atomic_init(&k->refs, 1);
	csm_buf_init(&k->der, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&k->pem, 2 * CSM_CERT_CHAIN_MAX, false);
	k->i.config = config;
	if ((k->i.cert = d2i_X509(NULL, &at, (long)chain.n)) == NULL || (k->i.pub = X509_get_pubkey(k->i.cert)) == NULL) {
		r = CSM_EINVALID;
		goto out;
	}
	if ((r = ca_scheme(config, k->i.pub, &k->i.scheme)) != 0 || (r = csm_buf_put(&k->der, chain.p, chain.n)) != 0 ||
		(r = chain_pem(chain, &k->pem, &first, &last)) != 0 || (r = digest_of(k->i.cert, k->i.spki_sha256)) != 0 ||
		(r = ca_time(X509_get0_notAfter(k->i.cert), &k->i.not_after)) != 0)
		goto out;
	k->i.scheme_name = csm_scheme_name(&k->i.scheme);
	k->i.chain = (struct csm_bin){csm_buf_ptr(&k->der), k->der.len};
	k->i.chain_pem = (struct csm_str){(const char *)csm_buf_ptr(&k->pem), k->pem.len};
	k->i.cert_pem = (struct csm_str){k->i.chain_pem.p, first};
	k->i.root_pem = (struct csm_str){k->i.chain_pem.p + last, k->pem.len - last};
	*ret = &k->i;
	k = NULL;
out:
	ERR_clear_error();
	ca_issuer_unref((struct ca_issuer *)k);
	return r;
}

/* ---- all issuers ---- */

int ca_new(struct central *c, const struct profiles *profiles, struct ca **ret)
{
	struct ca *ca = calloc(1, sizeof(*ca));

	if (ca == NULL)
		return CSM_ENOMEM;
	ca->c = c;
	ca->profiles = profiles;
	(void)pthread_mutex_init(&ca->lock, NULL);
	(void)pthread_mutex_init(&ca->tls.lock, NULL);
	(void)pthread_mutex_init(&ca->making, NULL);
	ca_lines_init(&ca->lines);
	*ret = ca;
	return 0;
}

void ca_free(struct ca *ca)
{
	if (ca == NULL)
		return;
	for (size_t i = 0; i < ISSUERS_MAX; i++)
		ca_issuer_unref(ca->issuers[i]);
	(void)pthread_mutex_destroy(&ca->lock);
	(void)pthread_mutex_destroy(&ca->tls.lock);
	(void)pthread_mutex_destroy(&ca->making);
	ca_lines_free(&ca->lines);
	free(ca);
}

const struct profiles *ca_profiles(struct ca *ca)
{
	const struct profiles *p;

	(void)pthread_mutex_lock(&ca->lock);
	p = ca->profiles;
	(void)pthread_mutex_unlock(&ca->lock);
	return p;
}

/* Under the lock. SIZE_MAX: it is of profiles that are no longer in force. */
static size_t index_of(const struct ca *ca, const struct issuer_config *config)
{
	const struct issuer_config *at;

	for (size_t i = 0; (at = profiles_issuer_at(ca->profiles, i)) != NULL; i++)
		if (at == config)
			return i;
	return SIZE_MAX;
}

/* Whatever stands there goes; takes the reference over. */
static void issuer_put(struct ca *ca, const struct issuer_config *config, struct ca_issuer *i)
{
	struct ca_issuer *old = i;
	size_t at;

	(void)pthread_mutex_lock(&ca->lock);
	if ((at = index_of(ca, config)) != SIZE_MAX) {
		old = ca->issuers[at];
		ca->issuers[at] = i;
		ca->asked[at] = true;
		ca->changes += i != NULL;
	}
	(void)pthread_mutex_unlock(&ca->lock);
	ca_issuer_unref(old);
}

/* ---- other profiles ---- */

static bool same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* *ret NULL: it has to be asked for. */
static int carry(struct ca_issuer *const *from, const struct issuer_config *config, struct ca_issuer **ret)
{
	if (config->external != NULL)
		return ca_issuer_make(config, config->chain, ret);
	for (size_t i = 0; i < ISSUERS_MAX; i++) {
		const struct issuer_config *was = from[i] != NULL ? from[i]->config : NULL;

		if (was != NULL && was->external == NULL && same_text(was->name, config->name) && same_text(was->key, config->key)) {
			int r = ca_issuer_make(config, from[i]->chain, ret);

			if (r == 0)
				(*ret)->max_life = from[i]->max_life;
			return r;
		}
	}
	return 0;
}

int ca_set_profiles(struct ca *ca, const struct profiles *profiles)
{
	struct ca_issuer *now[ISSUERS_MAX] = {NULL}, *old[ISSUERS_MAX];
	const struct issuer_config *config;
	int r = 0;

	(void)pthread_mutex_lock(&ca->lock);
	for (size_t i = 0; (config = profiles_issuer_at(profiles, i)) != NULL && i < ISSUERS_MAX && r == 0; i++)
		r = carry(ca->issuers, config, &now[i]);
	memcpy(old, r == 0 ? ca->issuers : now, sizeof(old));
	if (r == 0) {
		memcpy(ca->issuers, now, sizeof(now));
		memset(ca->asked, 0, sizeof(ca->asked));
		ca->profiles = profiles;
		ca->changes++;
	}
	(void)pthread_mutex_unlock(&ca->lock);
	for (size_t i = 0; i < ISSUERS_MAX; i++)
		ca_issuer_unref(old[i]);
	return r;
}

/* Nothing changed: whoever holds lists, a responder or a trust made of it keeps them. */
static bool is_there(struct ca *ca, const struct issuer_config *config, struct csm_bin chain)
{
	bool same;
	size_t at;

	(void)pthread_mutex_lock(&ca->lock);
	at = index_of(ca, config);
	same = at != SIZE_MAX && ca->issuers[at] != NULL && ca->issuers[at]->chain.n == chain.n && memcmp(ca->issuers[at]->chain.p, chain.p, chain.n) == 0;
	if (same)
		ca->asked[at] = true;
	(void)pthread_mutex_unlock(&ca->lock);
	return same;
}

void ca_look_again(struct ca *ca)
{
	(void)pthread_mutex_lock(&ca->lock);
	memset(ca->asked, 0, sizeof(ca->asked));
	(void)pthread_mutex_unlock(&ca->lock);
}

/* Nobody has to be asked for its certificates. What is wrong with them stays so. */
static int load_external(struct ca *ca, const struct issuer_config *config)
{
	struct ca_issuer *i = NULL;
	int r = ca_issuer_make(config, config->chain, &i);

	if (r != 0)
		log_err("issuer %s: its certificates in %s cannot be used: %s", config->name, config->chain_file, csm_err_text(r));
	issuer_put(ca, config, i);
	return r == CSM_ENOMEM ? r : 0;
}

/* Of its key, for good. 0 with *ret 0: csmd does not tell it to csm-server, and refuses by itself what is longer. */
static int key_max_life(struct ca *ca, const struct issuer_config *config, uint64_t *ret)
{
	struct csm_reply *shown = NULL;
	int r = csm_key_show(ca->c->csm, config->key, &shown);

	*ret = r == 0 ? csm_view_u64(csm_view_at(csm_reply_view(shown), "issuer", 0), "max_life") : 0;
	csm_reply_free(shown);
	return r == CSM_EDENIED || r == CSM_ENOT_FOUND ? 0 : r;
}

static int load_new(struct ca *ca, const struct issuer_config *config, struct csm_bin chain)
{
	struct ca_issuer *i = NULL;
	uint64_t max_life = 0;
	int r = key_max_life(ca, config, &max_life);

	if (r != 0) {
		log_warn("issuer %s: csmd: %s", config->name, csm_error_message());
		return CSM_EUNAVAILABLE;
	}
	if ((r = ca_issuer_make(config, chain, &i)) != 0) {
		log_err("issuer %s: its certificate in csmd cannot be used: %s", config->name, csm_err_text(r));
		return r;
	}
	i->max_life = max_life;
	log_info("issuer %s: its certificate in csmd is taken", config->name);
	issuer_put(ca, config, i);
	return 0;
}

static int load_one(struct ca *ca, const struct issuer_config *config)
{
	size_t n = CSM_CHAIN_BYTES;
	uint8_t *chain = malloc(n);
	int r;

	if (chain == NULL)
		return CSM_ENOMEM;
	if (config->external != NULL) {
		free(chain);
		return load_external(ca, config);
	}
	r = csm_cert_chain(ca->c->csm, config->key, chain, &n);
	if (r == CSM_ENOT_FOUND || r == CSM_EDENIED) {
		/* without the right to list, csmd does not say which of the two; `csm ca init` will tell */
		issuer_put(ca, config, NULL);
		r = 0;
	} else if (r != 0) {
		log_warn("issuer %s: csmd: %s", config->name, csm_error_message());
		r = CSM_EUNAVAILABLE;
	} else if (is_there(ca, config, (struct csm_bin){chain, n})) {
		r = 0;
	} else {
		r = load_new(ca, config, (struct csm_bin){chain, n});
	}
	free(chain);
	return r;
}

int ca_load(struct ca *ca)
{
	const struct profiles *profiles = ca_profiles(ca);
	const struct issuer_config *config;
	int r = 0;

	for (size_t i = 0; (config = profiles_issuer_at(profiles, i)) != NULL; i++) {
		bool asked;
		int one;

		(void)pthread_mutex_lock(&ca->lock);
		asked = ca->profiles == profiles && ca->asked[i];
		(void)pthread_mutex_unlock(&ca->lock);
		if (!asked && (one = load_one(ca, config)) != 0)
			r = one;
	}
	return r;
}

static const struct issuer_config *config_of(const struct profiles *profiles, struct csm_str name)
{
	const struct issuer_config *config;

	if (name.n > 0)
		return profiles_issuer(profiles, name);
	config = profiles_issuer(profiles, CSM_STR("default"));
	return config != NULL ? config : profiles_issuer_at(profiles, 0);
}

const struct issuer_config *ca_config(struct ca *ca, struct csm_str name)
{
	return config_of(ca_profiles(ca), name);
}

int ca_issuer_get(struct ca *ca, struct csm_str name, struct ca_issuer **ret)
{
	const struct issuer_config *config;
	struct ca_issuer *i = NULL;
	int r = CSM_ENOT_FOUND;

	(void)pthread_mutex_lock(&ca->lock);
	if ((config = config_of(ca->profiles, name)) != NULL) {
		i = ca->issuers[index_of(ca, config)];
		r = i != NULL ? 0 : ca->asked[index_of(ca, config)] ? CSM_ESTATE : CSM_EUNAVAILABLE;
	}
	if (i != NULL)
		atomic_fetch_add(&((struct kept *)i)->refs, 1);
	(void)pthread_mutex_unlock(&ca->lock);
	if (r == 0)
		*ret = i;
	return r;
}

int ca_install(struct ca *ca, const struct issuer_config *config, struct csm_bin chain, char why[static CA_WHY])
{
	struct ca_issuer *i = NULL;
	int r = config->external != NULL ? CSM_ESTATE : ca_issuer_make(config, chain, &i);

	if (config->external != NULL)
		return ca_refuse(why, r, "issuer %s is another authority: its certificates stand in a file", config->name);
	if (r != 0)
		return ca_refuse(why, r, "the issuer's certificate cannot be used%s", r == CSM_EINVALID && config->scheme != NULL ?
			": its key does not sign by the scheme in server.yaml" : "");
	if ((r = key_max_life(ca, config, &i->max_life)) != 0 || (r = csm_cert_install(ca->c->csm, config->key, chain.p, chain.n)) != 0) {
		ca_issuer_unref(i);
		return ca_csmd_error(r, why);
	}
	issuer_put(ca, config, i);
	return 0;
}

void ca_making_begin(struct ca *ca)
{
	(void)pthread_mutex_lock(&ca->making);
}

void ca_making_end(struct ca *ca)
{
	(void)pthread_mutex_unlock(&ca->making);
}

struct ca_tls *ca_tls(struct ca *ca)
{
	return &ca->tls;
}

unsigned ca_changes(struct ca *ca)
{
	unsigned n;

	(void)pthread_mutex_lock(&ca->lock);
	n = ca->changes;
	(void)pthread_mutex_unlock(&ca->lock);
	return n;
}

/* ---- how long its key takes ---- */

void ca_issuer_took(const struct ca_issuer *i, uint64_t ms)
{
	atomic_store(&((struct kept *)(uintptr_t)i)->slow, ms > SLOW_MS);
}

bool ca_is_slow(struct ca *ca, const struct issuer_config *config)
{
	bool slow;
	size_t at;

	(void)pthread_mutex_lock(&ca->lock);
	at = index_of(ca, config);
	slow = at != SIZE_MAX && ca->issuers[at] != NULL && atomic_load(&((struct kept *)ca->issuers[at])->slow);
	(void)pthread_mutex_unlock(&ca->lock);
	return slow;
}

struct ca_lines *ca_lines(struct ca *ca)
{
	return &ca->lines;
}
