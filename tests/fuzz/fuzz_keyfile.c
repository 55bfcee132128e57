/* Any bytes as a wrapped key, a TSS2 key file, a storage key, and parts of a set of tpm-util: refused, or taken apart; what is
 * taken as a wrapped key is written again as the very same bytes, and what is damaged never opens. */
#include <stdlib.h>
#include <string.h>
#include "libclient/tpmfmt/dup.h"
#include "libclient/tpmfmt/keyfile.h"
#include "libclient/tpmfmt/tpmutil.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void wrapped(struct csm_bin in)
{
	static EVP_PKEY *parent;
	struct csm_buf out, plain;
	struct csm_wrapped w;
	TPM2B_NAME name;

	if (csm_wrapped_get(in, &w) != 0)
		return;
	csm_buf_init(&out, 65536, false);
	must(csm_wrapped_is(in) && csm_wrapped_put(&w, &out) == 0);
	must(out.len == in.n && memcmp(csm_buf_ptr(&out), in.p, in.n) == 0);
	csm_buf_free(&out);
	must(csm_tpm_name(&w.pub, &name) == 0);
	if (parent == NULL)
		parent = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	csm_buf_init(&plain, CSM_TPM_SENSITIVE_MAX, true);
	/* Nobody knows this key: there is no such integrity. */
	must(csm_tpm_unwrap(parent, &name, w.seed, w.duplicate, &plain) != 0);
	csm_buf_free(&plain);
}

static void tss2(struct csm_bin in)
{
	struct csm_tss2 key, again;
	struct csm_buf out;
	const char *why = NULL;
	int r = csm_tss2_get(in, &key, &why);

	must(r == 0 || why != NULL);
	if (r != 0 || key.parent >> 24 != 0x81)
		return;
	csm_buf_init(&out, 65536, false);
	must(csm_tss2_put(&key, &out) == 0);
	must(csm_tss2_get((struct csm_bin){csm_buf_ptr(&out), out.len}, &again, &why) == 0 && again.empty_auth);
	must(again.parent == key.parent && again.priv_2b.n == key.priv_2b.n);
	csm_buf_free(&out);
}

/* The files of a set one after the other, each with its length before it. */
static void set(struct csm_bin in)
{
	struct tpmutil_set s = {.have = {false}};
	struct csm_buf sensitive;
	struct csm_bin file;
	EVP_PKEY *key = NULL;

	while (csm_tpm_take_2b(&in, UINT16_MAX, &file))
		(void)tpmutil_add(&s, file);
	csm_buf_init(&sensitive, CSM_TPM_SENSITIVE_MAX, true);
	if (tpmutil_open(&s, &sensitive) == 0 &&
		csm_tpm_sensitive_get((struct csm_bin){csm_buf_ptr(&sensitive), sensitive.len}, &s.pub, &key) == 0)
		EVP_PKEY_free(key);
	csm_buf_free(&sensitive);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct csm_bin in = {data, size};
	EVP_PKEY *key = NULL;
	TPMT_PUBLIC pub;

	wrapped(in);
	tss2(in);
	set(in);
	if (csm_tpm_public_get(in, &pub) == 0) {
		(void)csm_tpm_storage_objection(&pub);
		if (csm_tpm_public_evp(&pub, &key) == 0)
			EVP_PKEY_free(key);
	}
	return 0;
}
