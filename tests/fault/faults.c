/* Every n-th call of a kind fails once, in the start, in the work and in the stop of a broker. It must not crash, leak or
 * hang; what was acknowledged is there, nothing is half there; each refusal says what is wrong; and when the fault is
 * over the next requests are served, by the same broker or, where it ended, by the next one.
 *
 * usage: faults PLUGIN_DIR KIND PHASE MOST [SEED]
 *        faults PLUGIN_DIR KIND PHASE @N
 *
 * PHASE: first (a start without a store), start, work, stop. MOST: so many places at most, evenly spread from a place
 * that SEED chooses; 0: all. Exit status 1 when something was wrong, with what the broker said. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/fault/brokerproc.h"
#include "tests/fault/inject.h"
#include "tests/lib/certmake.h"

/* The sanitizers' own status, not one that the broker gives. */
#define SANITIZER_STATUS 99
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
	return "exitcode=99:allocator_may_return_null=1:detect_leaks=1:handle_abort=1";
}

enum phase { PH_FIRST, PH_START, PH_WORK, PH_STOP, PHASES };
static const char *const phase_name[PHASES] = {"first", "start", "work", "stop"};

enum there { ABSENT, THERE, UNKNOWN };
enum { KEY, SECRET, DOMAIN, THINGS };
struct round {
	unsigned number;
	enum there is[THINGS], second_key, cert;
};
#define REMEMBERED 3 /* rounds that are looked at again */

static struct {
	struct brokerproc b;
	enum fault_kind kind;
	enum phase phase;
	uint64_t at;
	struct round rounds[REMEMBERED];
	unsigned n_rounds;
	unsigned long fired, ended, refused[200];
	unsigned bad;
	int conn, admin;
} f;

static void show_log(void)
{
	FILE *log = fopen(f.b.log, "r");
	char line[1024];
	int n = 0;

	while (log != NULL && n++ < 60 && fgets(line, sizeof(line), log) != NULL)
		fprintf(stderr, "  | %s", line);
	if (log != NULL)
		fclose(log);
}

/* The last requests and what became of them. */
#define TRACE 64
static struct {
	char method[24], name[32];
	int r;
	uint64_t at;
	pid_t pid;
} trace[TRACE];
static unsigned n_trace;

static void show_trace(void)
{
	for (unsigned i = n_trace > TRACE ? n_trace - TRACE : 0; i < n_trace; i++)
		fprintf(stderr, "  > broker %d, call %lld: %s %s: %s\n", (int)trace[i % TRACE].pid,
			(long long)trace[i % TRACE].at, trace[i % TRACE].method, trace[i % TRACE].name,
			csm_err_name(trace[i % TRACE].r));
}

static void note(const char *method, const void *params, int r)
{
	const struct csm_method *m = csm_method_find(csm_str_of(method));
	/* Of those with a name it is the first field. */
	const struct csm_str *s = params != NULL && m->request->n_fields > 0 && m->request->fields[0].kind == CSM_K_STR ?
		params : NULL;

	snprintf(trace[n_trace % TRACE].method, sizeof(trace[0].method), "%s", method);
	snprintf(trace[n_trace % TRACE].name, sizeof(trace[0].name), "%.*s", s == NULL ? 0 : (int)s->n, s == NULL ? "" : s->p);
	trace[n_trace % TRACE].r = r;
	trace[n_trace % TRACE].at = f.at;
	trace[n_trace++ % TRACE].pid = f.b.pid;
}

static void wrong(const char *what, const char *more, int r)
{
	fprintf(stderr, "WRONG: %s of %s, call %llu: %s %s: %s %s\n", phase_name[f.phase], fault_name(f.kind),
		(unsigned long long)f.at, what, more, r == 0 ? "" : csm_err_name(r),
		r == 0 ? "" : f.b.message);
	show_log();
	if (f.bad++ == 0)
		show_trace();
}

/* ---- the client ---- */

static void disconnect(void)
{
	if (f.conn >= 0)
		close(f.conn);
	if (f.admin >= 0)
		close(f.admin);
	f.conn = f.admin = -1;
}

