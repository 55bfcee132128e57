/* JSON of messages, by jansson. */
#ifndef CSM_CERTDIR_MSGJSON_H
#define CSM_CERTDIR_MSGJSON_H

#include <jansson.h>
#include "libclient/wire/msg.h"

/* An object of the fields that are present: numbers, booleans, strings; bytes as base64. CSM_ENOMEM. */
CSM_MUST int csm_json_of(const struct csm_msgdef *def, const void *msg, json_t **ret);
CSM_MUST int csm_json_base64(const void *p, size_t n, json_t **ret);
/* As text with a newline, appended. */
CSM_MUST int csm_json_put(const json_t *j, struct csm_buf *b);

#endif
