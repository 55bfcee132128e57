#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include "daemon/pki/cert.h"
#include "daemon/pki/profile.h"

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 4096
#define SAN_SHOWN 120
#define KU_CA (KU_KEY_CERT_SIGN | KU_CRL_SIGN)

struct judging {
	const struct csm_profile *by;
	const struct csm_certreq *q;
	char *why;
};

static int __attribute__((format(printf, 3, 4))) refuse(char *why, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	csm_text_vput(why, CSM_CERTREQ_WHY, fmt, ap);
	va_end(ap);
	return r;
}

/* ---- the profile itself ---- */

static int check_usages(const struct csm_profile *p, char *why)
{
	if (p->ca ? (p->key_usage & KU_KEY_CERT_SIGN) == 0 : (p->key_usage & KU_CA) != 0)
		return refuse(why, CSM_EINVALID, "key_usage: a CA's, and only a CA's, has keyCertSign");
	if (p->key_usage == 0 || p->key_usage > 0xffff)
		return refuse(why, CSM_EINVALID, "key_usage: none, or no such bits");
	if (p->n_ekus > CSM_PROFILE_EKUS_MAX)
		return refuse(why, CSM_EINVALID, "ekus: more than %u", CSM_PROFILE_EKUS_MAX);
	for (size_t i = 0; i < p->n_ekus; i++) {
		ASN1_OBJECT *obj = OBJ_txt2obj(p->ekus[i], 0);
		bool known = obj != NULL;

		ASN1_OBJECT_free(obj);
		if (!known)
			return refuse(why, CSM_EINVALID, "ekus: entry %zu is neither a known name nor an object identifier", i + 1);
	}
	return 0;
}

int csm_profile_check(const struct csm_profile *p, char why[static CSM_CERTREQ_WHY])
{
	int r = 0;

	if (p->keys == 0 || p->keys >= CSM_PROFILE_RSA << 1)
		return refuse(why, CSM_EINVALID, "keys: none, or unknown ones");
	if ((p->keys & CSM_PROFILE_RSA) != 0 &&
		(p->rsa_min < RSA_BITS_MIN || p->rsa_max > RSA_BITS_MAX || p->rsa_min > p->rsa_max))
		return refuse(why, CSM_EINVALID, "rsa_min, rsa_max: from %d to %d", RSA_BITS_MIN, RSA_BITS_MAX);
	if (p->max_life == 0)
		return refuse(why, CSM_EINVALID, "max_life: none");
	if (p->path_len < CSM_PATH_ANY || (!p->ca && (p->n_permitted > 0 || p->n_excluded > 0)))
		return refuse(why, CSM_EINVALID, "path_len or name constraints: not for this kind of certificate");
	for (size_t i = 0; i < p->n_sans; i++)
		if (!csm_san_rule_valid(p->sans[i]))
			return refuse(why, CSM_EINVALID, "sans: rule %zu is none", i + 1);
	if (p->n_subject > CSM_PROFILE_SUBJECT_MAX)
		return refuse(why, CSM_EINVALID, "subject: more than %u rules", CSM_PROFILE_SUBJECT_MAX);
	for (size_t i = 0; i < p->n_subject; i++)
		for (size_t j = 0; j < i; j++)
			if (p->subject[i].nid == p->subject[j].nid)
				return refuse(why, CSM_EINVALID, "subject: rule %zu is about an attribute that has a rule", i + 1);
	r = check_usages(p, why);
	ERR_clear_error();
	return r;
}

/* ---- a request ---- */

static int allows_key(const struct judging *j)
{
	static const struct {
		int type, bits;
		unsigned key;
		const char *name;
	} rows[] = {
		{EVP_PKEY_EC, 256, CSM_PROFILE_P256, "P-256"},
		{EVP_PKEY_EC, 384, CSM_PROFILE_P384, "P-384"},
		{EVP_PKEY_EC, 521, CSM_PROFILE_P521, "P-521"},
		{EVP_PKEY_ED25519, 0, CSM_PROFILE_ED25519, "Ed25519"},
		{EVP_PKEY_RSA, 0, CSM_PROFILE_RSA, "RSA"},
	};
	int bits = j->q->key_bits;
	size_t i = 0;

	while (i < sizeof(rows) / sizeof(rows[0]) &&
		(rows[i].type != j->q->key_type || (rows[i].bits != 0 && rows[i].bits != bits)))
		i++;
	if (i == sizeof(rows) / sizeof(rows[0]))
		return refuse(j->why, CSM_EDENIED, "the key is of a kind that no profile knows");
	if ((j->by->keys & rows[i].key) == 0)
		return refuse(j->why, CSM_EDENIED, "the profile does not take %s keys", rows[i].name);
	if (rows[i].key == CSM_PROFILE_RSA && (bits < j->by->rsa_min || bits > j->by->rsa_max))
		return refuse(j->why, CSM_EDENIED, "weak or large key: RSA of %d bits, the profile takes %d to %d", bits,
			j->by->rsa_min, j->by->rsa_max);
	return 0;
}

