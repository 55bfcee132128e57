/* One rule: permissions, identities, object globs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/policy_int.h"

#define GLOB_MAX (CSM_SECRETREF_MAX + 64u) /* room for stars */

static bool is_permission(int i)
{
	return csm_methods[i].perm == i;
}

/* "*", "key.*" or a permission's name. */
static int add_permission(struct policy_parse *pp, const struct csm_yaml_node *n, struct perms *ret)
{
	const struct csm_method *m;
	struct csm_str s;
	bool found = false, star;
	int r = csm_yaml_string(n, CSM_TOKEN_STR_MAX, &s, pp->err);

	if (r != 0)
		return r;
	star = csm_str_eq(s, "*") || (s.n > 2 && memcmp(s.p + s.n - 2, ".*", 2) == 0);
	for (int i = 0; star && i < CSM_M__COUNT; i++)
		if (is_permission(i) && strncmp(csm_methods[i].name, s.p, s.n - 1) == 0) {
			perms_add(ret, i);
			found = true;
		}
	if (found)
		return 0;
	m = star ? NULL : csm_method_find(s);
	if (m == NULL)
		return csm_yaml_fail(n, pp->err, "unknown permission '%s'", csm_yaml_show(s).s);
	if (m->perm == CSM_PERM_OPEN)
		return csm_yaml_fail(n, pp->err, "'%s' needs no permission", m->name);
	if (m->perm == CSM_PERM_ADMIN)
		return csm_yaml_fail(n, pp->err, "'%s' is only the administrator's; no rule can grant it", m->name);
	if (!is_permission(m->perm) || m != &csm_methods[m->perm])
		return csm_yaml_fail(n, pp->err, "'%s' is granted as '%s'", m->name, csm_methods[m->perm].name);
	perms_add(ret, m->perm);
	return 0;
}

static const struct csm_yaml_node *find_list(struct policy_parse *pp, const struct csm_yaml_node *rule, const char *key,
	int *r)
{
	const struct csm_yaml_node *n = csm_yaml_get(rule, key);

	if (n == NULL) {
		*r = csm_yaml_fail(rule, pp->err, "'%s' is missing", key);
		return NULL;
	}
	if ((*r = csm_yaml_expect(n, CSM_YAML_LIST, pp->err)) != 0)
		return NULL;
	if (n->n == 0) {
		*r = csm_yaml_fail(n, pp->err, "the list is empty");
		return NULL;
	}
	return n;
}

int policy_parse_names(struct policy_parse *pp, const struct csm_yaml_node *list, uint16_t **ret, size_t *ret_n)
{
	uint16_t *ids = csm_pool_alloc(&pp->p->pool, list->n * sizeof(*ids));
	size_t n = 0;

	if (ids == NULL)
		return CSM_ENOMEM;
	for (const struct csm_yaml_node *c = list->first; c != NULL; c = c->next) {
		struct csm_str s;
		size_t i = 0;
		int r = csm_yaml_string(c, CSM_NAMESPACE_MAX, &s, pp->err);
		if (r != 0)
			return r;
		while (i < pp->p->n_identities && !csm_str_eq(s, pp->p->identities[i].name))
			i++;
		if (i == pp->p->n_identities)
			return csm_yaml_fail(c, pp->err, "no identity is named '%s'", csm_yaml_show(s).s);
		pp->p->identities[i].used = true;
		ids[n++] = (uint16_t)i;
	}
	*ret = ids;
	*ret_n = n;
	return 0;
}

/* The name part is [NAME][/[NAME]], with stars; what could never be a name is refused. */
static const char *name_glob_fault(struct csm_str s)
{
	size_t slashes = 0, part = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '/') {
			if (part == 0)
				return "the domain before '/' is empty";
			slashes++;
			part = 0;
			continue;
		}
		if (part == 0 && (s.p[i] == '.' || s.p[i] == '-'))
			return "no name begins with '.' or '-'";
		if (strchr(":?[\\", s.p[i]) != NULL)
			return "':', '?', '[' and '\\' are in no name; the only wildcard is '*'";
		part++;
	}
	if (slashes > 1)
		return "an object has at most one '/'";
	return csm_utf8_valid(s.p, s.n) ? NULL : "not UTF-8";
}

