/* The selectors of identities: what may be written, and whether a peer's facts match. */
#include <stdio.h>
#include <string.h>

#include "daemon/svc/policy_int.h"

#define SELECTOR_MAX 256u

const char *const policy_selector_names[SEL__COUNT] = {
	[SEL_UID] = "uid", [SEL_USER] = "user", [SEL_GID] = "gid", [SEL_GROUP] = "group", [SEL_UNIT] = "unit",
	[SEL_USER_UNIT] = "user_unit", [SEL_CONTAINER] = "container", [SEL_POD] = "pod", [SEL_EXE] = "exe",
	[SEL_LABEL] = "label",
};

static bool only(struct csm_str s, const char *more)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!alnum && strchr(more, c) == NULL)
			return false;
	}
	return s.n > 0;
}

static bool ends_with(struct csm_str s, const char *end)
{
	size_t n = strlen(end);

	return s.n > n && memcmp(s.p + s.n - n, end, n) == 0;
}

/* A glob may stand for the end of the name, but "nginx" alone would never match anything. */
static bool unit_ok(struct csm_str s)
{
	return only(s, "@:_.\\-*") && (memchr(s.p, '*', s.n) != NULL || ends_with(s, ".service") ||
		ends_with(s, ".scope") || ends_with(s, ".socket") || ends_with(s, ".mount") || ends_with(s, ".swap"));
}

static bool user_unit_ok(struct csm_str s)
{
	const char *slash = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;
	struct csm_str uid, unit;
	uint64_t v;

	if (slash == NULL)
		return false;
	uid = (struct csm_str){s.p, (size_t)(slash - s.p)};
	unit = (struct csm_str){slash + 1, s.n - uid.n - 1};
	return (csm_str_eq(uid, "*") || csm_parse_number(uid, UINT32_MAX, &v)) && unit_ok(unit);
}

static bool hex_ok(struct csm_str s, const char *more)
{
	for (size_t i = 0; i < s.n; i++)
		if (strchr("0123456789abcdef", s.p[i]) == NULL && strchr(more, s.p[i]) == NULL)
			return false;
	return s.n > 0;
}

static int check_text(const struct csm_yaml_node *n, const struct selector *sel, struct csm_policy_error *err)
{
	switch (sel->kind) {
	case SEL_UNIT:
		if (!unit_ok(sel->text))
			return csm_yaml_fail(n, err, "must be a unit's whole name, as nginx.service, or a glob");
		break;
	case SEL_USER_UNIT:
		if (!user_unit_ok(sel->text))
			return csm_yaml_fail(n, err, "must be UID/UNIT, as 1000/app.service; both may be globs");
		break;
	case SEL_CONTAINER:
		if (!hex_ok(sel->text, "*"))
			return csm_yaml_fail(n, err, "must be a container's whole id in lower case, or a glob");
		break;
	case SEL_POD:
		if (!hex_ok(sel->text, "-*"))
			return csm_yaml_fail(n, err, "must be a pod's uid in lower case, or a glob");
		break;
	default:
		if (sel->text.n == 0)
			return csm_yaml_fail(n, err, "has no value");
		break;
	}
	return 0;
}

static int parse_id(struct policy_parse *pp, const struct csm_yaml_node *n, struct selector *sel)
{
	uint64_t v;
	int r = csm_yaml_number(n, 0, UINT32_MAX, &v, pp->err);

	if (r != 0)
		return r;
	if (policy_id_is_overflow((uint32_t)v))
		return csm_yaml_fail(n, pp->err, "%u is an overflow id, which many share: it is never an identity",
			(unsigned)v);
	sel->number = (uint32_t)v;
	sel->known = true;
	return 0;
}

/* A name that is not known makes an identity that nobody has: the file may be older or younger than
 * the account, and must not stop the daemon. */
static int parse_account(struct policy_parse *pp, const struct csm_yaml_node *n, struct selector *sel)
{
	const struct csm_resolver *res = pp->resolver;
	bool group = sel->kind == SEL_GROUP;
	uint64_t v;
	uid_t id = 0;
	int r = csm_yaml_string(n, SELECTOR_MAX, &sel->text, pp->err);

	if (r != 0)
		return r;
	if (sel->text.n == 0 || csm_parse_number(sel->text, UINT64_MAX, &v))
		return csm_yaml_fail(n, pp->err, "must be a name; for a number use %s", group ? "gid" : "uid");
	if (memchr(sel->text.p, ':', sel->text.n) != NULL || memchr(sel->text.p, '/', sel->text.n) != NULL)
		return csm_yaml_fail(n, pp->err, "must be a name without ':' and '/'");
	if (res == NULL)
		return 0;
	sel->known = group ? res->group(res->arg, sel->text.p, &id) : res->user(res->arg, sel->text.p, &id);
	sel->number = id;
	if (!sel->known)
		policy_warn(pp, n->line, n->column, "identity %s: no %s %s is known; it matches nobody",
			csm_yaml_show(n->parent->key).s, group ? "group" : "user", csm_yaml_show(sel->text).s);
	else if (policy_id_is_overflow(id))
		policy_warn(pp, n->line, n->column, "identity %s: %s %s has an overflow id; it matches nobody",
			csm_yaml_show(n->parent->key).s, group ? "group" : "user", csm_yaml_show(sel->text).s);
	return 0;
}

