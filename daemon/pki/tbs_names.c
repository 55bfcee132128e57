/* The names of what is issued, against name constraints (RFC 5280 4.2.1.10): those of the key's rules and of the issuer's
 * certificate. */
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include "daemon/pki/cert.h"
#include "daemon/pki/issue.h"
#include "daemon/pki/tbs_int.h"

static int check_sans(struct tbs_issuer *is, X509 *x, bool *some)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	struct csm_buf text;
	int r = 0;

	if (names == NULL && X509_get_ext_by_NID(x, NID_subject_alt_name, -1) >= 0)
		return tbs_refuse(is, CSM_EINVALID, "its alternative names cannot be read");
	*some = sk_GENERAL_NAME_num(names) > 0;
	csm_buf_init(&text, CSM_SAN_MAX, false);
	for (int i = 0; i < sk_GENERAL_NAME_num(names) && r == 0; i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);

		csm_buf_reset(&text);
		if (n->type != GEN_DNS && n->type != GEN_IPADD && n->type != GEN_URI && n->type != GEN_EMAIL)
			r = tbs_refuse(is, CSM_EDENIED, "alternative name %d is of a kind that no rule can speak of", i + 1);
		else if ((r = csm_san_text(n, &text)) != 0 && r != CSM_ENOMEM)
			r = tbs_refuse(is, CSM_EINVALID, "alternative name %d is too long, or no text", i + 1);
	}
	csm_buf_free(&text);
	GENERAL_NAMES_free(names);
	return r;
}

static bool has_kind(const STACK_OF(GENERAL_SUBTREE) *list, int type)
{
	for (int i = 0; i < sk_GENERAL_SUBTREE_num(list); i++)
		if (sk_GENERAL_SUBTREE_value(list, i)->base->type == type)
			return true;
	return false;
}

static struct csm_str text_of(const ASN1_STRING *s)
{
	return (struct csm_str){(const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)};
}

static bool ends_with(struct csm_str s, struct csm_str end)
{
	return s.n >= end.n && strncasecmp(s.p + s.n - end.n, end.p, end.n) == 0;
}

/* What is compared as it is written: "*.a" stands for "b.a", and to some "b.a." is "b.a". */
static bool may_stand_for(struct csm_str host, const STACK_OF(GENERAL_SUBTREE) *excluded)
{
	for (int i = 0; i < sk_GENERAL_SUBTREE_num(excluded); i++) {
		const GENERAL_NAME *base = sk_GENERAL_SUBTREE_value(excluded, i)->base;

		if (base->type == GEN_DNS && host.n > 0 &&
			(host.p[host.n - 1] == '.' ||
				(host.p[0] == '*' && ends_with(text_of(base->d.dNSName), (struct csm_str){host.p + 1, host.n - 1}))))
			return true;
	}
	return false;
}

/* A host to those who look for hosts in a CN, but to NAME_CONSTRAINTS_check_CN none. */
static bool is_odd_host(struct csm_str cn)
{
	bool dot = false, star = false;

	for (size_t i = 0; i < cn.n; i++) {
		if (cn.p[i] != '\0' && strchr(" ,:/@", cn.p[i]) != NULL)
			return false;
		star = star || cn.p[i] == '*';
		dot = dot || (cn.p[i] == '.' && i + 1 < cn.n);
	}
	return dot && (star || cn.p[cn.n - 1] == '.');
}

/* NAME_CONSTRAINTS_check_CN asks for two labels, and clients on a local network for one, where they find no host among the
 * alternative names. */
static bool is_short_host(struct csm_str cn)
{
	for (size_t i = 0; i < cn.n; i++)
		if (cn.p[i] != '-' && cn.p[i] != '_' && !(cn.p[i] >= '0' && cn.p[i] <= '9') && !((cn.p[i] | 0x20) >= 'a' && (cn.p[i] | 0x20) <= 'z') &&
			(cn.p[i] != '.' || i == 0 || i + 1 < cn.n))
			return false;
	return cn.n > 0;
}

static bool for_servers_by_cn(X509 *x, const GENERAL_NAMES *names)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		if (sk_GENERAL_NAME_value(names, i)->type == GEN_DNS)
			return false;
	return X509_check_ca(x) == 0 && (X509_get_extended_key_usage(x) & (XKU_SSL_SERVER | XKU_ANYEKU)) != 0;
}

static bool is_among(struct csm_str host, const GENERAL_NAMES *names)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);

		if (n->type == GEN_DNS && text_of(n->d.dNSName).n == host.n && ends_with(text_of(n->d.dNSName), host))
			return true;
	}
	return false;
}

/* False: a host in it is not what the constraints take it for. */
static bool hosts_are_plain(const GENERAL_NAMES *names, X509 *x, const NAME_CONSTRAINTS *nc)
{
	const X509_NAME *subject = X509_get_subject_name(x);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);

		if (n->type == GEN_DNS && may_stand_for(text_of(n->d.dNSName), nc->excludedSubtrees))
			return false;
	}
	if (!has_kind(nc->permittedSubtrees, GEN_DNS) && !has_kind(nc->excludedSubtrees, GEN_DNS))
		return true;
	for (int i = -1; (i = X509_NAME_get_index_by_NID(subject, NID_commonName, i)) >= 0;) {
		struct csm_str cn = text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)));

		if ((is_odd_host(cn) || (is_short_host(cn) && for_servers_by_cn(x, names))) && !is_among(cn, names))
			return false;
	}
	return true;
}

