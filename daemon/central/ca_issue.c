/* Certificates issued, renewed and revoked. Each step refuses with its reason before anything has changed; what changes, changes in
 * one transaction, after the signature. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include "daemon/central/ca_int.h"
#include "daemon/central/external.h"
#include "daemon/pki/crl.h"

#define POOL_MAX (1024u * 1024u)
#define BACKDATE_S 60u /* clocks of others may be behind; a tenth of a shorter life */

struct job {
	struct central *c;
	const struct ca_ask *ask;
	char *why;
	struct csm_pool pool;
	const struct profile_config *profile;
	const char *role;
	struct csm_certreq *q;
	struct ca_issuer *issuer;
	struct db_cert row;
	struct csm_bin renews;
	struct ca_wait wait; /* of a profile whose requests wait */
	uint64_t now;
	uint8_t hash[crypto_hash_sha256_BYTES];
	struct csm_buf der;
};

static void job_init(struct job *j, struct central *c, const struct ca_ask *ask, char *why)
{
	*j = (struct job){.c = c, .ask = ask, .why = why, .now = c->now()};
	csm_pool_init(&j->pool, POOL_MAX);
	csm_buf_init(&j->der, CSM_CERT_CHAIN_MAX, false);
	why[0] = '\0';
}

static void job_end(struct job *j)
{
	csm_certreq_free(j->q);
	ca_issuer_unref(j->issuer);
	csm_buf_free(&j->der);
	csm_pool_free(&j->pool);
}

void ca_answer_free(struct ca_answer *a)
{
	csm_buf_free(&a->der);
	ca_issuer_unref(a->issuer);
	*a = (struct ca_answer){.serial_len = 0};
}

/* ---- the request again ---- */

static void hash_part(crypto_hash_sha256_state *h, const void *p, size_t n)
{
	uint64_t len = n;

	crypto_hash_sha256_update(h, (const uint8_t *)&len, sizeof(len));
	if (n > 0)
		crypto_hash_sha256_update(h, p, n);
}

static void hash_request(struct job *j, const char *what)
{
	crypto_hash_sha256_state h;

	crypto_hash_sha256_init(&h);
	hash_part(&h, what, strlen(what));
	hash_part(&h, j->ask->csr.p, j->ask->csr.n);
	hash_part(&h, j->ask->profile.p, j->ask->profile.n);
	hash_part(&h, j->ask->renews.p, j->ask->renews.n);
	hash_part(&h, &j->ask->ttl, sizeof(j->ask->ttl));
	crypto_hash_sha256_final(&h, j->hash);
}

static struct db_issue transaction(struct job *j)
{
	const struct caller *by = j->ask->by;

	return (struct db_issue){.cert = &j->row, .token = by->role == CALLER_TOKEN ? by->token.id : NULL,
		.spare = by->cert.serial, .request = j->wait.found ? j->wait.id : NULL, .new_node = ca_new_node(by, &j->row),
		.idempotency = j->ask->idempotency, .caller = csm_str_of(by->name),
		.request_hash = {j->hash, sizeof(j->hash)}, .now = j->now};
}

static int take(struct job *j, struct csm_bin serial, struct csm_bin der, uint64_t not_after, struct ca_answer *ret)
{
	struct ca_answer a = {.serial_len = serial.n, .not_after = not_after};
	int r;

	if (serial.n > sizeof(a.serial))
		return CSM_EINTERNAL;
	memcpy(a.serial, serial.p, serial.n);
	csm_buf_init(&a.der, CSM_CERT_CHAIN_MAX, false);
	if ((r = csm_buf_put(&a.der, der.p, der.n)) != 0)
		return r;
	a.issuer = j->issuer;
	j->issuer = NULL;
	*ret = a;
	return 0;
}

/* The answer that was given before. */
static int again(struct job *j, const struct csm_buf *serial, struct ca_answer *ret)
{
	struct db_cert cert;
	int r = db_cert_get(j->c->db, (struct csm_bin){csm_buf_ptr(serial), serial->len}, &j->pool, &cert);

	if (r != 0)
		return ca_refuse(j->why, r, "the certificate of the first answer is gone");
	ca_issuer_unref(j->issuer);
	j->issuer = NULL;
	if ((r = ca_issuer_get(j->c->ca, cert.issuer, &j->issuer)) != 0)
		return ca_refuse(j->why, r, "the issuer of the first answer is gone");
	return take(j, cert.serial, cert.der, cert.not_after, ret);
}

