/* cert.enrol, renew, revoke and watch, by requests to a whole broker; the test is csm-enrol and the CA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/enrolfix.h"

#define DAY 86400

static const char policy[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities:\n"
	"  root: {uid: 0}\n"
	"  other: {uid: 70061}\n"
	"rules:\n"
	"  - {allow: [key.create, key.delete, key.show, key.list, key.sign, key.public, cert.enrol, cert.renew, cert.revoke, cert.get, "
	"cert.list, cert.delete, cert.install, cert.watch, key.import, key.csr], to: [root], on: [\"web:*\", \"csm:*\"]}\n"
	"  - {allow: [cert.get], to: [other], on: [\"web:*\"]}\n";

static const char config[] =
	"enrolment:\n  profiles:\n"
	"    default: {url: \"https://ca.example\", anchors: /in/the/test, token: \"file:/in/the/test\", label: web, timeout: 5s,\n"
	"      subject: \"/CN={name}\", san: [\"dns:{name}.example.org\"], names: [\"dns:*.example.org\", \"/CN=free*\"],\n"
	"      node: {label: node, subject: \"/CN=this-node\", san: [\"dns:node.example.org\"]}}\n"
	"    by-unit: {url: \"https://ca.example\", anchors: /nowhere, san: [\"dns:{unit}\"]}\n";

static const struct certspec good_node = {.subject = "/CN=this-node", .san = "DNS:node.example.org", .serial = "0A"};

static struct certspec good_for(const char *subject, const char *san)
{
	return (struct certspec){.subject = subject, .san = san, .serial = "0B0C"};
}

static bool is_root(struct csm_bin der)
{
	unsigned char *want = NULL;
	int n = i2d_X509(root_cert, &want);
	bool same = n > 0 && der.n == (size_t)n && memcmp(der.p, want, der.n) == 0;

	OPENSSL_free(want);
	return same;
}

/* ---- tests, in this order: the node's own certificate comes first ---- */

static void the_node_is_enrolled_first(void **state)
{
	struct csm_msg_enrol_sign_req sign = {.scheme = CSM_STR("ecdsa-sha256"), .digest = {(const uint8_t *)config, 32}};
	struct csm_msg_cert_info info = {0};

	(void)state;
	assert_int_equal(fix_create(pub, "web:a", "p256", NULL, NULL), 0);
	ask_enrol(pub, "web:a", 1);
	next_job("enrol");
	assert_true(csm_str_eq(job.label, "node") && csm_str_eq(job.url, "https://ca.example"));
	assert_int_equal(job.token.n, 5);
	assert_null(job.tls_chain.p);
	/* a job without a certificate to show signs nothing */
	sign.job = job.id;
	assert_int_equal(call_chan("enrol.sign", &sign), CSM_ESTATE);
	done_with(&good_node);
	next_job("enrol");
	assert_true(csm_str_eq(job.label, "web") && csm_str_eq(job.tls_alg, "p256"));
	assert_null(job.token.p);
	assert_true(job.tls_chain.n > 0 && job.anchors.n > 0);
	/* the node's key signs for this job, and for no other */
	sign.job = job.id;
	assert_int_equal(call_chan("enrol.sign", &sign), 0);
	sign.job.v++;
	assert_int_equal(call_chan("enrol.sign", &sign), CSM_ESTATE);
	sign.job = job.id;
	sign.digest.n = 31;
	assert_int_equal(call_chan("enrol.sign", &sign), CSM_EINVALID);
	sign.digest.n = 32;
	done_with(&(struct certspec){.subject = "/CN=a", .san = "DNS:a.example.org", .serial = "0B0C"});
	assert_int_equal(call_chan("enrol.sign", &sign), CSM_ESTATE);
	assert_int_equal(answer_of(pub, 1, &info), 0);
	assert_true(csm_str_eq(info.state, "valid") && csm_str_eq(info.serial, "0b0c") && csm_str_eq(info.profile, "default"));
	assert_true(csm_str_eq(info.asked_subject, "/CN=a") && info.asked_san.n == 1);
	/* due before two thirds of its life are over, and by how much is kept */
	assert_true(info.renew_at.v <= info.not_before.v + 60 * DAY + 60 && info.renew_at.v > info.not_before.v + 50 * DAY);
	sign.job.v = info.renew_at.v;
	assert_int_equal(get("web:a", &info), 0);
	assert_int_equal(info.renew_at.v, sign.job.v);
	assert_true(info.chain.n > 0);
}

