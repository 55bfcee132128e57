#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/admit.h"

#define N_SLOTS (sizeof(((struct admit *)0)->slots) / sizeof(struct admit_slot *))

void admit_init(struct admit *a, unsigned max, unsigned per_uid, unsigned reserved)
{
	memset(a, 0, sizeof(*a));
	pthread_mutex_init(&a->lock, NULL);
	a->max = max;
	a->per_uid = per_uid;
	a->reserved = reserved;
	a->files_max = UINT_MAX;
}

static struct admit_slot **bucket(struct admit *a, const struct admit_slot *key)
{
	uint32_t h = key->uid;

	for (const char *p = key->place; *p != 0; p++)
		h = h * 31 + (uint8_t)*p;
	return &a->slots[h % N_SLOTS];
}

static struct admit_slot *slot_of(struct admit *a, const struct admit_slot *key)
{
	struct admit_slot **head = bucket(a, key), *s;

	for (s = *head; s != NULL; s = s->next)
		if (s->uid == key->uid && s->admin == key->admin && strcmp(s->place, key->place) == 0)
			return s;
	s = malloc(sizeof(*s));
	if (s == NULL)
		return NULL;
	*s = *key;
	s->number = ++a->last_number;
	s->next = *head;
	*head = s;
	return s;
}

static void slot_release(struct admit *a, struct admit_slot *s)
{
	struct admit_slot **at = bucket(a, s);

	if (s->n > 0 || s->buffered > 0 || s->commits > 0)
		return;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	free(s);
}

/* Of what a connection takes `each`, is there room for one more? */
static bool room(unsigned taken, unsigned each, unsigned max, unsigned reserved)
{
	return max >= reserved && taken <= max - reserved && max - reserved - taken >= each;
}

struct admit_slot *admit_enter(struct admit *a, uid_t uid, bool admin)
{
	const struct admit_slot key = {.uid = uid, .admin = admin};
	unsigned reserved = admin ? 0 : a->reserved;
	struct admit_slot *s;

	pthread_mutex_lock(&a->lock);
	s = slot_of(a, &key);
	if (s != NULL &&
		(!room(a->total, 1, a->max, reserved) || !room(a->files, 2, a->files_max, 2 * reserved) ||
			(!admin && s->n >= a->per_uid))) {
		slot_release(a, s);
		s = NULL;
	}
	if (s != NULL) {
		s->n++;
		a->total++;
		a->files += 2;
	}
	pthread_mutex_unlock(&a->lock);
	return s;
}

struct admit_slot *admit_move(struct admit *a, struct admit_slot *slot, const char *place)
{
	struct admit_slot key = {.uid = (uid_t)-1}, *s;

	if (strlen(place) >= sizeof(key.place))
		return NULL;
	memcpy(key.place, place, strlen(place));
	pthread_mutex_lock(&a->lock);
	s = slot_of(a, &key);
	if (s != NULL && s->n >= a->per_uid) {
		slot_release(a, s);
		s = NULL;
	}
	if (s != NULL) {
		s->n++;
		slot->n--;
		slot_release(a, slot);
	}
	pthread_mutex_unlock(&a->lock);
	return s;
}

void admit_file_spared(struct admit *a)
{
	pthread_mutex_lock(&a->lock);
	a->files--;
	pthread_mutex_unlock(&a->lock);
}

void admit_leave(struct admit *a, struct admit_slot *slot)
{
	pthread_mutex_lock(&a->lock);
	slot->n--;
	a->total--;
	a->files--;
	slot_release(a, slot);
	pthread_mutex_unlock(&a->lock);
}

bool admit_charge(struct admit *a, struct admit_slot *slot, size_t n)
{
	bool fits;

	pthread_mutex_lock(&a->lock);
	fits = n <= ADMIT_BUFFERED_PER_UID && slot->buffered <= ADMIT_BUFFERED_PER_UID - n;
	if (fits)
		slot->buffered += n;
	pthread_mutex_unlock(&a->lock);
	return fits;
}

void admit_credit(struct admit *a, struct admit_slot *slot, size_t n)
{
	pthread_mutex_lock(&a->lock);
	slot->buffered -= n;
	slot_release(a, slot);
	pthread_mutex_unlock(&a->lock);
}

bool admit_commit(struct admit *a, struct admit_slot *slot)
{
	bool fits;

	pthread_mutex_lock(&a->lock);
	fits = slot->commits < ADMIT_COMMITS_PER_UID;
	if (fits)
		slot->commits++;
	pthread_mutex_unlock(&a->lock);
	return fits;
}

void admit_committed(struct admit *a, struct admit_slot *slot)
{
	pthread_mutex_lock(&a->lock);
	slot->commits--;
	slot_release(a, slot);
	pthread_mutex_unlock(&a->lock);
}

unsigned admit_total(struct admit *a)
{
	unsigned n;

	pthread_mutex_lock(&a->lock);
	n = a->total;
	pthread_mutex_unlock(&a->lock);
	return n;
}
