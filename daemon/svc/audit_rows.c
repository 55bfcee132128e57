/* Counted rows: how often an identity did something with an object. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/audit_internal.h"

#define OTHERS "(others)"

/* Objects are chosen by users: without a key they could choose them to fall into one bucket. */
static uint8_t hash_key[crypto_shorthash_KEYBYTES];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
	randombytes_buf(hash_key, sizeof(hash_key));
}

void rows_init(void)
{
	pthread_once(&hash_once, make_key);
}

uint64_t rows_hash(struct csm_str s)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t h;

	_Static_assert(sizeof(h) == sizeof(hash), "a hash is a number");
	crypto_shorthash(hash, (const uint8_t *)s.p, s.n, hash_key);
	memcpy(&h, hash, sizeof(h));
	return h;
}

static unsigned bucket_of(uid_t uid, const struct csm_audit_place *place, struct csm_str object)
{
	return (unsigned)((rows_hash(object) ^ uid ^ (place == NULL ? 0 : place->hash)) % ROW_BUCKETS);
}

static bool is_row(const struct row *w, const char *method, uid_t uid, const struct csm_audit_place *place, struct csm_str object)
{
	return w->uid == uid && audit_place_same(w->place, place) && w->object_len == object.n && memcmp(w->object, object.p, object.n) == 0 &&
		(w->method == method || strcmp(w->method, method) == 0);
}

struct row *rows_get(struct rows *t, const char *method, uid_t uid, struct csm_audit_place *place, struct csm_str object)
{
	struct row **head = &t->buckets[bucket_of(uid, place, object)], *w;

	for (w = *head; w != NULL; w = w->next)
		if (is_row(w, method, uid, place, object))
			return w;
	if (t->n >= ROWS_MAX && !csm_str_eq(object, OTHERS))
		return rows_get(t, method, uid, NULL, CSM_STR(OTHERS));
	w = calloc(1, sizeof(*w) + object.n + 1);
	if (w == NULL)
		return NULL;
	w->method = method;
	w->uid = uid;
	w->place = csm_audit_place_ref(place);
	w->object_len = object.n;
	memcpy(w->object, object.p, object.n);
	w->next = *head;
	*head = w;
	t->n++;
	return w;
}

static void row_free(struct row *w)
{
	csm_audit_place_unref(w->place);
	free(w);
}

void rows_merge(struct rows *to, struct rows *from)
{
	for (size_t i = 0; i < ROW_BUCKETS; i++) {
		struct row *w;

		while ((w = from->buckets[i]) != NULL) {
			struct row *same = rows_get(to, w->method, w->uid, w->place, (struct csm_str){w->object, w->object_len});

			if (same != NULL)
				same->n += w->n;
			from->buckets[i] = w->next;
			row_free(w);
		}
	}
	from->n = 0;
}

void rows_swap(struct rows *a, struct rows *b)
{
	struct rows c = *a;

	*a = *b;
	*b = c;
}

void rows_drop_empty(struct rows *t)
{
	for (size_t i = 0; i < ROW_BUCKETS; i++)
		for (struct row **at = &t->buckets[i], *w; (w = *at) != NULL;) {
			if (w->n > 0) {
				at = &w->next;
				continue;
			}
			*at = w->next;
			row_free(w);
			t->n--;
		}
}

void rows_drop(struct rows *t, size_t buckets)
{
	for (size_t i = 0; i < buckets; i++) {
		struct row *w;

		while ((w = t->buckets[i]) != NULL) {
			t->buckets[i] = w->next;
			row_free(w);
			t->n--;
		}
	}
}

void rows_clear(struct rows *t)
{
	rows_drop(t, ROW_BUCKETS);
}

/* ---- a loop's own ---- */

int csm_audit_uses_new(struct csm_audit *a, struct csm_audit_uses **ret)
{
	struct csm_audit_uses *u = calloc(1, sizeof(*u));

	if (u == NULL)
		return CSM_ENOMEM;
	pthread_mutex_init(&u->lock, NULL);
	u->audit = a;
	pthread_mutex_lock(&a->lock);
	u->next = a->uses;
	a->uses = u;
	pthread_mutex_unlock(&a->lock);
	*ret = u;
	return 0;
}

void csm_audit_uses_free(struct csm_audit_uses *u)
{
	struct csm_audit *a;

	if (u == NULL)
		return;
	a = u->audit;
	pthread_mutex_lock(&a->lock);
	for (struct csm_audit_uses **at = &a->uses; *at != NULL; at = &(*at)->next)
		if (*at == u) {
			*at = u->next;
			break;
		}
	rows_merge(&a->left, &u->rows);
	pthread_mutex_unlock(&a->lock);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

void csm_audit_use(struct csm_audit_uses *u, const char *method, uid_t uid, struct csm_audit_place *place,
	struct csm_str object)
{
	struct row *w;

	pthread_mutex_lock(&u->lock);
	/* Without memory a count is lost, never an answer. */
	if ((w = rows_get(&u->rows, method, uid, place, object)) != NULL)
		w->n++;
	pthread_mutex_unlock(&u->lock);
}
