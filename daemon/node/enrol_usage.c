/* What the keys with certificates were used for, as the CA is told it. A report is in the store before it is sent, and is sent
 * as it is until the CA has it: the same rows of the same period take the place of themselves there. Only then do the records
 * of the keys say up to where it is told. So a signature that is on record is told once, whatever ends in between. */
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/enrol_int.h"
#include "daemon/svc/log.h"

#define AGAIN_MS 60000u
#define ROWS_MAX 256u       /* in one report; the server's limit */
#define BODY_FULL 40000u    /* no further key then: what is remembered has at most 64 KiB */
#define REPORT_MAX 65536u
/* form (1), from (8), length of the body (4), body, and of each key in it id (16) and signatures in all (8) */
#define FORM 1u
#define HEAD 13u
#define KEY_LEN (CSM_KEY_ID_LEN + 8u)

static void put_number(uint8_t *p, size_t n, uint64_t v)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static uint64_t get_number(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

/* ---- in the store ---- */

static void name_of(const struct eprofile *p, char out[static 96])
{
	(void)snprintf(out, 96, "usage:%s", p->cfg->name);
}

struct report {
	struct csm_buf body, keys;
	size_t rows;
	uint64_t from, to;
};

/* NULL: just where the next period begins. */
static int remember(struct enrol *e, struct eprofile *p, const struct report *m)
{
	uint8_t head[HEAD] = {FORM};
	char name[96];
	struct csm_store_op sop = {.kind = CSM_OP_REMEMBER, .ns = CSM_STR("")};
	int r;

	name_of(p, name);
	sop.name = csm_str_of(name);
	put_number(head + 1, 8, p->usage_from);
	put_number(head + 9, 4, m != NULL ? m->body.len : 0);
	csm_buf_reset(&p->report);
	if ((r = csm_buf_put(&p->report, head, sizeof(head))) == 0 && m != NULL &&
		(r = csm_buf_put(&p->report, csm_buf_ptr(&m->body), m->body.len)) == 0)
		r = csm_buf_put(&p->report, csm_buf_ptr(&m->keys), m->keys.len);
	if (r == 0 && p->report.len > REPORT_MAX)
		r = CSM_ETOO_LARGE;
	sop.payload = (struct csm_bin){csm_buf_ptr(&p->report), p->report.len};
	if (r == 0)
		r = enrol_commit(e, &sop);
	if (r != 0 || m == NULL)
		csm_buf_reset(&p->report);
	return r;
}

static struct csm_bin body_of(const struct eprofile *p)
{
	const uint8_t *at = csm_buf_ptr(&p->report);

	return (struct csm_bin){at + HEAD, get_number(at + 9, 4)};
}

void enrol_usage_load(struct enrol *e, struct eprofile *p)
{
	uint8_t *at = malloc(REPORT_MAX);
	size_t n = REPORT_MAX;
	char name[96];
	int r = CSM_ENOMEM;

	name_of(p, name);
	p->usage_from = e->now.wall_s;
	csm_buf_reset(&p->report);
	if (at == NULL || (r = csm_store_recall(e->b->store, name, at, &n)) != 0)
		goto out;
	r = CSM_ETAMPERED;
	if (n < HEAD || at[0] != FORM || get_number(at + 9, 4) > n - HEAD || (n - HEAD - get_number(at + 9, 4)) % KEY_LEN != 0)
		goto out;
	p->usage_from = get_number(at + 1, 8);
	r = get_number(at + 9, 4) > 0 ? csm_buf_put(&p->report, at, n) : 0;
out:
	free(at);
	if (r != 0 && r != CSM_ENOT_FOUND)
		log_warn("enrolment: %s: its last report of use cannot be read: %s", p->cfg->name, csm_err_text(r));
}

/* ---- a report ---- */

static int put_row(struct report *m, const char *key, const char *spki, uint64_t n, uint64_t last, const char *identity,
	const char *program)
{
	json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s}", "key", key, "spki_sha256", spki, "from", (json_int_t)m->from,
		"to", (json_int_t)m->to, "signatures", (json_int_t)n, "last_used", (json_int_t)(last < m->to ? last : m->to), "identity",
		identity, "program", program);
	char *text = j != NULL ? json_dumps(j, JSON_COMPACT) : NULL;
	int r = CSM_ENOMEM;

	if (text != NULL && (r = m->rows > 0 ? csm_buf_put(&m->body, ",", 1) : 0) == 0)
		r = csm_buf_put(&m->body, text, strlen(text));
	m->rows++;
	free(text);
	json_decref(j);
	return r;
}

/* One key's part: who used it most, and the others together, with what nobody remembers who did. */
static int put_key(struct enrol *e, struct report *m, struct entry *en)
{
	uint8_t hash[crypto_hash_sha256_BYTES], key[KEY_LEN];
	char hex[2 * sizeof(hash) + 1], name[CSM_KEYREF_MAX + 2];
	struct count_share share[COUNT_SHARES_MAX];
	struct csm_buf spki;
	uint64_t total = 0, rest;
	size_t n;
	int r;

	csm_buf_init(&spki, CSM_SPKI_MAX, false);
	/* what is on record: of the counts of the last seconds a crash may take some back */
	r = enrol_spki(e, entry_ns(en), entry_name(en), en->id, &spki, NULL, &total);
	crypto_hash_sha256(hash, csm_buf_ptr(&spki), spki.len);
	csm_buf_free(&spki);
	if (r != 0 || total <= en->reported)
		return r == CSM_ENOT_FOUND ? 0 : r;
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	(void)snprintf(name, sizeof(name), "%s:%s", en->ns, en->name);
	rest = total - en->reported;
	n = counts_users_take(&e->b->counts, en->id, rest, share);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = put_row(m, name, hex, share[i].n, share[i].last_used, share[i].identity, share[i].program);
		rest -= share[i].n;
	}
	if (r == 0 && rest > 0)
		r = put_row(m, name, hex, rest, m->to, "other", "");
	memcpy(key, en->id, CSM_KEY_ID_LEN);
	put_number(key + CSM_KEY_ID_LEN, 8, total);
	return r == 0 ? csm_buf_put(&m->keys, key, sizeof(key)) : r;
}