static void nobody_uses_the_nodes_key(void **state)
{
	struct csm_msg_sign_req sign = {.key = CSM_STR("csm:default"), .digest = {(const uint8_t *)config, 32}};
	struct csm_msg_sign_res res;
	struct csm_msg_key_req key = {.key = CSM_STR("csm:default")};
	struct csm_msg_key_info info;
	struct csm_msg_cert_enrol_req enrol = {.key = CSM_STR("csm:default")};
	struct csm_msg_cert_info cert;
	int fds[] = {pub, admin};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(fix_call(fds[i], "key.sign", &sign, &res), CSM_EDENIED);
		assert_int_equal(fix_create(fds[i], "csm:mine", "p256", NULL, NULL), CSM_EDENIED);
		assert_int_equal(fix_call(fds[i], "cert.enrol", &enrol, &cert), CSM_EDENIED);
	}
	assert_int_equal(fix_call(pub, "key.show", &key, &info), CSM_EDENIED);
	assert_int_equal(fix_call(admin, "key.show", &key, &info), 0);
	assert_int_equal(fix_call(admin, "cert.get", &key, &cert), 0);
	assert_true(csm_str_eq(cert.subject, "/CN=this-node"));
}

static void what_is_not_as_asked_for_is_refused(void **state)
{
	static EVP_PKEY *other;
	struct certspec s[] = {good_for("/CN=a", "DNS:a.example.org"), good_for("/CN=a", "DNS:a.example.org,DNS:b.example.org"),
		good_for("/CN=b", "DNS:a.example.org"), good_for("/CN=a", "DNS:a.example.org"), good_for("/CN=a", "DNS:a.example.org"),
		good_for("/CN=a", "DNS:a.example.org")};
	static const char *const why[] = {"another public key", "alternative names", "subject", "no chain", "a CA's", "expired"};
	struct csm_msg_cert_info before, now;
	struct csm_buf kept;

	(void)state;
	other = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	s[0].key = other;
	s[3].signer = false_root;
	s[3].signer_key = false_key;
	s[4].ca = true;
	s[5].from = -9 * DAY;
	s[5].to = -DAY;
	csm_buf_init(&kept, CSM_MESSAGE_MAX, false);
	assert_int_equal(get("web:a", &before), 0);
	assert_int_equal(csm_buf_put(&kept, before.chain.p, before.chain.n), 0);
	for (size_t i = 0; i < 6; i++) {
		struct csm_msg_cert_renew_req m = {.key = CSM_STR("web:a")};

		assert_int_equal(testbroker_request(&fix.t, pub, 10, "cert.renew", &m), 0);
		next_job("enrol");
		done_with(&s[i]);
		assert_int_equal(answer_of(pub, 10, &now), CSM_EBACKEND);
		told(why[i]);
		/* the old one stays, and why it was not renewed is told */
		assert_int_equal(get("web:a", &now), 0);
		assert_int_equal(now.chain.n, kept.len);
		assert_memory_equal(now.chain.p, csm_buf_ptr(&kept), kept.len);
		assert_true(csm_str_eq(now.state, "valid") && now.attempts.v == i + 1 && now.next_try.v > 0);
		snprintf(fix.last.message, sizeof(fix.last.message), "%.*s", (int)now.last_error.n, now.last_error.p);
		told(why[i]);
	}
	/* and then a good one */
	assert_int_equal(testbroker_request(&fix.t, pub, 11, "cert.renew",
				 &(struct csm_msg_cert_renew_req){.key = CSM_STR("web:a"), .wait = {true, true}}), 0);
	next_job("enrol");
	s[1] = good_for("/CN=a", "DNS:a.example.org");
	s[1].serial = "77";
	done_with(&s[1]);
	assert_int_equal(answer_of(pub, 11, &now), 0);
	assert_true(csm_str_eq(now.serial, "77") && now.last_error.n == 0 && now.attempts.v == 0 && !now.next_try.set);
	/* whom the profile trusts goes along when somebody looks */
	assert_true(now.anchors.n == 0);
	assert_int_equal(get("web:a", &now), 0);
	assert_true(is_root(now.anchors));
	csm_buf_free(&kept);
	EVP_PKEY_free(other);
}

