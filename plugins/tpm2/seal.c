/* Small data bound to this TPM: a KEYEDHASH object under the storage root key. Clear text crosses the bus
 * encrypted in both directions. The sealed form is magic, TPM2B_PUBLIC, TPM2B_PRIVATE. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/crypto.h>
#include <tss2/tss2_mu.h>

#define SEAL_ATTRIBUTES \
	(TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA)

static const uint8_t magic[4] = {'C', 'S', 'T', 1};

struct seal_arg {
	TPM2B_SENSITIVE_DATA data;
	TPM2B_PUBLIC pub;
	TPM2B_PRIVATE priv;
	TPM2B_NAME name;
	bool refused;
};

static TSS2_RC seal_step(struct csm_plugin_ctx *c, void *arg)
{
	struct seal_arg *s = arg;
	TPMT_PUBLIC t = {.type = TPM2_ALG_KEYEDHASH, .nameAlg = TPM2_ALG_SHA256, .objectAttributes = SEAL_ATTRIBUTES};

	t.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL;
	return t2_cmd_create(c, &t, &s->data, &s->pub, &s->priv);
}

int t2_seal(struct csm_plugin_ctx *c, const uint8_t *in, size_t in_len, struct csm_plugin_out *sealed)
{
	struct seal_arg s = {.refused = false};
	size_t off = sizeof(magic);
	int r;

	if (in_len == 0 || in_len > T2_SEAL_MAX)
		return CSM_ETOO_LARGE;
	s.data.size = (UINT16)in_len;
	memcpy(s.data.buffer, in, in_len);
	r = t2_run(c, seal_step, &s);
	t2_sys_wipe(c);
	OPENSSL_cleanse(&s.data, sizeof(s.data));
	if (r != 0)
		return r;
	if (sealed->cap < off || Tss2_MU_TPM2B_PUBLIC_Marshal(&s.pub, sealed->p, sealed->cap, &off) != TSS2_RC_SUCCESS ||
		Tss2_MU_TPM2B_PRIVATE_Marshal(&s.priv, sealed->p, sealed->cap, &off) != TSS2_RC_SUCCESS)
		return CSM_ETOO_LARGE;
	memcpy(sealed->p, magic, sizeof(magic));
	sealed->len = off;
	return 0;
}

static TSS2_RC unseal_loaded(struct csm_plugin_ctx *c, struct seal_arg *s)
{
	struct t2_auth a = {.names = {t2_name_part(&s->name)}, .nnames = 1, .flags = TPMA_SESSION_ENCRYPT};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_Unseal_Prepare(c->sys, c->loose)) == TSS2_RC_SUCCESS &&
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) == TSS2_RC_SUCCESS) {
		rc = Tss2_Sys_Unseal_Complete(c->sys, &s->data);
		t2_sys_wipe(c);
	}
	return rc;
}

static TSS2_RC unseal_step(struct csm_plugin_ctx *c, void *arg)
{
	struct seal_arg *s = arg;
	TSS2_RC rc, rc2;

	s->refused = false;
	s->data.size = 0;
	rc = t2_cmd_load(c, &s->pub, &s->priv, &s->name, &c->loose);
	/* The storage root key is verified, so it is the blob: of another TPM, or damaged. */
	if ((rc & TPM2_RC_P) != 0 && (rc & TPM2_RC_FMT1) != 0 && rc <= 0xfff) {
		s->refused = true;
		return TSS2_RC_SUCCESS;
	}
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	rc = unseal_loaded(c, s);
	if (!t2_rc_is_transport(rc) && rc != T2_RC_BAD_HMAC) {
		rc2 = t2_cmd_flush(c, c->loose);
		c->loose = 0;
		/* A reset or another client's flush shows here too; the data is there all the same. */
		if (rc == TSS2_RC_SUCCESS && t2_rc_is_transport(rc2)) {
			c->lost_answer = true;
			c->ready = false;
		}
	}
	return rc;
}

static int parse_sealed(const uint8_t *sealed, size_t n, struct seal_arg *s)
{
	size_t off = sizeof(magic);

	if (n > CSM_PLUGIN_PRIV_MAX || n < off || memcmp(sealed, magic, sizeof(magic)) != 0 ||
		t2_public_parse(sealed, n, &off, &s->pub) != 0 ||
		Tss2_MU_TPM2B_PRIVATE_Unmarshal(sealed, n, &off, &s->priv) != TSS2_RC_SUCCESS || off != n)
		return CSM_EINVALID;
	return 0;
}

int t2_unseal(struct csm_plugin_ctx *c, const uint8_t *sealed, size_t sealed_len, struct csm_plugin_out *out)
{
	struct seal_arg s = {.refused = false};
	int r;

	if (parse_sealed(sealed, sealed_len, &s) != 0 || s.pub.publicArea.type != TPM2_ALG_KEYEDHASH ||
		s.pub.publicArea.objectAttributes != SEAL_ATTRIBUTES || t2_name_of(c, &s.pub.publicArea, &s.name) != 0)
		return CSM_EINVALID;
	if ((r = t2_run(c, unseal_step, &s)) == 0 && s.refused)
		r = CSM_EINVALID;
	if (r == 0 && s.data.size > out->cap)
		r = CSM_ETOO_LARGE;
	if (r == 0) {
		memcpy(out->p, s.data.buffer, s.data.size);
		out->len = s.data.size;
	}
	OPENSSL_cleanse(&s.data, sizeof(s.data));
	return r;
}
