/* What loops may know of enrolment: the profiles, and what status tells, put together by the enrol thread once a second. */
#include <string.h>
#include "daemon/node/enrol_int.h"

int enrol_profile(const struct enrol *e, struct csm_str name)
{
	const struct csm_enrol_profile *p = csm_config_enrol(&e->b->cfg, name.p, name.n);

	return p == NULL || e->queue == NULL ? -1 : (int)(p - e->b->cfg.enrol);
}

const char *enrol_hostname(const struct enrol *e)
{
	return e->hostname;
}

const struct csm_enrol_profile *enrol_config(const struct enrol *e, int profile)
{
	return &e->b->cfg.enrol[profile];
}

/* ---- anchors ---- */

int enrol_trust(struct enrol *e, struct eprofile *p, struct csm_bin anchors)
{
	int r;

	pthread_mutex_lock(&e->lock);
	csm_buf_reset(&p->anchors);
	r = csm_buf_put(&p->anchors, anchors.p, anchors.n);
	pthread_mutex_unlock(&e->lock);
	return r;
}

struct csm_bin enrol_anchors(struct enrol *e, struct csm_str profile, struct csm_pool *pool)
{
	int i = e == NULL ? -1 : enrol_profile(e, profile);
	struct csm_bin ret = {NULL, 0};
	const struct csm_buf *from;
	uint8_t *p;

	if (i < 0)
		return ret;
	from = &e->profile[i].anchors;
	pthread_mutex_lock(&e->lock);
	if (from->len > 0 && (p = csm_pool_alloc(pool, from->len)) != NULL)
		ret = (struct csm_bin){memcpy(p, csm_buf_ptr(from), from->len), from->len};
	pthread_mutex_unlock(&e->lock);
	return ret;
}

/* ---- status ---- */

static void look(struct enrol *e, struct eprofile *p, struct enrol_told *t)
{
	struct erecord rec;

	*t = (struct enrol_told){.state = own_is_valid(e, p) ? "ready" : "waiting"};
	for (struct csm_renew_item *i = e->renew.first; i != NULL; i = i->next) {
		const struct entry *en = (const struct entry *)i;

		if (en->p != p || en == p->own || i->off)
			continue;
		t->certificates++;
		t->failing += i->attempts > 0;
	}
	if (p->own == NULL) {
		(void)snprintf(t->error, sizeof(t->error), "%s", p->why);
		return;
	}
	if (enrol_own_backend(e, p) == 0)
		(void)snprintf(t->key_backend, sizeof(t->key_backend), "%s", p->key_backend);
	t->not_after = p->own->item.not_after;
	t->next_try = p->own->item.next_try;
	if (p->own->item.attempts == 0)
		return;
	erecord_init(&rec);
	if (erecord_load(e, entry_ns(p->own), entry_name(p->own), p->own->id, &rec) == 0)
		(void)snprintf(t->error, sizeof(t->error), "%.*s", (int)rec.info.last_error.n, rec.info.last_error.p);
	erecord_free(&rec);
}

void enrol_tell(struct enrol *e)
{
	struct enrol_told t;

	for (size_t i = 0; i < e->n_profiles; i++) {
		look(e, &e->profile[i], &t);
		pthread_mutex_lock(&e->lock);
		e->told[i] = t;
		pthread_mutex_unlock(&e->lock);
	}
}

static struct csm_str text_of(struct csm_pool *pool, const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = csm_pool_alloc(pool, n);

	return p == NULL ? CSM_STR("") : (struct csm_str){memcpy(p, s, n), n - 1};
}

void enrol_status(struct enrol *e, struct csm_pool *pool, struct csm_msg_status_res *ret)
{
	size_t n = e->queue != NULL ? e->b->cfg.n_enrol : 0;

	ret->enrolment.v = csm_pool_alloc(pool, (n + 1) * sizeof(*ret->enrolment.v));
	if (ret->enrolment.v == NULL)
		return;
	pthread_mutex_lock(&e->lock);
	for (size_t i = 0; i < n; i++) {
		const struct enrol_told *t = &e->told[i];

		ret->enrolment.v[i] = (struct csm_msg_enrolment_status){.name = csm_str_of(e->b->cfg.enrol[i].name),
			.state = csm_str_of(t->state != NULL ? t->state : "waiting"),
			.certificates = {t->certificates, true}, .failing = {t->failing, true},
			.not_after = {t->not_after, t->not_after > 0}, .next_try = {t->next_try, t->next_try > 0}};
		if (t->error[0] != '\0')
			ret->enrolment.v[i].error = text_of(pool, t->error);
		if (t->key_backend[0] != '\0')
			ret->enrolment.v[i].key_backend = text_of(pool, t->key_backend);
	}
	pthread_mutex_unlock(&e->lock);
	ret->enrolment.n = n;
}
