#include "daemon/central/profiles.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/objects.h>
#include "daemon/svc/config_read.h"
#include "daemon/pki/enrolled.h"
#include "plugins/include/csm_alg.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define POOL_MAX (4u * 1024u * 1024u)
#define PROFILES_MAX 64u
#define RULES_MAX 256u
#define TEXT_MAX 512u
#define DAY 86400u
#define LIFE_MAX (UINT64_C(100) * 366 * DAY)

struct profiles {
	struct csm_pool pool;
	const char *public_url;
	struct issuer_config *issuers;
	struct profile_config *all;
	size_t n_issuers, n;
};

struct reading {
	struct profiles *to;
	struct csm_policy_error *err;
};

/* ---- small values ---- */

static int keep(struct reading *rd, struct csm_str s, const char **ret)
{
	char *p = csm_pool_alloc(&rd->to->pool, s.n + 1);

	if (p == NULL)
		return CSM_ENOMEM;
	memcpy(p, s.p, s.n);
	*ret = p;
	return 0;
}

static int read_text(struct reading *rd, const struct csm_yaml_node *n, const char **ret)
{
	struct csm_str s;
	int r = csm_yaml_string(n, TEXT_MAX, &s, rd->err);

	if (r == 0 && s.n == 0)
		r = csm_yaml_fail(n, rd->err, "is empty");
	return r != 0 ? r : keep(rd, s, ret);
}

/* [a-z0-9][a-z0-9._-]*: it stands in URLs and in the database. */
static int read_name(struct reading *rd, const struct csm_yaml_node *n, const char **ret)
{
	if (!csm_namespace_valid(n->key))
		return csm_yaml_fail(n, rd->err, "a name is 1 to 63 of a-z, 0-9, '.', '_' and '-'");
	return keep(rd, n->key, ret);
}

static int read_life(struct reading *rd, const struct csm_yaml_node *n, uint64_t *ret)
{
	return config_read_seconds(&(struct reader){.err = rd->err}, n, 1, LIFE_MAX, ret);
}

struct word {
	const char *name;
	unsigned bits;
};

/* A list of words, or one. */
static int read_words(struct reading *rd, const struct csm_yaml_node *n, const struct word *words, size_t n_words, unsigned *ret)
{
	const struct csm_yaml_node *one = n->kind == CSM_YAML_LIST ? n->first : n;
	unsigned bits = 0;

	for (; one != NULL; one = n->kind == CSM_YAML_LIST ? one->next : NULL) {
		struct csm_str s;
		size_t i = 0;
		int r = csm_yaml_string(one, TEXT_MAX, &s, rd->err);

		if (r != 0)
			return r;
		while (i < n_words && !csm_str_eq(s, words[i].name))
			i++;
		if (i == n_words)
			return csm_yaml_fail(one, rd->err, "unknown word '%s'", csm_yaml_show(s).s);
		bits |= words[i].bits;
	}
	*ret = bits;
	return 0;
}

static int read_list(struct reading *rd, const struct csm_yaml_node *n, size_t max, const char ***ret, size_t *ret_n)
{
	const char **v;
	size_t i = 0;
	int r = csm_yaml_expect(n, CSM_YAML_LIST, rd->err);

	if (r != 0)
		return r;
	if (n->n > max)
		return csm_yaml_fail(n, rd->err, "has more than %zu entries", max);
	if ((v = csm_pool_alloc(&rd->to->pool, (n->n + 1) * sizeof(*v))) == NULL)
		return CSM_ENOMEM;
	for (const struct csm_yaml_node *one = n->first; one != NULL; one = one->next)
		if ((r = read_text(rd, one, &v[i++])) != 0)
			return r;
	*ret = v;
	*ret_n = i;
	return 0;
}

static int read_strs(struct reading *rd, const struct csm_yaml_node *n, const struct csm_str **ret, size_t *ret_n)
{
	const char **texts = NULL;
	struct csm_str *v;
	size_t count = 0;
	int r = read_list(rd, n, RULES_MAX, &texts, &count);

	if (r != 0)
		return r;
	if ((v = csm_pool_alloc(&rd->to->pool, (count + 1) * sizeof(*v))) == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < count; i++)
		v[i] = csm_str_of(texts[i]);
	*ret = v;
	*ret_n = count;
	return 0;
}

