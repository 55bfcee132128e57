/* The sockets that the supervisor makes or is given, what it tells systemd, and the TPM that it opens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/supervisor.h"
#include "daemon/svc/notify.h"
#include "daemon/svc/log.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static char dir[64], public[128], admin[128];
static struct csm_config cfg;

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/csm-sockets-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(public, sizeof(public), "%s/run/public/csm.sock", dir);
	snprintf(admin, sizeof(admin), "%s/run/admin.sock", dir);
	cfg.socket = public;
	cfg.admin_socket = admin;
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("NOTIFY_SOCKET");
	return 0;
}

static int teardown(void **state)
{
	static const char *const parts[] = {"run/public/csm.sock", "run/public", "run/admin.sock.lock", "run/admin.sock",
		"run", "notify", "other", "tpm", ""};
	char path[192];

	(void)state;
	for (size_t i = 0; i < N_ELEMS(parts); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, parts[i]);
		if (remove(path) != 0 && errno != ENOENT)
			return -1;
	}
	return 0;
}

static int listener(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static bool can_connect(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool good;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
	good = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
	close(fd);
	return good;
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

static void sockets_have_their_modes(void **state)
{
	static const mode_t masks[] = {0, 022, 077, 0777};
	char folder[128];

	(void)state;
	snprintf(folder, sizeof(folder), "%s/run/public", dir);
	for (size_t i = 0; i < N_ELEMS(masks); i++) {
		struct sockets s;
		mode_t before = umask(masks[i]);

		assert_int_equal(sockets_open(&cfg, &s), 0);
		/* As we were started. */
		assert_int_equal(umask(before), masks[i]);
		assert_int_equal(mode_of(public), 0666);
		assert_int_equal(mode_of(admin), 0600);
		assert_int_equal(mode_of(folder), 0755);
		assert_int_equal(s.role[0], CSM_R_PUBLIC);
		assert_int_equal(s.role[1], CSM_R_ADMIN);
		assert_true(can_connect(public));
		assert_true(can_connect(admin));
		for (int k = 0; k < SOCKETS_MAX; k++)
			assert_int_equal(fcntl(s.fd[k], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		sockets_close(&s);
		sockets_close(&s);
		assert_int_equal(access(public, F_OK), -1);
		assert_int_equal(access(admin, F_OK), -1);
		teardown(NULL);
		assert_int_equal(mkdir(dir, 0700), 0);
	}
}

static void one_csmd_for_a_path(void **state)
{
	struct sockets s, second = {.lock_fd = -77};
	char path[160];
	int stale;

	(void)state;
	assert_int_equal(sockets_open(&cfg, &s), 0);
	assert_int_equal(sockets_open(&cfg, &second), CSM_ESYSTEM);
	assert_int_equal(second.lock_fd, -77); /* untouched */
	/* The first one is where it was. */
	assert_true(can_connect(public));
	sockets_close(&s);
	/* Nothing is left in the folder that containers mount. */
	snprintf(path, sizeof(path), "%s/run/public", dir);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	/* One of another configuration is not robbed of its path. */
	stale = listener(public);
	assert_int_equal(sockets_open(&cfg, &second), CSM_ESYSTEM);
	close(stale);
	/* A socket that was left behind is replaced. */
	assert_int_equal(unlink(public), 0);
	stale = listener(public);
	close(stale);
	assert_false(can_connect(public));
	assert_int_equal(sockets_open(&cfg, &s), 0);
	assert_true(can_connect(public));
	sockets_close(&s);
}

static void where_no_socket_can_be(void **state)
{
	char path[200];
	struct sockets s;

	(void)state;
	/* Two folders are made, not three. */
	snprintf(path, sizeof(path), "%s/a/b/c/csm.sock", dir);
	cfg.socket = path;
	assert_int_equal(sockets_open(&cfg, &s), CSM_ESYSTEM);
	snprintf(path, sizeof(path), "%s/%0120d", dir, 7);
	assert_int_equal(sockets_open(&cfg, &s), CSM_ESYSTEM);
	cfg.socket = public;
	cfg.admin_socket = path;
	assert_int_equal(sockets_open(&cfg, &s), CSM_ESYSTEM);
	/* Nothing of the first one is left. */
	assert_int_equal(access(public, F_OK), -1);
	cfg.admin_socket = admin;
	assert_int_equal(sockets_open(&cfg, &s), 0);
	sockets_close(&s);
}

