/* Lines by which a device of the node vouches for lines before them: signed elsewhere, since that takes as long as the
 * device likes, and then written here. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"
#include "libclient/base/hex.h"

#define WITNESS_S 3600
#define WITNESS_LINES 1000u
#define AGAIN_S 60

bool csm_audit_witness_due(struct csm_audit *a, uint64_t *seq, uint8_t head[static CSM_CHAIN_HASH])
{
	struct witness *w = &a->witness;
	time_t now = time(NULL);
	bool due;

	pthread_mutex_lock(&a->lock);
	/* A checkpoint alone behind the last one is no reason for another. Of a log that is stopped it is the last, and time does
	 * not matter. */
	due = !w->asked && a->st.has_key && a->st.seq > w->done_seq + (w->done_seq != 0) &&
		(a->stopped || (!a->stopping && (now >= w->next || (w->done_seq != 0 && a->st.seq >= w->done_seq + WITNESS_LINES))));
	/* A clock that was set back keeps nothing from being signed. */
	if (!due && w->next > now + WITNESS_S)
		w->next = now + WITNESS_S;
	if (due) {
		w->asked = true;
		*seq = a->st.seq;
		memcpy(head, a->st.head, CSM_CHAIN_HASH);
	}
	pthread_mutex_unlock(&a->lock);
	return due;
}

void csm_audit_witness(struct csm_audit *a, uint64_t seq, const uint8_t head[static CSM_CHAIN_HASH],
	const uint8_t ak[static CSM_CHAIN_HASH], const uint8_t *sig, size_t n)
{
	struct witness *w = &a->witness;
	bool stopped;

	pthread_mutex_lock(&a->lock);
	stopped = a->stopped;
	if (n == 0 || n > sizeof(w->sig)) {
		w->asked = false;
		w->next = time(NULL) + AGAIN_S;
	} else {
		w->seq = seq;
		memcpy(w->head, head, CSM_CHAIN_HASH);
		memcpy(w->ak, ak, CSM_CHAIN_HASH);
		memcpy(w->sig, sig, n);
		w->n = n;
		w->waiting = true;
		pthread_cond_signal(&a->wake);
	}
	pthread_mutex_unlock(&a->lock);
	/* Its thread is gone, and nobody else writes. */
	if (stopped)
		audit_write_witness(a);
}

static int make_witness(struct csm_audit *a, void *arg)
{
	const struct witness *w = arg;
	char head[2 * CSM_CHAIN_HASH + 1], ak[2 * CSM_CHAIN_HASH + 1], sig[2 * CSM_CHAIN_WITNESS_MAX + 1];
	char body[sizeof(sig) + 256];

	csm_hex(w->head, sizeof(w->head), head);
	csm_hex(w->ak, sizeof(w->ak), ak);
	csm_hex(w->sig, w->n, sig);
	snprintf(body, sizeof(body), ",\"upto\":%llu,\"head\":\"%s\",\"ak\":\"%s\",\"signature\":\"%s\"",
		(unsigned long long)w->seq, head, ak, sig);
	return log_line(&a->f, "witness", body);
}

void audit_write_witness(struct csm_audit *a)
{
	struct witness w;
	bool good;

	pthread_mutex_lock(&a->lock);
	w = a->witness;
	pthread_mutex_unlock(&a->lock);
	if (!w.waiting)
		return;
	good = audit_put(a, make_witness, &w, NULL) == 0;
	if (!good)
		log_err("the audit log has no witness of the TPM: %s", strerror(errno));
	pthread_mutex_lock(&a->lock);
	a->witness.waiting = a->witness.asked = false;
	if (good)
		a->witness.done_seq = a->st.seq;
	a->witness.next = time(NULL) + (good ? WITNESS_S : AGAIN_S);
	pthread_mutex_unlock(&a->lock);
}
