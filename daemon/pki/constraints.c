/* Name constraints (RFC 5280 4.2.1.10) from the texts in which people write them. */
#include <string.h>
#include "daemon/pki/issue.h"

/* Address and mask. */
static ASN1_STRING *net_value(struct csm_str text)
{
	uint8_t bytes[32] = {0};
	ASN1_STRING *s;
	struct csm_net net;

	if (!csm_net_parse(text, &net))
		return NULL;
	for (size_t i = 0; i < net.n; i++) {
		unsigned set = net.bits > 8 * i ? net.bits - 8 * (unsigned)i : 0;
		uint8_t mask = set >= 8 ? 0xff : (uint8_t)(0xff00u >> set);

		bytes[i] = net.at[i] & mask;
		bytes[net.n + i] = mask;
	}
	s = ASN1_OCTET_STRING_new();
	if (s != NULL && ASN1_STRING_set(s, bytes, (int)(2 * net.n)) != 1) {
		ASN1_STRING_free(s);
		s = NULL;
	}
	return s;
}

static ASN1_STRING *ia5_value(struct csm_str text)
{
	ASN1_STRING *s;

	if (text.n == 0 || text.n > CSM_SAN_MAX)
		return NULL;
	for (size_t i = 0; i < text.n; i++)
		if (text.p[i] <= 0x20 || text.p[i] > 0x7e || text.p[i] == '*')
			return NULL;
	s = ASN1_IA5STRING_new();
	if (s != NULL && ASN1_STRING_set(s, text.p, (int)text.n) != 1) {
		ASN1_STRING_free(s);
		s = NULL;
	}
	return s;
}

static int add(STACK_OF(GENERAL_SUBTREE) *list, struct csm_str text)
{
	static const struct {
		const char *prefix;
		int type;
		ASN1_STRING *(*value)(struct csm_str text);
	} kinds[] = {
		{"dns:", GEN_DNS, ia5_value},
		{"ip:", GEN_IPADD, net_value},
		{"uri:", GEN_URI, ia5_value},
		{"email:", GEN_EMAIL, ia5_value},
	};
	GENERAL_SUBTREE *sub;
	ASN1_STRING *value;
	size_t k = 0, n;

	while (k < sizeof(kinds) / sizeof(kinds[0]) &&
		(text.n < strlen(kinds[k].prefix) || memcmp(text.p, kinds[k].prefix, strlen(kinds[k].prefix)) != 0))
		k++;
	if (k == sizeof(kinds) / sizeof(kinds[0]))
		return CSM_EINVALID;
	n = strlen(kinds[k].prefix);
	if ((value = kinds[k].value((struct csm_str){text.p + n, text.n - n})) == NULL)
		return CSM_EINVALID;
	if ((sub = GENERAL_SUBTREE_new()) == NULL) {
		ASN1_STRING_free(value);
		return CSM_ENOMEM;
	}
	GENERAL_NAME_set0_value(sub->base, kinds[k].type, value);
	if (sk_GENERAL_SUBTREE_push(list, sub) == 0) {
		GENERAL_SUBTREE_free(sub);
		return CSM_ENOMEM;
	}
	return 0;
}

static int add_all(STACK_OF(GENERAL_SUBTREE) **list, const struct csm_str *texts, size_t n)
{
	int r = 0;

	if (n > 0 && (*list = sk_GENERAL_SUBTREE_new_null()) == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = add(*list, texts[i]);
	return r;
}

int csm_constraints_new(const struct csm_str *permitted, size_t n_permitted, const struct csm_str *excluded,
	size_t n_excluded, NAME_CONSTRAINTS **ret)
{
	NAME_CONSTRAINTS *nc = NAME_CONSTRAINTS_new();
	int r = CSM_ENOMEM;

	if (nc == NULL)
		return r;
	if ((r = add_all(&nc->permittedSubtrees, permitted, n_permitted)) == 0 &&
		(r = add_all(&nc->excludedSubtrees, excluded, n_excluded)) == 0) {
		*ret = nc;
		nc = NULL;
	}
	NAME_CONSTRAINTS_free(nc);
	return r;
}
