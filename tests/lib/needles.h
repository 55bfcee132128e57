/* A search for secrets: every window of 16 bytes of each, in the forms in which bytes are met in files and memory. */
#ifndef CSM_TESTS_NEEDLES_H
#define CSM_TESTS_NEEDLES_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#define NEEDLE_WINDOW 16u
#define NEEDLE_MIN 8u        /* of a secret shorter than a window: all of it is one window */
#define NEEDLE_DISTINCT 6u   /* a window of fewer different bytes says nothing, and is left out */
#define NEEDLE_PATTERN_MAX 64u

enum needle_form {
	NEEDLE_RAW,
	NEEDLE_REVERSED,  /* the other byte order: limbs of a big number */
	NEEDLE_SWAP32,    /* each four bytes turned: words of a hash function */
	NEEDLE_SWAP64,
	NEEDLE_IPAD,      /* as the inner and the outer block of an HMAC, as bytes and as words */
	NEEDLE_OPAD,
	NEEDLE_IPAD32,
	NEEDLE_OPAD32,
	NEEDLE_INNER,     /* the state of HMAC-SHA-256 after that block, as good as the key: words of this machine, or turned */
	NEEDLE_OUTER,
	NEEDLE_INNER32,
	NEEDLE_OUTER32,
	NEEDLE_HEX,
	NEEDLE_HEX_UPPER,
	NEEDLE_HEX_REVERSED,
	NEEDLE_HEX_UPPER_REVERSED,
	NEEDLE_COLONS,    /* hex, as openssl prints it */
	NEEDLE_COLONS_UPPER,
	NEEDLE_BASE64,
	NEEDLE_BASE64URL,
	NEEDLE_BASE64_REVERSED,
	NEEDLE_BASE64URL_REVERSED,
	NEEDLE__FORMS
};
const char *needle_form_name(enum needle_form form);

struct needles;
struct needle_hit {
	const char *name; /* of the secret */
	size_t secret;    /* its number, in the order of needles_add */
	enum needle_form form;
	size_t window;    /* its first byte in the secret (or in the turned secret) */
	size_t at;        /* in what was searched */
};
typedef void needle_fn(void *arg, const struct needle_hit *hit);

/* NULL when there is no memory. */
struct needles *needles_new(void);
void needles_free(struct needles *nd);
/* False: too short, too dull, or no memory. name is copied. */
bool needles_add(struct needles *nd, const char *name, const uint8_t *secret, size_t n);
/* Once after the last needles_add. */
bool needles_ready(struct needles *nd);
size_t needles_patterns(const struct needles *nd);
/* Every place where a pattern begins in p[0..n). Returns how many. */
size_t needles_scan(const struct needles *nd, const uint8_t *p, size_t n, needle_fn *fn, void *arg);

#endif
