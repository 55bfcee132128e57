#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

static int connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, e;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
		e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static int connect_tcp(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *at;
	int fd = -1;

	if (getaddrinfo(host, port, &hints, &list) != 0) {
		errno = EHOSTUNREACH;
		return -1;
	}
	for (at = list; at != NULL && fd < 0; at = at->ai_next) {
		fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
		if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	if (fd < 0)
		errno = ECONNREFUSED;
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
	return given[0] != NULL ? connect_unix(given[0]) : connect_tcp(given[1], given[2]);
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
	errno = name[0] == '\0' ? ENODEV : EPROTONOSUPPORT;
	return -1;
}
