#include <stdlib.h>
#include <string.h>
#include "daemon/svc/config_int.h"

#define NAME_MAX_BYTES 15u /* of a thread */

static const struct {
	const char *type, *key;
	bool path; /* which the library may read */
} options[] = {
	{"pkcs11", "module", true}, {"pkcs11", "token", false}, {"pkcs11", "sessions", false}, {"pkcs11", "algs", false},
	{"hwpluginif", "folder", true}, {"hwpluginif", "module", true}, {"hwpluginif", "slot", false},
	{"fake", "script", false},
};
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))
#define TYPES "pkcs11, hwpluginif, soft, tpm2, fake"

static bool is_type(struct csm_str s)
{
	return csm_str_eq(s, "pkcs11") || csm_str_eq(s, "hwpluginif") || csm_str_eq(s, "soft") || csm_str_eq(s, "tpm2") ||
		csm_str_eq(s, "fake");
}

static bool is_name(struct csm_str s)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

	if (s.n == 0 || s.n > NAME_MAX_BYTES || s.p[0] < 'a' || s.p[0] > 'z' || csm_str_eq(s, "auto"))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (strchr(letters, s.p[i]) == NULL)
			return false;
	return true;
}

static int read_network(struct reader *rd, const struct csm_yaml_node *n, struct csm_plughost_config *p)
{
	static const char *const words[] = {
		[CSM_NETWORK_NONE] = "false", [CSM_NETWORK_LOCAL] = "local", [CSM_NETWORK_FULL] = "true"};

	for (size_t i = 0; n->kind == CSM_YAML_SCALAR && n->plain && i < 3; i++)
		if (csm_str_eq(n->text, words[i])) {
			p->network = (enum csm_plughost_network)i;
			return 0;
		}
	return csm_yaml_fail(n, rd->err, "must be false, local or true");
}

/* The value itself is never repeated: what stands here by mistake is a secret. */
static int read_pin(struct reader *rd, const struct csm_yaml_node *n, struct csm_plughost_config *p)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CONFIG_TEXT_MAX, &s, rd->err);

	if (r != 0)
		return r;
	if (s.n > 5 && memcmp(s.p, "file:", 5) == 0) {
		s = (struct csm_str){s.p + 5, s.n - 5};
		if (!config_is_path(s))
			return csm_yaml_fail(n, rd->err, "after 'file:' must come an absolute path without '.', '..' and '//'");
		return config_set(&p->pin_file, s);
	}
	if (s.n > 7 && s.n <= 7 + CSM_SECRETREF_MAX + 1 + CSM_NAME_MAX && memcmp(s.p, "secret:", 7) == 0)
		return config_set(&p->pin_secret, (struct csm_str){s.p + 7, s.n - 7});
	return csm_yaml_fail(n, rd->err,
		"must be file:PATH or secret:NAMESPACE:DOMAIN/NAME/KEY: a secret does not belong in this file");
}

static int read_paths(struct reader *rd, const struct csm_yaml_node *n, char *to[CSM_PLUGHOST_LIST_MAX])
{
	size_t used = 0;
	int r = csm_yaml_expect(n, CSM_YAML_LIST, rd->err);

	if (r == 0 && n->n > CSM_PLUGHOST_LIST_MAX)
		r = csm_yaml_fail(n, rd->err, "has at most %u entries", CSM_PLUGHOST_LIST_MAX);
	for (const struct csm_yaml_node *c = n->first; r == 0 && c != NULL; c = c->next)
		r = config_read_path(rd, c, &to[used++]);
	return r;
}

static int add_pair(struct csm_plughost_pair list[CSM_PLUGHOST_LIST_MAX], struct csm_str name, struct csm_str value)
{
	size_t i = 0;
	int r;

	while (i < CSM_PLUGHOST_LIST_MAX && list[i].name != NULL)
		i++;
	if (i == CSM_PLUGHOST_LIST_MAX)
		return CSM_ETOO_LARGE;
	if ((r = config_set(&list[i].value, value)) != 0)
		return r;
	return config_set(&list[i].name, name);
}

