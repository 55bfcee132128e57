/* The PKCS#11 back end's table: opening, closing, health. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include "plugins/pkcs11/pkcs11.h"

static const char *config(const struct csm_plugin_ctx *ctx, const char *name)
{
	return ctx->host->config != NULL ? ctx->host->config(ctx->host->arg, name) : NULL;
}

static int sessions_read(struct csm_plugin_ctx *ctx)
{
	const char *text = config(ctx, "sessions");
	unsigned long n;
	char *end;

	ctx->sessions_wanted = P11_SESSIONS_DEFAULT;
	if (text == NULL)
		return 0;
	errno = 0;
	n = strtoul(text, &end, 10);
	if (text[0] < '1' || text[0] > '9' || *end != '\0' || errno != 0 || n > P11_SESSIONS_MAX) {
		p11_log(ctx, LOG_WARNING, "sessions: a number from 1 to 64 is required", CKR_OK);
		return CSM_EINVALID;
	}
	ctx->sessions_wanted = (unsigned)n;
	return 0;
}

static int algs_check(const struct csm_plugin_ctx *ctx)
{
	const char *at = config(ctx, "algs");
	enum csm_alg alg;
	size_t n;

	for (; at != NULL && *at != '\0'; at += n + strspn(at + n, ", ")) {
		n = strcspn(at, ", ");
		if (csm_alg_parse((struct csm_str){at, n}, &alg) != 0) {
			p11_log(ctx, LOG_WARNING, "algs: names of algorithms are required, with commas", CKR_OK);
			return CSM_EINVALID;
		}
	}
	return 0;
}

static int config_read(struct csm_plugin_ctx *ctx)
{
	const char *token = config(ctx, "token");
	int r;

	if ((r = sessions_read(ctx)) != 0 || (r = algs_check(ctx)) != 0)
		return r;
	r = token != NULL ? p11_uri_token(token, &ctx->uri) : CSM_EINVALID;
	if (r == CSM_EINVALID)
		p11_log(ctx, LOG_WARNING, "token: the PKCS#11 URI of a token is required, without PIN, module and object",
			CKR_OK);
	return r != 0 ? r : p11_module_load(ctx, config(ctx, "module"));
}

static void be_close(struct csm_plugin_ctx *ctx)
{
	if (ctx == NULL)
		return;
	if (ctx->f != NULL)
		p11_take_down(ctx);
	p11_kit_uri_free(ctx->uri);
	pthread_cond_destroy(&ctx->freed);
	pthread_mutex_destroy(&ctx->lock);
	free(ctx);
}

static int be_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret)
{
	struct csm_plugin_ctx *ctx = calloc(1, sizeof(*ctx));
	pthread_condattr_t attr;
	struct p11_use use;
	int r;

	if (ctx == NULL)
		return CSM_ENOMEM;
	ctx->host = host;
	pthread_mutex_init(&ctx->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ctx->freed, &attr);
	pthread_condattr_destroy(&attr);
	if ((r = config_read(ctx)) != 0)
		goto out;
	if ((r = p11_begin(ctx, &use)) != 0) {
		if (ctx->reason != NULL)
			p11_log(ctx, LOG_WARNING, ctx->reason, CKR_OK);
		goto out;
	}
	p11_end(ctx, &use, CKR_OK);
	if (ctx->reason != NULL)
		p11_log(ctx, LOG_WARNING, ctx->reason, CKR_OK);
	*ret = ctx;
	ctx = NULL;
out:
	be_close(ctx);
	return r;
}

static int be_capabilities(struct csm_plugin_ctx *ctx, struct csm_plugin_caps *ret)
{
	*ret = ctx->caps;
	return 0;
}

/* Only what is known: asking the token could take long, and would be in the way of those who use it. */
static void be_health(struct csm_plugin_ctx *ctx, struct csm_plugin_health *ret)
{
	*ret = (struct csm_plugin_health){.usable = false};
	pthread_mutex_lock(&ctx->lock);
	ret->usable = ctx->up && ctx->pin == P11_PIN_GOOD;
	ret->reason = ret->usable ? NULL : ctx->reason;
	pthread_mutex_unlock(&ctx->lock);
}

const struct csm_plugin csm_plugin_pkcs11 = {
	.abi = CSM_PLUGIN_ABI,
	.name = "pkcs11",
	.open = be_open,
	.close = be_close,
	.capabilities = be_capabilities,
	.health = be_health,
	.generate = p11_generate,
	.load = p11_load,
	.unload = p11_unload,
	.public_key = p11_public_key,
	.sign = p11_sign,
	.decrypt = p11_decrypt,
	.derive = p11_derive,
	.random = p11_random,
	.find = p11_adopt,
	.discard = p11_discard,
};