static void names_need_the_profiles_leave(void **state)
{
	static struct csm_str sans[] = {CSM_STR("dns:evil.example.com")}, fine[] = {CSM_STR("dns:x.example.org")},
		none[] = {CSM_STR("dns:a b.example.org")};
	struct csm_msg_cert_enrol_req m = {.key = CSM_STR("web:a"), .sans = {sans, 1}, .wait = {false, true}};
	struct csm_msg_cert_info info = {0};

	(void)state;
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_EDENIED);
	m.sans.v = fine;
	m.subject = CSM_STR("/CN=root");
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_EDENIED);
	/* allowed, but no names: nothing is written down that would be tried for ever */
	m = (struct csm_msg_cert_enrol_req){.key = CSM_STR("web:a"), .sans = {none, 1}, .wait = {false, true}};
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_EINVALID);
	assert_int_equal(get("web:a", &info), 0);
	assert_true(info.asked_san.n == 1 && csm_str_eq(info.asked_san.v[0], "dns:a.example.org"));
	m = (struct csm_msg_cert_enrol_req){.key = CSM_STR("web:a"), .profile = CSM_STR("none")};
	assert_int_equal(fix_ask(pub, "cert.enrol", &m), CSM_EINVALID);
	told("no enrolment profile none, but default, ");
	/* who is in no unit gets no unit's name */
	m.profile = CSM_STR("by-unit");
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_EINVALID);
	m = (struct csm_msg_cert_enrol_req){.key = CSM_STR("web:none")};
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_ENOT_FOUND);
	assert_int_equal(fix_create(pub, "web:b", "p256", NULL, NULL), 0);
	/* allowed, and not waited for */
	m = (struct csm_msg_cert_enrol_req){.key = CSM_STR("web:b"), .sans = {fine, 1}, .subject = CSM_STR("/CN=free"),
		.wait = {false, true}, .request_id = CSM_STR("once")};
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), 0);
	assert_true(csm_str_eq(info.state, "pending") && info.serial.n == 0);
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), 0);
	m.subject = CSM_STR("/CN=free2");
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_ECONFLICT);
	assert_int_equal(get("web:b", &info), 0);
	assert_true(csm_str_eq(info.state, "pending") && info.chain.n == 0);
	next_job("enrol");
	/* most of its life is over: what is left counts, and not each of those that follow is due at once */
	done_with(&(struct certspec){.subject = "/CN=free", .san = "DNS:x.example.org", .from = -8000, .to = 1000});
	assert_int_equal(get("web:b", &info), 0);
	assert_true(csm_str_eq(info.state, "valid") && info.renew_at.v > (uint64_t)time(NULL) + 400);
}

static void a_ca_that_fails_is_asked_again(void **state)
{
	struct csm_msg_cert_renew_req m = {.key = CSM_STR("web:b")};
	struct csm_msg_cert_info info = {0};
	struct csm_buf csr;

	(void)state;
	csm_buf_init(&csr, CSM_CSR_MAX, false);
	assert_int_equal(testbroker_request(&fix.t, pub, 20, "cert.renew", &m), 0);
	next_job("enrol");
	assert_int_equal(csm_buf_put(&csr, job.csr.p, job.csr.n), 0);
	done_badly("busy", "a person has to look\x01", 7);
	assert_int_equal(answer_of(pub, 20, &info), CSM_EBUSY);
	told("a person has to look?");
	assert_int_equal(get("web:b", &info), 0);
	/* which is no failure: asked for then, and what was tried was not in vain */
	assert_true(info.next_try.v >= (uint64_t)time(NULL) + 6 && info.next_try.v < (uint64_t)time(NULL) + 60 && info.attempts.v == 0);
	/* the same request again, so that the person finds it */
	assert_int_equal(testbroker_request(&fix.t, pub, 21, "cert.renew", &m), 0);
	next_job("enrol");
	assert_int_equal(job.csr.n, csr.len);
	assert_memory_equal(job.csr.p, csm_buf_ptr(&csr), csr.len);
	/* csm-enrol ends with the job in hand */
	fix_close(chan);
	chan = fix_connect(CSM_R_ENROL);
	testreader_free(&reader);
	testreader_init(&reader);
	assert_int_equal(answer_of(pub, 21, &info), CSM_EUNAVAILABLE);
	told("csm-enrol ended");
	/* a job of before is none, and one channel does not end another's */
	assert_int_equal(call_chan("enrol.done", &(struct csm_msg_enrol_done_req){.job = job.id}), CSM_ESTATE);
	csm_buf_free(&csr);
	/* nothing is due, so that a channel waits */
	ask_next();
	assert_int_equal(take_job(200), CSM_ETIMEOUT);
	assert_int_equal(testbroker_request(&fix.t, pub, 22, "cert.renew", &m), 0);
	assert_int_equal(take_job(ANSWER_MS), 0);
	done_with(&(struct certspec){.subject = "/CN=free", .san = "DNS:x.example.org"});
	assert_int_equal(answer_of(pub, 22, &info), 0);
}

