#include "daemon/central/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto-spec/limits.h"

#define TEXT_MAX 4096u
#define SOCKET_PATH_MAX 107u
#define WORKERS_MAX 256u
#define RATE_MAX 1000000u
#define MAP_SIZE_MIN (UINT64_C(1) << 20)
#define MAP_SIZE_MAX (UINT64_C(16) << 40)

struct reader {
	struct central_config *c;
	struct csm_policy_error *err;
};
typedef int read_fn(struct reader *rd, const struct csm_yaml_node *n, void *to);

static int set(char **field, struct csm_str s)
{
	char *p = strndup(s.p, s.n);

	if (p == NULL)
		return CSM_ENOMEM;
	free(*field);
	*field = p;
	return 0;
}

static bool is_path(struct csm_str s)
{
	if (s.n < 2 || s.p[0] != '/' || s.p[s.n - 1] == '/' || strstr(s.p, "//") != NULL)
		return false;
	for (const char *p = s.p; (p = strstr(p, "/.")) != NULL; p++)
		if (p[2] == '/' || p[2] == 0 || (p[2] == '.' && (p[3] == '/' || p[3] == 0)))
			return false;
	return true;
}

static int read_path(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, TEXT_MAX, &s, rd->err);

	if (r != 0)
		return r;
	if (!is_path(s))
		return csm_yaml_fail(n, rd->err, "must be an absolute path without '.', '..' and '//'");
	return set(to, s);
}

static int read_socket(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	if (n->kind == CSM_YAML_SCALAR && n->text.n > SOCKET_PATH_MAX)
		return csm_yaml_fail(n, rd->err, "is too long for a socket");
	return read_path(rd, n, to);
}

static bool empty(const struct csm_yaml_node *n)
{
	return n->kind == CSM_YAML_SCALAR && !n->plain && n->text.n == 0;
}

/* "ADDRESS:PORT", "[ADDRESS]:PORT". */
static bool parse_address(struct csm_str s, struct config_address *ret)
{
	struct sockaddr_in *v4 = (void *)&ret->addr;
	struct sockaddr_in6 *v6 = (void *)&ret->addr;
	const char *colon = memrchr(s.p, ':', s.n);
	char host[64];
	size_t n;
	uint64_t port;

	*ret = (struct config_address){.n = 0};
	if (colon == NULL || !csm_parse_number((struct csm_str){colon + 1, (size_t)(s.p + s.n - colon - 1)}, 65535, &port))
		return false;
	n = (size_t)(colon - s.p);
	if (n == 0 || n >= sizeof(host))
		return false;
	memcpy(host, s.p, n);
	host[n] = 0;
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = 0;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		ret->n = sizeof(*v6);
		return inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1;
	}
	v4->sin_family = AF_INET;
	v4->sin_port = htons((uint16_t)port);
	ret->n = sizeof(*v4);
	return inet_pton(AF_INET, host, &v4->sin_addr) == 1;
}

static int read_address(struct reader *rd, const struct csm_yaml_node *n, struct config_address *to, char **text)
{
	struct csm_str s;
	int r = csm_yaml_string(n, 80, &s, rd->err);

	if (r != 0)
		return r;
	if (!parse_address(s, to))
		return csm_yaml_fail(n, rd->err, "must be an address in numbers and a port, as 0.0.0.0:8443 or \"[::]:8443\"");
	return set(text, s);
}

static int read_listen(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	(void)to;
	return read_address(rd, n, &rd->c->tls, &rd->c->listen);
}

static int read_public_listen(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	(void)to;
	if (empty(n)) {
		rd->c->plain.n = 0;
		return set(&rd->c->public_listen, n->text);
	}
	return read_address(rd, n, &rd->c->plain, &rd->c->public_listen);
}

static int read_url(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r;

	if (empty(n))
		return set(to, n->text);
	if ((r = csm_yaml_string(n, 512, &s, rd->err)) != 0)
		return r;
	while (s.n > 0 && s.p[s.n - 1] == '/')
		s.n--;
	if (s.n < 8 || memcmp(s.p, "http://", 7) != 0)
		return csm_yaml_fail(n, rd->err, "must begin with http://: lists and answers are fetched without TLS");
	for (size_t i = 7; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && strchr("-._~:/[]", s.p[i]) == NULL)
			return csm_yaml_fail(n, rd->err, "must be http://HOST[:PORT][/PATH]");
	return set(to, s);
}

