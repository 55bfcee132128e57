/* A folder changes as a whole, whenever the process that changes it is killed, and whatever its owner plants around it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/base/generation.h"
#include "tests/lib/count.h"

#define OWNER 64311
#define OTHER 64312

static const char *const names[] = {"a", "b", "c", NULL};
static char base[64], dir[80], why[CSM_GEN_WHY];

static int make_base(void **state)
{
	(void)state;
	snprintf(base, sizeof(base), "/tmp/csm-gen.XXXXXX");
	if (mkdtemp(base) == NULL || chmod(base, 0755) != 0)
		return -1;
	snprintf(dir, sizeof(dir), "%s/tls", base);
	return 0;
}

static int remove_base(void **state)
{
	char cmd[] = "rm";
	char *argv[] = {cmd, (char[]){"-rf"}, base, NULL};
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		execvp(cmd, argv);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
	return 0;
}

static struct csm_gen_place place_of(bool strict)
{
	return (struct csm_gen_place){.path = dir, .names = names, .uid = strict ? OWNER : (uid_t)-1,
		.gid = strict ? OWNER : (gid_t)-1, .dir_mode = 0750, .file_mode = 0640, .strict = strict};
}

/* Files that all say the same number. */
static int put(const struct csm_gen_place *place, unsigned n)
{
	char text[16];
	struct csm_gen_file f[] = {{"a", text, 8}, {"b", text, 8}, {"c", text, 8}};

	snprintf(text, sizeof(text), "%08u", n);
	return csm_gen_put(place, f, 3, why);
}

static long number_at(int fd, const char *name)
{
	char text[9] = "";
	int f = openat(fd, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = f < 0 ? -1 : read(f, text, 8);

	if (f >= 0)
		close(f);
	return n == 8 ? strtol(text, NULL, 10) : -1;
}

/* What the folder says: -1: there is no folder, -2: files are missing in it, -3: a mixed set. */
static long read_set(void)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long a, b, c;

	if (fd < 0)
		return -1;
	a = number_at(fd, "a");
	b = number_at(fd, "b");
	c = number_at(fd, "c");
	close(fd);
	return a < 0 || b < 0 || c < 0 ? -2 : a != b || b != c ? -3 : a;
}

static unsigned left_beside(void)
{
	DIR *d = opendir(base);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
		n += strncmp(e->d_name, ".tls.csm-", 9) == 0;
	closedir(d);
	return n;
}

static void test_puts_and_replaces(void **state)
{
	struct csm_gen_place p = place_of(true);
	struct stat st;

	(void)state;
	assert_int_equal(put(&p, 1), 0);
	assert_int_equal(read_set(), 1);
	assert_int_equal(put(&p, 2), 0);
	assert_int_equal(read_set(), 2);
	assert_int_equal(left_beside(), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(st.st_uid, OWNER);
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(stat("b", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_gid, OWNER);
	assert_int_equal(chdir("/"), 0);
}

static void test_goes_back(void **state)
{
	struct csm_gen_place p = place_of(true);
	struct csm_gen_file f[] = {{"a", "00000009", 8}, {"b", "00000009", 8}, {"c", "00000009", 8}};
	struct csm_gen *g;

	(void)state;
	/* a first one has nothing to go back to, and stays */
	assert_int_equal(csm_gen_open(&p, &g, why), 0);
	assert_int_equal(csm_gen_write(g, f, 3, why), 0);
	assert_int_equal(csm_gen_back(g, why), CSM_ENOT_FOUND);
	assert_int_equal(csm_gen_swap(g, why), 0);
	assert_int_equal(csm_gen_back(g, why), CSM_ENOT_FOUND);
	csm_gen_close(g);
	assert_int_equal(read_set(), 9);
	assert_int_equal(put(&p, 1), 0);
	assert_int_equal(csm_gen_open(&p, &g, why), 0);
	assert_int_equal(csm_gen_write(g, f, 3, why), 0);
	assert_int_equal(read_set(), 1);
	assert_int_equal(csm_gen_swap(g, why), 0);
	assert_int_equal(read_set(), 9);
	assert_int_equal(csm_gen_back(g, why), 0);
	assert_int_equal(read_set(), 1);
	csm_gen_close(g);
	assert_int_equal(read_set(), 1);
	assert_int_equal(left_beside(), 0);
}

/* ---- readers ---- */

static atomic_bool stop;
static atomic_ulong reads, mixed, lost;

static void *read_on(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		long got = read_set();

		/* a set that was opened may be emptied while it is read: its turn is over */
		if (got >= 0)
			atomic_fetch_add(&reads, 1);
		else if (got == -1)
			atomic_fetch_add(&lost, 1);
		else if (got == -3)
			atomic_fetch_add(&mixed, 1);
	}
	return NULL;
}

static void read_beside(struct csm_gen_place *p, long linger_ms, unsigned least)
{
	unsigned long want = long_run() ? 1000000 : 10000;
	pthread_t t[4];
	unsigned n = 2;

	atomic_store(&reads, 0);
	atomic_store(&stop, false);
	p->linger_ms = linger_ms;
	assert_int_equal(put(p, 1), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, read_on, NULL), 0);
	while (atomic_load(&reads) < want || n < least)
		assert_int_equal(put(p, n++), 0);
	atomic_store(&stop, true);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&mixed), 0);
	assert_int_equal(atomic_load(&lost), 0);
}

