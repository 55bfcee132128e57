/* The counter that only grows: an NV index of type COUNTER, without dictionary attack protection, whose
 * authValue is random and remembered by the host. The owner of the TPM can remove it; an index made anew
 * goes on above all that ever were. Each store has an index of its own: a second store on the same TPM
 * takes the next free one, and never counts for the first. */
#include "plugins/tpm2/tpm2.h"
#include "libclient/base/lockmem.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <tss2/tss2_mu.h>

#define AUTH_NAME "tpm2.nvauth"
#define AUTH_LEN 32u
#define RECORD_LEN (AUTH_LEN + 4u) /* authValue, index (big endian) */
#define NV_ATTRIBUTES \
	(TPM2_NT_COUNTER << TPMA_NV_TPM2_NT_SHIFT | TPMA_NV_AUTHREAD | TPMA_NV_AUTHWRITE | TPMA_NV_OWNERREAD | \
		TPMA_NV_NO_DA)

struct free_arg {
	TPMI_RH_NV_INDEX index; /* 0: none is free */
};

static TSS2_RC free_step(struct csm_plugin_ctx *c, void *arg)
{
	struct free_arg *a = arg;

	a->index = 0;
	for (unsigned i = 0; i < c->nv_choices; i++) {
		TSS2_RC rc = Tss2_Sys_NV_ReadPublic_Prepare(c->sys, c->nv_index + i);

		if (rc == TSS2_RC_SUCCESS)
			rc = t2_exec(c, NULL, T2_TIMEOUT_MS);
		if (t2_rc_base(rc) == TPM2_RC_HANDLE) {
			a->index = c->nv_index + i;
			return TSS2_RC_SUCCESS;
		}
		if (rc != TSS2_RC_SUCCESS)
			return rc;
	}
	return TSS2_RC_SUCCESS;
}

/* A store without a counter gets a free index and a new authValue. Both are remembered before the index is
 * made: a crash in between leaves nothing that we cannot use. */
static int choose(struct csm_plugin_ctx *c, uint8_t record[static RECORD_LEN])
{
	struct free_arg a = {0};
	int r;

	if ((r = t2_run(c, free_step, &a)) != 0)
		return r;
	if (a.index == 0) {
		t2_reason(c, "no NV index is free for the counter: other stores have them all");
		return CSM_EUNAVAILABLE;
	}
	if (RAND_bytes(record, AUTH_LEN) != 1)
		return CSM_EBACKEND;
	record[AUTH_LEN - 1] |= 1; /* trailing zeros would not count */
	for (unsigned i = 0; i < 4; i++)
		record[AUTH_LEN + i] = (uint8_t)(a.index >> (24 - 8 * i));
	return c->host->remember(c->host->arg, AUTH_NAME, record, RECORD_LEN);
}

static int auth_get(struct csm_plugin_ctx *c)
{
	const struct csm_plugin_host *h = c->host;
	CSM_WIPED(record, RECORD_LEN);
	size_t len = RECORD_LEN;
	uint32_t index = 0;
	int r;

	if (c->nv_auth_known)
		return 0;
	c->nv_auth.size = 0;
	if (h->recall != NULL && h->remember != NULL) {
		if ((r = h->recall(h->arg, AUTH_NAME, record, &len)) == CSM_ENOT_FOUND) {
			if ((r = choose(c, record)) == CSM_EUNAVAILABLE)
				return r;
			len = RECORD_LEN;
		}
		for (unsigned i = 0; i < 4; i++)
			index = index << 8 | record[AUTH_LEN + i];
		if (r != 0 || len != RECORD_LEN || index >> TPM2_HR_SHIFT != TPM2_HT_NV_INDEX) {
			t2_reason(c, "the counter's authorisation value cannot be kept");
			return CSM_EUNAVAILABLE;
		}
		memcpy(c->nv_auth.buffer, record, AUTH_LEN);
		c->nv_auth.size = AUTH_LEN;
		c->nv_index = index;
	}
	c->nv_auth_known = true;
	return 0;
}

static TSS2_RC nv_name(struct csm_plugin_ctx *c, TPM2B_NAME *name, TPMA_NV *attrs)
{
	TPM2B_NV_PUBLIC pub = {0};
	TPM2B_NAME told = {0};
	uint8_t buf[sizeof(TPMS_NV_PUBLIC)];
	size_t len = 0;
	TSS2_RC rc;

	if ((rc = Tss2_Sys_NV_ReadPublic_Prepare(c->sys, c->nv_index)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_NV_ReadPublic_Complete(c->sys, &pub, &told)) != TSS2_RC_SUCCESS)
		return rc;
	*attrs = pub.nvPublic.attributes;
	if (pub.nvPublic.nvIndex != c->nv_index || pub.nvPublic.nameAlg != TPM2_ALG_SHA256 ||
		(*attrs & ~(TPMA_NV)TPMA_NV_WRITTEN) != NV_ATTRIBUTES || pub.nvPublic.dataSize != 8)
		return T2_RC_FOREIGN;
	if (Tss2_MU_TPMS_NV_PUBLIC_Marshal(&pub.nvPublic, buf, sizeof(buf), &len) != TSS2_RC_SUCCESS)
		return T2_RC_BAD_ANSWER;
	struct t2_part part = {buf, len};

	name->size = 2 + T2_HASH_LEN;
	name->name[0] = TPM2_ALG_SHA256 >> 8;
	name->name[1] = TPM2_ALG_SHA256 & 0xff;
	return t2_hash(&c->crypt, &part, 1, name->name + 2) == 0 ? TSS2_RC_SUCCESS : T2_RC_CRYPTO;
}

