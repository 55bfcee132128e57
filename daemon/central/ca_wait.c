/* Requests that wait for a person. What is asked by is spent when the request is stored, and the certificate is made when whoever asked
 * comes again with the same request: then every check is made once more, so that an approval allows and does nothing by itself. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "daemon/central/ca_int.h"

#define POOL_MAX (1024u * 1024u)
#define AGAIN_MIN_S 5u
#define AGAIN_MAX_S 600u
#define AGAIN_PART 8u /* of the time for which it has waited */

static bool by_hand(const struct caller *by, const struct profile_config *p, bool renewal)
{
	/* who is root of this host could write another server.yaml */
	bool local = by->role == CALLER_ADMINISTRATOR && by->cert.serial.n == 0;

	return !local && p->approval != APPROVAL_NONE && (p->approval != APPROVAL_FIRST || !renewal);
}

bool ca_waits(const struct caller *by, const struct profile_config *p, bool renewal)
{
	return p->issuer->external != NULL || by_hand(by, p, renewal);
}

struct csm_str ca_who(const struct caller *by, struct csm_pool *pool)
{
	size_t n = by->cert.node.n + sizeof("node ");
	char *text;

	if (by->role != CALLER_NODE || by->cert.node.n == 0)
		return csm_str_of(by->name);
	if ((text = csm_pool_alloc(pool, n)) == NULL)
		return (struct csm_str){NULL, 0};
	(void)snprintf(text, n, "node %.*s", (int)by->cert.node.n, by->cert.node.p);
	return (struct csm_str){text, n - 1};
}

/* ---- the same request is the same row ---- */

static void hash_part(crypto_generichash_state *h, const void *p, size_t n)
{
	uint64_t len = n;

	(void)crypto_generichash_update(h, (const uint8_t *)&len, sizeof(len));
	if (n > 0)
		(void)crypto_generichash_update(h, p, n);
}

static void make_id(struct ca_wait *w, struct csm_str who, struct csm_bin asked)
{
	crypto_generichash_state h;

	(void)crypto_generichash_init(&h, NULL, 0, DB_REQUEST_ID_LEN);
	hash_part(&h, who.p, who.n);
	hash_part(&h, asked.p, asked.n);
	hash_part(&h, w->profile->name, strlen(w->profile->name));
	hash_part(&h, w->renews.p, w->renews.n);
	hash_part(&h, &w->ask->ttl, sizeof(w->ask->ttl));
	(void)crypto_generichash_final(&h, w->id, DB_REQUEST_ID_LEN);
}

/* The request's bytes in the pool. */
static int csr_der(const struct csm_certreq *q, struct csm_pool *pool, struct csm_bin *ret)
{
	uint8_t *mem = csm_pool_alloc(pool, q->der.n);

	if (mem == NULL)
		return CSM_ENOMEM;
	memcpy(mem, q->der.p, q->der.n);
	*ret = (struct csm_bin){mem, q->der.n};
	return 0;
}

int ca_wait_find(struct ca_wait *w)
{
	struct csm_str who = ca_who(w->ask->by, w->pool);
	struct csm_bin csr = {NULL, 0};
	int r;

	if (who.n == 0 || csr_der(w->q, w->pool, &csr) != 0)
		return ca_refuse(w->why, CSM_EBUSY, "no memory");
	make_id(w, who, w->q->tbs); /* who signs the same anew, as csmd after a restart, asks the same */
	r = db_request_get(w->c->db, w->id, w->now, w->pool, &w->row);
	w->found = r == 0;
	if (r == CSM_ENOT_FOUND) {
		w->row = (struct db_request){.state = by_hand(w->ask->by, w->profile, w->renews.n > 0) ? DB_WAITING : DB_APPROVED,
			.who = who, .csr = csr};
		memcpy(w->row.id, w->id, sizeof(w->id));
	}
	return r == 0 || r == CSM_ENOT_FOUND ? 0 : ca_refuse(w->why, r, "the database: %s", csm_err_text(r));
}

/* ---- its turn ---- */

static uint32_t again_s(uint64_t created, uint64_t now)
{
	uint64_t s = now > created ? (now - created) / AGAIN_PART : 0;

	return (uint32_t)(s < AGAIN_MIN_S ? AGAIN_MIN_S : s > AGAIN_MAX_S ? AGAIN_MAX_S : s);
}

void ca_wait_tell(const struct ca_wait *w, struct ca_answer *ret)
{
	struct ca_answer a = {.waits = true, .retry_after_s = again_s(w->row.created, w->now)};

	(void)sodium_bin2hex(a.request, sizeof(a.request), w->id, sizeof(w->id));
	*ret = a;
}