static void test_readers_see_no_mixed_set(void **state)
{
	struct csm_gen_place p = place_of(true);

	(void)state;
	read_beside(&p, 1, 100);
}

/* ---- killed at each system call ---- */

/* In a child: the file system cannot exchange folders. */
static void without_exchange(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);

	if (f == NULL || seccomp_rule_add(f, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(renameat2), 0) != 0 || seccomp_load(f) != 0)
		_exit(99);
	seccomp_release(f);
}

static void child_puts(const struct csm_gen_place *p, unsigned n, bool links)
{
	if (links)
		without_exchange();
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 || raise(SIGSTOP) != 0)
		_exit(98);
	_exit(put(p, n) == 0 ? 0 : 1);
}

/* Runs put() in a process that is killed before its k-th stop at a system call's beginning or end. True: it was. */
static bool put_killed_at(const struct csm_gen_place *p, unsigned n, unsigned k, bool links)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		child_puts(p, n, links);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	for (unsigned i = 0;; i++) {
		if (i == k) {
			kill(pid, SIGKILL);
			assert_int_equal(waitpid(pid, &status, 0), pid);
			return !WIFEXITED(status);
		}
		assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status)) {
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
			return false;
		}
	}
}

static void kill_at_each(bool links)
{
	struct csm_gen_place p = place_of(true);
	unsigned k = 0, n = 2, olds = 0, news = 0, leftovers = 0;
	bool killed = true;

	assert_false(put_killed_at(&p, 1, UINT32_MAX, links));
	for (long before = 1; killed; k++, n++) {
		long now;

		killed = put_killed_at(&p, n, k, links);
		now = read_set();
		if (now != before && now != (long)n)
			fail_msg("killed at stop %u the folder is %ld, neither %ld nor %u", k, now, before, n);
		olds += now == before;
		news += now == (long)n;
		leftovers += left_beside() > (links ? 1 : 0);
		before = now;
	}
	assert_true(olds > 40 && news > 10 && leftovers > 10);
	assert_false(put_killed_at(&p, n, UINT32_MAX, links));
	assert_int_equal(read_set(), n);
	assert_int_equal(left_beside(), links ? 1 : 0);
}

static void test_killed_at_each_call(void **state)
{
	(void)state;
	kill_at_each(false);
}

