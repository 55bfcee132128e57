#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/svc/log.h"

#define LINE_MAX_BYTES 1024

static atomic_int max_level = LOG_INFO;

void csm_log_level(int level)
{
	max_level = level;
}

static const struct {
	const char *name;
	int level;
} levels[] = {{"error", LOG_ERR}, {"warning", LOG_WARNING}, {"info", LOG_INFO}, {"debug", LOG_DEBUG}};

int csm_log_parse_level(const char *name)
{
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (strcmp(levels[i].name, name) == 0)
			return levels[i].level;
	return -1;
}

static const char *level_name(int level)
{
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (levels[i].level == level)
			return levels[i].name;
	return "error";
}

/* Copy text as the inside of a quoted string; what does not fit is cut. */
static size_t put_escaped(char *out, size_t cap, const char *text)
{
	size_t n = 0;

	for (; *text != '\0' && n + 5 < cap; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\') {
			out[n++] = '\\';
			out[n++] = (char)c;
		} else if (c < 0x20 || c == 0x7f) {
			n += (size_t)snprintf(out + n, cap - n, "\\x%02x", c);
		} else {
			out[n++] = (char)c;
		}
	}
	return n;
}

void csm_log(int level, const char *fmt, ...)
{
	char text[LINE_MAX_BYTES / 2], line[LINE_MAX_BYTES];
	va_list ap;
	size_t n;

	if (level > max_level)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = (size_t)snprintf(line, sizeof(line), "level=%s pid=%d msg=\"", level_name(level), (int)getpid());
	n += put_escaped(line + n, sizeof(line) - n - 2, text);
	line[n++] = '"';
	line[n++] = '\n';
	/* A log that cannot be written is no reason to stop. */
	ssize_t w = write(STDERR_FILENO, line, n);
	(void)w;
}
