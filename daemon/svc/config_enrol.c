#include <stdlib.h>
#include <string.h>
#include "daemon/svc/config_int.h"

#define URL_MAX 1024u
#define TIMEOUT_S 60u
#define LIFE_MIN_S 60u
#define OVERLAP_S 3600u
#define RENEW_MIN 20u /* what is drawn comes off it, a tenth of the life at most */
#define RENEW_MAX 90u
#define LIFE_MAX_S (10u * 366u * 86400u)

const char *const csm_enrol_variables[] = {"hostname", "name", "namespace", "unit", "pod", NULL};

static int text_of(struct reader *rd, const struct csm_yaml_node *n, size_t max, char **to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, max, &s, rd->err);

	if (r != 0)
		return r;
	return s.n == 0 ? csm_yaml_fail(n, rd->err, "is empty") : config_set(to, s);
}

#define ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/* ---- templates ---- */

static bool is_variable(const char *p, size_t n)
{
	for (size_t i = 0; csm_enrol_variables[i] != NULL; i++)
		if (strlen(csm_enrol_variables[i]) == n && memcmp(csm_enrol_variables[i], p, n) == 0)
			return true;
	return false;
}

static int read_template(struct reader *rd, const struct csm_yaml_node *n, size_t max, char **to)
{
	int r = text_of(rd, n, max, to);

	for (const char *p = r == 0 ? *to : ""; r == 0 && *p != '\0'; p++) {
		const char *end = *p == '{' ? strchr(p, '}') : NULL;

		if (*p != '{' && *p != '}')
			continue;
		if (end == NULL || !is_variable(p + 1, (size_t)(end - p) - 1))
			return csm_yaml_fail(n, rd->err, "between braces stands one of: " CSM_ENROL_VARIABLES);
		p = end;
	}
	return r;
}

static int read_subject(struct reader *rd, const struct csm_yaml_node *n, char **to)
{
	int r = read_template(rd, n, CSM_SUBJECT_MAX, to);

	return r == 0 && **to != '/' ? csm_yaml_fail(n, rd->err, "begins with a slash: /O=Example/CN={hostname}") : r;
}

static bool is_san(const char *s)
{
	static const char *const kinds[] = {"dns:", "ip:", "uri:", "email:"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strncmp(s, kinds[i], strlen(kinds[i])) == 0)
			return s[strlen(kinds[i])] != '\0';
	return false;
}

static int read_list(struct reader *rd, const struct csm_yaml_node *n, bool templates, char *to[CSM_ENROL_LIST_MAX + 1])
{
	int r = csm_yaml_expect(n, CSM_YAML_LIST, rd->err);
	size_t used = 0;

	if (r == 0 && n->n > CSM_ENROL_LIST_MAX)
		return csm_yaml_fail(n, rd->err, "has at most %u entries", CSM_ENROL_LIST_MAX);
	for (const struct csm_yaml_node *c = n->first; r == 0 && c != NULL; c = c->next, used++) {
		r = templates ? read_template(rd, c, CSM_SAN_MAX, &to[used]) : text_of(rd, c, CSM_SUBJECT_MAX, &to[used]);
		if (r == 0 && templates && !is_san(to[used]))
			r = csm_yaml_fail(c, rd->err, "begins with dns:, ip:, uri: or email:");
	}
	return r;
}

/* ---- one profile ---- */

static int read_protocol(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CSM_TOKEN_STR_MAX, &s, rd->err);

	if (r == 0 && !csm_str_eq(s, "cms") && !csm_str_eq(s, "est"))
		r = csm_yaml_fail(n, rd->err, "must be cms or est");
	if (r == 0)
		p->est = csm_str_eq(s, "est");
	return r;
}

static int read_url(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	int r = text_of(rd, n, URL_MAX, &p->url);

	if (r == 0 && (strncmp(p->url, "https://", 8) != 0 || p->url[8] == '\0' || strpbrk(p->url, " \"<>\\^`{|}@?#") != NULL))
		r = csm_yaml_fail(n, rd->err, "must be https://HOST[:PORT][/PATH]");
	return r;
}

static int read_domain(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	int r = text_of(rd, n, 253, &p->domain);

	if (r == 0 && !config_only_of(csm_str_of(p->domain), ALNUM "-."))
		r = csm_yaml_fail(n, rd->err, "must be the name of a DNS domain");
	return r;
}

