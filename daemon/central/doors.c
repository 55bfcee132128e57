#include "daemon/central/doors.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/svc/log.h"

#define BACKLOG 1024

static int listen_tcp(const struct config_address *a, const char *text)
{
	int fd = socket(a->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, none = 0;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
		(a->addr.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &none, sizeof(none)) != 0) ||
		bind(fd, (const struct sockaddr *)&a->addr, a->n) != 0 || listen(fd, BACKLOG) != 0) {
		log_err("cannot listen on %s: %s", text, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* A socket that nobody answers at is one of a process that is gone. */
static bool in_use(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool used = fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN;

	if (fd >= 0)
		close(fd);
	return used;
}

static int listen_local(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	mode_t before;
	struct stat st;
	int fd, bound;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -1;
	memcpy(addr.sun_path, path, strlen(path));
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		if (in_use(&addr)) {
			log_err("somebody serves %s already", path);
			return -1;
		}
		unlink(path);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	before = umask(0177);
	bound = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(before);
	if (bound != 0 || listen(fd, BACKLOG) != 0) {
		log_err("cannot listen on %s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

void doors_close(struct doors *d)
{
	int *const all[] = {&d->tls, &d->plain, &d->local};

	for (size_t i = 0; i < 3; i++) {
		if (*all[i] >= 0)
			close(*all[i]);
		*all[i] = -1;
	}
}

int doors_open(const struct central_config *c, struct doors *ret)
{
	struct doors d = {-1, -1, -1};

	if ((d.tls = listen_tcp(&c->tls, c->listen)) < 0 ||
		(c->plain.n > 0 && (d.plain = listen_tcp(&c->plain, c->public_listen)) < 0) ||
		(d.local = listen_local(c->admin_socket)) < 0) {
		doors_close(&d);
		return CSM_ESYSTEM;
	}
	*ret = d;
	return 0;
}
