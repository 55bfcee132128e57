/* Where do secrets stand? Looks for every window of 16 bytes of each, in the forms of tests/lib/needles.h.
 *
 *   bytesearch NEEDLES [--locked-ok] [--not FOLDER]... [--files PATH]... [--pid PID]...
 *
 * NEEDLES has a line "name hex" for each secret. Files are searched whole, folders with all below them but what --not
 * names. Of a process all memory is read that holds anything, by /proc/PID/mem, while it is stopped; mappings of files that
 * are shared are left to --files. With --locked-ok what stands in memory that is locked and left out of core files
 * (VmFlags lo and dd) is counted, but is not a finding.
 *
 * Exit status: 0 nothing found, 1 something found (a line each), 2 the search could not be made.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/lib/needles.h"

#define CHUNK (1u << 20)
#define NOT_MAX 16
#define PAGE ((uint64_t)sysconf(_SC_PAGESIZE))
#define STOP_TRIES 500

struct seen {
	const char *name;
	unsigned forms; /* as bits */
	uint64_t first;
	size_t windows;
};
struct search {
	struct needles *nd;
	bool locked_ok;
	const char *not[NOT_MAX];
	size_t n_not;
	uint8_t *chunk;

	/* what is being looked at */
	char where[640];
	uint64_t base;
	bool allowed;
	struct seen *seen; /* of each secret, there */
	size_t n_secrets;

	size_t found, held;
	uint64_t bytes;
	size_t files, regions;
};

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "bytesearch: %s: %s\n", what, errno != 0 ? strerror(errno) : "not possible");
	exit(2);
}

/* ---- needles ---- */

static size_t unhex(const char *hex, uint8_t *out, size_t max)
{
	size_t n = strcspn(hex, "\n") / 2;

	for (size_t i = 0; i < n && i < max; i++) {
		char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'}, *end;

		out[i] = (uint8_t)strtoul(two, &end, 16);
		if (end != two + 2)
			return 0;
	}
	return n <= max ? n : 0;
}

static void read_needles(struct search *s, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL, *space;
	uint8_t secret[4096];
	size_t cap = 0, n = 0;

	if (f == NULL)
		die(path);
	for (; getline(&line, &cap, f) > 0; n++) {
		space = strchr(line, ' ');
		if (space == NULL)
			die(path);
		*space = '\0';
		if (!needles_add(s->nd, line, secret, unhex(space + 1, secret, sizeof(secret))))
			die(line);
	}
	free(line);
	fclose(f);
	s->n_secrets = n;
	s->seen = calloc(n + 1, sizeof(*s->seen));
	if (n == 0 || s->seen == NULL || !needles_ready(s->nd))
		die(path);
	printf("%zu secrets, %zu patterns\n", n, needles_patterns(s->nd));
}

/* ---- findings: a line for each secret in a file or region ---- */

static void flush_lines(struct search *s)
{
	for (size_t i = 0; i < s->n_secrets; i++) {
		struct seen *seen = &s->seen[i];
		const char *sep = ": ";

		if (seen->windows == 0)
			continue;
		printf("%s: %s", s->allowed ? "held" : "FOUND", seen->name);
		for (unsigned form = 0; form < NEEDLE__FORMS; form++)
			if (seen->forms & 1u << form) {
				printf("%s%s", sep, needle_form_name((enum needle_form)form));
				sep = ", ";
			}
		printf("; %zu windows from 0x%" PRIx64 " in %s\n", seen->windows, seen->first, s->where);
		*seen = (struct seen){0};
	}
}

static void on_hit(void *arg, const struct needle_hit *hit)
{
	struct search *s = arg;
	struct seen *seen = &s->seen[hit->secret];

	if (s->allowed)
		s->held++;
	else
		s->found++;
	if (seen->windows++ == 0)
		seen->first = s->base + hit->at;
	seen->name = hit->name;
	seen->forms |= 1u << hit->form;
}

/* Patterns that cross the border of two chunks are seen by reading the end of the one again. */
static void search_fd(struct search *s, int fd, uint64_t from, uint64_t to)
{
	uint64_t at = from;

	while (at < to) {
		size_t want = to - at < CHUNK ? (size_t)(to - at) : CHUNK;
		ssize_t n = pread(fd, s->chunk, want, (off_t)at);

		if (n <= 0)
			break;
		s->base = at;
		needles_scan(s->nd, s->chunk, (size_t)n, on_hit, s);
		s->bytes += (uint64_t)n;
		if (at + (uint64_t)n >= to || (size_t)n <= NEEDLE_PATTERN_MAX)
			break;
		at += (uint64_t)n - NEEDLE_PATTERN_MAX;
	}
}

/* ---- files ---- */

static void search_file(struct search *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		die(path);
	snprintf(s->where, sizeof(s->where), "%s", path);
	s->allowed = false;
	search_fd(s, fd, 0, (uint64_t)st.st_size);
	flush_lines(s);
	close(fd);
	s->files++;
}

static void search_path(struct search *s, const char *path)
{
	struct dirent *e;
	struct stat st;
	char below[4096];
	DIR *d;

	for (size_t i = 0; i < s->n_not; i++)
		if (strcmp(path, s->not[i]) == 0)
			return;
	if (lstat(path, &st) != 0)
		die(path);
	if (S_ISREG(st.st_mode))
		search_file(s, path);
	if (!S_ISDIR(st.st_mode))
		return;
	if ((d = opendir(path)) == NULL)
		die(path);
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
		search_path(s, below);
	}
	closedir(d);
}

/* ---- processes ---- */

