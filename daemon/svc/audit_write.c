/* Lines are written together, or not at all; they are durable once the file is synced, or the store's commit has kept them.
 * What cannot be written is remembered, and told when it can. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"
#include "libclient/base/hex.h"

#define SIGN_LINES 1000u /* a checkpoint after so many lines */

static const struct csm_audit_signer *signer_of(const struct csm_audit *a)
{
	return a->has_signer ? &a->signer : NULL;
}

/* What could not be written, and what was found at the start, comes before anything else. */
static int make_told(struct csm_audit *a, uint64_t changes, uint64_t denied, time_t since)
{
	const struct undone *u = &a->undone;
	char body[160];
	int r = a->start.due ? audit_make_break(a) : 0;

	if (r == 0 && a->repaired > 0) {
		snprintf(body, sizeof(body), ",\"bytes\":%llu", (unsigned long long)a->repaired);
		r = log_line(&a->f, "repaired", body);
	}
	if (r == 0 && u->first != 0) {
		snprintf(body, sizeof(body), ",\"first\":%llu,\"last\":%llu,\"result\":\"%s\"", (unsigned long long)u->first,
			(unsigned long long)u->last, u->why);
		r = log_line(&a->f, "undone", body);
	}
	if (r == 0 && since != 0) {
		/* Nothing may be missing: in strict mode what could not be told was not done. */
		snprintf(body, sizeof(body), ",\"since\":%lld,\"changes\":%llu,\"denied\":%llu", (long long)since,
			(unsigned long long)changes, (unsigned long long)denied);
		r = log_line(&a->f, "gap", body);
	}
	return r == 0 && a->start.due ? audit_make_start(a) : r;
}

/* Under the file's lock: all lines of one call, or none. */
static int write_lines(struct csm_audit *a, audit_make_fn *make, void *arg, uint64_t *first)
{
	uint64_t changes, denied;
	time_t since;
	int r;

	pthread_mutex_lock(&a->lock);
	changes = a->lost_changes;
	denied = a->lost_denied;
	since = a->lost_since;
	pthread_mutex_unlock(&a->lock);
	if ((r = log_room(&a->f, signer_of(a))) != 0)
		return r;
	log_begin(&a->f);
	if ((r = make_told(a, changes, denied, since)) != 0)
		return r;
	*first = a->f.out_seq + 1;
	if (make != NULL && (r = make(a, arg)) != 0)
		return r;
	if (a->has_signer && a->f.out_seq >= a->f.signed_seq + SIGN_LINES && (r = log_checkpoint(&a->f, &a->signer)) != 0)
		return r;
	if ((r = log_write(&a->f)) != 0)
		return r;
	a->repaired = 0;
	a->undone.first = 0;
	a->start.due = false;
	pthread_mutex_lock(&a->lock);
	a->lost_changes -= changes;
	a->lost_denied -= denied;
	if (a->lost_changes + a->lost_denied == 0)
		a->lost_since = 0;
	pthread_mutex_unlock(&a->lock);
	return 0;
}

bool audit_owes(struct csm_audit *a)
{
	bool owes;

	pthread_mutex_lock(&a->file_lock);
	owes = a->undone.first != 0 || a->start.due;
	pthread_mutex_unlock(&a->file_lock);
	return owes;
}

/* unwritten: something is not in it that should be, or had to be refused; else it is only not synced. */
static void now_failing(struct csm_audit *a, int e, bool unwritten)
{
	pthread_mutex_lock(&a->lock);
	if (!a->failing) {
		log_err("the audit log cannot be written: %s", strerror(e));
		pthread_cond_signal(&a->wake); /* from now on it is tried each second */
	}
	if (unwritten && a->lost_since == 0)
		a->lost_since = time(NULL);
	a->st.error = e;
	a->failing = true;
	pthread_mutex_unlock(&a->lock);
}

