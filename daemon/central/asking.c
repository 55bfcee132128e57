#include <stdlib.h>
#include <string.h>
#include "daemon/central/asking.h"

#define POOL_MAX (1024u * 1024u)
_Static_assert(CSM_HTTP_TOGETHER_MAX <= DB_TOGETHER_MAX, "what comes together is served together");

static bool begin(const struct asking_way *w, struct central *c, const struct csm_http_req *req, struct asking *a, struct csm_http_res *res)
{
	memset(a, 0, sizeof(*a));
	a->ask.by = &a->by;
	a->ask.profile = a->ask.idempotency = CSM_STR("");
	csm_pool_init(&a->pool, POOL_MAX);
	return w->begin(c, req, a, res);
}

static void asking_free(struct asking *a)
{
	json_decref(a->root);
	csm_pool_free(&a->pool);
}

static void end(const struct asking_way *w, struct csm_http_res *res, int r, struct ca_answer *a, const char *why)
{
	w->end(res, r, a, why);
	if (r == 0)
		ca_answer_free(a);
}

void asking_alone(const struct asking_way *w, struct central *c, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct ca_answer answer = {.serial_len = 0};
	char why[CA_WHY] = "";
	struct asking a;

	if (begin(w, c, req, &a, res)) {
		int r = w->renewal ? ca_renew(c, &a.ask, &answer, why) : ca_issue(c, &a.ask, &answer, why);

		end(w, res, r, &answer, why);
	}
	asking_free(&a);
}

/* ---- several ---- */

struct together {
	const struct asking_way *w;
	struct csm_http_one *http; /* of all */
	struct asking asking[CSM_HTTP_TOGETHER_MAX];
	/* of those that could be read */
	struct ca_one one[CSM_HTTP_TOGETHER_MAX];
	size_t of[CSM_HTTP_TOGETHER_MAX];
};

static void settled(void *arg, size_t i)
{
	struct together *t = arg;
	struct csm_http_one *h = &t->http[t->of[i]];
	struct ca_one *one = &t->one[i];

	if (one->alone) {
		csm_http_serve_alone(h);
		return;
	}
	end(t->w, h->res, one->r, &one->answer, one->why);
	csm_http_answer_now(h);
}

void asking_together(const struct asking_way *w, struct central *c, struct csm_http_one *v, size_t n)
{
	struct together *t = calloc(1, sizeof(*t));
	size_t m = 0;

	if (t == NULL) {
		for (size_t i = 0; i < n; i++)
			csm_http_fail(v[i].res, CSM_EBUSY, "no memory");
		return;
	}
	t->w = w;
	t->http = v;
	for (size_t i = 0; i < n; i++) {
		if (begin(w, c, v[i].req, &t->asking[i], v[i].res)) {
			t->one[m].ask = &t->asking[i].ask;
			t->one[m].renewal = w->renewal;
			t->of[m++] = i;
		} else {
			csm_http_answer_now(&v[i]);
		}
	}
	if (m > 0)
		ca_together(c, t->one, m, settled, t);
	for (size_t i = 0; i < m; i++)
		if (v[t->of[i]].req != NULL)
			end(w, v[t->of[i]].res, t->one[i].r, &t->one[i].answer, t->one[i].why);
	for (size_t i = 0; i < n; i++)
		asking_free(&t->asking[i]);
	free(t);
}
