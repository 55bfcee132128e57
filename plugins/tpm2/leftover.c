/* What lies in the TPM and is in nobody's hands: after a lost answer, or after a process of ours died.
 * On a TPM that we share, only what is proven ours is flushed: an object by its qualified Name, which
 * contains its parent's, a session because its handle was remembered in this life of the TPM. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <syslog.h>

#define NOTE_NAME "tpm2.session"
#define NOTE_LEN 16u /* session, resets, restarts, the session beside it */
/* As every key of ours has them (key.c, seal.c). */
#define OUR_ATTRIBUTES (TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA)

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

/* The qualified Name of a child: H(qualified Name of the parent | Name). */
static int qualify(struct csm_plugin_ctx *c, struct t2_part parent, const TPM2B_NAME *name, TPM2B_NAME *ret)
{
	struct t2_part parts[] = {parent, t2_name_part(name)};

	ret->size = 2 + T2_HASH_LEN;
	ret->name[0] = TPM2_ALG_SHA256 >> 8;
	ret->name[1] = TPM2_ALG_SHA256 & 0xff;
	return t2_hash(&c->crypt, parts, 2, ret->name + 2);
}

static bool is_ours(struct csm_plugin_ctx *c, const TPMT_PUBLIC *pub, const TPM2B_NAME *name, const TPM2B_NAME *told)
{
	const uint8_t hierarchy[4] = {0x40, 0, 0, c->srk.endorsement ? 0x0b : 0x01};
	TPM2B_NAME srk, child;

	if (qualify(c, (struct t2_part){hierarchy, 4}, &c->srk.name, &srk) != 0)
		return false;
	if (c->srk.endorsement && t2_name_equal(told, &srk))
		return true;
	if (qualify(c, t2_name_part(&srk), name, &child) != 0 || !t2_name_equal(told, &child))
		return false;
	/* Restricted keys beside ours are others', but for the one that makes statements. */
	if (c->ak != NULL && t2_name_equal(name, &c->ak->name))
		return true;
	/* A root key under a policy is the one thing of ours that no authValue opens. */
	if (pub->type != TPM2_ALG_KEYEDHASH && (pub->objectAttributes & TPMA_OBJECT_USERWITHAUTH) == 0)
		return false;
	return (pub->objectAttributes & (OUR_ATTRIBUTES | TPMA_OBJECT_RESTRICTED)) == OUR_ATTRIBUTES;
}

static bool is_held(const struct csm_plugin_ctx *c, TPM2_HANDLE h)
{
	if (h == c->srk.handle || h == c->loose)
		return true;
	for (size_t i = 0; i < c->nhot; i++)
		if (c->hot[i]->handle == h)
			return true;
	return false;
}

TSS2_RC t2_orphans(struct csm_plugin_ctx *c)
{
	TPMS_CAPABILITY_DATA cap;
	TPM2B_NAME name, qn;
	TPMT_PUBLIC pub;
	TSS2_RC rc;

	if (!c->srk.pinned || c->shared)
		return TSS2_RC_SUCCESS;
	t2_ak_recall(c);
	if ((rc = t2_cmd_capability(c, TPM2_CAP_HANDLES, T2_TRANSIENT_FIRST, T2_SLOTS_MAX, &cap)) != TSS2_RC_SUCCESS)
		return rc;
	for (UINT32 i = 0; i < cap.data.handles.count && i < T2_SLOTS_MAX; i++) {
		TPM2_HANDLE h = cap.data.handles.handle[i];

		if (is_held(c, h))
			continue;
		rc = t2_cmd_read_public(c, h, &pub, &name, &qn);
		if (rc == TSS2_RC_SUCCESS && (is_ours(c, &pub, &name, &qn) ||
						    (c->external.size > 0 && t2_name_equal(&name, &c->external))))
			rc = t2_cmd_flush(c, h);
		if (t2_rc_is_transport(rc))
			return rc;
	}
	c->external.size = 0;
	return TSS2_RC_SUCCESS;
}

/* /dev/tpm0 has one owner at a time: whatever is in there is a leftover. */
static TSS2_RC flush_all(struct csm_plugin_ctx *c)
{
	static const TPM2_HANDLE first[] = {T2_TRANSIENT_FIRST, T2_LOADED_SESSIONS, T2_SAVED_SESSIONS};
	TPMS_CAPABILITY_DATA cap;
	TSS2_RC rc;

	for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
		if ((rc = t2_cmd_capability(c, TPM2_CAP_HANDLES, first[i], TPM2_MAX_CAP_HANDLES, &cap)) != TSS2_RC_SUCCESS)
			return rc;
		for (UINT32 j = 0; j < cap.data.handles.count && j < TPM2_MAX_CAP_HANDLES; j++)
			if (t2_rc_is_transport(rc = t2_cmd_flush(c, cap.data.handles.handle[j])))
				return rc;
	}
	return TSS2_RC_SUCCESS;
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static TSS2_RC flush_session(struct csm_plugin_ctx *c, TPM2_HANDLE h)
{
	TPM2_HT type = (TPM2_HT)(h >> TPM2_HR_SHIFT);

	return type == TPM2_HT_HMAC_SESSION || type == TPM2_HT_POLICY_SESSION ? t2_cmd_flush(c, h) : TSS2_RC_SUCCESS;
}

TSS2_RC t2_leftovers(struct csm_plugin_ctx *c)
{
	uint8_t note[NOTE_LEN], now[NOTE_LEN];
	size_t len = sizeof(note);
	TSS2_RC rc;

	if (!c->tcti.stream)
		return c->shared ? TSS2_RC_SUCCESS : flush_all(c);
	if (c->host->recall == NULL || c->host->recall(c->host->arg, NOTE_NAME, note, &len) != 0 || len != NOTE_LEN)
		return TSS2_RC_SUCCESS;
	put_be32(now + 4, c->boot.reset_count);
	put_be32(now + 8, c->boot.restart_count);
	if (memcmp(note + 4, now + 4, 8) != 0)
		return TSS2_RC_SUCCESS;
	if (t2_rc_is_transport(rc = flush_session(c, get_be32(note))) ||
		t2_rc_is_transport(rc = flush_session(c, get_be32(note + 12))))
		return rc;
	return t2_orphans(c);
}

void t2_note_session(struct csm_plugin_ctx *c)
{
	uint8_t note[NOTE_LEN];

	if (!c->tcti.stream || c->host->remember == NULL)
		return;
	put_be32(note, c->session.handle);
	put_be32(note + 4, c->boot.reset_count);
	put_be32(note + 8, c->boot.restart_count);
	put_be32(note + 12, c->other_session);
	if (c->host->remember(c->host->arg, NOTE_NAME, note,
		    c->session.handle != 0 || c->other_session != 0 ? NOTE_LEN : 0) != 0 &&
		c->host->log != NULL)
		c->host->log(c->host->arg, LOG_INFO, "the session's handle cannot be remembered");
}
