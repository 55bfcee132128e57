/* Rows of groups that LMDB does not have yet, in the order of their keys, each with all of its versions: who reads names the group up to
 * which it sees. One thread adds; any thread reads beside it. */
#ifndef CSM_SVC_ENGINE_ROWS_H
#define CSM_SVC_ENGINE_ROWS_H

#include "daemon/svc/engine.h"

struct engine_rows;
struct engine_found {
	bool del;
	struct csm_bin key, value; /* good for as long as the rows are */
};

struct engine_rows *engine_rows_new(void); /* NULL: no memory */
struct engine_rows *engine_rows_ref(struct engine_rows *rows);
void engine_rows_unref(struct engine_rows *rows); /* NULL is a no-op */
size_t engine_rows_memory(const struct engine_rows *rows);

/* What group changes, in the order in which it does. Groups come in the order of their numbers. */
CSM_MUST int engine_rows_add(struct engine_rows *rows, uint64_t group, const struct csm_engine_change *c);
/* What group has changed, the last one, has not come to pass. */
void engine_rows_undo(struct engine_rows *rows, uint64_t group);

/* The key's version as group `seen` left it; false: these rows say nothing of it. */
bool engine_rows_find(struct engine_rows *rows, uint64_t seen, struct csm_bin key, struct engine_found *ret);
/* The first behind `key`, with `at` also that key itself; the last before it. */
bool engine_rows_next(struct engine_rows *rows, uint64_t seen, struct csm_bin key, bool at, struct engine_found *ret);
bool engine_rows_prev(struct engine_rows *rows, uint64_t seen, struct csm_bin key, struct engine_found *ret);
/* All of them, in order, as the last group left them, while nobody adds; ends with the first that is not 0. */
CSM_MUST int engine_rows_each(struct engine_rows *rows, int (*one)(void *arg, const struct engine_found *row), void *arg);

int engine_bin_cmp(struct csm_bin a, struct csm_bin b);

#endif
