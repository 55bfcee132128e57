/* Input and output of csm(1). What passes may be secret: no stdio buffers. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <sodium.h>
#include "libclient/base/duration.h"
#include "libclient/base/lockmem.h"
#include "libclient/base/pem.h"
#include "libclient/cli/cli.h"

#define CHUNK 16384u

int parse_u64(const char *what, const char *s, uint64_t max, uint64_t *ret)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(s, &end, 10);
	if (*s < '0' || *s > '9' || *end != '\0' || errno != 0 || v > max)
		return cli_usage("%s is not a number from 0 to %llu", what, (unsigned long long)max);
	*ret = v;
	return 0;
}

int parse_life(const char *what, const char *s, uint64_t max, uint64_t *ret)
{
	char most[CSM_DURATION_TEXT];
	int r = csm_duration_parse(csm_str_of(s), max, ret);

	if (r == CSM_ETOO_LARGE)
		return cli_usage("%s: at most %s", what, csm_duration_text(max, most));
	return r == 0 ? 0 : cli_usage("%s: not a number with a unit (" CSM_DURATION_UNITS "): %s", what, s);
}

static bool parse_date(const char *s, uint64_t *ret)
{
	static const char *const forms[] = {"%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = {0};
		const char *end = strptime(s, forms[i], &tm);
		int day = tm.tm_mday;
		time_t at = end != NULL && *end == '\0' ? timegm(&tm) : -1;

		if (at < 0 || tm.tm_mday != day) /* there is no 31st of February */
			continue;
		*ret = (uint64_t)at;
		return true;
	}
	return false;
}

int parse_time(const char *what, const char *s, uint64_t *ret)
{
	uint64_t now = (uint64_t)time(NULL), by = 0;

	if (*s == '+' || *s == '-') {
		if (parse_life(what, s + 1, *s == '+' ? INT64_MAX - now : now, &by) != 0)
			return -EXIT_USAGE;
		*ret = *s == '+' ? now + by : now - by;
		return 0;
	}
	if (*s != '\0' && s[strspn(s, "0123456789")] == '\0')
		return parse_u64(what, s, INT64_MAX, ret);
	if (!parse_date(s, ret))
		return cli_usage("%s: not a time like 2026-01-02, 2026-01-02T03:04:05Z, +30d or -7d: %s", what, s);
	return 0;
}

int io_read_some(int fd, const char *path, void *p, size_t n, size_t *got)
{
	ssize_t k;

	do
		k = read(fd, p, n);
	while (k < 0 && errno == EINTR);
	if (k < 0)
		return client_err_errno(CSM_ESYSTEM, strcmp(path, "-") == 0 ? "standard input" : path);
	*got = (size_t)k;
	return 0;
}

static int read_all(int fd, const char *path, struct csm_buf *b)
{
	size_t got;
	int r;

	do {
		/* one byte above the cap tells too much from just enough */
		size_t room = b->max - b->len < CHUNK ? b->max - b->len : CHUNK;
		uint8_t *to, extra;

		if (room == 0) {
			r = io_read_some(fd, path, &extra, 1, &got);
			if (r != 0 || got == 0)
				return r;
			return client_err(CSM_ETOO_LARGE, "the input is above %zu bytes", b->max);
		}
		r = csm_buf_reserve(b, room, &to);
		if (r != 0)
			return client_err_plain(r);
		r = io_read_some(fd, path, to, room, &got);
		if (r != 0)
			return r;
		csm_buf_commit(b, got);
	} while (got > 0);
	return 0;
}

int io_read(const char *path, struct csm_buf *b)
{
	int fd, r;

	if (strcmp(path, "-") == 0)
		return read_all(STDIN_FILENO, path, b);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return client_err_errno(CSM_ESYSTEM, path);
	r = read_all(fd, path, b);
	(void)close(fd);
	return r;
}

void put_plain(FILE *f, const char *p, size_t n, bool lines)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)p[i];
		/* of UTF-8, the C1 controls (U+0080 to U+009F) too; c2 begins a sequence only */
		bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] <= 0x9f;

		i += c1;
		fputs(c1 ? "?" : "", f);
		fputc((c < 0x20 && !(lines && c == '\n')) || c == 0x7f || c1 ? '?' : c, f);
	}
}

