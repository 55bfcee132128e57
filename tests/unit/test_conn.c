/* Connections: back-pressure, deadlines, descriptors and bytes of others, operations that outlive them, admission. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/conn.h"
#include "tests/lib/brokerfix.h"
#include "tests/lib/fds.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* The newest connection stands first. */
static struct conn *newest(void)
{
	assert_non_null(fix.t.loop->conns);
	return fix.t.loop->conns;
}

static int ping(int fd)
{
	static const struct csm_msg_ping_req none = {0};

	return fix_ask(fd, "ping", &none);
}

/* ---- back-pressure ---- */

#define PIPELINED 1000u

static void unread_answers_stop_reading(void **state)
{
	struct csm_msg_random_req m = {.bytes = {4000, true}};
	uint8_t seen[PIPELINED] = {0};
	struct conn *c = newest();
	struct csm_buf b;
	uint64_t handled;

	(void)state;
	csm_buf_init(&b, 1 << 20, false);
	for (uint32_t i = 0; i < PIPELINED; i++)
		assert_int_equal(csm_frame_request(&b, i, "random", CSM_DEF(random_req), &m), 0);
	assert_int_equal(testbroker_send(&fix.t, pub, csm_buf_ptr(&b), b.len), 0);
	csm_buf_free(&b);
	for (int i = 0; i < 100; i++)
		testbroker_step(&fix.t);
	/* Four megabytes of answers are asked for; what waits here is bounded, and no more requests are taken. */
	assert_true(c->out.len >= 65536 && c->out.len < 65536 + 5000);
	assert_false(c->reading);
	handled = fix.t.loop->requests[CSM_M_RANDOM];
	testbroker_step(&fix.t);
	assert_int_equal(fix.t.loop->requests[CSM_M_RANDOM], handled);
	for (uint32_t i = 0; i < PIPELINED; i++) {
		assert_int_equal(fix_next(pub), 0);
		assert_in_range(fix.last.msgid, 0, PIPELINED - 1);
		assert_int_equal(seen[fix.last.msgid]++, 0);
	}
	assert_true(c->reading);
	assert_int_equal(c->out.len, 0);
	assert_int_equal(ping(pub), 0);
}

static void a_client_that_takes_nothing_is_left(void **state)
{
	static const struct csm_msg_ping_req none = {0};
	struct csm_msg_random_req m = {.bytes = {10000, true}};
	struct conn *c = newest();
	int small = 20000;
	uint64_t deadline;

	(void)state;
	setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (uint32_t i = 0; i < 40 && c->out_deadline_ms == 0; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "random", &m), 0);
	assert_true(c->out_deadline_ms != 0 && c->reading);
	/* Asking for more gives no more time. */
	deadline = c->out_deadline_ms;
	poll(NULL, 0, 20);
	assert_int_equal(testbroker_request(&fix.t, pub, 100, "ping", &none), 0);
	assert_int_equal(c->out_deadline_ms, deadline);
	for (uint32_t i = 0; i < 40 && c->reading; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "random", &m), 0);
	assert_int_equal(c->out_deadline_ms, deadline);
	/* Taking some does. */
	uint8_t sink[8192];
	for (int i = 0; i < 100 && c->out_deadline_ms == deadline; i++) {
		assert_true(recv(pub, sink, sizeof(sink), MSG_DONTWAIT) > 0);
		testbroker_step(&fix.t);
	}
	assert_true(c->out_deadline_ms > deadline && c->out.len > 0);
	fix.t.loop->now_ms = c->out_deadline_ms - 1;
	conn_tick(fix.t.loop);
	assert_ptr_equal(fix.t.loop->conns, c);
	fix.t.loop->now_ms++;
	conn_tick(fix.t.loop);
	assert_null(fix.t.loop->conns);
}

