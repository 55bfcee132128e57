/* What the readers of csmd.yaml, server.yaml and deliver.yaml have in common: keys by a table, and values of the kinds that
 * more than one of them has. Each answers CSM_EINVALID with *rd->err, or CSM_ENOMEM; `to` is untouched then. */
#ifndef CSM_SVC_CONFIG_READ_H
#define CSM_SVC_CONFIG_READ_H

#include "daemon/svc/yaml.h"

#define CONFIG_TEXT_MAX 4096u

/* The configuration that is filled, and where a fault is told. */
struct reader {
	void *c;
	struct csm_policy_error *err;
};
typedef int config_read_fn(struct reader *rd, const struct csm_yaml_node *n, void *to);

struct config_key {
	const char *section, *key; /* section NULL: at the top */
	size_t off;                /* of the value in the configuration */
	config_read_fn *read;
};
struct config_keys {
	const struct config_key *key;
	size_t n;
	/* A key that is not in the table; section NULL: at the top. */
	int (*other)(struct reader *rd, const char *section, const struct csm_yaml_node *n);
};
CSM_MUST int config_read_keys(struct reader *rd, const struct csm_yaml_node *root, const struct config_keys *keys);

/* A copy of s, which the configuration owns, instead of what is there. */
CSM_MUST int config_set(char **field, struct csm_str s);
struct config_text {
	char **field;
	const char *value;
};
CSM_MUST int config_set_texts(const struct config_text *texts, size_t n);

/* Absolute, and without parts that lead elsewhere than they say. */
bool config_is_path(struct csm_str s);
/* s is not empty, and has these characters only. */
bool config_only_of(struct csm_str s, const char *chars);
/* "" in quotes: what turns a key off. */
bool config_is_empty(const struct csm_yaml_node *n);

/* `to`: char ** */
int config_read_path(struct reader *rd, const struct csm_yaml_node *n, void *to);
int config_read_socket(struct reader *rd, const struct csm_yaml_node *n, void *to);
int config_read_user(struct reader *rd, const struct csm_yaml_node *n, void *to);
int config_read_log_level(struct reader *rd, const struct csm_yaml_node *n, void *to);
CSM_MUST int config_read_path_of(struct reader *rd, const struct csm_yaml_node *n, size_t max, char **to);
/* `to`: bool * */
int config_read_flag(struct reader *rd, const struct csm_yaml_node *n, void *to);
int config_read_sandbox(struct reader *rd, const struct csm_yaml_node *n, void *to); /* is it required? */
/* `to`: uint64_t *, of an LMDB file, in bytes */
int config_read_map_size(struct reader *rd, const struct csm_yaml_node *n, void *to);

/* One of a few words: its index. */
CSM_MUST int config_read_word(
	struct reader *rd, const struct csm_yaml_node *n, const char *const *words, size_t n_words, size_t *ret);
CSM_MUST int config_read_count(struct reader *rd, const struct csm_yaml_node *n, uint64_t min, uint64_t max, unsigned *ret);
/* A number with a unit, as "64GiB". */
struct config_unit {
	const char *name;
	uint64_t factor;
};
extern const struct config_unit config_sizes[4]; /* KiB to TiB */
CSM_MUST int config_read_measure(struct reader *rd, const struct csm_yaml_node *n, const struct config_unit *units, size_t n_units,
	const char *example, uint64_t *ret);
/* A time such as "10s", within bounds of seconds. */
CSM_MUST int config_read_seconds(
	struct reader *rd, const struct csm_yaml_node *n, uint64_t min, uint64_t max, uint64_t *ret);

#endif
