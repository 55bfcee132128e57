#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/central/body.h"
#include "daemon/central/crl.h"

#define ENTRIES_MAX 1000000u
#define NUMBERS_LEN 41u
#define NUMBERS_VERSION 1u
#define TRIES_MAX 8
/* What a commit may take: a certificate that was revoked so long before a list was made may be missing in it. */
#define SLACK 300u

struct crl_list *crl_list_ref(struct crl_list *l)
{
	(void)__atomic_add_fetch(&l->refs, 1, __ATOMIC_RELAXED);
	return l;
}

void crl_list_unref(struct crl_list *l)
{
	if (l == NULL || __atomic_sub_fetch(&l->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	csm_buf_free(&l->der);
	csm_buf_free(&l->pem);
	free(l);
}

static int pem_put(const struct csm_buf *der, struct csm_buf *out)
{
	static const char begin[] = "-----BEGIN X509 CRL-----\n", end[] = "-----END X509 CRL-----\n";
	int r = csm_buf_put(out, begin, sizeof(begin) - 1);

	if (r == 0)
		r = body_base64((struct csm_bin){csm_buf_ptr(der), der->len}, out);
	return r != 0 ? r : csm_buf_put(out, end, sizeof(end) - 1);
}

/* One lock for all: who waits wants what is being made, or soon has its turn. */
int crl_list_pem(struct crl_list *l, struct csm_bin *ret)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int r = 0;

	(void)pthread_mutex_lock(&lock);
	if (l->pem.len == 0 && (r = pem_put(&l->der, &l->pem)) != 0)
		csm_buf_free(&l->pem);
	(void)pthread_mutex_unlock(&lock);
	if (r == 0)
		*ret = (struct csm_bin){csm_buf_ptr(&l->pem), l->pem.len};
	return r;
}

/* ---- numbers ---- */

struct mark {
	uint64_t number, at; /* of a full list */
};
struct numbers {
	uint64_t last;       /* the largest that was drawn */
	struct mark base;    /* of deltas; number 0: none yet */
	struct mark next;    /* will be the base when it is old enough; number 0: none */
};

static uint8_t *put_u64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (56 - 8 * i));
	return p + 8;
}

static const uint8_t *get_u64(const uint8_t *p, uint64_t *v)
{
	*v = 0;
	for (int i = 0; i < 8; i++)
		*v = *v << 8 | p[i];
	return p + 8;
}

static void numbers_write(const struct numbers *n, uint8_t out[static NUMBERS_LEN])
{
	uint8_t *p = out;

	*p++ = NUMBERS_VERSION;
	p = put_u64(p, n->last);
	p = put_u64(p, n->base.number);
	p = put_u64(p, n->base.at);
	p = put_u64(p, n->next.number);
	(void)put_u64(p, n->next.at);
}

static int numbers_parse(const struct csm_buf *b, struct numbers *ret)
{
	const uint8_t *p = csm_buf_ptr(b);

	if (b->len != NUMBERS_LEN || *p++ != NUMBERS_VERSION)
		return CSM_ETAMPERED;
	p = get_u64(p, &ret->last);
	p = get_u64(p, &ret->base.number);
	p = get_u64(p, &ret->base.at);
	p = get_u64(p, &ret->next.number);
	(void)get_u64(p, &ret->next.at);
	return 0;
}

/* Whoever has a full list that is still good has one of the base's number or a later one, once the base is a day old. */
static void marks_move(struct numbers *n, uint64_t now)
{
	const struct mark here = {n->last, now};

	if (n->base.number == 0) {
		n->base = here;
	} else if (n->next.number == 0) {
		n->next = here;
	} else if (now >= n->next.at + CRL_LIFE) {
		n->base = n->next;
		n->next = here;
	}
}

/* The next number. *base: of a delta under it; number 0: there cannot be one. */
static int draw_once(const struct crl_job *job, const char *name, bool full, struct mark *base, uint64_t *number)
{
	uint8_t bytes[NUMBERS_LEN];
	struct numbers n = {.last = 0};
	struct csm_buf was;
	struct csm_bin expect = {NULL, 0};
	int r;

	csm_buf_init(&was, 256, false);
	r = db_value_get(job->db, name, &was);
	if (r == 0 && (r = numbers_parse(&was, &n)) == 0)
		expect = (struct csm_bin){csm_buf_ptr(&was), was.len};
	else if (r == CSM_ENOT_FOUND)
		r = 0;
	if (r == 0 && !full && n.base.number == 0)
		r = CSM_ESTATE;
	if (r == 0) {
		/* not below the time: a database that was set back, or made anew, uses no number again */
		n.last = n.last + 1 > job->now ? n.last + 1 : job->now;
		*base = n.base;
		if (full)
			marks_move(&n, job->now);
		numbers_write(&n, bytes);
		r = db_value_put(job->db, name, (struct csm_bin){bytes, sizeof(bytes)}, &expect);
	}
	if (r == 0)
		*number = n.last;
	csm_buf_free(&was);
	return r;
}

static int draw(const struct crl_job *job, bool full, struct mark *base, uint64_t *number)
{
	char name[128];
	int r = CSM_ECONFLICT;

	if ((size_t)snprintf(name, sizeof(name), "crl/%.*s", (int)job->issuer.n, job->issuer.p) >= sizeof(name))
		return CSM_EINVALID;
	/* another csm-server on the same database may draw meanwhile */
	for (int i = 0; i < TRIES_MAX && r == CSM_ECONFLICT; i++)
		r = draw_once(job, name, full, base, number);
	return r;
}

/* ---- entries ---- */