static int read_user(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	uint64_t uid;
	int r = csm_yaml_string(n, 32, &s, rd->err);
	bool digits = true;

	if (r != 0)
		return r;
	for (size_t i = 0; i < s.n; i++) {
		digits = digits && isdigit((unsigned char)s.p[i]);
		if (!isalnum((unsigned char)s.p[i]) && strchr("_.-", s.p[i]) == NULL)
			return csm_yaml_fail(n, rd->err, "must be the name or number of a user");
	}
	if (csm_str_eq(s, "root") || csm_str_eq(s, "0"))
		return csm_yaml_fail(n, rd->err, "must not be root");
	if (s.n == 0 || s.p[0] == '-' || (digits && (!csm_parse_number(s, UINT32_MAX - 1, &uid) || uid == 65534)))
		return csm_yaml_fail(n, rd->err, "must be the name or number of a user");
	return set(to, s);
}

static int read_log_level(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, 16, &s, rd->err);

	if (r != 0)
		return r;
	if (!csm_str_eq(s, "error") && !csm_str_eq(s, "warning") && !csm_str_eq(s, "info") && !csm_str_eq(s, "debug"))
		return csm_yaml_fail(n, rd->err, "must be one of: error, warning, info, debug");
	return set(to, s);
}

static int read_sandbox(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, 16, &s, rd->err);

	if (r != 0)
		return r;
	if (!csm_str_eq(s, "required") && !csm_str_eq(s, "best-effort"))
		return csm_yaml_fail(n, rd->err, "must be one of: best-effort, required");
	*(bool *)to = s.n == 8;
	return 0;
}

