/* csm-ident's parts: what it reads in /proc, its cache, its digests, and the whole of it over a socketpair. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/ident/cache.h"
#include "daemon/ident/hash.h"
#include "daemon/ident/serve.h"
#include "libclient/wire/frame.h"

/* ---- /proc ---- */

#define FIELDS_4_25 "1 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 12345 1000000 200 18446744073709551615 "
#define FIELDS_29_46 "0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 94000000000008 94000000000009 "

static void images(void **state)
{
	static const char good[] = "7 (a) S " FIELDS_4_25 "94000000000001 94000000000002 140000000000003 " FIELDS_29_46
				   "95000000000004 1 1 1 1 0\n";
	static const char *const others[] = {
		"7 (a) S " FIELDS_4_25 "94000000000005 94000000000002 140000000000003 " FIELDS_29_46
		"95000000000004 1 1 1 1 0\n",
		"7 (a) S " FIELDS_4_25 "94000000000001 94000000000002 140000000000004 " FIELDS_29_46
		"95000000000004 1 1 1 1 0\n",
		"7 (a) S " FIELDS_4_25 "94000000000001 94000000000002 140000000000003 " FIELDS_29_46
		"95000000000005 1 1 1 1 0\n",
	};
	static const char *const same[] = {
		/* a name that looks like the rest */
		"7 (a) S 1 2 3) R " FIELDS_4_25 "94000000000001 94000000000002 140000000000003 " FIELDS_29_46
		"95000000000004 1 1 1 1 0\n",
		"7 (\n) S " FIELDS_4_25 "94000000000001 94000000000002 140000000000003 " FIELDS_29_46
		"95000000000004 2 3 4 5 0\n",
	};
	static const char *const bad[] = {"", "7", "7 (a", "7 (a) S 1 2 3\n",
		/* hidden, as for who may not look */
		"7 (a) S " FIELDS_4_25 "1 1 0 " FIELDS_29_46 "0 0 0 0 0 0\n",
		"7 (a) S " FIELDS_4_25 "94000000000001 94000000000002 0 " FIELDS_29_46 "95000000000004 1 1 1 1 0\n",
		"7 (a) S " FIELDS_4_25 "x 94000000000002 140000000000003 " FIELDS_29_46 "95000000000004 1 1 1 1 0\n",
		"7 (a) S " FIELDS_4_25 "94000000000001 94000000000002 140000000000003\n"};
	uint64_t image, other = 77;

	(void)state;
	assert_true(look_parse_image(good, &image));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		assert_true(look_parse_image(others[i], &other));
		assert_true(other != image);
	}
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_true(look_parse_image(same[i], &other));
		assert_true(other == image);
	}
	other = 77;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(look_parse_image(bad[i], &other));
	assert_int_equal(other, 77);
}

static void mounts(void **state)
{
	static const char text[] =
		"23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n"
		"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"
		"277 1 0:50 / /mnt/a\\040-\\040nfs rw shared:1 master:2 - fuse.sshfs u@h:/ - ext4 rw\n"
		"9 1 0:51 / /x rw\n"
		"10 1 0:52 / /y rw - nfs4 h:/ rw";
	char type[16] = "unchanged";

	(void)state;
	assert_false(look_parse_mount(text, 2, type, sizeof(type)));
	assert_false(look_parse_mount(text, 0, type, sizeof(type)));
	assert_false(look_parse_mount("", 27, type, sizeof(type)));
	assert_false(look_parse_mount(text, 9, type, sizeof(type)));
	assert_false(look_parse_mount(text, 277, type, 5));
	assert_string_equal(type, "unchanged");
	assert_true(look_parse_mount(text, 27, type, sizeof(type)));
	assert_string_equal(type, "ext4");
	assert_true(look_parse_mount(text, 277, type, sizeof(type)));
	assert_string_equal(type, "fuse.sshfs");
	assert_true(look_parse_mount(text, 10, type, sizeof(type)));
	assert_string_equal(type, "nfs4");
}