/* ---- the fields of a profile ---- */

typedef int field_fn(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p);

static int read_issuer_of(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	struct csm_str s;
	int r = csm_yaml_string(n, TEXT_MAX, &s, rd->err);

	if (r != 0)
		return r;
	if ((p->issuer = profiles_issuer(rd->to, s)) == NULL)
		return csm_yaml_fail(n, rd->err, "there is no issuer '%s'", csm_yaml_show(s).s);
	return 0;
}

static int read_role(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	static const struct word roles[] = {{"service", 0}, {"node", 1}, {"operator", 2}, {"administrator", 3}};
	static const char *const names[] = {"", "node", "operator", "administrator"};
	unsigned which = 0;
	int r = csm_yaml_expect(n, CSM_YAML_SCALAR, rd->err);

	if (r == 0 && (r = read_words(rd, n, roles, N_ELEMS(roles), &which)) == 0)
		p->role = names[which];
	return r;
}

static int read_ask(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	static const struct word who[] = {{"token", ASK_TOKEN}, {"service", ASK_SERVICE}, {"node", ASK_NODE},
		{"operator", ASK_OPERATOR}, {"administrator", ASK_ADMINISTRATOR}};

	int r = read_words(rd, n, who, N_ELEMS(who), &p->ask);

	return r == 0 && p->ask == 0 ? csm_yaml_fail(n, rd->err, "names nobody") : r;
}

static int read_approval(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	static const struct word kinds[] = {{"none", APPROVAL_NONE}, {"first", APPROVAL_FIRST}, {"manual", APPROVAL_ALL},
		{"two-person", APPROVAL_TWO}};
	unsigned which = 0;
	int r = csm_yaml_expect(n, CSM_YAML_SCALAR, rd->err);

	if (r == 0 && (r = read_words(rd, n, kinds, N_ELEMS(kinds), &which)) == 0)
		p->approval = (enum profile_approval)which;
	return r;
}

static int read_max_life(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	return read_life(rd, n, &p->x509.max_life);
}

static int read_usual_life(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	return read_life(rd, n, &p->life);
}

#define RSA2 (CSM_PROFILE_RSA << 1)
#define RSA3 (CSM_PROFILE_RSA << 2)
#define RSA4 (CSM_PROFILE_RSA << 3)
static int read_keys(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	static const struct word kinds[] = {{"p256", CSM_PROFILE_P256}, {"p384", CSM_PROFILE_P384}, {"p521", CSM_PROFILE_P521},
		{"ed25519", CSM_PROFILE_ED25519}, {"rsa2048", CSM_PROFILE_RSA | RSA2}, {"rsa3072", CSM_PROFILE_RSA | RSA3},
		{"rsa4096", CSM_PROFILE_RSA | RSA4}, {"rsa", CSM_PROFILE_RSA | RSA2 | RSA3 | RSA4}};
	unsigned bits = 0;
	int r = read_words(rd, n, kinds, N_ELEMS(kinds), &bits);

	if (r != 0)
		return r;
	p->x509.keys = bits & (RSA2 - 1);
	p->x509.rsa_min = (bits & RSA2) != 0 ? 2048 : (bits & RSA3) != 0 ? 3072 : 4096;
	p->x509.rsa_max = (bits & RSA4) != 0 ? 4096 : (bits & RSA3) != 0 ? 3072 : 2048;
	return 0;
}

static int read_key_usage(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	static const struct word usages[] = {{"digitalSignature", KU_DIGITAL_SIGNATURE}, {"nonRepudiation", KU_NON_REPUDIATION},
		{"keyEncipherment", KU_KEY_ENCIPHERMENT}, {"dataEncipherment", KU_DATA_ENCIPHERMENT},
		{"keyAgreement", KU_KEY_AGREEMENT}, {"keyCertSign", KU_KEY_CERT_SIGN}, {"cRLSign", KU_CRL_SIGN}};
	unsigned bits = 0;
	int r = read_words(rd, n, usages, N_ELEMS(usages), &bits);

	if (r == 0)
		p->x509.key_usage = bits;
	return r;
}