static void a_request_made_elsewhere_is_forwarded(void **state)
{
	static struct csm_str sans[] = {CSM_STR("dns:else.example.org")}, bad[] = {CSM_STR("dns:else.example.com")};
	struct csm_msg_csr_req c = {.key = CSM_STR("web:c"), .subject = CSM_STR("/CN=free"), .sans = {sans, 1}};
	struct csm_msg_cert_enrol_req m = {.key = CSM_STR("web:elsewhere")};
	struct csm_msg_cert_info info = {0};
	struct csm_msg_csr_res res;
	struct csm_buf csr;

	(void)state;
	csm_buf_init(&csr, CSM_CSR_MAX, false);
	assert_int_equal(fix_create(pub, "web:c", "p256", NULL, NULL), 0);
	assert_int_equal(fix_call(pub, "key.csr", &c, &res), 0);
	assert_int_equal(csm_buf_put(&csr, res.csr.p, res.csr.n), 0);
	m.csr = (struct csm_bin){csm_buf_ptr(&csr), csr.len};
	assert_int_equal(testbroker_request(&fix.t, pub, 30, "cert.enrol", &m), 0);
	next_job("enrol");
	assert_int_equal(job.csr.n, csr.len);
	done_with(&(struct certspec){.subject = "/CN=free", .san = "DNS:else.example.org", .serial = "5E"});
	assert_int_equal(answer_of(pub, 30, &info), 0);
	assert_true(csm_str_eq(info.serial, "5e") && info.chain.n > 0 && info.profile.p == NULL);
	assert_int_equal(get("web:elsewhere", &info), CSM_ENOT_FOUND);
	/* other names come back */
	assert_int_equal(testbroker_request(&fix.t, pub, 31, "cert.enrol", &m), 0);
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=free", .san = "DNS:other.example.org"});
	assert_int_equal(answer_of(pub, 31, &info), CSM_EBACKEND);
	/* names that the profile does not let out, and bytes that are no request */
	c.sans.v = bad;
	assert_int_equal(fix_call(pub, "key.csr", &c, &res), 0);
	m.csr = res.csr;
	csm_buf_reset(&csr);
	assert_int_equal(csm_buf_put(&csr, res.csr.p, res.csr.n), 0);
	m.csr = (struct csm_bin){csm_buf_ptr(&csr), csr.len};
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_EDENIED);
	m.csr.n--;
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), CSM_EINVALID);
	csm_buf_free(&csr);
}

static uint64_t watch_version(int fd, const char *key, uint64_t after, struct csm_msg_cert_watch_res *res)
{
	static struct csm_str keys[1];
	struct csm_msg_cert_watch_req m = {.keys = {keys, 1}, .after = {after, after > 0}, .timeout_ms = {2000, true}};

	keys[0] = csm_str_of(key);
	assert_int_equal(fix_call(fd, "cert.watch", &m, res), 0);
	return res->version.v;
}

static void changes_are_told(void **state)
{
	static struct csm_str keys[] = {CSM_STR("web:a")};
	struct csm_msg_cert_watch_req m = {.keys = {keys, 1}};
	struct csm_msg_cert_watch_res res;
	struct csm_msg_cert_info info = {0};
	struct testanswer a;
	struct csm_str bad;
	uint64_t v;

	(void)state;
	v = watch_version(pub, "web:a", 0, &res);
	assert_true(v > 0 && res.keys.n == 0 && !res.all.v);
	m.after = (struct csm_u64){v, true};
	assert_int_equal(testbroker_request(&fix.t, admin, 40, "cert.watch", &m), 0);
	ask_enrol(pub, "web:a", 41);
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=a", .san = "DNS:a.example.org"});
	assert_int_equal(answer_of(pub, 41, &info), 0);
	assert_int_equal(testbroker_answer(&fix.t, admin, &waiter, ANSWER_MS, &a), 0);
	assert_int_equal(a.error, 0);
	assert_int_equal(csm_msg_decode(CSM_DEF(cert_watch_res), a.result, CSM_UNKNOWN_REFUSE, &fix.pool, &res, &bad), 0);
	assert_true(res.version.v > v && res.keys.n == 1 && csm_str_eq(res.keys.v[0], "web:a"));
	/* between two questions nothing is missed; another key's change is not told; numbers from elsewhere begin anew */
	v = watch_version(pub, "web:a", v, &res);
	assert_int_equal(res.keys.n, 1);
	m = (struct csm_msg_cert_watch_req){.keys = {keys, 1}, .after = {v, true}, .timeout_ms = {0, true}};
	assert_int_equal(fix_call(pub, "cert.watch", &m, &res), 0);
	assert_int_equal(res.keys.n, 0);
	watch_version(pub, "web:a", 5, &res);
	assert_true(res.all.v);
	watch_version(pub, "web:a", UINT64_MAX, &res);
	assert_true(res.all.v);
}

