#include "daemon/svc/config_tpm.h"

#include <stdio.h>
#include <string.h>

#define PCRS 24u

int config_pcrs(const struct csm_yaml_node *n, char out[static CONFIG_PCRS_TEXT], struct csm_policy_error *err)
{
	uint32_t seen = 0;
	size_t used = 0;
	uint64_t v = 0;
	int r = csm_yaml_expect(n, CSM_YAML_LIST, err);

	if (r != 0)
		return r;
	if (n->n == 0)
		return csm_yaml_fail(n, err, "must have entries: without the key there is no policy");
	for (const struct csm_yaml_node *c = n->first; c != NULL; c = c->next) {
		if ((r = csm_yaml_number(c, 0, PCRS - 1, &v, err)) != 0)
			return r;
		if ((seen & UINT32_C(1) << v) != 0)
			return csm_yaml_fail(c, err, "stands in the list twice");
		seen |= UINT32_C(1) << v;
	}
	out[0] = '\0';
	for (unsigned i = 0; i < PCRS; i++)
		if ((seen & UINT32_C(1) << i) != 0)
			used += (size_t)snprintf(out + used, CONFIG_PCRS_TEXT - used, "%s%u", used > 0 ? "," : "", i);
	return 0;
}

int config_tpm_check(const struct csm_config *c, const struct csm_yaml_node *root, struct csm_policy_error *err)
{
	static const char *const keys[] = {"pcrs", "policy_key", "policy_file", "policy_ref"};
	const struct csm_yaml_node *tpm = csm_yaml_get(root, "tpm"), *n[4] = {NULL};

	for (size_t i = 0; tpm != NULL && i < 4; i++)
		n[i] = csm_yaml_get(tpm, keys[i]);
	for (size_t i = 0; i < 4; i++)
		if (n[i] != NULL && c->root_key != CSM_ROOT_TPM)
			return csm_yaml_fail(n[i], err, "has no meaning without root_key: tpm");
	if (n[0] != NULL && n[1] != NULL)
		return csm_yaml_fail(n[0], err, "goes with no policy_key: the approved policies name the PCRs");
	if (n[1] != NULL && n[2] == NULL)
		return csm_yaml_fail(n[1], err, "needs policy_file: the file of approved policies");
	if (n[3] != NULL && n[1] == NULL)
		return csm_yaml_fail(n[3], err, "has no meaning without policy_key");
	if (n[3] != NULL && strlen(c->tpm_policy_ref) > CONFIG_POLICY_REF_MAX)
		return csm_yaml_fail(n[3], err, "must be at most %u bytes long", CONFIG_POLICY_REF_MAX);
	return 0;
}
