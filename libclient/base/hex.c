#include "libclient/base/hex.h"

int csm_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

void csm_hex(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

static int lower(char c)
{
	return c >= 'A' && c <= 'F' ? -1 : csm_hex_digit(c);
}

int csm_unhex(struct csm_str s, uint8_t *out, size_t n)
{
	if (s.n != 2 * n)
		return CSM_EINVALID;
	for (size_t i = 0; i < s.n; i++)
		if (lower(s.p[i]) < 0)
			return CSM_EINVALID;
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)((unsigned)lower(s.p[2 * i]) << 4 | (unsigned)lower(s.p[2 * i + 1]));
	return 0;
}
