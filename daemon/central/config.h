/* server.yaml: strict, every key optional; server.yaml(5) and the installed file list the keys. */
#ifndef CSM_CENTRAL_CONFIG_H
#define CSM_CENTRAL_CONFIG_H

#include <sys/socket.h>
#include "daemon/central/profiles.h"

#define CONFIG_HOSTNAMES_MAX 16u

struct config_address {
	struct sockaddr_storage addr;
	socklen_t n; /* 0: none */
};
struct central_config {
	char *listen, *public_listen;  /* as they stand in the file; public_listen "" for none */
	struct config_address tls, plain;
	char *admin_socket, *state_dir, *csmd_socket, *user, *log_level;
	char *public_url;              /* without a slash at its end; "" for none */
	char *hostnames[CONFIG_HOSTNAMES_MAX + 1]; /* names and addresses of its own certificate; NULL ends */
	uint64_t map_size;             /* bytes */
	unsigned workers;
	unsigned connections, connections_per_address, new_per_address, requests_per_address, requests_per_caller; /* 0: limits.h */
	bool require_sandbox;
	struct profiles *profiles;
};
/* CSM_EINVALID with *err, CSM_ENOMEM. */
CSM_MUST int central_config_parse(const char *text, size_t n, struct central_config *ret, struct csm_policy_error *err);
void central_config_clear(struct central_config *c);

#endif
