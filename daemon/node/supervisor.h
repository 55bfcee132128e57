/* The supervisor: holds the listening sockets, starts the broker and starts it again, reads the files that root
 * owns, opens the TPM. Never reads a byte from a client. */
#ifndef CSM_NODE_SUPERVISOR_H
#define CSM_NODE_SUPERVISOR_H

#include "daemon/node/control.h"
#include "daemon/svc/config.h"

struct supervisor_options {
	const char *config; /* NULL: the default path, which may be missing */
	bool check;         /* only look: nothing is made */
};
/* The program; returns the exit status. */
int supervisor_main(const struct supervisor_options *opt);
/* csmd --check: read both files, say what is wrong; returns the exit status. */
int supervisor_check(const struct supervisor_options *opt);

/* ---- files.c: what root reads ---- */
struct files {
	char *config_text, *policy_text; /* NULL: no file */
	size_t config_len, policy_len;
	struct csm_config cfg;
	uint8_t *root_secret, *owner_auth; /* locked memory */
	size_t root_secret_len, owner_auth_len;
	char plugin_dir[512];
	struct setup_name *names;
	size_t n_names;
	char **name_texts;
	char policy_error[200]; /* why the policy file could not be read; empty: it was */
	uid_t broker_uid, ident_uid, enrol_uid; /* (uid_t)-1: stay */
	gid_t broker_gid, ident_gid, enrol_gid;
	struct file_plughost {       /* of cfg.plughosts */
		uid_t uid;           /* (uid_t)-1: stay, or there is no such user */
		gid_t gid;
		uint8_t *pin;        /* locked memory */
		size_t pin_len;
		uint64_t pin_mark;
	} plughosts[CSM_PLUGHOSTS_MAX];
	struct file_enrol {          /* of cfg.enrol */
		uint8_t *token;      /* locked memory */
		size_t token_len;
		char *anchors;
		size_t anchors_len;
	} enrol[CSM_ENROL_PROFILES_MAX];
	bool needs_ident; /* the policy names an executable; of the last one that was good */
};
/* Read and parse everything. On failure what is wrong has been logged. */
CSM_MUST int files_read(const struct supervisor_options *opt, struct files *ret);
/* Only the policy and the names in it, anew; a text that does not parse is kept for the broker to refuse; a file that
 * cannot be read leaves what was there, and policy_error says why. */
CSM_MUST int files_reread_policy(struct files *f);
/* What the policy that was just read asks of us (needs_ident); one with faults changes nothing. */
void files_look_at_policy(struct files *f);
/* Say what is unwise about the files that it names. May wait for the file systems that they are on. */
void files_warn(struct files *f);
void files_clear(struct files *f);

/* ---- helper.c: a program that the supervisor starts, and starts again, beside the broker ---- */
struct helper {
	const char *name;
	enum csm_role role;
	int exe_fd;       /* -1: not found */
	pid_t pid;        /* 0: none runs */
	int64_t born_ms, again_ms; /* again_ms: when to start the next one; -1: not waiting */
	int delay_ms;
	bool wanted;
	size_t sockets;   /* how many it has */
	const char *env;  /* NAME=VALUE, or NULL */
	uint32_t generation; /* starts so far */
};
/* What a helper is started as. */
struct helper_start {
	int control; /* where the broker's ends of its sockets go */
	char **argv, **envp;
	size_t sockets;    /* HELPER_FD and so on */
	int plughost;      /* its number; -1: another helper */
	int64_t now_ms;
};
/* Look for the program beside ours, as built or as installed. One socket. */
void helper_find(struct helper *h, const char *name, enum csm_role role);
/* Start it, or end it, as it is wanted; where it is to be started, that is due at once. */
void helper_want(struct helper *h, bool wanted, int64_t now_ms);
/* Start it as uid and gid ((uid_t)-1: stay) and hand the other ends of its sockets to the broker. */
void helper_start(struct helper *h, int control, const struct csm_config *cfg, uid_t uid, gid_t gid, int64_t now_ms);
/* Start it with these arguments. */
void helper_start_as(struct helper *h, const struct helper_start *how);
/* End it at once; it is started again as after any other death. */
void helper_kill(const struct helper *h);
/* True when that was this helper; another start is planned, unless `stopping`. */
bool helper_reap(struct helper *h, pid_t pid, int status, bool stopping, int64_t now_ms);

/* ---- plughosts.c: a helper for each back end of csmd.yaml that has a process of its own ---- */
struct plughosts {
	struct helper h[CSM_PLUGHOSTS_MAX];
	char names[CSM_PLUGHOSTS_MAX][32];
	size_t n;
};
void plughosts_find(struct plughosts *p, const struct files *f, int64_t now_ms);
/* Start those whose time has come. */
void plughosts_start(struct plughosts *p, int control, const struct files *f, int64_t now_ms);
/* The broker cannot use this process any longer. */
void plughosts_reset(struct plughosts *p, const struct plug_channel *which);
bool plughosts_reap(struct plughosts *p, pid_t pid, int status, bool stopping, int64_t now_ms);
int64_t plughosts_next(const struct plughosts *p); /* when the next start is due; -1: none is */
bool plughosts_run(const struct plughosts *p);
void plughosts_kill(struct plughosts *p);

/* ---- sockets.c ---- */
#define SOCKETS_MAX 2
struct sockets {
	int fd[SOCKETS_MAX];
	enum csm_role role[SOCKETS_MAX];
	int lock_fd;
	bool activated; /* systemd made them: they stay */
	char *path[SOCKETS_MAX];
};
/* Listen on both, or take over what systemd handed us. On failure the reason has been logged. */
CSM_MUST int sockets_open(const struct csm_config *cfg, struct sockets *ret);
void sockets_close(struct sockets *s);
/* Tell systemd; nothing where it does not listen. */

/* ---- device.c ---- */
/* The name of the TPM that the configuration means: "/dev/tpmrm0", "swtpm:...", or "" for none. */
void device_name(const struct csm_config *cfg, char *out, size_t cap);
/* A fresh descriptor; -1 with errno. */
int device_open(const char *name);
/* Connect within half a second; -1 with errno. */
int device_connect_unix(const char *path);
/* A connection of tpm2-abrmd's: "", or bus_name=NAME,bus_type=system|session; -1 with errno. */
int tabrmd_connect(const char *conf);
/* tpm: policy_key or policy_file, for the broker; -1 with errno (EPERM: others than root could write the key). */
int policy_file_open(const struct csm_config *cfg, bool key);

#endif