static void replace_ended(void);

static int ask(const char *method, const void *params, void *result)
{
	bool admin = strncmp(method, "policy.", 7) == 0 || strcmp(method, "status") == 0;
	int *fd = admin ? &f.admin : &f.conn, r;

	replace_ended();
	if (*fd < 0)
		*fd = bp_connect(&f.b, admin ? CSM_R_ADMIN : CSM_R_PUBLIC);
	r = bp_ask(&f.b, *fd, method, params, result);
	if (r == CSM_ECLOSED || r == CSM_ETIMEOUT || r == CSM_EPROTOCOL) {
		close(*fd);
		*fd = -1;
	}
	note(method, params, r);
	if (r == CSM_ETIMEOUT)
		wrong("no answer to", method, r);
	if (r == CSM_ECLOSED || r == CSM_ETIMEOUT)
		f.b.message[0] = '\0';
	f.refused[r < 200 ? r : 199]++;
	return r;
}

/* What may be said while a call fails, or right after. */
static bool clear_error(int r)
{
	switch (r) {
	case CSM_EUNAVAILABLE:
	case CSM_EBUSY:
	case CSM_ENO_SPACE:
	case CSM_EBACKEND:
	case CSM_ECLOSED:
	case CSM_ESHUTDOWN:
		return true;
	default:
		return false;
	}
}

struct names {
	char key[32], second[32], domain[32], secret[64];
};

static void names_of(const struct round *w, struct names *n)
{
	snprintf(n->key, sizeof(n->key), "key-%u", w->number);
	snprintf(n->second, sizeof(n->second), "ed-%u", w->number);
	snprintf(n->domain, sizeof(n->domain), "d%u", w->number);
	snprintf(n->secret, sizeof(n->secret), "d%u/secret", w->number);
}

/* A step of a session: its outcome, and what is known of the thing after. */
static void step(bool faulty, const char *method, const void *params, void *result, enum there *thing, enum there then)
{
	int r = ask(method, params, result);

	if (r == 0) {
		if (thing != NULL)
			*thing = then;
		return;
	}
	/* What was in the air may have been done: then a repetition finds it so. */
	if (thing != NULL && *thing == UNKNOWN && (r == CSM_EEXISTS || r == CSM_ENOT_FOUND))
		return;
	if (faulty && r == CSM_ENOT_FOUND)
		return; /* of what could not be made before */
	if (thing != NULL)
		*thing = UNKNOWN;
	if (!faulty)
		wrong("after the fault", method, r);
	else if (!clear_error(r))
		wrong("not a clear error:", method, r);
}

static void sign(bool faulty, const char *key, enum there is)
{
	struct csm_msg_sign_req m = {.key = csm_str_of(key), .message = {(const uint8_t *)"signed", 6}};
	struct csm_msg_sign_res res;

	if (is != ABSENT)
		step(faulty || is == UNKNOWN, "key.sign", &m, &res, NULL, ABSENT);
}

/* A chain of two for a public key, which outlives the jumps of the clock. */
#define LIFE_S (3L * 365 * 86400)
static void chain_make(struct csm_bin spki, struct csm_buf *der)
{
	EVP_PKEY *ca_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), *own = cert_key_of(spki);
	X509 *ca = cert_make(&(struct certspec){.subject = "/CN=ca", .key = ca_key, .ca = true, .from = -60, .to = LIFE_S});
	X509 *x = cert_make(&(struct certspec){.subject = "/CN=x", .key = own, .signer = ca, .signer_key = ca_key,
		.san = "DNS:a.example.org", .from = -60, .to = LIFE_S});

	cert_der(x, der);
	cert_der(ca, der);
}

/* The same in a process of its own: brokers are forked from this one, and set OpenSSL up before it was ever used. It is made
 * once: a fork of a program under the sanitizers takes longer than all that is asked of it. */
static int certifier = -1;

