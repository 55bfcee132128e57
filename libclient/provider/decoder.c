/* Files that hold a reference: PEM to DER, DER to the key. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include "libclient/provider/provider.h"

#define LEFT_MS 1000u

static void *decoder_new(void *provctx)
{
	return provctx;
}

static void decoder_free(void *ctx)
{
	(void)ctx;
}

/* A reference stands for a private key. */
static int does_selection(void *provctx, int selection)
{
	(void)provctx;
	return selection == 0 || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0;
}

/* ---- PEM ---- */

/* The next block, if it is a reference. Like OpenSSL's own decoder it goes over the block in any case, so that a
 * program finds the next one in its file. "Empty handed" is no error. */
static int pem_decode(void *ctx, OSSL_CORE_BIO *from, int selection, OSSL_CALLBACK *cb, void *arg,
	OSSL_PASSPHRASE_CALLBACK *pw, void *pw_arg)
{
	struct prov *p = ctx;
	BIO *bio = BIO_new_from_core_bio(p->lib, from);
	char *label = NULL, *header = NULL, structure[] = PROV_STRUCTURE;
	unsigned char *der = NULL;
	int type = OSSL_OBJECT_PKEY, ok = 1;
	bool found;
	long n = 0;

	(void)selection;
	(void)pw;
	(void)pw_arg;
	(void)ERR_set_mark();
	found = bio != NULL && PEM_read_bio(bio, &label, &header, &der, &n) > 0;
	(void)ERR_pop_to_mark();
	if (found && strcmp(label, CSM_KEYREF_LABEL) == 0) {
		OSSL_PARAM params[] = {
			OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_STRUCTURE, structure, 0),
			OSSL_PARAM_octet_string(OSSL_OBJECT_PARAM_DATA, der, (size_t)n),
			OSSL_PARAM_int(OSSL_OBJECT_PARAM_TYPE, &type),
			OSSL_PARAM_END,
		};

		ok = cb(params, arg);
	}
	OPENSSL_free(label);
	OPENSSL_free(header);
	OPENSSL_free(der);
	BIO_free(bio);
	return ok;
}

/* ---- DER ---- */

/* All there is, up to max. */
static size_t read_some(const struct prov *p, OSSL_CORE_BIO *from, uint8_t *to, size_t max)
{
	size_t n = 0, k;

	while (n < max && p->bio_read(from, to + n, max - n, &k) && k > 0)
		n += k;
	return n;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* The key of a reference. OpenSSL asks the decoders of all kinds in turn: the key that one of them had no use for waits for
 * the next one, shortly, so that csmd is asked once. */
static int load(struct prov *p, const struct csm_keyref *ref, struct pkey **ret)
{
	struct pkey *left = atomic_exchange(&p->left, NULL);

	if (left != NULL && now_ms() - left->loaded_ms < LEFT_MS && csm_str_same(left->ref.ns, ref->ns) &&
		csm_str_same(left->ref.name, ref->name) && memcmp(left->ref.hash, ref->hash, CSM_KEYREF_HASH) == 0) {
		*ret = left;
		return 0;
	}
	pkey_unref(left);
	return pkey_load(p, &(struct csm_ref){.ns = ref->ns, .name = ref->name}, ref->hash, ret);
}

static int der_decode(struct prov *p, OSSL_CORE_BIO *from, enum kind kind, OSSL_CALLBACK *cb, void *arg)
{
	uint8_t der[CSM_KEYREF_DER_MAX + 1];
	struct csm_keyref ref;
	struct pkey *key;

	/* Every key file of the program comes by here: what is no reference is not ours. */
	if (csm_keyref_decode(der, read_some(p, from, der, sizeof(der)), &ref) != 0)
		return 1;
	if (load(p, &ref, &key) != 0)
		return 0;
	if (key->kind == kind)
		return pkey_give(key, cb, arg);
	if (key->loaded_ms == 0)
		key->loaded_ms = now_ms();
	pkey_unref(atomic_exchange(&p->left, key));
	return 1;
}

/* OpenSSL wants a decoder for each kind of key. */
#define DECODE(name, kind) \
	static int name(void *ctx, OSSL_CORE_BIO *from, int selection, OSSL_CALLBACK *cb, void *arg, \
		OSSL_PASSPHRASE_CALLBACK *pw, void *pw_arg) \
	{ \
		(void)selection; \
		(void)pw; \
		(void)pw_arg; \
		return der_decode(ctx, from, kind, cb, arg); \
	}
DECODE(ec_decode, KIND_EC)
DECODE(rsa_decode, KIND_RSA)
DECODE(ed25519_decode, KIND_ED25519)

/* ---- tables ---- */

static const OSSL_DISPATCH pem_functions[] = {
	{OSSL_FUNC_DECODER_NEWCTX, (void (*)(void))decoder_new},
	{OSSL_FUNC_DECODER_FREECTX, (void (*)(void))decoder_free},
	{OSSL_FUNC_DECODER_DECODE, (void (*)(void))pem_decode},
	{0, NULL},
};

#define DER_FUNCTIONS(name, decode) \
	static const OSSL_DISPATCH name[] = { \
		{OSSL_FUNC_DECODER_NEWCTX, (void (*)(void))decoder_new}, \
		{OSSL_FUNC_DECODER_FREECTX, (void (*)(void))decoder_free}, \
		{OSSL_FUNC_DECODER_DOES_SELECTION, (void (*)(void))does_selection}, \
		{OSSL_FUNC_DECODER_DECODE, (void (*)(void))decode}, \
		{0, NULL}, \
	}
DER_FUNCTIONS(ec_functions, ec_decode);
DER_FUNCTIONS(rsa_functions, rsa_decode);
DER_FUNCTIONS(ed25519_functions, ed25519_decode);

#define DER_PROPERTIES PROV_PROPERTIES ",input=der,structure=" PROV_STRUCTURE
const OSSL_ALGORITHM prov_decoder[] = {
	{"DER", PROV_PROPERTIES ",input=pem", pem_functions, "CSM KEY REFERENCE"},
	{PROV_NAMES_EC, DER_PROPERTIES, ec_functions, "CSM KEY REFERENCE"},
	{PROV_NAMES_RSA, DER_PROPERTIES, rsa_functions, "CSM KEY REFERENCE"},
	{PROV_NAMES_ED25519, DER_PROPERTIES, ed25519_functions, "CSM KEY REFERENCE"},
	{NULL, NULL, NULL, NULL},
};
