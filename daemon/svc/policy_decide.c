/* A peer under a policy, and the decision. All that does not depend on permission and object is worked
 * out once a peer, so that a decision looks only at the rules that name the peer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/policy_int.h"

/* Reused uids: systemd's dynamic users, the subordinate ranges of containers, 16-bit -1. */
#define UID_DYNAMIC_FIRST 61184u
#define UID_DYNAMIC_LAST 65519u
#define UID_16BIT_NONE 65535u
#define UID_SUBORDINATE_FIRST 100000u

struct csm_subject {
	struct csm_policy *policy;
	const char **ids;
	size_t n_ids;
	const struct rule **rules;
	size_t n_rules;
	struct perms any;      /* what any of the rules grants */
	char uid_ns[16];       /* "uid-1000:", empty where the peer has no default namespace */
	size_t uid_ns_n;
	bool served;           /* false: nothing but no_policy */
	struct perms exe;      /* what identities would grant that only wait for the program */
	bool exe_home, exe_digest;
	int home_r;
	struct csm_str home;
	const char *home_why;
	char why_buf[192];
};

static bool uid_is_reused(uid_t uid)
{
	return (uid >= UID_DYNAMIC_FIRST && uid <= UID_DYNAMIC_LAST) || uid == UID_16BIT_NONE ||
		uid >= UID_SUBORDINATE_FIRST || policy_id_is_overflow(uid);
}

/* The uid namespace belongs to the uid of csmd's own namespaces: root of a container, or a user of
 * another user namespace, is somebody else with the same number. */
static void set_uid_namespace(struct csm_subject *s, const struct csm_facts *f)
{
	if (!s->policy->uid_default || !f->valid || !f->same_ns || uid_is_reused(f->uid))
		return;
	s->uid_ns_n = (size_t)snprintf(s->uid_ns, sizeof(s->uid_ns), "uid-%u:", (unsigned)f->uid);
}

static bool has_any(const bool *has, const uint16_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (has[ids[i]])
			return true;
	return false;
}

static int set_identities(struct csm_subject *s, const struct csm_facts *f, bool *has)
{
	const struct csm_policy *p = s->policy;

	s->ids = calloc(p->n_identities + 1, sizeof(*s->ids));
	if (s->ids == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < p->n_identities; i++) {
		has[i] = policy_identity_matches(&p->identities[i], f);
		if (has[i])
			s->ids[s->n_ids++] = p->identities[i].name;
	}
	return 0;
}

static int set_rules(struct csm_subject *s, const bool *has)
{
	const struct csm_policy *p = s->policy;
	size_t n = 0;

	for (size_t i = 0; i < p->n_rules; i++)
		n += has_any(has, p->rules[i].to, p->rules[i].n_to);
	s->rules = calloc(n + 1, sizeof(const struct rule *));
	if (s->rules == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < p->n_rules; i++) {
		if (!has_any(has, p->rules[i].to, p->rules[i].n_to))
			continue;
		s->rules[s->n_rules++] = &p->rules[i];
		for (size_t w = 0; w < PERMS_WORDS; w++)
			s->any.w[w] |= p->rules[i].perms.w[w];
	}
	return 0;
}

/* The identities that this peer has if its program is the one that they name. */
static void set_exe(struct csm_subject *s, const struct csm_facts *f, bool *waits)
{
	const struct csm_policy *p = s->policy;
	bool any = false;

	for (size_t i = 0; i < p->n_identities; i++) {
		waits[i] = policy_identity_waits_for_exe(&p->identities[i], f, &s->exe_digest);
		any = any || waits[i];
	}
	if (!any)
		return;
	for (size_t i = 0; i < p->n_rules; i++)
		for (size_t w = 0; has_any(waits, p->rules[i].to, p->rules[i].n_to) && w < PERMS_WORDS; w++)
			s->exe.w[w] |= p->rules[i].perms.w[w];
	for (size_t i = 0; i < p->n_homes; i++)
		s->exe_home = s->exe_home || has_any(waits, p->homes[i].of, p->homes[i].n_of);
}

/* An explicit home goes before the uid namespace; two of them leave a bare name without a meaning. */
static void set_home(struct csm_subject *s, const struct csm_facts *f, const bool *has)
{
	const struct csm_policy *p = s->policy;
	const struct home *first = NULL;

	s->home_r = CSM_EDENIED;
	s->home_why = "no namespace is this peer's home: name one, as NAMESPACE:NAME";
	for (size_t i = 0; i < p->n_homes; i++) {
		if (!has_any(has, p->homes[i].of, p->homes[i].n_of))
			continue;
		if (first != NULL) {
			s->home_r = CSM_EAMBIGUOUS;
			snprintf(s->why_buf, sizeof(s->why_buf),
				"this peer has two home namespaces, %s and %s: name one, as %s:NAME", first->ns,
				p->homes[i].ns, first->ns);
			s->home_why = s->why_buf;
			return;
		}
		first = &p->homes[i];
	}
	if (first != NULL) {
		s->home = csm_str_of(first->ns);
		s->home_r = 0;
	} else if (s->uid_ns_n > 0) {
		s->home = (struct csm_str){s->uid_ns, s->uid_ns_n - 1};
		s->home_r = 0;
	} else if (!s->served) {
		s->home_r = CSM_ENO_POLICY;
		s->home_why = "there is no policy file, and without one only peers of the daemon's own namespaces are served";
	} else if (p->uid_default && f->same_ns && uid_is_reused(f->uid)) {
		s->home_why = "no namespace is this peer's home: uids that are reused have none by default";
	} else if (p->uid_default && !f->same_ns) {
		s->home_why = "no namespace is this peer's home: peers in other user or pid namespaces have none by default";
	}
}