static int read_ekus(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	const char **v = NULL;
	size_t count = 0;
	int r = read_list(rd, n, CSM_PROFILE_EKUS_MAX, &v, &count);

	if (r != 0)
		return r;
	for (size_t i = 0; i < count; i++)
		p->x509.ekus[i] = v[i];
	p->x509.n_ekus = count;
	return 0;
}

/* CN: "*", or CN: {value: "*", required: true} */
static int read_attribute(struct reading *rd, const struct csm_yaml_node *n, struct csm_subject_rule *rule)
{
	static const char *const known[] = {"value", "required"};
	const struct csm_yaml_node *value = n, *required = NULL;
	const char *text = "*";
	char name[64];
	int r;

	(void)snprintf(name, sizeof(name), "%.*s", (int)n->key.n, n->key.p);
	if ((rule->nid = OBJ_txt2nid(name)) == NID_undef)
		return csm_yaml_fail(n, rd->err, "is no attribute of a subject");
	if (n->kind == CSM_YAML_MAP) {
		if ((r = csm_yaml_known(n, known, N_ELEMS(known), rd->err)) != 0)
			return r;
		value = csm_yaml_get(n, "value");
		required = csm_yaml_get(n, "required");
	}
	if ((value != NULL && (r = read_text(rd, value, &text)) != 0) ||
		(required != NULL && (r = csm_yaml_bool(required, &rule->required, rd->err)) != 0))
		return r;
	rule->value = csm_str_of(text);
	return 0;
}

static int read_subject(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	struct csm_subject_rule *rules;
	size_t i = 0;
	int r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err);

	if (r != 0)
		return r;
	if (n->n > CSM_PROFILE_SUBJECT_MAX)
		return csm_yaml_fail(n, rd->err, "has more than %u attributes", CSM_PROFILE_SUBJECT_MAX);
	if ((rules = csm_pool_alloc(&rd->to->pool, (n->n + 1) * sizeof(*rules))) == NULL)
		return CSM_ENOMEM;
	for (const struct csm_yaml_node *one = n->first; one != NULL; one = one->next)
		if ((r = read_attribute(rd, one, &rules[i++])) != 0)
			return r;
	p->x509.subject = rules;
	p->x509.n_subject = i;
	return 0;
}

static int read_san(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	return read_strs(rd, n, &p->x509.sans, &p->x509.n_sans);
}

static int read_max_sans(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	uint64_t v = 0;
	int r = csm_yaml_number(n, 1, CSM_SANS_MAX, &v, rd->err);

	p->x509.max_sans = (size_t)v;
	return r;
}

static int read_cn_is_san(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	return csm_yaml_bool(n, &p->x509.cn_is_san, rd->err);
}

static int read_needs_san(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	return csm_yaml_bool(n, &p->x509.needs_san, rd->err);
}

static int read_wildcards(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	return csm_yaml_bool(n, &p->x509.wildcards, rd->err);
}

/* ca: {path_len: 0, permitted: ["dns:example"], excluded: []} */
static int read_ca(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	static const char *const known[] = {"path_len", "permitted", "excluded"};
	const struct csm_yaml_node *path, *permitted, *excluded;
	uint64_t v = 0;
	int r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err);

	if (r != 0 || (r = csm_yaml_known(n, known, N_ELEMS(known), rd->err)) != 0)
		return r;
	path = csm_yaml_get(n, "path_len");
	permitted = csm_yaml_get(n, "permitted");
	excluded = csm_yaml_get(n, "excluded");
	if ((path != NULL && (r = csm_yaml_number(path, 0, 16, &v, rd->err)) != 0) ||
		(permitted != NULL && (r = read_strs(rd, permitted, &p->x509.permitted, &p->x509.n_permitted)) != 0) ||
		(excluded != NULL && (r = read_strs(rd, excluded, &p->x509.excluded, &p->x509.n_excluded)) != 0))
		return r;
	p->x509.ca = true;
	p->x509.path_len = (int)v; /* none, unless it is said */
	p->x509.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	p->x509.n_ekus = 0;
	return 0;
}