static void others_watch_nothing(void **state)
{
	static struct csm_str keys[] = {CSM_STR("web:a")};
	struct csm_msg_cert_watch_req m = {.keys = {keys, 1}};
	struct csm_msg_cert_watch_res res;
	struct csm_msg_cert_enrol_req enrol = {.key = CSM_STR("web:a")};
	struct csm_msg_cert_revoke_req revoke = {.key = CSM_STR("web:a")};
	struct csm_msg_cert_info info = {0};
	struct csm_msg_empty none = {0};
	struct csm_msg_enrol_job stolen;
	int other = fix_connect_as(70061);

	(void)state;
	assert_int_equal(fix_call(other, "cert.watch", &m, &res), CSM_EDENIED);
	assert_int_equal(fix_call(other, "cert.enrol", &enrol, &info), CSM_EDENIED);
	assert_int_equal(fix_call(other, "cert.renew", &(struct csm_msg_cert_renew_req){.key = enrol.key}, &info), CSM_EDENIED);
	assert_int_equal(fix_call(other, "cert.revoke", &revoke, &info), CSM_EDENIED);
	assert_int_equal(fix_call(other, "enrol.next", &none, &stolen), CSM_EROLE);
	assert_int_equal(fix_call(admin, "enrol.next", &none, &stolen), CSM_EROLE);
	/* and csm-enrol does nothing else */
	assert_int_equal(call_chan("cert.get", &(struct csm_msg_key_req){.key = enrol.key}), CSM_EROLE);
	assert_int_equal(call_chan("key.sign", &(struct csm_msg_sign_req){.key = enrol.key}), CSM_EROLE);
	fix_close(other);
}

static void a_revoked_one_is_not_renewed(void **state)
{
	struct csm_msg_cert_revoke_req m = {.key = CSM_STR("web:b"), .reason = CSM_STR("superseded"), .request_id = CSM_STR("rv")};
	struct csm_msg_enrol_done_req done = {0};
	struct csm_msg_cert_info info = {0};
	struct entry *en;

	(void)state;
	m.reason = CSM_STR("boredom");
	assert_int_equal(fix_ask(pub, "cert.revoke", &m), CSM_EINVALID);
	told("keyCompromise, affiliationChanged, superseded or");
	m.reason = CSM_STR("superseded");
	assert_int_equal(testbroker_request(&fix.t, pub, 50, "cert.revoke", &m), 0);
	next_job("revoke");
	assert_true(csm_str_eq(job.reason, "superseded") && csm_str_eq(job.serial, "01"));
	done_badly("denied", "not this node's", 0);
	assert_int_equal(answer_of(pub, 50, &info), CSM_EDENIED);
	assert_int_equal(get("web:b", &info), 0);
	assert_true(csm_str_eq(info.state, "valid"));
	assert_int_equal(testbroker_request(&fix.t, pub, 51, "cert.revoke", &m), 0);
	next_job("revoke");
	done.job = job.id;
	assert_int_equal(call_chan("enrol.done", &done), 0);
	assert_int_equal(answer_of(pub, 51, &info), 0);
	assert_true(csm_str_eq(info.state, "revoked") && info.revoked.v > 0);
	en = entry_find(fix.t.b.enrol, CSM_STR("web"), CSM_STR("b"));
	assert_true(en != NULL && en->item.off);
	assert_int_equal(fix_call(pub, "cert.revoke", &m, &info), 0);
	/* the key is as good as ever, and may have another one */
	ask_enrol(pub, "web:b", 52);
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=b", .san = "DNS:b.example.org"});
	assert_int_equal(answer_of(pub, 52, &info), 0);
	assert_true(csm_str_eq(info.state, "valid") && !info.revoked.set);
}

/* One that csm-enrol never had, since it ended while it waited for it, is handed to the next one. */
static void a_channel_that_is_gone_costs_no_attempt(void **state)
{
	struct csm_msg_cert_info info = {0};

	(void)state;
	assert_int_equal(fix_create(pub, "web:gone", "p256", NULL, NULL), 0);
	ask_next();
	assert_int_equal(take_job(200), CSM_ETIMEOUT);
	fix_close(chan);
	usleep(200000);
	chan = fix_connect(CSM_R_ENROL);
	testreader_free(&reader);
	testreader_init(&reader);
	ask_enrol(pub, "web:gone", 70);
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=gone", .san = "DNS:gone.example.org", .serial = "0B0D"});
	assert_int_equal(answer_of(pub, 70, &info), 0);
	assert_true(info.attempts.v == 0);
}