/* CSM_ENOT_FOUND: this is the first time. */
static int replay(struct job *j, const char *what, struct ca_answer *ret)
{
	const struct db_asked in = {.idempotency = j->ask->idempotency, .caller = csm_str_of(j->ask->by->name),
		.request_hash = {j->hash, sizeof(j->hash)}};
	struct csm_buf serial;
	int r;

	if (j->ask->idempotency.n == 0)
		return CSM_ENOT_FOUND;
	hash_request(j, what);
	csm_buf_init(&serial, DB_SERIAL_MAX, false);
	if ((r = db_replay(j->c->db, &in, j->now, &serial)) == 0)
		r = again(j, &serial, ret);
	else if (r == CSM_ECONFLICT)
		(void)ca_refuse(j->why, r, "this Idempotency-Key was used with another request");
	else if (r != CSM_ENOT_FOUND)
		(void)ca_refuse(j->why, r, "the database: %s", csm_err_text(r));
	csm_buf_free(&serial);
	return r;
}

/* ---- what may be had ---- */

static int choose_profile(struct job *j)
{
	const struct caller *by = j->ask->by;
	struct csm_str name = j->ask->profile;

	if (name.n == 0 && by->role == CALLER_TOKEN)
		name = by->token.profile;
	if (name.n == 0)
		name = CSM_STR("default");
	if ((j->profile = profiles_get(ca_profiles(j->c->ca), name)) == NULL)
		return ca_refuse(j->why, CSM_EDENIED, "there is no such profile");
	return ca_may_ask(by, j->profile, &j->role, j->why);
}

/* So that nobody has to sign for nothing; the transaction judges it again. */
static int check_token(struct job *j)
{
	const struct db_token *t = &j->ask->by->token;

	if (j->ask->by->role != CALLER_TOKEN)
		return 0;
	if (t->expires <= j->now)
		return ca_refuse(j->why, CSM_EDENIED, "the token has expired");
	if (t->used >= t->uses)
		return ca_refuse(j->why, CSM_EDENIED, "the token is spent");
	return 0;
}

static int read_request(struct job *j, uint64_t *life)
{
	char why[CSM_CERTREQ_WHY] = "";
	int r = csm_certreq_read(j->ask->csr, &j->q, why);

	if (r != 0)
		return ca_refuse(j->why, r, "the certificate request: %s", why[0] != '\0' ? why : csm_err_text(r));
	*life = j->ask->ttl != 0 ? j->ask->ttl : j->profile->life;
	if ((r = csm_profile_allows(&j->profile->x509, j->q, *life, why)) != 0)
		return ca_refuse(j->why, r, "profile %s: %s", j->profile->name, why[0] != '\0' ? why : csm_err_text(r));
	return 0;
}

/* ---- what has to wait ---- */

static int wait_find(struct job *j)
{
	j->wait = (struct ca_wait){.c = j->c, .ask = j->ask, .profile = j->profile, .q = j->q, .renews = j->renews, .pool = &j->pool,
		.now = j->now, .why = j->why};
	return ca_wait_find(&j->wait);
}

static int became(struct job *j, struct ca_answer *ret)
{
	struct csm_buf serial;
	int r;

	csm_buf_init(&serial, DB_SERIAL_MAX, false);
	if ((r = csm_buf_put(&serial, j->wait.row.serial.p, j->wait.row.serial.n)) == 0)
		r = again(j, &serial, ret);
	csm_buf_free(&serial);
	return r;
}

/* CSM_ENOT_FOUND: its turn has come. */
static int wait_turn(struct job *j, struct ca_answer *ret)
{
	bool issued = false;
	int r = ca_wait_turn(&j->wait, ret, &issued);

	return r != 0 || !issued ? r : became(j, ret);
}

/* Of several who come for it at once one has made it, and all of them have it. */
static bool made_meanwhile(struct job *j)
{
	return j->wait.found && db_request_get(j->c->db, j->wait.id, j->now, &j->pool, &j->wait.row) == 0 && j->wait.row.state == DB_ISSUED;
}

static int find_issuer(struct job *j)
{
	int r = ca_issuer_get(j->c->ca, csm_str_of(j->profile->issuer->name), &j->issuer);

	if (r == CSM_ESTATE)
		return ca_refuse(j->why, r, "issuer %s has no certificate yet: csm ca init", j->profile->issuer->name);
	return r != 0 ? ca_refuse(j->why, r, "issuer %s: csmd, which has its key, does not answer", j->profile->issuer->name) : 0;
}

/* ---- the certificate ---- */