/* A CN that looks like a host is one to those who look for hosts there. */
static int check_against(struct tbs_issuer *is, X509 *x, NAME_CONSTRAINTS *nc, const char *whose)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	bool plain = hosts_are_plain(names, x, nc);
	int v = NAME_CONSTRAINTS_check(x, nc);

	GENERAL_NAMES_free(names);
	if (v == X509_V_OK)
		v = NAME_CONSTRAINTS_check_CN(x, nc);
	if (v == X509_V_ERR_OUT_OF_MEM)
		return CSM_ENOMEM;
	if (v != X509_V_OK)
		return tbs_refuse(is, CSM_EDENIED, "a name is not within the constraints of %s (%s)", whose,
			X509_verify_cert_error_string(v));
	return plain ? 0 : tbs_refuse(is, CSM_EDENIED, "a name stands for hosts that are not within the constraints of %s", whose);
}

static bool stands_in(const STACK_OF(GENERAL_SUBTREE) *list, const GENERAL_SUBTREE *one)
{
	for (int i = 0; i < sk_GENERAL_SUBTREE_num(list); i++) {
		const GENERAL_SUBTREE *s = sk_GENERAL_SUBTREE_value(list, i);

		if (GENERAL_NAME_cmp(s->base, one->base) == 0 && s->minimum == NULL && s->maximum == NULL)
			return true;
	}
	return false;
}

/* What a CA below issues is not seen here: so its certificate says the same, or less. */
static bool no_wider(const NAME_CONSTRAINTS *below, const NAME_CONSTRAINTS *rules)
{
	for (int i = 0; i < sk_GENERAL_SUBTREE_num(rules->excludedSubtrees); i++)
		if (!stands_in(below->excludedSubtrees, sk_GENERAL_SUBTREE_value(rules->excludedSubtrees, i)))
			return false;
	for (int i = 0; i < sk_GENERAL_SUBTREE_num(rules->permittedSubtrees); i++)
		if (!has_kind(below->permittedSubtrees, sk_GENERAL_SUBTREE_value(rules->permittedSubtrees, i)->base->type))
			return false;
	for (int i = 0; i < sk_GENERAL_SUBTREE_num(below->permittedSubtrees); i++) {
		const GENERAL_SUBTREE *s = sk_GENERAL_SUBTREE_value(below->permittedSubtrees, i);

		if (has_kind(rules->permittedSubtrees, s->base->type) && !stands_in(rules->permittedSubtrees, s))
			return false;
	}
	return true;
}

static int check_own(struct tbs_issuer *is, X509 *x, const NAME_CONSTRAINTS *rules)
{
	NAME_CONSTRAINTS *own = X509_get_ext_d2i(x, NID_name_constraints, NULL, NULL);
	bool good = own != NULL && no_wider(own, rules);

	NAME_CONSTRAINTS_free(own);
	return good ? 0 : tbs_refuse(is, CSM_EDENIED, "a CA's certificate has to carry the name constraints of the key's rules");
}

static int check_rules(struct tbs_issuer *is, X509 *x, bool ca)
{
	const struct csm_msg_issuer_rules *rules = is->key->rules;
	NAME_CONSTRAINTS *nc = NULL;
	int r;

	if (rules->permitted.n == 0 && rules->excluded.n == 0)
		return 0;
	r = csm_constraints_new(rules->permitted.v, rules->permitted.n, rules->excluded.v, rules->excluded.n, &nc);
	if (r == 0)
		r = check_against(is, x, nc, "the key's rules");
	if (r == 0 && ca)
		r = check_own(is, x, nc);
	NAME_CONSTRAINTS_free(nc);
	return r;
}

static int check_issuers(struct tbs_issuer *is, X509 *x)
{
	NAME_CONSTRAINTS *nc = X509_get_ext_d2i(is->cert, NID_name_constraints, NULL, NULL);
	int r;

	if (nc == NULL)
		return X509_get_ext_by_NID(is->cert, NID_name_constraints, -1) < 0 ? 0 :
			tbs_refuse(is, CSM_ESTATE, "the name constraints of the issuer's certificate cannot be read");
	r = check_against(is, x, nc, "the issuer's certificate");
	NAME_CONSTRAINTS_free(nc);
	return r;
}

int tbs_names(struct tbs_issuer *is, X509 *x, bool ca)
{
	bool some = false;
	int r;

	if ((r = check_sans(is, x, &some)) != 0)
		return r;
	if (!some && X509_NAME_entry_count(X509_get_subject_name(x)) == 0)
		return tbs_refuse(is, CSM_EINVALID, "it has no name");
	if (!ca && X509_get_ext_by_NID(x, NID_name_constraints, -1) >= 0)
		return tbs_refuse(is, CSM_EINVALID, "name constraints, but no CA");
	/* Its own certificate binds nobody: the rules do. */
	if (is->cert == NULL)
		return 0;
	return (r = check_rules(is, x, ca)) != 0 ? r : check_issuers(is, x);
}
