/* Any bytes as what an issuer's key is asked to sign. What is taken is DER that OpenSSL reads as the same once more, and within
 * the rules by other means than those that took it; a list in parts is judged as it is as a whole. The first byte says which kind. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>

#include "daemon/pki/tbs.h"

#define NOW 1750000000u
#define LIFE (400u * 86400u)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A CA's certificate, whose private key nobody has: /CN=CA, path length 1, ten years from the day before NOW. */
static const uint8_t issuer[] = {
	0x30, 0x82, 0x01, 0x7e, 0x30, 0x82, 0x01, 0x24, 0xa0, 0x03, 0x02, 0x01, 0x02, 0x02, 0x10, 0x01,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x30,
	0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02, 0x30, 0x0d, 0x31, 0x0b, 0x30,
	0x09, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x02, 0x43, 0x41, 0x30, 0x1e, 0x17, 0x0d, 0x32, 0x35,
	0x30, 0x36, 0x31, 0x34, 0x31, 0x35, 0x30, 0x36, 0x34, 0x30, 0x5a, 0x17, 0x0d, 0x33, 0x35, 0x30,
	0x36, 0x31, 0x33, 0x31, 0x35, 0x30, 0x36, 0x34, 0x30, 0x5a, 0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09,
	0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x02, 0x43, 0x41, 0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a,
	0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
	0x03, 0x42, 0x00, 0x04, 0x12, 0x28, 0x12, 0xb0, 0x59, 0x13, 0xce, 0x80, 0xcf, 0xae, 0x52, 0x50,
	0xc1, 0xfc, 0xb9, 0x45, 0xa4, 0x21, 0x94, 0x02, 0x51, 0xe7, 0xb8, 0x42, 0x65, 0x23, 0x00, 0x22,
	0x0a, 0x53, 0xfd, 0xd8, 0x8e, 0x93, 0x37, 0x56, 0x16, 0x8c, 0x4c, 0x82, 0x64, 0x65, 0xbb, 0x04,
	0x5a, 0x9e, 0xe4, 0x3f, 0xc2, 0x17, 0x30, 0xc8, 0xa9, 0x14, 0xc0, 0x79, 0x5f, 0xca, 0x2c, 0x3b,
	0xd3, 0x1f, 0xdf, 0xd9, 0xa3, 0x66, 0x30, 0x64, 0x30, 0x12, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01,
	0x01, 0xff, 0x04, 0x08, 0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x01, 0x30, 0x0e, 0x06, 0x03,
	0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x01, 0x06, 0x30, 0x1d, 0x06, 0x03,
	0x55, 0x1d, 0x0e, 0x04, 0x16, 0x04, 0x14, 0xbb, 0x1f, 0xf7, 0x29, 0xd3, 0x90, 0xd8, 0x5c, 0x72,
	0xd5, 0x82, 0x43, 0xe6, 0xea, 0x96, 0x2d, 0x1d, 0xea, 0x4c, 0x8e, 0x30, 0x1f, 0x06, 0x03, 0x55,
	0x1d, 0x23, 0x04, 0x18, 0x30, 0x16, 0x80, 0x14, 0xbb, 0x1f, 0xf7, 0x29, 0xd3, 0x90, 0xd8, 0x5c,
	0x72, 0xd5, 0x82, 0x43, 0xe6, 0xea, 0x96, 0x2d, 0x1d, 0xea, 0x4c, 0x8e, 0x30, 0x0a, 0x06, 0x08,
	0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02, 0x03, 0x48, 0x00, 0x30, 0x45, 0x02, 0x20, 0x6a,
	0xd1, 0x8c, 0x22, 0x2a, 0xe3, 0xb6, 0xa6, 0x5b, 0x6b, 0x58, 0x31, 0xad, 0x6e, 0x79, 0x4c, 0xcc,
	0xb2, 0x19, 0x7b, 0x83, 0xaa, 0x29, 0xe7, 0x3b, 0x43, 0x89, 0xa7, 0x53, 0x43, 0x5d, 0x23, 0x02,
	0x21, 0x00, 0xfd, 0x9f, 0xb1, 0x2d, 0x30, 0x80, 0xf4, 0x9a, 0xfc, 0xcf, 0x70, 0xbd, 0x9a, 0xba,
	0x33, 0xe8, 0x0c, 0xe1, 0xea, 0x35, 0xba, 0xad, 0xc4, 0x5e, 0x80, 0xb3, 0xfd, 0xca, 0x32, 0x13,
	0x4a, 0xae,
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static uint64_t at(const ASN1_TIME *t)
{
	struct tm tm;

	must(ASN1_TIME_to_tm(t, &tm) == 1);
	return (uint64_t)timegm(&tm);
}

/* With an algorithm and an empty signature behind it. */
static X509 *framed(struct csm_bin tbs)
{
	struct csm_buf b;
	struct csm_der d = {&b, 0};
	const unsigned char *p;
	size_t seq;
	X509 *x;

	csm_buf_init(&b, CSM_MESSAGE_MAX * 2, false);
	seq = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_raw(&d, tbs.p, tbs.n);
	csm_der_raw(&d, "\x30\x05\x06\x03\x2b\x65\x70", 7);
	csm_der_bits(&d, "", 0);
	csm_der_close(&d, seq);
	must(d.r == 0);
	p = csm_buf_ptr(&b);
	x = d2i_X509(NULL, &p, (long)b.len);
	csm_buf_free(&b);
	return x;
}

static void certificate(struct csm_bin tbs, const struct csm_tbs *found, bool self)
{
	X509 *x = framed(tbs);
	const ASN1_INTEGER *serial;
	GENERAL_NAMES *sans;

	must(x != NULL && X509_get_version(x) == X509_VERSION_3);
	serial = X509_get0_serialNumber(x);
	must((size_t)ASN1_STRING_length(serial) == found->number_len &&
		memcmp(ASN1_STRING_get0_data(serial), found->number, found->number_len) == 0 && found->number_len >= 8);
	must(at(X509_get0_notAfter(x)) - at(X509_get0_notBefore(x)) <= (self ? CSM_TBS_SELF_LIFE_MAX : LIFE));
	if (self)
		must(X509_check_ca(x) == 1);
	else if (X509_check_ca(x) != 0)
		must(X509_get_pathlen(x) == 0 && X509_get_ext_by_NID(x, NID_name_constraints, -1) >= 0);
	must((X509_get_extension_flags(x) & (EXFLAG_INVALID | EXFLAG_CRITICAL)) == 0);
	sans = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; !self && i < sk_GENERAL_NAME_num(sans); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(sans, i);
		const uint8_t *p = n->type == GEN_DNS ? ASN1_STRING_get0_data(n->d.dNSName) : NULL;
		int len = p != NULL ? ASN1_STRING_length(n->d.dNSName) : 0;

		must(p == NULL || (len > 8 && strncasecmp((const char *)p + len - 8, ".example", 8) == 0));
	}
	GENERAL_NAMES_free(sans);
	X509_free(x);
}