struct entry {
	uint64_t at;
	uint8_t serial[DB_SERIAL_MAX];
	uint8_t len, reason;
	bool late; /* of the delta */
};
/* What both lists are made of: one look at the database, so that lists of one number tell the same. */
struct entries {
	struct entry *all;
	size_t n, room;
	uint64_t now, since; /* since: of the delta */
	int r;
};

static bool entries_room(struct entries *e)
{
	size_t room = e->room > 0 ? 2 * e->room : 256;
	struct entry *all;

	if (e->n < e->room)
		return true;
	if (e->n >= ENTRIES_MAX) {
		e->r = CSM_ETOO_LARGE;
		return false;
	}
	if ((all = reallocarray(e->all, room, sizeof(*all))) == NULL) {
		e->r = CSM_ENOMEM;
		return false;
	}
	e->all = all;
	e->room = room;
	return true;
}

static bool entry_take(void *arg, const struct db_revoked *r)
{
	struct entries *e = arg;
	struct entry *to;

	if (r->serial.n == 0 || r->serial.n > DB_SERIAL_MAX) {
		e->r = CSM_ETAMPERED;
		return false;
	}
	if (!entries_room(e))
		return false;
	to = &e->all[e->n++];
	/* the clock may have been set back since */
	to->at = r->at < e->now ? r->at : e->now;
	to->late = r->at >= e->since;
	to->len = (uint8_t)r->serial.n;
	to->reason = (uint8_t)r->reason;
	memcpy(to->serial, r->serial.p, r->serial.n);
	return true;
}

/* base: of the delta; late_only: nothing else is wanted. The caller frees `all`, whatever this answers. */
static int entries_read(const struct crl_job *job, const struct mark *base, bool late_only, struct entries *e)
{
	/* With a time they have what was taken back, too. */
	const uint64_t since = base->at > SLACK ? base->at - SLACK : 1;
	int r;

	*e = (struct entries){.now = job->now, .since = since};
	/* What has expired stays for one more list (RFC 5280 3.3). */
	r = db_revoked_each(job->db, job->issuer, late_only ? since : 1, job->now > CRL_LIFE ? job->now - CRL_LIFE : 0, entry_take, e);
	return r != 0 ? r : e->r;
}

/* One of the two lists, going over them. */
struct view {
	const struct entries *e;
	bool delta;
	size_t at, told;
};

static bool is_of(const struct entry *e, bool delta)
{
	return delta ? e->late : e->reason != CSM_REASON_REMOVE_FROM_CRL;
}

static int entry_next(void *arg, struct csm_revoked *ret)
{
	struct view *v = arg;
	const struct entry *from;

	while (v->at < v->e->n && !is_of(&v->e->all[v->at], v->delta))
		v->at++;
	if (v->at == v->e->n)
		return 0;
	from = &v->e->all[v->at++];
	*ret = (struct csm_revoked){{from->serial, from->len}, from->at, from->reason};
	v->told++;
	return 1;
}

/* ---- lists ---- */

/* base NULL: a full one. */
static int list_make(const struct crl_job *job, uint64_t number, const struct mark *base, const struct entries *e, struct crl_list **ret)
{
	struct view v = {.e = e, .delta = base != NULL};
	struct csm_crl_order o = {.issuer = job->cert, .number = number, .base = base != NULL ? base->number : 0,
		.this_update = job->now, .next_update = job->now + (base != NULL ? CRL_DELTA_LIFE : CRL_LIFE),
		.delta_url = base != NULL ? NULL : job->delta_url, .next = entry_next, .arg = &v};
	struct crl_list *l = calloc(1, sizeof(*l));
	int r;

	if (l == NULL)
		return CSM_ENOMEM;
	csm_buf_init(&l->der, CRL_BYTES_MAX, false);
	csm_buf_init(&l->pem, 2 * CRL_BYTES_MAX, false);
	if ((r = csm_crl_issue(&o, job->signer, &l->der)) != 0) {
		csm_buf_free(&l->der);
		free(l);
		return r;
	}
	l->refs = 1;
	l->number = number;
	l->base = o.base;
	l->this_update = o.this_update;
	l->next_update = o.next_update;
	l->entries = v.told;
	*ret = l;
	return 0;
}

/* The first list ever: nobody gets it, and all deltas of its day are to it. */
static int first_make(const struct crl_job *job, uint64_t number)
{
	struct crl_list *l = NULL;
	struct entries e;
	int r = entries_read(job, &(struct mark){0, 0}, false, &e);

	if (r == 0)
		r = list_make(job, number, NULL, &e, &l);
	crl_list_unref(l);
	free(e.all);
	return r;
}

int crl_make(const struct crl_job *job, struct crl_list **full, struct crl_list **delta)
{
	struct crl_list *f = NULL, *d = NULL;
	struct mark base = {0, 0};
	struct entries e = {.n = 0};
	uint64_t number = 0;
	int r = draw(job, true, &base, &number);

	if (r == 0 && base.number == 0 && (r = first_make(job, number)) == 0)
		r = draw(job, true, &base, &number);
	if (r == 0)
		r = entries_read(job, &base, false, &e);
	if (r == 0)
		r = list_make(job, number, NULL, &e, &f);
	if (r == 0)
		r = list_make(job, number, &base, &e, &d);
	free(e.all);
	if (r == 0) {
		*full = f;
		*delta = d;
		return 0;
	}
	crl_list_unref(f);
	return r;
}

int crl_make_delta(const struct crl_job *job, struct crl_list **delta)
{
	struct mark base = {0, 0};
	struct entries e = {.n = 0};
	uint64_t number = 0;
	int r = draw(job, false, &base, &number);

	if (r == 0)
		r = entries_read(job, &base, true, &e);
	if (r == 0)
		r = list_make(job, number, &base, &e, delta);
	free(e.all);
	return r;
}
