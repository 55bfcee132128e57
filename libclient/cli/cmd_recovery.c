/* Recovery shares: made once, given to people, asked of them when a TPM is gone. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "libclient/base/share.h"
#include "libclient/cli/cli.h"

#define FILE_MAX 4096u
#define LINE_MAX_OUT 400u

int cmd_recovery_status(struct cli *cli)
{
	struct csm_msg_empty req = {0};

	return cli_show(cli, CSM_M_RECOVERY_STATUS, &req);
}

/* ---- create ---- */

static int share_lines(const struct csm_msg_recovery_create_res *res, size_t i, char out[static LINE_MAX_OUT])
{
	return snprintf(out, LINE_MAX_OUT, "# csm recovery share %zu of %zu: any %u of set %s bring the root key back\n%s\n", i + 1,
		res->shares.n, (unsigned)res->threshold.v, res->set.p, res->shares.v[i].p);
}

static int write_share(const char *dir, const struct csm_msg_recovery_create_res *res, size_t i)
{
	CSM_WIPED(text, LINE_MAX_OUT);
	char path[PATH_MAX];
	int n = share_lines(res, i, (char *)text), fd, r;

	if ((size_t)snprintf(path, sizeof(path), "%s/share-%zu-of-%zu.txt", dir, i + 1, res->shares.n) >= sizeof(path))
		return client_err(CSM_ETOO_LARGE, "%s is too long", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return client_err_errno(CSM_ESYSTEM, path);
	r = io_write(fd, text, (size_t)n);
	if (r == 0 && fsync(fd) != 0)
		r = client_err_errno(CSM_ESYSTEM, path);
	if (close(fd) != 0 && r == 0)
		r = client_err_errno(CSM_ESYSTEM, path);
	return r;
}

/* On a terminal one at a time, each for its keeper, and gone from the screen before the next. */
static int show_share(const struct csm_msg_recovery_create_res *res, size_t i, bool tty)
{
	static const char next[] = "\nCopy it, then press Enter: it is not shown again. ", clear[] = "\033[H\033[2J\033[3J";
	CSM_WIPED(text, LINE_MAX_OUT);
	int n = share_lines(res, i, (char *)text), r = io_write(STDOUT_FILENO, text, (size_t)n);
	size_t got = 1;
	char c = 0;

	if (r != 0 || !tty)
		return r;
	r = io_write(STDOUT_FILENO, next, sizeof(next) - 1);
	while (r == 0 && got == 1 && c != '\n')
		r = io_read_some(STDIN_FILENO, "-", &c, 1, &got);
	return r != 0 ? r : io_write(STDOUT_FILENO, clear, sizeof(clear) - 1);
}

static int give_shares(struct cli *cli, const struct csm_msg_recovery_create_res *res)
{
	bool tty = isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
	int r = 0;

	for (size_t i = 0; r == 0 && i < res->shares.n; i++)
		r = cli->arg_n > 0 ? write_share(cli->arg[0], res, i) : show_share(res, i, tty);
	return r;
}

static int parse_numbers(struct cli *cli, uint64_t *n, uint64_t *k)
{
	int r;

	if (cli->value[O_SHARES] == NULL || cli->value[O_THRESHOLD] == NULL)
		return cli_usage("--shares and --threshold are needed");
	if ((r = parse_u64("--shares", cli->value[O_SHARES], CSM_SHARES_MAX, n)) != 0 ||
		(r = parse_u64("--threshold", cli->value[O_THRESHOLD], CSM_SHARES_MAX, k)) != 0)
		return r;
	return *k < 2 || *k > *n ? cli_usage("2 <= threshold <= shares <= %u has to hold", CSM_SHARES_MAX) : 0;
}

int cmd_recovery_create(struct cli *cli)
{
	struct csm_reply *rep;
	struct stat st;
	uint64_t n = 0, k = 0;
	int r = parse_numbers(cli, &n, &k);

	if (r != 0)
		return r;
	/* Before anything is made that could then not be written. */
	if (cli->arg_n > 0 && (stat(cli->arg[0], &st) != 0 || !S_ISDIR(st.st_mode) || access(cli->arg[0], W_OK) != 0))
		return cli_usage("%s is no folder that can be written to", cli->arg[0]);
	if (cli->arg_n > 0 && cli->json)
		return cli_usage("--json prints the shares: it goes with no folder");
	json_protect();
	if ((r = csm_recovery_create(cli->csm, (unsigned)n, (unsigned)k, &rep)) != 0)
		return r;
	r = cli->json ? print_reply(cli, csm_reply_view(rep)) : give_shares(cli, rep->msg);
	csm_reply_free(rep);
	csm_wipe_stack(SIZE_MAX);
	return r;
}

/* ---- restore ---- */

struct collected {
	char text[CSM_SHARES_MAX][CSM_SHARE_TEXT]; /* locked memory */
	const char *v[CSM_SHARES_MAX];
	size_t n;
	unsigned wanted; /* as the first one says */
};

static int take(struct collected *c, const struct csm_buf *b, const char **why)
{
	CSM_WIPED(mem, sizeof(struct csm_share));
	struct csm_share *s = (struct csm_share *)mem;
	int r = csm_share_parse((const char *)csm_buf_ptr(b), b->len, s, why);

	if (r != 0)
		return r;
	csm_share_text(s, c->text[c->n]);
	c->v[c->n] = c->text[c->n];
	c->n++;
	if (c->wanted == 0)
		c->wanted = s->threshold;
	return 0;
}

static int from_files(struct cli *cli, struct collected *c)
{
	const char *why;
	int r = 0;

	if (cli->arg_n > CSM_SHARES_MAX)
		return cli_usage("more than %u shares", CSM_SHARES_MAX);
	for (size_t i = 0; r == 0 && i < cli->arg_n; i++) {
		struct csm_buf b;

		csm_buf_init(&b, FILE_MAX, true);
		r = io_read(cli->arg[i], &b);
		if (r == 0 && (r = take(c, &b, &why)) != 0)
			r = client_err(r, "%s: %s", cli->arg[i], why);
		csm_buf_free(&b);
	}
	return r;
}

/* As many as the first one says; one with a slip of the finger is asked for again. */
static int from_terminal(struct collected *c)
{
	const char *why;
	int r = 0;

	while (r == 0 && c->n < CSM_SHARES_MAX && (c->wanted == 0 || c->n < c->wanted)) {
		char what[64];
		struct csm_buf b;

		if (c->wanted == 0)
			snprintf(what, sizeof(what), "recovery share");
		else
			snprintf(what, sizeof(what), "recovery share, %zu of %u", c->n + 1, c->wanted);
		csm_buf_init(&b, FILE_MAX, true);
		r = prompt_passphrase(csm_str_of(what), &b);
		if (r == 0 && take(c, &b, &why) != 0)
			cli_note("%s", why);
		csm_buf_free(&b);
	}
	return r;
}

int cmd_recovery_restore(struct cli *cli)
{
	struct collected *c = csm_lock_alloc(sizeof(*c));
	struct csm_reply *rep;
	int r;

	if (c == NULL)
		return client_err_plain(CSM_ENOMEM);
	memset(c, 0, sizeof(*c));
	r = cli->arg_n > 0 ? from_files(cli, c) : from_terminal(c);
	if (r == 0)
		r = csm_recovery_restore(cli->csm, c->v, c->n, cli->value[O_ACCEPT_COUNTER] != NULL, &rep);
	csm_lock_free(c);
	csm_wipe_stack(SIZE_MAX);
	if (r != 0)
		return r;
	r = print_reply(cli, csm_reply_view(rep));
	csm_reply_free(rep);
	return r;
}