static void too_many_operations_of_one_user_are_busy(void **state)
{
	static const uint8_t digest[32];
	struct csm_msg_sign_req m = {.key = CSM_STR("many"), .digest = {digest, 32}};
	unsigned good = 0, busy = 0;
	struct csm_buf b;

	(void)state;
	/* Signatures take as long as the script says: the queue stays full. */
	assert_int_equal(fix_create(pub, "many", "p256", "fake", NULL), 0);
	fix_close(pub);
	pub = fix_connect(CSM_R_PUBLIC);
	csm_buf_init(&b, 1 << 20, false);
	for (uint32_t i = 0; i < CSM_QUEUE_PER_IDENTITY + 40; i++)
		assert_int_equal(csm_frame_request(&b, i, "key.sign", CSM_DEF(sign_req), &m), 0);
	assert_int_equal(testbroker_send(&fix.t, pub, csm_buf_ptr(&b), b.len), 0);
	csm_buf_free(&b);
	/* What was refused is told at once. */
	for (unsigned i = 0; i < 60; i++) {
		int r = fix_next(pub);

		if (r == CSM_EBUSY) {
			assert_true(fix.last.retryable);
			assert_true(fix.last.retry_after_ms > 0);
			busy++;
		} else {
			assert_int_equal(r, 0);
			good++;
		}
	}
	assert_true(busy >= 30);
	/* Another user has its place. */
	int other = testbroker_connect_as(&fix.t, CSM_R_PUBLIC, 70011);
	assert_true(other >= 0);
	struct csm_msg_key_create_req create = {.key = CSM_STR("mine"), .backend = CSM_STR("fake")};
	assert_int_equal(testbroker_request(&fix.t, other, 1, "key.create", &create), 0);
	struct testreader r;
	struct testanswer a;
	testreader_init(&r);
	assert_int_equal(testbroker_answer(&fix.t, other, &r, 10000, &a), 0);
	assert_int_equal(a.error, 0);
	testreader_free(&r);
	close(other);
	/* The rest runs without anyone who waits for it. */
	close(pub);
	assert_true(testbroker_run(&fix.t, 60000));
	pub = fix_connect(CSM_R_PUBLIC);
}

/* ---- deadlines ---- */

static const uint8_t ping_bytes[] = {0x94, 0x00, 0x05, 0xa4, 'p', 'i', 'n', 'g', 0x91, 0x80};

static void the_first_message_has_ten_seconds(void **state)
{
	struct conn *c = newest();
	uint64_t deadline = c->deadline_ms;

	(void)state;
	assert_in_range(deadline, fix.t.loop->now_ms + CSM_FIRST_MESSAGE_MS - 1000, fix.t.loop->now_ms + CSM_FIRST_MESSAGE_MS);
	/* Bytes of it give no more time. */
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes, 5), 0);
	assert_int_equal(c->deadline_ms, deadline);
	fix.t.loop->now_ms = deadline - 1;
	conn_tick(fix.t.loop);
	assert_ptr_equal(fix.t.loop->conns, c);
	fix.t.loop->now_ms = deadline;
	conn_tick(fix.t.loop);
	assert_null(fix.t.loop->conns);
	assert_true(fix_ends(pub));
}

static void a_message_has_ten_seconds(void **state)
{
	struct conn *c = newest();
	uint64_t deadline;

	(void)state;
	assert_int_equal(ping(pub), 0);
	/* Served once, and idle: as long as it likes. */
	assert_int_equal(c->deadline_ms, 0);
	fix.t.loop->now_ms += 86400000;
	conn_tick(fix.t.loop);
	assert_ptr_equal(fix.t.loop->conns, c);
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes, 3), 0);
	deadline = c->deadline_ms;
	assert_in_range(deadline, monotonic_ms() + CSM_MESSAGE_MS - 1000, monotonic_ms() + CSM_MESSAGE_MS);
	poll(NULL, 0, 5);
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes + 3, 3), 0);
	assert_int_equal(c->deadline_ms, deadline);
	/* Whole: and the next one has its own time. */
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes + 6, 4), 0);
	assert_int_equal(fix_next(pub), 0);
	assert_int_equal(c->deadline_ms, 0);
	poll(NULL, 0, 5);
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes, 9), 0);
	assert_true(c->deadline_ms > deadline);
	fix.t.loop->now_ms = c->deadline_ms;
	conn_tick(fix.t.loop);
	assert_null(fix.t.loop->conns);
}

/* A peer that waits for us, not we for it, has no deadline. */
static void who_waits_for_us_has_no_deadline(void **state)
{
	struct csm_msg_random_req m = {.bytes = {60000, true}};
	struct conn *c = newest();

	(void)state;
	for (uint32_t i = 0; i < 40 && c->reading; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "random", &m), 0);
	assert_false(c->reading);
	assert_int_equal(c->deadline_ms, 0);
}

