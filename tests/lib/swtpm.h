/* A private swtpm for a test: its own folder, its own process, gone with the test. Also a host for
 * back ends (csm_plugin.h) that reaches it and remembers in memory. One thread at a time, except
 * swtpm_connect. A failure to start is told on stderr and gives NULL or -1. */
#ifndef TESTS_LIB_SWTPM_H
#define TESTS_LIB_SWTPM_H

#include <stdbool.h>
#include <sys/types.h>
#include "plugins/include/csm_plugin.h"

struct swtpm {
	char dir[64];   /* mktemp folder with the state and the sockets */
	char sock[96];  /* data socket: bare TPM commands */
	char ctrl[96];  /* control socket */
	char tcti[128]; /* the same for Tss2_TctiLdr_Initialize, tpm2-tools and CSM_TPM_TCTI */
	pid_t pid;      /* -1 while it does not run */
	pid_t owner;    /* the process that stops what is left at its exit */
	struct swtpm *next;
};

/* A new TPM, started up, ready for connections. It dies with the thread that started it. */
struct swtpm *swtpm_start(void);
/* Kill (no Shutdown: a power cut), remove the folder, free. NULL is a no-op. */
void swtpm_stop(struct swtpm *t);
/* SIGKILL: to the TPM a power cut. Returns when the process is gone. */
void swtpm_kill(struct swtpm *t);
/* Run again on the same state after swtpm_kill; 0 or -1. */
int swtpm_restart(struct swtpm *t);
/* A connected data socket, or -1 with errno. Each connection keeps all others waiting. */
int swtpm_connect(const struct swtpm *t);
/* Reset the chip under open connections: CMD_INIT on the control socket, without Startup; 0 or -1. */
int swtpm_reset(const struct swtpm *t);

void swtpm_pause_ms(long ms);

/* A host for csm_plugin slots over a swtpm: kind "socket". */
#define SWTPM_HOST_PAIRS 8
struct swtpm_host {
	struct csm_plugin_host host; /* pass &h->host */
	struct swtpm *tpm;
	int (*device)(struct swtpm_host *h); /* instead of swtpm_connect, where set */
	void *arg;                           /* the test's own */
	unsigned devices;                    /* times that a descriptor was asked for */
	bool quiet;                          /* no log lines on stderr */
	char last_log[256];
	struct {
		char name[32];
		uint8_t p[256];
		size_t len;
	} kept[SWTPM_HOST_PAIRS];
	struct {
		const char *name;
		const char *value;
	} conf[SWTPM_HOST_PAIRS];
};
void swtpm_host_init(struct swtpm_host *h, struct swtpm *t);
/* Set or replace a configuration value; the strings are borrowed. NULL unsets. */
void swtpm_host_config(struct swtpm_host *h, const char *name, const char *value);
/* The remembered record of that name, NULL if there is none. */
const uint8_t *swtpm_host_kept(const struct swtpm_host *h, const char *name, size_t *len);

#endif