static void test_killed_at_each_call_with_links(void **state)
{
	struct stat st;

	(void)state;
	kill_at_each(true);
	assert_int_equal(lstat(dir, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(st.st_uid, OWNER);
}

/* A link of ours is gone on with, also where folders could be exchanged; and readers see whole sets. */
static void test_links_go_on(void **state)
{
	struct csm_gen_place p = place_of(true);
	struct csm_gen_file f[] = {{"a", "00000009", 8}, {"b", "00000009", 8}, {"c", "00000009", 8}};
	struct csm_gen *g;

	(void)state;
	assert_false(put_killed_at(&p, 1, UINT32_MAX, true));
	/* between the reading of a link and the look at what it names the kernel may let others run */
	read_beside(&p, 50, 20);
	assert_int_equal(left_beside(), 1);
	assert_int_equal(put(&p, 5), 0);
	assert_int_equal(csm_gen_open(&p, &g, why), 0);
	assert_int_equal(csm_gen_write(g, f, 3, why), 0);
	assert_int_equal(csm_gen_swap(g, why), 0);
	assert_int_equal(read_set(), 9);
	assert_int_equal(csm_gen_back(g, why), 0);
	csm_gen_close(g);
	assert_int_equal(read_set(), 5);
	assert_int_equal(left_beside(), 1);
}

static void test_folder_that_cannot_be_exchanged_stays(void **state)
{
	struct csm_gen_place p = place_of(true);
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(put(&p, 1), 0);
	pid = fork();
	if (pid == 0) {
		without_exchange();
		_exit(put(&p, 2));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), CSM_EUNSUPPORTED);
	assert_int_equal(read_set(), 1);
	assert_int_equal(left_beside(), 0);
}

/* ---- an owner who plants things ---- */

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void expect_text(const char *path, const char *text)
{
	char got[64] = "";
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(read(fd, got, sizeof(got) - 1), (ssize_t)strlen(text));
	assert_string_equal(got, text);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_uid, 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	close(fd);
}

static char secret_dir[96], secret[112];

/* What is root's, beside a folder that is the owner's. */
static void make_victim(void)
{
	snprintf(secret_dir, sizeof(secret_dir), "%s/root", base);
	snprintf(secret, sizeof(secret), "%s/a", secret_dir);
	assert_int_equal(mkdir(secret_dir, 0700), 0);
	write_text(secret, "root's");
}

static void test_planted_links(void **state)
{
	struct csm_gen_place p = place_of(true);
	char path[400];

	(void)state;
	make_victim();
	/* in place of the folder */
	assert_int_equal(symlink(secret_dir, dir), 0);
	assert_int_equal(put(&p, 1), CSM_EEXISTS);
	assert_int_equal(unlink(dir), 0);
	/* in place of its files, symbolic and hard */
	assert_int_equal(put(&p, 1), 0);
	snprintf(path, sizeof(path), "%s/a", dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink(secret, path), 0);
	snprintf(path, sizeof(path), "%s/b", dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(link(secret, path), 0);
	assert_int_equal(put(&p, 2), 0);
	assert_int_equal(read_set(), 2);
	expect_text(secret, "root's");
	/* beside it, with a name like ours */
	snprintf(path, sizeof(path), "%s/.tls.csm-00000000", base);
	assert_int_equal(symlink(secret_dir, path), 0);
	assert_int_equal(put(&p, 3), 0);
	expect_text(secret, "root's");
	assert_int_equal(left_beside(), 0);
}

/* On the way to it. */
static void test_link_on_the_way(void **state)
{
	struct csm_gen_place p = place_of(true);
	char link_path[96], inside[128];

	(void)state;
	make_victim();
	snprintf(link_path, sizeof(link_path), "%s/way", base);
	assert_int_equal(symlink(secret_dir, link_path), 0);
	snprintf(inside, sizeof(inside), "%s/tls", link_path);
	p.path = inside;
	assert_int_equal(put(&p, 1), CSM_EDENIED);
	snprintf(inside, sizeof(inside), "%s/sub", secret_dir);
	assert_int_equal(mkdir(inside, 0755), 0);
	snprintf(inside, sizeof(inside), "%s/sub/tls", link_path);
	p.path = inside;
	assert_int_equal(put(&p, 1), CSM_EDENIED);
	p.path = "relative/tls";
	assert_int_equal(put(&p, 1), CSM_EINVALID);
	snprintf(inside, sizeof(inside), "%s/..", base);
	p.path = inside;
	assert_int_equal(put(&p, 1), CSM_EINVALID);
	expect_text(secret, "root's");
}

/* The owner of the folder around it can give root's folder any name in there: it is neither emptied nor taken. */
static void test_moved_folders(void **state)
{
	struct csm_gen_place p = place_of(true);
	char path[400], inside[440];

	(void)state;
	make_victim();
	assert_int_equal(chown(base, OWNER, OWNER), 0);
	snprintf(path, sizeof(path), "%s/.tls.csm-0000000000000000", base);
	assert_int_equal(rename(secret_dir, path), 0);
	assert_int_equal(put(&p, 1), 0);
	snprintf(inside, sizeof(inside), "%s/a", path);
	expect_text(inside, "root's");
	assert_int_equal(put(&p, 2), 0);
	expect_text(inside, "root's");
	assert_int_equal(left_beside(), 1);
	/* in place of the folder itself */
	snprintf(inside, sizeof(inside), "%s/kept", base);
	assert_int_equal(rename(dir, inside), 0);
	assert_int_equal(rename(path, dir), 0);
	assert_int_equal(put(&p, 3), CSM_EDENIED);
	snprintf(inside, sizeof(inside), "%s/a", dir);
	expect_text(inside, "root's");
	/* with a link of ours to it */
	assert_int_equal(rename(dir, path), 0);
	assert_int_equal(symlink(".tls.csm-0000000000000000", dir), 0);
	assert_int_equal(put(&p, 3), CSM_EDENIED);
	snprintf(inside, sizeof(inside), "%s/a", path);
	expect_text(inside, "root's");
}

static void test_foreign_surroundings(void **state)
{
	struct csm_gen_place p = place_of(true);

	(void)state;
	assert_int_equal(chown(base, OTHER, OTHER), 0);
	assert_int_equal(put(&p, 1), CSM_EDENIED);
	assert_int_equal(chown(base, 0, 0), 0);
	assert_int_equal(chmod(base, 0777), 0);
	assert_int_equal(put(&p, 1), CSM_EDENIED);
	assert_int_equal(chmod(base, 01777), 0);
	assert_int_equal(put(&p, 1), 0);
	assert_int_equal(chown(dir, OTHER, OTHER), 0);
	assert_int_equal(put(&p, 2), CSM_EDENIED);
	assert_int_equal(read_set(), 1);
}

/* ---- an owner who moves things about at each system call ---- */

enum plant { PLANT_EXCHANGE, PLANT_LINK, PLANT_ROOT, PLANT_ROOT_FOR_FOLDER, PLANT__COUNT };

/* What the owner of base can do there, to each generation that is in the making or over. */
static void plant(enum plant what)
{
	char own[400], kept[96];
	DIR *d = opendir(base);

	assert_non_null(d);
	snprintf(kept, sizeof(kept), "%s/kept", base);
	for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		if (strncmp(e->d_name, ".tls.csm-", 9) != 0)
			continue;
		snprintf(own, sizeof(own), "%s/%s", base, e->d_name);
		if (what == PLANT_EXCHANGE)
			(void)renameat2(AT_FDCWD, own, AT_FDCWD, secret_dir, RENAME_EXCHANGE);
		else if (rename(own, kept) == 0 && what == PLANT_LINK)
			(void)!symlink("root", own);
		else
			(void)rename(secret_dir, own);
		break;
	}
	closedir(d);
	if (what == PLANT_ROOT_FOR_FOLDER)
		(void)renameat2(AT_FDCWD, dir, AT_FDCWD, secret_dir, RENAME_EXCHANGE);
}

/* put() in a process that is halted at its k-th stop while the owner plants. False: it had ended before. */
static bool put_planted_at(const struct csm_gen_place *p, unsigned k, enum plant what)
{
	pid_t pid = fork();
	bool planted = false;
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		child_puts(p, 2, false);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	for (unsigned i = 0; WIFSTOPPED(status); i++) {
		if (i == k) {
			plant(what);
			planted = true;
		}
		assert_int_equal(ptrace(planted ? PTRACE_CONT : PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	assert_true(WIFEXITED(status));
	return planted;
}

/* Root's folder, wherever it is by now, is as it was; and nothing is added to it. */
static void expect_secret_whole(unsigned k, enum plant what)
{
	char in[400], path[440];
	unsigned found = 0, n = 0;
	DIR *d = opendir(base), *sub;
	struct stat st;

	assert_non_null(d);
	for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		snprintf(in, sizeof(in), "%s/%s", base, e->d_name);
		snprintf(path, sizeof(path), "%s/z", in);
		if (lstat(in, &st) != 0 || !S_ISDIR(st.st_mode) || stat(path, &st) != 0)
			continue;
		found++;
		snprintf(path, sizeof(path), "%s/a", in);
		if (stat(in, &st) != 0 || st.st_uid != 0 || (st.st_mode & 07777) != 0700 || stat(path, &st) != 0)
			fail_msg("root's folder was touched: planted %d at stop %u", what, k);
		expect_text(path, "root's");
		sub = opendir(in);
		assert_non_null(sub);
		while (readdir(sub) != NULL)
			n++;
		closedir(sub);
	}
	closedir(d);
	if (found != 1 || n != 4)
		fail_msg("root's folder holds %u names in %u places: planted %d at stop %u", n, found, what, k);
}

static void test_owner_moves_things_at_each_call(void **state)
{
	unsigned step = long_run() ? 1 : 5, tries = 0;
	struct csm_gen_place p = place_of(true);
	bool more = true;
	char path[400];

	for (unsigned k = 0; more; k += step, tries++) {
		enum plant what = (enum plant)(k % PLANT__COUNT);

		assert_int_equal(put(&p, 1), 0);
		make_victim();
		snprintf(path, sizeof(path), "%s/z", secret_dir);
		write_text(path, "root's");
		assert_int_equal(chown(base, OWNER, OWNER), 0);
		more = put_planted_at(&p, k / PLANT__COUNT, what);
		expect_secret_whole(k / PLANT__COUNT, what);
		assert_int_equal(remove_base(state), 0);
		assert_int_equal(make_base(state), 0);
	}
	assert_true(tries > 80);
}

/* A file of root's takes the place of the link that is to become the owner's. */
static bool file_planted_at(const struct csm_gen_place *p, unsigned k, const char *file)
{
	pid_t pid = fork();
	bool planted = false;
	char own[400];
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		child_puts(p, 2, true);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	for (unsigned i = 0; WIFSTOPPED(status); i++) {
		DIR *d = i == k ? opendir(base) : NULL;

		for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d))
			if (strncmp(e->d_name, ".tls.csm-link-", 14) == 0) {
				snprintf(own, sizeof(own), "%s/%s", base, e->d_name);
				assert_int_equal(rename(file, own), 0);
				break;
			}
		if (d != NULL)
			closedir(d);
		planted = planted || i == k;
		assert_int_equal(ptrace(planted ? PTRACE_CONT : PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	return planted;
}

static unsigned count_of_owners_files(void)
{
	DIR *d = opendir(base);
	struct stat st;
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
		n += fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_uid != 0;
	closedir(d);
	return n;
}

static void test_no_file_becomes_the_owners_in_place_of_a_link(void **state)
{
	struct csm_gen_place p = place_of(true);
	bool more = true;
	char file[96];

	for (unsigned k = 0; more; k++) {
		snprintf(file, sizeof(file), "%s/roots", base);
		write_text(file, "root's");
		assert_int_equal(chown(base, OWNER, OWNER), 0);
		more = file_planted_at(&p, k, file);
		if (count_of_owners_files() > 0)
			fail_msg("root's file became the owner's: planted at stop %u", k);
		assert_int_equal(remove_base(state), 0);
		assert_int_equal(make_base(state), 0);
	}
}

static void test_other_files_stay(void **state)
{
	struct csm_gen_place p = place_of(false);
	char path[96];

	(void)state;
	assert_int_equal(put(&p, 1), 0);
	snprintf(path, sizeof(path), "%s/mine", dir);
	write_text(path, "mine");
	assert_int_equal(put(&p, 2), CSM_EEXISTS);
	expect_text(path, "mine");
	assert_int_equal(read_set(), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_base, remove_base)
	const struct CMUnitTest tests[] = {
		T(test_puts_and_replaces),
		T(test_goes_back),
		T(test_readers_see_no_mixed_set),
		T(test_killed_at_each_call),
		T(test_killed_at_each_call_with_links),
		T(test_links_go_on),
		T(test_folder_that_cannot_be_exchanged_stays),
		T(test_planted_links),
		T(test_link_on_the_way),
		T(test_moved_folders),
		T(test_foreign_surroundings),
		T(test_owner_moves_things_at_each_call),
		T(test_no_file_becomes_the_owners_in_place_of_a_link),
		T(test_other_files_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