static const char *glob_fault(struct csm_str s)
{
	const char *colon = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;
	size_t ns;

	if (colon == NULL)
		return "must be NAMESPACE:NAME; all of a namespace is NAMESPACE:*";
	ns = (size_t)(colon - s.p);
	if (ns == 0 || ns > CSM_NAMESPACE_MAX)
		return "the namespace has 1 to 63 bytes";
	for (size_t i = 0; i < ns; i++) {
		char c = s.p[i];
		bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
		if (!alnum && c != '*' && (i == 0 || strchr("._-", c) == NULL))
			return "a namespace is [a-z0-9][a-z0-9._-]*; the only wildcard is '*'";
	}
	return name_glob_fault((struct csm_str){colon + 1, s.n - ns - 1});
}

static int parse_glob(struct policy_parse *pp, const struct csm_yaml_node *n, struct glob *ret)
{
	const char *fault, *star;
	struct csm_str s;
	int r = csm_yaml_string(n, GLOB_MAX, &s, pp->err);

	if (r != 0)
		return r;
	if ((fault = glob_fault(s)) != NULL)
		return csm_yaml_fail(n, pp->err, "%s", fault);
	star = memchr(s.p, '*', s.n);
	if (star == NULL)
		ret->kind = GLOB_LITERAL;
	else if (star == s.p + s.n - 1)
		ret->kind = GLOB_PREFIX, s.n--;
	else
		ret->kind = GLOB_GENERAL;
	ret->text.n = s.n;
	return policy_copy(pp, s, &ret->text.p);
}

bool policy_glob_matches(const struct glob *g, struct csm_str object)
{
	if (g->kind == GLOB_LITERAL)
		return csm_str_same(g->text, object);
	if (g->kind == GLOB_PREFIX)
		return object.n >= g->text.n && memcmp(object.p, g->text.p, g->text.n) == 0;
	return csm_glob_match(g->text, object);
}

/* Every pattern has a colon, which the parser has seen to; no star at its end stands before that. */
static struct csm_str glob_namespace(const struct glob *g)
{
	const char *colon = memchr(g->text.p, ':', g->text.n);

	return (struct csm_str){g->text.p, (size_t)(colon - g->text.p)};
}

bool policy_glob_namespace(const struct glob *g, struct csm_str *ret)
{
	struct csm_str ns = glob_namespace(g);

	if (memchr(ns.p, '*', ns.n) != NULL)
		return false;
	*ret = ns;
	return true;
}

bool policy_glob_in_namespace(const struct glob *g, struct csm_str ns)
{
	/* an object has one colon, as the pattern has: the parts before them match by themselves */
	return csm_glob_match(glob_namespace(g), ns);
}

/* Text that grows in a fixed buffer, and ends in "..." at a whole character where it does not fit. */
struct line {
	char buf[POLICY_RULE_TEXT_MAX + 1];
	size_t n;
	bool full;
};

