/* A connection of tpm2-abrmd's: asked for over D-Bus by CreateConnection, which answers with a descriptor that carries TPM
 * commands as swtpm's socket does. Three fixed messages are sent; of what the bus answers only the head of each message is
 * read, within bounds, and the descriptor. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "daemon/node/loop.h"
#include "daemon/node/supervisor.h"

#define SYSTEM_BUS "/run/dbus/system_bus_socket"
#define ABRMD "com.intel.tss2.Tabrmd"
#define BUS_MS 1000
#define MESSAGE_MAX 4096u
#define MESSAGES_MAX 16u
#define CREATE_SERIAL 2u
enum { TYPE_CALL = 1, TYPE_RETURN = 2, TYPE_ERROR = 3 };
enum { FIELD_PATH = 1, FIELD_INTERFACE = 2, FIELD_MEMBER = 3, FIELD_REPLY_SERIAL = 5, FIELD_DESTINATION = 6 };

struct bus {
	int fd;
	int got; /* the descriptor that came along; -1: none yet */
	uint64_t until; /* the supervisor waits for nobody longer */
};

/* ---- sending ---- */

struct message {
	uint8_t p[512];
	size_t n;
};

static void put_u32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* One field of the head: a struct of a byte and a variant, aligned to 8. The texts are short and our own. */
static void put_field(struct message *m, uint8_t code, char type, const char *text)
{
	size_t len = strlen(text);

	while (m->n % 8 != 0)
		m->p[m->n++] = 0;
	m->p[m->n++] = code;
	m->p[m->n++] = 1;
	m->p[m->n++] = (uint8_t)type;
	m->p[m->n++] = 0;
	put_u32(m->p + m->n, (uint32_t)len);
	memcpy(m->p + m->n + 4, text, len + 1);
	m->n += 4 + len + 1;
}

/* A call without arguments, in little-endian form. */
static void make_call(struct message *m, uint32_t serial, const char *path, const char *interface, const char *member,
	const char *to)
{
	memset(m, 0, sizeof(*m));
	m->p[0] = 'l';
	m->p[1] = TYPE_CALL;
	m->p[3] = 1;
	put_u32(m->p + 8, serial);
	m->n = 16;
	put_field(m, FIELD_PATH, 'o', path);
	put_field(m, FIELD_INTERFACE, 's', interface);
	put_field(m, FIELD_MEMBER, 's', member);
	put_field(m, FIELD_DESTINATION, 's', to);
	put_u32(m->p + 12, (uint32_t)(m->n - 16));
	while (m->n % 8 != 0)
		m->p[m->n++] = 0;
}

static bool send_all(struct bus *b, const void *p, size_t n)
{
	return send(b->fd, p, n, MSG_NOSIGNAL) == (ssize_t)n;
}

/* ---- receiving ---- */

