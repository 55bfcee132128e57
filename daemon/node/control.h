/* The private protocol between supervisor and broker: SOCK_SEQPACKET messages of one type byte, a body,
 * and at most one descriptor. Two sockets: CONTROL (both ways, read by the broker's main thread) and
 * DEVICE (the broker asks, the supervisor answers, one at a time). */
#ifndef CSM_NODE_CONTROL_H
#define CSM_NODE_CONTROL_H

#include "daemon/svc/policy.h"
#include "libclient/base/buf.h"

#define CONTROL_FD 3
#define DEVICE_FD 4
#define CONTROL_BODY_MAX 64u

enum control_type {
	/* to the broker */
	CTL_SETUP = 1,    /* fd: a memfd with struct setup, encoded */
	CTL_LISTENER = 2, /* fd: listening socket; body: role byte */
	CTL_CONN = 3,     /* fd: a connection of a fixed role; body: role byte; of csm-plughost: struct plug_channel after it */
	CTL_START = 4,    /* all has been handed over */
	CTL_RELOAD = 5,   /* fd: memfd with struct setup; the policy in it becomes the one in force */
	CTL_STOP = 6,
	/* to the supervisor */
	CTL_READY = 16,       /* serving */
	CTL_WANT_RELOAD = 17, /* an administrator asked for it; body: uint64_t, comes back in the setup */
	CTL_RELOADED = 18,    /* body: one byte, 1 when the new policy is in force */
	CTL_PLUG_RESET = 19,  /* body: struct plug_channel: that process is to be ended, if it still runs */
	/* on DEVICE */
	CTL_DEVICE = 32, /* asked without a body, answered with a descriptor or a body: errno as one byte */
	/* The same for a file that the configuration names: asked anew each time, since it may be replaced meanwhile. */
	CTL_POLICY_KEY = 33,
	CTL_POLICY_FILE = 34,
};

/* Which csm-plughost, by the order of csmd.yaml; the how manieth of its processes; which of its channels. */
struct plug_channel {
	uint32_t plughost, generation, channel;
};

struct control_msg {
	size_t len;
	int fd; /* -1: none; owned by the receiver */
	uint8_t type;
	uint8_t body[CONTROL_BODY_MAX];
};

/* CSM_ECLOSED when the other side is gone, CSM_EBUSY when nothing is there (non-blocking sockets). */
CSM_MUST int control_send(int sock, uint8_t type, const void *body, size_t len, int fd);
CSM_MUST int control_recv(int sock, struct control_msg *ret);

/* What the supervisor tells the broker: the texts of the files, and numbers for the names in them. */
struct setup_name {
	bool group;
	struct csm_str name;
	uint32_t id;
};
struct setup {
	struct csm_bin config;           /* p NULL: no file */
	struct csm_bin policy;           /* p NULL: no file */
	struct csm_str policy_error;     /* why the file could not be read; empty: it was */
	uint32_t broker_uid, broker_gid; /* UINT32_MAX: do not change */
	uint32_t supervisor_pid;
	struct csm_str plugin_dir;
	struct csm_str device;      /* the TPM: "/dev/tpmrm0", "swtpm:path=..."; empty: there is none */
	struct csm_bin owner_auth;  /* the TPM's owner authorisation, p NULL: none given */
	struct csm_bin root_secret; /* root key file, passphrase or credential; p NULL: none */
	struct csm_bin pins[CSM_PLUGHOSTS_MAX]; /* of the back ends of csmd.yaml, in its order; p NULL: none given */
	/* of the enrolment profiles of csmd.yaml, in its order: the token, and the file of anchors as it is; p NULL: none */
	struct csm_bin enrol_tokens[CSM_ENROL_PROFILES_MAX], enrol_anchors[CSM_ENROL_PROFILES_MAX];
	uint64_t pin_marks[CSM_PLUGHOSTS_MAX];  /* another one once the file is another; 0: no file */
	uint64_t reload_seq;        /* the newest CTL_WANT_RELOAD that came before the files were read */
	struct setup_name *names;
	size_t n_names;
};
#define SETUP_NAMES_MAX 4096u

/* Encode into a sealed memfd; *ret is the caller's. */
CSM_MUST int setup_to_memfd(const struct setup *s, int *ret);
/* Read it back: slices point into *mem (a secret buffer of the caller), names are freed by setup_clear. */
CSM_MUST int setup_from_memfd(int fd, struct csm_buf *mem, struct setup *ret);
void setup_clear(struct setup *s);

/* A resolver over the names of a setup; the setup must outlive its use. */
struct csm_resolver setup_resolver(const struct setup *s);

#endif
