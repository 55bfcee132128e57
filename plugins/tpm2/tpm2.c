/* Opening and closing the TPM, random bytes, and the table. */
#include "plugins/tpm2/tpm2.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include "libclient/base/lockmem.h"

static const char *config(const struct csm_plugin_host *host, const char *name)
{
	return host->config != NULL ? host->config(host->arg, name) : NULL;
}

static bool config_true(const struct csm_plugin_host *host, const char *name)
{
	const char *v = config(host, name);

	return v != NULL && strcmp(v, "true") == 0;
}

static int probe(const struct csm_plugin_host *host)
{
	int fd = host->device(host->arg);

	if (fd < 0)
		return CSM_EUNAVAILABLE;
	close(fd);
	return 0;
}

static int read_config(struct csm_plugin_ctx *c)
{
	const char *auth = config(c->host, "owner_auth"), *dev = config(c->host, "device");
	const char *index = config(c->host, "nv_index"), *parent = config(c->host, "parent");
	size_t n;

	c->shared = config_true(c->host, "shared");
	c->accept_foreign = config_true(c->host, "accept_foreign");
	if (dev != NULL) {
		n = strnlen(dev, sizeof(c->device) - 1);
		memcpy(c->device, dev, n);
	} else
		memcpy(c->device, "tpm", 4);
	if (auth != NULL) {
		n = strlen(auth);
		if (n > sizeof(c->owner_auth.buffer))
			return CSM_EINVALID;
		memcpy(c->owner_auth.buffer, auth, n);
		c->owner_auth.size = (UINT16)n;
	}
	c->parent = T2_SRK_HANDLE;
	if (parent != NULL) {
		char *end;
		unsigned long v = strtoul(parent, &end, 0);

		if (*end != '\0' || v >> TPM2_HR_SHIFT != TPM2_HT_PERSISTENT || v > UINT32_MAX)
			return CSM_EINVALID;
		c->parent = (TPM2_HANDLE)v;
	}
	c->nv_index = T2_NV_INDEX;
	c->nv_choices = T2_NV_CHOICES;
	if (index != NULL) {
		char *end;
		unsigned long v = strtoul(index, &end, 0);

		if (*end != '\0' || v >> TPM2_HR_SHIFT != TPM2_HT_NV_INDEX || v > UINT32_MAX)
			return CSM_EINVALID;
		c->nv_index = (TPMI_RH_NV_INDEX)v;
		c->nv_choices = 1;
	}
	c->nv_first = c->nv_index;
	return 0;
}

static void ctx_free(struct csm_plugin_ctx *c)
{
	t2_key_free(c->ak);
	t2_ek_forget(c);
	t2_tcti_drop(&c->tcti);
	t2_crypt_free(&c->crypt);
	csm_lock_free(c->sys);
	csm_lock_free(c);
}

/* What OpenSSL loads at first use is loaded now, while files may still be read. */
static void warm_up(void)
{
	EVP_PKEY *ec = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	EVP_PKEY_CTX *ctx = ec != NULL ? EVP_PKEY_CTX_new_from_pkey(NULL, ec, NULL) : NULL;

	if (ctx != NULL)
		(void)EVP_PKEY_derive_init(ctx);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(ec);
}

/* An unusable TPM is no failure to open: health says why, and each later call looks again. */
int t2_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret)
{
	const char *kind = config(host, "kind");
	struct csm_plugin_ctx *c = csm_lock_alloc(sizeof(*c));
	int r;

	if (c == NULL)
		return CSM_ENOMEM;
	memset(c, 0, sizeof(*c));
	c->host = host;
	c->props.slots = 3;
	t2_tcti_init(&c->tcti, host, kind != NULL && (strcmp(kind, "socket") == 0 || strcmp(kind, "manager") == 0));
	c->tcti.keep = kind != NULL && strcmp(kind, "manager") == 0;
	if ((r = read_config(c)) != 0 || (r = t2_crypt_init(&c->crypt)) != 0)
		goto out;
	r = CSM_ENOMEM;
	if (t2_sys_init(c) != TSS2_RC_SUCCESS)
		goto out;
	warm_up();
	if (t2_ready(c, T2_RECONNECT_MS) != 0 && c->reason[0] == '\0')
		t2_reason(c, "the TPM cannot be used");
	t2_tcti_release(&c->tcti, T2_HOLD_MS);
	r = 0;
	*ret = c;
	c = NULL;
out:
	if (c != NULL)
		ctx_free(c);
	return r;
}