static int read_map_size(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	static const struct {
		const char *unit;
		unsigned shift;
	} units[] = {{"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
	struct csm_str s, digits;
	uint64_t v = 0;
	size_t i = 0;
	int r = csm_yaml_string(n, 32, &s, rd->err);

	if (r != 0)
		return r;
	digits = (struct csm_str){s.p, strspn(s.p, "0123456789")};
	while (i < 3 && !csm_str_eq((struct csm_str){s.p + digits.n, s.n - digits.n}, units[i].unit))
		i++;
	if (i == 3 || !csm_parse_number(digits, MAP_SIZE_MAX >> units[i].shift, &v) || (v <<= units[i].shift) < MAP_SIZE_MIN)
		return csm_yaml_fail(n, rd->err, "must be a size from 1MiB to 16TiB, as 64GiB");
	*(uint64_t *)to = v;
	return 0;
}

static int read_number(struct reader *rd, const struct csm_yaml_node *n, uint64_t max, void *to)
{
	uint64_t v;
	int r = csm_yaml_number(n, 1, max, &v, rd->err);

	if (r == 0)
		*(unsigned *)to = (unsigned)v;
	return r;
}

static int read_workers(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return read_number(rd, n, WORKERS_MAX, to);
}

static int read_connections(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return read_number(rd, n, CSM_CONNECTIONS_MAX, to);
}

static int read_rate(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return read_number(rd, n, RATE_MAX, to);
}

static bool is_hostname(struct csm_str s)
{
	uint8_t address[16];

	if (inet_pton(AF_INET, s.p, address) == 1 || inet_pton(AF_INET6, s.p, address) == 1)
		return true;
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '-' && s.p[i] != '.')
			return false;
	return s.n > 0 && s.n <= 253 && isalnum((unsigned char)s.p[0]) && isalnum((unsigned char)s.p[s.n - 1]);
}

static int read_hostnames(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	char **names = to;
	struct csm_str s;
	size_t i = 0;
	int r = csm_yaml_expect(n, CSM_YAML_LIST, rd->err);

	if (r != 0)
		return r;
	if (n->n == 0 || n->n > CONFIG_HOSTNAMES_MAX)
		return csm_yaml_fail(n, rd->err, "must have 1 to %u entries", CONFIG_HOSTNAMES_MAX);
	for (const struct csm_yaml_node *v = n->first; v != NULL; v = v->next) {
		if ((r = csm_yaml_string(v, 253, &s, rd->err)) != 0)
			return r;
		if (!is_hostname(s))
			return csm_yaml_fail(v, rd->err, "must be a host's name or address");
		if ((r = set(&names[i++], s)) != 0)
			return r;
	}
	return 0;
}

#define K(section, key, member, fn) {section, key, offsetof(struct central_config, member), fn}
static const struct key {
	const char *section, *key;
	size_t off;
	read_fn *read;
} keys[] = {
	K(NULL, "listen", listen, read_listen),
	K(NULL, "public_listen", public_listen, read_public_listen),
	K(NULL, "admin_socket", admin_socket, read_socket),
	K(NULL, "state_dir", state_dir, read_path),
	K(NULL, "csmd_socket", csmd_socket, read_socket),
	K(NULL, "user", user, read_user),
	K(NULL, "hostnames", hostnames, read_hostnames),
	K(NULL, "public_url", public_url, read_url),
	K(NULL, "log_level", log_level, read_log_level),
	K(NULL, "sandbox", require_sandbox, read_sandbox),
	K(NULL, "map_size", map_size, read_map_size),
	K(NULL, "workers", workers, read_workers),
	K("limits", "connections", connections, read_connections),
	K("limits", "connections_per_address", connections_per_address, read_connections),
	K("limits", "new_per_address", new_per_address, read_rate),
	K("limits", "requests_per_address", requests_per_address, read_rate),
	K("limits", "requests_per_caller", requests_per_caller, read_rate),
};
#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

static bool in_section(const struct key *k, const char *section)
{
	return section == NULL ? k->section == NULL : k->section != NULL && strcmp(k->section, section) == 0;
}

/* issuers and profiles are profiles_read's. */
static bool elsewhere(const struct csm_yaml_node *n)
{
	return csm_str_eq(n->key, "issuers") || csm_str_eq(n->key, "profiles");
}

static int read_section(struct reader *rd, const struct csm_yaml_node *map, const char *section)
{
	int r = csm_yaml_expect(map, CSM_YAML_MAP, rd->err);

	for (const struct csm_yaml_node *n = map->first; r == 0 && n != NULL; n = n->next) {
		size_t i = 0;

		if (section == NULL && elsewhere(n))
			continue;
		while (i < N_KEYS && !(in_section(&keys[i], section) && csm_str_eq(n->key, keys[i].key)))
			i++;
		if (i < N_KEYS)
			r = keys[i].read(rd, n, (char *)rd->c + keys[i].off);
		else if (section == NULL && csm_str_eq(n->key, "limits"))
			r = read_section(rd, n, "limits");
		else
			r = csm_yaml_fail(n, rd->err, "unknown key");
	}
	return r;
}

static int set_defaults(struct central_config *c)
{
	const struct {
		char **field;
		const char *value;
	} texts[] = {{&c->listen, "0.0.0.0:8443"}, {&c->public_listen, ""}, {&c->admin_socket, "/run/csm/server-admin.sock"},
		{&c->state_dir, "/var/lib/csm-server"}, {&c->csmd_socket, "/run/csm.sock"}, {&c->user, "csm-server"},
		{&c->public_url, ""}, {&c->log_level, "info"}, {&c->hostnames[0], "localhost"}};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (set(texts[i].field, csm_str_of(texts[i].value)) != 0)
			return CSM_ENOMEM;
	if (!parse_address(csm_str_of(c->listen), &c->tls))
		return CSM_EINTERNAL;
	c->map_size = UINT64_C(64) << 30;
	c->workers = 8;
	return 0;
}

int central_config_parse(const char *text, size_t n, struct central_config *ret, struct csm_policy_error *err)
{
	struct central_config c = {0};
	struct reader rd = {&c, err};
	struct csm_yaml y;
	int r;

	*err = (struct csm_policy_error){0};
	r = set_defaults(&c);
	if (r == 0 && (r = csm_yaml_parse(text, n, CSM_CONFIG_MAX, &y, err)) == 0) {
		if ((r = read_section(&rd, y.root, NULL)) == 0)
			r = profiles_read(y.root, c.public_url, &c.profiles, err);
		csm_yaml_free(&y);
	}
	if (r != 0) {
		central_config_clear(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void central_config_clear(struct central_config *c)
{
	char *const texts[] = {c->listen, c->public_listen, c->admin_socket, c->state_dir, c->csmd_socket, c->user, c->log_level,
		c->public_url};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free(texts[i]);
	for (size_t i = 0; i < CONFIG_HOSTNAMES_MAX; i++)
		free(c->hostnames[i]);
	profiles_free(c->profiles);
	*c = (struct central_config){0};
}
