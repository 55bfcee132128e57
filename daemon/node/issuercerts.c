#include "daemon/node/issuercerts.h"
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>

void issuercerts_init(struct issuercerts *c)
{
	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < ISSUERCERTS_MAX; i++)
		csm_buf_init(&c->slot[i].chain, CSM_CERT_CHAIN_MAX, false);
	pthread_mutex_init(&c->lock, NULL);
}

void issuercerts_free(struct issuercerts *c)
{
	for (size_t i = 0; i < ISSUERCERTS_MAX; i++) {
		X509_free(c->slot[i].cert);
		X509_free(c->slot[i].above);
		csm_buf_free(&c->slot[i].chain);
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
static bool find(struct issuercerts *c, struct csm_bin chain, X509 **cert, X509 **above)
{
	for (size_t i = 0; i < ISSUERCERTS_MAX; i++) {
		const struct csm_buf *b = &c->slot[i].chain;

		if (c->slot[i].cert != NULL && b->len == chain.n && memcmp(csm_buf_ptr(b), chain.p, chain.n) == 0) {
			give(c->slot[i].cert, c->slot[i].above, cert, above);
			return true;
		}
	}
	return false;
}

/* Under the lock; takes the two over. Without memory the slot stays empty. */
static void keep(struct issuercerts *c, struct csm_bin chain, X509 *cert, X509 *above)
{
	unsigned at = c->next;

	X509_free(c->slot[at].cert);
	X509_free(c->slot[at].above);
	c->slot[at].cert = c->slot[at].above = NULL;
	csm_buf_reset(&c->slot[at].chain);
	if (csm_buf_put(&c->slot[at].chain, chain.p, chain.n) != 0) {
		X509_free(cert);
		X509_free(above);
		return;
	}
	c->slot[at].cert = cert;
	c->slot[at].above = above;
	c->next = (at + 1) % ISSUERCERTS_MAX;
}

int issuercerts_get(struct issuercerts *c, struct csm_bin chain, X509 **cert, X509 **above)
{
	X509 *x, *y;
	bool found;
	int r;

	pthread_mutex_lock(&c->lock);
	found = find(c, chain, cert, above);
	pthread_mutex_unlock(&c->lock);
	if (found)
		return 0;
	if ((r = read_two(chain, &x, &y)) != 0)
		return r;
	give(x, y, cert, above);
	pthread_mutex_lock(&c->lock);
	keep(c, chain, x, y);
	pthread_mutex_unlock(&c->lock);
	return 0;
}