static void every_size_of_piece(void **state)
{
	static const uint8_t value[3000];
	struct csm_msg_seal_req m = {.data = {value, sizeof(value)}};
	struct csm_buf b;

	(void)state;
	csm_buf_init(&b, 1 << 20, false);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(csm_frame_request(&b, i, "seal", CSM_DEF(seal_req), &m), 0);
	for (size_t piece = 1; piece < b.len; piece = piece * 3 + 1) {
		const uint8_t *p = csm_buf_ptr(&b);

		for (size_t at = 0; at < b.len; at += piece)
			assert_int_equal(testbroker_send(&fix.t, pub, p + at, b.len - at < piece ? b.len - at : piece), 0);
		for (uint32_t i = 0; i < 4; i++)
			assert_int_equal(fix_next(pub), 0);
	}
	csm_buf_free(&b);
}

/* ---- what does not belong to the connection ---- */

static bool send_with_fds(int sock, size_t n)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(16 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)ping_bytes, sizeof(ping_bytes)};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (size_t i = 0; i < n; i++)
		memcpy(CMSG_DATA(h) + i * sizeof(int), &sock, sizeof(sock));
	return sendmsg(sock, &m, MSG_DONTWAIT) > 0;
}

/* Also on kernels that cannot refuse them to the sender: the connection ends, and nothing stays open. */
static void descriptors_sent_along(void **state)
{
	static const enum csm_role roles[] = {CSM_R_PUBLIC, CSM_R_ADMIN, CSM_R_ENROL};
	size_t before;
	int on = 1, off = 0;

	(void)state;
	fix_close(pub);
	before = open_fds();
	for (size_t i = 0; i < 3 * 4; i++) {
		int fd = fix_connect(roles[i / 4]);
		size_t n = (size_t[]){1, 2, 4, 10}[i % 4];

		setsockopt(newest()->fd, SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof(on));
		/* A descriptor of a fixed role asks for no credentials, which leaves room for others. */
		if (roles[i / 4] == CSM_R_ENROL)
			setsockopt(newest()->fd, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
		assert_int_equal(ping(fd), 0);
		assert_true(send_with_fds(fd, n));
		assert_int_equal(fix_next(fd), CSM_ECLOSED);
		fix_close(fd);
		assert_int_equal(open_fds(), before);
	}
	/* As it is: the kernel refuses them, or they end the connection. */
	pub = fix_connect(CSM_R_PUBLIC);
	if (send_with_fds(pub, 1))
		assert_true(fix_ends(pub));
	else
		assert_int_equal(ping(pub), 0);
}

static void bytes_of_another_process(void **state)
{
	pid_t child;
	int status;

	(void)state;
	assert_int_equal(ping(pub), 0);
	child = fork();
	if (child == 0)
		_exit(send(pub, ping_bytes, sizeof(ping_bytes), 0) == (ssize_t)sizeof(ping_bytes) ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(fix_next(pub), CSM_ECLOSED);
}

/* In the middle of a message, too. */
static void half_a_message_of_another_process(void **state)
{
	pid_t child;
	int status;

	(void)state;
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes, 4), 0);
	child = fork();
	if (child == 0)
		_exit(send(pub, ping_bytes + 4, 6, 0) == 6 ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(fix_next(pub), CSM_ECLOSED);
}

/* A process that is gone is served no more, though a child of it has kept the socket. */
static void the_connector_is_gone(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int other = fix_connect_as(70012), said[2], status;
	pid_t child, grandchild = 0;

	(void)state;
	fix_close(other);
	fix_close(pub);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.80s/public.sock", fix.t.dir);
	assert_int_equal(pipe2(said, O_CLOEXEC | O_NONBLOCK), 0);
	child = fork();
	if (child == 0) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0), r;
		char go;

		r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
		pid_t keeper = r == 0 ? fork() : 0;
		if (keeper == 0) {
			sleep(r == 0 ? 30 : 0);
			_exit(0);
		}
		r = write(said[1], &keeper, sizeof(keeper)) == (ssize_t)sizeof(keeper) ? 0 : 1;
		/* Until the broker has taken the connection. */
		_exit(recv(fd, &go, 1, 0) == 1 ? r : 1);
	}
	for (int i = 0; i < 5000 && fix.t.loop->conns == NULL; i++) {
		testbroker_step(&fix.t);
		poll(NULL, 0, 1);
	}
	assert_non_null(fix.t.loop->conns);
	assert_true(newest()->peer->pidfd >= 0);
	while (read(said[0], &grandchild, sizeof(grandchild)) != (ssize_t)sizeof(grandchild))
		poll(NULL, 0, 1);
	assert_int_equal(send(newest()->fd, "x", 1, 0), 1);
	for (int i = 0; i < 5000 && fix.t.loop->conns != NULL; i++) {
		testbroker_step(&fix.t);
		poll(NULL, 0, 1);
	}
	assert_null(fix.t.loop->conns);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(kill(grandchild, SIGKILL), 0);
	close(said[0]);
	close(said[1]);
	pub = fix_connect(CSM_R_PUBLIC);
}

