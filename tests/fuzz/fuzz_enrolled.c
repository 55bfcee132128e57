/* Any bytes as what csmd is given of a CA, for a key of its own. The first byte says what for: a chain, and behind it whom to
 * trust; a certificate that a trusted CA signs whatever it says; lists of CAs to be trusted; such a list in PEM. Refused with a
 * reason, and nothing appended; or taken, and then it is for the key and the names, nobody's CA, and can be read again. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "daemon/pki/enrolled.h"
#include "proto-spec/limits.h"
#include "tests/lib/pkifix.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ANCHORS_CAP 3000u

static struct pki_ca root;
static EVP_PKEY *key;
static uint8_t *root_der;
static int root_len;

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void at_end(void)
{
	OPENSSL_free(root_der);
	pki_ca_free(&root);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	root = pki_ca_make("/CN=root", "ed25519", NULL);
	key = pki_key("p256");
	must(key != NULL && (root_len = i2d_X509(root.cert, &root_der)) > 0);
	atexit(at_end);
	return 0;
}

static void refused(int r, const char *why)
{
	must(r == CSM_ENOMEM || (why[0] != '\0' && memchr(why, '\0', CSM_CERT_WHY) != NULL));
	for (const char *p = why; *p != '\0'; p++)
		must(*p >= ' ' && *p <= '~');
}

static X509 *first_of(struct csm_bin der)
{
	const unsigned char *p = der.p;

	return d2i_X509(NULL, &p, (long)der.n);
}

/* What was taken: this key's, with just the one name, no CA's, within a life that is one. */
static void taken(const struct csm_enrolled_want *want, struct csm_bin chain, const struct csm_msg_cert_info *info)
{
	X509 *x = first_of(chain);
	GENERAL_NAMES *names;
	uint8_t *spki = NULL;
	int n = 0;

	must(x != NULL && (n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki)) > 0);
	must((size_t)n == want->spki.n && memcmp(spki, want->spki.p, want->spki.n) == 0);
	must(X509_check_ca(x) == 0 && info->not_before.v <= want->now && want->now < info->not_after.v);
	names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	must(names != NULL && sk_GENERAL_NAME_num(names) == 1 &&
		X509_check_host(x, "www.example", 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1);
	must(!want->tls_client || (X509_get_extended_key_usage(x) & XKU_SSL_CLIENT) != 0);
	GENERAL_NAMES_free(names);
	OPENSSL_free(spki);
	X509_free(x);
}

static void chain_of(struct csm_bin given, struct csm_bin anchors, struct csm_bin spki, bool tls_client)
{
	static const struct csm_str sans[] = {{"dns:www.example", 15}};
	const struct csm_enrolled_want want = {.spki = spki, .any_subject = true, .sans = sans, .n_sans = 1, .anchors = anchors,
		.now = PKI_NOW, .tls_client = tls_client};
	struct csm_msg_cert_info info;
	char why[CSM_CERT_WHY] = "";
	struct csm_buf chain;
	struct csm_pool pool;
	int r;

	csm_buf_init(&chain, CSM_CERT_CHAIN_MAX, false);
	csm_pool_init(&pool, 512u * 1024u);
	r = csm_enrolled_check(given, &want, &chain, &pool, &info, why);
	if (r == 0) {
		taken(&want, (struct csm_bin){csm_buf_ptr(&chain), chain.len}, &info);
	} else {
		must(chain.len == 0);
		refused(r, why);
	}
	csm_pool_free(&pool);
	csm_buf_free(&chain);
}

static void as_given(struct csm_bin given, struct csm_bin anchors, bool tls_client)
{
	X509 *x = first_of(given);
	uint8_t *spki = NULL;
	int n = x != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki) : 0;

	chain_of(given, anchors, n > 0 ? (struct csm_bin){spki, (size_t)n} : pki_spki(key), tls_client);
	OPENSSL_free(spki);
	X509_free(x);
}

/* What stands behind the signature is reached by no change of a signed certificate: so it is signed anew. */
static void as_signed(struct csm_bin given, bool tls_client)
{
	X509 *x = first_of(given);
	uint8_t *der = NULL;
	int n;

	if (x != NULL && X509_set_pubkey(x, key) == 1 && X509_set_issuer_name(x, X509_get_subject_name(root.cert)) == 1 &&
		X509_sign(x, root.key, NULL) > 0 && (n = i2d_X509(x, &der)) > 0)
		chain_of((struct csm_bin){der, (size_t)n}, (struct csm_bin){root_der, (size_t)root_len}, pki_spki(key), tls_client);
	OPENSSL_free(der);
	X509_free(x);
}

/* Those of two lists that are to be trusted are so together. */
static void trusted(struct csm_bin newer, struct csm_bin older)
{
	char why[CSM_CERT_WHY] = "", again[CSM_CERT_WHY] = "";
	struct csm_buf out;
	int a = csm_anchors_check(newer, PKI_NOW, why), b, r;

	if (a != 0)
		refused(a, why);
	b = csm_anchors_check(older, PKI_NOW, again);
	if (b != 0)
		refused(b, again);
	csm_buf_init(&out, CSM_CERT_CHAIN_MAX, false);
	r = csm_anchors_join(newer, older, PKI_NOW, ANCHORS_CAP, &out);
	must(out.len <= ANCHORS_CAP && (r == 0 || out.len == 0));
	if (a == 0 && b == 0)
		must(r == 0);
	if (a == 0 && b == 0 && out.len > 0)
		must(csm_anchors_check((struct csm_bin){csm_buf_ptr(&out), out.len}, PKI_NOW, why) == 0);
	csm_buf_free(&out);
}

static void in_pem(struct csm_bin pem)
{
	char why[CSM_CERT_WHY] = "";
	struct csm_buf out;
	int r;

	csm_buf_init(&out, CSM_CERT_CHAIN_MAX, false);
	r = csm_anchors_pem(pem, &out);
	must((r == 0) == (out.len > 0));
	if (r == 0 && (r = csm_anchors_check((struct csm_bin){csm_buf_ptr(&out), out.len}, PKI_NOW, why)) != 0)
		refused(r, why);
	csm_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct csm_bin first, second;
	size_t at;

	if (size < 3)
		return 0;
	at = (size_t)data[1] << 8 | data[2];
	at = at > size - 3 ? size - 3 : at;
	first = (struct csm_bin){data + 3, at};
	second = (struct csm_bin){data + 3 + at, size - 3 - at};
	switch (data[0] % 4) {
	case 0:
		as_given(first, second, data[0] & 4);
		break;
	case 1:
		as_signed((struct csm_bin){data + 3, size - 3}, data[0] & 4);
		break;
	case 2:
		trusted(first, second);
		break;
	default:
		in_pem((struct csm_bin){data + 3, size - 3});
	}
	ERR_clear_error();
	return 0;
}
