/* What is known of the TPM, and how it is. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>

static uint32_t prop(const TPML_TAGGED_TPM_PROPERTY *list, TPM2_PT name, uint32_t otherwise)
{
	for (UINT32 i = 0; i < list->count && i < TPM2_MAX_TPM_PROPERTIES; i++)
		if (list->tpmProperty[i].property == name)
			return list->tpmProperty[i].value;
	return otherwise;
}

static TSS2_RC read_fixed(struct csm_plugin_ctx *c)
{
	TPMS_CAPABILITY_DATA cap;
	const TPML_TAGGED_TPM_PROPERTY *list = &cap.data.tpmProperties;
	uint32_t id;
	TSS2_RC rc;

	if ((rc = t2_cmd_capability(c, TPM2_CAP_TPM_PROPERTIES, TPM2_PT_FIXED, TPM2_MAX_TPM_PROPERTIES, &cap)) !=
		TSS2_RC_SUCCESS)
		return rc;
	id = prop(list, TPM2_PT_MANUFACTURER, 0);
	memset(c->props.manufacturer, 0, sizeof(c->props.manufacturer));
	for (unsigned i = 0; i < 4; i++) {
		char ch = (char)(id >> (24 - 8 * i));

		c->props.manufacturer[i] = ch >= 0x20 && ch < 0x7f ? ch : '\0';
	}
	c->props.slots = prop(list, TPM2_PT_HR_TRANSIENT_MIN, 3);
	if (c->props.slots < 3)
		c->props.slots = 3;
	if (c->props.slots > T2_SLOTS_MAX)
		c->props.slots = T2_SLOTS_MAX;
	return TSS2_RC_SUCCESS;
}

static TSS2_RC read_curves(struct csm_plugin_ctx *c, uint32_t *algs)
{
	static const struct {
		TPM2_ECC_CURVE curve;
		enum csm_alg alg;
	} map[] = {
		{TPM2_ECC_NIST_P256, CSM_ALG_P256}, {TPM2_ECC_NIST_P384, CSM_ALG_P384}, {TPM2_ECC_NIST_P521, CSM_ALG_P521}};
	TPMS_CAPABILITY_DATA cap;
	TSS2_RC rc;

	rc = t2_cmd_capability(c, TPM2_CAP_ECC_CURVES, 0, TPM2_MAX_ECC_CURVES, &cap);
	if (t2_rc_is_transport(rc) || rc == TPM2_RC_INITIALIZE)
		return rc;
	if (rc != TSS2_RC_SUCCESS) /* a TPM without elliptic curves */
		return TSS2_RC_SUCCESS;
	for (UINT32 i = 0; i < cap.data.eccCurves.count && i < TPM2_MAX_ECC_CURVES; i++)
		for (size_t j = 0; j < sizeof(map) / sizeof(map[0]); j++)
			if (cap.data.eccCurves.eccCurves[i] == map[j].curve)
				*algs |= 1u << map[j].alg;
	return TSS2_RC_SUCCESS;
}

/* Sizes of RSA are asked by TestParms: no capability tells them. */
static TSS2_RC read_rsa(struct csm_plugin_ctx *c, uint16_t bits, enum csm_alg alg, uint32_t *algs)
{
	TPMT_PUBLIC_PARMS parms = {.type = TPM2_ALG_RSA};
	TSS2_RC rc;

	parms.parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
	parms.parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
	parms.parameters.rsaDetail.keyBits = bits;
	if ((rc = Tss2_Sys_TestParms_Prepare(c->sys, &parms)) != TSS2_RC_SUCCESS)
		return rc;
	rc = t2_exec(c, NULL, T2_TIMEOUT_MS);
	if (t2_rc_is_transport(rc) || rc == TPM2_RC_INITIALIZE)
		return rc;
	if (rc == TSS2_RC_SUCCESS)
		*algs |= 1u << alg;
	return TSS2_RC_SUCCESS;
}

TSS2_RC t2_lockout_read(struct csm_plugin_ctx *c)
{
	TPMS_CAPABILITY_DATA cap;
	const TPML_TAGGED_TPM_PROPERTY *list = &cap.data.tpmProperties;
	uint32_t counter = c->props.lockout_counter;
	TSS2_RC rc;

	c->props.read_ms = t2_now_ms();
	if ((rc = t2_cmd_capability(c, TPM2_CAP_TPM_PROPERTIES, TPM2_PT_PERMANENT,
		     TPM2_PT_LOCKOUT_RECOVERY - TPM2_PT_PERMANENT + 1, &cap)) != TSS2_RC_SUCCESS)
		return rc;
	c->props.lockout = (prop(list, TPM2_PT_PERMANENT, 0) & TPMA_PERMANENT_INLOCKOUT) != 0;
	c->props.lockout_counter = prop(list, TPM2_PT_LOCKOUT_COUNTER, 0);
	/* Each failed try, each healed one and each reset of the chip begins the interval anew. */
	if (c->props.lockout_counter != counter || c->props.lockout_life != c->life || c->props.lockout_ms == 0) {
		c->props.lockout_ms = t2_now_ms();
		c->props.lockout_life = c->life;
	}
	c->props.max_auth_fail = prop(list, TPM2_PT_MAX_AUTH_FAIL, 0);
	c->props.lockout_interval = prop(list, TPM2_PT_LOCKOUT_INTERVAL, 0);
	return TSS2_RC_SUCCESS;
}

