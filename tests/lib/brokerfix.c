#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "daemon/node/conn.h"
#include "daemon/svc/log.h"
#include "libclient/wire/frame.h"
#include "tests/lib/brokerfix.h"

#define ANSWER_MS 10000

struct brokerfix fix;
const char *fix_config;
struct csm_bin fix_anchors, fix_token;

void fix_start(const char *script, const char *policy)
{
	static const struct csm_plugin *const plugins[] = {&csm_plugin_soft, &csm_plugin_fake, NULL};
	int r;

	memset(&fix, 0, sizeof(fix));
	csm_log_level(LOG_EMERG);
	fix.t.script = script;
	fix.t.config = fix_config;
	fix.t.anchors = fix_anchors;
	fix.t.token = fix_token;
	r = testbroker_start(&fix.t, plugins, policy);
	if (r != 0) {
		fprintf(stderr, "the broker does not start: %s\n", csm_err_name(r));
		abort();
	}
	testreader_init(&fix.reader);
	csm_buf_init(&fix.answer, CSM_OUT_MAX, false);
	csm_pool_init(&fix.pool, CSM_MESSAGE_MAX);
}

void fix_stop(void)
{
	testbroker_stop(&fix.t);
	testreader_free(&fix.reader);
	csm_buf_free(&fix.answer);
	csm_pool_free(&fix.pool);
}

/* ---- for cmocka ---- */

int pub;
static const char *group_script, *group_policy;

bool fix_prepare(unsigned seconds, const char *script, const char *policy)
{
	if (geteuid() != 0) {
		printf("skip: other users are played by root\n");
		return false;
	}
	alarm(seconds);
	group_script = script;
	group_policy = policy;
	return true;
}

int fix_begin(void **state)
{
	(void)state;
	fix_start(group_script, group_policy);
	return 0;
}

int fix_end(void **state)
{
	(void)state;
	fix_stop();
	return 0;
}

int fix_setup(void **state)
{
	(void)state;
	pub = fix_connect(CSM_R_PUBLIC);
	return 0;
}

int fix_teardown(void **state)
{
	bool good;

	(void)state;
	fix_close(pub);
	fix.t.b.state = BROKER_READY;
	good = fix.t.loop->conns == NULL && fix.t.loop->n_ops == 0 && fix.t.b.admit.files == 0;
	/* One test that fails does not take the others along. */
	while (fix.t.loop->conns != NULL)
		conn_drop(fix.t.loop->conns);
	return good ? 0 : -1;
}

/* ---- calls ---- */

static int forget_answers(int fd)
{
	testreader_free(&fix.reader);
	testreader_init(&fix.reader);
	if (fd < 0)
		abort();
	return fd;
}

int fix_connect(enum csm_role role)
{
	return forget_answers(testbroker_connect(&fix.t, role));
}

int fix_connect_as(uid_t uid)
{
	return forget_answers(testbroker_connect_as(&fix.t, CSM_R_PUBLIC, uid));
}

void fix_close(int fd)
{
	close(fd);
	testbroker_run(&fix.t, ANSWER_MS);
}

int fix_call(int fd, const char *method, const void *params, void *result)
{
	return testbroker_call(&fix.t, fd, method, params, &fix.answer, &fix.pool, result);
}

int fix_next(int fd)
{
	int r = testbroker_answer(&fix.t, fd, &fix.reader, ANSWER_MS, &fix.last);

	return r != 0 ? r : fix.last.error;
}

int fix_ask(int fd, const char *method, const void *params)
{
	int r = testbroker_request(&fix.t, fd, 9, method, params);

	return r != 0 ? r : fix_next(fd);
}

int fix_ask_empty(int fd, struct csm_str method)
{
	static const struct csm_msg_empty none = {0};
	struct csm_buf b;
	char name[512];
	int r;

	csm_buf_init(&b, 4096, false);
	snprintf(name, sizeof(name), "%.*s", (int)method.n, method.p);
	if ((r = csm_frame_request(&b, 9, name, CSM_DEF(empty), &none)) == 0)
		r = testbroker_send(&fix.t, fd, csm_buf_ptr(&b), b.len);
	csm_buf_free(&b);
	return r != 0 ? r : fix_next(fd);
}