/* ---- handed over by systemd; in a child, whose descriptors 3 and 4 they are ---- */

/* The coverage build's counts are lost with _exit. */
extern void __gcov_dump(void) __attribute__((weak));

struct handed {
	int fd[2];
	int n;
	bool wrong_pid;
};

static int child_of(const struct handed *h, int (*check)(void))
{
	pid_t child = fork();
	char text[16];
	int status, keep[2];

	if (child == 0) {
		for (int i = 0; i < 2; i++)
			keep[i] = fcntl(h->fd[i], F_DUPFD, 20);
		for (int i = 0; i < 2; i++)
			if (dup2(keep[i], 3 + i) < 0)
				_exit(99);
		snprintf(text, sizeof(text), "%d", (int)getpid() + (h->wrong_pid ? 1 : 0));
		setenv("LISTEN_PID", text, 1);
		snprintf(text, sizeof(text), "%d", h->n);
		setenv("LISTEN_FDS", text, 1);
		status = check();
		if (__gcov_dump != NULL)
			__gcov_dump();
		_exit(status);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int taken_over(void)
{
	struct sockets s;

	if (sockets_open(&cfg, &s) != 0)
		return 1;
	if (!s.activated || s.lock_fd >= 0)
		return 2;
	if (s.role[0] != CSM_R_PUBLIC || (fcntl(s.fd[0], F_GETFD) & FD_CLOEXEC) == 0)
		return 3;
	struct sockaddr_un addr;
	socklen_t n = sizeof(addr);
	if (getsockname(s.fd[0], (struct sockaddr *)&addr, &n) != 0 || strcmp(addr.sun_path, public) != 0)
		return 4;
	n = sizeof(addr);
	if (getsockname(s.fd[1], (struct sockaddr *)&addr, &n) != 0 || strcmp(addr.sun_path, admin) != 0)
		return 5;
	sockets_close(&s);
	/* They are systemd's: they stay. */
	return access(public, F_OK) == 0 && access(admin, F_OK) == 0 ? 0 : 6;
}

static int refused(void)
{
	struct sockets s;

	return sockets_open(&cfg, &s) == CSM_EINVALID ? 0 : 1;
}

/* What was handed to another process is not ours: systemd listens there, and its socket is not taken away. */
static int not_ours(void)
{
	struct sockets s;

	if (sockets_open(&cfg, &s) != CSM_ESYSTEM)
		return 1;
	return access(public, F_OK) == 0 && access(admin, F_OK) == 0 ? 0 : 2;
}

static void sockets_of_systemd(void **state)
{
	char path[128];
	struct handed h;
	int a, b, other;

	(void)state;
	snprintf(path, sizeof(path), "%s/run", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/run/public", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/other", dir);
	a = listener(public);
	b = listener(admin);
	other = listener(path);
	h = (struct handed){.fd = {a, b}, .n = 2};
	assert_int_equal(child_of(&h, taken_over), 0);
	h = (struct handed){.fd = {b, a}, .n = 2};
	assert_int_equal(child_of(&h, taken_over), 0);
	h = (struct handed){.fd = {a, other}, .n = 2};
	assert_int_equal(child_of(&h, refused), 0);
	h = (struct handed){.fd = {other, other}, .n = 1};
	assert_int_equal(child_of(&h, refused), 0);
	h = (struct handed){.fd = {a, b}, .n = 1000};
	assert_int_equal(child_of(&h, refused), 0);
	h = (struct handed){.fd = {a, b}, .n = 2, .wrong_pid = true};
	assert_int_equal(child_of(&h, not_ours), 0);
	close(a);
	close(b);
	close(other);
}

/* ---- sd_notify ---- */

static void systemd_is_told(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char got[64], path[128];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t len;

	(void)state;
	snprintf(path, sizeof(path), "%s/notify", dir);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	csm_notify_systemd("READY=1"); /* nobody asked */
	assert_int_equal(recv(fd, got, sizeof(got), 0), -1);
	setenv("NOTIFY_SOCKET", path, 1);
	csm_notify_systemd("READY=1");
	assert_int_equal(recv(fd, got, sizeof(got), 0), 7);
	assert_memory_equal(got, "READY=1", 7);
	close(fd);
	csm_notify_systemd("READY=1"); /* nobody listens any more */
	/* In the abstract namespace. */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(path, sizeof(path), "@csm-test-%d", (int)getpid());
	memcpy(addr.sun_path, path, strlen(path));
	addr.sun_path[0] = '\0';
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	setenv("NOTIFY_SOCKET", path, 1);
	csm_notify_systemd("STOPPING=1");
	assert_int_equal(recv(fd, got, sizeof(got), 0), 10);
	/* What is no path. */
	static const char *const bad[] = {"", "/", "@", "relative", "vsock:2:1234"};
	for (size_t i = 0; i < N_ELEMS(bad); i++) {
		setenv("NOTIFY_SOCKET", bad[i], 1);
		csm_notify_systemd("READY=1");
	}
	char longer[200];
	memset(longer, '/', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	setenv("NOTIFY_SOCKET", longer, 1);
	csm_notify_systemd("READY=1");
	assert_int_equal(recv(fd, got, sizeof(got), 0), -1);
	close(fd);
}

/* ---- the TPM ---- */

static const char *name_of(const char *tcti, const char *device)
{
	static char name[64];
	struct csm_config c = {.tpm_tcti = (char *)(uintptr_t)tcti, .tpm_device = (char *)(uintptr_t)device};

	device_name(&c, name, sizeof(name));
	return name;
}

static void which_tpm_is_meant(void **state)
{
	const char *found = access("/dev/tpmrm0", F_OK) == 0 ? "/dev/tpmrm0" : access("/dev/tpm0", F_OK) == 0 ? "/dev/tpm0" : "";

	(void)state;
	assert_string_equal(name_of("swtpm:path=/x", "/dev/tpm7"), "swtpm:path=/x");
	assert_string_equal(name_of("", "/dev/tpm7"), "/dev/tpm7");
	assert_string_equal(name_of(NULL, "/dev/tpm7"), "/dev/tpm7");
	assert_string_equal(name_of(NULL, "none"), "");
	assert_string_equal(name_of(NULL, "auto"), found);
	assert_string_equal(name_of("", NULL), found);
}

static void expect_open(const char *name, bool blocking)
{
	int fd = device_open(name);

	if (fd < 0)
		fail_msg("%s: %s", name, strerror(errno));
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0, blocking);
	close(fd);
}

static void expect_error(const char *name, int error)
{
	errno = 0;
	if (device_open(name) >= 0 || errno != error)
		fail_msg("%s: %s, not %s", name, strerror(errno), strerror(error));
}

static void devices(void **state)
{
	(void)state;
	expect_open("/dev/null", false);
	expect_open("device:/dev/null", false);
	expect_error("/dev/no-such-tpm", ENOENT);
	expect_error("device:", ENOENT);
	expect_error("", ENODEV);
	expect_error("mssim:host=localhost", EPROTONOSUPPORT);
	expect_error("tabrmdx", EPROTONOSUPPORT);
	expect_error("swtpmx:path=/x", EPROTONOSUPPORT);
}

/* A bus that says these bytes to whoever comes first, in a process of its own. */
static pid_t bus_that_says(int listening, const void *p, size_t n)
{
	pid_t pid = fork();
	char in[512];
	int fd;

	assert_true(pid >= 0);
	if (pid != 0)
		return pid;
	fd = accept(listening, NULL, NULL);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		_exit(1);
	while (read(fd, in, sizeof(in)) > 0)
		;
	_exit(0);
}

/* What tpm2-abrmd's bus may answer, and none of it is a connection. */
static void a_bus_that_gives_no_connection(void **state)
{
#define HELLO "OK 0123456789abcdef\r\nAGREE_UNIX_FD\r\n"
#define HEAD(type, fields) "l" type "\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00" fields
#define ANSWER "\x08\x00\x00\x00\x05\x01u\x00\x02\x00\x00\x00" /* to serial 2 */
#define SAYS(text, e) {text, sizeof(text) - 1, e}
	static const struct {
		const char *says;
		size_t n;
		int error;
	} cases[] = {
		SAYS("REJECTED EXTERNAL\r\n", EACCES),
		SAYS("OK 0123456789abcdef\r\nERROR\r\n", EACCES),
		SAYS(HELLO "rubbish that is long enough", EIO),
		/* sizes that nobody has room for */
		SAYS(HELLO "l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00", EIO),
		SAYS(HELLO HEAD("\x02", "\xff\xff\xff\x7f"), EIO),
		/* an error, and a success without a descriptor */
		SAYS(HELLO HEAD("\x03", ANSWER), ENODEV),
		SAYS(HELLO HEAD("\x02", ANSWER), EIO),
		/* a field that is longer than its message, then silence */
		SAYS(HELLO HEAD("\x02", "\x08\x00\x00\x00\x06\x01s\x00\xff\xff\xff\xff"), EIO),
	};
	char path[96], address[160];
	int status;

	(void)state;
	snprintf(path, sizeof(path), "%s/bus", dir);
	snprintf(address, sizeof(address), "unix:path=%s,guid=0", path);
	assert_int_equal(unsetenv("DBUS_SESSION_BUS_ADDRESS"), 0);
	expect_error("tabrmd:bus_type=session", ENOENT);
	assert_int_equal(setenv("DBUS_SESSION_BUS_ADDRESS", address, 1), 0);
	expect_error("tabrmd:bus_type=session", ENOENT);
	expect_error("tabrmd:bus_type=local", EINVAL);
	expect_error("tabrmd:colour=red", EINVAL);
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		int fd = listener(path);
		pid_t pid = bus_that_says(fd, cases[i].says, cases[i].n);

		expect_error("tabrmd:bus_type=session", cases[i].error);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		close(fd);
		unlink(path);
	}
	assert_int_equal(unsetenv("DBUS_SESSION_BUS_ADDRESS"), 0);
}

static void swtpm_on_a_socket(void **state)
{
	char path[128], name[512];
	int fd, waiting[8];
	size_t n = 0;

	(void)state;
	snprintf(path, sizeof(path), "%s/tpm", dir);
	snprintf(name, sizeof(name), "swtpm:path=%s", path);
	expect_error(name, ENOENT);
	fd = listener(path);
	expect_open(name, true);
	/* One that has others waiting does not make us wait. */
	while (n < N_ELEMS(waiting) && (waiting[n] = device_open(name)) >= 0)
		n++;
	assert_true(n < N_ELEMS(waiting));
	assert_int_equal(errno, EBUSY);
	while (n > 0)
		close(waiting[--n]);
	close(fd);
	expect_error(name, ECONNREFUSED);
	snprintf(name, sizeof(name), "swtpm:path=/%0200d", 1);
	expect_error(name, ENAMETOOLONG);
	expect_error("swtpm:path", EINVAL);
	expect_error("swtpm:colour=red", EINVAL);
	expect_error("swtpm:path=/x,colour=red", EINVAL);
	expect_error("swtpm:=", EINVAL);
}

static void swtpm_on_a_port(void **state)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char name[128];

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	snprintf(name, sizeof(name), "swtpm:host=127.0.0.1,port=%d", ntohs(addr.sin_port));
	expect_open(name, true);
	snprintf(name, sizeof(name), "swtpm:port=%d,host=localhost", ntohs(addr.sin_port));
	expect_open(name, true);
	snprintf(name, sizeof(name), "swtpm:port=%d", ntohs(addr.sin_port));
	expect_open(name, true);
	close(fd);
	expect_error(name, ECONNREFUSED);
	/* No name server is asked, no service looked up. */
	expect_error("swtpm:host=tpm.example,port=2321", EHOSTUNREACH);
	expect_error("swtpm:host=127.0.0.1,port=http", EHOSTUNREACH);
	expect_error("swtpm:host=,port=", EHOSTUNREACH);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sockets_have_their_modes),
		TEST(one_csmd_for_a_path),
		TEST(where_no_socket_can_be),
		TEST(sockets_of_systemd),
		TEST(systemd_is_told),
		TEST(which_tpm_is_meant),
		TEST(devices),
		TEST(a_bus_that_gives_no_connection),
		TEST(swtpm_on_a_socket),
		TEST(swtpm_on_a_port),
	};

	alarm(60);
	csm_log_level(LOG_EMERG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
