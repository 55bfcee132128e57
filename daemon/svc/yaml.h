/* A strict reading of the YAML that people write for csm: one document, mappings, lists and scalars,
 * nothing that needs looking up elsewhere in the text (anchors, aliases, tags, directives), no
 * duplicate key. Depth, size and counts are bounded. The whole text becomes a small tree, whose nodes know
 * where they stand, so that every refusal names the key at fault with its line and column. */
#ifndef CSM_SVC_YAML_H
#define CSM_SVC_YAML_H

#include "daemon/svc/policy.h"

enum csm_yaml_kind { CSM_YAML_SCALAR, CSM_YAML_MAP, CSM_YAML_LIST };

struct csm_yaml_node {
	enum csm_yaml_kind kind;
	bool plain;            /* a scalar without quotes */
	unsigned line, column; /* of the key where there is one, else of the value; from 1 */
	struct csm_str key;    /* p is NULL in a list and at the root */
	uint32_t key_hash;
	struct csm_str text;   /* of a scalar; NUL-terminated, without control characters */
	size_t n;              /* children */
	size_t index;          /* among the parent's children */
	struct csm_yaml_node *parent, *next, *first, *last;
};

struct csm_yaml {
	struct csm_pool pool;
	struct csm_yaml_node *root; /* a mapping */
};

/* Longer texts than max bytes are refused. CSM_EINVALID with *err, CSM_ENOMEM. */
CSM_MUST int csm_yaml_parse(const char *text, size_t n, size_t max, struct csm_yaml *ret,
	struct csm_policy_error *err);
void csm_yaml_free(struct csm_yaml *y);

/* The value of a key of a mapping; NULL if it is not there. */
const struct csm_yaml_node *csm_yaml_get(const struct csm_yaml_node *map, const char *key);

/* Write *err: position of the node, its path ("rules[2].allow[1]"), and the text. Always CSM_EINVALID. */
CSM_MUST int csm_yaml_fail(const struct csm_yaml_node *n, struct csm_policy_error *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Foreign text for a message: at most 48 bytes, everything but printable ASCII as '?'. */
struct csm_yaml_shown {
	char s[52];
};
struct csm_yaml_shown csm_yaml_show(struct csm_str s);

/* Checks of one node, CSM_EINVALID with *err; *ret is borrowed from the tree. */
CSM_MUST int csm_yaml_expect(const struct csm_yaml_node *n, enum csm_yaml_kind kind, struct csm_policy_error *err);
/* Every key of the mapping is one of the n_known. */
CSM_MUST int csm_yaml_known(const struct csm_yaml_node *map, const char *const *known, size_t n_known,
	struct csm_policy_error *err);
CSM_MUST int csm_yaml_string(const struct csm_yaml_node *n, size_t max, struct csm_str *ret,
	struct csm_policy_error *err);
CSM_MUST int csm_yaml_number(const struct csm_yaml_node *n, uint64_t min, uint64_t max, uint64_t *ret,
	struct csm_policy_error *err);
CSM_MUST int csm_yaml_bool(const struct csm_yaml_node *n, bool *ret, struct csm_policy_error *err);

/* Decimal digits without sign or leading zeros, at most max. */
bool csm_parse_number(struct csm_str s, uint64_t max, uint64_t *ret);

#endif
