/* What is taken from a cgroup path, and, as important, what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/svc/identity.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define POD "a1b2c3d4-0000-1111-2222-333344445555"
#define POD_ "a1b2c3d4_0000_1111_2222_333344445555"
#define KUBE "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" POD_ ".slice"

struct expect {
	const char *path, *unit, *user_unit, *pod, *container;
};

static void same(const struct expect *e, const char *what, const char *got, const char *want)
{
	if ((got == NULL) != (want == NULL) || (got != NULL && strcmp(got, want) != 0))
		fail_msg("%s: %s is %s", e->path, what, got != NULL ? got : "nothing");
}

static void check(const struct expect *e, size_t n, const char *kubepods_root)
{
	for (; n-- > 0; e++) {
		struct csm_facts f = {0};
		assert_int_equal(csm_facts_from_cgroup(&f, e->path, kubepods_root), 0);
		same(e, "cgroup", f.cgroup, e->path);
		same(e, "unit", f.unit, e->unit);
		same(e, "user_unit", f.user_unit, e->user_unit);
		same(e, "pod", f.pod, e->pod);
		same(e, "container", f.container, e->container);
		csm_facts_clear(&f);
		assert_null(f.cgroup);
	}
}
#define CHECK(cases, root) check(cases, sizeof(cases) / sizeof((cases)[0]), root)

static void test_units(void **state)
{
	static const struct expect cases[] = {
		{"/", NULL, NULL, NULL, NULL},
		{"/init.scope", NULL, NULL, NULL, NULL},
		{"/system.slice", NULL, NULL, NULL, NULL},
		{"/system.slice/nginx.service", "nginx.service", NULL, NULL, NULL},
		{"/system.slice/nginx.service/worker", "nginx.service", NULL, NULL, NULL},
		/* what a delegated unit makes below itself is still it */
		{"/system.slice/a.service/system.slice/nginx.service", "a.service", NULL, NULL, NULL},
		{"/system.slice/a.service/nginx.service", "a.service", NULL, NULL, NULL},
		{"/system.slice/foo.slice/a.service", NULL, NULL, NULL, NULL},
		{"/system.slice/system-foo.slice/foo@1.service", "foo@1.service", NULL, NULL, NULL},
		{"/system.slice/system-foo.slice/system-foo-bar.slice/a.service", "a.service", NULL, NULL, NULL},
		{"/system.slice/system-foo.slice/system-bar.slice/a.service", NULL, NULL, NULL, NULL},
		{"/system.slice/system-.slice/a.service", NULL, NULL, NULL, NULL},
		{"/system.slice/dbus.socket", "dbus.socket", NULL, NULL, NULL},
		{"/system.slice/run-r1.scope", "run-r1.scope", NULL, NULL, NULL},
		{"/system.slice/tmp.mount", "tmp.mount", NULL, NULL, NULL},
		{"/system.slice/dev-sda2.swap", "dev-sda2.swap", NULL, NULL, NULL},
		{"/system.slice/system-systemd\\x2dfsck.slice/systemd-fsck@dev-sda.service",
			"systemd-fsck@dev-sda.service", NULL, NULL, NULL},
		{"/system.slice/nginx", NULL, NULL, NULL, NULL},
		{"/system.slice/.service", NULL, NULL, NULL, NULL},
		{"/system.slice/x/nginx.service", NULL, NULL, NULL, NULL},
		/* bytes that systemd does not put into a name */
		{"/system.slice/a b.service", NULL, NULL, NULL, NULL},
		{"/system.slice/a\nb.service", NULL, NULL, NULL, NULL},
		{"/system.slice/\033[31ma.service", NULL, NULL, NULL, NULL},
		{"/system.slice/\377.service", NULL, NULL, NULL, NULL},
		{"/system.slice/a*.service", NULL, NULL, NULL, NULL},
		{"/system.slicex/nginx.service", NULL, NULL, NULL, NULL},
		{"/x/system.slice/nginx.service", NULL, NULL, NULL, NULL},
		{"/user.slice/system.slice/nginx.service", NULL, NULL, NULL, NULL},
		{"/machine.slice/nginx.service", NULL, NULL, NULL, NULL},
	};

	(void)state;
	CHECK(cases, "/kubepods.slice");
}

