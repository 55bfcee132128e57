/* Alternative names against the rules of a profile. A rule stands on names' structure, not on their text: a star never
 * reaches over a dot of a host, a slash of a path, or what has a meaning in a URI. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "daemon/pki/profile.h"
#include "daemon/pki/subject.h"
#include "proto-spec/limits.h"

static bool starts(struct csm_str s, const char *with, struct csm_str *rest)
{
	size_t n = strlen(with);

	if (s.n < n || memcmp(s.p, with, n) != 0)
		return false;
	*rest = (struct csm_str){s.p + n, s.n - n};
	return true;
}

static bool same_host(struct csm_str a, struct csm_str b)
{
	return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

/* Is host below the domain (".example")? */
static bool is_below(struct csm_str domain, struct csm_str host)
{
	return domain.n > 0 && domain.p[0] == '.' && host.n > domain.n &&
		same_host(domain, (struct csm_str){host.p + host.n - domain.n, domain.n});
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* One star at a time: the last one takes one byte more where the rest does not fit. `stop` is what no star takes. */
static bool glob(struct csm_str rule, struct csm_str text, const char *stop, bool fold)
{
	size_t r = 0, t = 0, star = SIZE_MAX, from = 0;

	while (t < text.n) {
		if (r < rule.n && rule.p[r] == '*') {
			star = ++r;
			from = t;
		} else if (r < rule.n && (rule.p[r] == text.p[t] || (fold && lower(rule.p[r]) == lower(text.p[t])))) {
			r++;
			t++;
		} else if (star != SIZE_MAX && text.p[from] != '\0' && strchr(stop, text.p[from]) == NULL) {
			r = star;
			t = ++from;
		} else {
			return false;
		}
	}
	while (r < rule.n && rule.p[r] == '*')
		r++;
	return r == rule.n;
}

/* ---- hosts and addresses ---- */

static bool dns_matches(struct csm_str rule, struct csm_str host, bool wildcards)
{
	struct csm_str rest;

	if (starts(host, "*.", &rest)) { /* stands for every host there: what allows some of them is not enough */
		struct csm_str dotted = {host.p + 1, host.n - 1};

		return wildcards && rule.n > 0 && rule.p[0] == '.' &&
			(same_host(rule, dotted) || is_below(rule, dotted));
	}
	if (rule.n > 0 && rule.p[0] == '.')
		return is_below(rule, host);
	if (csm_str_eq(rule, "**"))
		return true;
	return glob(rule, host, ".", true);
}

bool csm_net_parse(struct csm_str s, struct csm_net *ret)
{
	const char *slash = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;
	size_t n = slash != NULL ? (size_t)(slash - s.p) : s.n;
	char text[INET6_ADDRSTRLEN];

	if (n >= sizeof(text))
		return false;
	(void)snprintf(text, sizeof(text), "%.*s", (int)n, s.p);
	ret->n = inet_pton(AF_INET, text, ret->at) == 1 ? 4 : inet_pton(AF_INET6, text, ret->at) == 1 ? 16 : 0;
	if (ret->n == 0)
		return false;
	ret->bits = (unsigned)(8 * ret->n);
	if (slash == NULL)
		return true;
	if (++n == s.n || s.n - n > 3)
		return false;
	for (ret->bits = 0; n < s.n; n++) {
		if (s.p[n] < '0' || s.p[n] > '9')
			return false;
		ret->bits = ret->bits * 10 + (unsigned)(s.p[n] - '0');
	}
	return ret->bits <= 8 * ret->n;
}

static bool ip_matches(struct csm_str rule, struct csm_str address)
{
	struct csm_net net;
	unsigned whole;

	if (!csm_net_parse(rule, &net) || address.n != net.n)
		return false;
	whole = net.bits / 8;
	if (memcmp(net.at, address.p, whole) != 0)
		return false;
	return net.bits % 8 == 0 || ((net.at[whole] ^ (uint8_t)address.p[whole]) >> (8 - net.bits % 8)) == 0;
}

/* ---- URIs and addresses of people ---- */

/* Segments "." and ".." mean another path to who resolves them, also when a dot is written as %2e. */
static bool has_dots(struct csm_str s)
{
	size_t from = 0;

	for (size_t i = 0; i <= s.n; i++) {
		size_t dots = 0, at;

		if (i < s.n && strchr("/?#", s.p[i]) == NULL)
			continue;
		for (at = from; at < i; dots++) {
			if (s.p[at] == '.')
				at++;
			else if (i - at >= 3 && strncasecmp(s.p + at, "%2e", 3) == 0)
				at += 3;
			else
				break;
		}
		if (at == i && (dots == 1 || dots == 2))
			return true;
		from = i + 1;
	}
	return false;
}

/* An empty segment is another path to some readers and none to others; "//" stands before the host only. */
static bool has_gap(struct csm_str s)
{
	const char *colon = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;

	for (size_t i = colon != NULL ? (size_t)(colon - s.p) + 2 : 0; i + 1 < s.n; i++)
		if (s.p[i] == '/' && s.p[i + 1] == '/')
			return true;
	return false;
}

static bool uri_matches(struct csm_str rule, struct csm_str uri)
{
	static const char within[] = "/?#@:%[]", beyond[] = "?#@%";
	struct csm_str head;
	size_t slashes = 0, n;

	if (has_dots(uri) || has_gap(uri))
		return false;
	if (rule.n < 2 || memcmp(rule.p + rule.n - 2, "**", 2) != 0)
		return glob(rule, uri, within, false);
	/* what stands before "**" ends in a slash: it takes as many of the URI's */
	head = (struct csm_str){rule.p, rule.n - 2};
	for (size_t i = 0; i < head.n; i++)
		slashes += head.p[i] == '/';
	for (n = 0; n < uri.n && slashes > 0; n++)
		slashes -= uri.p[n] == '/';
	if (slashes > 0 || !glob(head, (struct csm_str){uri.p, n}, within, false))
		return false;
	if (n == uri.n)
		return false;
	for (; n < uri.n; n++)
		if (uri.p[n] == '\0' || strchr(beyond, uri.p[n]) != NULL)
			return false;
	return true;
}

static bool email_matches(struct csm_str rule, struct csm_str address)
{
	const char *at = memchr(address.p, '@', address.n);
	const char *in_rule = memchr(rule.p, '@', rule.n);
	struct csm_str host, rule_host;
	size_t local;

	if (at == NULL)
		return false;
	local = (size_t)(at - address.p);
	host = (struct csm_str){at + 1, address.n - local - 1};
	if (in_rule == NULL)
		return is_below(rule, host);
	rule_host = (struct csm_str){in_rule + 1, rule.n - (size_t)(in_rule - rule.p) - 1};
	if (!same_host(rule_host, host))
		return false;
	return in_rule == rule.p || ((size_t)(in_rule - rule.p) == local && memcmp(rule.p, address.p, local) == 0);
}

bool csm_san_allowed(const struct csm_profile *profile, const GENERAL_NAME *name)
{
	const ASN1_STRING *s = name->type == GEN_IPADD ? name->d.iPAddress : name->d.ia5;
	struct csm_str value, rule;

	if (name->type != GEN_DNS && name->type != GEN_IPADD && name->type != GEN_URI && name->type != GEN_EMAIL)
		return false;
	value = (struct csm_str){(const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)};
	for (size_t i = 0; i < profile->n_sans; i++)
		if ((name->type == GEN_DNS && starts(profile->sans[i], "dns:", &rule) &&
				dns_matches(rule, value, profile->wildcards)) ||
			(name->type == GEN_IPADD && starts(profile->sans[i], "ip:", &rule) && ip_matches(rule, value)) ||
			(name->type == GEN_URI && starts(profile->sans[i], "uri:", &rule) && uri_matches(rule, value)) ||
			(name->type == GEN_EMAIL && starts(profile->sans[i], "email:", &rule) && email_matches(rule, value)))
			return true;
	return false;
}

/* ---- the rules themselves ---- */

/* A name with stars and a leading dot put away has to be one that may be asked for. */
static bool valid_as(const char *prefix, struct csm_str s, const char *filler)
{
	char text[CSM_SAN_MAX];
	size_t n = (size_t)snprintf(text, sizeof(text), "%s%s", prefix, filler);
	struct csm_str one = {text, 0};
	GENERAL_NAMES *names = NULL;
	char why[128];
	int r;

	if (s.n + n > sizeof(text))
		return false;
	for (size_t i = 0; i < s.n; i++)
		text[n++] = s.p[i] == '*' ? 'x' : s.p[i];
	one.n = n;
	r = csm_sans_parse(&one, 1, &names, why);
	GENERAL_NAMES_free(names);
	return r == 0;
}

/* The scheme has no star, and "**" stands behind a slash of the path. */
static bool uri_rule_valid(struct csm_str s)
{
	const char *colon = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;
	size_t slashes = 0;

	if (colon == NULL || memchr(s.p, '*', (size_t)(colon - s.p)) != NULL || has_dots(s) || has_gap(s) ||
		!valid_as("uri:", s, ""))
		return false;
	for (size_t i = 0; i + 1 < s.n; i++) {
		slashes += s.p[i] == '/';
		if (s.p[i] == '*' && s.p[i + 1] == '*' && (i + 2 != s.n || i == 0 || s.p[i - 1] != '/' || slashes < 3))
			return false;
	}
	return true;
}

bool csm_san_rule_valid(struct csm_str rule)
{
	struct csm_str s;
	struct csm_net net;

	if (starts(rule, "dns:", &s))
		return s.n > 0 && valid_as("dns:", s, s.p[0] == '.' ? "x" : "");
	if (starts(rule, "ip:", &s))
		return csm_net_parse(s, &net);
	if (starts(rule, "uri:", &s))
		return uri_rule_valid(s);
	if (starts(rule, "email:", &s))
		return s.n > 0 && memchr(s.p, '*', s.n) == NULL &&
			valid_as("email:", s, s.p[0] == '.' ? "x@x" : s.p[0] == '@' ? "x" : "");
	return false;
}
