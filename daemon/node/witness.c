#include <sodium.h>
#include <string.h>
#include "daemon/node/witness.h"
#include "daemon/svc/log.h"

/* One at a time; the log gives no other before it has this one. */
static struct {
	struct csm_job job;
	struct csm_backend *be;
	struct csm_audit *audit;
	uint64_t seq;
	uint8_t head[CSM_CHAIN_HASH];
} work;

static void sign(struct csm_job *job)
{
	uint8_t text[CSM_CHAIN_WITNESS_TEXT], sig[CSM_CHAIN_WITNESS_MAX], spki[CSM_SPKI_MAX], ak[crypto_hash_sha256_BYTES] = {0};
	struct csm_plugin_out sig_out = {.p = sig, .cap = sizeof(sig)}, spki_out = {.p = spki, .cap = sizeof(spki)};
	int r;

	(void)job;
	csm_chain_witness_text(work.seq, work.head, text);
	r = csm_be_witness(work.be, (struct csm_bin){text, sizeof(text)}, &sig_out, &spki_out);
	if (r == 0)
		crypto_hash_sha256(ak, spki, spki_out.len);
	else if (r != CSM_EUNAVAILABLE)
		log_warn("%s does not sign the end of the audit log: %s", work.be->plugin->name, csm_err_text(r));
	csm_audit_witness(work.audit, work.seq, work.head, ak, sig, r == 0 ? sig_out.len : 0);
}

/* The back end that signs, with what it is to sign. */
static bool due(struct broker *b)
{
	for (size_t i = 0; i < b->n_backends; i++) {
		struct csm_backend *be = &b->backends[i];

		if (be->ctx == NULL || be->owner == NULL || be->plugin->witness == NULL)
			continue;
		work.job.run = sign;
		work.job.user = UINT32_MAX;
		work.be = be;
		work.audit = b->audit;
		return csm_audit_witness_due(b->audit, &work.seq, work.head);
	}
	return false;
}

void witness_tick(struct broker *b)
{
	if (b->state == BROKER_READY && due(b) && csm_workq_push(work.be->owner, &work.job) != 0)
		csm_audit_witness(b->audit, work.seq, work.head, work.head, NULL, 0);
}

static void sign_last(void *arg)
{
	sign(arg);
}

void witness_last(struct broker *b)
{
	if (b->audit != NULL && due(b) && csm_workq_call(work.be->owner, sign_last, &work.job) != 0)
		csm_audit_witness(b->audit, work.seq, work.head, work.head, NULL, 0);
}