static int parse_selector(struct policy_parse *pp, const struct csm_yaml_node *n, struct selector *sel)
{
	int r, kind = 0;

	while (kind < SEL__COUNT && !csm_str_eq(n->key, policy_selector_names[kind]))
		kind++;
	if (kind == SEL__COUNT)
		return csm_yaml_fail(n, pp->err, "unknown selector");
	sel->kind = (enum selector_kind)kind;
	pp->p->needs_proc |= kind >= SEL_UNIT && kind <= SEL_EXE;
	if (kind == SEL_UID || kind == SEL_GID)
		return parse_id(pp, n, sel);
	if (kind == SEL_USER || kind == SEL_GROUP) {
		r = parse_account(pp, n, sel);
	} else if (kind == SEL_EXE) {
		r = policy_parse_exe(pp, n, sel);
	} else {
		r = csm_yaml_string(n, SELECTOR_MAX, &sel->text, pp->err);
		if (r == 0)
			r = check_text(n, sel, pp->err);
	}
	/* the text so far lies in the tree, which does not outlive the parse */
	return r != 0 || sel->text.p == NULL ? r : policy_copy(pp, sel->text, &sel->text.p);
}

int policy_parse_identity(struct policy_parse *pp, const struct csm_yaml_node *n, struct identity *ret)
{
	const struct csm_yaml_node *exe;
	int r = csm_yaml_expect(n, CSM_YAML_MAP, pp->err);

	if (r != 0)
		return r;
	if (!csm_namespace_valid(n->key))
		return csm_yaml_fail(n, pp->err, "a name is [a-z0-9][a-z0-9._-]*, at most %u bytes", CSM_NAMESPACE_MAX);
	if (n->n == 0)
		return csm_yaml_fail(n, pp->err, "has no selector: it would match everybody");
	ret->line = n->line;
	ret->column = n->column;
	ret->sel = csm_pool_alloc(&pp->p->pool, n->n * sizeof(*ret->sel));
	if (ret->sel == NULL)
		return CSM_ENOMEM;
	for (const struct csm_yaml_node *c = n->first; c != NULL; c = c->next)
		if ((r = parse_selector(pp, c, &ret->sel[ret->n_sel++])) != 0)
			return r;
	exe = csm_yaml_get(n, "exe");
	if (exe != NULL) {
		if (csm_yaml_get(n, "uid") == NULL && csm_yaml_get(n, "user") == NULL && csm_yaml_get(n, "unit") == NULL)
			return csm_yaml_fail(exe, pp->err, "narrows an identity, it does not make one: add uid, user or unit");
		pp->p->needs_exe = true;
		ret->has_exe = true;
	}
	return policy_copy(pp, n->key, &ret->name);
}

static bool has_group(const struct csm_facts *f, uint32_t gid)
{
	if (f->gid == gid)
		return true;
	for (size_t i = 0; i < f->n_groups; i++)
		if (f->groups[i] == gid)
			return true;
	return false;
}

static bool glob_on(const struct selector *sel, const char *fact)
{
	return fact != NULL && csm_glob_match(sel->text, csm_str_of(fact));
}

static bool selector_matches(const struct selector *sel, const struct csm_facts *f)
{
	switch (sel->kind) {
	case SEL_UID:
	case SEL_USER:
		return sel->known && f->uid == sel->number && !policy_id_is_overflow(f->uid);
	case SEL_GID:
	case SEL_GROUP:
		return sel->known && !policy_id_is_overflow(sel->number) && has_group(f, sel->number);
	case SEL_UNIT:
		return glob_on(sel, f->unit);
	case SEL_USER_UNIT:
		return glob_on(sel, f->user_unit);
	case SEL_CONTAINER:
		return glob_on(sel, f->container);
	case SEL_POD:
		return glob_on(sel, f->pod);
	case SEL_LABEL:
		return f->label != NULL && csm_str_eq(sel->text, f->label);
	case SEL_EXE: /* not looked at: a factor that cannot be read */
		return f->exe != NULL && policy_exe_matches(sel, f->exe);
	default:
		return false;
	}
}

/* Root of every container has the numbers of root: alone they mean the one in csmd's own namespaces. With a selector
 * that says where, they mean the one there. */
static bool is_root_of_elsewhere(const struct identity *id, const struct csm_facts *f)
{
	bool root = false, placed = false;

	if (f->same_ns)
		return false;
	for (size_t i = 0; i < id->n_sel; i++) {
		enum selector_kind kind = id->sel[i].kind;

		root |= kind <= SEL_GROUP && id->sel[i].number == 0;
		placed |= kind == SEL_UNIT || kind == SEL_CONTAINER || kind == SEL_POD || kind == SEL_LABEL;
	}
	return root && !placed;
}

bool policy_identity_matches(const struct identity *id, const struct csm_facts *f)
{
	if (is_root_of_elsewhere(id, f))
		return false;
	for (size_t i = 0; i < id->n_sel; i++)
		if (!selector_matches(&id->sel[i], f))
			return false;
	return id->n_sel > 0;
}

bool policy_identity_waits_for_exe(const struct identity *id, const struct csm_facts *f, bool *digest)
{
	bool hash = false;

	if (!id->has_exe || f->exe != NULL || !f->exe_askable)
		return false;
	for (size_t i = 0; i < id->n_sel; i++) {
		if (id->sel[i].kind == SEL_EXE)
			hash = id->sel[i].sha256 != NULL;
		else if (!selector_matches(&id->sel[i], f))
			return false;
	}
	*digest = *digest || hash;
	return true;
}