static void certify_all(int fd)
{
	uint8_t spki[CSM_SPKI_MAX];
	struct csm_buf der;
	ssize_t n;

	csm_buf_init(&der, CSM_MESSAGE_MAX, false);
	while ((n = recv(fd, spki, sizeof(spki), 0)) > 0) {
		csm_buf_reset(&der);
		chain_make((struct csm_bin){spki, (size_t)n}, &der);
		if (send(fd, csm_buf_ptr(&der), der.len, MSG_NOSIGNAL) != (ssize_t)der.len)
			break;
	}
	_exit(0);
}

static bool certifier_start(void)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0 || (pid = fork()) < 0)
		return false;
	if (pid == 0) {
		close(ends[0]);
		certify_all(ends[1]); /* until we end */
	}
	close(ends[1]);
	certifier = ends[0];
	return true;
}

static bool chain_of(struct csm_bin spki, uint8_t *out, size_t cap, size_t *n)
{
	ssize_t got = -1;

	if (send(certifier, spki.p, spki.n, MSG_NOSIGNAL) == (ssize_t)spki.n)
		got = recv(certifier, out, cap, 0);
	*n = got > 0 ? (size_t)got : 0;
	return got > 0;
}

static void certify(struct round *w, bool faulty)
{
	struct csm_msg_cert_install_req m = {0};
	struct csm_msg_key_public_res pub;
	struct csm_msg_key_public_req key = {0};
	struct csm_msg_cert_info info;
	uint8_t chain[4096];
	struct names n;

	names_of(w, &n);
	key.key = m.key = csm_str_of(n.key);
	if (w->is[KEY] != THERE || ask("key.public", &key, &pub) != 0)
		return;
	m.chain.p = chain;
	if (chain_of(pub.spki, chain, sizeof(chain), &m.chain.n))
		step(faulty, "cert.install", &m, &info, &w->cert, THERE);
	else
		wrong("no certificate for", n.key, 0);
}

static void look_around(bool faulty)
{
	struct csm_msg_list_req list = {.limit = {10, true}};
	struct csm_msg_random_req rnd = {.bytes = {16, true}};
	struct csm_msg_random_res random_res;
	struct csm_msg_key_list_res keys;
	struct csm_msg_status_res status;
	struct csm_msg_reload_res reload;

	step(faulty, "status", NULL, &status, NULL, ABSENT);
	step(faulty, "random", &rnd, &random_res, NULL, ABSENT);
	step(faulty, "key.list", &list, &keys, NULL, ABSENT);
	step(faulty, "policy.reload", NULL, &reload, NULL, ABSENT);
}

static void make_things(struct round *w, bool faulty)
{
	struct csm_msg_key_create_req key = {.backend = CSM_STR("soft")};
	struct csm_msg_pair pairs[2] = {{.name = CSM_STR("a"), .value = {(const uint8_t *)"value one", 9}},
		{.name = CSM_STR("b"), .value = {(const uint8_t *)"value two", 9}}};
	struct csm_msg_secret_set_req set = {.pairs = {pairs, 2}};
	struct csm_msg_secret_set_res set_res;
	struct csm_msg_domain_req domain = {0};
	struct csm_msg_key_info info;
	struct csm_msg_empty none;
	struct names n;

	names_of(w, &n);
	key.key = csm_str_of(n.key);
	step(faulty, "key.create", &key, &info, &w->is[KEY], THERE);
	certify(w, faulty);
	key.key = csm_str_of(n.second);
	key.alg = CSM_STR("ed25519");
	if (f.b.tpm != NULL) {
		key.alg = CSM_STR("p256");
		key.backend = CSM_STR("tpm2");
	}
	step(faulty, "key.create", &key, &info, &w->second_key, THERE);
	domain.domain = csm_str_of(n.domain);
	step(faulty, "domain.create", &domain, &none, &w->is[DOMAIN], THERE);
	if (w->is[DOMAIN] != THERE)
		return;
	set.secret = csm_str_of(n.secret);
	step(faulty, "secret.set", &set, &set_res, &w->is[SECRET], THERE);
}

