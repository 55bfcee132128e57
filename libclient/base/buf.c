#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include "libclient/base/buf.h"
#include "libclient/base/lockmem.h"

#define BUF_FIRST 512u

void csm_buf_init(struct csm_buf *b, size_t max, bool secret)
{
	*b = (struct csm_buf){.max = max, .secret = secret};
}

void csm_buf_init_message(struct csm_buf *b, size_t max)
{
	*b = (struct csm_buf){.max = max, .secret = true, .message = true};
}

static void *buf_alloc(const struct csm_buf *b, size_t n)
{
	if (b->message)
		return csm_lock_alloc_message(n);
	return b->secret ? csm_lock_alloc(n) : malloc(n);
}

void csm_buf_free(struct csm_buf *b)
{
	if (b->secret)
		csm_lock_free(b->p);
	else
		free(b->p);
	*b = (struct csm_buf){.max = b->max, .secret = b->secret, .message = b->message};
}

void csm_buf_reset(struct csm_buf *b)
{
	if (b->len > 0)
		csm_buf_consume(b, b->len);
}

/* The next size that holds `need` bytes: at least doubled, so that appending stays linear. */
static size_t grown(const struct csm_buf *b, size_t need)
{
	size_t cap = b->cap > 0 ? b->cap : BUF_FIRST / 2;

	do {
		if (cap > b->max / 2)
			return b->max;
		cap *= 2;
	} while (cap < need);
	return cap;
}

/* Move the unread bytes to the front of a new allocation. */
static int buf_grow(struct csm_buf *b, size_t need)
{
	size_t cap = grown(b, need);
	uint8_t *p = buf_alloc(b, cap);

	if (p == NULL)
		return CSM_ENOMEM;
	if (b->secret)
		cap = csm_lock_size(p);
	if (b->p != NULL && b->len > 0)
		memcpy(p, b->p + b->off, b->len);
	if (b->secret)
		csm_lock_free(b->p);
	else
		free(b->p);
	b->p = p;
	b->off = 0;
	b->cap = cap;
	return 0;
}

int csm_buf_reserve(struct csm_buf *b, size_t n, uint8_t **ret)
{
	int r;

	if (b->len > b->max || n > b->max - b->len)
		return CSM_ETOO_LARGE;
	if (b->p == NULL || n > b->cap - b->off - b->len) {
		/* Moving pays when the free room in front is at least what moves, or when
		 * the buffer may not grow. */
		bool fits = b->p != NULL && n <= b->cap - b->len;

		if (fits && (b->off >= b->len || b->cap >= b->max)) {
			memmove(b->p, b->p + b->off, b->len);
			b->off = 0;
		} else if ((r = buf_grow(b, b->len + n)) != 0) {
			return r;
		}
	}
	*ret = b->p + b->off + b->len;
	return 0;
}

void csm_buf_commit(struct csm_buf *b, size_t n)
{
	/* More than was reserved is memory already overwritten: nothing can go on. */
	if (n > b->cap - b->off - b->len)
		abort();
	b->len += n;
}

int csm_buf_put(struct csm_buf *b, const void *p, size_t n)
{
	uint8_t *to;
	int r;

	if (n == 0)
		return 0;
	r = csm_buf_reserve(b, n, &to);
	if (r != 0)
		return r;
	memcpy(to, p, n);
	csm_buf_commit(b, n);
	return 0;
}

void csm_buf_consume(struct csm_buf *b, size_t n)
{
	if (n > b->len)
		abort();
	if (b->secret && n > 0)
		sodium_memzero(b->p + b->off, n);
	b->off += n;
	b->len -= n;
	if (b->len == 0)
		b->off = 0;
}