/* In the order in which they are read: `ca` sets usages that may be said otherwise after it. */
static const struct {
	const char *name;
	field_fn *read;
} fields[] = {
	{"issuer", read_issuer_of}, {"role", read_role}, {"ask", read_ask}, {"approval", read_approval},
	{"max_life", read_max_life},
	{"life", read_usual_life}, {"keys", read_keys}, {"ca", read_ca}, {"key_usage", read_key_usage}, {"ekus", read_ekus},
	{"subject", read_subject}, {"cn_is_san", read_cn_is_san}, {"san", read_san}, {"max_sans", read_max_sans},
	{"needs_san", read_needs_san}, {"wildcards", read_wildcards},
};

/* ---- a profile ---- */

/* What holds where nothing is said: a server's or client's certificate; which names it may have has to be said. */
static struct profile_config plain_profile(const struct profiles *to)
{
	return (struct profile_config){
		.issuer = profiles_issuer(to, CSM_STR("default")),
		.x509 = {.keys = CSM_PROFILE_P256 | CSM_PROFILE_P384 | CSM_PROFILE_P521 | CSM_PROFILE_ED25519 | CSM_PROFILE_RSA,
			.rsa_min = 2048, .rsa_max = 4096, .max_life = 90 * DAY, .key_usage = KU_DIGITAL_SIGNATURE,
			.ekus = {"serverAuth", "clientAuth"}, .n_ekus = 2, .path_len = CSM_PATH_ANY},
		.role = "",
	};
}

static int url(struct reading *rd, const char *path, const char *issuer, const char *suffix, const char **ret)
{
	char text[TEXT_MAX];
	int n;

	if (rd->to->public_url[0] == '\0')
		return 0;
	n = snprintf(text, sizeof(text), "%s%s%s%s", rd->to->public_url, path, issuer, suffix);
	if (n < 0 || (size_t)n >= sizeof(text))
		return CSM_ETOO_LARGE;
	return keep(rd, (struct csm_str){text, (size_t)n}, ret);
}

static unsigned usual_ask(const struct profile_config *p)
{
	if (p->x509.ca)
		return ASK_ADMINISTRATOR;
	if (p->role[0] == '\0')
		return ASK_TOKEN | ASK_NODE | ASK_OPERATOR | ASK_ADMINISTRATOR;
	return strcmp(p->role, "node") == 0 ? ASK_TOKEN | ASK_OPERATOR | ASK_ADMINISTRATOR : ASK_TOKEN | ASK_ADMINISTRATOR;
}

/* Roles that let others in are given by those who may hand them out. */
static int check_ask(struct reading *rd, const struct csm_yaml_node *n, const struct profile_config *p)
{
	if (p->role[0] != '\0' && (p->ask & (ASK_NODE | ASK_SERVICE)) != 0)
		return csm_yaml_fail(n, rd->err, "ask: a profile with the role %s is not for nodes and services to ask", p->role);
	if (p->x509.ca && (p->ask & ASK_SERVICE) != 0)
		return csm_yaml_fail(n, rd->err, "ask: a CA's certificate is not for services to ask");
	return 0;
}

