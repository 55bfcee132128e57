/* Any bytes as what a client sends to csm-server, in small pieces, whoever it is: heads, bodies, JSON, EST, OCSP, through the
 * real server, every route and a real database, without a csmd. The first byte says who asks, and whether the rest is what the
 * connection carries, or a route (by its number), what stands for its {...}, its query (a line each) and its body, under a head
 * of ours. What must hold: one whole answer, of no server's fault; what says that it is JSON is, and an error has its name; the
 * next one is served. */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/central/body.h"
#include "daemon/central/ca.h"
#include "daemon/central/pub.h"
#include "daemon/svc/http_int.h"
#include "daemon/svc/log.h"
#include "tests/lib/dbfix.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum who { ADMIN, TOKEN, SERVICE, NODE, OPERATOR, NOBODY, N_WHO };
static const char *const role[N_WHO] = {[SERVICE] = "", [NODE] = "node", [OPERATOR] = "operator"};
static const char config_text[] =
	"csmd_socket: /nonexistent/csm.sock\n"
	"profiles:\n"
	"  default: {subject: {CN: \"*\", O: \"*\"}, san: [\"dns:**\", \"ip:0.0.0.0/0\", \"uri:spiffe://td/**\", \"email:@example\"]}\n"
	"  node: {role: node, subject: {CN: \"*\"}, san: [\"dns:**\"]}\n";

static struct {
	struct central c;
	struct central_config config;
	struct dbfix db;
	X509 *cert[N_WHO];
	struct csm_http_route *routes;
	size_t n_routes;
	csm_http_handler *gate;
	struct sockaddr_un at;
	enum who who; /* of the request under way */
} s;

static void die(const char *why)
{
	fprintf(stderr, "fuzz_rest: %s\n", why);
	abort();
}

static void must(bool ok, const char *why)
{
	if (!ok)
		die(why);
}

/* ---- who asks ---- */

static uint64_t now(void)
{
	return DBFIX_NOW;
}

/* As if TLS had taken this certificate, or none. */
static void as_who(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct csm_http_req seen = *req;

	if (s.who != ADMIN) {
		seen.door = CSM_HTTP_TLS;
		seen.peer_cert = s.cert[s.who];
	}
	s.gate(arg, &seen, res);
}

static void add_cert(enum who who)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	X509 *x = X509_new();
	BIGNUM *n = NULL;
	struct dbfix_cert c;
	uint8_t *der = NULL;
	bool replayed;
	int len = 0;

	dbfix_cert(&c, who);
	must(key != NULL && x != NULL && (n = BN_bin2bn(c.serial, 16, NULL)) != NULL, "key");
	must(BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL && X509_set_pubkey(x, key) == 1 &&
		X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const uint8_t *)"a.example", -1, -1, 0) == 1 &&
		X509_gmtime_adj(X509_getm_notBefore(x), 0) != NULL && X509_gmtime_adj(X509_getm_notAfter(x), 1000) != NULL &&
		X509_sign(x, key, NULL) > 0 && (len = i2d_X509(x, &der)) > 0, "certificate");
	c.c.der = (struct csm_bin){der, (size_t)len};
	c.c.role = csm_str_of(role[who]);
	must(db_issue(s.db.db, &(struct db_issue){.cert = &c.c, .now = DBFIX_NOW}, &replayed, &s.db.out) == 0, "row");
	s.cert[who] = x;
	OPENSSL_free(der);
	BN_free(n);
	EVP_PKEY_free(key);
}

static void add_token(void)
{
	struct db_token t;

	dbfix_token(&t, 1, 1u << 30);
	t.role = CSM_STR("");
	crypto_hash_sha256(t.hash, (const uint8_t *)"token", 5);
	must(db_token_add(s.db.db, &t) == 0, "token");
}

/* ---- the server ---- */

static int listening(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	s.at = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(s.at.sun_path, sizeof(s.at.sun_path), "%s/sock", s.db.dir);
	must(fd >= 0 && bind(fd, (void *)&s.at, sizeof(s.at)) == 0 && listen(fd, 64) == 0, "socket");
	return fd;
}