static int read_label(struct reader *rd, const struct csm_yaml_node *n, char **to)
{
	int r = text_of(rd, n, CSM_NAME_MAX, to);

	if (r == 0 && !config_only_of(csm_str_of(*to), ALNUM "-._"))
		r = csm_yaml_fail(n, rd->err, "has letters, digits, dots, hyphens and underscores");
	return r;
}

static int read_root(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	int r = text_of(rd, n, 64, &p->root_sha256);

	if (r == 0 && (strlen(p->root_sha256) != 64 || !config_only_of(csm_str_of(p->root_sha256), "0123456789abcdef")))
		r = csm_yaml_fail(n, rd->err, "has 64 hexadecimal digits, in lower case");
	return r;
}

/* The value itself is never repeated: what stands here by mistake is a secret. */
static int read_token(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CONFIG_TEXT_MAX, &s, rd->err);

	if (r != 0)
		return r;
	if (s.n <= 5 || memcmp(s.p, "file:", 5) != 0 || !config_is_path((struct csm_str){s.p + 5, s.n - 5}))
		return csm_yaml_fail(n, rd->err,
			"must be file: and an absolute path without '.', '..' and '//': a secret does not belong in this file");
	return config_set(&p->token_file, (struct csm_str){s.p + 5, s.n - 5});
}

static int read_subject_by(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CSM_TOKEN_STR_MAX, &s, rd->err);

	if (r == 0 && !csm_str_eq(s, "ca") && !csm_str_eq(s, "request"))
		r = csm_yaml_fail(n, rd->err, "must be ca or request");
	if (r == 0)
		p->any_subject = csm_str_eq(s, "ca");
	return r;
}

static int read_node(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	int r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err);

	for (const struct csm_yaml_node *c = n->first; r == 0 && c != NULL; c = c->next) {
		if (csm_str_eq(c->key, "label"))
			r = read_label(rd, c, &p->node.label);
		else if (csm_str_eq(c->key, "subject"))
			r = read_subject(rd, c, &p->node.subject);
		else if (csm_str_eq(c->key, "san"))
			r = read_list(rd, c, true, p->node.san);
		else
			r = csm_yaml_fail(c, rd->err, "unknown key");
	}
	return r;
}

static int read_part(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CSM_TOKEN_STR_MAX, &s, rd->err);

	if (r == 0 && (s.n < 2 || s.p[s.n - 1] != '%' || !csm_parse_number((struct csm_str){s.p, s.n - 1}, RENEW_MAX, &p->renew_percent) ||
		p->renew_percent < RENEW_MIN))
		r = csm_yaml_fail(n, rd->err, "must be from %u%% to %u%% of the certificate's life", RENEW_MIN, RENEW_MAX);
	return r;
}

/* {at: 50%, new_key: true, overlap: 1h} */
static int read_renewal(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	int r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err);

	for (const struct csm_yaml_node *c = n->first; r == 0 && c != NULL; c = c->next) {
		if (csm_str_eq(c->key, "at"))
			r = read_part(rd, c, p);
		else if (csm_str_eq(c->key, "new_key"))
			r = csm_yaml_bool(c, &p->new_key, rd->err);
		else if (csm_str_eq(c->key, "overlap"))
			r = config_read_seconds(rd, c, 0, LIFE_MAX_S, &p->overlap_s);
		else
			r = csm_yaml_fail(c, rd->err, "unknown key");
	}
	return r;
}

static int read_names(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	if (csm_str_eq(n->key, "subject"))
		return read_subject(rd, n, &p->subject);
	if (csm_str_eq(n->key, "san"))
		return read_list(rd, n, true, p->san);
	if (csm_str_eq(n->key, "names"))
		return read_list(rd, n, false, p->names);
	if (csm_str_eq(n->key, "subject_by"))
		return read_subject_by(rd, n, p);
	if (csm_str_eq(n->key, "node"))
		return read_node(rd, n, p);
	return csm_yaml_fail(n, rd->err, "unknown key");
}

static int read_key(struct reader *rd, const struct csm_yaml_node *n, struct csm_enrol_profile *p)
{
	if (csm_str_eq(n->key, "protocol"))
		return read_protocol(rd, n, p);
	if (csm_str_eq(n->key, "url"))
		return read_url(rd, n, p);
	if (csm_str_eq(n->key, "domain"))
		return read_domain(rd, n, p);
	if (csm_str_eq(n->key, "label"))
		return read_label(rd, n, &p->label);
	if (csm_str_eq(n->key, "anchors"))
		return config_read_path(rd, n, &p->anchors_file);
	if (csm_str_eq(n->key, "root_sha256"))
		return read_root(rd, n, p);
	if (csm_str_eq(n->key, "token"))
		return read_token(rd, n, p);
	if (csm_str_eq(n->key, "life"))
		return config_read_seconds(rd, n, LIFE_MIN_S, LIFE_MAX_S, &p->life_s);
	if (csm_str_eq(n->key, "renewal"))
		return read_renewal(rd, n, p);
	if (csm_str_eq(n->key, "tls_key_backend"))
		return text_of(rd, n, CSM_TOKEN_STR_MAX, &p->key_backend);
	if (csm_str_eq(n->key, "timeout"))
		return config_read_seconds(rd, n, 1, 80, &p->timeout_s);
	return read_names(rd, n, p);
}