static void file_systems(void **state)
{
	static const char *const never[] = {"fuse", "fuseblk", "fuse.sshfs", "nfs", "nfs4", "cifs", "smb3", "9p",
		"ceph", "afs", "virtiofs", "vfat", "ext", "ext44", ""};
	uint64_t disk = makedev(254, 0), none = makedev(0, 25);

	(void)state;
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		assert_int_equal(look_fs_of(never[i], disk), LOOK_FS_NEVER);
	assert_int_equal(look_fs_of("ext4", disk), LOOK_FS_CACHED);
	assert_int_equal(look_fs_of("xfs", disk), LOOK_FS_CACHED);
	assert_int_equal(look_fs_of("tmpfs", none), LOOK_FS_EACH_TIME);
	assert_int_equal(look_fs_of("overlay", none), LOOK_FS_EACH_TIME);
	assert_int_equal(look_fs_of("btrfs", none), LOOK_FS_EACH_TIME);
}

/* A child that does nothing, or what `before` says. */
static pid_t child(void (*before)(void))
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (before != NULL)
			before();
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void fix_addresses(void)
{
	personality(ADDR_NO_RANDOMIZE);
}

static void looks(void **state)
{
	char why[LOOK_WHY_MAX] = "", self[4096];
	struct look a, b;
	struct stat st;
	pid_t pid = child(NULL);
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int fd;

	(void)state;
	assert_true(n > 0);
	self[n] = 0;
	assert_int_equal(stat("/proc/self/exe", &st), 0);
	assert_int_equal(look_at(pid, &a, &fd, why), 0);
	close(fd);
	assert_string_equal(a.path, self);
	assert_int_equal(a.inode, st.st_ino);
	assert_int_equal(a.device, st.st_dev);
	assert_int_equal(a.size, st.st_size);
	assert_int_equal(look_at(pid, &b, &fd, why), 0);
	close(fd);
	assert_true(a.image == b.image);
	assert_true(look_fs(pid, &a, why) != LOOK_FS_NEVER);
	a.mount = UINT64_MAX;
	assert_int_equal(look_fs(pid, &a, why), LOOK_FS_NEVER);
	end(pid);
	assert_int_equal(look_at(pid, &b, &fd, why), CSM_EDENIED);
	assert_true(strlen(why) > 10);
	/* a kernel thread has no program */
	assert_int_equal(look_at(2, &b, &fd, why), CSM_EDENIED);
	pid = child(fix_addresses);
	assert_int_equal(look_at(pid, &b, &fd, why), CSM_EDENIED);
	assert_non_null(strstr(why, "fixed addresses"));
	end(pid);
}

/* Each execve shows, of the same program too. */
static void executions(void **state)
{
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)"read a; exec /bin/sh -c 'read a; read a'", NULL};
	uint64_t images_seen[2];
	char why[LOOK_WHY_MAX];
	struct look l = {0};
	int in[2], fd;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(in), 0);
	pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		close(in[1]);
		execv(argv[0], argv);
		_exit(1);
	}
	for (int i = 0; i < 2; i++) {
		uint64_t before = l.image;

		/* until it is the shell, and then another one */
		for (int t = 0; t < 500 &&
			(strstr(l.path, "sh") == NULL || l.image == before || strstr(l.path, "test_") != NULL);
			t++) {
			usleep(10000);
			if (look_at(pid, &l, &fd, why) == 0)
				close(fd);
		}
		images_seen[i] = l.image;
		assert_int_equal(write(in[1], "x\n", 2), 2);
	}
	assert_true(images_seen[0] != images_seen[1]);
	end(pid);
	close(in[0]);
	close(in[1]);
}

/* ---- the cache ---- */

static void cache(void **state)
{
	static struct cache c;
	uint8_t d[32];
	struct look l = {.device = 1, .inode = 2, .size = 3, .changed = UINT64_C(5000000000)};
	uint64_t later = l.changed + UINT64_C(2000000000);

	(void)state;
	memset(&c, 0, sizeof(c));
	memset(d, 7, sizeof(d));
	assert_null(cache_get(&c, &l));
	/* a young file may change once more in the same instant; a time of the future tells nothing */
	cache_put(&c, &l, d, l.changed + 999999999);
	assert_null(cache_get(&c, &l));
	cache_put(&c, &l, d, l.changed - 1);
	assert_null(cache_get(&c, &l));
	cache_put(&c, &l, d, later);
	assert_memory_equal(cache_get(&c, &l), d, 32);
	for (int i = 0; i < 4; i++) {
		struct look other = l;

		*(i == 0 ? &other.device : i == 1 ? &other.inode : i == 2 ? &other.size : &other.changed) += 1;
		assert_null(cache_get(&c, &other));
	}
	/* written anew: the old digest is gone */
	struct look next = l;
	next.changed++;
	d[0] = 8;
	cache_put(&c, &next, d, later + 1);
	assert_null(cache_get(&c, &l));
	assert_int_equal(cache_get(&c, &next)[0], 8);
	/* it is bounded, the oldest goes */
	for (uint64_t i = 0; i < CACHE_ENTRIES; i++) {
		l.inode = 100 + i;
		cache_put(&c, &l, d, later);
	}
	assert_null(cache_get(&c, &next));
	l.inode = 100;
	assert_non_null(cache_get(&c, &l));
	assert_int_equal(c.n, CACHE_ENTRIES);
}

