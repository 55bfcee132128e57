#include "plugins/tpm2/hwlib/hwlib.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int open_socket(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(sa.sun_path, path, strlen(path));
	if ((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0) {
		int e = errno;

		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static int device(void *arg)
{
	const struct hwlib_host *h = arg;

	if (strncmp(h->tcti, "device:", 7) == 0)
		return open(h->tcti + 7, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (strncmp(h->tcti, "swtpm:path=", 11) == 0)
		return open_socket(h->tcti + 11);
	errno = EPROTONOSUPPORT;
	return -1;
}

static const char *config(void *arg, const char *name)
{
	const struct hwlib_host *h = arg;
	bool socket = strncmp(h->tcti, "device:", 7) != 0;

	if (strcmp(name, "device") == 0)
		return h->tcti;
	if (strcmp(name, "kind") == 0)
		return socket ? "socket" : "device";
	if (strcmp(name, "shared") == 0)
		return strncmp(h->tcti, "device:/dev/tpmrm", 17) == 0 ? "true" : "false";
	if (strcmp(name, "parent") == 0)
		return h->parent[0] != '\0' ? h->parent : NULL;
	/* The parent is whatever the operator's tools have made, and named in the activate folder. */
	if (strcmp(name, "accept_foreign") == 0)
		return h->parent[0] != '\0' ? "true" : "false";
	return NULL;
}

void hwlib_host_init(struct hwlib_host *h)
{
	const char *tcti = secure_getenv("CSM_TPM_TCTI");

	memset(h, 0, sizeof(*h));
	h->host.arg = h;
	h->host.device = device;
	h->host.config = config;
	snprintf(h->tcti, sizeof(h->tcti), "%s", tcti != NULL && tcti[0] != '\0' ? tcti : HWLIB_DEFAULT_TCTI);
}

/* TPM2_GetCapability(TPM_PROPERTIES, MANUFACTURER, 1). A TPM that nobody has started yet answers too. */
int hwlib_host_probe(const struct hwlib_host *h)
{
	static const uint8_t ask[] = {0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 0x01, 0x05, 0, 0, 0, 1};
	uint8_t answer[T2_WIRE_MAX];
	size_t n = sizeof(answer);
	struct t2_tcti *t = calloc(1, sizeof(*t));
	int r = CSM_EUNAVAILABLE;

	if (t == NULL)
		return CSM_ENOMEM;
	t2_tcti_init(t, &h->host, strncmp(h->tcti, "device:", 7) != 0);
	if (t->common.v1.transmit((TSS2_TCTI_CONTEXT *)t, sizeof(ask), ask) == TSS2_RC_SUCCESS &&
		t->common.v1.receive((TSS2_TCTI_CONTEXT *)t, &n, answer, T2_TIMEOUT_PROBE_MS) == TSS2_RC_SUCCESS && n >= 10)
		r = 0;
	t2_tcti_drop(t);
	free(t);
	return r;
}
