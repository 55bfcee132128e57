#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "daemon/node/supervisor.h"

#define SWTPM_PORT "2321"

void device_name(const struct csm_config *cfg, char *out, size_t cap)
{
	static const char *const devices[] = {"/dev/tpmrm0", "/dev/tpm0"};

	out[0] = '\0';
	if (cfg->tpm_tcti != NULL && cfg->tpm_tcti[0] != '\0') {
		snprintf(out, cap, "%s", cfg->tpm_tcti);
	} else if (cfg->tpm_device != NULL && strcmp(cfg->tpm_device, "auto") != 0) {
		if (strcmp(cfg->tpm_device, "none") != 0)
			snprintf(out, cap, "%s", cfg->tpm_device);
	} else {
		for (size_t i = 0; i < 2 && out[0] == '\0'; i++)
			if (access(devices[i], F_OK) == 0)
				snprintf(out, cap, "%s", devices[i]);
	}
}

/* The supervisor waits for nobody longer than this. */
#define CONNECT_MS 500

static int fail_with(int fd, int e)
{
	if (fd >= 0)
		close(fd);
	errno = e;
	return -1;
}

/* Connect without ever blocking for longer than CONNECT_MS; the descriptor is a blocking one in the end. */
static int connect_bounded(int family, const struct sockaddr *addr, socklen_t n)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), e = 0;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(e);

	if (fd < 0)
		return -1;
	if (connect(fd, addr, n) != 0) {
		/* A Unix socket whose queue is full says EAGAIN: its server has others. */
		if (errno != EINPROGRESS)
			return fail_with(fd, errno == EAGAIN ? EBUSY : errno);
		if (poll(&p, 1, CONNECT_MS) != 1)
			return fail_with(fd, ETIMEDOUT);
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0 || e != 0)
			return fail_with(fd, e != 0 ? e : EIO);
	}
	if (fcntl(fd, F_SETFL, 0) != 0)
		return fail_with(fd, errno);
	return fd;
}

int device_connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(addr.sun_path))
		return fail_with(-1, ENAMETOOLONG);
	memcpy(addr.sun_path, path, strlen(path));
	return connect_bounded(AF_UNIX, (struct sockaddr *)&addr, sizeof(addr));
}

/* host is an address or localhost: no name server is asked. */
static int connect_tcp(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *list;
	int fd;

	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	if (getaddrinfo(host, port, &hints, &list) != 0)
		return fail_with(-1, EHOSTUNREACH);
	fd = connect_bounded(list->ai_family, list->ai_addr, list->ai_addrlen);
	freeaddrinfo(list);
	return fd;
}

/* swtpm:path=/dir/sock, or swtpm:host=localhost,port=2321 in any order. */
static int connect_swtpm(const char *conf)
{
	char *const tokens[] = {(char[]){"path"}, (char[]){"host"}, (char[]){"port"}, NULL};
	const char *given[] = {NULL, "localhost", SWTPM_PORT};
	char text[256], *at = text, *value;

	snprintf(text, sizeof(text), "%s", conf);
	while (*at != '\0') {
		int which = getsubopt(&at, tokens, &value);

		if (which < 0 || value == NULL) {
			errno = EINVAL;
			return -1;
		}
		given[which] = value;
	}
	return given[0] != NULL ? device_connect_unix(given[0]) : connect_tcp(given[1], given[2]);
}

int device_open(const char *name)
{
	if (strncmp(name, "/dev/", 5) == 0)
		return open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (strncmp(name, "device:", 7) == 0)
		return open(name + 7, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (strcmp(name, "swtpm") == 0)
		return connect_swtpm("");
	if (strncmp(name, "swtpm:", 6) == 0)
		return connect_swtpm(name + 6);
	if (strcmp(name, "tabrmd") == 0)
		return tabrmd_connect("");
	if (strncmp(name, "tabrmd:", 7) == 0)
		return tabrmd_connect(name + 7);
	errno = name[0] == '\0' ? ENODEV : EPROTONOSUPPORT;
	return -1;
}

/* Whoever can write the key says what the root key is sealed under next; the approved policies are signed. */
int policy_file_open(const struct csm_config *cfg, bool key)
{
	const char *path = key ? cfg->tpm_policy_key : cfg->tpm_policy_file;
	struct stat st;
	int fd;

	if (path == NULL)
		return fail_with(-1, ENOENT);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) != 0)
		return fail_with(fd, errno);
	if (!S_ISREG(st.st_mode))
		return fail_with(fd, EINVAL);
	if (key && ((st.st_mode & 022) != 0 || (st.st_uid != 0 && st.st_uid != geteuid())))
		return fail_with(fd, EPERM);
	return fd;
}
