/* What keys are used for: one request to csmd each. */
#include <string.h>
#include "libclient/provider/provider.h"

int call_sign(const struct pkey *key, const struct scheme *s, const void *data, size_t data_len, void *out, size_t *len)
{
	struct csm *csm = key->prov->csm;
	int r;

	if (s->md < 0)
		r = csm_key_sign_message(csm, key->name, s->name, data, data_len, out, len);
	else
		r = csm_key_sign(csm, key->name, s->name, data, data_len, out, len);
	return r != 0 ? prov_err_csm(key->prov, r, key->name) : 0;
}
