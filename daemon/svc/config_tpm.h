/* What csmd.yaml says of the policy that the root key is sealed under; for config.c alone. */
#ifndef CSM_SVC_CONFIG_TPM_H
#define CSM_SVC_CONFIG_TPM_H

#include "daemon/svc/config.h"
#include "daemon/svc/yaml.h"

#define CONFIG_PCRS_TEXT 64u
#define CONFIG_POLICY_REF_MAX 32u

/* A list of PCRs as "0,2,7". CSM_EINVALID with *err. */
CSM_MUST int config_pcrs(const struct csm_yaml_node *n, char out[static CONFIG_PCRS_TEXT], struct csm_policy_error *err);
/* What the keys demand of each other. */
CSM_MUST int config_tpm_check(const struct csm_config *c, const struct csm_yaml_node *root, struct csm_policy_error *err);

#endif