/* The next part of what is to be told of this period; the report stays empty when all of it was. */
static int make_report(struct enrol *e, struct eprofile *p)
{
	struct report m = {.from = p->usage_from, .to = p->usage_to};
	int r;

	csm_buf_init(&m.body, CSM_ENROL_BODY_MAX, false);
	csm_buf_init(&m.keys, CSM_MESSAGE_MAX, false);
	r = csm_buf_put(&m.body, "{\"reports\":[", 12);
	for (struct csm_renew_item *i = e->renew.first; i != NULL && r == 0; i = i->next) {
		struct entry *en = (struct entry *)i;

		if (en->p != p || en->item.not_after == 0 || en->told_to == p->usage_to)
			continue;
		if (m.rows + COUNT_SHARES_MAX + 1 > ROWS_MAX || m.body.len > BODY_FULL)
			break;
		en->told_to = p->usage_to;
		r = put_key(e, &m, en);
	}
	if (r == 0 && m.rows > 0 && (r = csm_buf_put(&m.body, "]}", 2)) == 0)
		r = remember(e, p, &m);
	csm_buf_free(&m.body);
	csm_buf_free(&m.keys);
	return r;
}

static void later(struct enrol *e, struct eprofile *p, uint64_t ms)
{
	uint64_t most = e->b->cfg.usage_interval_s * 1000u;

	p->usage_to = 0;
	p->usage_after_ms = e->now.boot_ms + (ms < most ? ms : most);
}

void enrol_usage_due(struct enrol *e, struct eprofile *p)
{
	struct csm_bin body;
	struct errand *d;
	int r = 0;

	if (p->usage_after_ms == 0)
		later(e, p, p->report.len > 0 ? 1 : UINT64_MAX); /* after a start */
	if (p->reporting || e->now.boot_ms < p->usage_after_ms)
		return;
	if (p->report.len == 0) {
		if (p->usage_to == 0) {
			p->usage_to = e->now.wall_s;
			if (p->usage_from > p->usage_to)
				p->usage_from = p->usage_to; /* the clock was set back */
		}
		if ((r = make_report(e, p)) == 0 && p->report.len == 0) {
			p->usage_from = p->usage_to;
			later(e, p, UINT64_MAX);
			if (p->usage_told && remember(e, p, NULL) == 0)
				p->usage_told = false;
			return;
		}
	}
	if (r == 0 && (r = errand_new(e, p, ERRAND_USAGE, &d)) == 0) {
		p->reporting = true;
		body = body_of(p);
		if ((r = csm_buf_put(&d->body, body.p, body.n)) != 0)
			errand_end(e, d, r, NULL);
	} else {
		log_warn("enrolment: %s: no report of use can be made: %s", p->cfg->name, csm_err_text(r));
		later(e, p, AGAIN_MS);
	}
}

/* ---- its end ---- */

static int key_told(struct enrol *e, struct entry *en, uint64_t total)
{
	struct erecord rec;
	int r;

	if (total <= en->reported)
		return 0;
	erecord_init(&rec);
	if ((r = erecord_load(e, entry_ns(en), entry_name(en), en->id, &rec)) == 0) {
		rec.info.reported = (struct csm_u64){total, true};
		r = erecord_save(e, entry_ns(en), entry_name(en), en->id, &rec, NULL);
	}
	if (r == 0)
		en->reported = total;
	erecord_free(&rec);
	return r == CSM_ENOT_FOUND ? 0 : r;
}

static int keys_told(struct enrol *e, struct eprofile *p)
{
	struct csm_bin body = body_of(p);
	const uint8_t *at = body.p + body.n, *end = csm_buf_ptr(&p->report) + p->report.len;

	int r = 0;

	for (; at < end && r == 0; at += KEY_LEN)
		for (struct csm_renew_item *i = e->renew.first; i != NULL && r == 0; i = i->next) {
			struct entry *en = (struct entry *)i;

			if (memcmp(en->id, at, CSM_KEY_ID_LEN) == 0)
				r = key_told(e, en, get_number(at + CSM_KEY_ID_LEN, 8));
		}
	return r;
}

void enrol_usage_ended(struct enrol *e, struct eprofile *p, int r)
{
	bool refused = r == CSM_EINVALID || r == CSM_EDENIED || r == CSM_ETOO_LARGE;

	p->reporting = false;
	if (e->stopped)
		return;
	if (r == 0 && (r = keys_told(e, p)) == 0) {
		p->usage_told = true;
		r = remember(e, p, NULL);
	} else if (refused) {
		/* nobody was told anything by it: another one is made */
		later(e, p, UINT64_MAX);
		r = remember(e, p, NULL);
	} else {
		later(e, p, AGAIN_MS); /* the same once more */
	}
	if (r != 0)
		log_warn("enrolment: %s: its report of use is not over: %s", p->cfg->name, csm_err_text(r));
}
