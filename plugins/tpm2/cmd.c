/* One command at a time through SAPI, and the commands that several files use. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/crypto.h>
#include <tss2/tss2_mu.h>
#include "libclient/base/lockmem.h"

TSS2_RC t2_sys_init(struct csm_plugin_ctx *c)
{
	TSS2_ABI_VERSION abi = TSS2_ABI_VERSION_CURRENT;

	if (c->sys == NULL) {
		c->sys_size = Tss2_Sys_GetContextSize(T2_WIRE_MAX);
		if ((c->sys = csm_lock_alloc(c->sys_size)) == NULL)
			return TSS2_BASE_RC_MEMORY;
		memset(c->sys, 0, c->sys_size);
	}
	return Tss2_Sys_Initialize(c->sys, c->sys_size, (TSS2_TCTI_CONTEXT *)&c->tcti, &abi);
}

void t2_sys_wipe(struct csm_plugin_ctx *c)
{
	OPENSSL_cleanse(c->sys, c->sys_size);
	(void)t2_sys_init(c); /* cannot fail: memory, TCTI and version were good before */
}

bool t2_rc_is_transport(TSS2_RC rc)
{
	return (rc & TSS2_RC_LAYER_MASK) == TSS2_TCTI_RC_LAYER;
}

TSS2_RC t2_exec(struct csm_plugin_ctx *c, const struct t2_auth *a, int timeout_ms)
{
	TPM2B_NONCE caller;
	TSS2_RC rc;

	if (a != NULL && (rc = t2_session_apply(c, a, &caller)) != TSS2_RC_SUCCESS)
		return rc;
	if ((rc = Tss2_Sys_ExecuteAsync(c->sys)) == TSS2_RC_SUCCESS &&
		(rc = Tss2_Sys_ExecuteFinish(c->sys, timeout_ms)) == TSS2_RC_SUCCESS && a != NULL)
		rc = t2_session_check(c, a, &caller);
	/* A resource manager says the TPM's own codes in layers of its own. */
	if ((rc & TSS2_RC_LAYER_MASK) == TSS2_RESMGR_RC_LAYER || (rc & TSS2_RC_LAYER_MASK) == TSS2_RESMGR_TPM_RC_LAYER)
		rc &= 0xfff;
	if (rc == T2_RC_BAD_HMAC)
		t2_tcti_drop(&c->tcti);
	/* After a command without its answer SAPI takes no other one. */
	if (rc == T2_RC_BAD_HMAC || t2_rc_is_transport(rc))
		t2_sys_wipe(c);
	return rc;
}

TSS2_RC t2_cmd_startup(struct csm_plugin_ctx *c)
{
	TSS2_RC rc = Tss2_Sys_Startup_Prepare(c->sys, TPM2_SU_CLEAR);

	return rc != TSS2_RC_SUCCESS ? rc : t2_exec(c, NULL, T2_TIMEOUT_MS);
}

TSS2_RC t2_cmd_shutdown(struct csm_plugin_ctx *c)
{
	TSS2_RC rc = Tss2_Sys_Shutdown_Prepare(c->sys, TPM2_SU_CLEAR);

	return rc != TSS2_RC_SUCCESS ? rc : t2_exec(c, NULL, T2_TIMEOUT_MS);
}

TSS2_RC t2_cmd_flush(struct csm_plugin_ctx *c, TPM2_HANDLE h)
{
	TSS2_RC rc = Tss2_Sys_FlushContext_Prepare(c->sys, h);

	return rc != TSS2_RC_SUCCESS ? rc : t2_exec(c, NULL, T2_TIMEOUT_MS);
}

TSS2_RC t2_cmd_clock(struct csm_plugin_ctx *c, struct t2_boot *ret)
{
	TPMS_TIME_INFO info = {0};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_ReadClock_Prepare(c->sys)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_PROBE_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_ReadClock_Complete(c->sys, &info)) != TSS2_RC_SUCCESS)
		return rc;
	*ret = (struct t2_boot){true, info.clockInfo.resetCount, info.clockInfo.restartCount, info.time};
	return TSS2_RC_SUCCESS;
}

int t2_name_of(struct csm_plugin_ctx *c, const TPMT_PUBLIC *pub, TPM2B_NAME *ret)
{
	uint8_t buf[sizeof(TPMT_PUBLIC)];
	size_t len = 0;

	if (pub->nameAlg != TPM2_ALG_SHA256)
		return csm_tpm_name(pub, ret);
	if (Tss2_MU_TPMT_PUBLIC_Marshal(pub, buf, sizeof(buf), &len) != TSS2_RC_SUCCESS)
		return CSM_EINVALID;
	struct t2_part part = {buf, len};

	ret->name[0] = TPM2_ALG_SHA256 >> 8;
	ret->name[1] = TPM2_ALG_SHA256 & 0xff;
	if (t2_hash(&c->crypt, &part, 1, ret->name + 2) != 0)
		return CSM_EBACKEND;
	ret->size = 2 + T2_HASH_LEN;
	return 0;
}

bool t2_name_equal(const TPM2B_NAME *a, const TPM2B_NAME *b)
{
	return a->size == b->size && memcmp(a->name, b->name, a->size) == 0;
}

struct t2_part t2_name_part(const TPM2B_NAME *n)
{
	return (struct t2_part){n->name, n->size};
}

