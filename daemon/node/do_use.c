/* key.decrypt, key.derive, key.csr. */
#include <string.h>
#include "daemon/node/keycall.h"

void do_KEY_DECRYPT(struct req *q)
{
	const struct csm_msg_decrypt_req *m = q->params;
	struct key_call call = {.what = KEY_WHAT_DECRYPT, .in = m->ciphertext, .label = m->label};
	struct csm_str name = m->scheme.p != NULL ? m->scheme : CSM_STR("rsa-oaep-sha256");
	struct key_found f;

	if (key_find(q, m->key, m->spki_sha256, CSM_USE_DECRYPT, &f) != 0)
		return;
	if (csm_scheme_parse(name, &call.scheme) != 0 || call.scheme.kind != CSM_SCHEME_RSA_OAEP) {
		req_end_read(q);
		req_error(q, CSM_EINVALID, "the scheme is none for decryption");
		return;
	}
	key_call_run(q, &f, &call);
}

void do_KEY_DERIVE(struct req *q)
{
	const struct csm_msg_derive_req *m = q->params;
	struct key_call call = {.what = KEY_WHAT_DERIVE, .in = m->peer};
	struct key_found f;

	if (key_find(q, m->key, m->spki_sha256, CSM_USE_DERIVE, &f) == 0)
		key_call_run(q, &f, &call);
}

void do_KEY_CSR(struct req *q)
{
	const struct csm_msg_csr_req *m = q->params;
	struct key_call call = {.what = KEY_WHAT_CSR};
	struct csm_csr_spec spec = {.subject = m->subject, .sans = m->sans.v, .n_sans = m->sans.n};
	char why[128] = "";
	struct key_found f;
	int r;

	if (key_find(q, m->key, m->spki_sha256, CSM_USE_SIGN | CSM_USE_ISSUER, &f) != 0)
		return;
	if (key_scheme(q, &f, m->scheme, &call.scheme) != 0) {
		req_end_read(q);
		return;
	}
	spec.spki = f.rec.spki.p;
	spec.spki_len = f.rec.spki.n;
	spec.scheme = call.scheme;
	spec.ca = f.rec.use == CSM_USE_ISSUER;
	if ((r = csm_csr_build(&spec, &call.csr, why)) != 0) {
		req_end_read(q);
		req_error(q, r, why[0] != '\0' ? why : NULL);
		return;
	}
	call.in = csm_csr_tbs(call.csr);
	key_call_run(q, &f, &call);
}