static int add(struct ca_wait *w)
{
	const struct caller *by = w->ask->by;
	const struct db_payment pay = {
		.token = by->role == CALLER_TOKEN ? by->token.id : NULL, .spare = by->cert.serial, .now = w->now};
	struct csm_str *sans = NULL;
	struct db_request *q = &w->row;
	int r;

	if ((r = ca_subject_text(w->q->subject, w->pool, &q->subject)) != 0 ||
		(r = ca_san_texts(w->q->sans, w->pool, &sans, &q->n_sans)) != 0)
		return ca_refuse(w->why, r, "the names cannot be told: %s", csm_err_text(r));
	q->sans = sans;
	q->renewal = w->renews.n > 0;
	q->renews = w->renews;
	q->requester = csm_str_of(by->name);
	q->as = by->cert.subject;
	q->profile = csm_str_of(w->profile->name);
	q->ttl = w->ask->ttl;
	q->created = w->now;
	q->expires = w->now + DB_REQUEST_WAITS_S;
	q->idempotency = w->ask->idempotency;
	r = db_request_add(w->c->db, q, &pay);
	if (r == 0 || r == CSM_EEXISTS)
		return 0; /* or somebody was first with the same */
	if (r == CSM_EDENIED)
		return ca_refuse(w->why, r, pay.token != NULL ? "the token is spent, expired or withdrawn" :
			"the certificate by which was asked is revoked");
	if (r == CSM_EBUSY)
		return ca_refuse(w->why, r, "too many requests wait");
	if (r == CSM_ECONFLICT)
		return ca_refuse(w->why, r, "this Idempotency-Key was used with another request");
	return ca_refuse(w->why, r, "the database: %s", csm_err_text(r));
}

/* The profile may have become another one since it was stored: a person has to approve now, or need not any more. What somebody has
 * decided stands. */
static int follow_profile(struct ca_wait *w)
{
	enum db_request_state now = by_hand(w->ask->by, w->profile, w->renews.n > 0) ? DB_WAITING : DB_APPROVED;
	int r;

	if ((w->row.state != DB_WAITING && w->row.state != DB_APPROVED) || w->row.state == now || w->row.decided_by.n > 0)
		return 0;
	if ((r = db_request_turn(w->c->db, w->id, now, w->now)) == CSM_ESTATE)
		return db_request_get(w->c->db, w->id, w->now, w->pool, &w->row); /* somebody was first */
	if (r == 0)
		w->row.state = now;
	return r;
}

int ca_wait_turn(struct ca_wait *w, struct ca_answer *ret, bool *issued)
{
	int r = 0;

	*issued = false;
	if (!w->found && (r = add(w)) != 0)
		return r;
	if (w->found && (r = follow_profile(w)) != 0)
		return ca_refuse(w->why, r == CSM_ENOT_FOUND ? CSM_EBUSY : r, "the database: %s", csm_err_text(r));
	switch (w->row.state) {
	case DB_WAITING:
		ca_wait_tell(w, ret);
		return 0;
	case DB_REFUSED:
		return ca_refuse(w->why, CSM_EDENIED, "the request was denied%s%.*s", w->row.reason.n > 0 ? ": " : "",
			(int)w->row.reason.n, w->row.reason.n > 0 ? w->row.reason.p : "");
	case DB_ISSUED:
		*issued = true;
		return 0;
	case DB_APPROVED:
	default:
		return CSM_ENOT_FOUND;
	}
}

/* ---- a person decides ---- */

/* A token or a certificate by which was asked, as its id. */
struct payer {
	bool token, cert;
	uint8_t id[DB_SERIAL_MAX > DB_TOKEN_ID_LEN ? DB_SERIAL_MAX : DB_TOKEN_ID_LEN];
	size_t n;
};

/* "token ID", "cert SERIAL"; neither where it is something else. */
static int read_payer(struct csm_str who, struct payer *ret)
{
	static const char token[] = "token ", cert[] = "cert ";
	struct payer p = {.token = who.n > sizeof(token) && memcmp(who.p, token, sizeof(token) - 1) == 0,
		.cert = who.n > sizeof(cert) && memcmp(who.p, cert, sizeof(cert) - 1) == 0};
	size_t head = p.token ? sizeof(token) - 1 : sizeof(cert) - 1;

	if ((p.token || p.cert) && sodium_hex2bin(p.id, sizeof(p.id), who.p + head, who.n - head, NULL, &p.n, NULL) != 0)
		return CSM_ETAMPERED;
	*ret = p;
	return 0;
}