void audit_durable(struct csm_audit *a, uint64_t seq, const uint8_t *head)
{
	pthread_mutex_lock(&a->lock);
	if (a->failing)
		log_info("the audit log can be written again");
	a->failing = false;
	if (seq > a->st.seq) {
		a->st.lines += seq - a->st.seq;
		a->st.seq = seq;
		memcpy(a->st.head, head, CSM_CHAIN_HASH);
	}
	pthread_mutex_unlock(&a->lock);
}

void audit_lost(struct csm_audit *a, uint64_t *counter, uint64_t n)
{
	if (n == 0)
		return;
	*counter += n;
	if (a->lost_since == 0)
		a->lost_since = time(NULL);
}

/* What the store does not have yet, behind the hash that it follows. */
static int keep_lines(const struct log_file *f, struct csm_buf *keep)
{
	size_t kept = (size_t)(f->kept_at - f->loose_at);
	char hex[2 * CSM_CHAIN_HASH + 2];
	int r;

	csm_hex(f->kept_head, CSM_CHAIN_HASH, hex);
	hex[sizeof(hex) - 2] = '\n';
	r = csm_buf_put(keep, hex, sizeof(hex) - 1);
	return r != 0 ? r : csm_buf_put(keep, csm_buf_ptr(&f->loose) + kept, f->loose.len - kept);
}

int audit_append(struct csm_audit *a, audit_make_fn *make, void *arg, struct csm_buf *keep, bool sync,
	struct audit_written *ret)
{
	struct log_file *f = &a->f;
	int r, e;

	pthread_mutex_lock(&a->file_lock);
	errno = 0;
	r = write_lines(a, make, arg, &ret->first);
	ret->seq = f->seq;
	ret->at = f->loose_at + f->loose.len;
	memcpy(ret->head, f->head, CSM_CHAIN_HASH);
	if (r == 0 && keep != NULL && (r = keep_lines(f, keep)) != 0 && a->strict)
		a->undone = (struct undone){ret->first, f->seq, csm_err_name(r)};
	e = errno;
	f->syncing += r == 0 && sync;
	pthread_mutex_unlock(&a->file_lock);
	if (r != 0)
		now_failing(a, e != 0 ? e : ENOMEM, true);
	return r;
}

/* Under the file's lock, which is given back for the sync: others may write meanwhile. */
static int sync_unlocked(struct csm_audit *a)
{
	struct log_file *f = &a->f;
	uint64_t at = f->loose_at + f->loose.len, seq = f->seq;
	int fd = f->fd, rc, e;

	pthread_mutex_unlock(&a->file_lock);
	rc = fdatasync(fd);
	e = errno;
	pthread_mutex_lock(&a->file_lock);
	errno = e;
	if (rc != 0) {
		f->unsure = true;
		return CSM_ESYSTEM;
	}
	log_synced(f, at);
	if (seq > f->synced)
		f->synced = seq;
	return 0;
}

static int sync_lines(struct csm_audit *a, const struct audit_written *w)
{
	struct log_file *f = &a->f;
	int r = 0, e;

	pthread_mutex_lock(&a->sync_lock);
	pthread_mutex_lock(&a->file_lock);
	/* Who had the lock before may have done it for us. */
	if (f->synced < w->seq)
		r = f->unsure || f->unnamed ? log_sync(f) : sync_unlocked(a);
	e = errno;
	f->syncing--;
	pthread_mutex_unlock(&a->file_lock);
	pthread_mutex_unlock(&a->sync_lock);
	if (r != 0) {
		now_failing(a, e, false);
		return CSM_ESYSTEM;
	}
	audit_durable(a, w->seq, w->head);
	return 0;
}

/* Written and synced when it returns 0. */
int audit_put(struct csm_audit *a, audit_make_fn *make, void *arg, struct audit_written *ret)
{
	struct audit_written w;
	int r;

	if ((r = audit_append(a, make, arg, NULL, true, &w)) != 0 || (r = sync_lines(a, &w)) != 0)
		return r;
	if (ret != NULL)
		*ret = w;
	return 0;
}
