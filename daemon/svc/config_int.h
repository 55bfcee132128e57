/* What the files of the configuration's parser share. */
#ifndef CSM_SVC_CONFIG_INT_H
#define CSM_SVC_CONFIG_INT_H

#include "daemon/svc/config.h"
#include "daemon/svc/yaml.h"

#define CONFIG_TEXT_MAX 4096u

/* Where values go, and how they are read. */
struct reader {
	struct csm_config *c;
	struct csm_policy_error *err;
};

CSM_MUST int config_set(char **field, struct csm_str s);
/* Absolute, and without parts that lead elsewhere than they say. */
bool config_is_path(struct csm_str s);
CSM_MUST int config_read_user(struct reader *rd, const struct csm_yaml_node *n, void *to);
CSM_MUST int config_read_path(struct reader *rd, const struct csm_yaml_node *n, void *to);
/* A time such as "10s", within bounds of seconds. */
CSM_MUST int config_read_seconds(
	struct reader *rd, const struct csm_yaml_node *n, uint64_t min, uint64_t max, uint64_t *ret);

/* ---- config_plug.c: back ends in processes of their own ---- */
CSM_MUST int config_read_plughost(struct reader *rd, const struct csm_yaml_node *n);
/* What one of them demands of the others. */
CSM_MUST int config_check_plughosts(struct reader *rd, const struct csm_yaml_node *backends);
void config_clear_plughosts(struct csm_config *c);

/* ---- config_enrol.c ---- */
CSM_MUST int config_read_enrolment(struct reader *rd, const struct csm_yaml_node *n);
void config_clear_enrolment(struct csm_config *c);

#endif
