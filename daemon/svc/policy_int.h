/* What the files of the policy share: the parsed form. All of it lies in the policy's pool and is
 * immutable after the parse. */
#ifndef CSM_SVC_POLICY_INT_H
#define CSM_SVC_POLICY_INT_H

#include <stdatomic.h>
#include "daemon/svc/policy.h"
#include "daemon/svc/yaml.h"

#define POLICY_RULE_TEXT_MAX 512u /* what an answer to policy.explain carries */

/* A set of permissions, by row of methods.def. */
#define PERMS_WORDS 2
struct perms {
	uint64_t w[PERMS_WORDS];
};
_Static_assert(CSM_M__COUNT <= PERMS_WORDS * 64, "methods.def has outgrown struct perms");
static inline bool perms_has(const struct perms *p, int perm)
{
	return (p->w[perm / 64] >> (perm % 64) & 1) != 0;
}
static inline void perms_add(struct perms *p, int perm)
{
	p->w[perm / 64] |= UINT64_C(1) << (perm % 64);
}

enum selector_kind {
	SEL_UID, SEL_USER, SEL_GID, SEL_GROUP, /* those with a number */
	SEL_UNIT, SEL_USER_UNIT, SEL_CONTAINER, SEL_POD, SEL_EXE, SEL_LABEL,
	SEL__COUNT
};
extern const char *const policy_selector_names[SEL__COUNT];

struct selector {
	enum selector_kind kind;
	bool known;        /* user, group: the name was resolved */
	uint32_t number;   /* uid, user, gid, group */
	struct csm_str text;   /* exe: the path; p is NULL where only the digest is given */
	const uint8_t *sha256; /* exe: 32 bytes, or NULL */
};

struct identity {
	const char *name;
	unsigned line, column;
	struct selector *sel;
	size_t n_sel;
	bool used; /* by a rule or a namespace */
	bool has_exe;
};

struct home {
	const char *ns;
	unsigned line;
	uint16_t *of; /* identities */
	size_t n_of;
};

/* An object glob; almost all are literal or end in their only star. */
struct glob {
	enum { GLOB_LITERAL, GLOB_PREFIX, GLOB_GENERAL } kind;
	struct csm_str text; /* for GLOB_PREFIX without the star */
};

struct rule {
	unsigned line;
	struct perms perms;
	uint16_t *to; /* identities */
	size_t n_to;
	struct glob *on;
	size_t n_on;
	const char *text;
};

struct csm_policy {
	atomic_uint refs;
	struct csm_pool pool;
	bool file;        /* false: there is no policy file */
	bool uid_default; /* default: uid-namespaces */
	bool needs_exe;
	bool needs_proc;
	struct identity *identities;
	size_t n_identities;
	struct home *homes;
	size_t n_homes;
	struct rule *rules;
	size_t n_rules;
	struct csm_policy_error *warnings;
	size_t n_warnings;
};

/* The overflow ids are what the kernel shows for an id that has no number here. */
bool policy_id_is_overflow(uint32_t id);

/* policy_selector.c: the selectors of one identity. */
struct policy_parse {
	struct csm_policy *p;
	const struct csm_resolver *resolver;
	struct csm_policy_error *err;
};
CSM_MUST int policy_parse_identity(struct policy_parse *pp, const struct csm_yaml_node *n, struct identity *ret);
bool policy_identity_matches(const struct identity *id, const struct csm_facts *f);
/* It names an executable, and all of its other selectors match: looking at the program would decide. */
bool policy_identity_waits_for_exe(const struct identity *id, const struct csm_facts *f, bool *digest);

/* policy_exe.c: the value of `exe`, a path or {path, sha256}; the path is in the tree yet. */
CSM_MUST int policy_parse_exe(struct policy_parse *pp, const struct csm_yaml_node *n, struct selector *sel);
bool policy_exe_matches(const struct selector *sel, const struct csm_exe *exe);

/* policy_rule.c: one rule; identities are parsed already. */
CSM_MUST int policy_parse_rule(struct policy_parse *pp, const struct csm_yaml_node *n, struct rule *ret);
/* A list of names of identities, for rules and namespaces. */
CSM_MUST int policy_parse_names(struct policy_parse *pp, const struct csm_yaml_node *list, uint16_t **ret,
	size_t *ret_n);
bool policy_glob_matches(const struct glob *g, struct csm_str object);
/* The namespace, where the pattern has no star in it. */
bool policy_glob_namespace(const struct glob *g, struct csm_str *ret);
/* Does the pattern match anything in this namespace? */
bool policy_glob_in_namespace(const struct glob *g, struct csm_str ns);

/* policy_parse.c */
CSM_MUST int policy_copy(struct policy_parse *pp, struct csm_str s, const char **ret);
void policy_warn(struct policy_parse *pp, unsigned line, unsigned column, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
