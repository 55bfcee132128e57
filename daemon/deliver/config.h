/* deliver.yaml: whose folders get which certificates, and what runs then. Root's alone: nobody else says a path, an owner or
 * a command. */
#ifndef CSM_DELIVER_CONFIG_H
#define CSM_DELIVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "daemon/svc/yaml.h"
#include "proto-spec/limits.h"

#define DELIVERY_ARGS_MAX 32u
#define DELIVERY_WHY (CSM_ERROR_TEXT_MAX + 1)

struct delivery_target {
	char name[CSM_NAMESPACE_MAX + 1];
	char key[CSM_KEYREF_MAX + 1]; /* NAMESPACE:KEY */
	char *folder;
	char *hook[DELIVERY_ARGS_MAX + 1]; /* NULL first: none */
	char *reload_unit;                 /* NULL: none */
	uid_t uid, hook_uid;
	gid_t gid, hook_gid;
	char hook_user[64];                /* its name, or number */
	mode_t mode;                       /* of the files */
	unsigned deadline_s;
	bool roll_back;
};
struct delivery_config {
	char *state_dir;
	struct delivery_target target[CSM_DELIVER_TARGETS_MAX];
	size_t n;
};

/* Names of users become numbers. CSM_EINVALID with *err. */
CSM_MUST int delivery_config_parse(const char *text, size_t n, struct delivery_config *ret, struct csm_policy_error *err);
/* Of a file that is root's (or ours) and that nobody else can write or replace: else CSM_EDENIED. why, of DELIVERY_WHY bytes:
 * what is wrong. */
CSM_MUST int delivery_config_read(const char *path, struct delivery_config *ret, char *why);
void delivery_config_clear(struct delivery_config *c);
/* The mode of the folder that holds files of this mode: who may read them may list it. */
mode_t delivery_dir_mode(mode_t files);

#endif
