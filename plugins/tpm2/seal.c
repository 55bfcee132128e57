/* Small data bound to this TPM: a KEYEDHASH object under the storage root key, and under the policy that the configuration
 * has (policy.c). Clear text crosses the bus encrypted in both directions. The sealed form is magic, with a policy its
 * stored form, TPM2B_PUBLIC, TPM2B_PRIVATE. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/crypto.h>
#include <tss2/tss2_mu.h>

/* Without userWithAuth nothing but the policy lets it out. */
#define POLICY_ATTRIBUTES (TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA)
#define SEAL_ATTRIBUTES (POLICY_ATTRIBUTES | TPMA_OBJECT_USERWITHAUTH)

static const uint8_t magic[4] = {'C', 'S', 'T', 1}, magic_policy[4] = {'C', 'S', 'T', 2};

struct seal_arg {
	struct t2_policy policy;
	TPM2B_SENSITIVE_DATA data;
	TPM2B_PUBLIC pub;
	TPM2B_PRIVATE priv;
	TPM2B_NAME name;
	bool damaged; /* the blob is not of this TPM, or changed */
	bool refused; /* its policy is not satisfied */
};

static TSS2_RC seal_step(struct csm_plugin_ctx *c, void *arg)
{
	struct seal_arg *s = arg;
	TPMT_PUBLIC t = {.type = TPM2_ALG_KEYEDHASH, .nameAlg = TPM2_ALG_SHA256, .objectAttributes = SEAL_ATTRIBUTES};
	TSS2_RC rc;

	t.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL;
	if (s->policy.kind != T2_POLICY_NONE) {
		t.objectAttributes = POLICY_ATTRIBUTES;
		if ((rc = t2_policy_digest(c, &s->policy, &t.authPolicy)) != TSS2_RC_SUCCESS)
			return rc;
	}
	return t2_cmd_create(c, &t, &s->data, &s->pub, &s->priv);
}

static int put_sealed(const struct seal_arg *s, struct csm_plugin_out *sealed)
{
	bool policy = s->policy.kind != T2_POLICY_NONE;
	size_t off = sizeof(magic);

	if (sealed->cap < off)
		return CSM_ETOO_LARGE;
	memcpy(sealed->p, policy ? magic_policy : magic, sizeof(magic));
	if ((policy && t2_policy_put(&s->policy, sealed->p, sealed->cap, &off) != 0) ||
		Tss2_MU_TPM2B_PUBLIC_Marshal(&s->pub, sealed->p, sealed->cap, &off) != TSS2_RC_SUCCESS ||
		Tss2_MU_TPM2B_PRIVATE_Marshal(&s->priv, sealed->p, sealed->cap, &off) != TSS2_RC_SUCCESS)
		return CSM_ETOO_LARGE;
	sealed->len = off;
	return 0;
}

/* For health: what the blob at hand is under, and whether a new seal would be under something else. */
static void note_policy(struct csm_plugin_ctx *c, const struct t2_policy *p)
{
	char before[sizeof(c->seal_refused)];
	struct t2_policy now;

	memcpy(before, c->seal_refused, sizeof(before));
	t2_policy_text(p, c->seal_text);
	c->seal_due = t2_policy_configured(c, &now) != 0 || !t2_policy_equal(p, &now);
	memcpy(c->seal_refused, before, sizeof(before));
}

int t2_seal(struct csm_plugin_ctx *c, const uint8_t *in, size_t in_len, struct csm_plugin_out *sealed)
{
	struct seal_arg s = {.refused = false};
	int r;

	if (in_len == 0 || in_len > T2_SEAL_MAX)
		return CSM_ETOO_LARGE;
	if ((r = t2_policy_configured(c, &s.policy)) != 0)
		return r;
	s.data.size = (UINT16)in_len;
	memcpy(s.data.buffer, in, in_len);
	r = t2_run(c, seal_step, &s);
	t2_sys_wipe(c);
	OPENSSL_cleanse(&s.data, sizeof(s.data));
	if (r != 0 || (r = put_sealed(&s, sealed)) != 0)
		return r;
	note_policy(c, &s.policy);
	return 0;
}

