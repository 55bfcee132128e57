/* Who signed with which key since it was last asked: one table for the node, with few places for each bucket, so that nobody
 * makes a signature slower by being many. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/node/counts.h"

#define BUCKETS 1024u
#define BUCKET_MAX 8u

struct user {
	uint8_t id[CSM_KEY_ID_LEN];
	bool own; /* csmd itself */
	uid_t uid;
	struct csm_audit_place *place; /* a reference, or NULL */
	uint64_t n, last_used;
	struct user *next;
	char program[]; /* empty: not known */
};
struct count_users {
	struct user *bucket[BUCKETS];
};

int counts_users_on(struct counts *c)
{
	if (c->users == NULL)
		c->users = calloc(1, sizeof(*c->users));
	return c->users != NULL ? 0 : CSM_ENOMEM;
}

static void drop(struct user **at)
{
	struct user *u = *at;

	*at = u->next;
	csm_audit_place_unref(u->place);
	free(u);
}

void counts_users_free(struct counts *c)
{
	for (size_t i = 0; c->users != NULL && i < BUCKETS; i++)
		while (c->users->bucket[i] != NULL)
			drop(&c->users->bucket[i]);
	free(c->users);
	c->users = NULL;
}

/* ---- counting ---- */

static uint32_t mix(uint32_t h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const uint8_t *)p)[i]) * 16777619u;
	return h;
}

static struct user **find(struct count_users *t, const uint8_t *id, const struct count_who *who, const char *program)
{
	const char *place = who != NULL ? csm_audit_place_text(who->place) : "";
	uint32_t h = mix(2166136261u, id, 8);
	struct user **at;
	size_t n = 0;

	if (who != NULL)
		h = mix(mix(mix(h, &who->uid, sizeof(who->uid)), place, strlen(place)), program, strlen(program));
	for (at = &t->bucket[h % BUCKETS]; *at != NULL && n < BUCKET_MAX; at = &(*at)->next, n++) {
		struct user *u = *at;

		if (memcmp(u->id, id, CSM_KEY_ID_LEN) == 0 && u->own == (who == NULL) &&
			(who == NULL || (u->uid == who->uid && strcmp(csm_audit_place_text(u->place), place) == 0 &&
			strcmp(u->program, program) == 0)))
			return at;
	}
	return n < BUCKET_MAX ? at : NULL;
}

void counts_users_add(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN], const struct count_who *who)
{
	const char *program = who != NULL && who->program != NULL ? who->program : "";
	struct user **at = find(c->users, id, who, program), *u;

	if (at == NULL)
		return;
	if ((u = *at) == NULL) {
		if ((u = calloc(1, sizeof(*u) + strlen(program) + 1)) == NULL)
			return;
		memcpy(u->id, id, CSM_KEY_ID_LEN);
		memcpy(u->program, program, strlen(program) + 1);
		u->own = who == NULL;
		u->uid = who != NULL ? who->uid : 0;
		u->place = csm_audit_place_ref(who != NULL ? who->place : NULL);
		*at = u;
	}
	u->n++;
	u->last_used = (uint64_t)time(NULL);
}

/* ---- telling ---- */

/* ,"unit":"x","pod":"y" without what JSON needs: unit=x pod=y, each after a space. */
static void put_place(char *out, size_t cap, const char *text)
{
	bool inside = false;
	size_t n = 0;

	for (; *text != '\0' && n + 1 < cap; text++) {
		if (*text == '"') {
			inside = !inside;
			continue;
		}
		if (inside && *text == '\\' && text[1] != '\0')
			text++;
		if (inside)
			out[n++] = *text == ' ' ? '?' : *text;
		else
			out[n++] = *text == ',' ? ' ' : '=';
	}
	out[n] = '\0';
}

static void tell(const struct user *u, uint64_t n, struct count_share *ret)
{
	size_t len = strlen(u->program), from = len > COUNT_TEXT_MAX ? len - COUNT_TEXT_MAX : 0;
	int head;

	*ret = (struct count_share){.n = n, .last_used = u->last_used};
	head = snprintf(ret->identity, sizeof(ret->identity), u->own ? "csmd" : "uid=%lu", (unsigned long)u->uid);
	if (!u->own && head > 0)
		put_place(ret->identity + head, sizeof(ret->identity) - (size_t)head, csm_audit_place_text(u->place));
	for (size_t i = from; i < len; i++)
		ret->program[i - from] = u->program[i];
	for (char *p = ret->program; *p != '\0'; p++)
		if (*p < ' ' || *p >= 0x7f)
			*p = '?';
}

/* Into the list of those with most, which is in order; who falls out of it is forgotten. */
static size_t rank(const struct user **top, size_t n, const struct user *u)
{
	size_t at = n < COUNT_SHARES_MAX ? n++ : COUNT_SHARES_MAX - 1;

	if (top[at] != NULL && top[at]->n >= u->n)
		return n;
	while (at > 0 && top[at - 1]->n < u->n) {
		top[at] = top[at - 1];
		at--;
	}
	top[at] = u;
	return n;
}

size_t counts_users_take(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN], uint64_t most,
	struct count_share ret[static COUNT_SHARES_MAX])
{
	const struct user *top[COUNT_SHARES_MAX] = {NULL};
	size_t n = 0;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; c->users != NULL && i < BUCKETS; i++)
		for (const struct user *u = c->users->bucket[i]; u != NULL; u = u->next)
			if (memcmp(u->id, id, CSM_KEY_ID_LEN) == 0)
				n = rank(top, n, u);
	for (size_t i = 0; i < n; i++) {
		uint64_t part = top[i]->n < most ? top[i]->n : most;

		tell(top[i], part, &ret[i]);
		most -= part;
	}
	for (size_t i = 0; n > 0 && i < BUCKETS; i++)
		for (struct user **at = &c->users->bucket[i]; *at != NULL;) {
			struct user *u = *at;
			size_t k = 0;

			if (memcmp(u->id, id, CSM_KEY_ID_LEN) != 0) {
				at = &u->next;
				continue;
			}
			while (k < n && top[k] != u)
				k++;
			/* not folded into the store yet: told next time */
			if (k < n && u->n > ret[k].n) {
				u->n -= ret[k].n;
				at = &u->next;
			} else {
				drop(at);
			}
		}
	pthread_mutex_unlock(&c->lock);
	while (n > 0 && ret[n - 1].n == 0)
		n--;
	return n;
}