static void start_http(void)
{
	struct csm_http_options opt = {.arg = &s.c, .workers = 1, .tls_fd = -1, .plain_fd = -1, .done = central_done,
		.limits = {.connections = 1000, .connections_per_address = 1000, .new_per_address = 1u << 30,
			.requests_per_address = 1u << 30}};

	/* The table is a copy of theirs: every route at the one door. */
	s.routes = (struct csm_http_route *)(uintptr_t)central_routes();
	s.gate = s.routes[0].handler;
	for (; s.routes[s.n_routes].path != NULL; s.n_routes++) {
		s.routes[s.n_routes].handler = as_who;
		s.routes[s.n_routes].doors = CSM_HTTP_LOCAL;
	}
	opt.routes = s.routes;
	opt.local_fd = listening();
	must(csm_http_new(&opt, &s.c.http) == 0 && csm_http_start(s.c.http) == 0, "http");
}

static void at_end(void)
{
	csm_http_free(s.c.http, 1000);
	pub_free(s.c.pub);
	ca_free(s.c.ca);
	csm_free(s.c.csm);
	csm_rates_free(s.c.caller_rates);
	csm_rates_free(s.c.refused_rates);
	csm_rates_free(s.c.log_rates);
	csm_rates_free(s.c.use_of_node);
	csm_rates_free(s.c.use_of_key);
	central_config_clear(&s.config);
	dbfix_free(&s.db);
	for (int i = 0; i < N_WHO; i++)
		X509_free(s.cert[i]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const unsigned many = 1u << 30;
	struct csm_policy_error err = {0};

	(void)argc;
	(void)argv;
	csm_log_level(LOG_EMERG);
	must(sodium_init() >= 0 && central_config_parse(config_text, strlen(config_text), &s.config, &err) == 0, err.message);
	dbfix_init(&s.db);
	s.db.map_size = (size_t)1 << 32;
	must(dbfix_open(&s.db) == 0, s.db.why);
	s.c = (struct central){.config = &s.config, .db = s.db.db, .now = now, .admin_uid = geteuid(), .ready = true};
	must(csm_rates_new(many, many, &s.c.caller_rates) == 0 && csm_rates_new(many, many, &s.c.refused_rates) == 0 &&
		csm_rates_new(50, 500, &s.c.log_rates) == 0 && csm_rates_new(many, many, &s.c.use_of_node) == 0 &&
		csm_rates_new(many, many, &s.c.use_of_key) == 0 && csm_new(&s.c.csm) == 0 &&
		csm_set_socket(s.c.csm, s.config.csmd_socket) == 0 && ca_new(&s.c, s.config.profiles, &s.c.ca) == 0 &&
		pub_new(&s.c, &s.c.pub) == 0, "parts");
	for (enum who w = 0; w < N_WHO; w++)
		if (role[w] != NULL)
			add_cert(w);
	add_token();
	start_http();
	atexit(at_end);
	return 0;
}

/* ---- a request ---- */

static struct csm_str line(struct csm_str *rest)
{
	const char *end = memchr(rest->p, '\n', rest->n);
	struct csm_str ret = {rest->p, end != NULL ? (size_t)(end - rest->p) : 0};

	if (end != NULL)
		*rest = (struct csm_str){end + 1, rest->n - ret.n - 1};
	return ret;
}

static void put(struct csm_buf *out, const char *p, size_t n)
{
	must(csm_buf_put(out, p, n) == 0, "memory");
}

static void puts_to(struct csm_buf *out, const char *text)
{
	put(out, text, strlen(text));
}

static void put_percent(struct csm_buf *out, struct csm_str v)
{
	char hex[4];

	for (size_t i = 0; i < v.n && i < 300; i++) {
		bool plain = v.p[i] >= '0' && v.p[i] <= 'z' && v.p[i] != '\\';

		snprintf(hex, sizeof(hex), "%%%02x", (uint8_t)v.p[i]);
		put(out, plain ? &v.p[i] : hex, plain ? 1 : 3);
	}
	if (v.n == 0)
		put(out, "0", 1);
}

static void put_path(struct csm_buf *out, const char *path, struct csm_str param)
{
	for (const char *p = path; *p != '\0'; p++) {
		if (*p != '{') {
			put(out, p, 1);
			continue;
		}
		put_percent(out, param);
		p = strchr(p, '}');
	}
}

static const char *type_of(const struct csm_http_route *r)
{
	return r->type != NULL ? r->type : strstr(r->path, "/est/") != NULL ? "application/pkcs10" : "application/ocsp-request";
}

static void compose(const struct csm_http_route *r, uint8_t flags, struct csm_str rest, struct csm_buf *out)
{
	struct csm_str param = line(&rest), query = line(&rest);
	char text[200];

	puts_to(out, r->method);
	puts_to(out, " ");
	put_path(out, r->path, param);
	if (query.n > 0)
		puts_to(out, "?");
	for (size_t i = 0; i < query.n && i < 1000; i++)
		put(out, query.p[i] > ' ' && query.p[i] < 0x7f ? &query.p[i] : "+", 1);
	puts_to(out, " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
	if (s.who == TOKEN)
		puts_to(out, flags & 0x20 ? "Authorization: Basic eDp0b2tlbg==\r\n" : "Authorization: Bearer token\r\n");
	if (flags & 0x10)
		puts_to(out, "Idempotency-Key: key\r\n");
	if (strcmp(r->method, "GET") != 0) {
		snprintf(text, sizeof(text), "Content-Type: %s\r\nContent-Length: %zu\r\n", type_of(r), rest.n);
		puts_to(out, text);
	}
	puts_to(out, "\r\n");
	if (strcmp(r->method, "GET") != 0)
		put(out, rest.p, rest.n);
}

/* ---- its answer ---- */

static void look(const char *p, size_t n, bool composed)
{
	const char *body;
	json_error_t where;
	json_t *v;

	if (n == 0) {
		must(!composed, "no answer");
		return;
	}
	must(n > 15 && strncmp(p, "HTTP/1.", 7) == 0, "not an answer");
	if (strncmp(p + 8, " 500", 4) == 0) {
		fprintf(stderr, "%.*s\n", n < 500 ? (int)n : 500, p);
		die("our own fault");
	}
	if (!composed)
		return;
	body = memmem(p, n, "\r\n\r\n", 4);
	must(body != NULL, "a head that does not end");
	body += 4;
	if (memmem(p, n, "Content-Type: application/json", 30) == NULL)
		return;
	v = json_loadb(body, n - (size_t)(body - p), JSON_REJECT_DUPLICATES, &where);
	must(v != NULL, "JSON that is none");
	must(p[9] < '4' || json_is_string(json_object_get(json_object_get(v, "error"), "name")) ||
		memmem(p, 200, " 503 ", 5) != NULL, "an error without a name");
	json_decref(v);
}

/* Everything that comes until the server closes. */
static void exchange(const char *p, size_t n, size_t piece, bool composed)
{
	static char answer[4u << 20];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t have = 0;
	ssize_t got = 1;

	must(fd >= 0 && connect(fd, (void *)&s.at, sizeof(s.at)) == 0, "connect");
	while (n > 0) {
		ssize_t sent = send(fd, p, n < piece ? n : piece, MSG_NOSIGNAL);

		if (sent <= 0)
			break;
		p += sent;
		n -= (size_t)sent;
	}
	/* Whoever says that there is no more is not waited for. */
	if (!composed)
		must(shutdown(fd, SHUT_WR) == 0 || n > 0, "shutdown");
	while (got > 0 && have < sizeof(answer)) {
		struct pollfd wait = {fd, POLLIN, 0};

		must(poll(&wait, 1, 30000) == 1, "it hangs");
		got = recv(fd, answer + have, sizeof(answer) - have, 0);
		have += got > 0 ? (size_t)got : 0;
	}
	close(fd);
	look(answer, have, composed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char probe[] = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
	static unsigned runs;
	bool composed;
	struct csm_buf out;

	if (size < 3 || size > 100000)
		return 0;
	s.who = (data[0] >> 1 & 7u) % N_WHO;
	composed = data[0] & 1u;
	if (composed) {
		csm_buf_init(&out, 1u << 20, false);
		compose(&s.routes[data[2] % s.n_routes], data[0], (struct csm_str){(const char *)data + 3, size - 3}, &out);
		exchange((const char *)csm_buf_ptr(&out), out.len, data[1] < 16 ? 64u * data[1] + 1 : 100000, true);
		csm_buf_free(&out);
	} else {
		exchange((const char *)data + 2, size - 2, 1 + data[1] % 143u, false);
	}
	if (++runs % 64 == 0)
		exchange(probe, strlen(probe), 1000, true);
	return 0;
}
