#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "libclient/base/pem.h"

#define LINE 48u /* bytes of DER in a line of 64 characters */

static int put_edge(struct csm_buf *b, const char *before, const char *label)
{
	char line[96];
	int n = snprintf(line, sizeof(line), "-----%s %s-----\n", before, label);

	return csm_buf_put(b, line, (size_t)n);
}

int csm_pem_put(struct csm_buf *b, const char *label, const void *der, size_t n)
{
	const uint8_t *p = der;
	char line[LINE / 3 * 4 + 1];
	int r = put_edge(b, "BEGIN", label);

	while (r == 0 && n > 0) {
		size_t k = n < LINE ? n : LINE;

		(void)sodium_bin2base64(line, sizeof(line), p, k, sodium_base64_VARIANT_ORIGINAL);
		if ((r = csm_buf_put(b, line, strlen(line))) == 0)
			r = csm_buf_put(b, "\n", 1);
		p += k;
		n -= k;
	}
	sodium_memzero(line, sizeof(line));
	return r == 0 ? put_edge(b, "END", label) : r;
}
