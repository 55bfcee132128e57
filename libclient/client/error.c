#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "libclient/client/internal.h"

#define MESSAGE_MAX 640u

static __thread char last_message[MESSAGE_MAX];
static __thread uint32_t last_retry_after;
static __thread struct client_nonce last_nonce;

const char *csm_error_message(void)
{
	return last_message;
}

uint32_t csm_error_retry_after_ms(void)
{
	return last_retry_after;
}

const char *csm_error_name(int code)
{
	return code == 0 ? "ok" : csm_err_name(code);
}

const char *csm_error_text(int code)
{
	return code == 0 ? "done" : csm_err_text(code);
}

bool csm_error_retryable(int code)
{
	return csm_err_retryable(code);
}

const char *csm_version(void)
{
	return CSM_VERSION;
}

struct client_nonce client_err_nonce(void)
{
	return last_nonce;
}

void client_err_clear(void)
{
	last_nonce.n = 0;
	last_message[0] = '\0';
	last_retry_after = 0;
}

void client_note(const char *fmt, ...)
{
	va_list ap;

	last_retry_after = 0;
	last_nonce.n = 0;
	va_start(ap, fmt);
	if (vsnprintf(last_message, sizeof(last_message), fmt, ap) < 0)
		last_message[0] = '\0';
	va_end(ap);
}

void client_note_errno(const char *what)
{
	char text[128];

	/* the GNU form: the text may be elsewhere than in the buffer */
	client_note("%s: %s", what, strerror_r(errno, text, sizeof(text)));
}

/* Daemon text is for people's terminals: no control characters. */
static void printable(char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

int client_err_decode(struct csm_bin error)
{
	struct csm_msg_error e;
	struct csm_str bad;
	struct csm_pool pool;
	int r;

	csm_pool_init(&pool, CLIENT_POOL_MAX);
	r = csm_msg_decode(CSM_DEF(error), error, CSM_UNKNOWN_SKIP, &pool, &e, &bad);
	if (r != 0) {
		r = client_err(CSM_EPROTOCOL, "the daemon sent an error that cannot be read");
		goto out;
	}
	/* a code of a later version, or one that never crosses the wire, is a failure without a name */
	r = (int)e.code.v;
	if (e.code.v > 99 || r == 0 || strcmp(csm_err_name(r), "unknown") == 0)
		r = CSM_EINTERNAL;
	client_note("%.*s", (int)e.message.n, e.message.p);
	printable(last_message);
	last_retry_after = (uint32_t)e.retry_after_ms.v;
	if (r == CSM_EPROOF_REQUIRED && e.nonce.n > 0 && e.nonce.n <= CLIENT_NONCE_MAX) {
		memcpy(last_nonce.b, e.nonce.p, e.nonce.n);
		last_nonce.n = e.nonce.n;
	}
out:
	csm_pool_free(&pool);
	return r;
}

uint64_t client_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

deadline_t client_deadline(uint32_t timeout_ms)
{
	return timeout_ms == 0 ? UINT64_MAX : client_now() + (uint64_t)timeout_ms * 1000000u;
}

int client_left_ms(deadline_t d)
{
	uint64_t now = client_now();

	if (d == UINT64_MAX)
		return -1;
	if (d <= now)
		return 0;
	d = (d - now + 999999u) / 1000000u;
	return d > INT_MAX ? INT_MAX : (int)d;
}
