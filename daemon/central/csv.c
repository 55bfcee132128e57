#include "daemon/central/csv.h"
#include "libclient/base/hex.h"

#include <stdio.h>
#include <string.h>

#define HEX_BYTES 64u

static int put(struct csm_buf *b, const char *text)
{
	return csm_buf_put(b, text, strlen(text));
}

int csv_text(struct csm_buf *b, struct csm_str s, const char *behind)
{
	static const char formulas[] = {'=', '+', '-', '@', '\t', '\r'};
	int r = put(b, s.n > 0 && memchr(formulas, s.p[0], sizeof(formulas)) != NULL ? "\"'" : "\"");

	for (size_t i = 0; i < s.n && r == 0; i++)
		r = csm_buf_put(b, s.p[i] == '"' ? "\"\"" : &s.p[i], s.p[i] == '"' ? 2 : 1);
	if (r == 0)
		r = put(b, "\"");
	return r == 0 ? put(b, behind) : r;
}

int csv_hex(struct csm_buf *b, struct csm_bin v, const char *behind)
{
	char text[2 * HEX_BYTES + 1];

	if (v.n > HEX_BYTES)
		return CSM_ETOO_LARGE;
	csm_hex(v.p, v.n, text);
	return csv_text(b, (struct csm_str){text, 2 * v.n}, behind);
}

int csv_u64(struct csm_buf *b, uint64_t v, const char *behind)
{
	char text[32];
	int r;

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	r = put(b, text);
	return r == 0 ? put(b, behind) : r;
}

int csv_begin(struct csm_http_res *res, const char *columns, bool first, struct csm_str next)
{
	int r = first ? put(&res->body, columns) : 0;

	if (r == 0 && first)
		r = put(&res->body, CSV_END);
	if (r == 0 && next.n > 0)
		r = csm_http_res_header(res, "CSM-Next", "%.*s", (int)next.n, next.p);
	res->status = 200;
	res->type = "text/csv";
	return r;
}
