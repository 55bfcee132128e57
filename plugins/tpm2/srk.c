/* The storage root key: the TCG's template at 0x81000001, without dictionary attack protection, known
 * again by its Name. The Name is pinned at the first meeting; afterwards the TPM must show the same. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <syslog.h>
#include <openssl/crypto.h>

#define PIN_NAME "tpm2.srk"
#define PIN_VERSION 1u
#define SRK_ATTRIBUTES \
	(TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | \
		TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT)
/* What even an accepted foreign one must have: else it cannot hold our keys. */
#define SRK_ATTRIBUTES_LEAST \
	(TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT)

/* unique is zeros as long as the key's numbers: it is part of what the key is derived from. */
static void template_ecc(TPMT_PUBLIC *t)
{
	memset(t, 0, sizeof(*t));
	t->type = TPM2_ALG_ECC;
	t->nameAlg = TPM2_ALG_SHA256;
	t->objectAttributes = SRK_ATTRIBUTES;
	t->parameters.eccDetail.symmetric.algorithm = TPM2_ALG_AES;
	t->parameters.eccDetail.symmetric.keyBits.aes = 128;
	t->parameters.eccDetail.symmetric.mode.aes = TPM2_ALG_CFB;
	t->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
	t->parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	t->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	t->unique.ecc.x.size = 32;
	t->unique.ecc.y.size = 32;
}

static void template_rsa(TPMT_PUBLIC *t)
{
	memset(t, 0, sizeof(*t));
	t->type = TPM2_ALG_RSA;
	t->nameAlg = TPM2_ALG_SHA256;
	t->objectAttributes = SRK_ATTRIBUTES;
	t->parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_AES;
	t->parameters.rsaDetail.symmetric.keyBits.aes = 128;
	t->parameters.rsaDetail.symmetric.mode.aes = TPM2_ALG_CFB;
	t->parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
	t->parameters.rsaDetail.keyBits = 2048;
	t->unique.rsa.size = 256;
}

/* NULL if a key like this may be our storage root key, else why not. */
static const char *objection(const struct csm_plugin_ctx *c, const TPMT_PUBLIC *p)
{
	const TPMT_SYM_DEF_OBJECT *sym;

	if (p->type != TPM2_ALG_ECC && p->type != TPM2_ALG_RSA)
		return "it is neither ECC nor RSA";
	if (p->nameAlg != TPM2_ALG_SHA256)
		return "its name algorithm is not SHA-256";
	if (p->type == TPM2_ALG_ECC && p->parameters.eccDetail.curveID != TPM2_ECC_NIST_P256)
		return "its curve is not P-256";
	if ((p->objectAttributes & SRK_ATTRIBUTES_LEAST) != SRK_ATTRIBUTES_LEAST)
		return "it is no storage key of this TPM";
	if (c->accept_foreign)
		return NULL;
	if ((p->objectAttributes & TPMA_OBJECT_NODA) == 0)
		return "it lacks noDA, so power cuts would lead to lockout";
	if (p->objectAttributes != SRK_ATTRIBUTES)
		return "its attributes are not the template's";
	sym = p->type == TPM2_ALG_ECC ? &p->parameters.eccDetail.symmetric : &p->parameters.rsaDetail.symmetric;
	if (sym->algorithm != TPM2_ALG_AES || sym->keyBits.aes != 128 || sym->mode.aes != TPM2_ALG_CFB)
		return "its inner cipher is not the template's";
	if (p->type == TPM2_ALG_RSA && p->parameters.rsaDetail.keyBits != 2048)
		return "its size is not the template's";
	return NULL;
}

int t2_pin_recall(struct csm_plugin_ctx *c)
{
	uint8_t pin[T2_PIN_MAX];
	size_t len = sizeof(pin);
	int r;

	if (c->srk.pinned || c->host->recall == NULL)
		return 0;
	if ((r = c->host->recall(c->host->arg, PIN_NAME, pin, &len)) == CSM_ENOT_FOUND)
		return 0;
	if (r == 0 && (len != 2 + 2 + T2_HASH_LEN || pin[0] != PIN_VERSION || (pin[1] != 'O' && pin[1] != 'E')))
		r = CSM_ETAMPERED;
	if (r != 0) {
		t2_reason(c, "the record of the storage root key's name cannot be read");
		return CSM_EUNAVAILABLE;
	}
	c->srk.pinned = true;
	c->srk.endorsement = pin[1] == 'E';
	c->srk.name.size = (UINT16)(len - 2);
	memcpy(c->srk.name.name, pin + 2, len - 2);
	return 0;
}