static bool has_eku(const struct csm_profile *p, const ASN1_OBJECT *asked)
{
	bool found = false;

	for (size_t i = 0; i < p->n_ekus && !found; i++) {
		ASN1_OBJECT *obj = OBJ_txt2obj(p->ekus[i], 0);

		found = obj != NULL && OBJ_cmp(obj, asked) == 0;
		ASN1_OBJECT_free(obj);
	}
	return found;
}

/* What a request may name at all; a key identifier is made anew. */
static int allows_exts(const struct judging *j)
{
	static const int known[] = {NID_subject_alt_name, NID_basic_constraints, NID_key_usage, NID_ext_key_usage,
		NID_subject_key_identifier};

	for (size_t i = 0; i < j->q->n_exts; i++) {
		size_t k = 0;

		while (k < sizeof(known) / sizeof(known[0]) && known[k] != j->q->exts[i].nid)
			k++;
		if (k == sizeof(known) / sizeof(known[0]))
			return refuse(j->why, CSM_EDENIED, "it asks for extension %s, which the profile does not give",
				j->q->exts[i].oid);
	}
	return 0;
}

static int allows_usage(const struct judging *j)
{
	char oid[CSM_OID_TEXT_MAX];

	if (j->q->wants_ca && !j->by->ca)
		return refuse(j->why, CSM_EDENIED, "it asks for CA:TRUE, and the profile is not a CA's");
	if ((j->q->key_usage & ~j->by->key_usage) != 0)
		return refuse(j->why, CSM_EDENIED, "it asks for a key usage that the profile does not give");
	for (int i = 0; i < sk_ASN1_OBJECT_num(j->q->eku); i++) {
		const ASN1_OBJECT *asked = sk_ASN1_OBJECT_value(j->q->eku, i);

		if (has_eku(j->by, asked))
			continue;
		(void)OBJ_obj2txt(oid, sizeof(oid), asked, 1);
		return refuse(j->why, CSM_EDENIED, "it asks for extended key usage %s, which the profile does not give", oid);
	}
	return 0;
}

/* Does a value stand among the alternative names? Hosts do not tell case apart. */
static bool is_san(const GENERAL_NAMES *names, struct csm_str value)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		struct csm_buf text;
		struct csm_str have = {NULL, 0};
		bool same = false;

		csm_buf_init(&text, 1024, false);
		if (csm_san_text(n, &text) == 0) {
			const char *p = (const char *)csm_buf_ptr(&text), *colon = memchr(p, ':', text.len);

			have = (struct csm_str){colon + 1, text.len - (size_t)(colon + 1 - p)};
			same = have.n == value.n && (n->type == GEN_DNS ? strncasecmp(have.p, value.p, have.n) :
				memcmp(have.p, value.p, have.n)) == 0;
		}
		csm_buf_free(&text);
		if (same)
			return true;
	}
	return false;
}

static int allows_attribute(const struct judging *j, int at, bool *seen)
{
	const X509_NAME_ENTRY *e = X509_NAME_get_entry(j->q->subject, at);
	int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(e)), n, r = 0;
	unsigned char *utf8 = NULL;
	struct csm_str value;
	size_t i = 0;

	while (i < j->by->n_subject && (nid == NID_undef || j->by->subject[i].nid != nid))
		i++;
	if (i == j->by->n_subject)
		return refuse(j->why, CSM_EDENIED, "subject: attribute %d is none that the profile allows", at + 1);
	if (seen[i])
		return refuse(j->why, CSM_EDENIED, "subject: %s stands there twice", OBJ_nid2sn(nid));
	seen[i] = true;
	if ((n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(e))) < 0)
		return CSM_ENOMEM;
	value = (struct csm_str){(const char *)utf8, (size_t)n};
	if (!csm_glob_match(j->by->subject[i].value, value))
		r = refuse(j->why, CSM_EDENIED, "subject: %s is outside of the profile", OBJ_nid2sn(nid));
	else if (nid == NID_commonName && j->by->cn_is_san && !is_san(j->q->sans, value))
		r = refuse(j->why, CSM_EDENIED, "subject: CN is not among the alternative names");
	OPENSSL_free(utf8);
	return r;
}

static int allows_subject(const struct judging *j)
{
	bool seen[CSM_PROFILE_SUBJECT_MAX] = {false};
	int n = X509_NAME_entry_count(j->q->subject), r;

	if (j->by->n_subject > CSM_PROFILE_SUBJECT_MAX)
		return CSM_EINTERNAL; /* csm_profile_check has said so */
	for (int i = 0; i < n; i++)
		if ((r = allows_attribute(j, i, seen)) != 0)
			return r;
	for (size_t i = 0; i < j->by->n_subject; i++)
		if (j->by->subject[i].required && !seen[i])
			return refuse(j->why, CSM_EDENIED, "subject: %s is missing", OBJ_nid2sn(j->by->subject[i].nid));
	/* RFC 5280 4.1.2.6: a CA has a name */
	if (j->by->ca && n == 0)
		return refuse(j->why, CSM_EDENIED, "subject: a CA has to have one");
	return 0;
}

