/* Keys in the TPM's few slots: the last used stay. A key is loaded from its blobs once in a life of the
 * TPM and its context saved at once; after that it comes and goes by ContextLoad and FlushContext.
 *
 * The rule of the slots: objects loaded + the persistent parent if the command names it + the new
 * object <= slots. */
#include "plugins/tpm2/tpm2.h"

#include <stdlib.h>
#include <string.h>

static size_t hot_index(const struct csm_plugin_ctx *c, const struct csm_plugin_key *k)
{
	size_t i = 0;

	while (i < c->nhot && c->hot[i] != k)
		i++;
	return i;
}

void t2_key_drop(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	size_t i = hot_index(c, k);

	k->handle = 0;
	if (i == c->nhot)
		return;
	c->nhot--;
	for (; i < c->nhot; i++)
		c->hot[i] = c->hot[i + 1];
}

TSS2_RC t2_key_flush(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	TSS2_RC rc;

	if (k->handle == 0)
		return TSS2_RC_SUCCESS;
	rc = t2_cmd_flush(c, k->handle);
	/* On a lost answer it may still be there: recovery looks for it. Any word of the TPM means it is not. */
	t2_key_drop(c, k);
	return t2_rc_is_transport(rc) || rc == TPM2_RC_INITIALIZE ? rc : TSS2_RC_SUCCESS;
}

TSS2_RC t2_evict_all(struct csm_plugin_ctx *c)
{
	TSS2_RC rc = TSS2_RC_SUCCESS;

	while (c->nhot > 0 && rc == TSS2_RC_SUCCESS)
		rc = t2_key_flush(c, c->hot[c->nhot - 1]);
	return rc;
}

TSS2_RC t2_room(struct csm_plugin_ctx *c, unsigned n, bool names_parent)
{
	TSS2_RC rc = TSS2_RC_SUCCESS;
	size_t others = n, limit;

	if (c->loose != 0) {
		rc = t2_cmd_flush(c, c->loose);
		c->loose = 0;
		if (t2_rc_is_transport(rc))
			return rc;
		rc = TSS2_RC_SUCCESS;
	}
	if (c->srk.endorsement)
		others += c->srk.handle != 0;
	else
		others += names_parent;
	limit = c->props.slots > others ? c->props.slots - others : 0;
	/* A resource manager swaps all that we hold at each command: hold one. */
	if (c->shared && n > 0 && limit > c->two)
		limit = c->two;
	while (c->nhot > limit && rc == TSS2_RC_SUCCESS)
		rc = t2_key_flush(c, c->hot[c->nhot - 1]);
	return rc;
}

/* Free the first place; what was at place n is overwritten. */
static void move_down(struct csm_plugin_ctx *c, size_t n)
{
	for (; n > 0; n--)
		c->hot[n] = c->hot[n - 1];
}

static void hot_add(struct csm_plugin_ctx *c, struct csm_plugin_key *k, TPM2_HANDLE h)
{
	/* t2_room keeps nhot below the slots, which are at most T2_SLOTS_MAX. */
	move_down(c, c->nhot++);
	c->hot[0] = k;
	c->key_used = true;
	k->handle = h;
}

static void hot_touch(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	move_down(c, hot_index(c, k));
	c->hot[0] = k;
	c->key_used = true;
}

static TSS2_RC context_load(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	TPM2_HANDLE h = 0;
	TSS2_RC rc;

	if ((rc = t2_room(c, 1, false)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_ContextLoad_Prepare(c->sys, k->saved)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_ContextLoad_Complete(c->sys, &h)) != TSS2_RC_SUCCESS)
		return rc;
	hot_add(c, k, h);
	return TSS2_RC_SUCCESS;
}

/* Without a saved context the key is loaded from its blobs each time: slower, else the same. */
static TSS2_RC context_save(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	TPMS_CONTEXT *saved = calloc(1, sizeof(*saved));
	TSS2_RC rc;

	if (saved == NULL)
		return TSS2_RC_SUCCESS;
	if ((rc = Tss2_Sys_ContextSave_Prepare(c->sys, k->handle)) == TSS2_RC_SUCCESS &&
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) == TSS2_RC_SUCCESS)
		rc = Tss2_Sys_ContextSave_Complete(c->sys, saved);
	if (rc == TSS2_RC_SUCCESS) {
		free(k->saved);
		k->saved = saved;
		k->saved_life = c->life;
	} else
		free(saved);
	return t2_rc_is_transport(rc) ? rc : TSS2_RC_SUCCESS;
}

static TSS2_RC load(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	TPM2B_PUBLIC pub = {.publicArea = k->pub};
	TPM2_HANDLE h = 0;
	TSS2_RC rc;

	if ((rc = t2_cmd_load(c, &pub, k->priv, &k->name, &h)) != TSS2_RC_SUCCESS)
		return rc;
	hot_add(c, k, h);
	return context_save(c, k);
}

TSS2_RC t2_key_use(struct csm_plugin_ctx *c, struct csm_plugin_key *k)
{
	TSS2_RC rc;

	if (k->handle != 0) {
		hot_touch(c, k);
		return TSS2_RC_SUCCESS;
	}
	if (k->saved != NULL && k->saved_life == c->life) {
		rc = context_load(c, k);
		/* Format-one codes: the TPM does not take this context (any more). */
		if (rc == TSS2_RC_SUCCESS || (rc & ~(TSS2_RC)0xfff) != 0 || (rc & TPM2_RC_FMT1) == 0)
			return rc;
		free(k->saved);
		k->saved = NULL;
	}
	return load(c, k);
}