static int read_environment(struct reader *rd, const struct csm_yaml_node *n, struct csm_plughost_config *p)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
	struct csm_str s;
	int r = csm_yaml_expect(n, CSM_YAML_MAP, rd->err);

	if (r == 0 && n->n > CSM_PLUGHOST_LIST_MAX)
		r = csm_yaml_fail(n, rd->err, "has at most %u entries", CSM_PLUGHOST_LIST_MAX);
	for (const struct csm_yaml_node *c = n->first; r == 0 && c != NULL; c = c->next) {
		if (c->key.n == 0 || (c->key.p[0] >= '0' && c->key.p[0] <= '9') || strncmp(c->key.p, "LD_", 3) == 0)
			return csm_yaml_fail(c, rd->err, "is no name of a variable that may be set");
		for (size_t i = 0; i < c->key.n; i++)
			if (strchr(letters, c->key.p[i]) == NULL)
				return csm_yaml_fail(c, rd->err, "is no name of a variable that may be set");
		if ((r = csm_yaml_string(c, CONFIG_TEXT_MAX, &s, rd->err)) == 0)
			r = add_pair(p->environment, c->key, s);
	}
	return r;
}

static int read_option(struct reader *rd, const struct csm_yaml_node *n, struct csm_plughost_config *p)
{
	struct csm_str s;
	size_t i = 0;
	int r;

	while (i < N_OPTIONS && !(strcmp(options[i].type, p->type) == 0 && csm_str_eq(n->key, options[i].key)))
		i++;
	if (i == N_OPTIONS)
		return csm_yaml_fail(n, rd->err, "unknown key");
	if ((r = csm_yaml_string(n, CONFIG_TEXT_MAX, &s, rd->err)) != 0)
		return r;
	if (options[i].path && !config_is_path(s))
		return csm_yaml_fail(n, rd->err, "must be an absolute path without '.', '..' and '//'");
	return add_pair(p->option, n->key, s);
}

static int read_key(struct reader *rd, const struct csm_yaml_node *n, struct csm_plughost_config *p)
{
	uint64_t seconds = 0;
	int r;

	if (csm_str_eq(n->key, "type"))
		return 0;
	if (csm_str_eq(n->key, "user"))
		return config_read_user(rd, n, &p->user);
	if (csm_str_eq(n->key, "network"))
		return read_network(rd, n, p);
	if (csm_str_eq(n->key, "pin"))
		return read_pin(rd, n, p);
	if (csm_str_eq(n->key, "read"))
		return read_paths(rd, n, p->read);
	if (csm_str_eq(n->key, "write"))
		return read_paths(rd, n, p->write);
	if (csm_str_eq(n->key, "environment"))
		return read_environment(rd, n, p);
	if (!csm_str_eq(n->key, "timeout"))
		return read_option(rd, n, p);
	if ((r = config_read_seconds(rd, n, 1, 600, &seconds)) == 0)
		p->timeout_ms = (unsigned)seconds * 1000u;
	return r;
}

int config_read_plughost(struct reader *rd, const struct csm_yaml_node *n)
{
	struct csm_config *c = rd->c;
	struct csm_plughost_config *p;
	const struct csm_yaml_node *type;
	struct csm_str s;
	int r;

	if (n->kind != CSM_YAML_MAP || !is_name(n->key))
		return csm_yaml_fail(n, rd->err, "unknown key");
	type = csm_yaml_get(n, "type");
	if (type == NULL)
		return csm_yaml_fail(n, rd->err, "needs type: one of " TYPES);
	if ((r = csm_yaml_string(type, CSM_TOKEN_STR_MAX, &s, rd->err)) != 0)
		return r;
	if (!is_type(s))
		return csm_yaml_fail(type, rd->err, "must be one of: " TYPES);
	if (c->n_plughosts == CSM_PLUGHOSTS_MAX)
		return csm_yaml_fail(n, rd->err, "is one too many: %u may have a process of their own", CSM_PLUGHOSTS_MAX);
	if (c->plughosts == NULL)
		c->plughosts = calloc(CSM_PLUGHOSTS_MAX, sizeof(*c->plughosts));
	if (c->plughosts == NULL)
		return CSM_ENOMEM;
	p = &c->plughosts[c->n_plughosts++];
	p->timeout_ms = CSM_PLUG_CALL_MS;
	if ((r = config_set(&p->name, n->key)) != 0 || (r = config_set(&p->type, s)) != 0)
		return r;
	for (const struct csm_yaml_node *k = n->first; r == 0 && k != NULL; k = k->next)
		r = read_key(rd, k, p);
	return r;
}