static void connections_of_one_process_share_its_peer(void **state)
{
	int more[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		more[i] = fix_connect(i == 2 ? CSM_R_ADMIN : CSM_R_PUBLIC);
	assert_int_equal(newest()->peer->n_conns, 4);
	/* So they take a descriptor each, and one for the process. */
	assert_int_equal(fix.t.b.admit.files, 5);
	int other = fix_connect_as(70013);
	assert_int_equal(fix.t.b.admit.files, 7);
	assert_ptr_not_equal(newest()->peer, newest()->next->peer);
	/* One that goes takes the others not along. */
	fix_close(more[0]);
	assert_int_equal(ping(more[1]), 0);
	conn_close_peer(fix.t.loop, newest()->next->peer);
	assert_int_equal(fix.t.loop->n_conns, 1);
	fix_close(other);
	assert_null(fix.t.loop->peers);
	for (int i = 1; i < 3; i++)
		fix_close(more[i]);
	fix_close(pub);
	pub = fix_connect(CSM_R_PUBLIC);
}

/* ---- operations ---- */

static void operations_outlive_their_connection(void **state)
{
	static const uint8_t digest[32];
	struct csm_msg_sign_req sign = {.key = CSM_STR("outlive"), .digest = {digest, 32}};
	struct csm_msg_key_create_req create = {.key = CSM_STR("later"), .backend = CSM_STR("fake")};
	struct csm_msg_key_req show = {.key = CSM_STR("later")};

	(void)state;
	assert_int_equal(fix_create(pub, "outlive", "p256", "fake", NULL), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "key.sign", &sign), 0);
	assert_int_equal(testbroker_request(&fix.t, pub, 10, "key.create", &create), 0);
	assert_int_equal(newest()->n_ops, 4);
	close(pub);
	testbroker_step(&fix.t);
	assert_null(fix.t.loop->conns);
	assert_int_equal(fix.t.loop->n_ops, 4);
	/* They still count as the user's. */
	pub = fix_connect(CSM_R_PUBLIC);
	assert_true(newest()->slot->buffered > 0);
	assert_true(testbroker_run(&fix.t, 10000));
	assert_int_equal(newest()->slot->buffered, 0);
	/* What was accepted was done. */
	assert_int_equal(fix_ask(pub, "key.show", &show), 0);
}

/* ---- admission ---- */

static void a_user_has_so_many_connections(void **state)
{
	unsigned before = fix.t.b.admit.per_uid;
	int fds[3], one_more;

	(void)state;
	fix.t.b.admit.per_uid = 3;
	for (int i = 0; i < 3; i++)
		assert_true((fds[i] = fix_connect_as(70014)) >= 0);
	one_more = fix_connect_as(70014);
	assert_int_equal(fix_next(one_more), CSM_EBUSY);
	assert_true(fix.last.retryable);
	assert_int_equal(fix_next(one_more), CSM_ECLOSED);
	close(one_more);
	/* Others are not touched, and one that goes makes room. */
	assert_int_equal(ping(pub), 0);
	fix_close(fds[0]);
	fds[0] = fix_connect_as(70014);
	assert_int_equal(ping(fds[0]), 0);
	fix.t.b.admit.per_uid = before;
	for (int i = 0; i < 3; i++)
		fix_close(fds[i]);
}

