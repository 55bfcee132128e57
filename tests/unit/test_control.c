#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/control.h"
#include "libclient/wire/enc.h"
#include "tests/lib/fds.h"

#define BIN(text) ((struct csm_bin){(const uint8_t *)(text), sizeof(text) - 1})

/* ---- messages ---- */

static void make_pair(int pair[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

static void messages_cross_whole(void **state)
{
	uint8_t body[CONTROL_BODY_MAX + 1];
	struct control_msg m;
	int s[2];

	(void)state;
	make_pair(s);
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (uint8_t)i;
	for (size_t n = 0; n <= CONTROL_BODY_MAX; n++) {
		assert_int_equal(control_send(s[0], CTL_RELOADED, body, n, -1), 0);
		assert_int_equal(control_recv(s[1], &m), 0);
		assert_int_equal(m.type, CTL_RELOADED);
		assert_int_equal(m.len, n);
		assert_int_equal(m.fd, -1);
		assert_memory_equal(m.body, body, n);
	}
	assert_int_equal(control_send(s[0], CTL_RELOADED, body, CONTROL_BODY_MAX + 1, -1), CSM_ETOO_LARGE);
	assert_int_equal(control_recv(s[1], &m), CSM_EBUSY);
	close(s[0]);
	assert_int_equal(control_recv(s[1], &m), CSM_ECLOSED);
	assert_int_equal(control_send(s[1], CTL_READY, NULL, 0, -1), CSM_ECLOSED);
	close(s[1]);
	assert_int_equal(control_send(s[1], CTL_READY, NULL, 0, -1), CSM_ESYSTEM);
	assert_int_equal(control_recv(s[1], &m), CSM_ESYSTEM);
}

static void a_descriptor_crosses(void **state)
{
	struct control_msg m;
	struct stat sent, got;
	int s[2], fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	make_pair(s);
	assert_int_equal(control_send(s[0], CTL_CONN, "\x04", 1, fd), 0);
	assert_int_equal(control_recv(s[1], &m), 0);
	assert_true(m.fd >= 0 && m.fd != fd);
	assert_int_equal(fcntl(m.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(fstat(fd, &sent), 0);
	assert_int_equal(fstat(m.fd, &got), 0);
	assert_int_equal(sent.st_rdev, got.st_rdev);
	close(m.fd);
	close(fd);
	close(s[0]);
	close(s[1]);
}

static void send_fds(int sock, int fd, size_t n)
{
	uint8_t type = CTL_READY;
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control = {0};
	struct iovec iov = {&type, 1};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (size_t i = 0; i < n; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	assert_int_equal(sendmsg(sock, &m, 0), 1);
}

/* A broker that was taken over must not fill the supervisor's table. */
static void further_descriptors_are_closed(void **state)
{
	struct control_msg m;
	int s[2];
	size_t before;

	(void)state;
	make_pair(s);
	before = open_fds();
	for (size_t n = 1; n <= 8; n++) {
		send_fds(s[0], s[0], n);
		assert_int_equal(control_recv(s[1], &m), 0);
		if (m.fd >= 0)
			close(m.fd);
		assert_int_equal(open_fds(), before);
	}
	close(s[0]);
	close(s[1]);
}

/* ---- the setup ---- */

static void expect_bin(struct csm_bin a, struct csm_bin b)
{
	assert_int_equal(a.p == NULL, b.p == NULL);
	assert_int_equal(a.n, b.n);
	if (a.n > 0)
		assert_memory_equal(a.p, b.p, a.n);
}

static struct setup_name names[] = {
	{false, {"web", 3}, 33}, {true, {"web", 3}, 34}, {false, {"d\xc3\xa9ploy", 7}, 4294967294u}};

static struct setup whole(void)
{
	return (struct setup){
		.config = BIN("log_level: info\n"),
		.policy = BIN("version: 1\n\0binary"),
		.broker_uid = 59001,
		.broker_gid = UINT32_MAX,
		.supervisor_pid = 4711,
		.reload_seq = UINT64_MAX - 1,
		.plugin_dir = CSM_STR("/usr/lib/csm/plugins"),
		.device = CSM_STR("swtpm:path=/x"),
		.owner_auth = BIN("\x00\xff"),
		.root_secret = {(const uint8_t *)"", 0},
		.names = names,
		.n_names = sizeof(names) / sizeof(names[0]),
	};
}

static void expect_round_trip(const struct setup *in)
{
	struct csm_buf mem;
	struct setup out;
	int fd = -1;

	assert_int_equal(setup_to_memfd(in, &fd), 0);
	assert_int_equal(setup_from_memfd(fd, &mem, &out), 0);
	close(fd);
	expect_bin(in->config, out.config);
	expect_bin(in->policy, out.policy);
	expect_bin(in->owner_auth, out.owner_auth);
	expect_bin(in->root_secret, out.root_secret);
	assert_int_equal(in->broker_uid, out.broker_uid);
	assert_int_equal(in->broker_gid, out.broker_gid);
	assert_int_equal(in->supervisor_pid, out.supervisor_pid);
	assert_int_equal(in->reload_seq, out.reload_seq);
	assert_true(csm_str_same(in->plugin_dir, out.plugin_dir));
	assert_true(csm_str_same(in->device, out.device));
	assert_int_equal(in->n_names, out.n_names);
	for (size_t i = 0; i < in->n_names; i++) {
		assert_int_equal(in->names[i].group, out.names[i].group);
		assert_int_equal(in->names[i].id, out.names[i].id);
		assert_true(csm_str_same(in->names[i].name, out.names[i].name));
	}
	setup_clear(&out);
	setup_clear(&out);
	csm_buf_free(&mem);
}

static void setup_round_trip(void **state)
{
	struct setup s = whole(), none = {.plugin_dir = CSM_STR(""), .device = CSM_STR("")};

	(void)state;
	expect_round_trip(&s);
	expect_round_trip(&none);
}

static void the_memfd_is_sealed(void **state)
{
	struct setup s = whole();
	int fd = -1;

	(void)state;
	assert_int_equal(setup_to_memfd(&s, &fd), 0);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 1), -1);
	close(fd);
}

static int read_bytes(const uint8_t *p, size_t n)
{
	int fd = memfd_create("test", MFD_CLOEXEC), r;
	struct setup out = {.n_names = 99};
	struct csm_buf mem;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	r = setup_from_memfd(fd, &mem, &out);
	close(fd);
	if (r == 0) {
		setup_clear(&out);
		csm_buf_free(&mem);
	} else {
		assert_int_equal(out.n_names, 99); /* untouched on failure */
	}
	return r;
}

static void cut_off_or_left_over_is_refused(void **state)
{
	struct setup s = whole();
	uint8_t text[1024];
	int fd = -1;
	ssize_t n;

	(void)state;
	assert_int_equal(setup_to_memfd(&s, &fd), 0);
	n = pread(fd, text, sizeof(text) - 1, 0);
	close(fd);
	assert_true(n > 50 && n < (ssize_t)sizeof(text) - 1);
	assert_int_equal(read_bytes(text, (size_t)n), 0);
	for (ssize_t i = 0; i < n; i++)
		assert_int_not_equal(read_bytes(text, (size_t)i), 0);
	text[n] = 0xc0;
	assert_int_not_equal(read_bytes(text, (size_t)n + 1), 0);
	/* Any one byte that is another one may be refused or mean another setup, never more. */
	for (ssize_t i = 0; i < n; i++) {
		text[i] ^= 0xff;
		(void)!read_bytes(text, (size_t)n);
		text[i] ^= 0xff;
	}
}

static void counts_are_bounded(void **state)
{
	struct setup_name *many = calloc(SETUP_NAMES_MAX + 1, sizeof(*many));
	struct setup s = whole(), out;
	struct csm_buf mem;
	int fd = -1;

	(void)state;
	assert_non_null(many);
	for (size_t i = 0; i <= SETUP_NAMES_MAX; i++)
		many[i] = names[0];
	s.names = many;
	s.n_names = SETUP_NAMES_MAX;
	expect_round_trip(&s);
	s.n_names++;
	assert_int_equal(setup_to_memfd(&s, &fd), 0);
	assert_int_equal(setup_from_memfd(fd, &mem, &out), CSM_EPROTOCOL);
	close(fd);
	free(many);
	fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, 5 << 20), 0);
	assert_int_equal(setup_from_memfd(fd, &mem, &out), CSM_ETOO_LARGE);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(setup_from_memfd(fd, &mem, &out), CSM_ETOO_LARGE);
	close(fd);
	assert_int_equal(setup_from_memfd(fd, &mem, &out), CSM_ESYSTEM);
}

static void a_setup_beyond_its_bound_is_not_made(void **state)
{
	struct setup s = whole();
	uint8_t *big = calloc(1, 5 << 20);
	size_t before = open_fds();
	int fd = -1;

	(void)state;
	assert_non_null(big);
	s.policy = (struct csm_bin){big, 5 << 20};
	assert_int_equal(setup_to_memfd(&s, &fd), CSM_ETOO_LARGE);
	assert_int_equal(fd, -1);
	assert_int_equal(open_fds(), before);
	free(big);
}

static void names_are_resolved_by_kind(void **state)
{
	struct setup s = whole();
	struct csm_resolver r = setup_resolver(&s);
	uid_t uid = 0;
	gid_t gid = 0;

	(void)state;
	assert_true(r.user(r.arg, "web", &uid));
	assert_int_equal(uid, 33);
	assert_true(r.group(r.arg, "web", &gid));
	assert_int_equal(gid, 34);
	assert_true(r.user(r.arg, "d\xc3\xa9ploy", &uid));
	assert_false(r.group(r.arg, "d\xc3\xa9ploy", &gid));
	assert_false(r.user(r.arg, "we", &uid));
	assert_false(r.user(r.arg, "", &uid));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_cross_whole),
		cmocka_unit_test(a_descriptor_crosses),
		cmocka_unit_test(further_descriptors_are_closed),
		cmocka_unit_test(setup_round_trip),
		cmocka_unit_test(the_memfd_is_sealed),
		cmocka_unit_test(cut_off_or_left_over_is_refused),
		cmocka_unit_test(counts_are_bounded),
		cmocka_unit_test(a_setup_beyond_its_bound_is_not_made),
		cmocka_unit_test(names_are_resolved_by_kind),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
