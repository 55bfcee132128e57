/* Requests whose signature is right and whose form is not: what one reader would see in them, and another would not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <sodium.h>
#include "daemon/pki/certreq.h"
#include "daemon/pki/der.h"
#include "daemon/pki/subjkey.h"
#include "tests/lib/pkifix.h"

#define BIN(text) {(const uint8_t *)(text), sizeof(text) - 1}
#define VERSION BIN("\x02\x01\x00")
#define EXT_REQ "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e"
#define EXTS "\x30\x08\x30\x06\x06\x02\x2a\x03\x04\x00" /* 1.2.3: nothing */
#define OTHER "\x30\x08\x06\x02\x2a\x03\x31\x02\x05\x00" /* attribute 1.2.3: NULL */

struct form {
	struct csm_bin version, attributes, behind_info, behind;
	uint8_t unused; /* bits of the signature's last byte */
	int r;
	const char *why;
};
static char why[CSM_CERTREQ_WHY];

static void put_info(const struct form *f, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	struct csm_bin spki = pki_spki(pki_key("p256"));
	X509_NAME *name = pki_name("/CN=y");
	size_t at = csm_der_open(&d, CSM_DER_SEQ), in;

	csm_der_raw(&d, f->version.p, f->version.n);
	csm_der_item(&d, ASN1_ITEM_rptr(X509_NAME), name);
	csm_der_raw(&d, spki.p, spki.n);
	in = csm_der_open(&d, CSM_DER_CONTEXT_SEQ(0));
	csm_der_raw(&d, f->attributes.p, f->attributes.n);
	csm_der_close(&d, in);
	csm_der_raw(&d, f->behind_info.p, f->behind_info.n);
	csm_der_close(&d, at);
	assert_int_equal(d.r, 0);
	X509_NAME_free(name);
}