/* The name itself, which the operator has to find in a profile or in a request. */
static int refuse_san(const struct judging *j, int i)
{
	struct csm_buf text;
	int r, n;

	csm_buf_init(&text, CSM_CSR_MAX, false);
	r = csm_san_text(sk_GENERAL_NAME_value(j->q->sans, i), &text);
	n = text.len <= SAN_SHOWN ? (int)text.len : SAN_SHOWN;
	if (r == 0)
		r = refuse(j->why, CSM_EDENIED, "%.*s%s is outside of the profile", n, (const char *)csm_buf_ptr(&text),
			text.len > SAN_SHOWN ? "..." : "");
	csm_buf_free(&text);
	return r;
}

static int allows_sans(const struct judging *j)
{
	int n = sk_GENERAL_NAME_num(j->q->sans);

	if (n <= 0 && (j->by->needs_san || X509_NAME_entry_count(j->q->subject) == 0))
		return refuse(j->why, CSM_EDENIED, "it has no alternative name");
	if (j->by->max_sans > 0 && n > 0 && (size_t)n > j->by->max_sans)
		return refuse(j->why, CSM_EDENIED, "it has more than %zu alternative names", j->by->max_sans);
	for (int i = 0; i < n; i++)
		if (!csm_san_allowed(j->by, sk_GENERAL_NAME_value(j->q->sans, i)))
			return refuse_san(j, i);
	return 0;
}

static bool has_host(const GENERAL_NAMES *names)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		if (sk_GENERAL_NAME_value(names, i)->type == GEN_DNS)
			return true;
	return false;
}

/* Whoever finds no host among the alternative names may look for one in the CN (RFC 6125 6.4.4), of one label too; some do so first,
 * and constraints of names reach one of several labels. */
static bool is_host(struct csm_str cn, bool of_one_label)
{
	size_t label = 0;

	for (size_t i = 0; i < cn.n; i++) {
		char c = cn.p[i];

		if (c == '.' && label == 0)
			return false;
		if (c != '.' && c != '-' && c != '_' && c != '*' && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
			return false;
		label = c == '.' ? 0 : label + 1;
	}
	return cn.n > 0 && (of_one_label || memchr(cn.p, '.', cn.n) != NULL);
}

static bool for_servers(const struct csm_profile *p)
{
	bool any = p->n_ekus == 0;

	for (size_t i = 0; i < p->n_ekus && !any; i++) {
		ASN1_OBJECT *obj = OBJ_txt2obj(p->ekus[i], 0);
		int nid = OBJ_obj2nid(obj);

		any = nid == NID_server_auth || nid == NID_anyExtendedKeyUsage;
		ASN1_OBJECT_free(obj);
	}
	return any;
}

static bool host_allowed(const struct csm_profile *p, struct csm_str host)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();
	bool ok = name != NULL && text != NULL && ASN1_STRING_set(text, host.p, (int)host.n) == 1;

	if (ok) {
		GENERAL_NAME_set0_value(name, GEN_DNS, text);
		text = NULL;
		ok = csm_san_allowed(p, name);
	}
	ASN1_IA5STRING_free(text);
	GENERAL_NAME_free(name);
	return ok;
}

/* A rule of its own for the CN is a decision; "any text" is none about hosts. */
static bool cn_is_ruled(const struct csm_profile *p)
{
	for (size_t i = 0; i < p->n_subject; i++)
		if (p->subject[i].nid == NID_commonName)
			return !csm_str_eq(p->subject[i].value, "*");
	return false;
}

static int allows_cn(const struct judging *j)
{
	int at = X509_NAME_get_index_by_NID(j->q->subject, NID_commonName, -1), n;
	unsigned char *utf8 = NULL;
	struct csm_str cn;
	bool bad;

	if (at < 0 || j->by->ca || !for_servers(j->by) || cn_is_ruled(j->by))
		return 0;
	if ((n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(j->q->subject, at)))) < 0)
		return CSM_ENOMEM;
	cn = (struct csm_str){(const char *)utf8, (size_t)n};
	bad = is_host(cn, !has_host(j->q->sans));
	while (cn.n > 1 && cn.p[cn.n - 1] == '.') /* the same host to some */
		cn.n--;
	bad = bad && !is_san(j->q->sans, cn) && !host_allowed(j->by, cn);
	OPENSSL_free(utf8);
	return !bad ? 0 : refuse(j->why, CSM_EDENIED, "subject: CN is the name of a host that is outside of the profile's alternative names");
}

int csm_profile_allows(const struct csm_profile *profile, const struct csm_certreq *req, uint64_t life,
	char why[static CSM_CERTREQ_WHY])
{
	const struct judging j = {profile, req, why};
	int r;

	if ((r = allows_key(&j)) != 0 || (r = allows_exts(&j)) != 0 || (r = allows_usage(&j)) != 0 ||
		(r = allows_subject(&j)) != 0 || (r = allows_sans(&j)) != 0 || (r = allows_cn(&j)) != 0)
		return r;
	if (life == 0 || life > profile->max_life)
		return refuse(why, CSM_EDENIED, "a life of %llu s, the profile gives at most %llu s", (unsigned long long)life,
			(unsigned long long)profile->max_life);
	return 0;
}
