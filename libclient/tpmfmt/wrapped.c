#include <string.h>
#include "libclient/tpmfmt/dup.h"
#include "libclient/tpmfmt/keyfile.h"

static const uint8_t magic[8] = {'C', 'S', 'M', 'W', 'R', 'A', 'P', 1};

bool csm_wrapped_is(struct csm_bin in)
{
	return in.n >= sizeof(magic) && memcmp(in.p, magic, sizeof(magic) - 1) == 0;
}

int csm_wrapped_get(struct csm_bin in, struct csm_wrapped *ret)
{
	struct csm_wrapped w;
	struct csm_bin head;
	int r;

	if (!csm_tpm_take_bytes(&in, sizeof(magic), &head) || memcmp(head.p, magic, sizeof(magic)) != 0 ||
		!csm_tpm_take_2b(&in, CSM_TPM_NAME_LEN, &w.storage) || w.storage.n != CSM_TPM_NAME_LEN)
		return CSM_EINVALID;
	if ((r = csm_tpm_public_take(&in, &w.pub)) != 0)
		return r;
	/* What is wrong with a key that anybody brings must not count towards the TPM's lockout. */
	if ((w.pub.objectAttributes & TPMA_OBJECT_NODA) == 0)
		return CSM_EINVALID;
	if (!csm_tpm_take_2b(&in, CSM_TPM_DUPLICATE_MAX, &w.duplicate) || w.duplicate.n == 0 ||
		!csm_tpm_take_2b(&in, CSM_TPM_SECRET_MAX, &w.seed) || w.seed.n == 0 || in.n != 0)
		return CSM_EINVALID;
	*ret = w;
	return 0;
}

int csm_wrapped_put(const struct csm_wrapped *w, struct csm_buf *out)
{
	int r;

	if ((r = csm_buf_put(out, magic, sizeof(magic))) != 0 || (r = csm_tpm_put_2b(out, w->storage)) != 0 ||
		(r = csm_tpm_public_put(&w->pub, out)) != 0 || (r = csm_tpm_put_2b(out, w->duplicate)) != 0)
		return r;
	return csm_tpm_put_2b(out, w->seed);
}
