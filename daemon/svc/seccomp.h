/* Filters of system calls: a list of what a process may call, and rules with conditions on arguments. */
#ifndef CSM_SVC_SECCOMP_H
#define CSM_SVC_SECCOMP_H

#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include "libclient/base/err.h"

/* The results of its seccomp_rule_add, all together by `|`: 0 when every rule is in. */
typedef int csm_seccomp_rules(scmp_filter_ctx f, const void *arg);

struct csm_seccomp {
	const int *calls; /* allowed whatever their arguments are */
	size_t n;
	csm_seccomp_rules *rules; /* NULL: none */
	const void *arg;
	bool refusals; /* the other way round: no call but by a rule is refused; n is 0 */
};

/* All that is not allowed fails with EPERM, in this thread and those that it starts. A filter that is loaded before stays in
 * force. *in_force: false with 0 where the kernel takes no filter. CSM_ENOMEM; CSM_ESYSTEM: a rule could not be made, and no
 * filter was loaded. */
CSM_MUST int csm_seccomp_load(const struct csm_seccomp *s, bool *in_force);

/* Rules that several filters have, each as csm_seccomp_rules. */
/* Threads with a name, never processes; abort() may end the process. */
int csm_seccomp_threads(scmp_filter_ctx f);
int csm_seccomp_abort(scmp_filter_ctx f);
/* Memory that is never executable, now or later. */
int csm_seccomp_memory(scmp_filter_ctx f);
/* Limits of its own are read, never set. */
int csm_seccomp_read_limits(scmp_filter_ctx f);

#endif
