#include <jansson.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/wrap.h"

#define STACK_USED (256u * 1024u)

/* ---- OpenSSL's memory ---- */

static void *hook_alloc(size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	return n == 0 ? NULL : csm_lock_alloc(n);
}

static void hook_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	csm_lock_free(p);
}

static void *hook_realloc(void *p, size_t n, const char *file, int line)
{
	size_t old = p == NULL ? 0 : csm_lock_size(p);
	void *more = hook_alloc(n, file, line);

	if (more != NULL && p != NULL)
		memcpy(more, p, old < n ? old : n);
	if (more != NULL || n == 0)
		csm_lock_free(p);
	return more;
}

/* The part of the stack that what is called from now on will use. */
static __attribute__((noinline)) void lock_stack(void)
{
	uint8_t below[STACK_USED];
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)below & ~(page - 1);

	sodium_memzero(below, sizeof(below));
	(void)csm_lock_again((void *)from, sizeof(below));
	(void)madvise((void *)from, sizeof(below), MADV_DONTDUMP);
}

int wrap_protect(void)
{
	lock_stack();
	if (CRYPTO_set_mem_functions(hook_alloc, hook_realloc, hook_free) != 1)
		return client_err(CSM_EINTERNAL, "OpenSSL's memory cannot be locked");
	if (!csm_lockmem_locked())
		cli_note("memory cannot be locked (RLIMIT_MEMLOCK): the private key may reach swap space");
	return 0;
}

/* ---- storage keys ---- */

bool storage_is_tpm(const struct storage *s)
{
	const TPMA_OBJECT fixed = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT;

	return (s->pub.objectAttributes & fixed) == fixed;
}

static int storage_of(struct csm_bin pem, struct storage *ret)
{
	const char *why;
	struct csm_buf der;
	struct storage s;
	int r;

	csm_buf_init(&der, CSM_TPM_PUBLIC_MAX + 64, false);
	r = pem_get(pem.p, pem.n, CSM_PEM_STORAGE, &der);
	if (r == 0 && csm_tpm_public_get((struct csm_bin){csm_buf_ptr(&der), der.len}, &s.pub) != 0)
		r = client_err(CSM_EINVALID, "the storage key is damaged, or of a kind that this version does not know");
	csm_buf_free(&der);
	if (r != 0)
		return r;
	if ((why = csm_tpm_storage_objection(&s.pub)) != NULL)
		return client_err(CSM_EINVALID, "no key can be wrapped to that storage key: %s", why);
	if ((r = csm_tpm_name(&s.pub, &s.name)) != 0)
		return client_err_plain(r);
	*ret = s;
	return 0;
}

/* Of the answer of status, as JSON. */
static int storage_of_json(const char *text, size_t n, const char *backend, struct storage *ret)
{
	json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL), *be;
	const char *pem = NULL;
	size_t i;
	int r;

	if (j == NULL)
		return client_err(CSM_EINVALID, "the storage key's file is neither PEM nor JSON");
	json_array_foreach(json_object_get(j, "backends"), i, be)
	{
		const char *name = json_string_value(json_object_get(be, "name"));
		const char *key = json_string_value(json_object_get(be, "storage_key"));
		bool wanted = backend != NULL ? name != NULL && strcmp(name, backend) == 0 :
						json_is_true(json_object_get(be, "preferred"));

		if (wanted)
			pem = key;
	}
	r = pem != NULL ? storage_of((struct csm_bin){(const uint8_t *)pem, strlen(pem)}, ret) :
			  client_err(CSM_EINVALID, "the node tells no storage key of %s%s",
				  backend != NULL ? "back end " : "its preferred back end", backend != NULL ? backend : "");
	json_decref(j);
	return r;
}

int storage_of_file(struct cli *cli, const char *path, struct storage *ret)
{
	struct csm_buf b;
	int r;

	csm_buf_init(&b, WRAP_FILE_MAX, false);
	r = io_read(path, &b);
	if (r == 0 && memchr(csm_buf_ptr(&b), '{', b.len) != NULL)
		r = storage_of_json((const char *)csm_buf_ptr(&b), b.len, cli->value[O_BACKEND], ret);
	else if (r == 0)
		r = storage_of((struct csm_bin){csm_buf_ptr(&b), b.len}, ret);
	csm_buf_free(&b);
	return r;
}

int storage_of_node(struct cli *cli, const char *backend, struct storage *ret)
{
	const struct csm_msg_status_res *res;
	struct csm_str pem = {NULL, 0};
	struct csm_reply *rep;
	int r = csm_status(cli->csm, &rep);

	if (r != 0)
		return r;
	res = rep->msg;
	for (size_t i = 0; i < res->backends.n; i++) {
		const struct csm_msg_backend_status *be = &res->backends.v[i];

		if (backend != NULL ? csm_str_eq(be->name, backend) : be->preferred.v)
			pem = be->storage_key;
	}
	r = pem.p != NULL ? storage_of((struct csm_bin){(const uint8_t *)pem.p, pem.n}, ret) :
			    client_err(CSM_EUNAVAILABLE, "the back end tells no storage key now");
	csm_reply_free(rep);
	return r;
}

/* ---- wrapping ---- */

int wrap_sensitive(const struct storage *to, const TPMT_PUBLIC *pub, struct csm_bin sensitive, struct csm_buf *out)
{
	uint8_t duplicate[CSM_TPM_DUPLICATE_MAX];
	TPM2B_ENCRYPTED_SECRET seed;
	struct csm_wrapped w = {.storage = {to->name.name, to->name.size}, .pub = *pub};
	TPM2B_NAME name;
	int r;

	if ((r = csm_tpm_name(pub, &name)) != 0 ||
		(r = csm_tpm_wrap(&to->pub, CSM_TPM_DUPLICATE, &name, sensitive.p, sensitive.n, duplicate, sizeof(duplicate),
			 &w.duplicate.n, &seed)) != 0)
		return client_err_plain(r);
	w.duplicate.p = duplicate;
	w.seed = (struct csm_bin){seed.secret, seed.size};
	r = csm_wrapped_put(&w, out);
	return r != 0 ? client_err_plain(r) : 0;
}

int pem_get_exact(struct csm_bin text, const char *label, struct csm_buf *der)
{
	struct csm_buf again;
	int r = pem_get(text.p, text.n, label, der);

	if (r != 0)
		return r;
	csm_buf_init(&again, WRAP_FILE_MAX, false);
	r = pem_put(&again, label, csm_buf_ptr(der), der->len);
	if (r == 0 && (again.len != text.n || memcmp(csm_buf_ptr(&again), text.p, text.n) != 0))
		r = client_err(CSM_EINVALID, "the %s is damaged: it is not as csm wrote it", label);
	csm_buf_free(&again);
	return r;
}
