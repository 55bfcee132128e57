/* What keys are used for: one request to csmd each. */
#include <string.h>
#include "libclient/provider/provider.h"

/* A reply's bytes go out; the reply is freed. */
static int give(const struct pkey *key, struct csm_reply *reply, const char *field, void *out, size_t *len)
{
	size_t n = 0, room = *len;
	const void *p = csm_view_bin(csm_reply_view(reply), field, &n);
	int r = 0;

	*len = n;
	if (p == NULL)
		r = prov_err(key->prov, CSM_EPROTOCOL, "%s: an answer without %s", key->name, field);
	else if (n > room)
		r = prov_err(key->prov, CSM_ETOO_LARGE, "%s: the result needs %zu bytes", key->name, n);
	else
		memcpy(out, p, n);
	csm_reply_free(reply);
	return r;
}

/* The request is sent, and freed; r: what making it gave so far. */
static int ask(const struct pkey *key, struct csm_request *req, int r, const char *field, void *out, size_t *len)
{
	struct csm_reply *reply;

	if (r == 0)
		r = async_wanted() ? async_call(key->prov, req, &reply) : csm_call(key->prov->csm, req, &reply);
	csm_request_free(req);
	return r != 0 ? prov_err_csm(key->prov, r, key->name) : give(key, reply, field, out, len);
}

/* A request about this very key: another one that has taken its name is refused by csmd. */
static int about(const struct pkey *key, const char *method, const char *scheme, struct csm_request **ret)
{
	int r = csm_request_new(method, ret);

	if (r == 0)
		r = csm_request_str(*ret, "key", key->name);
	if (r == 0)
		r = csm_request_str(*ret, "spki_sha256", key->hash_hex);
	return r == 0 && scheme != NULL ? csm_request_str(*ret, "scheme", scheme) : r;
}

int call_sign(const struct pkey *key, const struct scheme *s, const void *data, size_t data_len, void *out, size_t *len)
{
	struct csm_request *req = NULL;
	int r = about(key, "key.sign", s->name, &req);

	if (r == 0)
		r = csm_request_bin(req, s->md < 0 ? "message" : "digest", data, data_len);
	return ask(key, req, r, "signature", out, len);
}

int call_decrypt(const struct pkey *key, const char *scheme, struct csm_bin cipher, struct csm_bin label, void *out,
	size_t *len)
{
	struct csm_request *req = NULL;
	int r = about(key, "key.decrypt", scheme, &req);

	if (r == 0)
		r = csm_request_bin(req, "ciphertext", cipher.p, cipher.n);
	if (r == 0 && label.n > 0)
		r = csm_request_bin(req, "label", label.p, label.n);
	return ask(key, req, r, "plaintext", out, len);
}

int call_derive(const struct pkey *key, struct csm_bin peer, void *out, size_t *len)
{
	struct csm_request *req = NULL;
	int r = about(key, "key.derive", NULL, &req);

	if (r == 0)
		r = csm_request_bin(req, "peer", peer.p, peer.n);
	return ask(key, req, r, "shared", out, len);
}