static void a_channel_whose_end_was_refused_has_other_jobs(void **state)
{
	static const uint8_t big[CSM_CERT_CHAIN_MAX + 1];
	struct csm_msg_enrol_done_req m = {.chain = {big, sizeof(big)}};
	struct csm_msg_cert_info info = {0};

	(void)state;
	ask_enrol(pub, "web:gone", 71);
	next_job("enrol");
	m.job = job.id;
	assert_int_not_equal(call_chan("enrol.done", &m), 0);
	ask_next();
	assert_int_equal(take_job(ANSWER_MS), CSM_ESTATE);
	assert_int_equal(answer_of(pub, 71, &info), CSM_EUNAVAILABLE);
	ask_enrol(pub, "web:gone", 72);
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=gone", .san = "DNS:gone.example.org", .serial = "0B0E"});
	assert_int_equal(answer_of(pub, 72, &info), 0);
}

/* Its second job is handed out only while a channel is left to the other profile, which has none. */
static void a_profile_that_hangs_leaves_channels_to_others(void **state)
{
	struct csm_msg_cert_info info = {0};
	int hangs = chan, left;

	(void)state;
	assert_int_equal(fix_create(pub, "web:h1", "p256", NULL, NULL), 0);
	assert_int_equal(fix_create(pub, "web:h2", "p256", NULL, NULL), 0);
	ask_enrol(pub, "web:h1", 75);
	next_job("enrol");
	testreader_free(&reader);
	testreader_init(&reader);
	ask_enrol(pub, "web:h2", 76);
	chan = fix_connect(CSM_R_ENROL);
	ask_next();
	assert_int_equal(take_job(300), CSM_ETIMEOUT);
	left = fix_connect(CSM_R_ENROL);
	assert_int_equal(testbroker_request(&fix.t, left, 77, "enrol.next", &(struct csm_msg_empty){0}), 0);
	assert_int_equal(take_job(ANSWER_MS), 0);
	done_with(&(struct certspec){.subject = "/CN=h2", .san = "DNS:h2.example.org", .serial = "0B0F"});
	assert_int_equal(answer_of(pub, 76, &info), 0);
	fix_close(hangs);
	assert_int_equal(answer_of(pub, 75, &info), CSM_EUNAVAILABLE);
	fix_close(left);
	ask_enrol(pub, "web:h1", 78);
	next_job("enrol");
	done_with(&(struct certspec){.subject = "/CN=h1", .san = "DNS:h1.example.org", .serial = "0B10"});
	assert_int_equal(answer_of(pub, 78, &info), 0);
}

/* What was sent is where it waits. */
static void settle(void)
{
	for (int i = 0; i < 50; i++) {
		testbroker_step(&fix.t);
		usleep(2000);
	}
}

