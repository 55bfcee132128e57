/* The parts of the sandbox that have a file each. */
#ifndef CSM_SVC_SANDBOX_INTERNAL_H
#define CSM_SVC_SANDBOX_INTERNAL_H

#include "daemon/svc/sandbox.h"

void csm_sandbox_note(struct csm_sandbox_report *report, bool in_force, const char *text);
CSM_MUST int csm_sandbox_landlock(const struct csm_sandbox *s, struct csm_sandbox_report *report);
CSM_MUST int csm_sandbox_seccomp(struct csm_sandbox_report *report);

#endif
