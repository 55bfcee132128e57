/* Requests and certificates read without a key being made of their public half: OpenSSL tries that while it reads, which takes it
 * twice as long as verifying a signature, whoever wants the key. Any thread, no I/O. */
#ifndef CSM_PKI_PLAIN_H
#define CSM_PKI_PLAIN_H

#include <openssl/asn1.h>

/* As ASN1_item_d2i: what is read moves *at on; NULL: malformed, or no memory. The public key of what comes back is bytes, with which
 * csm_subject_key and X509_PUBKEY_get0_param deal; X509_get0_pubkey has none. */
void *csm_plain_d2i(const unsigned char **at, long n, const ASN1_ITEM *it);

#endif
