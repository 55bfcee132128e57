/* Who the kernel says is there: real peers with other ids, in other namespaces and cgroups, and gone. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/svc/identity.h"
#include "daemon/svc/sandbox.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#define PEER_UID 20001
#define PEER_GID 20002
#define KUBE "/kubepods.slice"
#define WAIT_MS 10000

/* A peer: a child that became somebody, connected, and waits until `hold` is closed. */
struct peer {
	pid_t child;
	int fd;   /* accepted */
	int hold; /* our end of the pipe that keeps it */
};

static int listener;
static struct sockaddr_un address;
static socklen_t address_len;

static int setup(void **state)
{
	(void)state;
	address.sun_family = AF_UNIX;
	/* an abstract name: nothing to remove */
	address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
		(size_t)snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "csm-test-identity-%d", (int)getpid()));
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return listener < 0 || bind(listener, (struct sockaddr *)&address, address_len) != 0 || listen(listener, 8) != 0;
}

static int teardown(void **state)
{
	(void)state;
	close(listener);
	return 0;
}

static void need(bool ok)
{
	if (!ok)
		_exit(errno != 0 ? errno : 1);
}

static int connect_now(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	need(s >= 0 && connect(s, (struct sockaddr *)&address, address_len) == 0);
	return s;
}

static void become(uid_t uid, gid_t gid, size_t n_groups, const gid_t *groups)
{
	need(setgroups(n_groups, groups) == 0 && setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0);
}