/* A retry after a lost answer: it waits for what the first one began, and then has its answer. */
static void a_retry_enrols_nothing_twice(void **state)
{
	struct csm_msg_cert_enrol_req e = {.key = CSM_STR("web:retry"), .request_id = CSM_STR("e1")};
	struct csm_msg_cert_renew_req m = {.key = CSM_STR("web:retry"), .request_id = CSM_STR("r1")};
	struct csm_msg_cert_info info = {0};
	uint8_t once[16];
	int other = fix_connect(CSM_R_PUBLIC);

	(void)state;
	assert_int_equal(fix_create(pub, "web:retry", "rsa2048", NULL, NULL), 0);
	assert_int_equal(testbroker_request(&fix.t, pub, 90, "cert.enrol", &e), 0);
	next_job("enrol");
	/* a CA that lets wait has given nothing yet: the same request asks again */
	done_badly("busy", "a person has to look", 600);
	assert_int_equal(answer_of(pub, 90, &info), CSM_EBUSY);
	assert_int_equal(testbroker_request(&fix.t, pub, 90, "cert.enrol", &e), 0);
	next_job("enrol");
	assert_int_equal(job.once.n, sizeof(once));
	memcpy(once, job.once.p, sizeof(once));
	/* the client is gone, and asks again before and after the answer */
	assert_int_equal(testbroker_request(&fix.t, other, 91, "cert.enrol", &e), 0);
	settle();
	done_with(&(struct certspec){.subject = "/CN=retry", .san = "DNS:retry.example.org", .serial = "A1"});
	assert_int_equal(answer_of(pub, 90, &info), 0);
	testreader_free(&waiter);
	testreader_init(&waiter);
	assert_int_equal(answer_of(other, 91, &info), 0);
	assert_int_equal(fix_call(pub, "cert.enrol", &e, &info), 0);
	assert_true(csm_str_eq(info.serial, "a1"));
	ask_next();
	assert_int_equal(take_job(200), CSM_ETIMEOUT);
	/* the same of a renewal, which is not the same to the CA although an RSA key signs the same request */
	assert_int_equal(testbroker_request(&fix.t, pub, 92, "cert.renew", &m), 0);
	assert_int_equal(take_job(ANSWER_MS), 0);
	assert_int_equal(job.once.n, sizeof(once));
	assert_memory_not_equal(once, job.once.p, sizeof(once));
	memcpy(once, job.once.p, sizeof(once));
	done_badly("unavailable", "its answer was lost", 0);
	assert_int_equal(answer_of(pub, 92, &info), CSM_EUNAVAILABLE);
	assert_int_equal(testbroker_request(&fix.t, pub, 93, "cert.renew", &m), 0);
	next_job("enrol");
	assert_memory_equal(once, job.once.p, sizeof(once));
	assert_int_equal(testbroker_request(&fix.t, other, 94, "cert.renew", &m), 0);
	settle();
	done_with(&(struct certspec){.subject = "/CN=retry", .san = "DNS:retry.example.org", .serial = "A2"});
	assert_int_equal(answer_of(pub, 93, &info), 0);
	testreader_free(&waiter);
	testreader_init(&waiter);
	assert_int_equal(answer_of(other, 94, &info), 0);
	assert_int_equal(fix_call(pub, "cert.renew", &m, &info), 0);
	assert_true(csm_str_eq(info.serial, "a2"));
	ask_next();
	assert_int_equal(take_job(200), CSM_ETIMEOUT);
	/* another wish is another one */
	m.request_id = CSM_STR("r2");
	assert_int_equal(testbroker_request(&fix.t, pub, 95, "cert.renew", &m), 0);
	assert_int_equal(take_job(ANSWER_MS), 0);
	done_with(&(struct certspec){.subject = "/CN=retry", .san = "DNS:retry.example.org", .serial = "A3"});
	assert_int_equal(answer_of(pub, 95, &info), 0);
	fix_close(other);
}

static void a_retry_with_a_request_enrols_nothing_twice(void **state)
{
	static struct csm_str sans[] = {CSM_STR("dns:else.example.org")};
	struct csm_msg_csr_req c = {.key = CSM_STR("web:retry"), .subject = CSM_STR("/CN=free"), .sans = {sans, 1}};
	struct csm_msg_cert_enrol_req m = {.key = CSM_STR("web:elsewhere"), .request_id = CSM_STR("c1")};
	int other = fix_connect(CSM_R_PUBLIC);
	struct csm_msg_cert_info info = {0};
	struct csm_msg_csr_res res;
	struct csm_buf csr;
	uint8_t once[16];

	(void)state;
	csm_buf_init(&csr, CSM_CSR_MAX, false);
	assert_int_equal(fix_call(pub, "key.csr", &c, &res), 0);
	assert_int_equal(csm_buf_put(&csr, res.csr.p, res.csr.n), 0);
	m.csr = (struct csm_bin){csm_buf_ptr(&csr), csr.len};
	for (int i = 0; i < 2; i++) {
		assert_int_equal(testbroker_request(&fix.t, pub, 100, "cert.enrol", &m), 0);
		next_job("enrol");
		assert_int_equal(job.once.n, sizeof(once));
		if (i == 1) /* to csm-server it is the same as what was lost */
			assert_memory_equal(once, job.once.p, sizeof(once));
		memcpy(once, job.once.p, sizeof(once));
		if (i == 0) {
			done_badly("unavailable", "its answer was lost", 0);
			assert_int_equal(answer_of(pub, 100, &info), CSM_EUNAVAILABLE);
		}
	}
	assert_int_equal(testbroker_request(&fix.t, other, 101, "cert.enrol", &m), 0);
	settle();
	done_with(&(struct certspec){.subject = "/CN=free", .san = "DNS:else.example.org", .serial = "C1"});
	assert_int_equal(answer_of(pub, 100, &info), 0);
	testreader_free(&waiter);
	testreader_init(&waiter);
	assert_int_equal(answer_of(other, 101, &info), 0);
	assert_true(csm_str_eq(info.serial, "c1") && info.chain.n > 0);
	assert_int_equal(fix_call(pub, "cert.enrol", &m, &info), 0);
	assert_true(csm_str_eq(info.serial, "c1") && info.chain.n > 0);
	ask_next();
	assert_int_equal(take_job(200), CSM_ETIMEOUT);
	m.request_id = CSM_STR("c2");
	assert_int_equal(testbroker_request(&fix.t, pub, 102, "cert.enrol", &m), 0);
	assert_int_equal(take_job(ANSWER_MS), 0);
	assert_memory_not_equal(once, job.once.p, sizeof(once));
	done_with(&(struct certspec){.subject = "/CN=free", .san = "DNS:else.example.org", .serial = "C2"});
	assert_int_equal(answer_of(pub, 102, &info), 0);
	csm_buf_free(&csr);
	fix_close(other);
}

