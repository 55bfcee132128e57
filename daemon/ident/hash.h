/* The digest of a file, in pieces on threads of its own; users take turns between the pieces. */
#ifndef CSM_IDENT_HASH_H
#define CSM_IDENT_HASH_H

#include "daemon/ident/look.h"
#include "daemon/svc/workq.h"

#define HASH_PIECE (4u * 1024u * 1024u)
#define HASH_FILE_MAX (16ull * 1024u * 1024u * 1024u)

struct hash_job {
	struct csm_job job; /* first */
	struct csm_workq *q;
	int fd;                           /* O_RDONLY; closed at the end */
	uint64_t size, changed;           /* as they have to be still at the end; changed: nanoseconds */
	void (*done)(struct hash_job *j); /* on a thread of the queue */
	int r;                            /* 0, CSM_EBUSY (it changed meanwhile), CSM_ESYSTEM, CSM_ESHUTDOWN */
	uint8_t sha256[32];
	/* inside */
	void *md, *buf;
	uint64_t at;
};

/* Once, before the sandbox is closed: what the library reads and allocates at its first use. */
CSM_MUST int hash_init(void);
/* The job is the callee's until done. On failure (CSM_EBUSY, CSM_ENOMEM) it is the caller's again, with fd. */
CSM_MUST int hash_start(struct hash_job *j, struct csm_workq *q, uid_t uid);

#endif