/* Is it as it is remembered? What is unknown may be there or not, and is whole. */
static void check_secret(struct round *w)
{
	struct csm_msg_secret_get_req m = {0};
	struct csm_msg_secret_get_res res;
	struct names n;
	int r;

	names_of(w, &n);
	m.secret = csm_str_of(n.secret);
	r = ask("secret.get", &m, &res);
	if (r != 0 && r != CSM_ENOT_FOUND) {
		wrong("cannot be read:", n.secret, r);
		return;
	}
	if ((w->is[SECRET] == THERE && r != 0) || (w->is[SECRET] == ABSENT && r == 0))
		wrong("was acknowledged, and is otherwise:", n.secret, r);
	if (r == 0 && (res.pairs.n != 2 || res.pairs.v[0].value.n != 9 ||
			      memcmp(res.pairs.v[0].value.p, "value one", 9) != 0 ||
			      memcmp(res.pairs.v[1].value.p, "value two", 9) != 0))
		wrong("is half there:", n.secret, 0);
	if (w->is[SECRET] == UNKNOWN)
		w->is[SECRET] = r == 0 ? THERE : ABSENT;
}

static void check_key(const char *name, enum there *is)
{
	struct csm_msg_key_req show = {.key = csm_str_of(name)};
	struct csm_msg_key_info info;
	int r = ask("key.show", &show, &info);

	if (r != 0 && r != CSM_ENOT_FOUND) {
		wrong("cannot be read:", name, r);
		return;
	}
	if ((*is == THERE && r != 0) || (*is == ABSENT && r == 0))
		wrong("was acknowledged, and is otherwise:", name, r);
	if (*is == UNKNOWN)
		*is = r == 0 ? THERE : ABSENT;
	sign(false, name, *is);
}

/* It goes with its key. */
static void check_cert(struct round *w)
{
	struct csm_msg_key_req m = {0};
	struct csm_msg_cert_info info;
	struct names n;
	int r;

	names_of(w, &n);
	m.key = csm_str_of(n.key);
	r = ask("cert.get", &m, &info);
	if (r != 0 && r != CSM_ENOT_FOUND) {
		wrong("the certificate cannot be read:", n.key, r);
		return;
	}
	if ((w->cert == THERE && w->is[KEY] == THERE && r != 0) || ((w->cert == ABSENT || w->is[KEY] == ABSENT) && r == 0))
		wrong("the certificate was acknowledged, and is otherwise:", n.key, r);
	if (r == 0 && (!csm_str_eq(info.subject, "/CN=x") || info.chain.n < 500))
		wrong("the certificate is half there:", n.key, 0);
	w->cert = r == 0 ? THERE : ABSENT;
}

static void check_round(struct round *w)
{
	struct names n;

	names_of(w, &n);
	check_key(n.key, &w->is[KEY]);
	check_cert(w);
	check_key(n.second, &w->second_key);
	check_secret(w);
}

static void remove_things(struct round *w, bool faulty)
{
	struct csm_msg_key_delete_req key = {0};
	struct csm_msg_secret_delete_req secret = {0};
	struct csm_msg_empty none;
	struct names n;

	names_of(w, &n);
	key.key = csm_str_of(n.key);
	secret.secret = csm_str_of(n.secret);
	if (w->is[SECRET] == THERE)
		step(faulty, "secret.delete", &secret, &none, &w->is[SECRET], ABSENT);
	if (w->is[KEY] == THERE)
		step(faulty, "key.delete", &key, &none, &w->is[KEY], ABSENT);
	if (w->is[KEY] != THERE)
		w->cert = UNKNOWN; /* told by the key */
}

static struct round *new_round(void)
{
	struct round *w = &f.rounds[f.n_rounds % REMEMBERED];

	*w = (struct round){.number = f.n_rounds++};
	return w;
}

