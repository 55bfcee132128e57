/* Signatures in halves: an event loop begins one, and goes on until its answer has come. */
#include <stdlib.h>
#include <string.h>
#include "plugins/remote/link.h"
#include "proto-spec/limits.h"

#define INPUT_MAX 4096u /* what fits into the socket at once */

struct csm_remote_half {
	struct call call;
	uint32_t id;
};

int csm_remote_sign_begin(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, size_t room, struct csm_remote_half **ret, int *fd)
{
	struct csm_msg_plug_call m = {.kind = {scheme->kind, true}, .hash = {scheme->hash, true}, .data = {in, in_len},
		.room = {room < CSM_PLUG_OUT_MAX ? room : CSM_PLUG_OUT_MAX, true}};
	struct csm_remote_half *h;
	int r = CSM_EBUSY;

	if (in_len > INPUT_MAX)
		return r;
	h = malloc(sizeof(*h));
	if (h == NULL)
		return r;
	if ((r = call_try(ctx, &h->call)) != 0)
		goto out;
	m.key = (struct csm_u64){key->number, true};
	r = key->epoch == h->call.link->epoch ? call_send(&h->call, CSM_PLUG_SIGN, &m, &h->id) : CSM_EBUSY;
	if (r != 0) {
		call_end(&h->call);
		goto out;
	}
	*fd = h->call.channel->fd;
	*ret = h;
	return 0;
out:
	free(h);
	return r;
}

int csm_remote_sign_end(struct csm_remote_half *h, struct csm_plugin_out *sig)
{
	struct csm_msg_plug_result res;
	int r = call_poll(&h->call, CSM_PLUG_SIGN, h->id, &res);

	if (r == CSM_EBUSY)
		return r;
	if (r == 0 && res.data.n > sig->cap)
		r = CSM_ETOO_LARGE;
	if (r == 0) {
		memcpy(sig->p, res.data.p, res.data.n);
		sig->len = res.data.n;
	}
	call_end(&h->call);
	free(h);
	return r;
}

bool csm_remote_sign_late(const struct csm_remote_half *h)
{
	return csm_channel_now_ms() > h->call.deadline_ms;
}

void csm_remote_sign_give_up(struct csm_remote_half *h)
{
	call_break(&h->call);
	call_end(&h->call);
	free(h);
}