/* Signed by its own key, whatever it is. */
static void put_request(const struct form *f, struct csm_buf *out)
{
	static const uint8_t ecdsa_sha256[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
	const struct csm_signer s = pki_signer(pki_key("p256"), "ecdsa-sha256");
	uint8_t sig[CSM_SIGNATURE_MAX + 1] = {f->unused};
	struct csm_der d = {out, 0};
	struct csm_buf info;
	size_t n = 0, at;

	csm_buf_init(&info, 2 * CSM_CSR_MAX, false);
	put_info(f, &info);
	do
		assert_int_equal(s.sign(s.arg, (struct csm_bin){csm_buf_ptr(&info), info.len}, &s.scheme, sig + 1, &n), 0);
	while (f->unused > 0 && sig[n] % 2 != 0);
	at = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_raw(&d, csm_buf_ptr(&info), info.len);
	csm_der_raw(&d, ecdsa_sha256, sizeof(ecdsa_sha256));
	csm_der_put(&d, V_ASN1_BIT_STRING, sig, n + 1);
	csm_der_raw(&d, f->behind.p, f->behind.n);
	csm_der_close(&d, at);
	assert_int_equal(d.r, 0);
	csm_buf_free(&info);
}

static void is_read_so(const struct form *f)
{
	struct csm_certreq *q = NULL;
	struct csm_buf out;
	int r;

	csm_buf_init(&out, 4 * CSM_CSR_MAX, false);
	put_request(f, &out);
	r = csm_certreq_read((struct csm_bin){csm_buf_ptr(&out), out.len}, &q, why);
	if (r != f->r || strstr(why, f->why) == NULL)
		fail_msg("%d, \"%s\" where it is %d, \"%s\"", r, why, f->r, f->why);
	csm_certreq_free(q);
	csm_buf_free(&out);
}

static void forms_that_are_none_are_refused(void **state)
{
	static const struct form rows[] = {
		{.version = VERSION, .why = ""},
		{.version = VERSION, .attributes = BIN("\x30\x17" EXT_REQ "\x31\x0a" EXTS), .why = ""},
		{.version = VERSION, .attributes = BIN(OTHER OTHER OTHER OTHER OTHER OTHER OTHER OTHER), .why = ""},
		{.version = BIN("\x02\x02\x00\x00"), .r = CSM_EINVALID, .why = "not in DER"},
		{.version = VERSION, .behind_info = BIN("\x05\x00"), .r = CSM_EINVALID, .why = "not a certificate request"},
		{.version = VERSION, .behind = BIN("\x05\x00"), .r = CSM_EINVALID, .why = "not a certificate request"},
		{.version = VERSION, .unused = 1, .r = CSM_EINVALID, .why = "own signature is wrong"},
		{.version = VERSION, .attributes = BIN("\x30\x21" EXT_REQ "\x31\x14" EXTS EXTS), .r = CSM_EINVALID, .why = "not one value"},
		{.version = VERSION, .attributes = BIN("\x30\x0d" EXT_REQ "\x31\x00"), .r = CSM_EINVALID, .why = "not one value"},
		{.version = VERSION, .attributes = BIN("\x30\x19" EXT_REQ "\x31\x0a" EXTS "\x05\x00"), .r = CSM_EINVALID, .why = "its attributes"},
		{.version = VERSION, .attributes = BIN("\x05\x00"), .r = CSM_EINVALID, .why = "its attributes"},
		{.version = VERSION, .attributes = BIN(OTHER OTHER OTHER OTHER OTHER OTHER OTHER OTHER OTHER), .r = CSM_EINVALID,
			.why = "more than 8 attributes"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		is_read_so(&rows[i]);
}

static void a_request_has_a_length_and_nothing_behind_it(void **state)
{
	static uint8_t many[CSM_CSR_MAX + 8];
	const struct form plain = {.version = VERSION};
	struct form f = {.version = VERSION, .attributes = {many, sizeof(many)}, .r = CSM_ETOO_LARGE, .why = "longer than"};
	struct csm_certreq *q;
	struct csm_buf out;
	char text[4096];

	(void)state;
	is_read_so(&f);
	csm_buf_init(&out, CSM_CSR_MAX, false);
	put_request(&plain, &out);
	(void)sodium_bin2base64(text, sizeof(text) - 2, csm_buf_ptr(&out), out.len, sodium_base64_VARIANT_ORIGINAL);
	assert_int_equal(csm_certreq_read((struct csm_bin){(uint8_t *)text, strlen(text)}, &q, why), 0);
	csm_certreq_free(q);
	(void)snprintf(text + strlen(text), 2, "!");
	assert_int_equal(csm_certreq_read((struct csm_bin){(uint8_t *)text, strlen(text)}, &q, why), CSM_EINVALID);
	csm_buf_free(&out);
}

static void a_change_of_name_is_told(void **state)
{
	/* id-cmc-changeSubjectName, with a value nobody looks at */
	const struct form f = {.version = VERSION, .attributes = BIN("\x30\x0e\x06\x08\x2b\x06\x01\x05\x05\x07\x07\x24\x31\x02\x30\x00")};
	struct csm_certreq *q;
	struct csm_buf out;

	(void)state;
	csm_buf_init(&out, CSM_CSR_MAX, false);
	put_request(&f, &out);
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&out), out.len}, &q, why), 0);
	assert_true(q->changes_subject && q->n_exts == 0);
	csm_certreq_free(q);
	csm_buf_free(&out);
}

static void a_key_with_more_behind_it_is_of_no_usual_form(void **state)
{
	const struct csm_bin spki = pki_spki(pki_key("p256"));
	uint8_t more[CSM_SPKI_MAX + 1] = {0};
	int bits = 0;

	(void)state;
	memcpy(more, spki.p, spki.n);
	assert_true(csm_subject_form((struct csm_bin){more, spki.n}, &bits) && bits == 256);
	assert_true(csm_subject_point((struct csm_bin){more, spki.n}));
	assert_false(csm_subject_form((struct csm_bin){more, spki.n + 1}, &bits));
	assert_false(csm_subject_form((struct csm_bin){more, spki.n - 1}, &bits));
	more[spki.n - 1] ^= 1;
	assert_false(csm_subject_point((struct csm_bin){more, spki.n}));
	more[spki.n - 1] ^= 1;
	more[26] ^= 2; /* 4: an uncompressed point */
	assert_false(csm_subject_form((struct csm_bin){more, spki.n}, &bits));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms_that_are_none_are_refused),
		cmocka_unit_test(a_request_has_a_length_and_nothing_behind_it),
		cmocka_unit_test(a_change_of_name_is_told),
		cmocka_unit_test(a_key_with_more_behind_it_is_of_no_usual_form),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