static int finish(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	char why[CSM_CERTREQ_WHY] = "";
	int r;

	if (p->issuer == NULL)
		return csm_yaml_fail(n, rd->err, "issuer: there is none of the name default, so one has to be named");
	if (p->life == 0)
		p->life = p->x509.max_life < 30 * DAY ? p->x509.max_life : 30 * DAY;
	if (p->ask == 0)
		p->ask = usual_ask(p);
	if (p->life > p->x509.max_life)
		return csm_yaml_fail(n, rd->err, "life: longer than max_life");
	if ((r = url(rd, PROFILES_OCSP_PATH, p->issuer->name, "", &p->x509.ocsp_url)) != 0 ||
		(r = url(rd, PROFILES_CRL_PATH, p->issuer->name, ".crl", &p->x509.crl_url)) != 0 ||
		(r = url(rd, PROFILES_DELTA_PATH, p->issuer->name, ".delta.crl", &p->x509.delta_url)) != 0 ||
		(r = url(rd, PROFILES_ISSUER_PATH, p->issuer->name, ".cer", &p->x509.issuer_url)) != 0)
		return r == CSM_ETOO_LARGE ? csm_yaml_fail(n, rd->err, "public_url is too long") : r;
	if ((r = csm_profile_check(&p->x509, why)) == CSM_EINVALID)
		return csm_yaml_fail(n, rd->err, "%s", why);
	return r != 0 ? r : check_ask(rd, n, p);
}

static int read_profile(struct reading *rd, const struct csm_yaml_node *n, struct profile_config *p)
{
	const char *known[N_ELEMS(fields)];
	int r;

	*p = plain_profile(rd->to);
	for (size_t i = 0; i < N_ELEMS(fields); i++)
		known[i] = fields[i].name;
	if ((r = read_name(rd, n, &p->name)) != 0 || (r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err)) != 0 ||
		(r = csm_yaml_known(n, known, N_ELEMS(known), rd->err)) != 0)
		return r;
	for (size_t i = 0; i < N_ELEMS(fields); i++) {
		const struct csm_yaml_node *field = csm_yaml_get(n, fields[i].name);

		if (field != NULL && (r = fields[i].read(rd, field, p)) != 0)
			return r;
	}
	return finish(rd, n, p);
}

/* ---- issuers ---- */

/* Another authority: external: PROFILE of csmd.yaml, chain: FILE. Its key is but the name that policy decides by. */
static int read_external(struct reading *rd, const struct csm_yaml_node *n, struct issuer_config *to)
{
	const struct csm_yaml_node *external = csm_yaml_get(n, "external"), *chain = csm_yaml_get(n, "chain");
	int r;

	if (external == NULL)
		return chain != NULL ? csm_yaml_fail(chain, rd->err, "is for an external issuer") : 0;
	if (csm_yaml_get(n, "scheme") != NULL)
		return csm_yaml_fail(csm_yaml_get(n, "scheme"), rd->err, "is not for an external issuer");
	if (chain == NULL)
		return csm_yaml_fail(external, rd->err, "chain: the file with its certificates is missing");
	if ((r = read_text(rd, external, &to->external)) != 0 || (r = read_text(rd, chain, &to->chain_file)) != 0)
		return r;
	if (!csm_namespace_valid(csm_str_of(to->external)))
		return csm_yaml_fail(external, rd->err, "must be the name of an enrolment profile");
	return to->chain_file[0] == '/' ? 0 : csm_yaml_fail(chain, rd->err, "must be an absolute path");
}

static int read_issuer(struct reading *rd, const struct csm_yaml_node *n, struct issuer_config *to)
{
	static const char *const known[] = {"key", "scheme", "external", "chain"};
	const struct csm_yaml_node *key, *scheme;
	struct csm_scheme parsed;
	struct csm_ref ref;
	int r;

	if ((r = read_name(rd, n, &to->name)) != 0 || (r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err)) != 0)
		return r;
	if ((r = csm_yaml_known(n, known, N_ELEMS(known), rd->err)) != 0)
		return r;
	if ((r = read_external(rd, n, to)) != 0)
		return r;
	to->key = to->name;
	if ((key = csm_yaml_get(n, "key")) == NULL)
		return to->external != NULL ? 0 : csm_yaml_fail(n, rd->err, "key: the name of the issuer's key in csmd is missing");
	if ((r = read_text(rd, key, &to->key)) != 0)
		return r;
	if (csm_ref_parse(csm_str_of(to->key), &ref) != 0)
		return csm_yaml_fail(key, rd->err, "must be [NAMESPACE:]KEY");
	if ((scheme = csm_yaml_get(n, "scheme")) == NULL)
		return 0;
	if ((r = read_text(rd, scheme, &to->scheme)) != 0)
		return r;
	if (csm_scheme_parse(csm_str_of(to->scheme), &parsed) != 0 || parsed.kind == CSM_SCHEME_RSA_OAEP)
		return csm_yaml_fail(scheme, rd->err, "is no scheme of signatures");
	return 0;
}