/* By whole entries where the second byte of each says its length; the verdict is the same. */
static void in_parts(const struct csm_tbs_key *key, struct csm_bin tbs, bool good)
{
	char why[CSM_TBS_WHY] = "";
	struct csm_tbs_crl *c = NULL;
	struct csm_tbs found;
	size_t cut = 0;

	/* the head ends where an entry begins, or what is behind them */
	for (size_t n = 2; n < tbs.n && c == NULL; n++)
		if ((tbs.p[n] == CSM_DER_SEQ || tbs.p[n] == CSM_DER_CONTEXT_SEQ(0)) &&
			csm_tbs_crl_begin(key, (struct csm_bin){tbs.p, n}, &c, &found, why) == 0)
			cut = n;
	if (c == NULL)
		return;
	for (;;) {
		size_t n = tbs.n - cut >= 2 && tbs.p[cut] == CSM_DER_SEQ && tbs.p[cut + 1] < 0x80 ? 2u + tbs.p[cut + 1] : 0;

		if (n == 0 || n > tbs.n - cut || csm_tbs_crl_entries(c, (struct csm_bin){tbs.p + cut, n}, why) != 0)
			break;
		cut += n;
	}
	/* what was taken in parts is taken as a whole */
	must(csm_tbs_crl_end(c, key, (struct csm_bin){tbs.p + cut, tbs.n - cut}, &found, why) != 0 || good);
	csm_tbs_crl_free(c);
}

