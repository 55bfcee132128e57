/* csmd.yaml: strict, every key optional; csmd.yaml(5) and the installed file list the keys. An empty file is
 * an error, as a file cut off is likelier than the wish for defaults alone. */
#ifndef CSM_SVC_CONFIG_H
#define CSM_SVC_CONFIG_H

#include "daemon/svc/config_enrol.h"
#include "daemon/svc/policy.h"

enum csm_root_key_mode { CSM_ROOT_TPM, CSM_ROOT_PASSPHRASE, CSM_ROOT_FILE, CSM_ROOT_CREDENTIAL };

/* A back end that runs in a csm-plughost of its own: backends: {NAME: {type: ...}}. */
enum csm_plughost_network { CSM_NETWORK_NONE, CSM_NETWORK_LOCAL, CSM_NETWORK_FULL };
#define CSM_PLUGHOST_LIST_MAX 8u
struct csm_plughost_pair {
	char *name, *value;
};
struct csm_plughost_config {
	char *name, *type, *user;
	char *pin_file, *pin_secret; /* where its PIN is; both NULL: it has none */
	enum csm_plughost_network network;
	unsigned timeout_ms;
	char *read[CSM_PLUGHOST_LIST_MAX], *write[CSM_PLUGHOST_LIST_MAX]; /* files and folders; NULL ends */
	struct csm_plughost_pair option[CSM_PLUGHOST_LIST_MAX];           /* for the back end: module, token, ... */
	struct csm_plughost_pair environment[CSM_PLUGHOST_LIST_MAX];
};

/* Strings are owned by the structure; names of users stay text here ("csm" or "64001"). */
struct csm_config {
	char *socket, *admin_socket, *state_dir;
	char *policy;               /* NULL (policy: ""): none */
	char *deliver;              /* of csm-deliver, which is started when it is there; NULL (deliver: ""): never */
	char *plugin_dir;           /* NULL: beside the program, or as installed */
	char *user_broker, *user_enrol, *user_ident, *user_plughost;
	char *root_key_file;        /* root_key_file: path, for file, passphrase and credential (a name) */
	char *backend_default;      /* "auto" or a name */
	char *backends;             /* backends: {enable: [soft, tpm2]}: comma list, NULL for all present */
	struct csm_plughost_config *plughosts;
	size_t n_plughosts;
	struct csm_enrol_profile *enrol; /* enrolment: {profiles: ...} */
	size_t n_enrol;
	uint64_t usage_interval_s;  /* how often what keys were used for is reported to the CA */
	char *fake_script;          /* backends: {fake: "..."}: NULL unless given */
	char *tpm_device, *tpm_tcti, *tpm_owner_auth_file, *tpm_bus_protection; /* owner_auth: "" (NULL) or "@/path" */
	char *tpm_pcrs;             /* tpm: {pcrs: [0, 2, 7]} as "0,2,7"; NULL: none */
	char *tpm_policy_key, *tpm_policy_file, *tpm_policy_ref; /* NULL unless given; files, and a text of at most 32 bytes */
	char *kubepods_root;
	char *log_level;            /* log_level: error | warning | info | debug */
	uint64_t map_size;          /* bytes; "64GiB" */
	uint64_t epoch_interval_s;  /* "10min" */
	enum csm_root_key_mode root_key;
	unsigned plugin_dir_line, plugin_dir_column; /* whether it is there is seen by who reads it */
	unsigned connections_per_uid;
	unsigned connections;       /* of all together */
	unsigned loops;             /* 0: one per core */
	bool root_key_unprotected;  /* root_key_unprotected: true is the consent that `file` needs */
	bool tpm_accept_foreign;    /* tpm: {accept_foreign_primary: true} */
	uint64_t audit_max_size;    /* bytes of one file of the audit log; "64MiB" */
	unsigned audit_max_files;
	bool audit_strict;
	int nice;                   /* -20 to 19: of the processor, as nice(2) */
	bool require_sandbox;       /* sandbox: required | best-effort (the default) */
};
/* text NULL: the defaults. CSM_EINVALID with *err. */
CSM_MUST int csm_config_parse(const char *text, size_t n, struct csm_config *ret, struct csm_policy_error *err);
void csm_config_clear(struct csm_config *c);
/* NULL for what is not there. */
const struct csm_plughost_config *csm_config_plughost(const struct csm_config *c, const char *name);
const char *csm_plughost_option(const struct csm_plughost_config *p, const char *name);

#endif