/* Some bytes, within the time; a descriptor that comes along is kept, a second one closed. */
static ssize_t receive(struct bus *b, void *p, size_t n)
{
	union {
		char buf[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {p, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
	struct pollfd wait = {.fd = b->fd, .events = POLLIN};
	ssize_t got;
	uint64_t now = monotonic_ms();

	if (now >= b->until || poll(&wait, 1, (int)(b->until - now)) != 1 || (got = recvmsg(b->fd, &msg, MSG_CMSG_CLOEXEC)) <= 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
		size_t fds = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < fds; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (b->got >= 0)
				close(fd);
			else
				b->got = fd;
		}
	}
	return got;
}

static bool receive_all(struct bus *b, uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t got = receive(b, p, n);

		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

/* A line of the handshake that begins with `word`. */
static bool expect_line(struct bus *b, const char *word)
{
	char line[128];
	size_t n = 0;

	while (n < sizeof(line) - 1 && receive_all(b, (uint8_t *)line + n, 1))
		if (line[n++] == '\n')
			return strncmp(line, word, strlen(word)) == 0;
	return false;
}

/* The serial that a message is the answer to; 0: to none. The head's fields are n bytes at p. */
static uint32_t reply_serial(const uint8_t *p, size_t n)
{
	size_t at = 0;

	while (at + 8 <= n) {
		uint8_t code = p[at], type = p[at + 2];
		size_t len;

		if (p[at + 1] != 1 || p[at + 3] != 0)
			return 0;
		at += 4;
		if (code == FIELD_REPLY_SERIAL)
			return type == 'u' ? get_u32(p + at) : 0;
		len = type == 'u' ? 4 : type == 'g' ? 2 + (size_t)p[at] : 4 + (size_t)get_u32(p + at) + 1;
		if (len > n - at)
			return 0;
		at = (at + len + 7) & ~(size_t)7;
	}
	return 0;
}

/* The next message's type, and what it answers; the rest of it is passed over. */
static int next_message(struct bus *b, uint32_t *answers)
{
	uint8_t head[16] = {0}, rest[MESSAGE_MAX] = {0};
	size_t fields, body, all;

	if (!receive_all(b, head, sizeof(head)) || head[0] != 'l')
		return -1;
	body = get_u32(head + 4);
	fields = get_u32(head + 12);
	if (body > sizeof(rest) || fields > sizeof(rest))
		return -1;
	all = ((fields + 7) & ~(size_t)7) + body;
	if (all > sizeof(rest) || !receive_all(b, rest, all))
		return -1;
	*answers = reply_serial(rest, fields);
	return head[1];
}

/* ---- the conversation ---- */

static bool authenticate(struct bus *b)
{
	char uid[16], line[64];
	int n = snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
	size_t at = (size_t)snprintf(line, sizeof(line), "%cAUTH EXTERNAL ", 0);

	for (int i = 0; i < n; i++)
		at += (size_t)snprintf(line + at, sizeof(line) - at, "%02x", (unsigned char)uid[i]);
	at += (size_t)snprintf(line + at, sizeof(line) - at, "\r\n");
	return send_all(b, line, at) && expect_line(b, "OK ") && send_all(b, "NEGOTIATE_UNIX_FD\r\n", 19) &&
		expect_line(b, "AGREE_UNIX_FD") && send_all(b, "BEGIN\r\n", 7);
}

static int create_connection(struct bus *b, const char *name)
{
	struct message m;
	uint32_t answers = 0;

	make_call(&m, 1, "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "org.freedesktop.DBus");
	if (!send_all(b, m.p, m.n))
		return EIO;
	make_call(&m, CREATE_SERIAL, "/com/intel/tss2/Tabrmd/Tcti", "com.intel.tss2.TctiTabrmd", "CreateConnection", name);
	if (!send_all(b, m.p, m.n))
		return EIO;
	for (unsigned i = 0; i < MESSAGES_MAX; i++) {
		int type = next_message(b, &answers);

		if (type < 0)
			return EIO;
		if (answers == CREATE_SERIAL)
			return type == TYPE_RETURN && b->got >= 0 ? 0 : type == TYPE_ERROR ? ENODEV : EIO;
	}
	return EIO;
}

/* The path of the bus; NULL: it is not one of this machine's. */
static const char *bus_path(bool session, char *out, size_t cap)
{
	static const char prefix[] = "unix:path=";
	const char *address = getenv("DBUS_SESSION_BUS_ADDRESS");
	size_t n;

	if (!session)
		return SYSTEM_BUS;
	if (address == NULL || strncmp(address, prefix, sizeof(prefix) - 1) != 0)
		return NULL;
	address += sizeof(prefix) - 1;
	n = strcspn(address, ",;");
	if (n == 0 || n >= cap)
		return NULL;
	memcpy(out, address, n);
	out[n] = '\0';
	return out;
}

/* bus_name=NAME,bus_type=system|session, as libtss2-tcti-tabrmd takes them. */
static bool read_conf(const char *conf, char name[static 128], bool *session)
{
	char *const tokens[] = {(char[]){"bus_name"}, (char[]){"bus_type"}, NULL};
	char text[256], *at = text, *value;

	snprintf(name, 128, "%s", ABRMD);
	*session = false;
	snprintf(text, sizeof(text), "%s", conf);
	while (*at != '\0') {
		int which = getsubopt(&at, tokens, &value);

		if (which < 0 || value == NULL)
			return false;
		if (which == 0 && (size_t)snprintf(name, 128, "%s", value) >= 128)
			return false;
		if (which == 1 && strcmp(value, "session") != 0 && strcmp(value, "system") != 0)
			return false;
		if (which == 1)
			*session = strcmp(value, "session") == 0;
	}
	return true;
}

int tabrmd_connect(const char *conf)
{
	struct bus b = {-1, -1, monotonic_ms() + BUS_MS};
	char name[128], space[108];
	const char *path;
	bool session;
	int e = EINVAL;

	if (!read_conf(conf, name, &session))
		goto out;
	e = ENOENT;
	if ((path = bus_path(session, space, sizeof(space))) == NULL)
		goto out;
	if ((b.fd = device_connect_unix(path)) < 0) {
		e = errno;
		goto out;
	}
	e = EACCES;
	if (authenticate(&b))
		e = create_connection(&b, name);
out:
	if (b.fd >= 0)
		close(b.fd);
	if (e == 0)
		return b.got;
	if (b.got >= 0)
		close(b.got);
	errno = e;
	return -1;
}
