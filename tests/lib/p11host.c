#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>
#include "tests/fault/badtoken.h"
#include "tests/lib/p11host.h"

struct p11host_conf p11host_conf;

static const char *host_config(void *arg, const char *name)
{
	(void)arg;
	return strcmp(name, "module") == 0 ? p11host_conf.module
		: strcmp(name, "token") == 0 ? p11host_conf.uri
		: strcmp(name, "sessions") == 0 ? p11host_conf.sessions
		: strcmp(name, "algs") == 0 ? p11host_conf.algs
					    : NULL;
}

static int host_secret(void *arg, const char *name, uint8_t *p, size_t *len)
{
	(void)arg;
	assert_string_equal(name, "pin");
	p11host_conf.asked++;
	if (p11host_conf.refused)
		return CSM_EDENIED;
	if (p11host_conf.pin == NULL)
		return CSM_ENOT_FOUND;
	memcpy(p, p11host_conf.pin, strlen(p11host_conf.pin));
	*len = strlen(p11host_conf.pin);
	return 0;
}

static void host_refused(void *arg, const char *name)
{
	(void)arg;
	assert_string_equal(name, "pin");
	p11host_conf.refused = true;
}

static int host_remember(void *arg, const char *name, const uint8_t *p, size_t len)
{
	(void)arg;
	(void)name;
	memcpy(p11host_conf.record, p, len);
	p11host_conf.record_len = len;
	return 0;
}

static int host_recall(void *arg, const char *name, uint8_t *p, size_t *len)
{
	(void)arg;
	(void)name;
	if (p11host_conf.record_len == 0)
		return CSM_ENOT_FOUND;
	memcpy(p, p11host_conf.record, p11host_conf.record_len);
	*len = p11host_conf.record_len;
	return 0;
}

static void host_log(void *arg, int level, const char *text)
{
	(void)arg;
	(void)level;
	assert_null(strstr(text, BADTOKEN_PIN));
}

const struct csm_plugin_host p11host = {
	.config = host_config,
	.secret = host_secret,
	.secret_refused = host_refused,
	.remember = host_remember,
	.recall = host_recall,
	.log = host_log,
};