/* The scripted session. */
static void session(struct round *w, bool faulty)
{
	struct csm_msg_secret_get_req get = {0};
	struct csm_msg_secret_get_res got;
	struct names n;

	names_of(w, &n);
	make_things(w, faulty);
	sign(faulty, n.key, w->is[KEY]);
	sign(faulty, n.second, w->second_key);
	get.secret = csm_str_of(n.secret);
	if (w->is[SECRET] == THERE)
		step(faulty, "secret.get", &get, &got, NULL, ABSENT);
	look_around(faulty);
	remove_things(w, faulty);
}

/* ---- one fault ---- */

/* It may end, by its own decision; never by a signal, and never with a sanitizer's findings. */
static void look_at_end(int status, bool may_fail)
{
	disconnect();
	if (WIFSIGNALED(status))
		wrong("the broker was ended by a signal", strsignal(WTERMSIG(status)), 0);
	else if (WEXITSTATUS(status) == SANITIZER_STATUS)
		wrong("a sanitizer's finding", "", 0);
	else if (WEXITSTATUS(status) != 0 && !may_fail)
		wrong("the broker ended with an error", "", 0);
	else if (WEXITSTATUS(status) != 0)
		f.ended++;
}

static bool start_again(bool may_fail)
{
	int status = 0, r = bp_start(&f.b, &status);

	if (r < 0)
		wrong("the broker hangs in its start", "", 0);
	else if (r > 0)
		look_at_end(status, may_fail);
	return r == 0;
}

/* A broker that ended has a successor at once. */
static void replace_ended(void)
{
	int status;

	for (int i = 0; i < 20; i++) {
		if (bp_ended(&f.b, &status))
			look_at_end(status, true);
		if (f.b.pid != 0 || start_again(true))
			return;
	}
}

/* A store that could not be opened is tried again each second, which inject.c makes shorter. */
static bool store_opens(void)
{
	struct csm_msg_random_req rnd = {.bytes = {16, true}};
	struct csm_msg_random_res res;
	int r = CSM_EUNAVAILABLE;

	for (int i = 0; i < 500 && r == CSM_EUNAVAILABLE; i++) {
		if (i > 0)
			usleep(10000);
		r = ask("random", &rnd, &res);
	}
	if (r != 0)
		wrong("the store is not opened", "", r);
	return r == 0;
}

/* A request whose connection ended may wait at the socket for the next broker, and be done by it. Changes that come after
 * it, and are acknowledged, show that it has been. */
static void settle(void)
{
	struct csm_msg_domain_req m = {.domain = CSM_STR("settled")};
	struct csm_msg_empty none;
	enum there there = UNKNOWN;

	for (int i = 0; i < 2; i++) {
		step(false, "domain.create", &m, &none, &there, THERE);
		step(false, "domain.delete", &m, &none, &there, ABSENT);
	}
}

/* The fault is over: a broker is there that serves, and nothing is lost. */
static bool must_serve(void)
{
	int status;

	fault_disarm();
	if (bp_ended(&f.b, &status))
		look_at_end(status, true);
	disconnect();
	if (f.b.pid == 0 && !start_again(false)) {
		wrong("no broker starts any more", "", 0);
		return false;
	}
	if (!store_opens())
		return false;
	settle();
	for (unsigned i = 0; i < REMEMBERED && i < f.n_rounds; i++)
		check_round(&f.rounds[i]);
	/* The session that follows is a whole one; its things stay to be looked at in the next round. */
	session(new_round(), false);
	disconnect();
	return true;
}

static bool must_stop(bool faulty)
{
	int status = 0;

	if (f.b.pid == 0)
		return true;
	if (!bp_stop(&f.b, &status)) {
		wrong("the broker does not stop", "", 0);
		return false;
	}
	look_at_end(status, faulty);
	return true;
}

static void arm(uint64_t at)
{
	f.at = at;
	fault_page->jump_real_s = at % 3 == 0 ? -86400 : at % 3 == 1 ? 400 * 86400 : 0;
	fault_page->jump_mono_s = at % 3 == 0 ? 0 : 7200;
	/* One call, or a row of them; accepting pauses for a second after each that fails. */
	fault_arm(f.kind, at, at % 4 != 3 ? 1 : f.kind == FAULT_OPEN ? 2 : 8);
}

