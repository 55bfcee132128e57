/* Certificates issued and renewed: one, or several in step. Each goes through the same: prepared up to what is to be signed, signed,
 * stored, told. Each step refuses with its reason before anything has changed; what changes, changes in one transaction, after the
 * signature. Of several, those that are still there after a step go through the next one together: one exchange with csmd, one wait
 * for the disk. What may take long is not among them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include "daemon/central/ca_int.h"
#include "daemon/central/external.h"

#define POOL_MAX (1024u * 1024u)
#define TBS_MAX (64u * 1024u)
#define BACKDATE_S 60u /* clocks of others may be behind; a tenth of a shorter life */

/* What comes next for a job, beside 0 and the errors, which end it. */
enum { TO_SIGN = -1, TO_COMMIT = -2, TO_BE_ALONE = -3 };

/* Of jobs in step: the one issuer of all of them. */
struct step {
	const struct issuer_config *issuer;
};

struct job {
	struct central *c;
	const struct ca_ask *ask;
	struct ca_answer *ret;
	char *why;
	struct step *step; /* it is one of several, and must not wait for anything of its own; NULL: by itself */
	int r;
	struct csm_pool pool;
	const struct profile_config *profile;
	const char *role;
	struct csm_certreq *q;
	struct ca_issuer *issuer;
	struct csm_cert_order order;
	struct csm_buf tbs, der;
	struct ca_to_sign sign;
	struct db_cert row;
	struct csm_bin renews;
	struct ca_wait wait; /* of a profile whose requests wait */
	uint64_t now, life;
	uint8_t hash[crypto_hash_sha256_BYTES], got[DB_SERIAL_MAX]; /* got: another authority's serial number */
};

static void job_init(struct job *j, struct central *c, const struct ca_ask *ask, struct ca_answer *ret, char *why)
{
	memset(j, 0, sizeof(*j));
	j->c = c;
	j->ask = ask;
	j->ret = ret;
	j->why = why;
	j->now = c->now();
	csm_pool_init(&j->pool, POOL_MAX);
	csm_buf_init(&j->tbs, TBS_MAX, false);
	csm_buf_init(&j->der, CSM_CERT_CHAIN_MAX, false);
	why[0] = '\0';
}

static void job_end(struct job *j)
{
	csm_certreq_free(j->q);
	ca_issuer_unref(j->issuer);
	csm_buf_free(&j->tbs);
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

static int take(struct job *j, struct csm_bin serial, struct csm_bin der, uint64_t not_after)
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
	*j->ret = a;
	return 0;
}

/* The answer that was given before. */
static int again(struct job *j, const struct csm_buf *serial)
{
	struct db_cert cert;
	int r = db_cert_get(j->c->db, (struct csm_bin){csm_buf_ptr(serial), serial->len}, &j->pool, &cert);

	if (r != 0)
		return ca_refuse(j->why, r, "the certificate of the first answer is gone");
	ca_issuer_unref(j->issuer);
	j->issuer = NULL;
	if ((r = ca_issuer_get(j->c->ca, cert.issuer, &j->issuer)) != 0)
		return ca_refuse(j->why, r, "the issuer of the first answer is gone");
	return take(j, cert.serial, cert.der, cert.not_after);
}

/* CSM_ENOT_FOUND: this is the first time. */
static int replay(struct job *j, const char *what)
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
		r = again(j, &serial);
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

/* Others are served with it, and would wait for what it waits for: a person, another authority, a key that takes its time, or, of
 * another issuer, one whose key does. */