static void test_user_units(void **state)
{
	static const struct expect cases[] = {
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/app.service", NULL, "1000/app.service", NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service/a.service", NULL, "1000/a.service", NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.slice/x.scope/deep", NULL, "1000/x.scope",
			NULL, NULL},
		{"/user.slice/user-0.slice/user@0.service/init.scope", NULL, "0/init.scope", NULL, NULL},
		/* a user's own manager may run a unit of any name; it is never the system's */
		{"/user.slice/user-1000.slice/user@1000.service/system.slice/nginx.service", NULL, "1000/nginx.service",
			NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service/docker-" ID ".scope", NULL, "1000/docker-" ID ".scope",
			NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service" KUBE "/crio-" ID ".scope", NULL, "1000/crio-" ID ".scope",
			NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service", NULL, NULL, NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service/app", NULL, NULL, NULL, NULL},
		{"/user.slice/user-1000.slice/user@1001.service/a.service", NULL, NULL, NULL, NULL},
		{"/user.slice/user-1000.slice/session-3.scope", NULL, NULL, NULL, NULL},
		{"/user.slice/user-1000.slice/session-3.scope/user@1000.service/a.service", NULL, NULL, NULL, NULL},
		{"/user.slice/user-01.slice/user@01.service/a.service", NULL, NULL, NULL, NULL},
		{"/user.slice/user-x.slice/user@x.service/a.service", NULL, NULL, NULL, NULL},
		{"/user.slice/user-.slice/user@.service/a.service", NULL, NULL, NULL, NULL},
		{"/user-1000.slice/user@1000.service/a.service", NULL, NULL, NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service/a\033[31m.service", NULL, NULL, NULL, NULL},
		{"/user.slice/user-1000.slice/user@1000.service/\xc3\xa4.service", NULL, NULL, NULL, NULL},
	};

	(void)state;
	CHECK(cases, "/kubepods.slice");
}

static void test_pods_with_systemd(void **state)
{
	static const struct expect cases[] = {
		{KUBE "/cri-containerd-" ID ".scope", NULL, NULL, POD, ID},
		{KUBE "/crio-" ID ".scope", NULL, NULL, POD, ID},
		{KUBE "/docker-" ID ".scope/init", NULL, NULL, POD, ID},
		{KUBE, NULL, NULL, POD, NULL},
		{KUBE "/crio-conmon-" ID ".scope", NULL, NULL, POD, NULL},
		{KUBE "/other-" ID ".scope", NULL, NULL, POD, NULL},
		{KUBE "/" ID, NULL, NULL, POD, NULL},
		{KUBE "/x/crio-" ID ".scope", NULL, NULL, POD, NULL},
		{"/kubepods.slice/kubepods-pod" POD_ ".slice/crio-" ID ".scope", NULL, NULL, POD, ID},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" POD_ ".slice", NULL, NULL, POD, NULL},
		/* a static pod's uid is a hash */
		{"/kubepods.slice/kubepods-pod0123456789abcdef0123456789abcdef.slice", NULL, NULL,
			"0123456789abcdef0123456789abcdef", NULL},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-besteffort-pod" POD_ ".slice", NULL, NULL, NULL, NULL},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-pod" POD_ ".slice", NULL, NULL, NULL, NULL},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podnoid.slice", NULL, NULL, NULL, NULL},
		{"/kubepods.slice/kubepods-pod" POD_, NULL, NULL, NULL, NULL},
		{"/kubepods.slice", NULL, NULL, NULL, NULL},
		{"/kubepods/pod" POD "/" ID, NULL, NULL, NULL, NULL},
		{"/x" KUBE "/crio-" ID ".scope", NULL, NULL, NULL, NULL},
		{"/system.slice/a.service" KUBE "/crio-" ID ".scope", "a.service", NULL, NULL, NULL},
	};
	static const struct expect nested[] = {
		{"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" POD_
			".slice/cri-containerd-" ID ".scope", NULL, NULL, POD, ID},
		{KUBE "/crio-" ID ".scope", NULL, NULL, NULL, NULL},
	};

	(void)state;
	CHECK(cases, "/kubepods.slice");
	CHECK(nested, "/kubelet.slice/kubelet-kubepods.slice");
}