void t2_close(struct csm_plugin_ctx *c)
{
	if (c == NULL)
		return;
	t2_fresh_drop(c);
	if (c->ready && t2_evict_all(c) == TSS2_RC_SUCCESS) {
		if (c->loose != 0)
			(void)t2_cmd_flush(c, c->loose);
		if (c->srk.endorsement && c->srk.handle != 0)
			(void)t2_cmd_flush(c, c->srk.handle);
		if (c->session.handle != 0 && t2_cmd_flush(c, c->session.handle) == TSS2_RC_SUCCESS) {
			c->session.handle = 0;
			t2_note_session(c);
		}
		/* The kernel does this for a device. Without it the next start would be after a power cut. */
		if (c->tcti.stream && !c->shared)
			(void)t2_cmd_shutdown(c);
	}
	ctx_free(c);
}

void t2_idle(struct csm_plugin_ctx *c)
{
	t2_tcti_release(&c->tcti, 0);
}

struct random_arg {
	uint8_t *p;
	size_t len;
};

static TSS2_RC random_step(struct csm_plugin_ctx *c, void *arg)
{
	struct t2_auth a = {.flags = TPMA_SESSION_ENCRYPT};
	struct random_arg *q = arg;
	TPM2B_DIGEST out;
	size_t done = 0;
	TSS2_RC rc;

	while (done < q->len) {
		size_t n = q->len - done > T2_HASH_LEN ? T2_HASH_LEN : q->len - done;

		out.size = 0;
		if ((rc = Tss2_Sys_GetRandom_Prepare(c->sys, (UINT16)n)) != TSS2_RC_SUCCESS ||
			(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS ||
			(rc = Tss2_Sys_GetRandom_Complete(c->sys, &out)) != TSS2_RC_SUCCESS)
			return rc;
		t2_sys_wipe(c);
		if (out.size == 0 || out.size > n)
			return T2_RC_BAD_ANSWER;
		memcpy(q->p + done, out.buffer, out.size);
		done += out.size;
	}
	OPENSSL_cleanse(&out, sizeof(out));
	return TSS2_RC_SUCCESS;
}

int t2_random(struct csm_plugin_ctx *c, uint8_t *p, size_t len)
{
	struct random_arg a = {p, len};

	return t2_run(c, random_step, &a);
}

const struct csm_plugin csm_plugin_tpm2 = {
	.abi = CSM_PLUGIN_ABI,
	.name = "tpm2",
	.flags = CSM_PLUGIN_SERIAL,
	.probe = probe,
	.open = t2_open,
	.close = t2_close,
	.capabilities = t2_capabilities,
	.health = t2_health,
	.generate = t2_generate,
	.storage_key = t2_storage_key,
	.import = t2_import,
	.load = t2_load,
	.unload = t2_unload,
	.public_key = t2_public_key,
	.sign = t2_sign,
	.decrypt = t2_decrypt,
	.derive = t2_derive,
	.seal = t2_seal,
	.unseal = t2_unseal,
	.counter_read = t2_counter_read,
	.counter_increment = t2_counter_increment,
	.random = t2_random,
	.attest = t2_attest,
	.activate = t2_activate,
	.witness = t2_witness,
	.idle = t2_idle,
	.adopt = t2_adopt,
};
