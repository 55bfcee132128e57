/* issue.sign, by requests to a whole broker. Its fake back end answers with what is no signature. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <openssl/x509.h>
#include "daemon/pki/issue.h"
#include "tests/lib/brokerfix.h"
#include "tests/lib/pkifix.h"

#define LIFE 86400u

static void create(const char *name, const char *backend)
{
	struct csm_str use = CSM_STR("issuer");
	struct csm_msg_issuer_rules rules = {.max_life = {LIFE, true}, .path_len = {0, true}};
	struct csm_msg_key_create_req m = {
		.key = csm_str_of(name), .backend = csm_str_of(backend), .use = {&use, 1}, .issuer = &rules};
	struct csm_msg_key_info info;

	assert_int_equal(fix_call(pub, "key.create", &m, &info), 0);
}

/* The key's own certificate, to be signed by itself. */
static void own_tbs(const char *name, uint8_t serial, struct csm_buf *out)
{
	struct csm_profile p = pki_profile();
	EVP_PKEY *key = fix_public(name);
	X509_NAME *subject = pki_name("/CN=root");
	struct csm_cert_order o = {.profile = &p, .subject = subject, .spki = pki_spki(key), .serial = {1, [15] = serial},
		.not_before = (uint64_t)time(NULL) - 60};
	const struct csm_scheme scheme = csm_scheme_default(CSM_ALG_P256);
	char why[CSM_CERTREQ_WHY];

	p.ca = true;
	p.path_len = 0;
	p.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	o.not_after = o.not_before + p.max_life;
	csm_buf_init(out, CSM_TBS_MAX, false);
	assert_int_equal(csm_cert_tbs(&o, &scheme, out, why), 0);
	X509_NAME_free(subject);
	EVP_PKEY_free(key);
}

static int issue(const char *name, const char *digest, const struct csm_buf *tbs, struct csm_msg_sign_res *res)
{
	struct csm_msg_issue_sign_req m = {.key = csm_str_of(name), .kind = CSM_STR("certificate"),
		.tbs = {csm_buf_ptr(tbs), tbs->len}, .spki_sha256 = csm_str_of(digest)};

	return fix_call(pub, "issue.sign", &m, res);
}

static void it_signs_what_openssl_verifies(void **state)
{
	const struct csm_scheme scheme = csm_scheme_default(CSM_ALG_P256);
	uint8_t digest[CSM_DIGEST_MAX];
	struct csm_msg_sign_res res;
	struct csm_buf tbs;
	struct csm_bin in;
	EVP_PKEY *key;

	(void)state;
	create("good", "soft");
	key = fix_public("good");
	own_tbs("good", 1, &tbs);
	assert_int_equal(csm_sigalg_digest(&scheme, (struct csm_bin){csm_buf_ptr(&tbs), tbs.len}, digest, &in), 0);
	assert_int_equal(issue("good", NULL, &tbs, &res), 0);
	assert_int_equal(csm_sigalg_verify(key, &scheme, in, res.signature), 0);
	digest[0] ^= 1;
	assert_int_equal(csm_sigalg_verify(key, &scheme, in, res.signature), CSM_EBACKEND);
	assert_int_equal(issue("good", NULL, &tbs, &res), CSM_EEXISTS);
	EVP_PKEY_free(key);
	csm_buf_free(&tbs);
}

/* Who asked does not verify it again. */
static void a_back_end_that_signs_wrongly_is_found_out(void **state)
{
	struct csm_msg_sign_res res;
	struct csm_buf tbs;

	(void)state;
	create("false", "fake");
	own_tbs("false", 1, &tbs);
	assert_int_equal(issue("false", NULL, &tbs, &res), CSM_EBACKEND);
	csm_buf_free(&tbs);
}

static void another_key_of_the_name_does_not_sign(void **state)
{
	struct csm_msg_key_req show = {.key = CSM_STR("meant")};
	struct csm_msg_key_info info;
	struct csm_msg_sign_res res;
	struct csm_buf tbs;
	char digest[65], last;

	(void)state;
	create("meant", "soft");
	assert_int_equal(fix_call(pub, "key.show", &show, &info), 0);
	assert_int_equal(info.spki_sha256.n, 64);
	memcpy(digest, info.spki_sha256.p, 64);
	digest[64] = '\0';
	own_tbs("meant", 1, &tbs);
	last = digest[63];
	digest[63] = last == '0' ? '1' : '0';
	assert_int_equal(issue("meant", digest, &tbs, &res), CSM_ECONFLICT);
	digest[63] = last;
	assert_int_equal(issue("meant", digest, &tbs, &res), 0);
	csm_buf_free(&tbs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(it_signs_what_openssl_verifies),
		FIX_TEST(a_back_end_that_signs_wrongly_is_found_out),
		FIX_TEST(another_key_of_the_name_does_not_sign),
	};

	return fix_prepare(60, "sign=spoil", NULL) ? cmocka_run_group_tests(tests, fix_begin, fix_end) : 77;
}
