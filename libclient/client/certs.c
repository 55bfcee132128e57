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
	/* one that is asked for, and not there yet */
	if (((struct csm_msg_cert_info *)rep.msg)->chain.n == 0)
		r = client_err(CSM_ENOT_FOUND, "the key has no certificate yet");
	else
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

/* ---- from the CA, by csmd ---- */

#define ENROL_MS 90000u /* csmd gives up a CA's answer before that */
#define WATCH_MS 60000u

int csm_cert_enrol(struct csm *c, const char *key, const struct csm_enrol *what, struct csm_reply **ret)
{
	static const struct csm_enrol none;
	const struct csm_enrol *e = what != NULL ? what : &none;
	struct csm_msg_cert_enrol_req req = {.key = csm_str_of(key)};
	struct csm_str sans[CSM_SANS_MAX];

	if (e->n_sans > CSM_SANS_MAX)
		return client_err(CSM_ETOO_LARGE, "a request has at most %u alternative names", CSM_SANS_MAX);
	for (size_t i = 0; i < e->n_sans; i++)
		sans[i] = csm_str_of(e->sans[i]);
	if (e->profile != NULL)
		req.profile = csm_str_of(e->profile);
	if (e->subject != NULL)
		req.subject = csm_str_of(e->subject);
	req.sans.v = sans;
	req.sans.n = e->n_sans;
	if (e->csr != NULL)
		req.csr = client_bin(e->csr, e->csr_len);
	if (e->ttl != 0)
		req.ttl = (struct csm_u64){e->ttl, true};
	req.wait = (struct csm_bool){!e->no_wait, true};
	return client_call_long(c, CSM_M_CERT_ENROL, &req, e->no_wait ? 0 : ENROL_MS, ret);
}

int csm_cert_renew(struct csm *c, const char *key, bool wait, struct csm_reply **ret)
{
	struct csm_msg_cert_renew_req req = {.key = csm_str_of(key), .wait = {wait, true}};

	return client_call_long(c, CSM_M_CERT_RENEW, &req, wait ? ENROL_MS : 0, ret);
}

int csm_cert_revoke(struct csm *c, const char *key, const char *reason, struct csm_reply **ret)
{
	struct csm_msg_cert_revoke_req req = {.key = csm_str_of(key)};

	if (reason != NULL)
		req.reason = csm_str_of(reason);
	return client_call_long(c, CSM_M_CERT_REVOKE, &req, ENROL_MS, ret);
}

int csm_cert_watch(struct csm *c, const char *const *keys, size_t n, uint64_t after, uint32_t timeout_ms,
	struct csm_reply **ret)
{
	uint32_t wait_ms = timeout_ms != 0 ? timeout_ms : WATCH_MS;
	struct csm_msg_cert_watch_req req = {.timeout_ms = {wait_ms, true}};
	struct csm_str names[CSM_WATCH_KEYS_MAX];

	if (n > CSM_WATCH_KEYS_MAX)
		return client_err(CSM_ETOO_LARGE, "at most %u keys are watched at once", CSM_WATCH_KEYS_MAX);
	for (size_t i = 0; i < n; i++)
		names[i] = csm_str_of(keys[i]);
	req.keys.v = names;
	req.keys.n = n;
	if (after != 0)
		req.after = (struct csm_u64){after, true};
	return client_call_long(c, CSM_M_CERT_WATCH, &req, wait_ms + 5000, ret);
}