int csm_subject_new(struct csm_policy *p, const struct csm_facts *facts, struct csm_subject **ret)
{
	struct csm_subject *s = calloc(1, sizeof(*s));
	bool *has = calloc(p->n_identities + 1, sizeof(*has));
	int r = CSM_ENOMEM;

	if (s == NULL || has == NULL)
		goto out;
	s->policy = csm_policy_ref(p);
	s->served = p->file || (facts->same_ns && facts->valid);
	set_uid_namespace(s, facts);
	if ((r = set_identities(s, facts, has)) != 0 || (r = set_rules(s, has)) != 0)
		goto out;
	set_home(s, facts, has);
	if (p->needs_exe)
		set_exe(s, facts, has);
	*ret = s;
	s = NULL;
	r = 0;
out:
	free(has);
	csm_subject_free(s);
	return r;
}

void csm_subject_free(struct csm_subject *s)
{
	if (s == NULL)
		return;
	csm_policy_unref(s->policy);
	free(s->ids);
	free(s->rules);
	free(s);
}

bool csm_subject_wants_exe(const struct csm_subject *s, int perm, bool *digest)
{
	if (perm < 0 || perm >= CSM_M__COUNT || !(s->exe_home || perms_has(&s->exe, perm)))
		return false;
	if (digest != NULL)
		*digest = s->exe_digest;
	return true;
}

bool csm_subject_home_wants_exe(const struct csm_subject *s)
{
	return s->exe_home;
}

const struct csm_policy *csm_subject_policy(const struct csm_subject *s)
{
	return s->policy;
}

const char *csm_subject_identity(const struct csm_subject *s, size_t i)
{
	return i < s->n_ids ? s->ids[i] : NULL;
}

int csm_subject_home(const struct csm_subject *s, struct csm_str *ret, const char **why)
{
	if (s->home_r == 0)
		*ret = s->home;
	else if (why != NULL)
		*why = s->home_why;
	return s->home_r;
}

bool csm_subject_namespaces(const struct csm_subject *s, void (*found)(void *arg, struct csm_str ns), void *arg)
{
	bool patterns = false;

	if (s->uid_ns_n > 0)
		found(arg, (struct csm_str){s->uid_ns, s->uid_ns_n - 1});
	for (size_t i = 0; i < s->n_rules; i++)
		for (size_t g = 0; g < s->rules[i]->n_on; g++) {
			struct csm_str ns;

			if (policy_glob_namespace(&s->rules[i]->on[g], &ns))
				found(arg, ns);
			else
				patterns = true;
		}
	return patterns;
}

bool csm_subject_in_namespace(const struct csm_subject *s, struct csm_str ns)
{
	if (s->uid_ns_n > 0 && ns.n == s->uid_ns_n - 1 && memcmp(ns.p, s->uid_ns, ns.n) == 0)
		return true;
	for (size_t i = 0; i < s->n_rules; i++)
		for (size_t g = 0; g < s->rules[i]->n_on; g++)
			if (policy_glob_in_namespace(&s->rules[i]->on[g], ns))
				return true;
	return false;
}

static int decided(int r, const char *text, unsigned at, const char **rule, unsigned *line)
{
	if (rule != NULL)
		*rule = text;
	if (line != NULL)
		*line = at;
	return r;
}

static const struct rule *find_rule(const struct csm_subject *s, int perm, struct csm_str object)
{
	if (!perms_has(&s->any, perm))
		return NULL;
	for (size_t i = 0; i < s->n_rules; i++) {
		const struct rule *rule = s->rules[i];
		if (!perms_has(&rule->perms, perm))
			continue;
		for (size_t g = 0; g < rule->n_on; g++)
			if (policy_glob_matches(&rule->on[g], object))
				return rule;
	}
	return NULL;
}

int csm_policy_decide(const struct csm_subject *s, int perm, struct csm_str object, const char **rule, unsigned *line)
{
	const struct rule *found;

	if (!s->served)
		return decided(CSM_ENO_POLICY, "no policy file, and the peer is not in the daemon's own namespaces", 0,
			rule, line);
	if (perm == CSM_PERM_OPEN)
		return decided(0, "open to every peer", 0, rule, line);
	if (perm < 0 || perm >= CSM_M__COUNT)
		return decided(CSM_EDENIED, "only the administrator's", 0, rule, line);
	if (s->uid_ns_n > 0 && object.n >= s->uid_ns_n && memcmp(object.p, s->uid_ns, s->uid_ns_n) == 0)
		return decided(0, "default: uid-namespaces", 0, rule, line);
	found = find_rule(s, perm, object);
	if (found != NULL)
		return decided(0, found->text, found->line, rule, line);
	return decided(CSM_EDENIED, "no rule allows this", 0, rule, line);
}
