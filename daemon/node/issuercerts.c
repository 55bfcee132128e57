#include "daemon/node/issuercerts.h"
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <string.h>

void issuercerts_init(struct issuercerts *c)
{
	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
}

void issuercerts_free(struct issuercerts *c)
{
	for (size_t i = 0; i < ISSUERCERTS_MAX; i++) {
		X509_free(c->slot[i].cert);
		X509_free(c->slot[i].above);
	}
	pthread_mutex_destroy(&c->lock);
}

static int read_two(struct csm_bin chain, X509 **cert, X509 **above)
{
	const unsigned char *at = chain.p, *end = at + chain.n;

	*cert = d2i_X509(NULL, &at, (long)chain.n);
	*above = *cert != NULL && at < end ? d2i_X509(NULL, &at, end - at) : NULL;
	if (*cert != NULL && (*above != NULL || at == end)) {
		/* its extensions, which are read at the first question */
		(void)X509_check_purpose(*cert, -1, 0);
		return 0;
	}
	X509_free(*cert);
	ERR_clear_error();
	return CSM_ETAMPERED;
}

static void give(X509 *cert, X509 *above, X509 **ret, X509 **ret_above)
{
	(void)X509_up_ref(cert);
	if (above != NULL)
		(void)X509_up_ref(above);
	*ret = cert;
	*ret_above = above;
}

/* Under the lock. */
static bool find(struct issuercerts *c, const uint8_t *hash, X509 **cert, X509 **above)
{
	for (size_t i = 0; i < ISSUERCERTS_MAX; i++)
		if (c->slot[i].cert != NULL && memcmp(c->slot[i].hash, hash, sizeof(c->slot[i].hash)) == 0) {
			give(c->slot[i].cert, c->slot[i].above, cert, above);
			return true;
		}
	return false;
}

int issuercerts_get(struct issuercerts *c, struct csm_bin chain, X509 **cert, X509 **above)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	X509 *x, *y;
	bool found;
	int r;

	crypto_hash_sha256(hash, chain.p, chain.n);
	pthread_mutex_lock(&c->lock);
	found = find(c, hash, cert, above);
	pthread_mutex_unlock(&c->lock);
	if (found)
		return 0;
	if ((r = read_two(chain, &x, &y)) != 0)
		return r;
	give(x, y, cert, above);
	pthread_mutex_lock(&c->lock);
	X509_free(c->slot[c->next].cert);
	X509_free(c->slot[c->next].above);
	memcpy(c->slot[c->next].hash, hash, sizeof(hash));
	c->slot[c->next].cert = x;
	c->slot[c->next].above = y;
	c->next = (c->next + 1) % ISSUERCERTS_MAX;
	pthread_mutex_unlock(&c->lock);
	return 0;
}
