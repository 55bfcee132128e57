/* Names of namespaces, keys, domains and secrets: parsing and globs. Any thread. */
#ifndef CSM_BASE_NAME_H
#define CSM_BASE_NAME_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include "libclient/base/err.h"

/* Bytes that are not NUL-terminated and not owned. */
struct csm_str {
	const char *p;
	size_t n;
};
struct csm_bin {
	const uint8_t *p;
	size_t n;
};
#define CSM_STR(literal) ((struct csm_str){(literal), sizeof(literal) - 1})
struct csm_str csm_str_of(const char *s); /* NULL gives an empty one */
bool csm_str_eq(struct csm_str a, const char *b);
bool csm_str_same(struct csm_str a, struct csm_str b);

/* As snprintf into cap bytes. What does not fit is cut between characters, and ends in "...". */
void csm_text_put(char *out, size_t cap, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void csm_text_vput(char *out, size_t cap, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));

bool csm_utf8_valid(const char *p, size_t n);

/* [a-z0-9][a-z0-9._-]{0,62} */
bool csm_namespace_valid(struct csm_str s);
/* 1 to 128 bytes of UTF-8 without control characters, / : * ? [ \ and not starting with . or - */
bool csm_name_valid(struct csm_str s);

/* A parsed reference: slices into the input. ns.p is NULL for a bare name; name.p is NULL where
 * the form has none. */
struct csm_ref {
	struct csm_str ns;
	struct csm_str name;   /* key, or domain */
	struct csm_str secret; /* name in a domain */
};
/* [NAMESPACE:]KEY and [NAMESPACE:]DOMAIN; CSM_EINVALID. */
CSM_MUST int csm_ref_parse(struct csm_str s, struct csm_ref *ret);
/* [NAMESPACE:]KEY and [NAMESPACE:].KEY, a key of the caller's connection; CSM_EINVALID. */
CSM_MUST int csm_ref_parse_key(struct csm_str s, struct csm_ref *ret);
/* [NAMESPACE:]DOMAIN/NAME; CSM_EINVALID. */
CSM_MUST int csm_ref_parse_secret(struct csm_str s, struct csm_ref *ret);

/* Glob: `*` any run of bytes (also empty, also over `/`), `?` one byte, all else itself.
 * Time is bounded by pattern times text. */
bool csm_glob_match(struct csm_str pattern, struct csm_str text);

#endif
