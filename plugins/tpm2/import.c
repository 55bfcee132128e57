/* Keys from outside: wrapped to the storage root key (TPM2_Import: the chip opens them, nothing crosses the bus in
 * clear), or given out under it to others before (TSS2 PRIVATE KEY). Both are loaded once, so that what is kept is
 * known to work. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <tss2/tss2_mu.h>
#include "libclient/tpmfmt/keyfile.h"

struct import_arg {
	bool wrapped; /* TPM2_Import first */
	TPM2B_PUBLIC pub;
	TPM2B_PRIVATE duplicate, priv;
	TPM2B_ENCRYPTED_SECRET seed;
	TPM2B_NAME name;
	bool refused, later;
};

int t2_storage_key(struct csm_plugin_ctx *c, struct csm_plugin_out *pub)
{
	TPM2B_PUBLIC srk = {.publicArea = c->srk.pub};
	size_t len = 0;

	/* Keys are wrapped to the one that this TPM has shown, and that is pinned. */
	if (!c->srk.pinned || c->srk.pub.type == 0)
		return CSM_EUNAVAILABLE;
	if (Tss2_MU_TPM2B_PUBLIC_Marshal(&srk, pub->p, pub->cap, &len) != TSS2_RC_SUCCESS)
		return CSM_ETOO_LARGE;
	pub->len = len;
	return 0;
}

/* The storage root key is verified, so what it refuses is the key's own. */
static bool is_refusal(TSS2_RC rc)
{
	return rc <= 0xfff && (rc & TPM2_RC_FMT1) != 0 && ((rc & TPM2_RC_P) != 0 || rc == TPM2_RC_BINDING);
}

static TSS2_RC cmd_import(struct csm_plugin_ctx *c, struct import_arg *g)
{
	struct t2_auth a = {.names = {t2_name_part(&c->srk.name)}, .nnames = 1};
	TPMT_SYM_DEF_OBJECT none = {.algorithm = TPM2_ALG_NULL};
	TPM2B_DATA inner = {0};
	TSS2_RC rc;

	memset(&g->priv, 0, sizeof(g->priv));
	if ((rc = t2_room(c, 1, true)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_Import_Prepare(c->sys, c->srk.handle, &inner, &g->pub, &g->duplicate, &g->seed, &none)) !=
			TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS)
		return rc;
	return Tss2_Sys_Import_Complete(c->sys, &g->priv);
}

/* A key of others may have an authorisation of its own: it loads, and then does nothing but fail, each time as if
 * somebody had taken our session. Tried with an empty password, so that a refusal is the key's and not our session's, and
 * by the one command that is for keys of any use; its answer is not wanted. Where the key has dictionary attack
 * protection, a refusal counts: such a one is tried while fewer than half of the tries are gone, so that nobody brings
 * about lockout in this way. */
static TSS2_RC try_empty_auth(struct csm_plugin_ctx *c, struct import_arg *g)
{
	static const TSS2L_SYS_AUTH_COMMAND empty_password = {1, {{.sessionHandle = TPM2_RH_PW}}};
	static const TPM2B_AUTH empty = {.size = 0};
	TSS2_RC rc;

	if ((g->pub.publicArea.objectAttributes & TPMA_OBJECT_NODA) == 0) {
		if ((rc = t2_lockout_read(c)) != TSS2_RC_SUCCESS)
			return rc;
		g->later = c->props.lockout_counter >= c->props.max_auth_fail / 2;
		if (g->later)
			return TSS2_RC_SUCCESS;
	}
	if ((rc = Tss2_Sys_ObjectChangeAuth_Prepare(c->sys, c->loose, c->srk.handle, &empty)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_SetCmdAuths(c->sys, &empty_password)) != TSS2_RC_SUCCESS)
		return rc;
	rc = t2_exec(c, NULL, T2_TIMEOUT_MS);
	if (t2_rc_base(rc) != TPM2_RC_AUTH_FAIL && t2_rc_base(rc) != TPM2_RC_BAD_AUTH)
		return rc;
	g->refused = true;
	return TSS2_RC_SUCCESS;
}

static TSS2_RC import_step(struct csm_plugin_ctx *c, void *arg)
{
	struct import_arg *g = arg;
	TSS2_RC rc = TSS2_RC_SUCCESS, rc2;

	if (g->wrapped)
		rc = cmd_import(c, g);
	if (rc == TSS2_RC_SUCCESS)
		rc = t2_cmd_load(c, &g->pub, &g->priv, &g->name, &c->loose);
	g->later = false;
	g->refused = is_refusal(rc);
	if (g->refused)
		return TSS2_RC_SUCCESS;
	if (rc != TSS2_RC_SUCCESS)
		return rc;
	rc = try_empty_auth(c, g);
	if (t2_rc_is_transport(rc))
		return rc;
	rc2 = t2_cmd_flush(c, c->loose);
	if (!t2_rc_is_transport(rc2))
		c->loose = 0;
	return rc != TSS2_RC_SUCCESS ? rc : rc2;
}

