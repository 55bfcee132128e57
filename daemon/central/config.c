#include "daemon/central/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/config_read.h"
#include "proto-spec/limits.h"

#define WORKERS_MAX 256u
#define RATE_MAX 1000000u

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
	return config_set(text, s);
}

static int read_listen(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct central_config *c = rd->c;

	(void)to;
	return read_address(rd, n, &c->tls, &c->listen);
}

static int read_public_listen(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct central_config *c = rd->c;

	(void)to;
	if (config_is_empty(n)) {
		c->plain.n = 0;
		return config_set(&c->public_listen, n->text);
	}
	return read_address(rd, n, &c->plain, &c->public_listen);
}

static int read_url(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r;

	if (config_is_empty(n))
		return config_set(to, n->text);
	if ((r = csm_yaml_string(n, 512, &s, rd->err)) != 0)
		return r;
	while (s.n > 0 && s.p[s.n - 1] == '/')
		s.n--;
	if (s.n < 8 || memcmp(s.p, "http://", 7) != 0)
		return csm_yaml_fail(n, rd->err, "must begin with http://: lists and answers are fetched without TLS");
	for (size_t i = 7; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && strchr("-._~:/[]", s.p[i]) == NULL)
			return csm_yaml_fail(n, rd->err, "must be http://HOST[:PORT][/PATH]");
	return config_set(to, s);
}

static int read_workers(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_count(rd, n, 1, WORKERS_MAX, to);
}

static int read_connections(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_count(rd, n, 1, CSM_CONNECTIONS_MAX, to);
}

static int read_rate(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_count(rd, n, 1, RATE_MAX, to);
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
		if ((r = config_set(&names[i++], s)) != 0)
			return r;
	}
	return 0;
}

#define K(section, key, member, fn) {section, key, offsetof(struct central_config, member), fn}
static const struct config_key keys[] = {
	K(NULL, "listen", listen, read_listen),
	K(NULL, "public_listen", public_listen, read_public_listen),
	K(NULL, "admin_socket", admin_socket, config_read_socket),
	K(NULL, "state_dir", state_dir, config_read_path),
	K(NULL, "csmd_socket", csmd_socket, config_read_socket),
	K(NULL, "user", user, config_read_user),
	K(NULL, "hostnames", hostnames, read_hostnames),
	K(NULL, "public_url", public_url, read_url),
	K(NULL, "log_level", log_level, config_read_log_level),
	K(NULL, "sandbox", require_sandbox, config_read_sandbox),
	K(NULL, "map_size", map_size, config_read_map_size),
	K(NULL, "workers", workers, read_workers),
	K("limits", "connections", connections, read_connections),
	K("limits", "connections_per_address", connections_per_address, read_connections),
	K("limits", "new_per_address", new_per_address, read_rate),
	K("limits", "requests_per_address", requests_per_address, read_rate),
	K("limits", "requests_per_caller", requests_per_caller, read_rate),
};

/* issuers and profiles are profiles_read's. */
static int other_key(struct reader *rd, const char *section, const struct csm_yaml_node *n)
{
	if (section == NULL && (csm_str_eq(n->key, "issuers") || csm_str_eq(n->key, "profiles")))
		return 0;
	return csm_yaml_fail(n, rd->err, "unknown key");
}

static const struct config_keys all_keys = {keys, sizeof(keys) / sizeof(keys[0]), other_key};

static int set_defaults(struct central_config *c)
{
	const struct config_text texts[] = {{&c->listen, "0.0.0.0:8443"}, {&c->public_listen, ""},
		{&c->admin_socket, "/run/csm/server-admin.sock"}, {&c->state_dir, "/var/lib/csm-server"}, {&c->csmd_socket, "/run/csm.sock"}, {&c->user, "csm-server"},
		{&c->public_url, ""}, {&c->log_level, "info"}, {&c->hostnames[0], "localhost"}};

	if (config_set_texts(texts, sizeof(texts) / sizeof(texts[0])) != 0)
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
		if ((r = config_read_keys(&rd, y.root, &all_keys)) == 0)
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