static void test_pods_with_cgroupfs(void **state)
{
	static const struct expect cases[] = {
		{"/kubepods/burstable/pod" POD "/" ID, NULL, NULL, POD, ID},
		{"/kubepods/besteffort/pod" POD "/" ID "/deep", NULL, NULL, POD, ID},
		{"/kubepods/pod" POD "/crio-" ID, NULL, NULL, POD, ID},
		{"/kubepods/pod" POD, NULL, NULL, POD, NULL},
		{"/kubepods/pod" POD "/" ID "0", NULL, NULL, POD, NULL},
		{"/kubepods/pod" POD_ "/" ID, NULL, NULL, NULL, NULL},
		{"/kubepods/other/pod" POD "/" ID, NULL, NULL, NULL, NULL},
		{"/kubepods/burstable/burstable/pod" POD "/" ID, NULL, NULL, NULL, NULL},
		{KUBE "/crio-" ID ".scope", NULL, NULL, NULL, NULL},
	};
	static const struct expect none[] = {{"/kubepods/pod" POD "/" ID, NULL, NULL, NULL, NULL}};

	(void)state;
	CHECK(cases, "/kubepods");
	CHECK(none, "");
	CHECK(none, NULL);
}

static void test_engines(void **state)
{
	static const struct expect cases[] = {
		{"/system.slice/docker-" ID ".scope", "docker-" ID ".scope", NULL, NULL, ID},
		{"/system.slice/docker-" ID ".scope/system.slice/nginx.service", "docker-" ID ".scope", NULL, NULL, ID},
		{"/system.slice/nerdctl-" ID ".scope", "nerdctl-" ID ".scope", NULL, NULL, ID},
		{"/docker/" ID, NULL, NULL, NULL, ID},
		{"/docker/" ID "/docker/x", NULL, NULL, NULL, ID},
		{"/machine.slice/libpod-" ID ".scope/container", NULL, NULL, NULL, ID},
		{"/libpod_parent/libpod-" ID, NULL, NULL, NULL, ID},
		{"/machine.slice/libpod-conmon-" ID ".scope", NULL, NULL, NULL, NULL},
		{"/docker/0123", NULL, NULL, NULL, NULL},
		{"/docker/0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", NULL, NULL, NULL, NULL},
		{"/docker/x/" ID, NULL, NULL, NULL, NULL},
		{"/dockers/" ID, NULL, NULL, NULL, NULL},
		{"/system.slice/" ID, NULL, NULL, NULL, NULL},
		{"/x/docker/" ID, NULL, NULL, NULL, NULL},
	};

	(void)state;
	CHECK(cases, "/kubepods.slice");
}

/* Paths that the kernel writes for a peer outside of our cgroup namespace, and what is no path. */
static void test_refused(void **state)
{
	static const char *const bad[] = {"", "system.slice/a.service", "/..", "/../system.slice/a.service",
		"/system.slice/../system.slice/a.service", "/system.slice/./a.service", "//system.slice/a.service",
		"/system.slice//a.service", "/system.slice/", "/system.slice/nginx.service (deleted)",
		"/system.slice/nginx.service/deep (deleted)", " (deleted)"};
	char *longest = malloc(4098);
	struct csm_facts f = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(csm_facts_from_cgroup(&f, bad[i], "/kubepods.slice"), CSM_EINVALID);
	assert_int_equal(csm_facts_from_cgroup(&f, "/docker/" ID " (deleted)", "/kubepods.slice"), CSM_EINVALID);
	assert_int_equal(csm_facts_from_cgroup(&f, KUBE " (deleted)", "/kubepods.slice"), CSM_EINVALID);
	assert_null(f.cgroup);
	assert_non_null(longest);
	memset(longest, 'a', 4097);
	longest[0] = '/';
	longest[4097] = 0;
	assert_int_equal(csm_facts_from_cgroup(&f, longest, "/kubepods.slice"), CSM_EINVALID);
	longest[4096] = 0;
	assert_int_equal(csm_facts_from_cgroup(&f, longest, "/kubepods.slice"), 0);
	csm_facts_clear(&f);
	free(longest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_user_units),
		cmocka_unit_test(test_pods_with_systemd),
		cmocka_unit_test(test_pods_with_cgroupfs),
		cmocka_unit_test(test_engines),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
