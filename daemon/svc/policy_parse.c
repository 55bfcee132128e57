/* The policy file as a whole, and the life of a policy. */
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/svc/policy_int.h"

#define POOL_MAX (64u << 20)

static pthread_once_t overflow_once = PTHREAD_ONCE_INIT;
static uint32_t overflow_ids[2] = {65534, 65534};

static void read_overflow(const char *path, uint32_t *ret)
{
	char buf[16];
	ssize_t n;
	uint64_t v;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	n = read(fd, buf, sizeof(buf));
	close(fd);
	if (n > 0 && buf[n - 1] == '\n')
		n--;
	if (n > 0 && csm_parse_number((struct csm_str){buf, (size_t)n}, UINT32_MAX, &v))
		*ret = (uint32_t)v;
}

static void read_overflows(void)
{
	read_overflow("/proc/sys/kernel/overflowuid", &overflow_ids[0]);
	read_overflow("/proc/sys/kernel/overflowgid", &overflow_ids[1]);
}

/* One set for uids and gids: whichever of them the kernel shows, it says nothing. */
bool policy_id_is_overflow(uint32_t id)
{
	pthread_once(&overflow_once, read_overflows);
	return id == 65534 || id == UINT32_MAX || id == overflow_ids[0] || id == overflow_ids[1];
}

int policy_copy(struct policy_parse *pp, struct csm_str s, const char **ret)
{
	char *p = csm_pool_alloc(&pp->p->pool, s.n + 1);

	if (p == NULL)
		return CSM_ENOMEM;
	if (s.n > 0)
		memcpy(p, s.p, s.n);
	*ret = p;
	return 0;
}

void policy_warn(struct policy_parse *pp, unsigned line, unsigned column, const char *fmt, ...)
{
	struct csm_policy *p = pp->p;
	struct csm_policy_error *w;
	va_list ap;

	if (p->warnings == NULL)
		p->warnings = csm_pool_alloc(&p->pool, CSM_POLICY_WARNINGS_MAX * sizeof(*p->warnings));
	if (p->warnings == NULL || p->n_warnings == CSM_POLICY_WARNINGS_MAX)
		return;
	w = &p->warnings[p->n_warnings++];
	w->line = line;
	w->column = column;
	va_start(ap, fmt);
	vsnprintf(w->message, sizeof(w->message), fmt, ap);
	va_end(ap);
}

/* A list or mapping, which may be missing (n NULL): *ret has room for what is in it. */
static int make_room(struct policy_parse *pp, const struct csm_yaml_node *n, enum csm_yaml_kind kind, size_t max, const char *what,
	size_t size, void **ret)
{
	int r = n != NULL ? csm_yaml_expect(n, kind, pp->err) : 0;

	if (r != 0 || n == NULL)
		return r;
	if (n->n > max)
		return csm_yaml_fail(n, pp->err, "more than %zu %s", max, what);
	*ret = csm_pool_alloc(&pp->p->pool, (n->n + 1) * size);
	return *ret != NULL ? 0 : CSM_ENOMEM;
}

/* What is in it, if it is there. */
static const struct csm_yaml_node *first_of(const struct csm_yaml_node *n)
{
	return n != NULL ? n->first : NULL;
}

static int parse_identities(struct policy_parse *pp, const struct csm_yaml_node *n)
{
	struct csm_policy *p = pp->p;
	int r = make_room(pp, n, CSM_YAML_MAP, CSM_POLICY_IDENTITIES_MAX, "identities", sizeof(*p->identities), (void **)&p->identities);

	for (const struct csm_yaml_node *c = first_of(n); r == 0 && c != NULL; c = c->next)
		r = policy_parse_identity(pp, c, &p->identities[p->n_identities++]);
	return r;
}

