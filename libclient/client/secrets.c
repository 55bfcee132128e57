/* The common calls on secrets, and what the daemon seals. */
#include <stdlib.h>
#include <string.h>
#include "libclient/client/internal.h"

int csm_domain_create(struct csm *c, const char *domain)
{
	struct csm_msg_domain_req req = {.domain = csm_str_of(domain)};

	return client_call_new(c, CSM_M_DOMAIN_CREATE, &req, NULL);
}

int csm_domain_delete(struct csm *c, const char *domain)
{
	struct csm_msg_domain_req req = {.domain = csm_str_of(domain)};

	return client_call_new(c, CSM_M_DOMAIN_DELETE, &req, NULL);
}

int csm_secret_set(struct csm *c, const char *secret, const struct csm_pair *pairs, size_t n, uint64_t *version)
{
	struct csm_msg_secret_set_req req = {.secret = csm_str_of(secret)};
	struct csm_reply rep;
	size_t i;
	int r;

	if (n > CSM_PAIRS_MAX)
		return client_err(CSM_ETOO_LARGE, "at most %u pairs", CSM_PAIRS_MAX);
	req.pairs.v = calloc(n > 0 ? n : 1, sizeof(*req.pairs.v));
	req.pairs.n = n;
	if (req.pairs.v == NULL)
		return client_err_plain(CSM_ENOMEM);
	for (i = 0; i < n; i++)
		req.pairs.v[i] = (struct csm_msg_pair){
			.name = csm_str_of(pairs[i].name),
			.type = csm_str_of(pairs[i].type),
			.value = client_bin(pairs[i].value, pairs[i].len),
		};
	r = client_call(c, CSM_M_SECRET_SET, &req, &rep);
	if (r == 0) {
		if (version != NULL)
			*version = ((struct csm_msg_secret_set_res *)rep.msg)->version.v;
		reply_clear(&rep);
	}
	free(req.pairs.v);
	return r;
}

int csm_secret_get(struct csm *c, const char *secret, const char *key, uint64_t version, struct csm_reply **ret)
{
	struct csm_msg_secret_get_req req = {
		.secret = csm_str_of(secret),
		.key = csm_str_of(key),
		.version = {version, version != 0},
	};

	return client_call_new(c, CSM_M_SECRET_GET, &req, ret);
}

int csm_secret_value(struct csm *c, const char *secret, const char *key, void *out, size_t *len)
{
	struct csm_msg_secret_get_req req = {.secret = csm_str_of(secret), .key = csm_str_of(key)};
	struct csm_msg_secret_get_res *res;
	struct csm_reply rep;
	int r;

	if (key == NULL)
		return client_err(CSM_EINVALID, "key is missing");
	r = client_call(c, CSM_M_SECRET_GET, &req, &rep);
	if (r != 0)
		return r;
	res = rep.msg;
	if (res->pairs.n == 1 && csm_str_eq(res->pairs.v[0].name, key))
		r = client_give(res->pairs.v[0].value, out, len);
	else
		r = client_err(CSM_EPROTOCOL, "the daemon did not answer with the one pair asked for");
	reply_clear(&rep);
	return r;
}

int csm_secret_delete(struct csm *c, const char *secret)
{
	struct csm_msg_secret_delete_req req = {.secret = csm_str_of(secret)};

	return client_call_new(c, CSM_M_SECRET_DELETE, &req, NULL);
}

int csm_random(struct csm *c, void *out, size_t len)
{
	uint8_t *p = out;
	int r = 0;

	while (r == 0 && len > 0) {
		size_t n = len < CSM_RANDOM_MAX ? len : CSM_RANDOM_MAX;
		struct csm_msg_random_req req = {.bytes = {n, true}};
		struct csm_reply rep;
		struct csm_bin got;

		r = client_call(c, CSM_M_RANDOM, &req, &rep);
		if (r != 0)
			break;
		got = ((struct csm_msg_random_res *)rep.msg)->random;
		if (got.n == n)
			memcpy(p, got.p, n);
		else
			r = client_err(CSM_EPROTOCOL, "the daemon gave %zu random bytes of %zu", got.n, n);
		reply_clear(&rep);
		p += n;
		len -= n;
	}
	return r;
}

static struct csm_bin context_bin(const void *p, size_t n)
{
	return (struct csm_bin){n == 0 ? NULL : p, n};
}

int csm_seal(struct csm *c, const void *data, size_t data_len, const void *context, size_t context_len, void *out,
	size_t *len)
{
	struct csm_msg_seal_req req = {
		.data = client_bin(data, data_len),
		.context = context_bin(context, context_len),
	};
	struct csm_reply rep;
	int r = client_call(c, CSM_M_SEAL, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_seal_res *)rep.msg)->sealed, out, len);
	reply_clear(&rep);
	return r;
}

int csm_unseal(struct csm *c, const void *sealed, size_t sealed_len, const void *context, size_t context_len,
	void *out, size_t *len)
{
	struct csm_msg_unseal_req req = {
		.sealed = client_bin(sealed, sealed_len),
		.context = context_bin(context, context_len),
	};
	struct csm_reply rep;
	int r = client_call(c, CSM_M_UNSEAL, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_unseal_res *)rep.msg)->data, out, len);
	reply_clear(&rep);
	return r;
}
