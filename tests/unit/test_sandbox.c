/* Giving up privileges, each time in a child. What the release's filter allows is walked in tests/system; here the
 * parts are tried one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/log.h"
#include "daemon/svc/sandbox.h"

#define UID 59301u
#define GID 59302u

static char dir[64], inside[80], outside[80], readable[80];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/csm-sandbox-XXXXXX");
	if (mkdtemp(dir) == NULL || chmod(dir, 0755) != 0)
		return -1;
	snprintf(inside, sizeof(inside), "%s/state", dir);
	snprintf(outside, sizeof(outside), "%s/outside", dir);
	snprintf(readable, sizeof(readable), "%s/readable", dir);
	int fd = open(outside, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
	close(fd);
	return mkdir(inside, 0700) != 0 || chown(inside, UID, GID) != 0 || mkdir(readable, 0755) != 0 ||
			chmod(outside, 0666) != 0 ?
		-1 :
		0;
}

static int teardown(void **state)
{
	char file[96];

	(void)state;
	snprintf(file, sizeof(file), "%s/file", inside);
	unlink(file);
	return rmdir(inside) | rmdir(readable) | unlink(outside) | rmdir(dir);
}

/* The coverage build's counts are lost with _exit. */
extern void __gcov_dump(void) __attribute__((weak));

/* The line of the first check that failed, in a child. */
#define CHECK(c) \
	do { \
		if (!(c)) \
			return __LINE__; \
	} while (0)