static int read_issuers(struct reading *rd, const struct csm_yaml_node *n)
{
	const struct issuer_config *own;
	struct profiles *to = rd->to;
	int r;

	if (n == NULL) {
		if ((to->issuers = csm_pool_alloc(&to->pool, sizeof(*to->issuers))) == NULL)
			return CSM_ENOMEM;
		to->issuers[to->n_issuers++] = (struct issuer_config){.name = "default", .key = "ca"};
		return 0;
	}
	if ((r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err)) != 0)
		return r;
	if (n->n == 0 || n->n > PROFILES_ISSUERS_MAX)
		return csm_yaml_fail(n, rd->err, "must have 1 to %u issuers", PROFILES_ISSUERS_MAX);
	if ((to->issuers = csm_pool_alloc(&to->pool, n->n * sizeof(*to->issuers))) == NULL)
		return CSM_ENOMEM;
	for (const struct csm_yaml_node *one = n->first; one != NULL; one = one->next) {
		if ((r = read_issuer(rd, one, &to->issuers[to->n_issuers])) != 0)
			return r;
		for (size_t i = 0; i < to->n_issuers; i++)
			if (strcmp(to->issuers[i].key, to->issuers[to->n_issuers].key) == 0)
				return csm_yaml_fail(one, rd->err, "key: is that of another issuer");
		to->n_issuers++;
	}
	own = profiles_issuer(to, CSM_STR("default"));
	if ((own != NULL ? own : &to->issuers[0])->external != NULL)
		return csm_yaml_fail(n, rd->err, "the one named default, else the first, makes csm-server's own certificate, and is not external");
	return 0;
}

/* ---- all of them ---- */

/* Profiles that are there without being written. */
static const struct built_in {
	const char *name, *role;
	bool person;  /* a client's certificate without alternative names; there in any case */
	uint64_t max_life;
} built_ins[] = {
	{"default", "", false, 90 * DAY}, {"node", "node", false, 90 * DAY}, {"operator", "operator", true, 365 * DAY},
	{"administrator", "administrator", true, 365 * DAY},
};

/* Any names: whoever asks has a token that names them, or may. */
static int add_built_in(struct reading *rd, const struct built_in *b)
{
	static const struct csm_subject_rule subject[] = {{NID_commonName, {"*", 1}, false}, {NID_organizationName, {"*", 1}, false},
		{NID_organizationalUnitName, {"*", 1}, false}};
	static const struct csm_subject_rule person[] = {{NID_commonName, {"*", 1}, true}, {NID_organizationName, {"*", 1}, false},
		{NID_organizationalUnitName, {"*", 1}, false}};
	static const struct csm_str sans[] = {{"dns:**", 6}, {"ip:0.0.0.0/0", 12}, {"ip:::/0", 7}};
	static const struct csm_yaml_node nowhere = {.key = {"profiles", 8}};
	struct profile_config *p = &rd->to->all[rd->to->n++];

	*p = plain_profile(rd->to);
	p->name = b->name;
	p->role = b->role;
	p->x509.max_life = b->max_life;
	if (p->issuer == NULL)
		p->issuer = &rd->to->issuers[0];
	p->x509.subject = b->person ? person : subject;
	p->x509.n_subject = N_ELEMS(subject);
	if (b->person) {
		p->life = 90 * DAY;
		p->x509.ekus[0] = "clientAuth";
		p->x509.n_ekus = 1;
		p->ask = ASK_TOKEN | ASK_ADMINISTRATOR;
	} else {
		p->x509.sans = sans;
		p->x509.n_sans = N_ELEMS(sans);
	}
	return finish(rd, &nowhere, p);
}