int io_write(int fd, const void *p, size_t n)
{
	const uint8_t *at = p;

	csm_wipe_stack(SIZE_MAX);
	while (n > 0) {
		ssize_t k = write(fd, at, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return client_err_errno(CSM_ESYSTEM, "the output cannot be written");
		at += k;
		n -= (size_t)k;
	}
	return 0;
}

/* A file is replaced as a whole. A device, a pipe, or what a link like /dev/stdout leads to is written
 * to as it is. */
static bool replaceable(const char *path)
{
	struct stat st;

	return lstat(path, &st) != 0 ? errno == ENOENT : S_ISREG(st.st_mode);
}

/* Public data is for whom the umask lets it be, and goes into a file of the mode that the old one had. */
static int make_public(const struct out *o)
{
	mode_t mask = umask(0);
	struct stat st;

	(void)umask(mask);
	if (fchmod(o->fd, stat(o->path, &st) == 0 ? st.st_mode & 0777 : 0666 & ~mask) != 0)
		return client_err_errno(CSM_ESYSTEM, o->path);
	return 0;
}

int out_open(struct cli *cli, bool binary, struct out *o)
{
	int r;

	/* Here, and at each write: the reader may take his time. Meanwhile nothing of a value is where the swap could get it:
	 * the dynamic linker, for one, leaves vector registers on the stack. */
	csm_wipe_stack(SIZE_MAX);
	*o = (struct out){.fd = STDOUT_FILENO, .path = cli->value[O_OUTPUT]};
	if (o->path == NULL || strcmp(o->path, "-") == 0) {
		o->path = NULL;
		if (binary && isatty(STDOUT_FILENO))
			return cli_usage("binary output does not go to a terminal: use -o FILE, or a pipe");
		return 0;
	}
	if (replaceable(o->path)) {
		if (asprintf(&o->temp, "%s.XXXXXX", o->path) < 0)
			return client_err_plain(CSM_ENOMEM);
		o->fd = mkostemp(o->temp, O_CLOEXEC);
	} else {
		o->fd = open(o->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	}
	if (o->fd < 0) {
		free(o->temp);
		return client_err_errno(CSM_ESYSTEM, o->path);
	}
	if (o->temp != NULL && (cli->cmd->opts & OUTPUT_PUBLIC) != 0 && (r = make_public(o)) != 0)
		return out_close(o, r);
	return 0;
}

int out_close(struct out *o, int r)
{
	if (o->path == NULL)
		return r;
	if (close(o->fd) != 0 && r == 0)
		r = client_err_errno(CSM_ESYSTEM, o->path);
	if (o->temp == NULL)
		return r;
	if (r == 0 && rename(o->temp, o->path) != 0)
		r = client_err_errno(CSM_ESYSTEM, o->path);
	if (r != 0)
		(void)unlink(o->temp);
	free(o->temp);
	return r;
}

int out_put(struct cli *cli, bool binary, const void *p, size_t n)
{
	struct out o;
	int r = out_open(cli, binary, &o);

	if (r != 0)
		return r;
	return out_close(&o, io_write(o.fd, p, n));
}

/* ---- PEM ---- */

int pem_put(struct csm_buf *b, const char *label, const void *der, size_t n)
{
	int r = csm_pem_put(b, label, der, n);

	return r != 0 ? client_err_plain(r) : 0;
}

static int decode_base64(const char *from, size_t n, struct csm_buf *der)
{
	size_t got;
	uint8_t *to;
	int r = csm_buf_reserve(der, n, &to);

	if (r != 0)
		return client_err_plain(r);
	if (n > INT_MAX || sodium_base642bin(to, n, from, n, " \t\r\n", &got, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
		return client_err(CSM_EINVALID, "the PEM input is not base64");
	csm_buf_commit(der, got);
	return 0;
}

int pem_get(const void *p, size_t n, const char *label, struct csm_buf *der)
{
	char begin[80], end[80];
	int begin_n = snprintf(begin, sizeof(begin), "-----BEGIN %s-----", label);
	int end_n = snprintf(end, sizeof(end), "-----END %s-----", label);
	const char *from = memmem(p, n, begin, (size_t)begin_n);
	const char *to;

	if (from == NULL)
		return client_err(CSM_EINVALID, "the input holds no %s", label);
	from += begin_n;
	to = memmem(from, n - (size_t)(from - (const char *)p), end, (size_t)end_n);
	if (to == NULL)
		return client_err(CSM_EINVALID, "the %s is cut off", label);
	return decode_base64(from, (size_t)(to - from), der);
}
