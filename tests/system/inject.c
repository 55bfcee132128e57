/* A root's tool for the sandbox test: have another process make a system call, or walk its seccomp filters.
 *
 *   inject PID call NUMBER [ARG]...   prints the result (negative: errno), or "killed". An ARG is a number (0x.. too)
 *                                     or @TEXT, which is put below the process's stack and passed by address, or
 *                                     @x:HEX, the same for bytes.
 *   inject PID allowed                prints every system call (x86-64) that the filters let through for some argument
 *                                     tried, and "x32" or "i386" where another call convention gets through.
 *   inject PID check NUMBER [ARG]...  prints the filters' verdict for just these arguments: allow, or errno N, or kill.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#define FILTERS_MAX 8
#define ARGS_MAX 6
#define X32_BIT 0x40000000u

struct filters {
	size_t n;
	struct {
		struct sock_filter code[BPF_MAXINSNS];
		size_t len;
	} prog[FILTERS_MAX];
};

static struct filters filters;

static int usage(void)
{
	fprintf(stderr, "usage: inject PID call NUMBER [ARG]... | allowed | check NUMBER [ARG]...\n");
	return 2;
}

static int attach(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0 || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) != 0 ||
		waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) {
		perror("ptrace");
		return -1;
	}
	return 0;
}

/* ---- a classic BPF machine over struct seccomp_data: what seccomp needs of it ---- */
static uint32_t load(const struct seccomp_data *d, uint32_t at)
{
	uint32_t v = 0;

	if (at <= sizeof(*d) - sizeof(v))
		memcpy(&v, (const char *)d + at, sizeof(v));
	return v;
}

static uint32_t alu(uint16_t op, uint32_t a, uint32_t b)
{
	switch (BPF_OP(op)) {
	case BPF_ADD:
		return a + b;
	case BPF_SUB:
		return a - b;
	case BPF_AND:
		return a & b;
	case BPF_OR:
		return a | b;
	case BPF_XOR:
		return a ^ b;
	case BPF_LSH:
		return a << (b & 31);
	case BPF_RSH:
		return a >> (b & 31);
	default:
		fprintf(stderr, "inject: an instruction that is not known: %x\n", op);
		exit(1);
	}
}

static bool jumps(uint16_t op, uint32_t a, uint32_t b)
{
	switch (BPF_OP(op)) {
	case BPF_JEQ:
		return a == b;
	case BPF_JGT:
		return a > b;
	case BPF_JGE:
		return a >= b;
	case BPF_JSET:
		return (a & b) != 0;
	default:
		fprintf(stderr, "inject: a jump that is not known: %x\n", op);
		exit(1);
	}
}

static uint32_t run_filter(const struct sock_filter *code, size_t len, const struct seccomp_data *d)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = {0};

	for (size_t pc = 0; pc < len; pc++) {
		const struct sock_filter *i = &code[pc];
		uint32_t operand = BPF_SRC(i->code) == BPF_X ? x : i->k;

		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
			a = BPF_MODE(i->code) == BPF_ABS ? load(d, i->k) :
				BPF_MODE(i->code) == BPF_MEM ? mem[i->k % BPF_MEMWORDS] : i->k;
			break;
		case BPF_LDX:
			x = BPF_MODE(i->code) == BPF_MEM ? mem[i->k % BPF_MEMWORDS] : i->k;
			break;
		case BPF_ST:
			mem[i->k % BPF_MEMWORDS] = a;
			break;
		case BPF_STX:
			mem[i->k % BPF_MEMWORDS] = x;
			break;
		case BPF_ALU:
			a = alu(i->code, a, operand);
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA)
				pc += i->k;
			else
				pc += jumps(i->code, a, operand) ? i->jt : i->jf;
			break;
		case BPF_RET:
			return BPF_RVAL(i->code) == BPF_A ? a : i->k;
		default: /* BPF_MISC */
			if (BPF_MISCOP(i->code) == BPF_TAX)
				x = a;
			else
				a = x;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

/* The strictest verdict of all filters, as the kernel takes it. */
static uint32_t verdict(const struct seccomp_data *d)
{
	uint32_t strictest = SECCOMP_RET_ALLOW;

	for (size_t i = 0; i < filters.n; i++) {
		uint32_t v = run_filter(filters.prog[i].code, filters.prog[i].len, d);

		if ((int32_t)(v & SECCOMP_RET_ACTION_FULL) < (int32_t)(strictest & SECCOMP_RET_ACTION_FULL))
			strictest = v;
	}
	return strictest;
}

static int read_filters(pid_t pid)
{
	for (filters.n = 0; filters.n < FILTERS_MAX; filters.n++) {
		long n = ptrace(PTRACE_SECCOMP_GET_FILTER, pid, (void *)filters.n, NULL);

		if (n < 0 && errno == ENOENT)
			break;
		if (n < 0 || n > BPF_MAXINSNS ||
			ptrace(PTRACE_SECCOMP_GET_FILTER, pid, (void *)filters.n, filters.prog[filters.n].code) != n) {
			perror("PTRACE_SECCOMP_GET_FILTER");
			return -1;
		}
		filters.prog[filters.n].len = (size_t)n;
	}
	return filters.n > 0 ? 0 : -1;
}