static int pin(struct csm_plugin_ctx *c, const TPM2B_NAME *name)
{
	uint8_t rec[T2_PIN_MAX] = {PIN_VERSION, c->srk.endorsement ? 'E' : 'O'};

	memcpy(rec + 2, name->name, name->size);
	if (c->host->remember != NULL &&
		c->host->remember(c->host->arg, PIN_NAME, rec, 2 + (size_t)name->size) != 0) {
		t2_reason(c, "the storage root key's name cannot be remembered");
		return CSM_EUNAVAILABLE;
	}
	c->srk.name = *name;
	c->srk.pinned = true;
	return 0;
}

/* The one that is there must be the pinned one, or, before any pin, one that we accept. */
static int judge(struct csm_plugin_ctx *c, const TPMT_PUBLIC *pub, const TPM2B_NAME *name)
{
	const char *why;
	int r;

	if (c->srk.pinned) {
		if (!t2_name_equal(name, &c->srk.name)) {
			c->other_device = true;
			t2_reason(c, "the storage root key is another one than before: "
				     "the TPM was cleared, replaced, or is not the real one");
			return CSM_EUNAVAILABLE;
		}
	} else {
		if ((why = objection(c, pub)) != NULL) {
			t2_reason(c, "the object at 0x%08x is not accepted as storage root key: %s", c->parent, why);
			return CSM_EUNAVAILABLE;
		}
		if ((r = pin(c, name)) != 0)
			return r;
	}
	c->srk.pub = *pub;
	return 0;
}

/* A session salted to a fresh primary of the NULL hierarchy: it protects the owner's authValue and the
 * making of the storage root key while there is nothing else to salt to. */
static TSS2_RC null_session(struct csm_plugin_ctx *c, const TPMT_PUBLIC *template, struct t2_session *ret)
{
	TPM2_HANDLE h = 0;
	TPMT_PUBLIC pub;
	TPM2B_NAME name;
	TSS2_RC rc, rc2;

	if ((rc = t2_cmd_create_primary(c, NULL, TPM2_RH_NULL, template, &h, &pub, &name)) != TSS2_RC_SUCCESS)
		return rc;
	rc = t2_session_start(c, TPM2_SE_HMAC, h, &pub, ret);
	rc2 = t2_cmd_flush(c, h);
	return rc != TSS2_RC_SUCCESS ? rc : rc2;
}

static TSS2_RC persist(struct csm_plugin_ctx *c, struct t2_session *s, TPM2_HANDLE h, const TPM2B_NAME *name)
{
	static const uint8_t owner[4] = {0x40, 0, 0, 1};
	struct t2_auth a = {.names = {{owner, 4}, t2_name_part(name)}, .nnames = 2, .auth = &c->owner_auth, .session = s};
	TSS2_RC rc;

	if ((rc = Tss2_Sys_EvictControl_Prepare(c->sys, TPM2_RH_OWNER, h, T2_SRK_HANDLE)) == TSS2_RC_SUCCESS)
		rc = t2_exec(c, &a, T2_TIMEOUT_MS);
	return rc;
}

/* The primary in the hierarchy; under OWNER made persistent and flushed, under ENDORSEMENT left loaded. */
static TSS2_RC make_in(struct csm_plugin_ctx *c, struct t2_session *s, TPMI_RH_HIERARCHY hierarchy,
	const TPMT_PUBLIC *template, TPMT_PUBLIC *pub, TPM2B_NAME *name)
{
	const uint8_t handle_name[4] = {0x40, 0, 0, (uint8_t)hierarchy};
	struct t2_auth a = {.names = {{handle_name, 4}}, .nnames = 1, .flags = TPMA_SESSION_DECRYPT, .session = s};
	TPM2_HANDLE h = 0;
	TSS2_RC rc, rc2;

	if (hierarchy == TPM2_RH_OWNER)
		a.auth = &c->owner_auth;
	if ((rc = t2_cmd_create_primary(c, &a, hierarchy, template, &h, pub, name)) != TSS2_RC_SUCCESS)
		return rc;
	if (hierarchy == TPM2_RH_ENDORSEMENT) {
		c->srk.handle = h;
		return TSS2_RC_SUCCESS;
	}
	rc = persist(c, s, h, name);
	rc2 = t2_cmd_flush(c, h);
	if (rc == TSS2_RC_SUCCESS)
		c->srk.handle = T2_SRK_HANDLE;
	return rc != TSS2_RC_SUCCESS ? rc : rc2;
}