static TSS2_RC unseal_loaded(struct csm_plugin_ctx *c, struct t2_session *session, struct seal_arg *s)
{
	struct t2_auth a = {
		.names = {t2_name_part(&s->name)}, .nnames = 1, .flags = TPMA_SESSION_ENCRYPT, .session = session};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_Unseal_Prepare(c->sys, c->loose)) == TSS2_RC_SUCCESS &&
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) == TSS2_RC_SUCCESS) {
		rc = Tss2_Sys_Unseal_Complete(c->sys, &s->data);
		t2_sys_wipe(c);
	}
	return rc;
}

/* session NULL: our own. */
static TSS2_RC unseal_in(struct csm_plugin_ctx *c, struct t2_session *session, void *arg)
{
	struct seal_arg *s = arg;
	TSS2_RC rc, rc2;

	s->data.size = 0;
	rc = t2_cmd_load(c, &s->pub, &s->priv, &s->name, &c->loose);
	/* The storage root key is verified, so it is the blob: of another TPM, or damaged. */
	if ((rc & TPM2_RC_P) != 0 && (rc & TPM2_RC_FMT1) != 0 && rc <= 0xfff) {
		s->damaged = true;
		return TSS2_RC_SUCCESS;
	}
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	rc = unseal_loaded(c, session, s);
	if (!t2_rc_is_transport(rc) && rc != T2_RC_BAD_HMAC) {
		rc2 = t2_cmd_flush(c, c->loose);
		c->loose = 0;
		/* A reset or another client's flush shows here too; the data is there all the same. */
		if (rc2 != TSS2_RC_SUCCESS) {
			c->lost_answer = true;
			c->ready = false;
		}
	}
	return rc;
}

static TSS2_RC unseal_step(struct csm_plugin_ctx *c, void *arg)
{
	struct seal_arg *s = arg;

	s->damaged = s->refused = false;
	if (s->policy.kind == T2_POLICY_NONE)
		return unseal_in(c, NULL, s);
	return t2_policy_use(c, &s->policy, &s->refused, unseal_in, s);
}

static int parse_sealed(const uint8_t *sealed, size_t n, struct seal_arg *s)
{
	size_t off = sizeof(magic);
	bool policy;

	if (n > CSM_PLUGIN_PRIV_MAX || n < off)
		return CSM_EINVALID;
	policy = memcmp(sealed, magic_policy, sizeof(magic)) == 0;
	if (!policy && memcmp(sealed, magic, sizeof(magic)) != 0)
		return CSM_EINVALID;
	if ((policy && t2_policy_get(sealed, n, &off, &s->policy) != 0) || t2_public_parse(sealed, n, &off, &s->pub) != 0 ||
		Tss2_MU_TPM2B_PRIVATE_Unmarshal(sealed, n, &off, &s->priv) != TSS2_RC_SUCCESS || off != n)
		return CSM_EINVALID;
	if (s->pub.publicArea.type != TPM2_ALG_KEYEDHASH ||
		s->pub.publicArea.objectAttributes != (policy ? POLICY_ATTRIBUTES : SEAL_ATTRIBUTES))
		return CSM_EINVALID;
	return 0;
}

int t2_unseal(struct csm_plugin_ctx *c, const uint8_t *sealed, size_t sealed_len, struct csm_plugin_out *out)
{
	struct seal_arg s = {.refused = false};
	int r;

	if (parse_sealed(sealed, sealed_len, &s) != 0 || t2_name_of(c, &s.pub.publicArea, &s.name) != 0)
		return CSM_EINVALID;
	if ((r = t2_run(c, unseal_step, &s)) == 0)
		r = s.damaged ? CSM_EINVALID : s.refused ? CSM_EDENIED : 0;
	if (r == 0 && s.data.size > out->cap)
		r = CSM_ETOO_LARGE;
	if (r == 0) {
		memcpy(out->p, s.data.buffer, s.data.size);
		out->len = s.data.size;
		c->seal_refused[0] = '\0';
	}
	note_policy(c, &s.policy);
	OPENSSL_cleanse(&s.data, sizeof(s.data));
	return r;
}
