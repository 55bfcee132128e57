/* The policy file: identities, namespaces, rules; a decision is a pure function of
 * (policy, facts, permission, object). A policy is immutable once parsed and may be read by
 * any thread; it is reference counted (atomic). */
#ifndef CSM_SVC_POLICY_H
#define CSM_SVC_POLICY_H

#include "daemon/svc/identity.h"
#include "libclient/wire/msg.h"

struct csm_policy;

/* user and group names to numbers. Returns false for an unknown name. NULL resolver: every name is
 * accepted and matches nobody (policy check). */
struct csm_resolver {
	void *arg;
	bool (*user)(void *arg, const char *name, uid_t *ret);
	bool (*group)(void *arg, const char *name, gid_t *ret);
};

struct csm_policy_error {
	unsigned line, column; /* from 1; 0 where there is none */
	char message[256];     /* names the key at fault */
};

/* Strict parse of the whole text; NULL text: no policy file (uid namespaces, and only peers in csmd's
 * own namespaces). CSM_EINVALID with *err. */
CSM_MUST int csm_policy_parse(const char *text, size_t n, const struct csm_resolver *resolver,
	struct csm_policy **ret, struct csm_policy_error *err);
/* Every user and group name that the text uses, for a resolver in another process: calls back once a
 * name. CSM_EINVALID with *err. */
CSM_MUST int csm_policy_names(const char *text, size_t n, void (*found)(void *arg, bool group, const char *name),
	void *arg, struct csm_policy_error *err);
/* Warnings of a policy (line and text), for `policy check` and the log. */
size_t csm_policy_warnings(const struct csm_policy *p, const struct csm_policy_error **ret);
struct csm_policy *csm_policy_ref(struct csm_policy *p);
void csm_policy_unref(struct csm_policy *p);
size_t csm_policy_n_identities(const struct csm_policy *p);
size_t csm_policy_n_rules(const struct csm_policy *p);
bool csm_policy_needs_exe(const struct csm_policy *p);
/* The i-th path of an executable, and who is to run it; false past the end. Borrowed. */
struct csm_policy_exe {
	const char *identity, *path;
	const char *user; /* NULL: the identity names none */
	uint32_t uid;     /* UINT32_MAX: not known */
	unsigned line;
};
bool csm_policy_exe(const struct csm_policy *p, size_t i, struct csm_policy_exe *ret);
/* Has it an identity by unit, user_unit, container, pod or exe? A degraded csmd has nobody for it. */
bool csm_policy_needs_proc(const struct csm_policy *p);

/* A peer under a policy: which identities it has, and its home. Made once per peer and policy. */
struct csm_subject;
CSM_MUST int csm_subject_new(struct csm_policy *p, const struct csm_facts *facts, struct csm_subject **ret);
void csm_subject_free(struct csm_subject *s);
/* Would a look at the subject's program (facts.exe, which it was made without) change what it may do by perm, or where
 * its bare names are? *digest, which may be NULL: whether by its digest. */
bool csm_subject_wants_exe(const struct csm_subject *s, int perm, bool *digest);
/* Would it change where its bare names are? */
bool csm_subject_home_wants_exe(const struct csm_subject *s);
/* The policy that it was made under. */
const struct csm_policy *csm_subject_policy(const struct csm_subject *s);
/* Names of the matched identities; the i-th, NULL past the end. Borrowed. */
const char *csm_subject_identity(const struct csm_subject *s, size_t i);
/* Home namespace: 0 with *ret (borrowed); CSM_EAMBIGUOUS (two homes; *why says which), CSM_ENO_POLICY
 * (nothing serves this peer), CSM_EDENIED (no home). */
CSM_MUST int csm_subject_home(const struct csm_subject *s, struct csm_str *ret, const char **why);

/* Where the subject may do anything: calls back for each namespace that its rules and the default name without a
 * star, some of them more than once. True where a pattern may match further ones: csm_subject_in_namespace tells. */
bool csm_subject_namespaces(const struct csm_subject *s, void (*found)(void *arg, struct csm_str ns), void *arg);
bool csm_subject_in_namespace(const struct csm_subject *s, struct csm_str ns);

/* May the subject use perm on the object "NS:NAME", "NS:DOMAIN/NAME", or, for lists, "NS:" and
 * "NS:DOMAIN/"? 0, CSM_EDENIED or CSM_ENO_POLICY. CSM_PERM_OPEN is allowed to every peer that is served,
 * CSM_PERM_ADMIN to nobody here. *rule (optional, borrowed from the policy, UTF-8 of at most 512 bytes) and
 * *line (optional, 0 where no rule decided) say what decided: "rule 2 (line 12): allow key.sign to web on
 * web:*", "default: uid-namespaces", "no rule allows this". */
CSM_MUST int csm_policy_decide(const struct csm_subject *s, int perm, struct csm_str object,
	const char **rule, unsigned *line);

/* Facts from "uid=1000", "gid=10" (further ones are supplementary groups), "unit=nginx.service", "user_unit=",
 * "container=", "pod=", "label=", "exe=PATH", "exe_sha256=HEX" for policy explain: a peer in csmd's own namespaces, unless it is in a
 * container or pod. Only the named factors are there. CSM_EINVALID, CSM_ENOMEM. */
CSM_MUST int csm_facts_from_selectors(const struct csm_str *sel, size_t n, struct csm_facts *ret);

#endif