static int sign_order(struct job *j, const struct csm_cert_order *order)
{
	struct ca_signing signing = {.csm = j->c->csm, .issuer = j->issuer, .kind = "certificate"};
	struct csm_signer signer = ca_signer(&signing);
	char why[CSM_CERTREQ_WHY] = "";
	int r = csm_cert_issue(order, &signer, &j->der, why);

	if (r == 0)
		return 0;
	if (signing.why[0] != '\0')
		return ca_refuse(j->why, r, "%s", signing.why);
	return ca_refuse(j->why, r, "%s", why[0] != '\0' ? why : csm_err_text(r));
}

/* A node is called as its certificate is: by its CN, else by the first of its names. What is issued to it bears that. */
static int node_name(struct job *j)
{
	struct csm_str cn = {NULL, 0};
	const char *colon;
	int r;

	if (strcmp(j->role, "node") != 0) {
		if (j->ask->by->role == CALLER_NODE)
			j->row.node = j->ask->by->cert.node;
		return 0;
	}
	if ((r = ca_cn(j->q->subject, &j->pool, &cn)) != 0)
		return r;
	if (cn.p == NULL && j->row.n_sans > 0 && (colon = memchr(j->row.sans[0].p, ':', j->row.sans[0].n)) != NULL)
		cn = (struct csm_str){colon + 1, j->row.sans[0].n - (size_t)(colon + 1 - j->row.sans[0].p)};
	if (cn.n == 0)
		return ca_refuse(j->why, CSM_EDENIED, "a node needs a name: CN, or an alternative name");
	j->row.node = cn;
	return 0;
}

static int fill_row(struct job *j, const struct csm_cert_order *order)
{
	int r = ca_row(order, &j->pool, &j->row);

	if (r != 0)
		return ca_refuse(j->why, r, "the names cannot be told: %s", csm_err_text(r));
	j->row.issuer = csm_str_of(j->issuer->config->name);
	j->row.profile = csm_str_of(j->profile->name);
	j->row.role = csm_str_of(j->role);
	j->row.requester = csm_str_of(j->ask->by->name);
	j->row.issued = j->now;
	j->row.renews = j->renews;
	return j->row.node.n > 0 ? 0 : node_name(j);
}

#define NODE_TAKEN "the node's name is taken, by another node's certificate or by a token that was made for it: revoke that, or make a " \
	"token for this name"

/* So that nothing is signed for a name that is another's; the transaction judges it again. */
static int check_node(struct job *j)
{
	int r;

	if (!ca_new_node(j->ask->by, &j->row))
		return 0;
	r = db_node_free(j->c->db, j->row.node, j->row.spki_sha256, j->now, &j->pool);
	if (r == CSM_ESTATE)
		return ca_refuse(j->why, CSM_EDENIED, NODE_TAKEN);
	return r != 0 ? ca_refuse(j->why, r, "the database: %s", csm_err_text(r)) : 0;
}

static int commit(struct job *j, struct ca_answer *ret)
{
	struct db_issue in = transaction(j);
	struct csm_buf serial;
	bool replayed = false;
	int r;

	csm_buf_init(&serial, DB_SERIAL_MAX, false);
	j->row.der = (struct csm_bin){csm_buf_ptr(&j->der), j->der.len};
	r = db_issue(j->c->db, &in, &replayed, &serial);
	if (r == 0)
		r = replayed ? again(j, &serial, ret) : take(j, j->row.serial, j->row.der, j->row.not_after, ret);
	else if ((r == CSM_EDENIED || r == CSM_EEXISTS) && made_meanwhile(j))
		r = became(j, ret);
	else if (r == CSM_EDENIED)
		(void)ca_refuse(j->why, r, in.request != NULL ? "what was approved is not so any more, or by what was asked is withdrawn" :
			in.token != NULL ? "the token is spent, expired or withdrawn" :
			"the certificate by which was asked, or which was to be renewed, is revoked");
	else if (r == CSM_ESTATE)
		r = ca_refuse(j->why, CSM_EDENIED, NODE_TAKEN);
	else if (r == CSM_ECONFLICT)
		(void)ca_refuse(j->why, r, "this Idempotency-Key was used with another request");
	else
		(void)ca_refuse(j->why, r, "the database: %s", csm_err_text(r));
	csm_buf_free(&serial);
	return r;
}