static bool is_for_itself(struct job *j, bool waits)
{
	if (j->step == NULL)
		return false;
	if (j->step->issuer == NULL)
		j->step->issuer = j->profile->issuer;
	return waits || j->profile->issuer != j->step->issuer || ca_is_slow(j->c->ca, j->profile->issuer);
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

static int read_request(struct job *j)
{
	char why[CSM_CERTREQ_WHY] = "";
	int r = csm_certreq_read(j->ask->csr, &j->q, why);

	if (r != 0)
		return ca_refuse(j->why, r, "the certificate request: %s", why[0] != '\0' ? why : csm_err_text(r));
	j->life = j->ask->ttl != 0 ? j->ask->ttl : j->profile->life;
	if ((r = csm_profile_allows(&j->profile->x509, j->q, j->life, why)) != 0)
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

static int became(struct job *j)
{
	struct csm_buf serial;
	int r;

	csm_buf_init(&serial, DB_SERIAL_MAX, false);
	if ((r = csm_buf_put(&serial, j->wait.row.serial.p, j->wait.row.serial.n)) == 0)
		r = again(j, &serial);
	csm_buf_free(&serial);
	return r;
}

/* CSM_ENOT_FOUND: its turn has come. */
static int wait_turn(struct job *j)
{
	bool issued = false;
	int r = ca_wait_turn(&j->wait, j->ret, &issued);

	return r != 0 || !issued ? r : became(j);
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

static int fill_row(struct job *j)
{
	int r = ca_row(&j->order, &j->pool, &j->row);

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

/* Somebody else's, once it is there. */
static int make_external(struct job *j)
{
	const struct external_ask ask = {.issuer = j->issuer, .id = j->wait.id, .csr = j->wait.row.csr, .spki = j->q->spki, .row = &j->row,
		.life = j->life, .max_life = j->profile->x509.max_life, .now = j->now};
	struct external_got got;
	bool waits = false;
	int r;

	if ((r = fill_row(j)) != 0 || (r = check_node(j)) != 0 ||
		(r = external_ask(j->c->external, &ask, &j->der, &got, &waits, j->why)) != 0)
		return r;
	if (waits) {
		ca_wait_tell(&j->wait, j->ret);
		return 0;
	}
	memcpy(j->got, got.serial, got.serial_len);
	j->row.serial = (struct csm_bin){j->got, got.serial_len};
	j->row.not_before = got.not_before;
	j->row.not_after = got.not_after;
	j->wait.found = true;
	return TO_COMMIT;
}

/* From a request that is allowed to what is to be signed. */
static int make(struct job *j)
{
	struct csm_cert_order *o = &j->order;
	char why[CSM_CERTREQ_WHY] = "";
	int r = find_issuer(j);

	if (r != 0)
		return r;
	o->profile = &j->profile->x509;
	o->subject = j->q->subject;
	o->sans = j->q->sans;
	o->spki = j->q->spki;
	if (j->issuer->config->external != NULL)
		return make_external(j);
	o->not_before = j->now - (j->life < 10u * BACKDATE_S ? j->life / 10 : BACKDATE_S);
	o->issuer = j->issuer->cert;
	/* nobody asked for just this life: what the issuer's key may give, and what is left of the issuer's own, will do */
	o->not_after = j->ask->ttl == 0 ? ca_until(j->issuer, o->not_before, j->life) : o->not_before + j->life;
	ca_serial(o->serial);
	if ((r = fill_row(j)) != 0 || (r = check_node(j)) != 0)
		return r;
	if ((r = csm_cert_tbs(o, &j->issuer->scheme, &j->tbs, why)) != 0)
		return ca_refuse(j->why, r, "%s", why[0] != '\0' ? why : csm_err_text(r));
	return TO_SIGN;
}

static int prepare_issue(struct job *j)
{
	const struct caller *by = j->ask->by;
	bool waits;
	int r;

	if ((r = choose_profile(j)) != 0)
		return r;
	/* what was paid for when the profile let it wait is there, though it lets nobody wait any more */
	waits = ca_waits(by, j->profile, false) || check_token(j) != 0;
	if (is_for_itself(j, waits))
		return TO_BE_ALONE;
	if ((r = replay(j, "issue")) != CSM_ENOT_FOUND)
		return r;
	if ((r = read_request(j)) != 0)
		return r;
	if (waits && ((r = wait_find(j)) != 0 || (!j->wait.found && (r = check_token(j)) != 0)))
		return r;
	if (by->role == CALLER_TOKEN && (r = ca_token_names(&by->token, j->q, &j->pool, j->why)) != 0)
		return r;
	if (waits && (r = wait_turn(j)) != CSM_ENOT_FOUND)
		return r;
	return make(j);
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

static int prepare_renewal(struct job *j)
{
	struct db_cert old = {.issued = 0};
	bool waits;
	int r;

	if ((r = find_old(j, &old)) != 0)
		return r;
	j->profile = profiles_get(ca_profiles(j->c->ca), old.profile);
	waits = j->profile != NULL && ca_waits(j->ask->by, j->profile, true);
	if (j->profile != NULL && is_for_itself(j, waits))
		return TO_BE_ALONE;
	if ((r = replay(j, "renew")) != CSM_ENOT_FOUND)
		return r;
	if (j->ask->profile.n > 0 && !csm_str_same(j->ask->profile, old.profile))
		return ca_refuse(j->why, CSM_EDENIED, "the certificate is of another profile");
	if (j->profile == NULL)
		return ca_refuse(j->why, CSM_EDENIED, "the certificate's profile is there no more");
	if ((r = read_request(j)) != 0 || (r = same_names(j, &old)) != 0)
		return r;
	j->role = csm_str_eq(old.role, "node") ? "node" : csm_str_eq(old.role, "operator") ? "operator" :
		csm_str_eq(old.role, "administrator") ? "administrator" : "";
	j->row.node = old.node;
	j->renews = old.serial;
	if (waits && ((r = wait_find(j)) != 0 || (r = wait_turn(j)) != CSM_ENOT_FOUND))
		return r;
	return make(j);
}

/* ---- signed and stored ---- */

static int signed_der(struct job *j)
{
	struct csm_signer signer = ca_signed(&j->sign);
	int r = j->sign.r;

	if (r == 0 && (r = csm_signed_put(&signer, j->sign.tbs, &j->der)) != 0)
		(void)ca_refuse(j->why, r, "%s", csm_err_text(r));
	return r != 0 ? r : TO_COMMIT;
}

static void sign_all(struct job *v, size_t n)
{
	struct ca_to_sign *all[CA_TOGETHER_MAX];
	size_t m = 0;

	for (size_t i = 0; i < n; i++) {
		struct job *j = &v[i];

		if (j->r != TO_SIGN)
			continue;
		j->sign.issuer = j->issuer;
		j->sign.tbs = (struct csm_bin){csm_buf_ptr(&j->tbs), j->tbs.len};
		j->sign.why = j->why;
		all[m++] = &j->sign;
	}
	if (m > 0)
		ca_sign_together(v[0].c, all, m);
	for (size_t i = 0; i < n; i++)
		if (v[i].r == TO_SIGN)
			v[i].r = signed_der(&v[i]);
}

static struct db_issue transaction(struct job *j)
{
	const struct caller *by = j->ask->by;

	j->row.der = (struct csm_bin){csm_buf_ptr(&j->der), j->der.len};
	return (struct db_issue){.cert = &j->row, .token = by->role == CALLER_TOKEN ? by->token.id : NULL,
		.spare = by->cert.serial, .request = j->wait.found ? j->wait.id : NULL, .new_node = ca_new_node(by, &j->row),
		.idempotency = j->ask->idempotency, .caller = csm_str_of(by->name),
		.request_hash = {j->hash, sizeof(j->hash)}, .now = j->now};
}

/* What the transaction said, for who asked. */
static int stored(struct job *j, const struct db_issuing *d)
{
	int r = d->r;

	if (r == 0)
		return d->replayed ? again(j, d->serial) : take(j, j->row.serial, j->row.der, j->row.not_after);
	if ((r == CSM_EDENIED || r == CSM_EEXISTS) && made_meanwhile(j))
		return became(j);
	if (r == CSM_EDENIED)
		return ca_refuse(j->why, r, d->in.request != NULL ? "what was approved is not so any more, or by what was asked is withdrawn" :
			d->in.token != NULL ? "the token is spent, expired or withdrawn" :
			"the certificate by which was asked, or which was to be renewed, is revoked");
	if (r == CSM_ESTATE)
		return ca_refuse(j->why, CSM_EDENIED, NODE_TAKEN);
	if (r == CSM_ECONFLICT)
		return ca_refuse(j->why, r, "this Idempotency-Key was used with another request");
	return ca_refuse(j->why, r, "the database: %s", csm_err_text(r));
}

static void commit_all(struct job *v, size_t n)
{
	struct db_issuing all[CA_TOGETHER_MAX];
	struct csm_buf serial[CA_TOGETHER_MAX];
	struct job *of[CA_TOGETHER_MAX];
	size_t m = 0;

	for (size_t i = 0; i < n; i++) {
		if (v[i].r != TO_COMMIT)
			continue;
		csm_buf_init(&serial[m], DB_SERIAL_MAX, false);
		all[m] = (struct db_issuing){.in = transaction(&v[i]), .serial = &serial[m]};
		of[m++] = &v[i];
	}
	if (m > 0)
		db_issue_together(v[0].c->db, all, m);
	for (size_t i = 0; i < m; i++) {
		of[i]->r = stored(of[i], &all[i]);
		csm_buf_free(&serial[i]);
	}
}

/* ---- one, or several ---- */

static int one(struct central *c, const struct ca_ask *ask, bool renewal, struct ca_answer *ret, char *why)
{
	struct job j;

	job_init(&j, c, ask, ret, why);
	j.r = renewal ? prepare_renewal(&j) : prepare_issue(&j);
	sign_all(&j, 1);
	commit_all(&j, 1);
	job_end(&j);
	return j.r;
}

int ca_issue(struct central *c, const struct ca_ask *ask, struct ca_answer *ret, char why[static CA_WHY])
{
	return one(c, ask, false, ret, why);
}

int ca_renew(struct central *c, const struct ca_ask *ask, struct ca_answer *ret, char why[static CA_WHY])
{
	return one(c, ask, true, ret, why);
}

void ca_together(struct central *c, struct ca_one *v, size_t n, ca_settled *settled, void *arg)
{
	struct job *jobs = n <= CA_TOGETHER_MAX ? calloc(n, sizeof(*jobs)) : NULL;
	struct step step = {NULL};

	for (size_t i = 0; i < n; i++) {
		struct job *j = jobs != NULL ? &jobs[i] : NULL;

		v[i].r = j == NULL ? ca_refuse(v[i].why, CSM_EBUSY, "no memory") : 0;
		v[i].alone = false;
		if (j == NULL)
			continue;
		job_init(j, c, v[i].ask, &v[i].answer, v[i].why);
		j->step = &step;
		j->r = v[i].renewal ? prepare_renewal(j) : prepare_issue(j);
		v[i].alone = j->r == TO_BE_ALONE;
		v[i].r = j->r >= 0 ? j->r : 0;
		if (j->r >= 0 || v[i].alone)
			settled(arg, i);
	}
	if (jobs == NULL)
		return;
	sign_all(jobs, n);
	commit_all(jobs, n);
	for (size_t i = 0; i < n; i++) {
		if (!v[i].alone)
			v[i].r = jobs[i].r;
		job_end(&jobs[i]);
	}
	free(jobs);
}

int ca_issue_check(struct central *c, const struct ca_ask *ask, char why[static CA_WHY])
{
	struct job j;
	int r;

	job_init(&j, c, ask, NULL, why);
	if ((r = choose_profile(&j)) == 0)
		r = read_request(&j);
	job_end(&j);
	return r;
}
