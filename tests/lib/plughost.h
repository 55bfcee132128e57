/* A csm-plughost of a test's own, and a host for the remote back end over it. */
#ifndef TESTS_LIB_PLUGHOST_H
#define TESTS_LIB_PLUGHOST_H

#include <sys/types.h>
#include "plugins/remote/channel.h"
#include "plugins/remote/remote.h"

struct plughost {
	struct csm_plugin_host host;        /* for csm_plugin_remote: &h->host */
	const struct csm_plugin_host *inner; /* who answers what the back end inside asks */
	char plugin[512];                   /* its object */
	char name[64];
	const char *timeout_ms;             /* or NULL */
	const char *read;                   /* a folder that it may read beside this build's, or NULL */
	pid_t pid;                          /* 0: none was started yet */
	int fd[CSM_PLUG_CHANNELS];          /* not handed out yet; -1 */
	size_t next;
	unsigned starts, resets;
	bool held;                          /* start no other: there is none for a while */
};
/* plugin: a name (of this build's objects) or the path of an object. A process is started whenever the last one's channels have
 * all been handed out, and they are asked for again. */
void plughost_init(struct plughost *h, const char *plugin, const struct csm_plugin_host *inner);
/* End what runs and wait for it. */
void plughost_stop(struct plughost *h);
/* The remote table without the slots that this plugin has not, under its name and flags. */
struct csm_plugin plughost_table(const struct csm_plugin *like);

#endif
