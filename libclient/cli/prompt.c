/* A secret value typed at the terminal, without echo. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <sodium.h>
#include "libclient/cli/cli.h"

#define CTRL_C 3

static int read_line(int tty, struct csm_buf *b)
{
	for (;;) {
		size_t got;
		uint8_t *to;
		int r = csm_buf_reserve(b, 1, &to);

		if (r != 0)
			return client_err_plain(r);
		r = io_read_some(tty, "/dev/tty", to, 1, &got);
		if (r != 0)
			return r;
		if (got > 0 && *to == '\n')
			return 0;
		/* the end of the terminal is no value, least of all an empty one */
		if (got == 0 || *to == CTRL_C)
			return client_err(CSM_EINVALID, "given up");
		csm_buf_commit(b, 1);
	}
}

/* A slip of the finger is not seen as it is typed, and not found later. */
static int read_twice(int tty, struct csm_str name, struct csm_buf *b)
{
	struct csm_buf again;
	int r;

	(void)dprintf(tty, "%.*s: ", (int)name.n, name.p);
	if ((r = read_line(tty, b)) != 0)
		return r;
	csm_buf_init(&again, CSM_SECRET_MAX, true);
	(void)dprintf(tty, "\n%.*s again: ", (int)name.n, name.p);
	r = read_line(tty, &again);
	if (r == 0 && (again.len != b->len || (b->len > 0 && sodium_memcmp(csm_buf_ptr(&again), csm_buf_ptr(b), b->len) != 0)))
		r = client_err(CSM_EINVALID, "what was typed for %.*s is not the same twice", (int)name.n, name.p);
	csm_buf_free(&again);
	return r;
}

static int read_once(int tty, struct csm_str name, struct csm_buf *b)
{
	(void)dprintf(tty, "%.*s: ", (int)name.n, name.p);
	return read_line(tty, b);
}

/* Ask on the terminal, where there is one: CSM_ENOT_FOUND. */
static int prompt(struct csm_str name, struct csm_buf *b, int (*ask)(int tty, struct csm_str name, struct csm_buf *b))
{
	struct termios old, quiet;
	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY), r;

	if (tty < 0 || tcgetattr(tty, &old) != 0) {
		if (tty >= 0)
			(void)close(tty);
		return CSM_ENOT_FOUND;
	}
	quiet = old;
	/* ^C ends the line and is read: a signal would leave the terminal without echo */
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
	quiet.c_cc[VEOL] = CTRL_C;
	if (tcsetattr(tty, TCSAFLUSH, &quiet) != 0) {
		r = client_err_errno(CSM_ESYSTEM, "/dev/tty");
		goto out;
	}
	r = ask(tty, name, b);
	(void)tcsetattr(tty, TCSAFLUSH, &old);
	(void)dprintf(tty, "\n");
out:
	(void)close(tty);
	return r;
}

int prompt_secret(struct csm_str name, struct csm_buf *b)
{
	int r = prompt(name, b, read_twice);

	if (r != CSM_ENOT_FOUND)
		return r;
	return cli_usage("there is no terminal to ask for %.*s: use %.*s=- or %.*s=@FILE", (int)name.n, name.p, (int)name.n,
		name.p, (int)name.n, name.p);
}

int prompt_passphrase(struct csm_str name, struct csm_buf *b)
{
	int r = prompt(name, b, read_once);

	return r == CSM_ENOT_FOUND ? cli_usage("there is no terminal to ask for %.*s", (int)name.n, name.p) : r;
}
