/* Structured log lines on standard error: `level=warning msg="..." key=value`. Any thread; a line is
 * one write. Values of keys and secrets have no way in: callers pass names, codes and numbers. */
#ifndef CSM_SVC_LOG_H
#define CSM_SVC_LOG_H

#include <syslog.h>

void csm_log_level(int level); /* LOG_ERR .. LOG_DEBUG; LOG_INFO at first */
int csm_log_parse_level(const char *name); /* "error", "warning", "info", "debug"; -1 */
/* Control characters, quotes and backslashes of the text are escaped. */
void csm_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_err(...) csm_log(LOG_ERR, __VA_ARGS__)
#define log_warn(...) csm_log(LOG_WARNING, __VA_ARGS__)
#define log_info(...) csm_log(LOG_INFO, __VA_ARGS__)
#define log_debug(...) csm_log(LOG_DEBUG, __VA_ARGS__)

#endif