static int parse_home(struct policy_parse *pp, const struct csm_yaml_node *n, struct home *ret)
{
	static const char *const known[] = {"home-of"};
	const struct csm_yaml_node *of;
	int r;

	if (n->key.n >= 4 && memcmp(n->key.p, "uid-", 4) == 0)
		return csm_yaml_fail(n, pp->err, "names that begin with uid- are reserved for the namespaces of uids");
	if (!csm_namespace_valid(n->key))
		return csm_yaml_fail(n, pp->err, "a namespace is [a-z0-9][a-z0-9._-]*, at most %u bytes",
			CSM_NAMESPACE_MAX);
	if ((r = csm_yaml_known(n, known, 1, pp->err)) != 0)
		return r;
	if ((of = csm_yaml_get(n, "home-of")) == NULL)
		return csm_yaml_fail(n, pp->err, "'home-of' is missing");
	if ((r = csm_yaml_expect(of, CSM_YAML_LIST, pp->err)) != 0)
		return r;
	if (of->n == 0)
		return csm_yaml_fail(of, pp->err, "the list is empty");
	ret->line = n->line;
	if ((r = policy_copy(pp, n->key, &ret->ns)) != 0)
		return r;
	return policy_parse_names(pp, of, &ret->of, &ret->n_of);
}

static int parse_namespaces(struct policy_parse *pp, const struct csm_yaml_node *n)
{
	struct csm_policy *p = pp->p;
	int r = make_room(pp, n, CSM_YAML_MAP, SIZE_MAX, "namespaces", sizeof(*p->homes), (void **)&p->homes);

	for (const struct csm_yaml_node *c = first_of(n); r == 0 && c != NULL; c = c->next)
		r = parse_home(pp, c, &p->homes[p->n_homes++]);
	return r;
}

static int parse_rules(struct policy_parse *pp, const struct csm_yaml_node *n)
{
	struct csm_policy *p = pp->p;
	int r = make_room(pp, n, CSM_YAML_LIST, CSM_POLICY_RULES_MAX, "rules", sizeof(*p->rules), (void **)&p->rules);

	for (const struct csm_yaml_node *c = first_of(n); r == 0 && c != NULL; c = c->next)
		r = policy_parse_rule(pp, c, &p->rules[p->n_rules++]);
	return r;
}

static int parse_head(struct policy_parse *pp, const struct csm_yaml_node *root)
{
	static const char *const known[] = {"version", "default", "identities", "namespaces", "rules"};
	const struct csm_yaml_node *version, *def;
	struct csm_str s;
	uint64_t v;
	int r = csm_yaml_known(root, known, 5, pp->err);

	if (r != 0)
		return r;
	if ((version = csm_yaml_get(root, "version")) == NULL)
		return csm_yaml_fail(root, pp->err, "'version: 1' is missing");
	if ((r = csm_yaml_number(version, 0, UINT64_MAX, &v, pp->err)) != 0)
		return r;
	if (v != 1)
		return csm_yaml_fail(version, pp->err, "this csm knows only version 1");
	if ((def = csm_yaml_get(root, "default")) == NULL)
		return 0;
	if ((r = csm_yaml_string(def, 64, &s, pp->err)) != 0)
		return r;
	if (!csm_str_eq(s, "uid-namespaces"))
		return csm_yaml_fail(def, pp->err, "the only default is uid-namespaces; without the key there is none");
	pp->p->uid_default = true;
	return 0;
}

static int parse_file(struct policy_parse *pp, const char *text, size_t n)
{
	struct csm_policy *p = pp->p;
	struct csm_yaml y;
	int r = csm_yaml_parse(text, n, CSM_POLICY_MAX, &y, pp->err);

	if (r != 0)
		return r;
	p->file = true;
	if ((r = parse_head(pp, y.root)) == 0 &&
		(r = parse_identities(pp, csm_yaml_get(y.root, "identities"))) == 0 &&
		(r = parse_namespaces(pp, csm_yaml_get(y.root, "namespaces"))) == 0)
		r = parse_rules(pp, csm_yaml_get(y.root, "rules"));
	csm_yaml_free(&y);
	for (size_t i = 0; r == 0 && i < p->n_identities; i++)
		if (!p->identities[i].used)
			policy_warn(pp, p->identities[i].line, p->identities[i].column,
				"identity %s is used by no rule and no namespace", p->identities[i].name);
	return r;
}

