#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "libclient/base/pem.h"

#define LINE 48u /* bytes of DER in a line of 64 characters */
#define TEXT_LINE (LINE / 3 * 4 + 1)

static int put_edge(struct csm_buf *b, const char *before, const char *label)
{
	char line[96];
	int n = snprintf(line, sizeof(line), "-----%s %s-----\n", before, label);

	return csm_buf_put(b, line, (size_t)n);
}

int csm_pem_put(struct csm_buf *b, const char *label, const void *der, size_t n)
{
	const uint8_t *p = der;
	size_t lines = n / LINE + 1, written = 0;
	uint8_t *to;
	int r = put_edge(b, "BEGIN", label);

	if (r == 0 && n > SIZE_MAX / 4)
		r = CSM_ETOO_LARGE;
	/* each line's NUL is where its newline comes to stand */
	if (r != 0 || (r = csm_buf_reserve(b, lines * TEXT_LINE, &to)) != 0)
		return r;
	while (n > 0) {
		size_t k = n < LINE ? n : LINE, text = (k + 2) / 3 * 4;

		(void)sodium_bin2base64((char *)to + written, text + 1, p, k, sodium_base64_VARIANT_ORIGINAL);
		to[written + text] = '\n';
		written += text + 1;
		p += k;
		n -= k;
	}
	csm_buf_commit(b, written);
	return put_edge(b, "END", label);
}
