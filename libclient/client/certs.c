/* The common calls on certificates. */
#include "libclient/client/internal.h"

int csm_cert_install(struct csm *c, const char *key, const void *chain, size_t len)
{
	struct csm_msg_cert_install_req req = {.key = csm_str_of(key), .chain = client_bin(chain, len)};

	if (len > CSM_CERT_CHAIN_MAX)
		return client_err(CSM_ETOO_LARGE, "a chain has at most %u bytes", CSM_CERT_CHAIN_MAX);
	return client_call_new(c, CSM_M_CERT_INSTALL, &req, NULL);
}

int csm_cert_chain(struct csm *c, const char *key, void *out, size_t *len)
{
	struct csm_msg_key_req req = {.key = csm_str_of(key)};
	struct csm_reply rep;
	int r = client_call(c, CSM_M_CERT_GET, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_cert_info *)rep.msg)->chain, out, len);
	reply_clear(&rep);
	return r;
}

int csm_cert_show(struct csm *c, const char *key, struct csm_reply **ret)
{
	struct csm_msg_key_req req = {.key = csm_str_of(key)};

	return client_call_new(c, CSM_M_CERT_GET, &req, ret);
}

int csm_cert_delete(struct csm *c, const char *key)
{
	struct csm_msg_key_delete_req req = {.key = csm_str_of(key)};

	return client_call_new(c, CSM_M_CERT_DELETE, &req, NULL);
}
