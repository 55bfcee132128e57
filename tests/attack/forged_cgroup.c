/* Groups named as the trusted unit, where users make groups: CGROUP is a folder of this uid's own in the unified
 * hierarchy, UNIT the name that policy trusts with the object. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/attack/attack.h"

static const struct {
	const char *before, *after; /* of the unit's name */
} forms[] = {{"", ""}, {"system.slice/", ""}, {"system.slice/x.slice/", ""},
	{"user.slice/user-0.slice/user@0.service/", ""}, {"0::/", ""}, {"0::/system.slice/", ""}, {".", ""},
	{"", ".service"}, {"system.slice/system-", ""}, {"..system.slice/", ""}, {" /", ""},
	{"\\x2fsystem.slice/", ""}};
#define N_FORMS (sizeof(forms) / sizeof(forms[0]))

static void make_path(char *path)
{
	for (char *p = strchr(path + 1, '/'); p != NULL; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(path, 0755) != 0 && errno != EEXIST && errno != EACCES && errno != EROFS && errno != EPERM)
			attack_die(path);
		*p = '/';
	}
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		attack_die(path);
}

static void enter(const char *group)
{
	char path[PATH_MAX + 16];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		attack_die(path);
	close(fd);
}

static enum outcome once(const struct attack *a)
{
	const char *own = getenv("ATTACK_CGROUP"), *unit = getenv("ATTACK_UNIT");
	char group[PATH_MAX];
	enum outcome o;
	int fd;

	if (own == NULL || unit == NULL)
		attack_die("ATTACK_CGROUP and ATTACK_UNIT are to be set");
	snprintf(group, sizeof(group), "%s/%s%s%s", own, forms[a->round % N_FORMS].before, unit,
		forms[a->round % N_FORMS].after);
	make_path(group);
	enter(group);
	fd = attack_connect();
	attack_get(fd, 1, a->object);
	o = attack_answer(fd, 5000).what;
	close(fd);
	return o;
}

int main(int argc, char **argv)
{
	return attack_run(argc, argv, once);
}
