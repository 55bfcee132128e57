/* Any text as a policy: it is taken or refused with a place and a reason, and what was taken decides.
 * The cgroup path of a peer comes from the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool find_user(void *arg, const char *name, uid_t *ret)
{
	(void)arg;
	*ret = (uid_t)strlen(name);
	return name[0] != 'x';
}

static bool find_group(void *arg, const char *name, gid_t *ret)
{
	return find_user(arg, name, ret);
}

static void told(void *arg, bool group, const char *name)
{
	(void)group;
	*(size_t *)arg += strlen(name);
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void use(struct csm_policy *p, struct csm_facts *facts, struct csm_str object)
{
	struct csm_subject *s;
	struct csm_str home;
	const char *why = NULL, *rule;
	unsigned line;
	int r;

	must(csm_subject_new(p, facts, &s) == 0);
	r = csm_subject_home(s, &home, &why);
	must(r == 0 ? csm_namespace_valid(home) : why != NULL);
	for (int perm = 0; perm < CSM_M__COUNT; perm += 3) {
		rule = NULL;
		r = csm_policy_decide(s, perm, object, &rule, &line);
		must(rule != NULL && strlen(rule) <= 512 && csm_utf8_valid(rule, strlen(rule)));
		must(r == 0 || r == CSM_EDENIED || r == CSM_ENO_POLICY);
	}
	csm_subject_free(s);
}

static void as_policy(const char *text, size_t n)
{
	static const struct csm_resolver resolver = {NULL, find_user, find_group};
	char *unit = NULL;
	struct csm_facts facts = {.uid = 1000, .gid = 1000, .pid = 5, .valid = true, .same_ns = true};
	const struct csm_policy_error *w;
	struct csm_policy_error err, err2;
	struct csm_policy *p;
	size_t names = 0;
	int r = csm_policy_parse(text, n, &resolver, &p, &err);

	must(csm_policy_names(text, n, told, &names, &err2) == r);
	if (r != 0) {
		must(r == CSM_EINVALID && err.message[0] != 0 && csm_utf8_valid(err.message, strlen(err.message)));
		must(err.line <= n + 1);
		return;
	}
	must(csm_policy_warnings(p, &w) <= CSM_POLICY_WARNINGS_MAX);
	unit = strdup("nginx.service");
	facts.unit = unit;
	use(p, &facts, CSM_STR("web:tls"));
	use(p, &facts, CSM_STR("shared:db/"));
	facts.same_ns = false;
	use(p, &facts, (struct csm_str){text, n < CSM_SECRETREF_MAX ? n : CSM_SECRETREF_MAX});
	free(unit);
	csm_policy_unref(p);
}

static void as_cgroup(const char *text, size_t n)
{
	struct csm_facts f = {0};
	char *path = malloc(n + 1);

	must(path != NULL);
	memcpy(path, text, n);
	path[n] = 0;
	if (csm_facts_from_cgroup(&f, path, "/kubepods.slice") == 0)
		must(f.cgroup != NULL && (f.unit == NULL || f.user_unit == NULL));
	csm_facts_clear(&f);
	if (csm_facts_from_cgroup(&f, path, "/kubepods") == 0)
		must(f.pod == NULL || strncmp(path, "/kubepods/", 10) == 0);
	csm_facts_clear(&f);
	free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;

	if (size > 0 && text[0] == '/')
		as_cgroup(text, size);
	else
		as_policy(text, size);
	return 0;
}
