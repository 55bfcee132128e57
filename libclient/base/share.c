#include "libclient/base/share.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>
#include "libclient/base/hex.h"
#include "libclient/base/lockmem.h"

#define HEAD 8u
#define CHECK 4u
#define WHOLE (HEAD + CSM_SHARE_LEN + CHECK)
#define FORMAT 1u
#define GROUP 2u /* bytes */

_Static_assert(CSM_SHARE_TEXT == 2 * WHOLE + WHOLE / GROUP, "digits, '-' between groups, NUL");

static void check_of(const uint8_t bytes[static HEAD + CSM_SHARE_LEN], uint8_t out[static CHECK])
{
	static const char what[] = "csm recovery share";
	uint8_t hash[crypto_generichash_BYTES];
	crypto_generichash_state h;

	crypto_generichash_init(&h, NULL, 0, sizeof(hash));
	crypto_generichash_update(&h, bytes, HEAD + CSM_SHARE_LEN);
	crypto_generichash_update(&h, (const uint8_t *)what, sizeof(what) - 1);
	crypto_generichash_final(&h, hash, sizeof(hash));
	memcpy(out, hash, CHECK);
	sodium_memzero(&h, sizeof(h));
}

void csm_share_text(const struct csm_share *s, char out[static CSM_SHARE_TEXT])
{
	CSM_WIPED(bytes, WHOLE);
	char *at = out;

	bytes[0] = FORMAT;
	memcpy(bytes + 1, s->set, CSM_SHARE_SET);
	bytes[5] = s->threshold;
	bytes[6] = s->count;
	bytes[7] = s->index;
	memcpy(bytes + HEAD, s->share, CSM_SHARE_LEN);
	check_of(bytes, bytes + HEAD + CSM_SHARE_LEN);
	for (size_t i = 0; i < WHOLE; i += GROUP) {
		if (i > 0)
			*at++ = '-';
		sodium_bin2hex(at, 2 * GROUP + 1, bytes + i, GROUP);
		at += 2 * GROUP;
	}
}

/* The bytes of the digits; more than WHOLE, or half a byte, is as wrong as none. */
static size_t read_digits(const char *text, size_t n, uint8_t bytes[static WHOLE])
{
	bool comment = false, begin = true;
	size_t digits = 0;

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		comment = comment || (begin && c == '#');
		begin = c == '\n';
		if (begin)
			comment = false;
		if (comment || c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '-')
			continue;
		if (csm_hex_digit(c) < 0 || digits == 2 * (size_t)WHOLE)
			return 0;
		bytes[digits / 2] = (uint8_t)(bytes[digits / 2] << 4 | csm_hex_digit(c));
		digits++;
	}
	return digits % 2 == 0 ? digits / 2 : 0;
}

int csm_share_parse(const char *text, size_t n, struct csm_share *ret, const char **why)
{
	CSM_WIPED(bytes, WHOLE);
	uint8_t check[CHECK];

	*why = "it is not a recovery share: these have 88 digits (0-9, a-f)";
	if (read_digits(text, n, bytes) != WHOLE)
		return CSM_EINVALID;
	*why = "it is a recovery share of a later version";
	if (bytes[0] != FORMAT)
		return CSM_EINVALID;
	check_of(bytes, check);
	*why = "a digit is wrong: its check does not fit";
	if (sodium_memcmp(check, bytes + HEAD + CSM_SHARE_LEN, CHECK) != 0 || bytes[5] < 2 || bytes[6] < bytes[5] ||
		bytes[6] > CSM_SHARES_MAX || bytes[7] == 0 || bytes[7] > bytes[6])
		return CSM_EINVALID;
	memcpy(ret->set, bytes + 1, CSM_SHARE_SET);
	ret->threshold = bytes[5];
	ret->count = bytes[6];
	ret->index = bytes[7];
	memcpy(ret->share, bytes + HEAD, CSM_SHARE_LEN);
	return 0;
}