/* No store; and another TPM, since each new store makes a counter in it. */
static bool begin_anew(void)
{
	bp_fresh(&f.b);
	f.n_rounds = 0;
	if (f.b.tpm == NULL)
		return true;
	swtpm_stop(f.b.tpm);
	f.b.tpm = swtpm_start();
	if (f.b.tpm == NULL)
		wrong("swtpm does not start", "", 0);
	return f.b.tpm != NULL;
}

static uint64_t one(uint64_t at)
{
	uint64_t calls;

	if (f.phase == PH_FIRST || f.phase == PH_START) {
		if (!must_stop(false) || (f.phase == PH_FIRST && !begin_anew()))
			return 0;
		arm(at);
		start_again(true);
	} else {
		if (f.b.pid == 0 && !start_again(false))
			return 0;
		if (f.phase == PH_WORK) {
			arm(at);
			session(new_round(), true);
		} else {
			session(new_round(), false);
			arm(at);
			must_stop(true);
		}
	}
	calls = fault_page->calls;
	f.fired += fault_page->fired > 0;
	must_serve();
	return calls;
}

static unsigned long sweep(uint64_t calls, uint64_t most, uint64_t seed)
{
	/* A few beyond what was counted: threads take turns. */
	uint64_t end = calls + calls / 50 + 2, stride = most == 0 || end <= most ? 1 : (end + most - 1) / most;
	unsigned long tried = 0;

	for (uint64_t at = 1 + (stride > 1 ? seed % stride : 0); at <= end && f.bad < 5; at += stride) {
		one(at);
		tried++;
		/* Leaks are told at the end of a broker. */
		if (f.phase == PH_WORK && tried % 25 == 0)
			must_stop(false);
	}
	return tried;
}

static void tell(uint64_t calls, unsigned long tried)
{
	printf("%s, %s: %llu calls, %lu places tried, %lu faults, %lu brokers ended by them; answers:", phase_name[f.phase],
		fault_name(f.kind), (unsigned long long)calls, tried, f.fired, f.ended);
	for (int i = 0; i < 200; i++)
		if (f.refused[i] > 0)
			printf(" %s %lu", csm_err_name(i), f.refused[i]);
	printf("\n");
}

static bool parse(int argc, char **argv)
{
	if (argc < 5)
		return false;
	while (f.kind < FAULT_KINDS && strcmp(argv[2], fault_name(f.kind)) != 0)
		f.kind++;
	while (f.phase < PHASES && strcmp(argv[3], phase_name[f.phase]) != 0)
		f.phase++;
	return f.kind != FAULT_NONE && f.kind < FAULT_KINDS && f.phase < PHASES;
}

int main(int argc, char **argv)
{
	unsigned long tried = 0;
	uint64_t calls;

	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: faults PLUGIN_DIR KIND PHASE MOST [SEED]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	f.conn = f.admin = -1;
	if (!certifier_start())
		return 1;
	fault_init();
	bp_make(&f.b, argv[1]);
	if (f.kind == FAULT_TPM) {
		f.b.backends = "soft, tpm2";
		f.b.tpm = swtpm_start();
		if (f.b.tpm == NULL)
			return 1;
	}
	if (argv[4][0] == '@') {
		one(UINT64_MAX);
		one(strtoull(argv[4] + 1, NULL, 10));
		must_stop(false);
		bp_remove(&f.b);
		swtpm_stop(f.b.tpm);
		return f.bad > 0;
	}
	/* Twice: what is done once in a process's life is counted where it is. */
	one(UINT64_MAX);
	calls = one(UINT64_MAX);
	if (f.bad == 0)
		tried = sweep(calls, strtoull(argv[4], NULL, 10), argc > 5 ? strtoull(argv[5], NULL, 10) : 0);
	must_stop(false);
	tell(calls, tried);
	bp_remove(&f.b);
	swtpm_stop(f.b.tpm);
	return f.bad > 0;
}
