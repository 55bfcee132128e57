/* Any text as csmd.yaml: it is taken whole, or refused with a place and a reason. */
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct csm_policy_error err;
	struct csm_config c;
	int r = csm_config_parse((const char *)data, size, &c, &err);

	if (r != 0) {
		must(r == CSM_EINVALID && err.message[0] != 0 && csm_utf8_valid(err.message, strlen(err.message)));
		must(err.line <= size + 1);
		return 0;
	}
	must(c.socket[0] == '/' && c.admin_socket[0] == '/' && c.state_dir[0] == '/' && c.kubepods_root[0] == '/');
	must(strlen(c.socket) < 108 && strlen(c.admin_socket) < 108);
	must(c.user_broker[0] != 0 && strcmp(c.user_broker, "root") != 0);
	must(c.root_key == CSM_ROOT_TPM ? c.root_key_file == NULL : c.root_key_file != NULL);
	must(c.root_key != CSM_ROOT_FILE || c.root_key_unprotected);
	must(c.connections_per_uid >= 1 && c.map_size % 4096 == 0 && c.epoch_interval_s >= 1);
	csm_config_clear(&c);
	return 0;
}