TSS2_RC t2_cmd_read_public(struct csm_plugin_ctx *c, TPM2_HANDLE h, TPMT_PUBLIC *pub, TPM2B_NAME *name, TPM2B_NAME *qn)
{
	TPM2B_PUBLIC out = {0};
	TPM2B_NAME told = {0}, qualified = {0};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_ReadPublic_Prepare(c->sys, h)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_ReadPublic_Complete(c->sys, &out, &told, &qualified)) != TSS2_RC_SUCCESS)
		return rc;
	/* Another nameAlg than ours: then the TPM's word must do, and no key of ours has such a Name. */
	if (t2_name_of(c, &out.publicArea, name) != 0)
		*name = told;
	*pub = out.publicArea;
	if (qn != NULL)
		*qn = qualified;
	return TSS2_RC_SUCCESS;
}

TSS2_RC t2_cmd_capability(struct csm_plugin_ctx *c, TPM2_CAP cap, UINT32 first, UINT32 count, TPMS_CAPABILITY_DATA *ret)
{
	TPMI_YES_NO more = 0;
	TSS2_RC rc;

	memset(ret, 0, sizeof(*ret));
	if ((rc = Tss2_Sys_GetCapability_Prepare(c->sys, cap, first, count)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_GetCapability_Complete(c->sys, &more, ret)) != TSS2_RC_SUCCESS)
		return rc;
	return ret->capability == cap ? TSS2_RC_SUCCESS : T2_RC_BAD_ANSWER;
}

TSS2_RC t2_cmd_create_primary(struct csm_plugin_ctx *c, const struct t2_auth *a, TPMI_RH_HIERARCHY hierarchy,
	const TPMT_PUBLIC *template, TPM2_HANDLE *handle, TPMT_PUBLIC *pub, TPM2B_NAME *name)
{
	/* Before there is any key to salt to, only the NULL hierarchy is used, whose authValue is empty. */
	static const TSS2L_SYS_AUTH_COMMAND empty_password = {1, {{.sessionHandle = TPM2_RH_PW}}};
	TPM2B_SENSITIVE_CREATE sens = {.size = 4};
	TPM2B_PUBLIC in = {.publicArea = *template}, out = {0};
	TPM2B_DATA outside = {0};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_CREATION_DATA data = {0};
	TPM2B_DIGEST hash = {0};
	TPMT_TK_CREATION ticket = {0};
	TPM2B_NAME told = {0};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_CreatePrimary_Prepare(c->sys, hierarchy, &sens, &in, &outside, &pcr)) != TSS2_RC_SUCCESS ||
		(a == NULL && (rc = Tss2_Sys_SetCmdAuths(c->sys, &empty_password)) != TSS2_RC_SUCCESS) ||
		(rc = t2_exec(c, a, T2_TIMEOUT_KEYGEN_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_CreatePrimary_Complete(c->sys, handle, &out, &data, &hash, &ticket, &told)) !=
			TSS2_RC_SUCCESS)
		return rc;
	if (t2_name_of(c, &out.publicArea, name) != 0 || !t2_name_equal(name, &told)) {
		(void)t2_cmd_flush(c, *handle);
		return T2_RC_FOREIGN;
	}
	*pub = out.publicArea;
	return TSS2_RC_SUCCESS;
}

TSS2_RC t2_cmd_create(struct csm_plugin_ctx *c, const TPMT_PUBLIC *template, const TPM2B_SENSITIVE_DATA *data,
	TPM2B_PUBLIC *pub, TPM2B_PRIVATE *priv)
{
	struct t2_auth a = {.names = {t2_name_part(&c->srk.name)}, .nnames = 1, .flags = TPMA_SESSION_DECRYPT};
	TPM2B_SENSITIVE_CREATE sens = {.size = 4};
	TPM2B_PUBLIC in = {.publicArea = *template};
	TPM2B_DATA outside = {0};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_CREATION_DATA creation = {0};
	TPM2B_DIGEST hash = {0};
	TPMT_TK_CREATION ticket = {0};
	TSS2_RC rc;

	if ((rc = t2_room(c, 1, true)) != TSS2_RC_SUCCESS)
		return rc;
	if (data != NULL)
		sens.sensitive.data = *data;
	memset(priv, 0, sizeof(*priv));
	memset(pub, 0, sizeof(*pub));
	if ((rc = Tss2_Sys_Create_Prepare(c->sys, c->srk.handle, &sens, &in, &outside, &pcr)) == TSS2_RC_SUCCESS &&
		(rc = t2_exec(c, &a, T2_TIMEOUT_KEYGEN_MS)) == TSS2_RC_SUCCESS)
		rc = Tss2_Sys_Create_Complete(c->sys, priv, pub, &creation, &hash, &ticket);
	OPENSSL_cleanse(&sens, sizeof(sens));
	return rc;
}

TSS2_RC t2_cmd_load(struct csm_plugin_ctx *c, const TPM2B_PUBLIC *pub, const TPM2B_PRIVATE *priv,
	const TPM2B_NAME *name, TPM2_HANDLE *ret)
{
	struct t2_auth a = {.names = {t2_name_part(&c->srk.name)}, .nnames = 1};
	TPM2B_NAME told = {0};
	TPM2_HANDLE h = 0;
	TSS2_RC rc;

	if ((rc = t2_room(c, 1, true)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_Load_Prepare(c->sys, c->srk.handle, priv, pub)) != TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_Load_Complete(c->sys, &h, &told)) != TSS2_RC_SUCCESS)
		return rc;
	if (!t2_name_equal(name, &told)) {
		(void)t2_cmd_flush(c, h);
		return T2_RC_FOREIGN;
	}
	*ret = h;
	return TSS2_RC_SUCCESS;
}