static void line_put(struct line *l, const char *s, size_t n)
{
	size_t room = POLICY_RULE_TEXT_MAX - 3;

	if (l->full)
		return;
	if (n > room - l->n) {
		l->full = true;
		n = room - l->n;
		while (n > 0 && ((uint8_t)s[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(l->buf + l->n, s, n);
	l->n += n;
	if (l->full) {
		memcpy(l->buf + l->n, "...", 3);
		l->n += 3;
	}
}

static void line_list(struct line *l, const char *word, const struct csm_yaml_node *list)
{
	line_put(l, word, strlen(word));
	for (const struct csm_yaml_node *c = list->first; c != NULL; c = c->next) {
		if (c != list->first)
			line_put(l, ", ", 2);
		line_put(l, c->text.p, c->text.n);
	}
}

static int describe(struct policy_parse *pp, const struct csm_yaml_node *n, struct rule *rule)
{
	struct line *l = calloc(1, sizeof(*l));
	char head[64];
	int r;

	if (l == NULL)
		return CSM_ENOMEM;
	snprintf(head, sizeof(head), "rule %zu (line %u): ", n->index + 1, n->line);
	line_put(l, head, strlen(head));
	line_list(l, "allow ", csm_yaml_get(n, "allow"));
	line_list(l, " to ", csm_yaml_get(n, "to"));
	line_list(l, " on ", csm_yaml_get(n, "on"));
	r = policy_copy(pp, (struct csm_str){l->buf, l->n}, &rule->text);
	free(l);
	return r;
}

/* ---- permissions that no pattern can meet ---- */

/* What a method is asked on, after the colon. */
enum form { FORM_ANY, FORM_NAME, FORM_SECRET, FORM_DOMAIN, FORM_NOTHING };
static const char *const form_text[] = {
	[FORM_NAME] = "NAMESPACE:NAME", [FORM_SECRET] = "NAMESPACE:DOMAIN/NAME", [FORM_DOMAIN] = "NAMESPACE:DOMAIN/",
	[FORM_NOTHING] = "NAMESPACE:",
};

static enum form form_of(int perm)
{
	const char *name = csm_methods[perm].name;

	switch (perm) {
	case CSM_PERM_KEY_LIST:
	case CSM_PERM_DOMAIN_LIST:
	case CSM_PERM_CERT_LIST:
	case CSM_PERM_SEAL:
	case CSM_PERM_UNSEAL:
		return FORM_NOTHING;
	case CSM_PERM_SECRET_LIST:
		return FORM_DOMAIN;
	default:
		if (strncmp(name, "key.", 4) == 0 || strncmp(name, "cert.", 5) == 0 || strncmp(name, "domain.", 7) == 0)
			return FORM_NAME;
		/* what is not served yet may be asked on anything */
		return strncmp(name, "secret.", 7) == 0 ? FORM_SECRET : FORM_ANY;
	}
}

static bool only_stars(const char *p)
{
	return p[strspn(p, "*")] == 0;
}

/* Is there an object of that form which the pattern, as it was written, matches? Only a star goes over a slash, and
 * no name holds one. */
static bool can_match(const char *pattern, enum form form)
{
	const char *name = strchr(pattern, ':') + 1, *slash = strchr(name, '/');
	size_t n = strlen(name);

	switch (form) {
	case FORM_NAME:
		return slash == NULL && n > 0;
	case FORM_SECRET:
		return slash != NULL ? slash[1] != 0 : strchr(name, '*') != NULL;
	case FORM_DOMAIN:
		return slash != NULL ? only_stars(slash + 1) : n > 0 && name[n - 1] == '*';
	case FORM_NOTHING:
		return only_stars(name);
	default:
		return true;
	}
}

static bool any_can_match(const struct csm_yaml_node *on, const struct perms *perms, enum form *form)
{
	for (int i = 0; i < CSM_M__COUNT; i++) {
		if (!perms_has(perms, i))
			continue;
		*form = form_of(i);
		for (const struct csm_yaml_node *c = on->first; c != NULL; c = c->next)
			if (can_match(c->text.p, *form))
				return true;
	}
	return false;
}

/* An entry of `allow` is told when nothing that it stands for can be asked on anything in `on`. Both lists are
 * valid already. */
static int warn_of_no_effect(struct policy_parse *pp, const struct csm_yaml_node *rule)
{
	const struct csm_yaml_node *allow = csm_yaml_get(rule, "allow"), *on = csm_yaml_get(rule, "on");

	for (const struct csm_yaml_node *c = allow->first; c != NULL; c = c->next) {
		struct perms perms = {{0}};
		enum form form = FORM_ANY;
		int r = add_permission(pp, c, &perms);
		if (r != 0)
			return r;
		if (!any_can_match(on, &perms, &form))
			policy_warn(pp, c->line, c->column, "rule %zu: %s has no effect: it is asked on %s, which nothing in 'on' "
				"matches", rule->index + 1, csm_yaml_show(c->text).s, form_text[form]);
	}
	return 0;
}

int policy_parse_rule(struct policy_parse *pp, const struct csm_yaml_node *n, struct rule *ret)
{
	static const char *const known[] = {"allow", "to", "on"};
	const struct csm_yaml_node *allow, *to, *on;
	int r = csm_yaml_known(n, known, 3, pp->err);

	if (r != 0)
		return r;
	if ((allow = find_list(pp, n, "allow", &r)) == NULL || (to = find_list(pp, n, "to", &r)) == NULL ||
		(on = find_list(pp, n, "on", &r)) == NULL)
		return r;
	ret->line = n->line;
	for (const struct csm_yaml_node *c = allow->first; c != NULL; c = c->next)
		if ((r = add_permission(pp, c, &ret->perms)) != 0)
			return r;
	if ((r = policy_parse_names(pp, to, &ret->to, &ret->n_to)) != 0)
		return r;
	ret->on = csm_pool_alloc(&pp->p->pool, on->n * sizeof(*ret->on));
	if (ret->on == NULL)
		return CSM_ENOMEM;
	for (const struct csm_yaml_node *c = on->first; c != NULL; c = c->next)
		if ((r = parse_glob(pp, c, &ret->on[ret->n_on++])) != 0)
			return r;
	if ((r = warn_of_no_effect(pp, n)) != 0)
		return r;
	return describe(pp, n, ret);
}