static int add_built_ins(struct reading *rd, bool all)
{
	int r = 0;

	for (size_t i = 0; i < N_ELEMS(built_ins) && r == 0; i++)
		if ((all || built_ins[i].person) && profiles_get(rd->to, csm_str_of(built_ins[i].name)) == NULL)
			r = add_built_in(rd, &built_ins[i]);
	return r;
}

static int read_all(struct reading *rd, const struct csm_yaml_node *n)
{
	struct profiles *to = rd->to;
	size_t written = n != NULL ? n->n : 0;
	int r;

	if (n != NULL && (r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err)) != 0)
		return r;
	if (n != NULL && (n->n == 0 || n->n > PROFILES_MAX))
		return csm_yaml_fail(n, rd->err, "must have 1 to %u profiles", PROFILES_MAX);
	if ((to->all = csm_pool_alloc(&to->pool, (written + N_ELEMS(built_ins)) * sizeof(*to->all))) == NULL)
		return CSM_ENOMEM;
	for (const struct csm_yaml_node *one = n != NULL ? n->first : NULL; one != NULL; one = one->next, to->n++)
		if ((r = read_profile(rd, one, &to->all[to->n])) != 0)
			return r;
	return add_built_ins(rd, n == NULL);
}

int profiles_read(const struct csm_yaml_node *root, const char *public_url, struct profiles **ret, struct csm_policy_error *err)
{
	struct profiles *p = calloc(1, sizeof(*p));
	struct reading rd = {p, err};
	int r;

	if (p == NULL)
		return CSM_ENOMEM;
	csm_pool_init(&p->pool, POOL_MAX);
	if ((r = keep(&rd, csm_str_of(public_url), &p->public_url)) == 0 &&
		(r = read_issuers(&rd, csm_yaml_get(root, "issuers"))) == 0)
		r = read_all(&rd, csm_yaml_get(root, "profiles"));
	if (r != 0) {
		profiles_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void profiles_free(struct profiles *p)
{
	if (p == NULL)
		return;
	csm_pool_free(&p->pool);
	free(p);
}

const struct issuer_config *profiles_issuer(const struct profiles *p, struct csm_str name)
{
	for (size_t i = 0; i < p->n_issuers; i++)
		if (csm_str_eq(name, p->issuers[i].name))
			return &p->issuers[i];
	return NULL;
}

int profiles_set_chain(struct profiles *p, const struct issuer_config *issuer, struct csm_bin pem)
{
	struct issuer_config *to = &p->issuers[issuer - p->issuers];
	struct csm_buf der;
	uint8_t *mem;
	int r;

	csm_buf_init(&der, CSM_CERT_CHAIN_MAX, false);
	if ((r = csm_anchors_pem(pem, &der)) == 0) {
		r = CSM_ENOMEM;
		if ((mem = csm_pool_alloc(&p->pool, der.len)) != NULL) {
			memcpy(mem, csm_buf_ptr(&der), der.len);
			to->chain = (struct csm_bin){mem, der.len};
			r = 0;
		}
	}
	csm_buf_free(&der);
	return r;
}

int profiles_take_chains(struct profiles *p, const struct profiles *from)
{
	for (size_t i = 0; i < p->n_issuers; i++) {
		struct issuer_config *to = &p->issuers[i];

		for (size_t k = 0; to->external != NULL && k < from->n_issuers; k++)
			if (from->issuers[k].external != NULL && strcmp(from->issuers[k].chain_file, to->chain_file) == 0)
				to->chain = from->issuers[k].chain;
		if (to->external != NULL && to->chain.p == NULL)
			return CSM_ENOT_FOUND;
	}
	return 0;
}

const struct profile_config *profiles_get(const struct profiles *p, struct csm_str name)
{
	for (size_t i = 0; i < p->n; i++)
		if (csm_str_eq(name, p->all[i].name))
			return &p->all[i];
	return NULL;
}

const struct issuer_config *profiles_issuer_at(const struct profiles *p, size_t i)
{
	return i < p->n_issuers ? &p->issuers[i] : NULL;
}

const struct profile_config *profiles_at(const struct profiles *p, size_t i)
{
	return i < p->n ? &p->all[i] : NULL;
}