static int copy_in(struct csm_bin in, UINT16 *size, uint8_t *buffer, size_t cap)
{
	if (in.n > cap)
		return CSM_EINVALID;
	memcpy(buffer, in.p, in.n);
	*size = (UINT16)in.n;
	return 0;
}

static int parse_wrapped(struct csm_plugin_ctx *c, struct csm_bin in, struct import_arg *g)
{
	const TPMA_OBJECT never = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT;
	struct csm_wrapped w;
	int r;

	if ((r = csm_wrapped_get(in, &w)) != 0)
		return r;
	if (w.storage.n != c->srk.name.size || memcmp(w.storage.p, c->srk.name.name, w.storage.n) != 0 ||
		(w.pub.objectAttributes & never) != 0)
		return CSM_EINVALID;
	g->wrapped = true;
	g->pub.publicArea = w.pub;
	if ((r = copy_in(w.duplicate, &g->duplicate.size, g->duplicate.buffer, sizeof(g->duplicate.buffer))) != 0)
		return r;
	return copy_in(w.seed, &g->seed.size, g->seed.secret, sizeof(g->seed.secret));
}

static int parse_tss2(struct csm_plugin_ctx *c, struct csm_bin in, struct import_arg *g)
{
	struct csm_tss2 key;
	const char *why;
	size_t off = 0;
	int r;

	if ((r = csm_tss2_get(in, &key, &why)) != 0)
		return r;
	if (key.parent != T2_SRK_HANDLE || c->srk.endorsement)
		return CSM_EINVALID;
	g->pub.publicArea = key.pub;
	if (Tss2_MU_TPM2B_PRIVATE_Unmarshal(key.priv_2b.p, key.priv_2b.n, &off, &g->priv) != TSS2_RC_SUCCESS ||
		off != key.priv_2b.n)
		return CSM_EINVALID;
	return 0;
}

/* A key for just these uses, that any of its schemes will do for, and that needs no policy. */
static bool fits(const struct csm_plugin_keyspec *spec, const TPMT_PUBLIC *pub)
{
	bool sign = (spec->use & CSM_USE_SIGN) != 0, decrypt = (spec->use & (CSM_USE_DECRYPT | CSM_USE_DERIVE)) != 0;
	TPMI_ALG_ASYM_SCHEME scheme = pub->type == TPM2_ALG_ECC ? pub->parameters.eccDetail.scheme.scheme :
								  pub->parameters.rsaDetail.scheme.scheme;

	return (pub->objectAttributes & TPMA_OBJECT_USERWITHAUTH) != 0 && pub->authPolicy.size == 0 &&
		(pub->objectAttributes & (TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_ADMINWITHPOLICY)) == 0 && scheme == TPM2_ALG_NULL &&
		((pub->objectAttributes & TPMA_OBJECT_SIGN_ENCRYPT) != 0) == sign &&
		((pub->objectAttributes & TPMA_OBJECT_DECRYPT) != 0) == decrypt;
}

/* What is given out has to be what load takes. */
static int give_out(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, const struct import_arg *g,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct csm_plugin_blob blob = {.spki = spki->p, .pub = pub->p, .priv = priv->p};
	struct csm_plugin_key *k = NULL;
	int r;

	if ((r = csm_tpm_public_spki(&g->pub.publicArea, spki->p, spki->cap, &blob.spki_len)) != 0)
		return r == CSM_EBACKEND ? CSM_EINVALID : r;
	if (Tss2_MU_TPM2B_PUBLIC_Marshal(&g->pub, pub->p, pub->cap, &blob.pub_len) != TSS2_RC_SUCCESS ||
		Tss2_MU_TPM2B_PRIVATE_Marshal(&g->priv, priv->p, priv->cap, &blob.priv_len) != TSS2_RC_SUCCESS)
		return CSM_ETOO_LARGE;
	if ((r = t2_load(c, spec, &blob, &k)) != 0)
		return r == CSM_ETAMPERED ? CSM_EINVALID : r;
	t2_unload(c, k);
	spki->len = blob.spki_len;
	pub->len = blob.pub_len;
	priv->len = blob.priv_len;
	return 0;
}

int t2_import(struct csm_plugin_ctx *c, const struct csm_plugin_keyspec *spec, const uint8_t *wrapped,
	size_t wrapped_len, struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct csm_bin in = {wrapped, wrapped_len};
	struct import_arg g = {.wrapped = false};
	int r;

	if (!c->srk.pinned)
		return CSM_EUNAVAILABLE;
	if ((r = csm_wrapped_is(in) ? parse_wrapped(c, in, &g) : parse_tss2(c, in, &g)) != 0)
		return r;
	if (spec->exportable || !fits(spec, &g.pub.publicArea))
		return CSM_EUNSUPPORTED;
	if ((r = csm_tpm_name(&g.pub.publicArea, &g.name)) != 0 || (r = t2_run(c, import_step, &g)) != 0)
		return r;
	if (g.later)
		return CSM_EBUSY;
	return g.refused ? CSM_EINVALID : give_out(c, spec, &g, spki, pub, priv);
}