static void reload(const char *text)
{
	struct csm_msg_empty none = {0};
	struct csm_msg_reload_res res;

	fix.t.policy = text;
	assert_int_equal(fix_call(admin, "policy.reload", &none, &res), 0);
}

/* Who waits is judged by the policy of now. */
static void who_may_not_watch_any_more_is_told(void **state)
{
	static const char without[] = "version: 1\ndefault: uid-namespaces\nidentities:\n  root: {uid: 0}\n"
				      "rules:\n  - {allow: [cert.get], to: [root], on: [\"web:*\"]}\n";
	static struct csm_str keys[] = {CSM_STR("web:a")};
	struct csm_msg_cert_watch_req m = {.keys = {keys, 1}};
	struct csm_msg_cert_watch_res res;
	struct testanswer a;

	(void)state;
	assert_int_equal(fix_call(pub, "cert.watch", &m, &res), 0);
	m.after = res.version;
	assert_int_equal(testbroker_request(&fix.t, pub, 110, "cert.watch", &m), 0);
	reload(policy); /* nothing is another one: it waits on */
	assert_int_equal(testbroker_answer(&fix.t, pub, &waiter, 200, &a), CSM_ETIMEOUT);
	reload(without);
	assert_int_equal(testbroker_answer(&fix.t, pub, &waiter, ANSWER_MS, &a), 0);
	assert_true(a.msgid == 110 && a.error == CSM_EDENIED);
	reload(policy);
}

static void what_is_gone_is_not_renewed(void **state)
{
	struct csm_msg_key_delete_req m = {.key = CSM_STR("web:b")};
	struct csm_msg_cert_renew_req renew = {.key = CSM_STR("web:b")};
	struct csm_msg_cert_info info = {0};
	struct csm_msg_empty none;

	(void)state;
	assert_int_equal(testbroker_request(&fix.t, pub, 60, "cert.renew", &renew), 0);
	next_job("enrol");
	assert_int_equal(fix_call(admin, "key.delete", &m, &none), 0);
	done_with(&(struct certspec){.subject = "/CN=b", .san = "DNS:b.example.org"});
	assert_int_equal(answer_of(pub, 60, &info), CSM_ENOT_FOUND);
	assert_null(entry_find(fix.t.b.enrol, CSM_STR("web"), CSM_STR("b")));
	assert_int_equal(fix_create(pub, "web:b", "p256", NULL, NULL), 0);
	assert_int_equal(fix_call(pub, "cert.renew", &renew, &info), CSM_ESTATE);
}

int main(void)
{
#define T(f) ENROLFIX_TEST(f)
	const struct CMUnitTest tests[] = {
		T(the_node_is_enrolled_first), T(nobody_uses_the_nodes_key), T(what_is_not_as_asked_for_is_refused),
		T(names_need_the_profiles_leave), T(a_ca_that_fails_is_asked_again), T(a_request_made_elsewhere_is_forwarded),
		T(changes_are_told), T(others_watch_nothing), T(a_revoked_one_is_not_renewed), T(a_channel_that_is_gone_costs_no_attempt),
		T(a_channel_whose_end_was_refused_has_other_jobs),
		T(a_profile_that_hangs_leaves_channels_to_others),
		T(a_retry_enrols_nothing_twice), T(a_retry_with_a_request_enrols_nothing_twice), T(who_may_not_watch_any_more_is_told),
		T(what_is_gone_is_not_renewed),
	};

	fix_config = config;
	if (!fix_prepare(120, NULL, policy))
		return 77;
	return cmocka_run_group_tests(tests, enrolfix_begin, enrolfix_end);
}