static void descriptors_are_kept_for_the_administrator(void **state)
{
	struct admit *a = &fix.t.b.admit;
	int fd, refused;

	(void)state;
	a->files_max = a->files + 2 * a->reserved + 2;
	fd = fix_connect_as(70017);
	assert_int_equal(ping(fd), 0);
	refused = fix_connect_as(70018);
	assert_int_equal(fix_next(refused), CSM_EBUSY);
	close(refused);
	fix_close(testbroker_connect_as(&fix.t, CSM_R_ADMIN, 0));
	testreader_free(&fix.reader);
	testreader_init(&fix.reader);
	fix_close(fd);
	fd = fix_connect_as(70018);
	assert_int_equal(ping(fd), 0);
	fix_close(fd);
	a->files_max = UINT_MAX;
}

static void the_admin_socket_is_roots(void **state)
{
	int fd = testbroker_connect_as(&fix.t, CSM_R_ADMIN, 70015);

	(void)state;
	assert_true(fd >= 0);
	assert_true(fix_ends(fd));
	close(fd);
	fd = testbroker_connect_as(&fix.t, CSM_R_ADMIN, 0);
	testreader_free(&fix.reader);
	testreader_init(&fix.reader);
	assert_int_equal(ping(fd), 0);
	assert_int_equal(newest()->role, CSM_R_ADMIN);
	fix_close(fd);
}

static void without_descriptors_accepting_pauses(void **state)
{
	struct rlimit before, now;
	int probe, fd;

	(void)state;
	fix_close(fix_connect_as(70016));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	probe = open("/dev/null", O_RDONLY | O_CLOEXEC);
	now = before;
	/* Room for the client's end and no more. */
	now.rlim_cur = (rlim_t)probe + 1;
	close(probe);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	fd = fix_connect_as(70016);
	assert_true(fix.t.public.paused);
	acceptor_resume(&fix.t.public);
	assert_false(fix.t.public.paused);
	testbroker_step(&fix.t);
	assert_true(fix.t.public.paused);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	acceptor_resume(&fix.t.public);
	acceptor_resume(&fix.t.public);
	assert_int_equal(ping(fd), 0);
	fix_close(fd);
}

static void only_one_private_role_is_taken(void **state)
{
	static const enum csm_role good[] = {CSM_R_ENROL, CSM_R_IDENT, CSM_R_DELIVER, CSM_R_PLUGHOST};
	static const int bad[] = {0, CSM_R_PUBLIC, CSM_R_ADMIN, CSM_R_PUBLIC | CSM_R_ENROL, CSM_R_ENROL | CSM_R_IDENT,
		CSM_R_ROLES, 64, 128, 255};
	int pair[2];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		accept_role(&fix.t.b, pair[0], (enum csm_role)bad[i]);
		assert_true(fix_ends(pair[1]));
		close(pair[1]);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		accept_role(&fix.t.b, pair[0], good[i]);
		testreader_free(&fix.reader);
		testreader_init(&fix.reader);
		assert_int_equal(ping(pair[1]), 0);
		assert_int_equal(newest()->role, good[i]);
		/* The supervisor's own child needs not hurry. */
		assert_int_equal(newest()->deadline_ms, 0);
		fix_close(pair[1]);
	}
}

static void waiting_bytes_of_a_user_are_bounded(void **state)
{
	/* A request of almost a megabyte, of which the last byte does not come. */
	static uint8_t big[CSM_MESSAGE_MAX - 64] = "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\xc6";
	uint32_t claim = sizeof(big) - 20 + 1;
	int fds[40];
	size_t n = 0;
	int r = 0;

	(void)state;
	for (int i = 0; i < 4; i++)
		big[16 + i] = (uint8_t)(claim >> (24 - 8 * i));
	for (; r == 0 && n < 40; n++) {
		fds[n] = fix_connect_as(70017);
		r = testbroker_send(&fix.t, fds[n], big, sizeof(big));
		testbroker_step(&fix.t);
		if (r == 0 && fix.t.loop->n_conns < n + 2)
			r = CSM_ECLOSED;
	}
	/* 32 MiB hold 32 of them. */
	assert_int_equal(r, CSM_ECLOSED);
	assert_in_range(n, 32, 34);
	assert_int_equal(fix_next(fds[n - 1]), CSM_EBUSY);
	/* Others go on. */
	struct testreader reader;
	struct testanswer a;
	testreader_init(&reader);
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes, sizeof(ping_bytes)), 0);
	assert_int_equal(testbroker_answer(&fix.t, pub, &reader, 5000, &a), 0);
	testreader_free(&reader);
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	testbroker_run(&fix.t, 5000);
	/* And so may the user, when they are gone. */
	int again = fix_connect_as(70017);
	assert_int_equal(testbroker_send(&fix.t, again, big, sizeof(big)), 0);
	fix_close(again);
}