static void run_child(int (*checks)(void))
{
	pid_t child = fork();
	int status, line;

	if (child == 0) {
		line = checks();
		if (line != 0)
			dprintf(STDERR_FILENO, "failed at line %d: %s\n", line, strerror(errno));
		if (__gcov_dump != NULL)
			__gcov_dump();
		_exit(line != 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* ---- the user ---- */

static bool status_has(const char *line)
{
	char text[4096];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return strstr(text, line) != NULL;
}

static int drop(void)
{
	uid_t r, e, s;
	gid_t groups[] = {1, 2, 3};

	CHECK(setgroups(3, groups) == 0);
	/* Even where the kernel is asked to keep them. */
	CHECK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
	CHECK(csm_sandbox_drop(UID, GID) == 0);
	CHECK(getresuid(&r, &e, &s) == 0 && r == UID && e == UID && s == UID);
	CHECK(getgid() == GID && getegid() == GID && getgroups(0, NULL) == 0);
	CHECK(status_has("CapEff:\t0000000000000000") && status_has("CapPrm:\t0000000000000000"));
	CHECK(setuid(0) != 0 && setgid(0) != 0 && setgroups(0, NULL) != 0);
	CHECK(open("/etc/shadow", O_RDONLY | O_CLOEXEC) < 0);
	/* Nobody drops twice: that needs privileges. */
	CHECK(csm_sandbox_drop(UID + 1, GID) == CSM_ESYSTEM);
	return 0;
}

static int harden(void)
{
	struct rlimit core;

	CHECK(csm_sandbox_harden() == 0);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
	CHECK(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 && core.rlim_max == 0);
	return 0;
}

static void the_user_changes_for_good(void **state)
{
	(void)state;
	run_child(drop);
}

static void nobody_looks_inside(void **state)
{
	(void)state;
	run_child(harden);
}

/* ---- all of it ---- */

static bool noted(const struct csm_sandbox_report *r, const char *text)
{
	for (size_t i = 0; i < r->n; i++)
		if (strncmp(r->note[i], text, strlen(text)) == 0)
			return true;
	return false;
}

static void *thread(void *arg)
{
	*(int *)arg = 42;
	return NULL;
}

static int calls_that_are_refused(void)
{
	char *const argv[] = {(char[]){"true"}, NULL};
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	CHECK(execve("/bin/true", argv, NULL) == -1 && errno == EPERM);
	CHECK(socket(AF_INET, SOCK_STREAM, 0) == -1 && errno == EPERM);
	CHECK(socket(AF_NETLINK, SOCK_RAW, 0) == -1 && errno == EPERM);
	CHECK(mprotect(p, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EPERM);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EPERM);
	CHECK(setuid(0) == -1 && errno == EPERM);
	CHECK(mount("none", inside, "tmpfs", 0, NULL) == -1 && errno == EPERM);
	CHECK(chmod(inside, 0777) == -1 && errno == EPERM);
	CHECK(symlink("/etc", inside) == -1 && errno == EPERM);
	CHECK(prctl(PR_SET_NAME, "renamed", 0, 0, 0) == 0);
	CHECK(munmap(p, 4096) == 0);
	return 0;
}

static int enter(void)
{
	struct csm_sandbox s = {.uid = UID, .gid = GID, .write_dir = inside, .read_dirs = {readable, NULL}};
	struct csm_sandbox_report r;
	char file[96];
	pthread_t t;
	int fd, answer = 0, line;

	CHECK(csm_sandbox_enter(&s, &r) == 0);
	CHECK(noted(&r, "user: dropped") && noted(&r, "seccomp: on") && noted(&r, "no_new_privs"));
	CHECK(r.full == noted(&r, "landlock: on"));
	snprintf(file, sizeof(file), "%s/file", inside);
	fd = open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && write(fd, "x", 1) == 1 && fsync(fd) == 0 && close(fd) == 0);
	CHECK((fd = open(readable, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0 && close(fd) == 0);
#ifndef CSM_COVERAGE /* which may write where its counts are */
	if (noted(&r, "landlock: on")) {
		/* Whatever their modes say. */
		CHECK(open(outside, O_RDONLY | O_CLOEXEC) == -1 && errno == EACCES);
		CHECK(open(outside, O_WRONLY | O_CLOEXEC) == -1 && errno == EACCES);
		CHECK(open("/etc/passwd", O_RDONLY | O_CLOEXEC) == -1 && errno == EACCES);
		CHECK(unlink(outside) == -1);
	}
#endif
	if ((line = calls_that_are_refused()) != 0)
		return line;
	/* Threads are what the broker is made of. */
	CHECK(pthread_create(&t, NULL, thread, &answer) == 0);
	CHECK(pthread_join(t, NULL) == 0 && answer == 42);
	return 0;
}

static int enter_as_we_are(void)
{
	struct csm_sandbox s = {.uid = (uid_t)-1, .gid = (gid_t)-1, .write_dir = inside, .read_dirs = {"/proc", NULL}};
	struct csm_sandbox_report r;

	CHECK(csm_sandbox_enter(&s, &r) == 0);
	CHECK(noted(&r, "user: not dropped") && !r.full);
	CHECK(getuid() == 0);
	return 0;
}

/* Demanded, and not to be had whole. */
static int required(void)
{
	struct csm_sandbox s = {.uid = (uid_t)-1, .gid = (gid_t)-1, .write_dir = inside, .required = true};
	struct csm_sandbox_report r;

	CHECK(csm_sandbox_enter(&s, &r) == CSM_EUNSUPPORTED);
	return 0;
}

static int folder_that_is_not_there(void)
{
	struct csm_sandbox s = {.uid = UID, .gid = GID, .write_dir = "/nonexistent"};
	struct csm_sandbox_report r;
	int error = csm_sandbox_enter(&s, &r);

	CHECK(error == CSM_ESYSTEM || noted(&r, "landlock: not in this kernel"));
	return 0;
}

static int not_privileged(void)
{
	struct csm_sandbox s = {.uid = UID, .gid = GID, .write_dir = inside};
	struct csm_sandbox_report r;

	CHECK(setresuid(UID, UID, UID) == 0);
	CHECK(csm_sandbox_enter(&s, &r) == CSM_ESYSTEM);
	return 0;
}

static void all_of_it(void **state)
{
	(void)state;
	run_child(enter);
}

static void what_is_not_whole_is_told(void **state)
{
	(void)state;
	run_child(enter_as_we_are);
	run_child(required);
}

static void what_cannot_be_entered(void **state)
{
	(void)state;
	run_child(folder_that_is_not_there);
	run_child(not_privileged);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_user_changes_for_good),
		TEST(nobody_looks_inside),
		TEST(all_of_it),
		TEST(what_is_not_whole_is_told),
		TEST(what_cannot_be_entered),
	};

	if (geteuid() != 0) {
		print_message("skip: only root can drop\n");
		return 77;
	}
	alarm(60);
	csm_log_level(LOG_EMERG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
