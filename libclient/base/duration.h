/* Times that people write, in files and on command lines: a number and a unit. */
#ifndef CSM_BASE_DURATION_H
#define CSM_BASE_DURATION_H

#include "libclient/base/name.h"

#define CSM_DURATION_UNITS "s, m or min, h, d, w, y" /* a year has 365 days */
#define CSM_DURATION_TEXT 32u

/* "90s", "4m" and "4min", "12h", "30d", "2w", "10y", in seconds. CSM_EINVALID: it is something else; CSM_ETOO_LARGE: above max. */
CSM_MUST int csm_duration_parse(struct csm_str s, uint64_t max, uint64_t *ret);
/* In the largest of s, min, h and d of which it is a whole number: "90s", "10min", "30d". */
const char *csm_duration_text(uint64_t seconds, char buf[static CSM_DURATION_TEXT]);

#endif
