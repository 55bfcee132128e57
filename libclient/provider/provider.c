/* The provider itself: what it has, its settings, its errors. */
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include "libclient/provider/provider.h"

/* ---- errors ---- */

/* The codes with their texts, for those who print the queue. */
static void fill_reasons(OSSL_ITEM items[static PROV_REASONS_MAX])
{
	size_t n = 0;
	unsigned code;

	for (code = 1; code < 256 && n < PROV_REASONS_MAX - 1; code++)
		if (strcmp(csm_err_name((int)code), "unknown") != 0)
			items[n++] = (OSSL_ITEM){code, (void *)(uintptr_t)csm_err_text((int)code)};
	items[n] = (OSSL_ITEM){0, NULL};
}

int prov_err_at(const struct prov *p, int r, const char *file, int line, const char *func, const char *fmt, ...)
{
	va_list ap;

	p->new_error(p->core);
	p->set_error_debug(p->core, file, line, func);
	va_start(ap, fmt);
	p->vset_error(p->core, (uint32_t)r, fmt, ap);
	va_end(ap);
	return r;
}

static const OSSL_ITEM *get_reason_strings(void *provctx)
{
	return ((struct prov *)provctx)->reasons;
}

/* ---- settings, from the provider's section of openssl.cnf ---- */

static const char *setting(const OSSL_CORE_HANDLE *core, OSSL_FUNC_core_get_params_fn *get, const char *name)
{
	char *value = NULL;
	OSSL_PARAM params[] = {OSSL_PARAM_utf8_ptr(name, &value, 0), OSSL_PARAM_END};

	return get != NULL && get(core, params) && value != NULL && *value != '\0' ? value : NULL;
}

static int connect_settings(struct prov *p, OSSL_FUNC_core_get_params_fn *get)
{
	const char *socket = setting(p->core, get, "socket"), *overflow = setting(p->core, get, "trust_overflow");
	const char *env = secure_getenv("CSM_SOCKET");
	int r = csm_new(&p->csm);

	if (r == 0 && socket != NULL && (env == NULL || *env == '\0'))
		r = csm_set_socket(p->csm, socket);
	if (r != 0)
		return prov_err_csm(p, r, "csm");
	if (overflow != NULL && strcmp(overflow, "yes") != 0 && strcmp(overflow, "no") != 0)
		return prov_err(p, CSM_EINVALID, "trust_overflow is yes or no");
	csm_set_trust_overflow(p->csm, overflow != NULL && strcmp(overflow, "yes") == 0);
	return 0;
}

/* ---- the provider ---- */

static const OSSL_PARAM *gettable_params(void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_NAME, NULL, 0),
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_VERSION, NULL, 0),
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, NULL, 0),
		OSSL_PARAM_int(OSSL_PROV_PARAM_STATUS, NULL),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return params;
}

static int get_params(void *provctx, OSSL_PARAM params[])
{
	OSSL_PARAM *p;

	(void)provctx;
	if ((p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_NAME)) != NULL &&
		!OSSL_PARAM_set_utf8_ptr(p, "keys of the node's csmd"))
		return 0;
	if ((p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_VERSION)) != NULL && !OSSL_PARAM_set_utf8_ptr(p, CSM_VERSION))
		return 0;
	if ((p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_BUILDINFO)) != NULL && !OSSL_PARAM_set_utf8_ptr(p, CSM_VERSION))
		return 0;
	return (p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS)) == NULL || OSSL_PARAM_set_int(p, 1);
}

static const OSSL_ALGORITHM *query_operation(void *provctx, int operation, int *no_cache)
{
	(void)provctx;
	*no_cache = 0;
	switch (operation) {
	case OSSL_OP_KEYMGMT:
		return prov_keymgmt;
	case OSSL_OP_SIGNATURE:
		return prov_signature;
	case OSSL_OP_ASYM_CIPHER:
		return prov_cipher;
	case OSSL_OP_KEYEXCH:
		return prov_exchange;
	case OSSL_OP_STORE:
		return prov_store;
	case OSSL_OP_DECODER:
		return prov_decoder;
	case OSSL_OP_ENCODER:
		return prov_encoder;
	default:
		return NULL;
	}
}

static void teardown(void *provctx)
{
	struct prov *p = provctx;
	size_t i;

	pkey_unref(atomic_exchange(&p->left, NULL));
	async_end(p);
	csm_free(p->csm);
	for (i = 0; i < MD__COUNT; i++)
		EVP_MD_free(p->md[i]);
	OSSL_LIB_CTX_free(p->lib);
	free(p);
}

static int make_library(struct prov *p, const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in)
{
	static const char *const names[MD__COUNT] = {"SHA2-256", "SHA2-384", "SHA2-512"};
	size_t i;

	p->lib = OSSL_LIB_CTX_new_from_dispatch(core, in);
	if (p->lib == NULL)
		return prov_err(p, CSM_ENOMEM, "a library context");
	for (i = 0; i < MD__COUNT; i++) {
		p->md[i] = EVP_MD_fetch(p->lib, names[i], NULL);
		if (p->md[i] == NULL)
			return prov_err(p, CSM_EUNSUPPORTED, "%s", names[i]);
	}
	return 0;
}

static const OSSL_DISPATCH functions[] = {
	{OSSL_FUNC_PROVIDER_TEARDOWN, (void (*)(void))teardown},
	{OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))gettable_params},
	{OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get_params},
	{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query_operation},
	{OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, (void (*)(void))get_reason_strings},
	{0, NULL},
};

__attribute__((visibility("default"))) int OSSL_provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provctx)
{
	OSSL_FUNC_core_get_params_fn *get = NULL;
	struct prov *p = calloc(1, sizeof(*p));
	const OSSL_DISPATCH *f;

	if (p == NULL)
		return 0;
	p->core = core;
	fill_reasons(p->reasons);
	for (f = in; f->function_id != 0; f++) {
		switch (f->function_id) {
		case OSSL_FUNC_CORE_GET_PARAMS:
			get = OSSL_FUNC_core_get_params(f);
			break;
		case OSSL_FUNC_CORE_NEW_ERROR:
			p->new_error = OSSL_FUNC_core_new_error(f);
			break;
		case OSSL_FUNC_CORE_SET_ERROR_DEBUG:
			p->set_error_debug = OSSL_FUNC_core_set_error_debug(f);
			break;
		case OSSL_FUNC_CORE_VSET_ERROR:
			p->vset_error = OSSL_FUNC_core_vset_error(f);
			break;
		case OSSL_FUNC_BIO_READ_EX:
			p->bio_read = OSSL_FUNC_BIO_read_ex(f);
			break;
		default:
			break;
		}
	}
	if (p->new_error == NULL || p->set_error_debug == NULL || p->vset_error == NULL || p->bio_read == NULL) {
		free(p);
		return 0;
	}
	if (make_library(p, core, in) != 0 || connect_settings(p, get) != 0) {
		teardown(p);
		return 0;
	}
	*out = functions;
	*provctx = p;
	return 1;
}
