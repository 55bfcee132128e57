/* SHA-256 where much is hashed: HMAC from cached states, and plain.
 * OpenSSL's is used below EVP: a state that can be copied makes the tag of a short row in 200 ns, where an EVP digest takes half as
 * long again and libsodium's (no SHA instructions) five times as long. */
#ifndef CSM_SVC_PRK_H
#define CSM_SVC_PRK_H

#include <openssl/sha.h>
#include <stddef.h>
#include <stdint.h>

#define PRK_KEY_LEN 32u

/* A pseudo-random key as two SHA-256 states: HMAC without hashing the key again. */
struct prk {
	SHA256_CTX inner, outer;
};
struct part {
	const void *p;
	size_t n;
};
void prk_init(struct prk *prk, const uint8_t key[static PRK_KEY_LEN]);
/* HMAC-SHA256 of the parts, one behind the other. */
void prk_mac(const struct prk *prk, const struct part *parts, size_t n, uint8_t out[static 32]);

/* SHA-256 of what is no secret. */
void sha256_parts(const struct part *parts, size_t n, uint8_t out[static 32]);
void sha256_of(const void *p, size_t n, uint8_t out[static 32]);

#endif
