#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include "daemon/pki/subject.h"
#include "proto-spec/limits.h"

#define WHY_SIZE 128
#define HOST_MAX 253u
#define LABEL_MAX 63u
#define LOCAL_MAX 64u

static bool is_alpha(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_alnum(char c)
{
	return is_alpha(c) || (c >= '0' && c <= '9');
}

/* Letters, digits and hyphens in labels (RFC 1034 3.5); NULL, or what is wrong. */
static const char *host_fault(struct csm_str s)
{
	size_t start = 0;

	if (s.n == 0 || s.n > HOST_MAX)
		return "the name is empty or longer than 253 bytes";
	for (size_t i = 0; i <= s.n; i++) {
		if (i < s.n && s.p[i] != '.') {
			if (!is_alnum(s.p[i]) && s.p[i] != '-')
				return "a byte that is no letter, digit, hyphen or dot";
			continue;
		}
		if (i == start || i - start > LABEL_MAX)
			return "a label is empty or longer than 63 bytes";
		if (s.p[start] == '-' || s.p[i - 1] == '-')
			return "a label starts or ends with a hyphen";
		start = i + 1;
	}
	return NULL;
}

/* The address's bytes: 4 or 16 of them; 0 when it is none. */
static size_t ip_parse(struct csm_str s, uint8_t ret[static 16])
{
	char text[INET6_ADDRSTRLEN];

	if (s.n >= sizeof(text) || memchr(s.p, '\0', s.n) != NULL)
		return 0;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	if (inet_pton(AF_INET, text, ret) == 1)
		return 4;
	return inet_pton(AF_INET6, text, ret) == 1 ? 16 : 0;
}

static const char *dns_fault(struct csm_str s)
{
	uint8_t ip[16];

	if (s.n > 2 && s.p[0] == '*' && s.p[1] == '.')
		s = (struct csm_str){s.p + 2, s.n - 2};
	if (s.n > 0 && ip_parse(s, ip) != 0)
		return "an address; write it as ip:";
	return host_fault(s);
}

/* scheme ":" and something, in the characters of RFC 3986. */
static const char *uri_fault(struct csm_str s)
{
	size_t n = 0;

	while (n < s.n && (is_alnum(s.p[n]) || strchr("+-.", s.p[n]) != NULL) && s.p[n] != '\0')
		n++;
	if (n == 0 || n == s.n || !is_alpha(s.p[0]) || s.p[n] != ':')
		return "no scheme";
	if (n + 1 == s.n)
		return "nothing after the scheme";
	for (size_t i = n; i < s.n; i++)
		if (s.p[i] == '\0' || (!is_alnum(s.p[i]) && strchr("-._~:/?#[]@!$&'()*+,;=%", s.p[i]) == NULL))
			return "a byte that a URI must write as %XX";
	return NULL;
}

/* dot-atom "@" host (RFC 5321 4.1.2); no quoted local part. */
static const char *email_fault(struct csm_str s)
{
	const char *at = s.n > 0 ? memchr(s.p, '@', s.n) : NULL;
	size_t local = at != NULL ? (size_t)(at - s.p) : 0;

	if (local == 0 || local > LOCAL_MAX)
		return "the part before @ is missing or longer than 64 bytes";
	for (size_t i = 0; i < local; i++) {
		if (s.p[i] == '.' && (i == 0 || i + 1 == local || s.p[i + 1] == '.'))
			return "a dot at an end of the part before @, or two in a row";
		if (s.p[i] == '\0' || (!is_alnum(s.p[i]) && strchr(".!#$%&'*+-/=?^_`{|}~", s.p[i]) == NULL))
			return "a byte that the part before @ cannot have";
	}
	return host_fault((struct csm_str){at + 1, s.n - local - 1});
}

static const struct kind {
	const char *prefix;
	int type;
	const char *(*fault)(struct csm_str s);
} kinds[] = {
	{"dns:", GEN_DNS, dns_fault},
	{"ip:", GEN_IPADD, NULL},
	{"uri:", GEN_URI, uri_fault},
	{"email:", GEN_EMAIL, email_fault},
};

static int refuse(char *why, size_t i, const struct kind *k, const char *fault)
{
	snprintf(why, WHY_SIZE, "san %zu (%s): %s", i + 1, k->prefix, fault);
	return CSM_EINVALID;
}

static const struct kind *kind_take(struct csm_str *s)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t n = strlen(kinds[i].prefix);

		if (s->n >= n && memcmp(s->p, kinds[i].prefix, n) == 0) {
			*s = (struct csm_str){s->p + n, s->n - n};
			return &kinds[i];
		}
	}
	return NULL;
}

