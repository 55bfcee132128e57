/* Schemes: csmd's names of them, and what stands for them in certificates. */
#include <string.h>
#include <openssl/rsa.h>
#include "libclient/provider/provider.h"

#define BYTES(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}

/* ecdsa-with-SHA2, sha*WithRSAEncryption: the last byte of the identifier tells the hash. */
#define ECDSA(id) BYTES("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03" id)
#define PKCS1(id) BYTES("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01" id "\x05\x00")
/* id-sha256 and its kin, with NULL as parameter */
#define HASH(id) "\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02" id "\x05\x00"
/* RSASSA-PSS-params: hash, mask generation with the same hash, length of the salt */
#define PSS(id, salt) \
	BYTES("\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\xa0\x0f" HASH(id) \
		"\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08" HASH(id) "\xa2\x03\x02\x01" salt)

static const struct scheme schemes[] = {
	{"ecdsa-sha256", KIND_EC, 0, MD_SHA256, ECDSA("\x02")},
	{"ecdsa-sha384", KIND_EC, 0, MD_SHA384, ECDSA("\x03")},
	{"ecdsa-sha512", KIND_EC, 0, MD_SHA512, ECDSA("\x04")},
	{"rsa-pkcs1-sha256", KIND_RSA, RSA_PKCS1_PADDING, MD_SHA256, PKCS1("\x0b")},
	{"rsa-pkcs1-sha384", KIND_RSA, RSA_PKCS1_PADDING, MD_SHA384, PKCS1("\x0c")},
	{"rsa-pkcs1-sha512", KIND_RSA, RSA_PKCS1_PADDING, MD_SHA512, PKCS1("\x0d")},
	{"rsa-pss-sha256", KIND_RSA, RSA_PKCS1_PSS_PADDING, MD_SHA256, PSS("\x01", "\x20")},
	{"rsa-pss-sha384", KIND_RSA, RSA_PKCS1_PSS_PADDING, MD_SHA384, PSS("\x02", "\x30")},
	{"rsa-pss-sha512", KIND_RSA, RSA_PKCS1_PSS_PADDING, MD_SHA512, PSS("\x03", "\x40")},
	{"ed25519", KIND_ED25519, 0, -1, BYTES("\x30\x05\x06\x03\x2b\x65\x70")},
};

const struct scheme *scheme_find(enum kind kind, int pad, int md)
{
	size_t i;

	for (i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (schemes[i].kind == kind && schemes[i].pad == pad && schemes[i].md == md)
			return &schemes[i];
	return NULL;
}

int scheme_md(const struct prov *p, const char *name)
{
	int i;

	for (i = 0; i < MD__COUNT; i++)
		if (EVP_MD_is_a(p->md[i], name))
			return i;
	return -1;
}

int scheme_digest_info(struct csm_bin info, struct csm_bin *digest)
{
	static const struct csm_bin heads[MD__COUNT] = {
		BYTES("\x30\x31" HASH("\x01") "\x04\x20"),
		BYTES("\x30\x41" HASH("\x02") "\x04\x30"),
		BYTES("\x30\x51" HASH("\x03") "\x04\x40"),
	};
	int i;

	for (i = 0; i < MD__COUNT; i++) {
		const struct csm_bin *h = &heads[i];

		if (info.n > h->n && info.n - h->n == h->p[h->n - 1] && memcmp(info.p, h->p, h->n) == 0) {
			*digest = (struct csm_bin){info.p + h->n, info.n - h->n};
			return i;
		}
	}
	return -1;
}