bool fix_ends(int fd)
{
	uint64_t until = monotonic_ms() + ANSWER_MS;
	uint8_t sink[4096];

	while (monotonic_ms() < until) {
		ssize_t n;

		testbroker_step(&fix.t);
		n = recv(fd, sink, sizeof(sink), MSG_DONTWAIT);
		if (n == 0)
			return true;
		if (n < 0)
			poll(NULL, 0, 1);
	}
	return false;
}

int fix_create(int fd, const char *name, const char *alg, const char *backend, const char *use)
{
	struct csm_str uses[1] = {csm_str_of(use)};
	struct csm_msg_key_create_req m = {.key = csm_str_of(name), .alg = csm_str_of(alg),
		.backend = csm_str_of(backend), .use = {uses, use != NULL}};
	struct csm_msg_key_info info;

	return fix_call(fd, "key.create", &m, &info);
}

int fix_sign(int fd, const char *name, struct csm_msg_sign_res *res)
{
	static const uint8_t digest[32] = {1, 2, 3};
	struct csm_msg_sign_req m = {.key = csm_str_of(name), .digest = {digest, sizeof(digest)}};

	return fix_call(fd, "key.sign", &m, res);
}

int fix_domain(int fd, const char *method, const char *name)
{
	struct csm_msg_domain_req m = {.domain = csm_str_of(name)};
	struct csm_msg_domain_item res; /* the empty answers fit too */

	return fix_call(fd, method, &m, &res);
}

int fix_set(int fd, const char *name, const char *value, int64_t expect, const char *request_id, uint64_t *version)
{
	struct csm_msg_pair pair = {.name = CSM_STR("value"), .type = CSM_STR("text"),
		.value = {(const uint8_t *)value, strlen(value)}};
	struct csm_msg_secret_set_req m = {.secret = csm_str_of(name), .pairs = {&pair, 1},
		.expect = {.v = (uint64_t)expect, .set = expect >= 0}, .request_id = csm_str_of(request_id)};
	struct csm_msg_secret_set_res res;
	int r = fix_call(fd, "secret.set", &m, &res);

	if (r == 0 && version != NULL)
		*version = res.version.v;
	return r;
}

int fix_get(int fd, const char *name, char out[static 256])
{
	struct csm_msg_secret_get_req m = {.secret = csm_str_of(name)};
	struct csm_msg_secret_get_res res;
	int r = fix_call(fd, "secret.get", &m, &res);

	if (r == 0)
		snprintf(out, 256, "%.*s", (int)res.pairs.v[0].value.n, (const char *)res.pairs.v[0].value.p);
	return r;
}

/* ---- signatures ---- */

EVP_PKEY *fix_public(const char *name)
{
	struct csm_msg_key_req m = {.key = csm_str_of(name)};
	struct csm_msg_key_public_res res;
	const uint8_t *at;
	EVP_PKEY *k;

	if (fix_call(pub, "key.public", &m, &res) != 0)
		abort();
	at = res.spki.p;
	k = d2i_PUBKEY(NULL, &at, (long)res.spki.n);
	if (k == NULL)
		abort();
	return k;
}

const char *fix_hash_name(const char *scheme)
{
	if (strstr(scheme, "sha256") != NULL)
		return "SHA256";
	return strstr(scheme, "sha384") != NULL ? "SHA384" : strstr(scheme, "sha512") != NULL ? "SHA512" : NULL;
}

bool fix_verified(const char *key, const char *scheme, const char *text, struct csm_bin sig)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY *k = fix_public(key);
	EVP_PKEY_CTX *pctx;
	bool good;

	good = EVP_DigestVerifyInit_ex(ctx, &pctx, fix_hash_name(scheme), NULL, NULL, k, NULL) == 1;
	if (good && strstr(scheme, "pss") != NULL)
		good = EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
			EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1;
	good = good && EVP_DigestVerify(ctx, sig.p, sig.n, (const uint8_t *)text, strlen(text)) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(k);
	return good;
}