TSS2_RC t2_props_read(struct csm_plugin_ctx *c)
{
	uint32_t algs = 0;
	TSS2_RC rc;

	if ((rc = read_fixed(c)) != TSS2_RC_SUCCESS || (rc = read_curves(c, &algs)) != TSS2_RC_SUCCESS ||
		(rc = read_rsa(c, 2048, CSM_ALG_RSA2048, &algs)) != TSS2_RC_SUCCESS ||
		(rc = read_rsa(c, 3072, CSM_ALG_RSA3072, &algs)) != TSS2_RC_SUCCESS ||
		(rc = read_rsa(c, 4096, CSM_ALG_RSA4096, &algs)) != TSS2_RC_SUCCESS ||
		(rc = t2_lockout_read(c)) != TSS2_RC_SUCCESS)
		return rc;
	c->props.algs = algs;
	c->props.known = true;
	return TSS2_RC_SUCCESS;
}

/* At most once a second; a TPM that is away is looked for without waiting. */
static void refresh(struct csm_plugin_ctx *c)
{
	uint64_t before = c->tcti.commands;

	if (t2_now_ms() - c->props.read_ms < T2_REFUSED_MS)
		return;
	c->props.read_ms = t2_now_ms();
	if (c->ready && t2_lockout_read(c) != TSS2_RC_SUCCESS)
		c->ready = false;
	if (!c->ready && t2_ready(c, 0) != 0)
		c->props.lockout = false; /* not known now; the reason is told instead */
	t2_tcti_release(&c->tcti, T2_HOLD_MS);
	c->own_commands += c->tcti.commands - before;
}

/* An upper bound: one try is healed in each interval, the first one at most an interval after the counter was seen to
 * change. When within it, the TPM does not tell. */
static uint32_t lockout_seconds(const struct t2_props *p)
{
	uint64_t s, gone = (t2_now_ms() - p->lockout_ms) / 1000;

	if (!p->lockout || p->lockout_counter < p->max_auth_fail)
		return 0;
	s = ((uint64_t)p->lockout_counter - p->max_auth_fail + 1) * p->lockout_interval;
	/* It is not over before the TPM says so. */
	s = s > gone ? s - gone : 1;
	return s > UINT32_MAX ? UINT32_MAX : (uint32_t)s;
}

void t2_health(struct csm_plugin_ctx *c, struct csm_plugin_health *ret)
{
	refresh(c);
	memset(ret, 0, sizeof(*ret));
	ret->usable = c->ready;
	ret->reason = c->ready || c->reason[0] == '\0' ? NULL : c->reason;
	ret->device = c->device;
	memcpy(ret->manufacturer, c->props.manufacturer, sizeof(ret->manufacturer));
	ret->shared = c->shared;
	ret->commands = c->tcti.commands - c->own_commands;
	ret->loaded = (uint32_t)c->nhot + (c->loose != 0);
	ret->slots = c->props.slots;
	ret->lockout = c->props.lockout;
	ret->lockout_counter = c->props.lockout_counter;
	ret->lockout_seconds = lockout_seconds(&c->props);
	ret->resets = c->resets;
	ret->sealed = c->seal_text[0] != '\0' ? c->seal_text : NULL;
	ret->seal_due = c->seal_due;
	ret->other_device = c->other_device && !c->ready;
	ret->seal_refused = c->seal_refused[0] != '\0' ? c->seal_refused : NULL;
}

int t2_capabilities(struct csm_plugin_ctx *c, struct csm_plugin_caps *ret)
{
	int r;

	/* What a TPM can do does not change; one that was never reached has said nothing. */
	if (!c->props.known && (r = t2_ready(c, T2_RECONNECT_MS)) != 0 && c->props.algs == 0)
		return r;
	t2_tcti_release(&c->tcti, T2_HOLD_MS);
	*ret = (struct csm_plugin_caps){
		.algs = c->props.algs, .uses = CSM_USE_SIGN | CSM_USE_DECRYPT | CSM_USE_DERIVE, .protection = "tpm"};
	return 0;
}
