/* JSON of messages, by jansson. */
#ifndef CSM_CLI_JSON_H
#define CSM_CLI_JSON_H

#include <jansson.h>
#include "libclient/cli/cli.h"

/* An object of the fields that are present: numbers, booleans, strings; bytes as base64. */
CSM_MUST int json_of(const struct csm_msgdef *def, const void *msg, json_t **ret);
CSM_MUST int json_base64(const void *p, size_t n, json_t **ret);
/* Print on the command's output (-o, or stdout) with a newline. Takes j, whatever the result. */
CSM_MUST int json_print(struct cli *cli, json_t *j);

#endif
