/* The audit log: one JSON object a line in <dir>/audit.log. Any thread. A `change` is written before the answer that
 * tells of it; `denied` too, up to ten of one identity in a minute, the rest as one counted line at its end; `use` is
 * counted per identity, object and minute. */
#ifndef CSM_SVC_AUDIT_H
#define CSM_SVC_AUDIT_H

#include <sys/types.h>
#include "libclient/base/name.h"

enum csm_audit_kind { CSM_AUDIT_CHANGE, CSM_AUDIT_DENIED, CSM_AUDIT_USE };
struct csm_audit;
struct csm_audit_event {
	enum csm_audit_kind kind;
	const char *method;
	uid_t uid;
	pid_t pid;
	struct csm_str object;
	const char *result; /* an error's name, or "ok" */
};

/* Opens or makes the file. strict: an event that cannot be written is CSM_EUNAVAILABLE, else 0 and a mark in
 * status. */
CSM_MUST int csm_audit_open(const char *dir, bool strict, struct csm_audit **ret);
void csm_audit_close(struct csm_audit *a);
CSM_MUST int csm_audit_event(struct csm_audit *a, const struct csm_audit_event *e);
/* Once a second: writes the counted rows of the minute that ended, syncs. */
void csm_audit_tick(struct csm_audit *a);
bool csm_audit_failing(struct csm_audit *a);
/* strict, and the last line could not be written: nothing that would have to be told may be done. csm_audit_tick tries
 * again. */
bool csm_audit_refuses(struct csm_audit *a);

#endif