/* What is taken at once is taken by the whole look too, as the same; without constraints, which are always looked at as a whole. */
static void quickly(const struct csm_tbs_key *as, struct csm_bin tbs)
{
	struct csm_msg_issuer_rules rules = *as->rules;
	struct csm_tbs_key key = *as;
	struct csm_tbs quick = {0}, found = {0};
	char why[CSM_TBS_WHY] = "";
	int r;

	rules.permitted.n = 0;
	rules.excluded.n = 0;
	key.rules = &rules;
	key.quick = true;
	r = csm_tbs_check(&key, CSM_TBS_CERTIFICATE, tbs, &quick, why);
	key.quick = false;
	if (r != 0)
		return;
	must(csm_tbs_check(&key, CSM_TBS_CERTIFICATE, tbs, &found, why) == 0 && quick.number_len == found.number_len &&
		memcmp(quick.number, found.number, found.number_len) == 0 && quick.scheme.kind == found.scheme.kind &&
		quick.scheme.hash == found.scheme.hash);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct csm_str permitted[] = {CSM_STR("dns:.example"), CSM_STR("ip:10.0.0.0/8")}, none;
	struct csm_msg_issuer_rules rules = {.max_life = {LIFE, true}, .path_len = {1, true}, .permitted = {permitted, 2},
		.excluded = {&none, 0}};
	struct csm_tbs_key key = {.alg = CSM_ALG_P256, .rules = &rules, .chain = {issuer, sizeof(issuer)}, .now = NOW};
	struct csm_bin tbs = {data + 1, size - 1};
	const unsigned char *p = issuer;
	char why[CSM_TBS_WHY] = "";
	enum csm_tbs_kind kind;
	unsigned char *spki = NULL;
	struct csm_tbs found;
	bool self;
	X509 *x;
	int n, r;

	if (size < 1)
		return 0;
	x = d2i_X509(NULL, &p, sizeof(issuer));
	n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki);
	key.spki = (struct csm_bin){spki, (size_t)n};
	self = data[0] == 's';
	if (self)
		key.chain = (struct csm_bin){NULL, 0};
	kind = data[0] == 'l' ? CSM_TBS_CRL : data[0] == 'o' ? CSM_TBS_OCSP : CSM_TBS_CERTIFICATE;
	r = csm_tbs_check(&key, kind, tbs, &found, why);
	must(r == 0 || r == CSM_ENOMEM || (strlen(why) > 0 && csm_utf8_valid(why, strlen(why))));
	if (r == 0) {
		struct csm_tbs other;

		for (int k = CSM_TBS_CERTIFICATE; k <= CSM_TBS_OCSP; k++)
			must(k == (int)kind || csm_tbs_check(&key, (enum csm_tbs_kind)k, tbs, &other, why) != 0);
		if (kind == CSM_TBS_CERTIFICATE)
			certificate(tbs, &found, self);
	}
	if (kind == CSM_TBS_CERTIFICATE)
		quickly(&key, tbs);
	if (kind == CSM_TBS_CRL)
		in_parts(&key, tbs, r == 0);
	OPENSSL_free(spki);
	X509_free(x);
	ERR_clear_error();
	return 0;
}
