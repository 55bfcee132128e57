/* Tables for other programs: comma-separated values (RFC 4180), lines that end in CR LF. What a server was told by others stands in
 * them, and no table calculator takes it for a formula. Any thread. */
#ifndef CSM_CENTRAL_CSV_H
#define CSM_CENTRAL_CSV_H

#include "daemon/svc/http.h"

/* A value and what stands behind it, "," or CSV_END, appended. CSM_ENOMEM, CSM_ETOO_LARGE. */
#define CSV_END "\r\n"
CSM_MUST int csv_text(struct csm_buf *b, struct csm_str s, const char *behind);
CSM_MUST int csv_hex(struct csm_buf *b, struct csm_bin v, const char *behind); /* n 0: empty */
CSM_MUST int csv_u64(struct csm_buf *b, uint64_t v, const char *behind);
/* The names of the columns: on the first page alone. The cursor of the next page, "" none, goes to the header CSM-Next. */
CSM_MUST int csv_begin(struct csm_http_res *res, const char *columns, bool first, struct csm_str next);

#endif
