/* Our one HMAC session: salted to the storage root key, AES-128-CFB for the parameters that are secret.
 * TPM 2.0 part 1, chapters 19 (sessions) and 21 (parameter encryption). */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

static const TPMT_SYM_DEF session_sym = {
	.algorithm = TPM2_ALG_AES,
	.keyBits.aes = 128,
	.mode.aes = TPM2_ALG_CFB,
};

void t2_session_wipe(struct t2_session *s)
{
	OPENSSL_cleanse(s, sizeof(*s));
}

TSS2_RC t2_session_start(struct csm_plugin_ctx *c, TPM2_SE type, TPM2_HANDLE salt_key, const TPMT_PUBLIC *salt_pub,
	struct t2_session *ret)
{
	TPM2B_ENCRYPTED_SECRET enc = {0};
	TPM2B_NONCE caller = {.size = T2_NONCE_LEN};
	struct t2_session s = {0};
	uint8_t salt[T2_HASH_LEN];
	TSS2_RC rc = T2_RC_CRYPTO;

	if (RAND_bytes(caller.buffer, caller.size) != 1 || t2_salt_make(&c->crypt, salt_pub, salt, &enc) != 0)
		goto out;
	rc = Tss2_Sys_StartAuthSession_Prepare(c->sys, salt_key, TPM2_RH_NULL, &caller, &enc, type,
		&session_sym, TPM2_ALG_SHA256);
	if (rc != TSS2_RC_SUCCESS || (rc = t2_exec(c, NULL, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_StartAuthSession_Complete(c->sys, &s.handle, &s.nonce_tpm)) != TSS2_RC_SUCCESS)
		goto out;
	rc = T2_RC_CRYPTO;
	if (t2_kdfa(&c->crypt, salt, sizeof(salt), "ATH", (struct t2_part){s.nonce_tpm.buffer, s.nonce_tpm.size},
		    (struct t2_part){caller.buffer, caller.size}, s.key, sizeof(s.key)) != 0)
		goto out;
	*ret = s;
	rc = TSS2_RC_SUCCESS;
out:
	OPENSSL_cleanse(salt, sizeof(salt));
	OPENSSL_cleanse(&s, sizeof(s));
	return rc;
}

/* Session key and the authValue, without its trailing zero bytes: the key of HMAC and of CFB. */
struct auth_key {
	uint8_t p[T2_HASH_LEN + sizeof(TPMU_HA)];
	size_t n;
};

static void auth_key_make(const struct t2_session *s, const TPM2B_AUTH *auth, struct auth_key *k)
{
	size_t n = auth != NULL ? auth->size : 0;

	while (n > 0 && auth->buffer[n - 1] == 0)
		n--;
	memcpy(k->p, s->key, T2_HASH_LEN);
	if (n > 0)
		memcpy(k->p + T2_HASH_LEN, auth->buffer, n);
	k->n = T2_HASH_LEN + n;
}

static int param_cfb(struct csm_plugin_ctx *c, const struct auth_key *k, const TPM2B_NONCE *newer,
	const TPM2B_NONCE *older, int encrypt, uint8_t *buf, size_t len)
{
	uint8_t key_iv[32];
	int r;

	if ((r = t2_kdfa(&c->crypt, k->p, k->n, "CFB", (struct t2_part){newer->buffer, newer->size},
		     (struct t2_part){older->buffer, older->size}, key_iv, sizeof(key_iv))) == 0)
		r = t2_cfb(&c->crypt, key_iv, encrypt, buf, len);
	OPENSSL_cleanse(key_iv, sizeof(key_iv));
	return r;
}

static TSS2_RC encrypt_param(struct csm_plugin_ctx *c, const struct t2_session *s, const struct auth_key *k,
	const TPM2B_NONCE *caller)
{
	uint8_t buf[T2_WIRE_MAX];
	const uint8_t *p;
	size_t len;
	TSS2_RC rc;

	if ((rc = Tss2_Sys_GetDecryptParam(c->sys, &len, &p)) != TSS2_RC_SUCCESS)
		return rc;
	if (len > sizeof(buf))
		return T2_RC_CRYPTO;
	if (len == 0) /* there is nothing to hide, and SAPI takes no empty one */
		return TSS2_RC_SUCCESS;
	memcpy(buf, p, len);
	if (param_cfb(c, k, caller, &s->nonce_tpm, 1, buf, len) == 0)
		rc = Tss2_Sys_SetDecryptParam(c->sys, len, buf);
	else {
		OPENSSL_cleanse(buf, len);
		rc = T2_RC_CRYPTO;
	}
	return rc;
}

static TSS2_RC decrypt_param(struct csm_plugin_ctx *c, const struct t2_session *s, const struct auth_key *k,
	const TPM2B_NONCE *caller)
{
	uint8_t buf[T2_WIRE_MAX];
	const uint8_t *p;
	size_t len;
	TSS2_RC rc;

	if ((rc = Tss2_Sys_GetEncryptParam(c->sys, &len, &p)) != TSS2_RC_SUCCESS)
		return rc;
	if (len > sizeof(buf))
		return T2_RC_CRYPTO;
	memcpy(buf, p, len);
	rc = T2_RC_CRYPTO;
	if (param_cfb(c, k, &s->nonce_tpm, caller, 0, buf, len) == 0)
		rc = Tss2_Sys_SetEncryptParam(c->sys, len, buf);
	OPENSSL_cleanse(buf, len);
	return rc;
}

/* HMAC over pHash, the newer nonce, the older nonce, the attributes. */
static int auth_hmac(struct csm_plugin_ctx *c, const struct auth_key *k, const uint8_t phash[static T2_HASH_LEN],
	const TPM2B_NONCE *newer, const TPM2B_NONCE *older, TPMA_SESSION attrs, uint8_t out[static T2_HASH_LEN])
{
	struct t2_part parts[] = {
		{phash, T2_HASH_LEN}, {newer->buffer, newer->size}, {older->buffer, older->size}, {&attrs, 1}};

	return t2_hmac(&c->crypt, k->p, k->n, parts, 4, out);
}

static TSS2_RC command_hash(struct csm_plugin_ctx *c, const struct t2_auth *a, uint8_t out[static T2_HASH_LEN])
{
	struct t2_part parts[5];
	const uint8_t *cp;
	uint8_t cc[4];
	size_t n = 1, cp_len;
	TSS2_RC rc;

	if ((rc = Tss2_Sys_GetCommandCode(c->sys, cc)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_GetCpBuffer(c->sys, &cp_len, &cp)) != TSS2_RC_SUCCESS)
		return rc;
	parts[0] = (struct t2_part){cc, sizeof(cc)};
	for (size_t i = 0; i < a->nnames; i++)
		parts[n++] = a->names[i];
	parts[n++] = (struct t2_part){cp, cp_len};
	return t2_hash(&c->crypt, parts, n, out) == 0 ? TSS2_RC_SUCCESS : T2_RC_CRYPTO;
}

TSS2_RC t2_session_apply(struct csm_plugin_ctx *c, const struct t2_auth *a, TPM2B_NONCE *nonce_caller)
{
	struct t2_session *s = a->session != NULL ? a->session : &c->session;
	TSS2L_SYS_AUTH_COMMAND cmd = {.count = 1};
	TPMS_AUTH_COMMAND *auth = &cmd.auths[0];
	uint8_t phash[T2_HASH_LEN];
	struct auth_key k;
	TSS2_RC rc = T2_RC_CRYPTO;

	auth_key_make(s, a->auth, &k);
	nonce_caller->size = T2_NONCE_LEN;
	if (RAND_bytes(nonce_caller->buffer, T2_NONCE_LEN) != 1)
		goto out;
	if ((a->flags & TPMA_SESSION_DECRYPT) != 0 &&
		(rc = encrypt_param(c, s, &k, nonce_caller)) != TSS2_RC_SUCCESS)
		goto out;
	if ((rc = command_hash(c, a, phash)) != TSS2_RC_SUCCESS)
		goto out;
	auth->sessionHandle = s->handle;
	auth->nonce = *nonce_caller;
	auth->sessionAttributes = TPMA_SESSION_CONTINUESESSION | a->flags;
	auth->hmac.size = T2_HASH_LEN;
	/* The HMAC of the first one covers all Names and parameters; the second one only lets the command be. A policy
	 * session ends with it. */
	if (a->second != 0)
		cmd.auths[cmd.count++].sessionHandle = a->second;
	rc = T2_RC_CRYPTO;
	if (auth_hmac(c, &k, phash, nonce_caller, &s->nonce_tpm, auth->sessionAttributes, auth->hmac.buffer) != 0)
		goto out;
	rc = Tss2_Sys_SetCmdAuths(c->sys, &cmd);
out:
	OPENSSL_cleanse(&k, sizeof(k));
	return rc;
}

static TSS2_RC response_hash(struct csm_plugin_ctx *c, uint8_t out[static T2_HASH_LEN])
{
	static const uint8_t success[4];
	const uint8_t *rp;
	uint8_t cc[4];
	size_t rp_len;
	TSS2_RC rc;

	if ((rc = Tss2_Sys_GetCommandCode(c->sys, cc)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_GetRpBuffer(c->sys, &rp_len, &rp)) != TSS2_RC_SUCCESS)
		return rc;
	struct t2_part parts[] = {{success, 4}, {cc, 4}, {rp, rp_len}};

	return t2_hash(&c->crypt, parts, 3, out) == 0 ? TSS2_RC_SUCCESS : T2_RC_CRYPTO;
}

TSS2_RC t2_session_check(struct csm_plugin_ctx *c, const struct t2_auth *a, const TPM2B_NONCE *nonce_caller)
{
	struct t2_session *s = a->session != NULL ? a->session : &c->session;
	TSS2L_SYS_AUTH_RESPONSE rsp = {0};
	const TPMS_AUTH_RESPONSE *auth = &rsp.auths[0];
	uint8_t phash[T2_HASH_LEN], want[T2_HASH_LEN];
	struct auth_key k;
	TSS2_RC rc = T2_RC_BAD_HMAC;

	auth_key_make(s, a->auth, &k);
	/* A response that cannot even be taken apart is as little the TPM's as one with a wrong HMAC. */
	if (Tss2_Sys_GetRspAuths(c->sys, &rsp) != TSS2_RC_SUCCESS || rsp.count != 1 + (a->second != 0) ||
		auth->hmac.size != T2_HASH_LEN || auth->nonce.size == 0 || response_hash(c, phash) != TSS2_RC_SUCCESS ||
		auth_hmac(c, &k, phash, &auth->nonce, nonce_caller, auth->sessionAttributes, want) != 0 ||
		CRYPTO_memcmp(want, auth->hmac.buffer, T2_HASH_LEN) != 0)
		goto out;
	s->nonce_tpm = auth->nonce;
	rc = TSS2_RC_SUCCESS;
	if ((a->flags & TPMA_SESSION_ENCRYPT) != 0)
		rc = decrypt_param(c, s, &k, nonce_caller);
out:
	OPENSSL_cleanse(&k, sizeof(k));
	return rc;
}
