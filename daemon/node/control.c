#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/node/control.h"
#include "libclient/wire/dec.h"
#include "libclient/wire/enc.h"

#define SETUP_MAX (4u * 1024u * 1024u)
#define SETUP_FIELDS (12u + 2u * CSM_PLUGHOSTS_MAX + 2u * CSM_ENROL_PROFILES_MAX)

int control_send(int sock, uint8_t type, const void *body, size_t len, int fd)
{
	uint8_t data[1 + CONTROL_BODY_MAX];
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {data, 1 + len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (len > CONTROL_BODY_MAX)
		return CSM_ETOO_LARGE;
	data[0] = type;
	if (len > 0)
		memcpy(data + 1, body, len);
	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	while (sendmsg(sock, &m, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return errno == EPIPE || errno == ECONNRESET ? CSM_ECLOSED : CSM_ESYSTEM;
	return 0;
}

/* The first descriptor; more than the one that a message may have are closed, so that nobody fills our table. */
static void take_fd(struct msghdr *m, int *fd)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		size_t n = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ?
			(c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < n; i++) {
			int got;

			memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (*fd < 0)
				*fd = got;
			else
				close(got);
		}
	}
}

int control_recv(int sock, struct control_msg *ret)
{
	uint8_t data[1 + CONTROL_BODY_MAX];
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {data, sizeof(data)};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n;

	do
		n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return CSM_EBUSY;
	if (n < 0)
		return errno == ECONNRESET ? CSM_ECLOSED : CSM_ESYSTEM;
	if (n == 0)
		return CSM_ECLOSED;
	ret->type = data[0];
	ret->len = (size_t)n - 1;
	memcpy(ret->body, data + 1, ret->len);
	ret->fd = -1;
	take_fd(&m, &ret->fd);
	return 0;
}

static int enc_opt_bin(struct csm_buf *b, struct csm_bin s)
{
	return s.p == NULL ? csm_enc_nil(b) : csm_enc_bin(b, s);
}

static int setup_encode(const struct setup *s, struct csm_buf *b)
{
	int r;

	if ((r = csm_enc_array(b, SETUP_FIELDS)) != 0 || (r = enc_opt_bin(b, s->config)) != 0 ||
		(r = enc_opt_bin(b, s->policy)) != 0 || (r = csm_enc_str(b, s->policy_error)) != 0 ||
		(r = csm_enc_u64(b, s->broker_uid)) != 0 ||
		(r = csm_enc_u64(b, s->broker_gid)) != 0 || (r = csm_enc_u64(b, s->supervisor_pid)) != 0 || (r = csm_enc_u64(b, s->reload_seq)) != 0 ||
		(r = csm_enc_str(b, s->plugin_dir)) != 0 || (r = csm_enc_str(b, s->device)) != 0 ||
		(r = enc_opt_bin(b, s->owner_auth)) != 0 ||
		(r = enc_opt_bin(b, s->root_secret)) != 0)
		return r;
	for (size_t i = 0; i < CSM_PLUGHOSTS_MAX; i++)
		if ((r = enc_opt_bin(b, s->pins[i])) != 0 || (r = csm_enc_u64(b, s->pin_marks[i])) != 0)
			return r;
	for (size_t i = 0; i < CSM_ENROL_PROFILES_MAX; i++)
		if ((r = enc_opt_bin(b, s->enrol_tokens[i])) != 0 || (r = enc_opt_bin(b, s->enrol_anchors[i])) != 0)
			return r;
	if ((r = csm_enc_array(b, (uint32_t)(3 * s->n_names))) != 0)
		return r;
	for (size_t i = 0; i < s->n_names; i++)
		if ((r = csm_enc_bool(b, s->names[i].group)) != 0 || (r = csm_enc_str(b, s->names[i].name)) != 0 ||
			(r = csm_enc_u64(b, s->names[i].id)) != 0)
			return r;
	return 0;
}

static int write_all(int fd, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return CSM_ESYSTEM;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

int setup_to_memfd(const struct setup *s, int *ret)
{
	struct csm_buf b;
	int r, fd = -1;

	csm_buf_init(&b, SETUP_MAX, true);
	if ((r = setup_encode(s, &b)) != 0)
		goto out;
	fd = memfd_create("csm-setup", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	r = CSM_ESYSTEM;
	if (fd < 0)
		goto out;
	if ((r = write_all(fd, csm_buf_ptr(&b), b.len)) != 0)
		goto out;
	r = CSM_ESYSTEM;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		goto out;
	*ret = fd;
	fd = -1;
	r = 0;
out:
	if (fd >= 0)
		close(fd);
	csm_buf_free(&b);
	return r;
}

static int dec_opt_bin(struct csm_dec *d, struct csm_bin *ret)
{
	return csm_dec_nil(d) == 0 ? 0 : csm_dec_bin(d, ret);
}

static int dec_u32(struct csm_dec *d, uint32_t *ret)
{
	uint64_t v;
	int r = csm_dec_u64(d, &v);

	if (r != 0)
		return r;
	if (v > UINT32_MAX)
		return CSM_EPROTOCOL;
	*ret = (uint32_t)v;
	return 0;
}

static int setup_decode_names(struct csm_dec *d, struct setup *s)
{
	uint32_t n;
	int r;

	if ((r = csm_dec_array(d, &n)) != 0)
		return r;
	if (n % 3 != 0 || n / 3 > SETUP_NAMES_MAX)
		return CSM_EPROTOCOL;
	s->names = calloc(n / 3 + 1, sizeof(*s->names));
	if (s->names == NULL)
		return CSM_ENOMEM;
	for (; s->n_names < n / 3; s->n_names++) {
		struct setup_name *e = &s->names[s->n_names];

		if ((r = csm_dec_bool(d, &e->group)) != 0 || (r = csm_dec_str(d, &e->name)) != 0 ||
			(r = dec_u32(d, &e->id)) != 0)
			return r;
	}
	return csm_dec_end(d);
}

static int setup_decode(struct csm_dec *d, struct setup *s)
{
	uint32_t n;
	int r;

	if ((r = csm_dec_array(d, &n)) != 0)
		return r;
	if (n != SETUP_FIELDS)
		return CSM_EPROTOCOL;
	if ((r = dec_opt_bin(d, &s->config)) != 0 || (r = dec_opt_bin(d, &s->policy)) != 0 || (r = csm_dec_str(d, &s->policy_error)) != 0 ||
		(r = dec_u32(d, &s->broker_uid)) != 0 || (r = dec_u32(d, &s->broker_gid)) != 0 ||
		(r = dec_u32(d, &s->supervisor_pid)) != 0 || (r = csm_dec_u64(d, &s->reload_seq)) != 0 ||
		(r = csm_dec_str(d, &s->plugin_dir)) != 0 ||
		(r = csm_dec_str(d, &s->device)) != 0 ||
		(r = dec_opt_bin(d, &s->owner_auth)) != 0 || (r = dec_opt_bin(d, &s->root_secret)) != 0)
		return r;
	for (size_t i = 0; i < CSM_PLUGHOSTS_MAX; i++)
		if ((r = dec_opt_bin(d, &s->pins[i])) != 0 || (r = csm_dec_u64(d, &s->pin_marks[i])) != 0)
			return r;
	for (size_t i = 0; i < CSM_ENROL_PROFILES_MAX; i++)
		if ((r = dec_opt_bin(d, &s->enrol_tokens[i])) != 0 || (r = dec_opt_bin(d, &s->enrol_anchors[i])) != 0)
			return r;
	return setup_decode_names(d, s);
}

int setup_from_memfd(int fd, struct csm_buf *mem, struct setup *ret)
{
	struct setup s = {0};
	struct csm_dec d;
	struct stat st;
	uint8_t *p;
	int r;

	if (fstat(fd, &st) != 0)
		return CSM_ESYSTEM;
	if (st.st_size <= 0 || st.st_size > SETUP_MAX)
		return CSM_ETOO_LARGE;
	csm_buf_init(mem, SETUP_MAX, true);
	if ((r = csm_buf_reserve(mem, (size_t)st.st_size, &p)) != 0)
		return r;
	r = CSM_ESYSTEM;
	if (pread(fd, p, (size_t)st.st_size, 0) != st.st_size)
		goto out;
	csm_buf_commit(mem, (size_t)st.st_size);
	csm_dec_init(&d, csm_buf_ptr(mem), mem->len);
	if ((r = setup_decode(&d, &s)) != 0)
		goto out;
	*ret = s;
	return 0;
out:
	setup_clear(&s);
	csm_buf_free(mem);
	return r;
}

void setup_clear(struct setup *s)
{
	free(s->names);
	s->names = NULL;
	s->n_names = 0;
}

static bool lookup(const struct setup *s, bool group, const char *name, uint32_t *ret)
{
	for (size_t i = 0; i < s->n_names; i++)
		if (s->names[i].group == group && csm_str_eq(s->names[i].name, name)) {
			*ret = s->names[i].id;
			return true;
		}
	return false;
}

static bool lookup_user(void *arg, const char *name, uid_t *ret)
{
	return lookup(arg, false, name, ret);
}

static bool lookup_group(void *arg, const char *name, gid_t *ret)
{
	return lookup(arg, true, name, ret);
}

struct csm_resolver setup_resolver(const struct setup *s)
{
	/* The callbacks only read. */
	return (struct csm_resolver){.arg = (void *)(uintptr_t)s, .user = lookup_user, .group = lookup_group};
}
