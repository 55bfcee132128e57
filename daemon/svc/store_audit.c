/* The store and the audit log: changes are told before they are committed, each commit names the log's last line, and
 * the log's checkpoints are signed by a key that comes from the root key. */
#include <sodium.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

/* Ed25519; the secret key is made from its seed each time, which is seldom. */
static int sign(void *arg, const uint8_t *p, size_t n, uint8_t signature[static CSM_CHAIN_SIGNATURE])
{
	CSM_WIPED(secret, crypto_sign_SECRETKEYBYTES);
	const struct csm_store *s = arg;
	uint8_t public[crypto_sign_PUBLICKEYBYTES];

	if (crypto_sign_seed_keypair(public, secret, s->sub->audit_seed) != 0 ||
		crypto_sign_detached(signature, NULL, p, n, secret) != 0)
		return CSM_EINTERNAL;
	return 0;
}

int csm_store_tell(struct csm_store *s, struct csm_audit *a)
{
	CSM_WIPED(secret, crypto_sign_SECRETKEYBYTES);
	struct csm_audit_signer signer = {.arg = s, .sign = sign};

	if (!s->ready || s->started)
		return CSM_ESTATE;
	if (crypto_sign_seed_keypair(signer.key, secret, s->sub->audit_seed) != 0)
		return CSM_EINTERNAL;
	csm_audit_attach(a, s->audit_seq, s->audit_head, &signer);
	s->audit = a;
	return 0;
}

int store_tell(struct group *g, struct csm_store_op *const *ops, size_t n)
{
	struct csm_audit_event events[GROUP_OPS];
	size_t n_events = 0;
	int r;

	memset(&g->told, 0, sizeof(g->told));
	if (g->s->audit == NULL)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (ops[i]->event == NULL || ops[i]->replayed)
			continue;
		events[n_events] = *ops[i]->event;
		events[n_events++].result = ops[i]->r == 0 ? "ok" : csm_err_name(ops[i]->r);
	}
	r = csm_audit_group(g->s->audit, events, n_events, &g->told);
	if (r != 0)
		return r;
	g->root.audit_seq = g->told.seq;
	memcpy(g->root.audit_head, g->told.head, sizeof(g->root.audit_head));
	return 0;
}

void store_told(struct group *g, int r)
{
	if (g->s->audit == NULL)
		return;
	if (r == 0)
		csm_audit_anchored(g->s->audit, g->told.seq);
	else
		csm_audit_undone(g->s->audit, g->told.first, g->told.last, csm_err_name(r));
}
