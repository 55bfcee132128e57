/* What is written of a key: its reference where a program would write the private key, and text. The public half is
 * written by the default provider, which gets it by export. */
#include <string.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/pem.h>
#include "libclient/provider/provider.h"

static void *encoder_new(void *provctx)
{
	return provctx;
}

static void encoder_free(void *ctx)
{
	(void)ctx;
}

static int private_selection(void *provctx, int selection)
{
	(void)provctx;
	return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0;
}

static int any_selection(void *provctx, int selection)
{
	(void)provctx;
	return (selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0;
}

enum form { FORM_DER, FORM_PEM, FORM_TEXT };

static int write_reference(const struct pkey *key, BIO *bio, enum form form)
{
	uint8_t der[CSM_KEYREF_DER_MAX];
	size_t n;
	int r;

	if (key->name == NULL)
		return prov_err(key->prov, CSM_EINVALID, "a public key has no private form");
	r = csm_keyref_encode(&key->ref, der, &n);
	if (r != 0)
		return prov_err(key->prov, r, "%s", key->name);
	if (form == FORM_PEM ? PEM_write_bio(bio, CSM_KEYREF_LABEL, "", der, (long)n) > 0
			     : BIO_write(bio, der, (int)n) == (int)n)
		return 0;
	return prov_err(key->prov, CSM_ESYSTEM, "%s: not written", key->name);
}

static int write_text(const struct pkey *key, BIO *bio, int selection)
{
	if (key->name != NULL && (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 &&
		BIO_printf(bio, "Private key in csmd: %s\n", key->name) <= 0)
		return CSM_ESYSTEM;
	return EVP_PKEY_print_public(bio, key->pub, 0, NULL) == 1 ? 0 : CSM_ESYSTEM;
}

static int encode(struct prov *p, OSSL_CORE_BIO *to, const struct pkey *key, const OSSL_PARAM *abstract, int selection,
	enum form form)
{
	BIO *bio;
	int r;

	if (abstract != NULL || key == NULL || key->pub == NULL)
		return 0;
	bio = BIO_new_from_core_bio(p->lib, to);
	if (bio == NULL)
		return 0;
	r = form == FORM_TEXT ? write_text(key, bio, selection) : write_reference(key, bio, form);
	BIO_free(bio);
	return r == 0;
}

#define ENCODE(name, form, selects) \
	static int name##_encode(void *ctx, OSSL_CORE_BIO *to, const void *key, const OSSL_PARAM abstract[], int selection, \
		OSSL_PASSPHRASE_CALLBACK *pw, void *pw_arg) \
	{ \
		(void)pw; \
		(void)pw_arg; \
		return encode(ctx, to, key, abstract, selection, form); \
	} \
	static const OSSL_DISPATCH name##_functions[] = { \
		{OSSL_FUNC_ENCODER_NEWCTX, (void (*)(void))encoder_new}, \
		{OSSL_FUNC_ENCODER_FREECTX, (void (*)(void))encoder_free}, \
		{OSSL_FUNC_ENCODER_DOES_SELECTION, (void (*)(void))selects}, \
		{OSSL_FUNC_ENCODER_ENCODE, (void (*)(void))name##_encode}, \
		{0, NULL}, \
	}
ENCODE(der, FORM_DER, private_selection);
ENCODE(pem, FORM_PEM, private_selection);
ENCODE(text, FORM_TEXT, any_selection);

#define ALL(names) \
	{names, PROV_PROPERTIES ",output=der,structure=PrivateKeyInfo", der_functions, "CSM KEY REFERENCE"}, \
		{names, PROV_PROPERTIES ",output=pem,structure=PrivateKeyInfo", pem_functions, "CSM KEY REFERENCE"}, \
		{names, PROV_PROPERTIES ",output=text", text_functions, "for people"}

const OSSL_ALGORITHM prov_encoder[] = {
	ALL(PROV_NAMES_EC),
	ALL(PROV_NAMES_RSA),
	ALL(PROV_NAMES_ED25519),
	{NULL, NULL, NULL, NULL},
};