/* Who made the token by which was asked, by that certificate or another one of the same subject. */
static int not_the_maker(struct central *c, const struct caller *by, const struct db_request *q, struct csm_pool *pool, char *why)
{
	struct payer asked, maker = {.cert = false};
	struct db_token t;
	struct db_cert x;
	bool same;
	int r = read_payer(q->requester, &asked);

	if (r != 0 || !asked.token)
		return r;
	/* one that is gone stands against an approval anyway */
	if ((r = db_token_get(c->db, asked.id, pool, &t)) != 0)
		return r == CSM_ENOT_FOUND ? 0 : r;
	same = csm_str_eq(t.by, by->name);
	if (!same && by->cert.subject.n > 0 && (r = read_payer(t.by, &maker)) == 0 && maker.cert &&
		(r = db_cert_get(c->db, (struct csm_bin){maker.id, maker.n}, pool, &x)) == 0)
		same = csm_str_same(x.subject, by->cert.subject);
	if (same)
		return ca_refuse(why, CSM_EDENIED, "the token of this request was made by who decides: its profile wants another person");
	return r == CSM_ENOT_FOUND ? 0 : r;
}

static int may_decide(struct central *c, const struct caller *by, const struct db_request *q, const struct profile_config *p,
	struct csm_pool *pool, char *why)
{
	bool strong = p != NULL && (p->x509.ca || strcmp(p->role, "operator") == 0 || strcmp(p->role, "administrator") == 0);

	if (by->role != CALLER_OPERATOR && by->role != CALLER_ADMINISTRATOR)
		return ca_refuse(why, CSM_EDENIED, "this is for operators and administrators");
	/* by another certificate of his too */
	if (csm_str_eq(q->requester, by->name) || (q->as.n > 0 && csm_str_same(q->as, by->cert.subject)))
		return ca_refuse(why, CSM_EDENIED, "nobody decides about a request of his own");
	if (strong && by->role != CALLER_ADMINISTRATOR)
		return ca_refuse(why, CSM_EDENIED, "what profile %s gives is an administrator's to give", p->name);
	return p != NULL && p->approval == APPROVAL_TWO ? not_the_maker(c, by, q, pool, why) : 0;
}

/* Is it still there by what was asked? */
static int payer_stands(struct central *c, const struct db_request *q, struct csm_pool *pool, char *why)
{
	struct payer by;
	struct db_token t;
	struct db_cert x = {.state = DB_VALID};
	int r = read_payer(q->requester, &by);

	if (r != 0 || (!by.token && !by.cert))
		return r;
	r = by.token ? db_token_get(c->db, by.id, pool, &t) : db_cert_get(c->db, (struct csm_bin){by.id, by.n}, pool, &x);
	if (r == CSM_ENOT_FOUND || (r == 0 && by.cert && x.state != DB_VALID))
		return ca_refuse(why, CSM_ESTATE, "%s by which was asked is %s", by.token ? "the token" : "the certificate",
			by.token ? "withdrawn" : "revoked");
	return r == 0 ? 0 : ca_refuse(why, r, "the database: %s", csm_err_text(r));
}

/* Would it be issued now? So that who approves learns what stands against it. */
static int check_again(struct central *c, const struct db_request *q, const struct profile_config *p, struct csm_pool *pool, char *why)
{
	char bad[CSM_CERTREQ_WHY] = "";
	struct csm_certreq *req = NULL;
	int r;

	if (p == NULL)
		return ca_refuse(why, CSM_ESTATE, "the profile of the request is there no more");
	if ((r = csm_certreq_read(q->csr, &req, bad)) == 0)
		r = csm_profile_allows(&p->x509, req, q->ttl != 0 ? q->ttl : p->life, bad);
	csm_certreq_free(req);
	if (r != 0)
		return ca_refuse(why, r, "profile %s: %s", p->name, bad[0] != '\0' ? bad : csm_err_text(r));
	return payer_stands(c, q, pool, why);
}

int ca_decide(struct central *c, const struct caller *by, const uint8_t id[static DB_REQUEST_ID_LEN], bool yes, struct csm_str reason,
	char why[static CA_WHY])
{
	const struct profile_config *p;
	uint64_t now = c->now();
	struct csm_pool pool;
	struct db_request q;
	int r;

	csm_pool_init(&pool, POOL_MAX);
	if ((r = db_request_get(c->db, id, now, &pool, &q)) == 0) {
		p = profiles_get(ca_profiles(c->ca), q.profile);
		if ((r = may_decide(c, by, &q, p, &pool, why)) != 0 && r != CSM_EDENIED)
			(void)ca_refuse(why, r, "the database: %s", csm_err_text(r));
		if (r == 0 && yes)
			r = check_again(c, &q, p, &pool, why);
		if (r == 0 && (r = db_request_decide(c->db, id, yes ? DB_APPROVED : DB_REFUSED, reason, csm_str_of(by->name), now)) != 0)
			(void)ca_refuse(why, r, r == CSM_ESTATE ? "it was decided before" : "the database: %s", csm_err_text(r));
	}
	if (r == CSM_ENOT_FOUND)
		(void)ca_refuse(why, r, "there is no such request, or not any more");
	csm_pool_free(&pool);
	return r;
}