/* ---- the end; last, since the loop does not come back ---- */

/* Works while the loop has a thread of its own. */
static int plain_answer(int fd, struct testanswer *a)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint8_t *room;
	size_t len;

	(void)a;
	csm_buf_consume(&fix.reader.buf, fix.reader.used);
	fix.reader.used = 0;
	for (;;) {
		if (fix.reader.buf.len > 0 && csm_scan(csm_buf_ptr(&fix.reader.buf), fix.reader.buf.len, &len) == 0) {
			fix.reader.used = len;
			return csm_buf_ptr(&fix.reader.buf)[2];
		}
		if (poll(&p, 1, 10000) != 1 || csm_buf_reserve(&fix.reader.buf, 4096, &room) != 0)
			return -2;
		ssize_t n = recv(fd, room, 4096, 0);
		if (n <= 0)
			return -1;
		csm_buf_commit(&fix.reader.buf, (size_t)n);
	}
}

static void stopping_answers_what_was_accepted(void **state)
{
	static const uint8_t digest[32];
	struct csm_msg_sign_req m = {.key = CSM_STR("outlive"), .digest = {digest, 32}};
	uint64_t began;

	(void)state;
	for (uint32_t i = 20; i < 23; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "key.sign", &m), 0);
	assert_int_equal(newest()->n_ops, 3);
	began = monotonic_ms();
	loop_stop(fix.t.loop);
	testbroker_step(&fix.t);
	/* Too late to be read. */
	assert_int_equal(testbroker_send(&fix.t, pub, ping_bytes, sizeof(ping_bytes)), 0);
	assert_int_equal(loop_start(fix.t.loop), 0);
	for (int i = 20; i < 23; i++)
		assert_int_equal(plain_answer(pub, NULL), i);
	assert_true(plain_answer(pub, NULL) < 0);
	loop_join(fix.t.loop);
	assert_in_range(monotonic_ms() - began, 30, 4000);
	assert_null(fix.t.loop->conns);
	assert_int_equal(fix.t.loop->n_ops, 0);
	/* Nothing is taken any more. */
	struct task t = {0};
	assert_false(loop_post(fix.t.loop, &t));
	loop_stop(fix.t.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(unread_answers_stop_reading),
		FIX_TEST(a_client_that_takes_nothing_is_left),
		FIX_TEST(the_first_message_has_ten_seconds),
		FIX_TEST(a_message_has_ten_seconds),
		FIX_TEST(who_waits_for_us_has_no_deadline),
		FIX_TEST(every_size_of_piece),
		FIX_TEST(descriptors_sent_along),
		FIX_TEST(bytes_of_another_process),
		FIX_TEST(half_a_message_of_another_process),
		FIX_TEST(the_connector_is_gone),
		FIX_TEST(connections_of_one_process_share_its_peer),
		FIX_TEST(operations_outlive_their_connection),
		FIX_TEST(a_user_has_so_many_connections),
		FIX_TEST(descriptors_are_kept_for_the_administrator),
		FIX_TEST(the_admin_socket_is_roots),
		FIX_TEST(without_descriptors_accepting_pauses),
		FIX_TEST(only_one_private_role_is_taken),
		FIX_TEST(waiting_bytes_of_a_user_are_bounded),
		FIX_TEST(too_many_operations_of_one_user_are_busy),
		FIX_TEST(stopping_answers_what_was_accepted),
	};

	return fix_prepare(200, "sign=delay:20ms; generate=delay:60ms", NULL) ? cmocka_run_group_tests(tests, fix_begin, fix_end) : 77;
}
