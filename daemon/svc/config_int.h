/* What the files of the configuration's parser share. */
#ifndef CSM_SVC_CONFIG_INT_H
#define CSM_SVC_CONFIG_INT_H

#include "daemon/svc/config.h"
#include "daemon/svc/config_read.h"

/* ---- config_plug.c: back ends in processes of their own ---- */
CSM_MUST int config_read_plughost(struct reader *rd, const struct csm_yaml_node *n);
/* What one of them demands of the others. */
CSM_MUST int config_check_plughosts(struct reader *rd, const struct csm_yaml_node *backends);
void config_clear_plughosts(struct csm_config *c);

/* ---- config_enrol.c ---- */
CSM_MUST int config_read_enrolment(struct reader *rd, const struct csm_yaml_node *n);
void config_clear_enrolment(struct csm_config *c);

#endif