/* ---- digests ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static unsigned n_done;

static void on_done(struct hash_job *j)
{
	(void)j;
	pthread_mutex_lock(&lock);
	n_done++;
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&lock);
}

static void await(unsigned n)
{
	pthread_mutex_lock(&lock);
	while (n_done < n)
		pthread_cond_wait(&cond, &lock);
	n_done = 0;
	pthread_mutex_unlock(&lock);
}

static int temp_file(char path[static 64], size_t size)
{
	char block[4096];
	int fd;

	snprintf(path, 64, "/tmp/csm-test-ident.XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	memset(block, 'a', sizeof(block));
	for (; size > 0; size -= size > sizeof(block) ? sizeof(block) : size)
		assert_true(write(fd, block, size > sizeof(block) ? sizeof(block) : size) > 0);
	return fd;
}

static void prepare(struct hash_job *j, const char *path)
{
	struct stat st = {0};

	memset(j, 0, sizeof(*j));
	j->fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(j->fd >= 0 && fstat(j->fd, &st) == 0);
	j->size = (uint64_t)st.st_size;
	j->changed = (uint64_t)st.st_ctim.tv_sec * 1000000000u + (uint64_t)st.st_ctim.tv_nsec;
	j->done = on_done;
}

static void digests(void **state)
{
	/* of nothing, of "abc", of a million times "a" (FIPS 180-2) */
	static const struct {
		size_t a;
		const char *text, *sha256;
	} cases[] = {{0, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{0, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{1000000, "", "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
	struct csm_workq_options opt = {.name = "hash", .threads = 2, .max = 8, .max_per_user = 8};
	struct csm_workq *q;
	struct hash_job j;
	char path[64], hex[65];

	(void)state;
	assert_int_equal(hash_init(), 0);
	assert_int_equal(csm_workq_new(&opt, &q), 0);
	for (size_t i = 0; i < 3; i++) {
		int fd = temp_file(path, cases[i].a);

		assert_int_equal(write(fd, cases[i].text, strlen(cases[i].text)), strlen(cases[i].text));
		close(fd);
		prepare(&j, path);
		assert_int_equal(hash_start(&j, q, 5), 0);
		await(1);
		assert_int_equal(j.r, 0);
		for (int b = 0; b < 32; b++)
			snprintf(hex + 2 * b, 3, "%02x", j.sha256[b]);
		assert_string_equal(hex, cases[i].sha256);
		unlink(path);
	}
	csm_workq_free(q);
}

/* What is not the file that was looked at has no digest. */
static void changed_meanwhile(void **state)
{
	struct csm_workq_options opt = {.name = "hash", .threads = 1, .max = 1, .max_per_user = 1};
	struct csm_workq *q;
	struct hash_job j[2];
	char path[64];
	int fd = temp_file(path, 3u * HASH_PIECE + 5);

	(void)state;
	assert_int_equal(csm_workq_new(&opt, &q), 0);
	prepare(&j[0], path);
	j[0].size -= 1; /* it has grown */
	assert_int_equal(hash_start(&j[0], q, 5), 0);
	await(1);
	assert_int_equal(j[0].r, CSM_EBUSY);
	prepare(&j[0], path);
	j[0].size += 1;
	assert_int_equal(hash_start(&j[0], q, 5), 0);
	await(1);
	assert_int_equal(j[0].r, CSM_EBUSY);
	prepare(&j[0], path);
	j[0].changed -= 1;
	assert_int_equal(hash_start(&j[0], q, 5), 0);
	await(1);
	assert_int_equal(j[0].r, CSM_EBUSY);
	/* a queue that is full of another's is no reason to stop */
	prepare(&j[0], path);
	assert_int_equal(hash_start(&j[0], q, 5), 0);
	prepare(&j[1], path);
	while (hash_start(&j[1], q, 6) == CSM_EBUSY)
		usleep(100);
	await(2);
	assert_int_equal(j[0].r, 0);
	assert_int_equal(j[1].r, 0);
	assert_memory_equal(j[0].sha256, j[1].sha256, 32);
	csm_workq_free(q);
	close(fd);
	unlink(path);
}

/* ---- the whole ---- */

static int client;
static struct csm_buf in;

static void *serve_on(void *arg)
{
	int *fds = arg;

	return (void *)(intptr_t)serve(fds[0], fds[1]);
}

static void ask(uint64_t id, pid_t pid, bool digest)
{
	struct csm_msg_ident_ask m = {
		.id = {id, true}, .pid = {(uint64_t)pid, true}, .uid = {5, true}, .digest = {digest, true}};
	struct csm_buf b;

	csm_buf_init(&b, 4096, false);
	assert_int_equal(csm_frame_notify(&b, "ident.ask", CSM_DEF(ident_ask), &m), 0);
	assert_int_equal(send(client, csm_buf_ptr(&b), b.len, 0), b.len);
	csm_buf_free(&b);
}

/* The next answer; slices live until the next call. */
static struct csm_msg_ident_answer next(void)
{
	static struct csm_pool pool;
	static size_t used;
	struct csm_msg_ident_answer m;
	struct csm_frame f;
	struct csm_str bad;
	uint8_t *p;
	size_t len;

	csm_pool_free(&pool);
	csm_pool_init(&pool, 65536);
	csm_buf_consume(&in, used);
	while (in.len == 0 || csm_scan(csm_buf_ptr(&in), in.len, &len) != 0) {
		ssize_t n;

		assert_int_equal(csm_buf_reserve(&in, 4096, &p), 0);
		n = recv(client, p, 4096, 0);
		assert_true(n > 0);
		csm_buf_commit(&in, (size_t)n);
	}
	used = len;
	assert_int_equal(csm_frame_parse(csm_buf_ptr(&in), len, &f), 0);
	assert_int_equal(f.type, CSM_NOTIFICATION);
	assert_true(csm_str_eq(f.method, "ident.answer"));
	assert_int_equal(csm_msg_decode(CSM_DEF(ident_answer), f.params, CSM_UNKNOWN_REFUSE, &pool, &m, &bad), 0);
	return m;
}

static void conversation(void **state)
{
	struct timeval wait = {10, 0};
	struct csm_msg_ident_answer m;
	int pair[2], fds[2];
	void *result;
	pthread_t thread;
	pid_t pid = child(NULL);

	(void)state;
	assert_int_equal(hash_init(), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	client = pair[1];
	setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	fds[0] = pair[0];
	fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	csm_buf_init(&in, CSM_MESSAGE_MAX, false);
	assert_int_equal(pthread_create(&thread, NULL, serve_on, fds), 0);
	ask(1, pid, false);
	m = next();
	assert_int_equal(m.id.v, 1);
	assert_int_equal(m.refusal.n, 0);
	assert_true(m.path.n > 0 && m.inode.v != 0 && m.image.v != 0 && m.sha256.p == NULL);
	/* who asks while it is computed gets the same digest; it is computed once */
	ask(2, pid, true);
	ask(3, pid, true);
	m = next();
	assert_int_equal(m.id.v, 2);
	assert_int_equal(m.sha256.n, 32);
	assert_false(m.cached.v);
	m = next();
	assert_int_equal(m.id.v, 3);
	assert_true(m.cached.v);
	ask(4, 0, false);
	assert_true(next().refusal.n > 0);
	end(pid);
	ask(5, pid, true);
	m = next();
	assert_int_equal(m.id.v, 5);
	assert_true(m.refusal.n > 0 && !m.inode.set && m.sha256.p == NULL);
	close(client);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_null(result);
	csm_buf_free(&in);
	close(pair[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(images), cmocka_unit_test(mounts),
		cmocka_unit_test(file_systems), cmocka_unit_test(looks), cmocka_unit_test(executions),
		cmocka_unit_test(cache), cmocka_unit_test(digests), cmocka_unit_test(changed_meanwhile),
		cmocka_unit_test(conversation)};

	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
