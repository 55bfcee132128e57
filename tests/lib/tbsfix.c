#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/tbsfix.h"

char tbsfix_why[CSM_TBS_WHY];
int tbsfix_quick;

void tbsfix_beside(struct tbsfix *f, X509 *x, X509 *above)
{
	unsigned char *at = NULL, *more = NULL;
	int n = i2d_X509(x, &at), m = above != NULL ? i2d_X509(above, &more) : 0;

	free(f->der);
	f->der = malloc((size_t)n + (size_t)m);
	memcpy(f->der, at, (size_t)n);
	if (m > 0)
		memcpy(f->der + n, more, (size_t)m);
	f->key.chain = (struct csm_bin){f->der, (size_t)(n + m)};
	OPENSSL_free(at);
	OPENSSL_free(more);
}

void tbsfix_begin(struct tbsfix *f, const char *alg)
{
	static const char *const names[] = {"dns:a.example"};

	memset(f, 0, sizeof(*f));
	f->root = pki_ca_make("/CN=Root", "p521", NULL);
	f->ca = pki_ca_make("/O=Example/CN=CA", alg, NULL);
	f->rules = (struct csm_msg_issuer_rules){.max_life = {YEAR, true}, .path_len = {0, true}, .permitted = {f->permitted, 0},
		.excluded = {f->excluded, 0}};
	f->key = (struct csm_tbs_key){.spki = pki_spki(f->ca.key), .rules = &f->rules, .now = PKI_NOW};
	assert_int_equal(csm_alg_parse(csm_str_of(alg), &f->key.alg), 0);
	tbsfix_beside(f, f->ca.cert, NULL);
	f->profile = pki_profile();
	f->name = pki_name("/O=Example/CN=a.example");
	f->sans = pki_sans(names, 1);
	f->order = (struct csm_cert_order){.profile = &f->profile, .subject = f->name, .sans = f->sans,
		.spki = pki_spki(pki_key("p384")), .issuer = f->ca.cert,
		.serial = {0xf0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, .not_before = PKI_NOW - 3600,
		.not_after = PKI_NOW + PKI_DAY};
	csm_buf_init(&f->tbs, 64u * 1024u * 1024u, false);
}

void tbsfix_end(struct tbsfix *f)
{
	csm_buf_free(&f->tbs);
	GENERAL_NAMES_free(f->sans);
	X509_NAME_free(f->name);
	pki_ca_free(&f->ca);
	pki_ca_free(&f->root);
	free(f->der);
}

int tbsfix_judge(struct tbsfix *f, enum csm_tbs_kind kind, struct csm_tbs *ret)
{
	struct csm_bin tbs = {csm_buf_ptr(&f->tbs), f->tbs.len};
	struct csm_tbs quickly;
	char first[CSM_TBS_WHY];
	int r, quick;

	f->key.quick = true;
	quick = csm_tbs_check(&f->key, kind, tbs, &quickly, tbsfix_why);
	memcpy(first, tbsfix_why, sizeof(first));
	f->key.quick = false;
	r = csm_tbs_check(&f->key, kind, tbs, ret, tbsfix_why);
	/* at once or not, the answer is the same */
	if (quick != CSM_EBUSY) {
		assert_int_equal(quick, r);
		assert_string_equal(first, tbsfix_why);
	}
	if (quick == 0) {
		assert_int_equal(quickly.number_len, ret->number_len);
		assert_memory_equal(quickly.number, ret->number, ret->number_len);
		assert_int_equal(quickly.scheme.kind, ret->scheme.kind);
		assert_int_equal(quickly.scheme.hash, ret->scheme.hash);
	}
	tbsfix_quick = quick;
	return r;
}

int tbsfix_cert(struct tbsfix *f, struct csm_tbs *ret)
{
	struct csm_scheme scheme = csm_scheme_default(f->key.alg);
	char said[CSM_CERTREQ_WHY];

	csm_buf_reset(&f->tbs);
	assert_int_equal(csm_cert_tbs(&f->order, &scheme, &f->tbs, said), 0);
	return tbsfix_judge(f, CSM_TBS_CERTIFICATE, ret);
}

void tbsfix_expect(struct tbsfix *f, int r, const char *words)
{
	struct csm_tbs found;

	if (tbsfix_cert(f, &found) != r)
		fail_msg("not %s: '%s'", csm_err_name(r), tbsfix_why);
	if (words != NULL && strstr(tbsfix_why, words) == NULL)
		fail_msg("'%s', not '%s'", tbsfix_why, words);
}
