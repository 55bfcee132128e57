/* Who can change a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/base/writable.h"

#define A 70071u
#define B 70072u

static char dir[64], sub[96], file[128];

static int setup(void **state)
{
	int fd;

	(void)state;
	/* below /root's kind of folder: nobody else's on the way but the sticky /tmp */
	snprintf(dir, sizeof(dir), "/tmp/csm-test-writable.XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	snprintf(sub, sizeof(sub), "%s/sub", dir);
	snprintf(file, sizeof(file), "%s/app", sub);
	assert_int_equal(mkdir(sub, 0755), 0);
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(chmod(sub, 0755) | chmod(file, 0755), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(file);
	rmdir(sub);
	rmdir(dir);
	return 0;
}

static void expect(bool for_a, bool for_any, const char *text)
{
	char why[256] = "";

	assert_int_equal(csm_path_writable(file, A, why, sizeof(why)), for_a);
	assert_int_equal(csm_path_writable(file, CSM_ANY_UID, why, sizeof(why)), for_any);
	if (for_any)
		assert_non_null(strstr(why, text));
}

static void owners(void **state)
{
	(void)state;
	expect(false, false, "");
	assert_int_equal(chown(file, A, 0), 0);
	expect(true, true, "app belongs to uid 70071");
	assert_int_equal(chown(file, B, 0), 0);
	expect(false, true, "app belongs to uid 70072");
	assert_int_equal(chown(file, 0, 0) | chown(sub, A, 0), 0);
	expect(true, true, "sub belongs to uid 70071");
	assert_int_equal(chown(sub, 0, 0), 0);
	expect(false, false, "");
}

static void modes(void **state)
{
	(void)state;
	assert_int_equal(chmod(file, 0757), 0);
	expect(true, true, "everyone can write");
	assert_int_equal(chmod(file, 0775), 0);
	expect(false, false, ""); /* root's group */
	assert_int_equal(chown(file, 0, 70073), 0);
	expect(true, true, "group 70073 can write");
	assert_int_equal(chmod(file, 0755) | chmod(sub, 0777), 0);
	expect(true, true, "everyone can write");
	assert_int_equal(chmod(sub, 01777), 0);
	expect(false, false, "");
}

static void links(void **state)
{
	char link[128], why[256];

	(void)state;
	snprintf(link, sizeof(link), "%s/link", dir);
	assert_int_equal(symlink(file, link), 0);
	assert_false(csm_path_writable(link, A, why, sizeof(why)));
	assert_int_equal(chown(file, A, 0), 0);
	assert_true(csm_path_writable(link, A, why, sizeof(why)));
	unlink(link);
	/* one that is not there will be made by who may */
	assert_true(csm_path_writable(link, A, why, sizeof(why)));
	assert_non_null(strstr(why, "No such file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(owners, setup, teardown),
		cmocka_unit_test_setup_teardown(modes, setup, teardown),
		cmocka_unit_test_setup_teardown(links, setup, teardown)};

	if (geteuid() != 0) {
		fprintf(stderr, "skip: only root gives files away\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