static int cmd_allowed(void)
{
	/* Arguments that conditions look at: families of sockets, flags of mmap and clone, signals. */
	static const uint64_t tried[] = {0, 1, 2, 3, 4, 6, 9, 10, 16, 17, 38, 40, 0x00003d0f00, 0x1200011, ~0ull};

	for (uint32_t nr = 0; nr < 1024; nr++) {
		bool allowed = false;

		for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]) && !allowed; i++) {
			struct seccomp_data d = {.nr = (int)nr, .arch = AUDIT_ARCH_X86_64};

			for (size_t a = 0; a < ARGS_MAX; a++)
				d.args[a] = tried[i];
			allowed = verdict(&d) == SECCOMP_RET_ALLOW;
			memset(d.args, 0, sizeof(d.args));
			d.args[0] = tried[i];
			allowed = allowed || verdict(&d) == SECCOMP_RET_ALLOW;
		}
		if (allowed)
			printf("%u\n", nr);
	}
	for (uint32_t nr = 0; nr < 1024; nr++) {
		struct seccomp_data x32 = {.nr = (int)(nr | X32_BIT), .arch = AUDIT_ARCH_X86_64};
		struct seccomp_data i386 = {.nr = (int)nr, .arch = AUDIT_ARCH_I386};

		if (verdict(&x32) == SECCOMP_RET_ALLOW)
			printf("x32 %u\n", nr);
		if (verdict(&i386) == SECCOMP_RET_ALLOW)
			printf("i386 %u\n", nr);
	}
	return 0;
}

static int parse_args(int argc, char **argv, uint64_t args[ARGS_MAX])
{
	if (argc > ARGS_MAX)
		return -1;
	for (int i = 0; i < argc; i++) {
		char *end;

		if (argv[i][0] == '@')
			continue;
		args[i] = (uint64_t)strtoll(argv[i], &end, 0);
		if (*end != '\0' || end == argv[i])
			return -1;
	}
	return 0;
}

static int cmd_check(int nr, const uint64_t args[ARGS_MAX])
{
	struct seccomp_data d = {.nr = nr, .arch = AUDIT_ARCH_X86_64};
	uint32_t v;

	memcpy(d.args, args, sizeof(d.args));
	v = verdict(&d);
	if (v == SECCOMP_RET_ALLOW)
		printf("allow\n");
	else if ((v & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO)
		printf("errno %u\n", v & SECCOMP_RET_DATA);
	else
		printf("kill\n");
	return 0;
}

/* In place: @x:HEX has become its bytes. */
static size_t unhex(char *text)
{
	size_t n = 0;

	for (const char *h = text; h[0] != '\0' && h[1] != '\0'; h += 2) {
		char digits[3] = {h[0], h[1], '\0'};

		text[n++] = (char)strtoul(digits, NULL, 16);
	}
	return n;
}

/* Texts go below the red zone of the stack. */
static int put_texts(pid_t pid, uint64_t sp, int argc, char **argv, uint64_t args[ARGS_MAX])
{
	uint64_t at = (sp - 4096) & ~15ull;

	for (int i = 0; i < argc; i++) {
		if (argv[i][0] != '@')
			continue;
		bool hex = strncmp(argv[i], "@x:", 3) == 0;
		struct iovec from = {argv[i] + (hex ? 3 : 1), hex ? unhex(argv[i] + 3) : strlen(argv[i])};
		struct iovec to = {(void *)at, from.iov_len}; /* NOLINT(performance-no-int-to-ptr) */

		if (process_vm_writev(pid, &from, 1, &to, 1, 0) != (ssize_t)from.iov_len) {
			perror("process_vm_writev");
			return -1;
		}
		args[i] = at;
		at += (from.iov_len + 15) & ~15ull;
	}
	return 0;
}

static int cmd_call(pid_t pid, int nr, int argc, char **argv, uint64_t args[ARGS_MAX])
{
	struct user_regs_struct saved, regs;
	unsigned short insn;
	int status;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &saved) != 0)
		return 1;
	/* It waits in a system call: the instruction before the next one is `syscall`. */
	errno = 0;
	insn = (unsigned short)ptrace(PTRACE_PEEKTEXT, pid, (void *)(saved.rip - 2), NULL);
	if (errno != 0 || insn != 0x050f) {
		fprintf(stderr, "inject: the process is not in a system call\n");
		return 1;
	}
	if (put_texts(pid, saved.rsp, argc, argv, args) != 0)
		return 1;
	regs = saved;
	regs.rip -= 2;
	regs.rax = (unsigned long long)nr;
	regs.orig_rax = (unsigned long long)-1;
	regs.rdi = args[0];
	regs.rsi = args[1];
	regs.rdx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = args[5];
	if (ptrace(PTRACE_SETREGS, pid, NULL, &regs) != 0 || ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 ||
		waitpid(pid, &status, __WALL) != pid)
		return 1;
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
		printf("killed\n");
		return 0;
	}
	if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) != 0)
		return 1;
	printf("%lld\n", (long long)regs.rax);
	return ptrace(PTRACE_SETREGS, pid, NULL, &saved) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	uint64_t args[ARGS_MAX] = {0};
	int nr = 0, r;
	pid_t pid;

	if (argc < 3)
		return usage();
	pid = (pid_t)strtol(argv[1], NULL, 10);
	if (strcmp(argv[2], "allowed") != 0) {
		if (argc < 4 || parse_args(argc - 4, argv + 4, args) != 0)
			return usage();
		nr = (int)strtol(argv[3], NULL, 0);
	}
	if (pid <= 0 || attach(pid) != 0)
		return 1;
	if (strcmp(argv[2], "call") == 0) {
		r = cmd_call(pid, nr, argc - 4, argv + 4, args);
	} else if (read_filters(pid) != 0) {
		fprintf(stderr, "inject: no filter to be read\n");
		r = 1;
	} else {
		r = strcmp(argv[2], "allowed") == 0 ? cmd_allowed() : cmd_check(nr, args);
	}
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	return r;
}
