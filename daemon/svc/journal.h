/* A journal: what becomes durable before LMDB has it, in a file of fixed size that is written in place, so that a sync of it writes a
 * few pages in a row and no metadata. An entry has a number, is sealed with a MAC, names the MAC of the one before it (the first: the
 * base that it follows on), and starts a page of its own, so that no answered byte is ever written again. One thread at a time. */
#ifndef CSM_SVC_JOURNAL_H
#define CSM_SVC_JOURNAL_H

#include "daemon/svc/prk.h"
#include "libclient/base/buf.h"
#include "libclient/base/name.h"

#define JOURNAL_HEAD 56u
#define JOURNAL_MAC 32u
#define JOURNAL_ROW_HEAD 8u

struct csm_journal {
	size_t size;
	const char *magic; /* 8 bytes, of this owner's entries */
	const struct prk *key; /* of the MACs; set before anything is read or written */
	int fd;            /* -1: there is none */
	bool unsure;       /* an entry behind those that count may be on the disk */
	bool dead;         /* and stays there, not answered */
	size_t used, high; /* bytes that count; that may not be zero */
	uint64_t entries;  /* that count */
	uint8_t head[JOURNAL_MAC]; /* of the last of them, or what the first follows on */
	struct csm_buf in;
};
/* size: whole pages. */
void csm_journal_init(struct csm_journal *j, size_t size, const char *magic);
/* The folder's file of that name; made, by way of new.NAME, where there is none or one of another size, which was never used. Without
 * room for one there is none. CSM_E with errno. The caller syncs the folder. */
CSM_MUST int csm_journal_open(struct csm_journal *j, const char *folder, const char *name);
void csm_journal_close(struct csm_journal *j);
/* Nothing of it counts, and nothing is there. */
int csm_journal_erase(struct csm_journal *j);
/* None of its entries count any more, LMDB has them; the next one follows on `head`, or with NULL on what the next one would have. */
void csm_journal_restart(struct csm_journal *j, const uint8_t *head);

/* Has it room for an entry of n bytes of rows? */
bool csm_journal_takes(const struct csm_journal *j, size_t n);
/* JOURNAL_HEAD bytes of b, filled in here, and rows: on the disk when it returns 0. Whatever it returns, b's bytes stay. */
CSM_MUST int csm_journal_append(struct csm_journal *j, struct csm_buf *b, uint64_t number);
/* An entry that could not be appended was refused: it must not count at a start. CSM_EUNAVAILABLE: it may, and the journal is dead. */
int csm_journal_undo(struct csm_journal *j);

/* Is its first entry a genuine one of that number? */
bool csm_journal_begins(struct csm_journal *j, uint64_t number);
/* What follows on j->head and `number`, in order. CSM_ETAMPERED: something genuine is there that is newer and does not follow on, or
 * lacks what it follows on; what does was applied. CSM_ETAMPERED of apply is the same. */
typedef int csm_journal_apply(void *arg, uint64_t number, struct csm_bin rows);
CSM_MUST int csm_journal_replay(struct csm_journal *j, uint64_t number, csm_journal_apply *apply, void *arg);
/* All that counts once more. CSM_ESYSTEM: what was synced cannot be read back. */
CSM_MUST int csm_journal_again(struct csm_journal *j, csm_journal_apply *apply, void *arg);

/* ---- rows: a number of the owner's (1), 1: a deletion (1), length of the key (2), of the value (4), key, value ---- */
struct csm_journal_row {
	uint8_t number;
	bool del;
	struct csm_bin key, value;
};
static inline size_t csm_journal_row_len(size_t key, size_t value)
{
	return JOURNAL_ROW_HEAD + key + value;
}
/* A key of at most 65535 bytes. */
CSM_MUST int csm_journal_row_put(struct csm_buf *b, const struct csm_journal_row *row);
/* The first of rows, and the rest. CSM_ETAMPERED: they are none. */
CSM_MUST int csm_journal_row_next(struct csm_bin *rows, struct csm_journal_row *ret);

#endif
