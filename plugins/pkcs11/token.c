/* Finding the token, and the PIN.
 *
 * A wrong PIN is tried once: tokens lock themselves after a few. The host keeps what was refused, over restarts, until
 * its configuration changes. A try is recorded before it is made: one that was cut short counts as refused when the
 * token itself tells of a wrong PIN. */
#include <string.h>
#include <syslog.h>
#include "libclient/base/lockmem.h"
#include "plugins/pkcs11/pkcs11.h"

#define SLOTS_MAX 256u
#define PIN_RECORD "pkcs11-pin"

int p11_uri_token(const char *text, P11KitUri **ret)
{
	P11KitUri *uri = p11_kit_uri_new();
	CK_ULONG n = 0;

	if (uri == NULL)
		return CSM_ENOMEM;
	/* A PIN in the configuration, the attributes of an object and what is not known are refused, not passed by. */
	if (p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri) != P11_KIT_URI_OK ||
		p11_kit_uri_any_unrecognized(uri) != 0 || p11_kit_uri_get_pin_value(uri) != NULL ||
		p11_kit_uri_get_pin_source(uri) != NULL || p11_kit_uri_get_module_path(uri) != NULL ||
		p11_kit_uri_get_module_name(uri) != NULL ||
		(p11_kit_uri_get_attributes(uri, &n) != NULL && n != 0)) {
		p11_kit_uri_free(uri);
		return CSM_EINVALID;
	}
	*ret = uri;
	return 0;
}

/* ---- the slot ---- */

static bool slot_matches(struct csm_plugin_ctx *ctx, CK_SLOT_ID id, CK_TOKEN_INFO *token)
{
	CK_SLOT_ID wanted = p11_kit_uri_get_slot_id(ctx->uri);
	CK_SLOT_INFO slot = {0};

	memset(token, 0, sizeof(*token));
	return (wanted == (CK_SLOT_ID)-1 || wanted == id) && ctx->f->C_GetSlotInfo(id, &slot) == CKR_OK &&
		p11_kit_uri_match_slot_info(ctx->uri, &slot) != 0 &&
		ctx->f->C_GetTokenInfo(id, token) == CKR_OK && (token->flags & CKF_TOKEN_INITIALIZED) != 0 &&
		p11_kit_uri_match_token_info(ctx->uri, token) != 0;
}

/* The one token that the URI names. With two of a name it would be chance which of them is used. */
static int slot_find(struct csm_plugin_ctx *ctx)
{
	CK_SLOT_ID ids[SLOTS_MAX];
	CK_ULONG n = SLOTS_MAX;
	CK_TOKEN_INFO token;
	unsigned found = 0;
	CK_RV rv;

	if ((rv = ctx->f->C_GetSlotList(CK_TRUE, ids, &n)) != CKR_OK || n > SLOTS_MAX) {
		ctx->reason = "the library does not list its slots";
		p11_log(ctx, LOG_INFO, ctx->reason, rv);
		return CSM_EUNAVAILABLE;
	}
	for (CK_ULONG i = 0; i < n; i++)
		if (slot_matches(ctx, ids[i], &token)) {
			ctx->slot = ids[i];
			ctx->token = token;
			found++;
		}
	if (found == 1)
		return 0;
	ctx->reason = found == 0 ? "the token is not there" : "more than one token has what the URI names";
	return CSM_EUNAVAILABLE;
}

/* ---- the PIN ---- */

/* Is a try on record whose answer never came? */
static bool try_open(const struct csm_plugin_ctx *ctx)
{
	uint8_t open = 0;
	size_t n = sizeof(open);

	return ctx->host->recall != NULL && ctx->host->recall(ctx->host->arg, PIN_RECORD, &open, &n) == 0 &&
		n == sizeof(open) && open == 1;
}

static int try_record(const struct csm_plugin_ctx *ctx, uint8_t open)
{
	if (ctx->host->remember == NULL)
		return 0;
	return ctx->host->remember(ctx->host->arg, PIN_RECORD, &open, sizeof(open));
}

static bool pin_refused(CK_RV rv)
{
	return rv == CKR_PIN_INCORRECT || rv == CKR_PIN_INVALID || rv == CKR_PIN_LEN_RANGE || rv == CKR_PIN_EXPIRED ||
		rv == CKR_PIN_LOCKED || rv == CKR_USER_PIN_NOT_INITIALIZED;
}

static const char refused_before[] =
	"the token refused the PIN; it is not tried again before the configuration changes";

static int refuse(struct csm_plugin_ctx *ctx, const char *why)
{
	ctx->pin = P11_PIN_REFUSED;
	ctx->reason = why;
	return 0; /* the token is there: what it can do is known, only nothing is done */
}

