/* Getting through: every operation runs as a step that may be repeated, and what the TPM or the transport
 * said decides what is rebuilt before the repeat. */
#include "plugins/tpm2/tpm2.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

/* What a failure calls for. A step is repeated once for each. */
enum fault {
	FAULT_FINAL = 0,
	FAULT_TRANSPORT = 1, /* no answer */
	FAULT_RESET = 2,     /* the chip was reset and not started */
	FAULT_STALE = 4,     /* a handle or the session is not ours any more */
	FAULT_AUTH = 8,      /* the Name at a handle, or the session's nonce, is not what we took it for */
	FAULT_SLOTS = 16,    /* no room for an object */
	FAULT_SESSIONS = 32, /* no room for a session, or the context gap */
};

void t2_reason(struct csm_plugin_ctx *c, const char *fmt, ...)
{
	char text[sizeof(c->reason)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (strcmp(text, c->reason) == 0)
		return;
	memcpy(c->reason, text, sizeof(text));
	if (text[0] != '\0' && c->host->log != NULL)
		c->host->log(c->host->arg, LOG_WARNING, text);
}

TSS2_RC t2_rc_base(TSS2_RC rc)
{
	if ((rc & ~(TSS2_RC)0xfff) != 0 || (rc & TPM2_RC_FMT1) == 0)
		return rc;
	return rc & (TPM2_RC_FMT1 | 0x3f);
}

static bool is_auth_refused(TSS2_RC rc)
{
	return t2_rc_base(rc) == TPM2_RC_BAD_AUTH || t2_rc_base(rc) == TPM2_RC_AUTH_FAIL;
}

static enum fault classify(TSS2_RC rc)
{
	if (t2_rc_is_transport(rc))
		return FAULT_TRANSPORT;
	if (rc == TPM2_RC_INITIALIZE)
		return FAULT_RESET;
	if ((rc >= TPM2_RC_REFERENCE_H0 && rc <= TPM2_RC_REFERENCE_H6) || t2_rc_base(rc) == TPM2_RC_HANDLE)
		return FAULT_STALE;
	if ((rc >= TPM2_RC_REFERENCE_S0 && rc <= TPM2_RC_REFERENCE_S6) || is_auth_refused(rc))
		return FAULT_AUTH;
	if (rc == TPM2_RC_OBJECT_MEMORY || rc == TPM2_RC_OBJECT_HANDLES || rc == TPM2_RC_MEMORY)
		return FAULT_SLOTS;
	if (rc == TPM2_RC_SESSION_MEMORY || rc == TPM2_RC_SESSION_HANDLES || rc == TPM2_RC_CONTEXT_GAP)
		return FAULT_SESSIONS;
	return FAULT_FINAL;
}

/* The TPM began a new life: no handle and no saved context is good any more. */
static void forget_all(struct csm_plugin_ctx *c)
{
	while (c->nhot > 0)
		t2_key_drop(c, c->hot[0]);
	c->loose = 0;
	c->other_session = 0;
	c->life++;
	t2_session_wipe(&c->session);
	if (c->srk.endorsement)
		c->srk.handle = 0;
	c->props.known = false;
	t2_ek_forget(c);
}

static TSS2_RC connect_within(struct csm_plugin_ctx *c, int wait_ms, struct t2_boot *now)
{
	uint64_t deadline = t2_now_ms() + (uint64_t)wait_ms;
	bool started = false;
	TSS2_RC rc;

	for (;;) {
		rc = t2_cmd_clock(c, now);
		if (rc == TPM2_RC_INITIALIZE && c->tcti.stream && !started) {
			/* The kernel starts a TPM that it drives; swtpm leaves it to its user. */
			started = true;
			rc = t2_cmd_startup(c);
			if (rc == TSS2_RC_SUCCESS || rc == TPM2_RC_INITIALIZE)
				continue;
		}
		if (!t2_rc_is_transport(rc) || t2_now_ms() >= deadline)
			return rc;
		t2_pause_ms(5);
	}
}

static void note_life(struct csm_plugin_ctx *c, const struct t2_boot *now)
{
	const struct t2_boot *old = &c->boot;
	bool same = old->known && old->reset_count == now->reset_count && old->restart_count == now->restart_count &&
		old->time_ms <= now->time_ms;

	if (old->known && !same) {
		c->resets++;
		if (c->host->log != NULL)
			c->host->log(c->host->arg, LOG_INFO, "the TPM was reset; keys are loaded again on use");
	}
	if (!same || (c->tcti.keep && c->connects != c->tcti.connects))
		forget_all(c);
	c->connects = c->tcti.connects;
	c->boot = *now;
}

/* After another client's work: which of our handles are still ours? The others are dropped. */
static TSS2_RC look_at_hot(struct csm_plugin_ctx *c, bool *all)
{
	bool found = false;
	TPM2B_NAME name;
	TPMT_PUBLIC pub;
	TSS2_RC rc;

	for (size_t i = c->nhot; i-- > 0;) {
		struct csm_plugin_key *k = c->hot[i];

		rc = t2_cmd_read_public(c, k->handle, &pub, &name, NULL);
		if (t2_rc_is_transport(rc) || rc == TPM2_RC_INITIALIZE)
			return rc;
		if (rc != TSS2_RC_SUCCESS || !t2_name_equal(&name, &k->name)) {
			t2_key_drop(c, k);
			found = true;
		}
	}
	*all = !found;
	return TSS2_RC_SUCCESS;
}

/* Whether what is at its handle is our session: only we can ask in it, and only it can answer. */
static TSS2_RC look_at_session(struct csm_plugin_ctx *c, bool *ours)
{
	struct t2_auth a = {.flags = TPMA_SESSION_ENCRYPT};
	TSS2_RC rc;

	*ours = false;
	if (c->session.handle == 0)
		return TSS2_RC_SUCCESS;
	if ((rc = Tss2_Sys_GetRandom_Prepare(c->sys, T2_NONCE_LEN)) == TSS2_RC_SUCCESS)
		rc = t2_exec(c, &a, T2_TIMEOUT_MS);
	*ours = rc == TSS2_RC_SUCCESS;
	return t2_rc_is_transport(rc) || rc == TPM2_RC_INITIALIZE ? rc : TSS2_RC_SUCCESS;
}

static TSS2_RC check_hot(struct csm_plugin_ctx *c)
{
	bool all = false, ours = false;
	TSS2_RC rc;

	if ((rc = look_at_hot(c, &all)) != TSS2_RC_SUCCESS)
		return rc;
	/* Another client's session at our handle must not be flushed; ours must, or it is in nobody's hands. */
	if (c->auth_failed) {
		if ((rc = look_at_session(c, &ours)) != TSS2_RC_SUCCESS)
			return rc;
		if (!ours)
			t2_session_wipe(&c->session);
	}
	c->check_hot = c->auth_failed = false;
	return TSS2_RC_SUCCESS;
}

static TSS2_RC renew_session(struct csm_plugin_ctx *c)
{
	TSS2_RC rc;

	if (c->session.handle != 0) {
		rc = t2_cmd_flush(c, c->session.handle);
		if (t2_rc_is_transport(rc))
			return rc;
		t2_session_wipe(&c->session);
	}
	if (c->other_session != 0) {
		rc = t2_cmd_flush(c, c->other_session);
		if (t2_rc_is_transport(rc))
			return rc;
		c->other_session = 0;
	}
	if ((rc = t2_room(c, 0, true)) != TSS2_RC_SUCCESS)
		return rc;
	if ((rc = t2_session_start(c, TPM2_SE_HMAC, c->srk.handle, &c->srk.pub, &c->session)) == TSS2_RC_SUCCESS)
		t2_note_session(c);
	return rc;
}

/* From whatever state to ready. 0 with *rc set: the TPM said no. */
static int rebuild(struct csm_plugin_ctx *c, int wait_ms, TSS2_RC *rc)
{
	struct t2_boot now;
	int r;

	if ((*rc = connect_within(c, wait_ms, &now)) != TSS2_RC_SUCCESS)
		return 0;
	note_life(c, &now);
	if (!c->props.known && (*rc = t2_props_read(c)) != TSS2_RC_SUCCESS)
		return 0;
	if ((r = t2_pin_recall(c)) != 0)
		return r;
	if (c->check_hot && (*rc = check_hot(c)) != TSS2_RC_SUCCESS)
		return 0;
	if (!c->opened)
		*rc = t2_leftovers(c);
	else if (c->lost_answer)
		*rc = t2_orphans(c);
	if (*rc != TSS2_RC_SUCCESS)
		return 0;
	c->opened = true;
	c->lost_answer = false;
	if ((r = t2_srk_open(c, rc)) != 0 || *rc != TSS2_RC_SUCCESS)
		return r;
	*rc = renew_session(c);
	return 0;
}

/* What a failed rebuild or step leaves to be done. */
static void mark(struct csm_plugin_ctx *c, TSS2_RC rc)
{
	switch (classify(rc)) {
	case FAULT_TRANSPORT:
		c->lost_answer = true;
		c->ready = false;
		break;
	case FAULT_AUTH:
		if (rc >= TPM2_RC_REFERENCE_S0 && rc <= TPM2_RC_REFERENCE_S6)
			t2_session_wipe(&c->session);
		else
			c->auth_failed = true;
		c->check_hot = true;
		c->ready = false;
		break;
	case FAULT_STALE:
		c->check_hot = true;
		c->ready = false;
		break;
	case FAULT_RESET:
	case FAULT_SESSIONS:
		c->ready = false;
		break;
	case FAULT_SLOTS:
	case FAULT_FINAL:
		break;
	}
}

static int fail(struct csm_plugin_ctx *c, TSS2_RC rc)
{
	char text[64];

	switch (classify(rc)) {
	case FAULT_TRANSPORT:
		t2_reason(c, "the TPM does not answer");
		return CSM_EUNAVAILABLE;
	case FAULT_RESET:
		t2_reason(c, "the TPM was reset and nobody started it");
		return CSM_EUNAVAILABLE;
	case FAULT_STALE:
	case FAULT_AUTH:
		t2_reason(c, "another client keeps taking our objects out of the TPM");
		return CSM_EUNAVAILABLE;
	case FAULT_SLOTS:
		t2_reason(c, "no object slot is free: other clients' objects fill the TPM");
		return CSM_EUNAVAILABLE;
	case FAULT_SESSIONS:
		t2_reason(c, "no session slot is free: other clients' sessions fill the TPM");
		return CSM_EUNAVAILABLE;
	case FAULT_FINAL:
		break;
	}
	if (rc == TPM2_RC_LOCKOUT) {
		c->props.lockout = true;
		return CSM_ELOCKOUT;
	}
	if (rc == T2_RC_BAD_HMAC)
		c->ready = false;
	if (c->host->log != NULL) {
		snprintf(text, sizeof(text), "a command failed with 0x%x", rc);
		c->host->log(c->host->arg, LOG_DEBUG, text);
	}
	switch (t2_rc_base(rc)) {
	case TPM2_RC_SCHEME:
	case TPM2_RC_HASH:
	case TPM2_RC_CURVE:
	case TPM2_RC_ASYMMETRIC:
	case TPM2_RC_COMMAND_CODE:
		return CSM_EUNSUPPORTED;
	case TPM2_RC_INTEGRITY:
	case T2_RC_FOREIGN:
		return CSM_ETAMPERED;
	case TPM2_RC_NV_RATE:
		return CSM_EBUSY;
	default:
		return CSM_EBACKEND;
	}
}

/* The TPM cannot be made ready: whatever it said, it is away, and may be back. */
static int not_ready(struct csm_plugin_ctx *c, TSS2_RC rc)
{
	if (classify(rc) != FAULT_FINAL)
		return fail(c, rc);
	t2_reason(c, "the TPM answers with code 0x%x", rc);
	c->refused_ms = t2_now_ms();
	return CSM_EUNAVAILABLE;
}

int t2_ready(struct csm_plugin_ctx *c, int wait_ms)
{
	unsigned seen = 0;
	enum fault f;
	TSS2_RC rc;
	int r;

	if (c->ready)
		return 0;
	if (c->refused_ms != 0 && t2_now_ms() - c->refused_ms < T2_REFUSED_MS)
		return CSM_EUNAVAILABLE;
	/* One call has waited in vain already; those behind it in the queue look once only. */
	if (c->away_ms != 0 && t2_now_ms() - c->away_ms < T2_REFUSED_MS)
		wait_ms = 0;
	for (;;) {
		if ((r = rebuild(c, wait_ms, &rc)) != 0) {
			c->refused_ms = t2_now_ms();
			return r;
		}
		if (rc == TSS2_RC_SUCCESS)
			break;
		mark(c, rc);
		f = classify(rc);
		if (f == FAULT_TRANSPORT)
			c->away_ms = t2_now_ms();
		if (f == FAULT_FINAL || f == FAULT_TRANSPORT || (seen & f) != 0)
			return not_ready(c, rc);
		if (f == FAULT_SLOTS)
			(void)t2_evict_all(c);
		seen |= f;
	}
	c->refused_ms = c->away_ms = 0;
	c->reason[0] = '\0';
	c->ready = true;
	return 0;
}

/* Refused again with what is ours beyond doubt: the key has an authorisation of its own, as one that was stored before
 * imports were tried may. Nothing is amiss but the key, so nothing is given up. */
static bool is_keys_own(struct csm_plugin_ctx *c, TSS2_RC rc)
{
	bool all = false, ours = false;

	return c->key_used && is_auth_refused(rc) && look_at_hot(c, &all) == TSS2_RC_SUCCESS && all &&
		look_at_session(c, &ours) == TSS2_RC_SUCCESS && ours;
}

int t2_run(struct csm_plugin_ctx *c, t2_step step, void *arg)
{
	unsigned seen = 0;
	enum fault f;
	TSS2_RC rc;
	int r;

	for (;;) {
		if ((r = t2_ready(c, T2_RECONNECT_MS)) != 0)
			break;
		c->key_used = false;
		rc = step(c, arg);
		if (rc == TSS2_RC_SUCCESS)
			break;
		if ((seen & FAULT_AUTH) != 0 && is_keys_own(c, rc)) {
			r = CSM_EUNSUPPORTED;
			break;
		}
		mark(c, rc);
		f = classify(rc);
		if (f == FAULT_FINAL || (seen & f) != 0 || (f == FAULT_SLOTS && c->nhot == 0)) {
			r = fail(c, rc);
			break;
		}
		if (f == FAULT_SLOTS)
			(void)t2_evict_all(c);
		seen |= f;
	}
	t2_tcti_release(&c->tcti, T2_HOLD_MS);
	return r;
}