/* The same name once more? Host names do not tell case apart. */
static bool is_twin(const GENERAL_NAME *a, int type, const uint8_t *p, size_t n)
{
	const ASN1_STRING *s = a->type == GEN_IPADD ? a->d.iPAddress : a->d.ia5;
	const char *have = (const char *)ASN1_STRING_get0_data(s);

	if (a->type != type || (size_t)ASN1_STRING_length(s) != n)
		return false;
	return type == GEN_DNS ? strncasecmp(have, (const char *)p, n) == 0 : memcmp(have, p, n) == 0;
}

static int name_add(GENERAL_NAMES *names, int type, const uint8_t *p, size_t n)
{
	ASN1_STRING *value = ASN1_STRING_type_new(type == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);
	GENERAL_NAME *name = GENERAL_NAME_new();

	if (value == NULL || name == NULL || ASN1_STRING_set(value, p, (int)n) != 1) {
		ASN1_STRING_free(value);
		GENERAL_NAME_free(name);
		return CSM_ENOMEM;
	}
	GENERAL_NAME_set0_value(name, type, value);
	if (sk_GENERAL_NAME_push(names, name) == 0) {
		GENERAL_NAME_free(name);
		return CSM_ENOMEM;
	}
	return 0;
}

static int san_parse(struct csm_str s, size_t i, GENERAL_NAMES *names, char *why)
{
	const struct kind *k = s.n <= CSM_SAN_MAX ? kind_take(&s) : NULL;
	const char *fault = NULL;
	uint8_t ip[16];

	if (k == NULL) {
		snprintf(why, WHY_SIZE,
			"san %zu: longer than %u bytes, or does not start with dns:, ip:, uri: or email:", i + 1,
			CSM_SAN_MAX);
		return CSM_EINVALID;
	}
	if (k->fault != NULL && (fault = k->fault(s)) != NULL)
		return refuse(why, i, k, fault);
	if (k->type == GEN_IPADD) {
		size_t n = ip_parse(s, ip);

		if (n == 0)
			return refuse(why, i, k, "no IPv4 or IPv6 address");
		s = (struct csm_str){(const char *)ip, n};
	}
	for (int j = 0; j < sk_GENERAL_NAME_num(names); j++)
		if (is_twin(sk_GENERAL_NAME_value(names, j), k->type, (const uint8_t *)s.p, s.n))
			return refuse(why, i, k, "stands here twice");
	return name_add(names, k->type, (const uint8_t *)s.p, s.n);
}

int csm_sans_parse(const struct csm_str *sans, size_t n, GENERAL_NAMES **ret, char why[static 128])
{
	GENERAL_NAMES *names = NULL;
	int r = CSM_EINVALID;

	if (n > CSM_SANS_MAX) {
		snprintf(why, WHY_SIZE, "sans: more than %u", CSM_SANS_MAX);
		return r;
	}
	if (n > 0 && (names = GENERAL_NAMES_new()) == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < n; i++)
		if ((r = san_parse(sans[i], i, names, why)) != 0)
			goto out;
	*ret = names;
	names = NULL;
	r = 0;
out:
	GENERAL_NAMES_free(names);
	return r;
}
