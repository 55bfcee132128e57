/* Issuers' certificates that were read before: reading one takes OpenSSL as long as all else that a signature is preceded by. Locks
 * by itself. */
#ifndef CSM_NODE_ISSUERCERTS_H
#define CSM_NODE_ISSUERCERTS_H

#include <openssl/x509.h>
#include <pthread.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "proto-spec/limits.h"

#define ISSUERCERTS_MAX 8u

struct issuercerts {
	pthread_mutex_t lock;
	struct {
		struct csm_buf chain;
		X509 *cert, *above;
	} slot[ISSUERCERTS_MAX];
	unsigned next;
};
void issuercerts_init(struct issuercerts *c);
void issuercerts_free(struct issuercerts *c);
/* The first two certificates of a chain, as references of the caller's; above NULL: there is only one. CSM_ETAMPERED: none. */
CSM_MUST int issuercerts_get(struct issuercerts *c, struct csm_bin chain, X509 **cert, X509 **above);

#endif
