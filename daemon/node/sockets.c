#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "daemon/node/supervisor.h"
#include "daemon/svc/log.h"

#define BACKLOG 1024
#define DEFAULT_SOCKET "/run/csm/public/csm.sock"
#define DEFAULT_LINK "/run/csm.sock"
#define DEFAULT_LINK_TO "csm/public/csm.sock"
#define FIRST_ACTIVATED 3
#define STALE_S 10
#define DYING_S 2
#define PAUSES_PER_S 20

static const struct timespec a_pause = {0, 1000000000L / PAUSES_PER_S};

/* ---- sd_listen_fds(3), without its library and what that loads ---- */

static int n_activated(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

	if (pid == NULL || n == NULL || strtol(pid, NULL, 10) != getpid())
		return 0;
	return (int)strtol(n, NULL, 10);
}

static bool bound_to(int fd, const char *path)
{
	struct sockaddr_un addr;
	socklen_t n = sizeof(addr);

	memset(&addr, 0, sizeof(addr));
	return getsockname(fd, (struct sockaddr *)&addr, &n) == 0 && addr.sun_family == AF_UNIX &&
		strncmp(addr.sun_path, path, sizeof(addr.sun_path)) == 0;
}

static int take_activated(const struct csm_config *cfg, struct sockets *s)
{
	int n = n_activated();

	for (int i = 0; i < n; i++) {
		int fd = FIRST_ACTIVATED + i;

		fcntl(fd, F_SETFD, FD_CLOEXEC);
		if (bound_to(fd, cfg->socket)) {
			s->fd[0] = fd;
		} else if (bound_to(fd, cfg->admin_socket)) {
			s->fd[1] = fd;
		} else {
			log_err("systemd handed over a socket that csmd.yaml does not name");
			return CSM_EINVALID;
		}
		s->activated = true;
	}
	return 0;
}

/* ---- our own ---- */

/* The folder of a socket: made when only its last part is missing. */
static int make_folder(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash == NULL || slash == dir)
		return 0;
	*slash = '\0';
	if (mkdir(dir, 0755) == 0 || errno == EEXIST)
		return 0;
	if (errno == ENOENT && (slash = strrchr(dir, '/')) != NULL && slash != dir) {
		*slash = '\0';
		if (mkdir(dir, 0755) == 0 || errno == EEXIST) {
			*slash = '/';
			if (mkdir(dir, 0755) == 0)
				return 0;
		}
	}
	return CSM_ESYSTEM;
}

static bool is_served(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool served = fd >= 0 && (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return served;
}

/* The broker of a supervisor that was killed keeps the socket until it has seen the end of it. */
static bool stays_served(const struct sockaddr_un *addr)
{
	for (int i = 0; i < STALE_S * PAUSES_PER_S; i++) {
		if (!is_served(addr))
			return false;
		nanosleep(&a_pause, NULL);
	}
	return true;
}

/* The folder stays as it is, and with it what is mounted from it. */
static int listen_on(const char *path, mode_t mode)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = -1;
	mode_t before;
	bool bound;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path));
	if (stays_served(&addr)) {
		errno = EADDRINUSE;
		return -1;
	}
	if (make_folder(path) != 0 || (unlink(path) != 0 && errno != ENOENT))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	/* The mode is right from the first moment. */
	before = umask(0777 & ~mode);
	bound = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
	umask(before);
	if (bound && listen(fd, BACKLOG) == 0)
		return fd;
	close(fd);
	return -1;
}

/* One csmd for a configuration: the lock goes with the process. It is the administrator's path that is locked: to the
 * folder of the public one root of a container gets, who could hold a lock there and keep csmd from starting again. */
static int lock_path(const char *path)
{
	char lock[256];
	int fd;

	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	snprintf(lock, sizeof(lock), "%s.lock", path);
	if (make_folder(path) != 0)
		return -1;
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	/* One that was killed a moment ago may still be on its way out. */
	for (int i = 0; fd >= 0 && i < DYING_S * PAUSES_PER_S; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		nanosleep(&a_pause, NULL);
	}
	if (fd >= 0) {
		close(fd);
		errno = EADDRINUSE;
	}
	return -1;
}

static int open_one(struct sockets *s, size_t i, const char *path, mode_t mode)
{
	s->path[i] = strdup(path);
	if (s->path[i] == NULL)
		return CSM_ENOMEM;
	if (s->fd[i] < 0)
		s->fd[i] = listen_on(path, mode);
	if (s->fd[i] >= 0)
		return 0;
	log_err("cannot listen on %s: %s", path,
		errno == EADDRINUSE ? "another csmd serves it, or systemd listens there" : strerror(errno));
	return CSM_ESYSTEM;
}

int sockets_open(const struct csm_config *cfg, struct sockets *ret)
{
	struct sockets s = {.fd = {-1, -1}, .role = {CSM_R_PUBLIC, CSM_R_ADMIN}, .lock_fd = -1};
	/* The public folder is everyone's to enter, whatever we were started with. */
	mode_t before = umask(022);
	int r = take_activated(cfg, &s);

	if (r == 0 && !s.activated && (s.lock_fd = lock_path(cfg->admin_socket)) < 0) {
		log_err("%s: %s", cfg->admin_socket, errno == EADDRINUSE ? "another csmd serves it" : strerror(errno));
		r = CSM_ESYSTEM;
	}
	if (r == 0)
		r = open_one(&s, 0, cfg->socket, 0666);
	if (r == 0)
		r = open_one(&s, 1, cfg->admin_socket, 0600);
	if (r == 0 && !s.activated && strcmp(cfg->socket, DEFAULT_SOCKET) == 0 &&
		symlink(DEFAULT_LINK_TO, DEFAULT_LINK) != 0 && errno != EEXIST)
		log_warn("cannot make %s: %s", DEFAULT_LINK, strerror(errno));
	umask(before);
	if (r != 0)
		sockets_close(&s);
	else
		*ret = s;
	return r;
}

void sockets_close(struct sockets *s)
{
	for (size_t i = 0; i < SOCKETS_MAX; i++) {
		if (s->fd[i] >= 0) {
			close(s->fd[i]);
			if (!s->activated && s->path[i] != NULL)
				unlink(s->path[i]);
		}
		free(s->path[i]);
		s->path[i] = NULL;
		s->fd[i] = -1;
	}
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	s->lock_fd = -1;
}