int csm_policy_parse(const char *text, size_t n, const struct csm_resolver *resolver, struct csm_policy **ret,
	struct csm_policy_error *err)
{
	struct csm_policy *p = calloc(1, sizeof(*p));
	struct policy_parse pp = {.p = p, .resolver = resolver, .err = err};
	int r = 0;

	*err = (struct csm_policy_error){0};
	if (p == NULL)
		return CSM_ENOMEM;
	atomic_init(&p->refs, 1);
	csm_pool_init(&p->pool, POOL_MAX);
	if (text == NULL)
		p->uid_default = true;
	else
		r = parse_file(&pp, text, n);
	if (r != 0) {
		csm_policy_unref(p);
		return r;
	}
	*ret = p;
	return 0;
}

/* Collects names as a resolver that knows nobody; a name that was told is not told again. */
struct collector {
	void (*found)(void *arg, bool group, const char *name);
	void *arg;
	struct csm_pool pool;
	struct seen {
		struct seen *next;
		bool group;
		const char *name;
	} *seen;
	bool failed;
};

static bool collect(struct collector *c, bool group, const char *name)
{
	size_t n = strlen(name) + 1;
	struct seen *s;
	char *copy;

	for (s = c->seen; s != NULL; s = s->next)
		if (s->group == group && strcmp(s->name, name) == 0)
			return false;
	s = csm_pool_alloc(&c->pool, sizeof(*s));
	copy = csm_pool_alloc(&c->pool, n);
	if (s == NULL || copy == NULL) {
		c->failed = true;
		return false;
	}
	memcpy(copy, name, n);
	*s = (struct seen){c->seen, group, copy};
	c->seen = s;
	return false;
}

static bool collect_user(void *arg, const char *name, uid_t *ret)
{
	(void)ret;
	return collect(arg, false, name);
}

static bool collect_group(void *arg, const char *name, gid_t *ret)
{
	(void)ret;
	return collect(arg, true, name);
}

int csm_policy_names(const char *text, size_t n, void (*found)(void *arg, bool group, const char *name), void *arg,
	struct csm_policy_error *err)
{
	struct collector c = {.found = found, .arg = arg};
	const struct csm_resolver resolver = {&c, collect_user, collect_group};
	struct csm_policy *p;
	int r;

	csm_pool_init(&c.pool, POOL_MAX);
	r = csm_policy_parse(text, n, &resolver, &p, err);
	if (r == 0)
		csm_policy_unref(p);
	if (r == 0 && c.failed)
		r = CSM_ENOMEM;
	for (const struct seen *s = c.seen; r == 0 && s != NULL; s = s->next)
		found(arg, s->group, s->name);
	csm_pool_free(&c.pool);
	return r;
}

size_t csm_policy_warnings(const struct csm_policy *p, const struct csm_policy_error **ret)
{
	*ret = p->warnings;
	return p->n_warnings;
}

struct csm_policy *csm_policy_ref(struct csm_policy *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void csm_policy_unref(struct csm_policy *p)
{
	if (p == NULL || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return;
	csm_pool_free(&p->pool);
	free(p);
}

size_t csm_policy_n_identities(const struct csm_policy *p)
{
	return p->n_identities;
}

size_t csm_policy_n_rules(const struct csm_policy *p)
{
	return p->n_rules;
}

bool csm_policy_needs_exe(const struct csm_policy *p)
{
	return p->needs_exe;
}

bool csm_policy_needs_proc(const struct csm_policy *p)
{
	return p->needs_proc;
}