static int set_default(char **field, const char *text)
{
	return *field != NULL ? 0 : config_set(field, csm_str_of(text));
}

static int read_profile(struct reader *rd, const struct csm_yaml_node *n)
{
	struct csm_config *c = rd->c;
	struct csm_enrol_profile *p;
	int r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err);

	if (r != 0)
		return r;
	/* it is a key's name, and one of a file */
	if (!csm_namespace_valid(n->key))
		return csm_yaml_fail(n, rd->err, "is no name: lower-case letters, digits, dots, hyphens, underscores");
	if (c->n_enrol == CSM_ENROL_PROFILES_MAX)
		return csm_yaml_fail(n, rd->err, "is one too many: there may be %u", CSM_ENROL_PROFILES_MAX);
	if (c->enrol == NULL && (c->enrol = calloc(CSM_ENROL_PROFILES_MAX, sizeof(*c->enrol))) == NULL)
		return CSM_ENOMEM;
	p = &c->enrol[c->n_enrol++];
	p->timeout_s = TIMEOUT_S;
	p->overlap_s = OVERLAP_S;
	r = config_set(&p->name, n->key);
	for (const struct csm_yaml_node *k = n->first; r == 0 && k != NULL; k = k->next)
		r = read_key(rd, k, p);
	if (r == 0 && p->url != NULL && p->domain != NULL)
		r = csm_yaml_fail(csm_yaml_get(n, "domain"), rd->err, "has no meaning beside url");
	if (r == 0 && p->anchors_file == NULL && p->root_sha256 == NULL)
		r = csm_yaml_fail(n, rd->err, "needs anchors (a file) or root_sha256: whom to trust");
	if (r == 0 && (r = set_default(&p->subject, "/CN={name}")) == 0)
		r = set_default(&p->node.subject, "/CN={hostname}");
	return r;
}

int config_read_enrolment(struct reader *rd, const struct csm_yaml_node *n)
{
	const struct csm_yaml_node *profiles = NULL;
	struct csm_config *cfg = rd->c;
	int r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err);

	for (const struct csm_yaml_node *c = n->first; r == 0 && c != NULL; c = c->next) {
		if (csm_str_eq(c->key, "profiles"))
			r = csm_yaml_expect(profiles = c, CSM_YAML_MAP, rd->err);
		else if (csm_str_eq(c->key, "usage_interval"))
			r = config_read_seconds(rd, c, 5, 7u * 86400u, &cfg->usage_interval_s);
		else
			r = csm_yaml_fail(c, rd->err, "unknown key");
	}
	for (const struct csm_yaml_node *c = profiles != NULL ? profiles->first : NULL; r == 0 && c != NULL; c = c->next)
		r = read_profile(rd, c);
	return r;
}

static void clear_list(char *list[CSM_ENROL_LIST_MAX + 1])
{
	for (size_t i = 0; list[i] != NULL; i++)
		free(list[i]);
}

void config_clear_enrolment(struct csm_config *c)
{
	for (size_t i = 0; i < c->n_enrol; i++) {
		struct csm_enrol_profile *p = &c->enrol[i];
		char *const texts[] = {p->name, p->url, p->domain, p->label, p->anchors_file, p->root_sha256, p->token_file,
			p->subject, p->node.label, p->node.subject, p->key_backend};

		for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++)
			free(texts[k]);
		clear_list(p->san);
		clear_list(p->names);
		clear_list(p->node.san);
	}
	free(c->enrol);
}

const struct csm_enrol_profile *csm_config_enrol(const struct csm_config *c, const char *name, size_t n)
{
	struct csm_str wanted = n > 0 ? (struct csm_str){name, n} : CSM_STR("default");

	for (size_t i = 0; i < c->n_enrol; i++)
		if (csm_str_eq(wanted, c->enrol[i].name))
			return &c->enrol[i];
	return NULL;
}