static int refuse_for_good(struct csm_plugin_ctx *ctx)
{
	if (ctx->host->secret_refused != NULL)
		ctx->host->secret_refused(ctx->host->arg, "pin");
	return refuse(ctx, refused_before);
}

static int login_with(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, uint8_t *pin, size_t n)
{
	bool first = ctx->pin == P11_PIN_UNKNOWN;
	CK_RV rv;

	/* No record, no try: what a crash cuts short could not be told from a first time. */
	if (first && try_record(ctx, 1) != 0) {
		ctx->reason = "that the PIN is tried cannot be recorded";
		return CSM_EUNAVAILABLE;
	}
	rv = ctx->f->C_Login(session, CKU_USER, pin, n);
	csm_wipe_stack(8192);
	if (pin_refused(rv))
		(void)refuse_for_good(ctx);
	if (first && (rv == CKR_OK || pin_refused(rv)))
		(void)!try_record(ctx, 0);
	if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) {
		ctx->pin = P11_PIN_GOOD;
		return 0;
	}
	p11_log(ctx, LOG_WARNING, "login", rv);
	if (pin_refused(rv))
		return 0;
	ctx->reason = "the login failed";
	return CSM_EUNAVAILABLE;
}

static int login(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session)
{
	const struct csm_plugin_host *host = ctx->host;
	CK_FLAGS flags = ctx->token.flags;
	CSM_WIPED(pin, P11_PIN_MAX);
	size_t n = sizeof(pin);
	int r;

	if ((flags & CKF_LOGIN_REQUIRED) == 0) {
		ctx->pin = P11_PIN_GOOD;
		return 0;
	}
	if (ctx->pin == P11_PIN_REFUSED)
		return refuse(ctx, refused_before);
	if ((flags & CKF_USER_PIN_LOCKED) != 0)
		return refuse(ctx, "the token has locked its PIN");
	if ((flags & CKF_USER_PIN_FINAL_TRY) != 0)
		return refuse(ctx, "the token allows one more try of the PIN only: csm leaves that to you");
	if (ctx->pin == P11_PIN_UNKNOWN && (flags & CKF_USER_PIN_COUNT_LOW) != 0 && try_open(ctx))
		return refuse_for_good(ctx);
	r = host->secret != NULL ? host->secret(host->arg, "pin", pin, &n) : CSM_ENOT_FOUND;
	if (r == 0)
		return login_with(ctx, session, pin, n);
	if (r == CSM_EDENIED)
		return refuse(ctx, refused_before);
	if (r == CSM_ENOT_FOUND)
		return refuse(ctx, "no PIN is configured");
	ctx->reason = "the PIN is not to be had";
	return CSM_EUNAVAILABLE;
}

/* ---- up and down ---- */

void p11_take_down(struct csm_plugin_ctx *ctx)
{
	for (unsigned i = 0; i < P11_SESSIONS_MAX; i++)
		ctx->pool[i] = (struct p11_session){0};
	if (ctx->initialized)
		(void)ctx->f->C_Finalize(NULL);
	ctx->initialized = false;
}

static int initialize(struct csm_plugin_ctx *ctx)
{
	CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
	CK_RV rv = ctx->f->C_Initialize(&args);

	ctx->sessions = ctx->sessions_wanted;
	if (rv == CKR_CANT_LOCK) { /* then one thread at a time: one session */
		ctx->sessions = 1;
		rv = ctx->f->C_Initialize(NULL);
	}
	if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		ctx->reason = "the library does not start";
		p11_log(ctx, LOG_WARNING, "C_Initialize", rv);
		return CSM_EUNAVAILABLE;
	}
	ctx->initialized = true;
	return 0;
}

int p11_bring_up(struct csm_plugin_ctx *ctx)
{
	struct p11_session *first = &ctx->pool[0];
	CK_RV rv;
	int r;

	p11_take_down(ctx);
	ctx->reason = NULL;
	if ((r = initialize(ctx)) != 0 || (r = slot_find(ctx)) != 0)
		return r;
	if ((rv = ctx->f->C_OpenSession(ctx->slot, CKF_SERIAL_SESSION, NULL, NULL, &first->h)) != CKR_OK) {
		ctx->reason = "the token gives no session";
		p11_log(ctx, LOG_WARNING, "C_OpenSession", rv);
		return CSM_EUNAVAILABLE;
	}
	first->open = true;
	if ((r = login(ctx, first->h)) != 0)
		return r;
	if (ctx->caps.protection == NULL)
		p11_caps_read(ctx, first->h);
	p11_log(ctx, LOG_DEBUG, "the token is up", CKR_OK);
	return 0;
}
