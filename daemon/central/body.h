/* What bodies of HTTP are made of: JSON of the REST routes, read strictly and written; base64. Any thread. */
#ifndef CSM_CENTRAL_BODY_H
#define CSM_CENTRAL_BODY_H

#include <jansson.h>
#include "daemon/svc/http.h"

#define BODY_WHY 192
#define BODY_SHOWN 41 /* a name that somebody sent, as far as it is told back */
#define BODY_STRS_MAX 64u

struct body_strs {
	struct csm_str v[BODY_STRS_MAX];
	size_t n;
};
enum body_kind { BODY_STR, BODY_U64, BODY_BOOL, BODY_STRS };
struct body_field {
	const char *name;
	enum body_kind kind;
	bool required;
	uint64_t max; /* bytes of a string (each of a list's), or the largest number */
	void *to;     /* struct csm_str, uint64_t, bool, struct body_strs; what is not there leaves it as it is */
};
/* One object of these fields and no other ones, none twice; an empty body is an object without fields. Strings are borrowed from
 * *root, which is the caller's (json_decref; NULL where the body was empty). CSM_EINVALID, CSM_EUNSUPPORTED_FIELD, CSM_ETOO_LARGE:
 * `why` names the field, with no byte of a value. */
CSM_MUST int body_read(const struct csm_http_req *req, const struct body_field *fields, size_t n, json_t **root,
	char why[static BODY_WHY]);

/* The same of bytes, whatever type they were said to have. */
CSM_MUST int body_parse(struct csm_bin body, const struct body_field *fields, size_t n, json_t **root, char why[static BODY_WHY]);

/* What can be read of a name that is not known: letters, digits, _ and -, all else as ?. */
void body_shown(struct csm_str name, char shown[static BODY_SHOWN]);

/* The value's text, appended, or nothing; it is taken over, NULL: there was no memory. CSM_ENOMEM, CSM_ETOO_LARGE. */
CSM_MUST int body_put(struct csm_buf *to, json_t *value);
/* Answer with the value, likewise. */
void body_answer(struct csm_http_res *res, int status, json_t *value);
/* A string of bytes that are UTF-8. */
json_t *body_str(struct csm_str s);
json_t *body_hex(struct csm_bin b);
/* Lower-case or upper-case hex of 1 to cap bytes. */
bool body_unhex(struct csm_str s, uint8_t *out, size_t cap, size_t *n);
/* Base64 with lines of 64, ended by a newline each, appended. */
CSM_MUST int body_base64(struct csm_bin bytes, struct csm_buf *out);

#endif
