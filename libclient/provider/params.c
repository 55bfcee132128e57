#include <stdlib.h>
#include <string.h>
#include <openssl/params.h>
#include "libclient/provider/provider.h"

bool prov_get_word(const OSSL_PARAM *p, const struct prov_word *words, int *ret)
{
	const char *s;
	char *end;
	long n;

	if (p->data_type != OSSL_PARAM_UTF8_STRING)
		return OSSL_PARAM_get_int(p, ret);
	if (!OSSL_PARAM_get_utf8_string_ptr(p, &s))
		return false;
	for (; words->word != NULL; words++) {
		if (strcmp(words->word, s) == 0) {
			*ret = words->value;
			return true;
		}
	}
	n = strtol(s, &end, 10);
	*ret = (int)n;
	return end != s && *end == '\0' && n >= -4 && n <= 0xffff;
}

bool prov_set_word(OSSL_PARAM *p, const struct prov_word *words, int value)
{
	if (p->data_type != OSSL_PARAM_UTF8_STRING)
		return OSSL_PARAM_set_int(p, value);
	for (; words->word != NULL; words++)
		if (words->value == value)
			return OSSL_PARAM_set_utf8_string(p, words->word);
	return false;
}