static TSS2_RC make(struct csm_plugin_ctx *c, TPMT_PUBLIC *pub, TPM2B_NAME *name)
{
	struct t2_session s = {0};
	TPMT_PUBLIC template;
	TSS2_RC rc;

	if ((c->props.algs & 1u << CSM_ALG_P256) != 0)
		template_ecc(&template);
	else
		template_rsa(&template);
	if ((rc = null_session(c, &template, &s)) != TSS2_RC_SUCCESS)
		goto out;
	rc = TPM2_RC_BAD_AUTH;
	if (!c->srk.endorsement)
		rc = make_in(c, &s, TPM2_RH_OWNER, &template, pub, name);
	/* A wrong owner auth does not count towards lockout, and leaves the session as it was. */
	if (t2_rc_base(rc) == TPM2_RC_BAD_AUTH && (c->srk.endorsement || !c->srk.pinned)) {
		c->srk.endorsement = true;
		rc = make_in(c, &s, TPM2_RH_ENDORSEMENT, &template, pub, name);
	}
out:
	if (s.handle != 0 && !t2_rc_is_transport(rc))
		(void)t2_cmd_flush(c, s.handle);
	t2_session_wipe(&s);
	return rc;
}

static int open_made(struct csm_plugin_ctx *c, TSS2_RC *rc)
{
	TPMT_PUBLIC pub;
	TPM2B_NAME name;
	bool was_endorsement = c->srk.endorsement;
	int r;

	*rc = make(c, &pub, &name);
	if (t2_rc_base(*rc) == TPM2_RC_BAD_AUTH || t2_rc_base(*rc) == TPM2_RC_HIERARCHY) {
		c->srk.endorsement = was_endorsement;
		t2_reason(c, "there is no storage root key, and the owner's authorisation value is not the configured one");
		return CSM_EUNAVAILABLE;
	}
	if (*rc != TSS2_RC_SUCCESS) {
		c->srk.endorsement = was_endorsement;
		return 0;
	}
	if ((r = judge(c, &pub, &name)) != 0 && c->srk.endorsement) {
		(void)t2_cmd_flush(c, c->srk.handle);
		c->srk.handle = 0;
	}
	return r;
}

int t2_srk_open(struct csm_plugin_ctx *c, TSS2_RC *rc)
{
	TPM2_HANDLE h = c->srk.endorsement ? c->srk.handle : c->parent;
	TPMT_PUBLIC pub;
	TPM2B_NAME name;
	int r;

	c->other_device = false;
	if ((r = t2_pin_recall(c)) != 0)
		return r;
	*rc = TSS2_RC_SUCCESS;
	if (c->srk.endorsement && h == 0)
		return open_made(c, rc);
	if (!c->srk.endorsement)
		h = c->parent;
	if ((*rc = t2_room(c, 0, true)) != TSS2_RC_SUCCESS)
		return 0;
	*rc = t2_cmd_read_public(c, h, &pub, &name, NULL);
	if (*rc == TSS2_RC_SUCCESS && (!c->srk.endorsement || t2_name_equal(&name, &c->srk.name))) {
		c->srk.handle = h;
		return judge(c, &pub, &name);
	}
	if (*rc != TSS2_RC_SUCCESS && t2_rc_base(*rc) != TPM2_RC_HANDLE && *rc != TPM2_RC_REFERENCE_H0)
		return 0;
	c->srk.handle = 0;
	if (c->parent != T2_SRK_HANDLE) {
		t2_reason(c, "there is no key at 0x%08x", c->parent);
		return CSM_EUNAVAILABLE;
	}
	if (c->srk.pinned && !c->srk.endorsement) {
		c->other_device = true;
		t2_reason(c, "the storage root key is gone: the TPM was cleared, or another TPM is in its place");
		return CSM_EUNAVAILABLE;
	}
	return open_made(c, rc);
}

/* Without a look at the pin: the next storage root key that is there, or can be made, is the one. */
static int forget_pin(struct csm_plugin_ctx *c)
{
	int r;

	t2_fresh_drop(c);
	memset(&c->srk, 0, sizeof(c->srk));
	memset(&c->ek, 0, sizeof(c->ek));
	if (c->host->remember != NULL && c->host->remember(c->host->arg, PIN_NAME, NULL, 0) != 0)
		return CSM_EUNAVAILABLE;
	return (r = t2_ak_forget(c)) != 0 ? r : t2_counter_forget(c);
}

int t2_adopt(struct csm_plugin_ctx *c, bool take, bool *changed)
{
	int r;

	c->refused_ms = 0;
	r = t2_ready(c, T2_RECONNECT_MS);
	if (r == 0 || !c->other_device) {
		if (r == 0)
			*changed = false;
		goto out;
	}
	r = 0;
	*changed = true;
	if (!take || (r = forget_pin(c)) != 0)
		goto out;
	if (c->host->log != NULL)
		c->host->log(c->host->arg, LOG_WARNING, "another TPM, or a cleared one, is taken for the right one");
	c->refused_ms = 0;
	r = t2_ready(c, T2_RECONNECT_MS);
out:
	t2_tcti_release(&c->tcti, T2_HOLD_MS);
	return r;
}