/* Whoever has a user of another process can take it over. */
static const char *whose_user(const struct csm_config *c, size_t i)
{
	const struct {
		const char *user, *who;
	} ours[] = {{c->user_broker, "users.broker"}, {c->user_enrol, "users.enrol"}, {c->user_ident, "users.ident"}};

	for (size_t k = 0; k < 3; k++)
		if (strcmp(ours[k].user, c->plughosts[i].user) == 0)
			return ours[k].who;
	for (size_t k = 0; k < i; k++)
		if (strcmp(c->plughosts[k].user, c->plughosts[i].user) == 0)
			return c->plughosts[k].name;
	return NULL;
}

int config_check_plughosts(struct reader *rd, const struct csm_yaml_node *backends)
{
	struct csm_config *c = rd->c;

	for (size_t i = 0; i < c->n_plughosts; i++) {
		struct csm_plughost_config *p = &c->plughosts[i];
		const struct csm_yaml_node *n = csm_yaml_get(backends, p->name);
		const char *who;
		int r;

		if (p->user == NULL && (r = config_set(&p->user, csm_str_of(c->user_plughost))) != 0)
			return r;
		who = whose_user(c, i);
		if (who != NULL)
			return csm_yaml_fail(n, rd->err, "has the user of %s: each needs one of its own (user: NAME)", who);
		if (strcmp(p->type, "pkcs11") == 0 && csm_plughost_option(p, "module") == NULL)
			return csm_yaml_fail(n, rd->err, "needs module: the path of a PKCS#11 library");
		if (strcmp(p->type, "hwpluginif") == 0 && csm_plughost_option(p, "folder") == NULL)
			return csm_yaml_fail(n, rd->err, "needs folder: the path of the plugins' folder");
	}
	return 0;
}

const char *csm_plughost_option(const struct csm_plughost_config *p, const char *name)
{
	for (size_t i = 0; i < CSM_PLUGHOST_LIST_MAX && p->option[i].name != NULL; i++)
		if (strcmp(p->option[i].name, name) == 0)
			return p->option[i].value;
	return NULL;
}

const struct csm_plughost_config *csm_config_plughost(const struct csm_config *c, const char *name)
{
	for (size_t i = 0; i < c->n_plughosts; i++)
		if (strcmp(c->plughosts[i].name, name) == 0)
			return &c->plughosts[i];
	return NULL;
}

static void clear_pairs(struct csm_plughost_pair list[CSM_PLUGHOST_LIST_MAX])
{
	for (size_t i = 0; i < CSM_PLUGHOST_LIST_MAX; i++) {
		free(list[i].name);
		free(list[i].value);
	}
}

void config_clear_plughosts(struct csm_config *c)
{
	for (size_t i = 0; i < c->n_plughosts; i++) {
		struct csm_plughost_config *p = &c->plughosts[i];

		free(p->name);
		free(p->type);
		free(p->user);
		free(p->pin_file);
		free(p->pin_secret);
		for (size_t k = 0; k < CSM_PLUGHOST_LIST_MAX; k++) {
			free(p->read[k]);
			free(p->write[k]);
		}
		clear_pairs(p->option);
		clear_pairs(p->environment);
	}
	free(c->plughosts);
}
