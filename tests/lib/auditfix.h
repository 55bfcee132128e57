/* An audit log in a folder of its own, its lines read back and checked. */
#ifndef TESTS_LIB_AUDITFIX_H
#define TESTS_LIB_AUDITFIX_H

#include <jansson.h>
#include <sys/resource.h>
#include "daemon/svc/audit.h"

extern char audit_folder[80], audit_file[96]; /* the folder, and audit.log in it */
extern char audit_aside[96];                  /* a name outside of it, on the same file system */
extern struct csm_audit_options audit_options;
extern struct csm_audit_signer audit_signer;
int audit_setup(void **state); /* a new folder, default options */
int audit_teardown(void **state);

struct csm_audit *audit_opened(void);
/* As opened by a store that names the line of the mark, NULL: none. */
struct csm_audit *audit_attached(const struct csm_audit_mark *mark);

/* What the check of the chain has found: the first problem. */
struct audit_found {
	size_t problems, notes;
	enum csm_chain_problem first;
	uint64_t seq, last, line;
	char file[64];
};
extern struct audit_found audit_found;
extern size_t audit_lines;
/* Reads all files; how many lines are no JSON. head may be NULL. */
size_t audit_read(const struct csm_audit_mark *head);
void audit_assert_whole(const struct csm_audit_mark *head);
const char *audit_text(size_t i, const char *name);
json_int_t audit_number(size_t i, const char *name);
size_t audit_count(const char *event);
size_t audit_index(const char *event); /* of the first */
struct csm_audit_mark audit_last(void); /* the last line that was read */

/* Names in the folder, sorted: the files that were filled come before audit.log. */
size_t audit_names(char names[][64], size_t max);
void audit_take_away(const char *name);

struct csm_audit_event audit_event_of(enum csm_audit_kind kind, const char *method, uid_t uid, const char *object);
int audit_change(struct csm_audit *a, const char *object, struct csm_audit_mark *mark);
/* Counted, or submitted: then audit_done and audit_last_r tell of its end. */
void audit_denied(struct csm_audit *a, const char *method, uid_t uid);
extern size_t audit_done;
extern int audit_last_r;

/* No file may grow beyond; RLIM_INFINITY ends that. */
void audit_limit_file(rlim_t size);
rlim_t audit_file_size(void);

#endif