struct region {
	uint64_t from, to;
	char perms[8], path[256], flags[256];
	uint64_t inode;
};

static bool has_flag(const struct region *r, const char *flag)
{
	const char *at = strstr(r->flags, flag);

	return at != NULL && (at == r->flags || at[-1] == ' ');
}

/* Pages that hold nothing are passed over, so that the search changes nothing in the process. */
static void search_region(struct search *s, int mem, int pagemap, const struct region *r)
{
	uint64_t entries[512], at = r->from, run = 0;

	while (at < r->to) {
		size_t pages = (size_t)((r->to - at) / PAGE) < 512 ? (size_t)((r->to - at) / PAGE) : 512;

		if (pread(pagemap, entries, pages * 8, (off_t)(at / PAGE * 8)) != (ssize_t)(pages * 8))
			die("pagemap");
		for (size_t i = 0; i < pages; i++, at += PAGE) {
			bool there = (entries[i] >> 62) != 0;

			if (there && run == 0)
				run = at;
			if (!there && run != 0) {
				search_fd(s, mem, run, at);
				run = 0;
			}
		}
	}
	if (run != 0)
		search_fd(s, mem, run, r->to);
}

static void on_region(struct search *s, long pid, int mem, int pagemap, const struct region *r)
{
	if (r->from == 0 || strncmp(r->path, "[vvar", 5) == 0 || strcmp(r->path, "[vsyscall]") == 0 ||
		(r->perms[3] == 's' && r->inode != 0))
		return;
	snprintf(s->where, sizeof(s->where), "pid %ld, %s %s [%s]", pid, r->perms, r->path[0] != '\0' ? r->path : "anonymous",
		r->flags);
	s->allowed = s->locked_ok && has_flag(r, "lo") && has_flag(r, "dd");
	search_region(s, mem, pagemap, r);
	flush_lines(s);
	s->regions++;
}

static const char *next_word(const char *at)
{
	at += strcspn(at, " ");
	return at + strspn(at, " ");
}

/* "from-to perms offset device inode path" */
static bool parse_head(const char *line, struct region *r)
{
	char *end;
	uint64_t from = strtoull(line, &end, 16);
	const char *at;

	if (end == line || *end != '-')
		return false;
	*r = (struct region){.from = from, .to = strtoull(end + 1, NULL, 16)};
	at = next_word(line);
	snprintf(r->perms, sizeof(r->perms), "%.4s", at);
	at = next_word(next_word(next_word(at)));
	r->inode = strtoull(at, NULL, 10);
	at = next_word(at);
	snprintf(r->path, sizeof(r->path), "%.*s", (int)strcspn(at, "\n"), at);
	return true;
}

static void walk_regions(struct search *s, long pid, FILE *smaps, int mem, int pagemap)
{
	struct region r = {0};
	char line[1024];

	while (fgets(line, sizeof(line), smaps) != NULL) {
		if (strncmp(line, "VmFlags:", 8) == 0) {
			snprintf(r.flags, sizeof(r.flags), "%.*s", (int)strcspn(line, "\n") - 9, line + 9);
			on_region(s, pid, mem, pagemap, &r);
		} else {
			(void)parse_head(line, &r);
		}
	}
}

static FILE *proc_file(long pid, const char *name)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/%s", pid, name);
	if ((f = fopen(path, "re")) == NULL)
		die(path);
	return f;
}

static bool stopped(long pid)
{
	FILE *f = proc_file(pid, "status");
	char line[256];
	bool is = false;

	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, "State:\tT", 8) == 0)
			is = true;
	fclose(f);
	return is;
}

static void search_process(struct search *s, const char *text)
{
	long pid = strtol(text, NULL, 10);
	FILE *smaps, *mem, *pagemap;
	int tries = 0;

	errno = 0;
	if (pid <= 1 || kill((pid_t)pid, SIGSTOP) != 0)
		die(text);
	while (!stopped(pid) && tries++ < STOP_TRIES)
		usleep(2000);
	smaps = proc_file(pid, "smaps");
	mem = proc_file(pid, "mem");
	pagemap = proc_file(pid, "pagemap");
	walk_regions(s, pid, smaps, fileno(mem), fileno(pagemap));
	kill((pid_t)pid, SIGCONT);
	fclose(smaps);
	fclose(mem);
	fclose(pagemap);
}

int main(int argc, char **argv)
{
	struct search s = {.nd = needles_new(), .chunk = malloc(CHUNK)};

	if (argc < 3 || s.nd == NULL || s.chunk == NULL)
		die("usage: bytesearch NEEDLES [--locked-ok] [--not FOLDER] [--files PATH] [--pid PID]");
	read_needles(&s, argv[1]);
	for (int i = 2; i < argc; i++) {
		const char *what = argv[i];

		if (strcmp(what, "--locked-ok") == 0) {
			s.locked_ok = true;
			continue;
		}
		if (++i == argc)
			die(what);
		if (strcmp(what, "--not") == 0 && s.n_not < NOT_MAX)
			s.not[s.n_not++] = argv[i];
		else if (strcmp(what, "--files") == 0)
			search_path(&s, argv[i]);
		else if (strcmp(what, "--pid") == 0)
			search_process(&s, argv[i]);
		else
			die(what);
	}
	printf("%s: searched %zu files and %zu regions, %" PRIu64 " bytes; held in locked memory: %zu windows\n",
		s.found > 0 ? "FOUND" : "nothing found", s.files, s.regions, s.bytes, s.held);
	needles_free(s.nd);
	free(s.seen);
	free(s.chunk);
	return s.found > 0 ? 1 : 0;
}