static TSS2_RC nv_define(struct csm_plugin_ctx *c)
{
	static const uint8_t owner[4] = {0x40, 0, 0, 1};
	struct t2_auth a = {.names = {{owner, 4}}, .nnames = 1, .auth = &c->owner_auth, .flags = TPMA_SESSION_DECRYPT};
	TPM2B_NV_PUBLIC pub = {.nvPublic = {.nvIndex = c->nv_index,
				       .nameAlg = TPM2_ALG_SHA256,
				       .attributes = NV_ATTRIBUTES,
				       .dataSize = 8}};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_NV_DefineSpace_Prepare(c->sys, TPM2_RH_OWNER, &c->nv_auth, &pub)) == TSS2_RC_SUCCESS)
		rc = t2_exec(c, &a, T2_TIMEOUT_MS);
	return rc;
}

static TSS2_RC nv_increment(struct csm_plugin_ctx *c, const TPM2B_NAME *name)
{
	struct t2_auth a = {.names = {t2_name_part(name), t2_name_part(name)}, .nnames = 2, .auth = &c->nv_auth};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_NV_Increment_Prepare(c->sys, c->nv_index, c->nv_index)) == TSS2_RC_SUCCESS)
		rc = t2_exec(c, &a, T2_TIMEOUT_MS);
	return rc;
}

static TSS2_RC nv_read(struct csm_plugin_ctx *c, const TPM2B_NAME *name, uint64_t *ret)
{
	struct t2_auth a = {.names = {t2_name_part(name), t2_name_part(name)}, .nnames = 2, .auth = &c->nv_auth};
	TPM2B_MAX_NV_BUFFER buf = {0};
	uint64_t v = 0;
	TSS2_RC rc;

	if ((rc = Tss2_Sys_NV_Read_Prepare(c->sys, c->nv_index, c->nv_index, 8, 0)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_NV_Read_Complete(c->sys, &buf)) != TSS2_RC_SUCCESS)
		return rc;
	if (buf.size != 8)
		return T2_RC_BAD_ANSWER;
	for (unsigned i = 0; i < 8; i++)
		v = v << 8 | buf.buffer[i];
	*ret = v;
	return TSS2_RC_SUCCESS;
}

struct counter_arg {
	bool increment;
	bool began;      /* base is the value before the increment that was asked for */
	uint64_t base;
	uint64_t value;
	int r;
};

/* The index as it should be and its value; made, and brought to its first value, where it is missing. */
static TSS2_RC counter_value(struct csm_plugin_ctx *c, struct counter_arg *a, TPM2B_NAME *name, uint64_t *ret)
{
	TPMA_NV attrs = 0;
	TSS2_RC rc;

	rc = nv_name(c, name, &attrs);
	if (t2_rc_base(rc) == TPM2_RC_HANDLE) {
		rc = nv_define(c);
		if (t2_rc_base(rc) == TPM2_RC_BAD_AUTH || t2_rc_base(rc) == TPM2_RC_HIERARCHY) {
			a->r = CSM_EUNSUPPORTED; /* only the owner can make it */
			return TSS2_RC_SUCCESS;
		}
		if (rc == TSS2_RC_SUCCESS)
			rc = nv_name(c, name, &attrs);
	}
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	if ((attrs & TPMA_NV_WRITTEN) == 0 &&
		((rc = nv_increment(c, name)) != TSS2_RC_SUCCESS || (rc = nv_name(c, name, &attrs)) != TSS2_RC_SUCCESS))
		return rc;
	return nv_read(c, name, ret);
}

static TSS2_RC counter_step(struct csm_plugin_ctx *c, void *arg)
{
	struct counter_arg *a = arg;
	TPM2B_NAME name = {0};
	uint64_t v = 0;
	TSS2_RC rc;

	a->r = 0;
	if ((rc = counter_value(c, a, &name, &v)) != TSS2_RC_SUCCESS || a->r != 0)
		return rc;
	if (a->increment) {
		if (!a->began)
			a->base = v;
		a->began = true;
		/* A repeat after a lost answer: the first one may have counted. */
		if (v == a->base && ((rc = nv_increment(c, &name)) != TSS2_RC_SUCCESS ||
				     (rc = nv_read(c, &name, &v)) != TSS2_RC_SUCCESS))
			return rc;
	}
	a->value = v;
	return TSS2_RC_SUCCESS;
}

static int counter(struct csm_plugin_ctx *c, bool increment, uint64_t *ret)
{
	struct counter_arg a = {.increment = increment};
	int r;

	if ((r = auth_get(c)) != 0 || (r = t2_run(c, counter_step, &a)) != 0 || (r = a.r) != 0)
		return r;
	*ret = a.value;
	return 0;
}

int t2_counter_read(struct csm_plugin_ctx *c, uint64_t *ret)
{
	return counter(c, false, ret);
}

int t2_counter_increment(struct csm_plugin_ctx *c, uint64_t *ret)
{
	return counter(c, true, ret);
}

int t2_counter_forget(struct csm_plugin_ctx *c)
{
	OPENSSL_cleanse(&c->nv_auth, sizeof(c->nv_auth));
	c->nv_auth_known = false;
	c->nv_index = c->nv_first;
	return c->host->remember != NULL ? c->host->remember(c->host->arg, AUTH_NAME, NULL, 0) : 0;
}
