/* A growable byte buffer with a cap. With `secret` its memory is csm_lock_alloc's:
 * locked and wiped; with `message` csm_lock_alloc_message's. One thread at a time. */
#ifndef CSM_BASE_BUF_H
#define CSM_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include "libclient/base/err.h"

struct csm_buf {
	uint8_t *p;  /* start of the allocation */
	size_t off;  /* first unread byte */
	size_t len;  /* unread bytes */
	size_t cap;  /* bytes allocated */
	size_t max;  /* never more than this */
	bool secret;
	bool message; /* secret, too */
};

/* No allocation is made until the first byte. */
void csm_buf_init(struct csm_buf *b, size_t max, bool secret);
/* A secret buffer that others fill and may leave so: for messages and values, never for keys. */
void csm_buf_init_message(struct csm_buf *b, size_t max);
/* Frees (and wipes) the memory; the buffer can be used again. */
void csm_buf_free(struct csm_buf *b);
/* Drop the contents, keep the memory. */
void csm_buf_reset(struct csm_buf *b);
/* Room for n more bytes at *ret without committing them; CSM_ETOO_LARGE above max, CSM_ENOMEM. */
CSM_MUST int csm_buf_reserve(struct csm_buf *b, size_t n, uint8_t **ret);
/* Commit n bytes written after csm_buf_reserve; more than were reserved aborts. */
void csm_buf_commit(struct csm_buf *b, size_t n);
CSM_MUST int csm_buf_put(struct csm_buf *b, const void *p, size_t n);
/* Take n bytes from the front; n <= len, else it aborts. A secret buffer wipes them: no slice of
 * them is good afterwards. */
void csm_buf_consume(struct csm_buf *b, size_t n);
/* NULL where nothing was ever put in. */
static inline const uint8_t *csm_buf_ptr(const struct csm_buf *b)
{
	return b->off > 0 ? b->p + b->off : b->p; /* nothing is added to NULL, which C does not define */
}

#endif
