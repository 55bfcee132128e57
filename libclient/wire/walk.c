#include "libclient/wire/walk.h"

void csm_walk_init(struct csm_scanner *w)
{
	w->pos = 0;
	w->owed = 1;
	w->depth = 0;
}

/* One value less in the innermost container, and in those that end with it. */
static void walk_leave(struct csm_scanner *w)
{
	while (w->depth > 0 && --w->left[w->depth - 1] == 0)
		w->depth--;
}

int csm_walk(struct csm_scanner *w, const uint8_t *p, size_t n, size_t limit, size_t *need)
{
	uint64_t size, least;
	struct head h;
	bool container;
	int r;

	while (w->owed > 0) {
		r = head_read(p + w->pos, n - w->pos, &h);
		if (r != 0 && r != CSM_EBUSY)
			return r;
		size = h.size + (r == 0 ? head_payload(&h) : 0);
		/* Each value that is still owed takes a byte at least. */
		least = w->pos + size + w->owed - 1 + (r == 0 ? head_items(&h) : 0);
		if (least > limit)
			return CSM_ETOO_LARGE;
		container = r == 0 && (h.type == HEAD_ARRAY || h.type == HEAD_MAP);
		if (container && w->depth == CSM_DEPTH_MAX)
			return CSM_ETOO_LARGE;
		if (r != 0 || size > n - w->pos) {
			*need = (size_t)least;
			return CSM_EBUSY;
		}
		w->pos += (size_t)size;
		w->owed += head_items(&h) - 1;
		if (head_items(&h) > 0)
			w->left[w->depth++] = (uint32_t)head_items(&h);
		else
			walk_leave(w);
	}
	return 0;
}