static int accept_soon(void)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static struct peer peer_new(void (*be)(void *arg), void *arg)
{
	int hold[2];
	char c;
	struct peer p;

	assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
	p.child = fork();
	assert_true(p.child >= 0);
	if (p.child == 0) {
		close(hold[1]);
		be(arg);
		connect_now();
		_exit(read(hold[0], &c, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	p.hold = hold[1];
	p.fd = accept_soon();
	assert_true(p.fd >= 0);
	return p;
}

static void peer_end(struct peer *p)
{
	int status;

	close(p->hold);
	close(p->fd);
	assert_int_equal(waitpid(p->child, &status, 0), p->child);
	assert_int_equal(status, 0);
}

static void facts_of(const struct peer *p, bool degraded, struct csm_facts *f)
{
	int pidfd = -1;

	assert_int_equal(csm_facts_of_socket(p->fd, KUBE, degraded, f, &pidfd), 0);
	if (pidfd >= 0) {
		assert_true((fcntl(pidfd, F_GETFD) & FD_CLOEXEC) != 0);
		close(pidfd);
	}
}

static void be_nobody_special(void *arg)
{
	static const gid_t groups[] = {20005, 20006, 20007};

	(void)arg;
	become(PEER_UID, PEER_GID, 3, groups);
}

static void test_ids_and_groups(void **state)
{
	struct peer p = peer_new(be_nobody_special, NULL);
	struct csm_facts f;

	(void)state;
	facts_of(&p, false, &f);
	assert_int_equal(f.uid, PEER_UID);
	assert_int_equal(f.gid, PEER_GID);
	assert_int_equal(f.pid, p.child);
	assert_true(f.valid);
	assert_true(f.same_ns);
	assert_int_equal(f.n_groups, 3);
	assert_int_equal(f.groups[0], 20005);
	assert_int_equal(f.groups[2], 20007);
	assert_null(f.pod);
	csm_facts_clear(&f);
	/* a degraded csmd leaves out what /proc says of cgroups, and nothing else */
	facts_of(&p, true, &f);
	assert_int_equal(f.uid, PEER_UID);
	assert_true(f.valid && f.same_ns);
	assert_null(f.cgroup);
	csm_facts_clear(&f);
	peer_end(&p);
}

static void be_in_many_groups(void *arg)
{
	gid_t groups[1000];

	(void)arg;
	for (unsigned i = 0; i < 1000; i++)
		groups[i] = 21000 + i;
	become(PEER_UID, PEER_GID, 1000, groups);
}

static void test_many_groups(void **state)
{
	struct peer p = peer_new(be_in_many_groups, NULL);
	struct csm_facts f;

	(void)state;
	facts_of(&p, false, &f);
	assert_int_equal(f.n_groups, 1000);
	assert_int_equal(f.groups[999], 21999);
	csm_facts_clear(&f);
	peer_end(&p);
}

static void be_overflow(void *arg)
{
	const uid_t *ids = arg;

	become(ids[0], ids[1], 0, NULL);
}

static void test_overflow_ids(void **state)
{
	uid_t nobody[] = {65534, PEER_GID}, nogroup[] = {PEER_UID, 65534};
	struct peer p = peer_new(be_overflow, nobody);
	struct csm_facts f;

	(void)state;
	facts_of(&p, false, &f);
	assert_false(f.valid);
	csm_facts_clear(&f);
	peer_end(&p);
	/* many system users have it as their group; they are somebody all the same */
	p = peer_new(be_overflow, nogroup);
	facts_of(&p, false, &f);
	assert_true(f.valid);
	csm_facts_clear(&f);
	peer_end(&p);
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t n = strlen(text);

	need(fd >= 0 && write(fd, text, n) == (ssize_t)n && close(fd) == 0);
}

static void be_root_of_a_user_namespace(void *arg)
{
	char map[32];

	be_nobody_special(arg);
	/* else its own uid_map belongs to root since the change of uid */
	need(prctl(PR_SET_DUMPABLE, 1) == 0 && unshare(CLONE_NEWUSER) == 0);
	snprintf(map, sizeof(map), "0 %d 1", PEER_UID);
	write_text("/proc/self/uid_map", map);
	need(getuid() == 0);
}

static void test_user_namespace(void **state)
{
	struct peer p = peer_new(be_root_of_a_user_namespace, NULL);
	struct csm_facts f;

	(void)state;
	facts_of(&p, false, &f);
	assert_int_equal(f.uid, PEER_UID); /* not 0: the kernel tells it in our numbers */
	assert_false(f.same_ns);
	csm_facts_clear(&f);
	peer_end(&p);
}

/* The child stays outside and waits for the one inside, so that the pid of the peer is not the child's. */
static void be_in_a_pid_namespace(void *arg)
{
	pid_t inside;
	int status;

	need(unshare(CLONE_NEWPID) == 0);
	inside = fork();
	need(inside >= 0);
	if (inside > 0) {
		need(waitpid(inside, &status, 0) == inside);
		_exit(status == 0 ? 0 : 1);
	}
	need(getpid() == 1);
	be_nobody_special(arg);
}

static void test_pid_namespace(void **state)
{
	struct peer p = peer_new(be_in_a_pid_namespace, NULL);
	struct csm_facts f;

	(void)state;
	facts_of(&p, false, &f);
	assert_int_equal(f.uid, PEER_UID);
	assert_true(f.pid > 1 && f.pid != p.child);
	assert_true(f.valid);
	assert_false(f.same_ns);
	csm_facts_clear(&f);
	peer_end(&p);
}

/* The other way round: what a csmd in a pid namespace sees of a peer outside is pid 0. */
static void test_peer_outside(void **state)
{
	int told[2], status;
	char report[3] = "";
	pid_t child;

	(void)state;
	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		need(unshare(CLONE_NEWPID) == 0);
		pid_t inside = fork();
		if (inside == 0) {
			struct csm_facts f;
			int pidfd = -1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			const char *why = "";
			need(csm_facts_of_socket(fd, KUBE, true, &f, &pidfd) == 0);
			snprintf(report, sizeof(report), "%d%d", f.pid == 0 && !f.valid && !f.same_ns && pidfd == -1,
				csm_identity_degraded(&why) && strstr(why, "pid namespace") != NULL);
			need(write(told[1], report, 2) == 2);
			_exit(0);
		}
		_exit(waitpid(inside, &status, 0) == inside && status == 0 ? 0 : 1);
	}
	int s = connect_now();
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(read(told[0], report, 2), 2);
	assert_string_equal(report, "11");
	close(s);
	close(told[0]);
	close(told[1]);
}

static void test_peer_is_gone(void **state)
{
	int kept[2], pidfd = -7, fd, status;
	struct csm_facts f = {.uid = 4711};
	pid_t child = fork();

	(void)state;
	/* it left, and was reaped */
	if (child == 0) {
		connect_now();
		_exit(0);
	}
	fd = accept_soon();
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(csm_facts_of_socket(fd, KUBE, false, &f, &pidfd), CSM_ECLOSED);
	assert_int_equal(f.uid, 4711);
	assert_int_equal(pidfd, -7);
	close(fd);

	/* it left the connection to a child of its own: that is not who connected */
	assert_int_equal(pipe2(kept, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		char c;
		connect_now();
		if (fork() == 0) {
			close(kept[1]);
			_exit(read(kept[0], &c, 1) == 0 ? 0 : 1);
		}
		_exit(0);
	}
	fd = accept_soon();
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(csm_facts_of_socket(fd, KUBE, false, &f, &pidfd), CSM_ECLOSED);
	close(fd);
	close(kept[0]);
	close(kept[1]);
}

static void test_no_socket(void **state)
{
	int pidfd = -7, fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct csm_facts f = {.uid = 4711};

	(void)state;
	assert_int_equal(csm_facts_of_socket(fd, KUBE, false, &f, &pidfd), CSM_ESYSTEM);
	assert_int_equal(csm_facts_of_socket(-1, KUBE, false, &f, &pidfd), CSM_ESYSTEM);
	assert_int_equal(f.uid, 4711);
	assert_int_equal(pidfd, -7);
	close(fd);
}

/* The root of the unified hierarchy, where we may make groups; NULL elsewhere (a container, say). */
static const char *cgroup_root(void)
{
	static const char *const roots[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
	char path[128];

	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/cgroup.controllers", roots[i]);
		if (access(path, F_OK) == 0)
			return access(roots[i], W_OK) == 0 ? roots[i] : NULL;
	}
	return NULL;
}

struct test_group {
	char slice[128], unit[256], name[64];
	bool made_slice;
};

static bool group_new(struct test_group *g)
{
	const char *root = cgroup_root();

	if (root == NULL)
		return false;
	snprintf(g->slice, sizeof(g->slice), "%s/system.slice", root);
	snprintf(g->name, sizeof(g->name), "csm-test-%d.service", (int)getpid());
	snprintf(g->unit, sizeof(g->unit), "%s/%s", g->slice, g->name);
	g->made_slice = mkdir(g->slice, 0755) == 0;
	return mkdir(g->unit, 0755) == 0;
}

static void group_free(const struct test_group *g)
{
	static const struct timespec pause = {0, 20000000};

	/* its last process may still be on its way out */
	for (int i = 0; rmdir(g->unit) != 0 && errno == EBUSY && i < 100; i++)
		nanosleep(&pause, NULL);
	if (g->made_slice)
		rmdir(g->slice);
	assert_int_not_equal(access(g->unit, F_OK), 0);
}

static void be_in_a_unit(void *arg)
{
	const struct test_group *g = arg;
	char path[300];

	snprintf(path, sizeof(path), "%s/cgroup.procs", g->unit);
	write_text(path, "0");
	be_nobody_special(NULL);
}

static void test_unit(void **state)
{
	struct csm_facts f;
	struct test_group g;
	struct peer p;
	char path[128];

	(void)state;
	if (csm_identity_degraded(NULL) || !group_new(&g))
		skip();
	p = peer_new(be_in_a_unit, &g);
	facts_of(&p, false, &f);
	snprintf(path, sizeof(path), "/system.slice/%s", g.name);
	assert_string_equal(f.cgroup, path);
	assert_string_equal(f.unit, g.name);
	assert_null(f.user_unit);
	csm_facts_clear(&f);
	facts_of(&p, true, &f);
	assert_null(f.cgroup);
	assert_null(f.unit);
	csm_facts_clear(&f);
	peer_end(&p);
	group_free(&g);
}

/* As the broker asks: another user, no capabilities, not dumpable, in its sandbox. */
static void report_from_sandbox(int fd, int to)
{
	struct csm_sandbox box = {.uid = 20009, .gid = 20009, .write_dir = "/proc/self", .read_dirs = {"/proc"}};
	static struct csm_sandbox_report report;
	struct csm_facts f;
	int pidfd = -1;
	char line[64];
	int n;

	need(csm_sandbox_enter(&box, &report) == 0);
	need(csm_facts_of_socket(fd, KUBE, false, &f, &pidfd) == 0);
	n = snprintf(line, sizeof(line), "%u %d %d %s", (unsigned)f.uid, f.same_ns, pidfd >= 0,
		f.cgroup != NULL ? "cgroup" : "none");
	need(write(to, line, (size_t)n) == n);
	_exit(0);
}

static void check_from_sandbox(void (*be)(void *), const char *want)
{
	struct peer p = peer_new(be, NULL);
	char got[64] = "";
	int told[2], status;
	pid_t child;

	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	child = fork();
	if (child == 0)
		report_from_sandbox(p.fd, told[1]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_true(read(told[0], got, sizeof(got) - 1) > 0);
	assert_string_equal(got, want);
	close(told[0]);
	close(told[1]);
	peer_end(&p);
}

static void test_from_the_sandbox(void **state)
{
	(void)state;
	check_from_sandbox(be_nobody_special, "20001 1 1 cgroup");
	check_from_sandbox(be_root_of_a_user_namespace, "20001 0 1 cgroup");
	check_from_sandbox(be_in_a_pid_namespace, "20001 0 1 cgroup");
}

/* A kernel without SO_PEERPIDFD, played by a filter: the pid is no proof, so no unit; the uid is as good as ever. */
static void hide_peerpidfd(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	need(filter != NULL &&
		seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOPROTOOPT), SCMP_SYS(getsockopt), 1,
			SCMP_A2(SCMP_CMP_EQ, SO_PEERPIDFD)) == 0 && seccomp_load(filter) == 0);
	seccomp_release(filter);
}

static void check_old_kernel(const struct peer *p, int want, bool same_ns)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct csm_facts f = {0};
		int pidfd = -1;
		hide_peerpidfd();
		int r = csm_facts_of_socket(p->fd, KUBE, false, &f, &pidfd);
		bool ok = r == want && (r != 0 || (f.uid == PEER_UID && f.same_ns == same_ns && f.valid && pidfd >= 0 &&
			f.cgroup == NULL && f.unit == NULL));
		csm_facts_clear(&f);
		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void test_old_kernel(void **state)
{
	struct peer p = peer_new(be_nobody_special, NULL);
	int status;

	(void)state;
	check_old_kernel(&p, 0, true);
	/* gone, and no process of that number */
	close(p.hold);
	assert_int_equal(waitpid(p.child, &status, 0), p.child);
	check_old_kernel(&p, CSM_ECLOSED, false);
	close(p.fd);
	p = peer_new(be_root_of_a_user_namespace, NULL);
	check_old_kernel(&p, 0, false);
	peer_end(&p);
}

static void test_degraded(void **state)
{
	static const struct {
		int flag;
		const char *word;
	} cases[] = {{CLONE_NEWUSER, "user namespace"}, {CLONE_NEWCGROUP, "cgroup namespace"}};
	const char *why = NULL;
	int status;

	(void)state;
	if (csm_identity_degraded(&why)) {
		assert_non_null(why);
		skip(); /* the tests themselves run in a container */
	}
	for (size_t i = 0; i < 2; i++) {
		pid_t child = fork();
		if (child == 0) {
			need(unshare(cases[i].flag) == 0);
			_exit(csm_identity_degraded(&why) && strstr(why, cases[i].word) != NULL ? 0 : 1);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_and_groups),
		cmocka_unit_test(test_many_groups),
		cmocka_unit_test(test_overflow_ids),
		cmocka_unit_test(test_user_namespace),
		cmocka_unit_test(test_pid_namespace),
		cmocka_unit_test(test_peer_outside),
		cmocka_unit_test(test_peer_is_gone),
		cmocka_unit_test(test_no_socket),
		cmocka_unit_test(test_unit),
		cmocka_unit_test(test_from_the_sandbox),
		cmocka_unit_test(test_old_kernel),
		cmocka_unit_test(test_degraded),
	};

	if (getuid() != 0) {
		printf("not root: these tests need other uids, skipped\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