/* Somebody else's, once it is there. */
static int make_external(struct job *j, uint64_t life, struct ca_answer *ret)
{
	const struct csm_cert_order order = {.profile = &j->profile->x509, .subject = j->q->subject, .sans = j->q->sans, .spki = j->q->spki};
	const struct external_ask ask = {.issuer = j->issuer, .id = j->wait.id, .csr = j->wait.row.csr, .spki = j->q->spki, .row = &j->row,
		.life = life, .max_life = j->profile->x509.max_life, .now = j->now};
	struct external_got got;
	bool waits = false;
	int r;

	if ((r = fill_row(j, &order)) != 0 || (r = check_node(j)) != 0 ||
		(r = external_ask(j->c->external, &ask, &j->der, &got, &waits, j->why)) != 0)
		return r;
	if (waits) {
		ca_wait_tell(&j->wait, ret);
		return 0;
	}
	j->row.serial = (struct csm_bin){got.serial, got.serial_len};
	j->row.not_before = got.not_before;
	j->row.not_after = got.not_after;
	j->wait.found = true;
	return commit(j, ret);
}

/* From a request that is allowed to a certificate that is stored. */
static int make(struct job *j, uint64_t life, struct ca_answer *ret)
{
	struct csm_cert_order order = {.profile = &j->profile->x509, .subject = j->q->subject, .sans = j->q->sans,
		.spki = j->q->spki, .not_before = j->now - (life < 10u * BACKDATE_S ? life / 10 : BACKDATE_S)};
	int r;

	if ((r = find_issuer(j)) != 0)
		return r;
	if (j->issuer->config->external != NULL)
		return make_external(j, life, ret);
	order.issuer = j->issuer->cert;
	/* nobody asked for just this life: what the issuer's key may give, and what is left of the issuer's own, will do */
	order.not_after = j->ask->ttl == 0 ? ca_until(j->issuer, order.not_before, life) : order.not_before + life;
	ca_serial(order.serial);
	if ((r = fill_row(j, &order)) != 0 || (r = check_node(j)) != 0 || (r = sign_order(j, &order)) != 0)
		return r;
	return commit(j, ret);
}

int ca_issue(struct central *c, const struct ca_ask *ask, struct ca_answer *ret, char why[static CA_WHY])
{
	struct job j;
	uint64_t life = 0;
	bool waits;
	int r;

	job_init(&j, c, ask, why);
	if ((r = choose_profile(&j)) != 0)
		goto out;
	if ((r = replay(&j, "issue", ret)) != CSM_ENOT_FOUND)
		goto out;
	if ((r = read_request(&j, &life)) != 0)
		goto out;
	/* what was paid for when the profile let it wait is there, though it lets nobody wait any more */
	waits = ca_waits(ask->by, j.profile, false) || check_token(&j) != 0;
	if (waits && ((r = wait_find(&j)) != 0 || (!j.wait.found && (r = check_token(&j)) != 0)))
		goto out;
	if (ask->by->role == CALLER_TOKEN && (r = ca_token_names(&ask->by->token, j.q, &j.pool, why)) != 0)
		goto out;
	if (waits && (r = wait_turn(&j, ret)) != CSM_ENOT_FOUND)
		goto out;
	r = make(&j, life, ret);
out:
	job_end(&j);
	return r;
}

int ca_issue_check(struct central *c, const struct ca_ask *ask, char why[static CA_WHY])
{
	struct job j;
	uint64_t life = 0;
	int r;

	job_init(&j, c, ask, why);
	if ((r = choose_profile(&j)) == 0)
		r = read_request(&j, &life);
	job_end(&j);
	return r;
}

/* ---- renewal ---- */

static int find_old(struct job *j, struct db_cert *old)
{
	const struct caller *by = j->ask->by;
	int r = 0;

	if (by->role == CALLER_NONE)
		return ca_refuse(j->why, CSM_EUNAUTHENTICATED, "a client certificate is needed");
	if (by->cert.serial.n == 0)
		return ca_refuse(j->why, CSM_EDENIED, "a renewal is asked for under a certificate");
	if (j->ask->renews.n == 0)
		*old = by->cert;
	else if ((r = db_cert_get(j->c->db, j->ask->renews, &j->pool, old)) != 0 && r != CSM_ENOT_FOUND)
		return ca_refuse(j->why, r, "the database: %s", csm_err_text(r));
	/* nobody learns from it which serials there are */
	if (r == CSM_ENOT_FOUND || !ca_is_own(by, old))
		return ca_refuse(j->why, CSM_EDENIED, "the certificate is not the caller's to renew");
	if (old->state != DB_VALID)
		return ca_refuse(j->why, CSM_EDENIED, "the certificate is revoked");
	return 0;
}

static bool has_text(const struct csm_str *v, size_t n, struct csm_str s)
{
	for (size_t i = 0; i < n; i++)
		if (csm_str_same(v[i], s))
			return true;
	return false;
}

static int same_names(struct job *j, const struct db_cert *old)
{
	struct csm_str subject = {NULL, 0}, *sans = NULL;
	size_t n = 0;
	bool same;
	int r;

	if ((r = ca_subject_text(j->q->subject, &j->pool, &subject)) != 0 ||
		(r = ca_san_texts(j->q->sans, &j->pool, &sans, &n)) != 0)
		return ca_refuse(j->why, r, "the names cannot be read");
	same = csm_str_same(subject, old->subject) && n == old->n_sans;
	for (size_t i = 0; i < n && same; i++)
		same = has_text(old->sans, old->n_sans, sans[i]); /* a request has none twice */
	return same ? 0 : ca_refuse(j->why, CSM_EDENIED, "the request has other names than the certificate that it is to renew");
}

static int renew(struct job *j, struct ca_answer *ret)
{
	struct db_cert old = {.issued = 0};
	uint64_t life = 0;
	int r;

	if ((r = find_old(j, &old)) != 0 || (r = replay(j, "renew", ret)) != CSM_ENOT_FOUND)
		return r;
	if (j->ask->profile.n > 0 && !csm_str_same(j->ask->profile, old.profile))
		return ca_refuse(j->why, CSM_EDENIED, "the certificate is of another profile");
	if ((j->profile = profiles_get(ca_profiles(j->c->ca), old.profile)) == NULL)
		return ca_refuse(j->why, CSM_EDENIED, "the certificate's profile is there no more");
	if ((r = read_request(j, &life)) != 0 || (r = same_names(j, &old)) != 0)
		return r;
	j->role = csm_str_eq(old.role, "node") ? "node" : csm_str_eq(old.role, "operator") ? "operator" :
		csm_str_eq(old.role, "administrator") ? "administrator" : "";
	j->row.node = old.node;
	j->renews = old.serial;
	if (ca_waits(j->ask->by, j->profile, true) && ((r = wait_find(j)) != 0 || (r = wait_turn(j, ret)) != CSM_ENOT_FOUND))
		return r;
	return make(j, life, ret);
}

int ca_renew(struct central *c, const struct ca_ask *ask, struct ca_answer *ret, char why[static CA_WHY])
{
	struct job j;
	int r;

	job_init(&j, c, ask, why);
	r = renew(&j, ret);
	job_end(&j);
	return r;
}

/* ---- revocation ---- */

int ca_revoke(struct central *c, const struct caller *by, struct csm_bin serial, int reason, const struct db_asked *asked,
	char why[static CA_WHY])
{
	bool replayed = false;
	bool any = by->role == CALLER_OPERATOR || by->role == CALLER_ADMINISTRATOR;
	struct csm_pool pool;
	struct db_cert cert;
	int r;

	if (by->role == CALLER_NONE)
		return ca_refuse(why, CSM_EUNAUTHENTICATED, "a client certificate is needed");
	csm_pool_init(&pool, POOL_MAX);
	r = db_cert_get(c->db, serial, &pool, &cert);
	if (!any && (r == CSM_ENOT_FOUND || (r == 0 && !ca_is_own(by, &cert))))
		r = ca_refuse(why, CSM_EDENIED, "the certificate is not the caller's to revoke");
	else if (!any && r == 0 && (reason == CSM_REASON_HOLD || reason == CSM_REASON_REMOVE_FROM_CRL))
		r = ca_refuse(why, CSM_EDENIED, "holds are for operators");
	else if (r == 0 && (r = db_revoke_asked(c->db, serial, reason, c->now(), csm_str_of(by->name), asked, &replayed)) == CSM_EDENIED)
		(void)ca_refuse(why, r, "the certificate by which was asked is revoked");
	if (r == CSM_ECONFLICT)
		(void)ca_refuse(why, r, "this Idempotency-Key was used with another request");
	else if (r == CSM_ENOT_FOUND)
		(void)ca_refuse(why, r, "no certificate has this serial number");
	else if (r == CSM_EEXISTS)
		(void)ca_refuse(why, r, "it is revoked already");
	else if (r != 0 && r != CSM_EDENIED)
		(void)ca_refuse(why, r, "the database: %s", csm_err_text(r));
	csm_pool_free(&pool);
	return r;
}
