#include "daemon/svc/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/config_int.h"
#include "daemon/svc/config_tpm.h"

#define LOOPS_MAX 256u
#define SWTPM_CONF_MAX 255u
#define AUDIT_SIZE_MIN (UINT64_C(16) << 10)
#define AUDIT_SIZE_MAX (UINT64_C(16) << 30)
#define AUDIT_FILES_MAX 9999u
#define EPOCH_INTERVAL_MAX_S (24u * 3600u)

/* "" turns it off */
static int read_optional_path(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	if (config_is_empty(n)) {
		free(*(char **)to);
		*(char **)to = NULL;
		return 0;
	}
	return config_read_path_of(rd, n, CONFIG_TEXT_MAX, to);
}

static int read_plugin_dir(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_config *c = rd->c;

	c->plugin_dir_line = n->line;
	c->plugin_dir_column = n->column;
	return read_optional_path(rd, n, to);
}

static int read_text(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CONFIG_TEXT_MAX, &s, rd->err);

	return r != 0 ? r : config_set(to, s);
}

#define BACKENDS "soft, tpm2, fake"
static bool is_backend(struct csm_str s)
{
	return csm_str_eq(s, "soft") || csm_str_eq(s, "tpm2") || csm_str_eq(s, "fake");
}

static int read_backend(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CSM_TOKEN_STR_MAX, &s, rd->err);

	if (r != 0)
		return r;
	return config_set(to, s); /* which there are is known in the end */
}

/* A list of back ends becomes "soft,tpm2". */
static int read_backends(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	char buf[16 * (CSM_TOKEN_STR_MAX + 1)];
	struct csm_str s;
	size_t used = 0;
	int r = csm_yaml_expect(n, CSM_YAML_LIST, rd->err);

	if (r != 0)
		return r;
	if (n->n == 0 || n->n > 16)
		return csm_yaml_fail(n, rd->err, "must have 1 to 16 entries");
	for (const struct csm_yaml_node *c = n->first; c != NULL; c = c->next) {
		if ((r = csm_yaml_string(c, CSM_TOKEN_STR_MAX, &s, rd->err)) != 0)
			return r;
		if (!is_backend(s))
			return csm_yaml_fail(c, rd->err, "must be one of: " BACKENDS);
		if (used > 0)
			buf[used++] = ',';
		memcpy(buf + used, s.p, s.n);
		used += s.n;
	}
	return config_set(to, (struct csm_str){buf, used});
}

static int read_root_key(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	static const char *const words[] = {[CSM_ROOT_TPM] = "tpm", [CSM_ROOT_PASSPHRASE] = "passphrase",
		[CSM_ROOT_FILE] = "file", [CSM_ROOT_CREDENTIAL] = "credential"};
	size_t i = 0;
	int r = config_read_word(rd, n, words, 4, &i);

	if (r == 0)
		*(enum csm_root_key_mode *)to = (enum csm_root_key_mode)i;
	return r;
}

static int read_bus_protection(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	static const char *const words[] = {"full"};
	size_t i = 0;
	int r = config_read_word(rd, n, words, 1, &i);

	return r != 0 ? r : config_set(to, n->text);
}

static int read_audit_mode(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	static const char *const words[] = {"normal", "strict"};
	size_t i = 0;
	int r = config_read_word(rd, n, words, 2, &i);

	if (r == 0)
		*(bool *)to = i == 1;
	return r;
}

static int read_device(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	if (n->kind == CSM_YAML_SCALAR && csm_str_eq(n->text, "auto"))
		return config_set(to, n->text);
	return config_read_path_of(rd, n, CONFIG_TEXT_MAX, to);
}

/* path=/run/sock, or host=localhost,port=2321, each once and in any order; "" is localhost. */
static bool is_swtpm(struct csm_str s)
{
	static const char *const names[] = {"path=", "host=", "port="};
	bool seen[3] = {false};

	if (s.n > SWTPM_CONF_MAX)
		return false;
	for (const char *p = s.p, *end = s.p + s.n; p < end; p++) {
		size_t i = 0, n = strcspn(p, ",");
		while (i < 3 && strncmp(p, names[i], 5) != 0)
			i++;
		if (i == 3 || seen[i] || n == 5 || (p[n] == ',' && p + n + 1 == end))
			return false;
		seen[i] = true;
		p += n;
	}
	return !seen[0] || (!seen[1] && !seen[2]);
}

/* bus_name=NAME and bus_type=system|session, each once at most, as libtss2-tcti-tabrmd has them. */
static bool is_tabrmd(struct csm_str s)
{
	static const char *const names[] = {"bus_name=", "bus_type=system", "bus_type=session"};
	bool seen[3] = {false};

	for (const char *p = s.p, *end = s.p + s.n; p < end; p++) {
		size_t i = 0, n = strcspn(p, ",");

		while (i < 3 && strncmp(p, names[i], strlen(names[i])) != 0)
			i++;
		if (i == 3 || seen[i] || (i == 0) != (n > strlen(names[i])) || (p[n] == ',' && p + n + 1 == end))
			return false;
		seen[i] = true;
		p += n;
	}
	return !seen[1] || !seen[2];
}

static int read_tcti(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, CONFIG_TEXT_MAX, &s, rd->err);
	bool good;

	if (r != 0)
		return r;
	good = s.n == 0 || csm_str_eq(s, "swtpm") || csm_str_eq(s, "tabrmd");
	if (s.n >= 6 && memcmp(s.p, "swtpm:", 6) == 0)
		good = is_swtpm((struct csm_str){s.p + 6, s.n - 6});
	else if (s.n > 7 && memcmp(s.p, "tabrmd:", 7) == 0)
		good = is_tabrmd((struct csm_str){s.p + 7, s.n - 7});
	else if (s.n > 7 && memcmp(s.p, "device:", 7) == 0)
		good = config_is_path((struct csm_str){s.p + 7, s.n - 7});
	if (!good)
		return csm_yaml_fail(n, rd->err,
			"must be swtpm, swtpm:path=PATH, swtpm:host=ADDRESS,port=NUMBER, device:/PATH, tabrmd, or "
			"tabrmd:bus_name=NAME,bus_type=system|session");
	return config_set(to, s);
}

/* The value itself is never repeated: what stands here by mistake is a secret. */
static int read_owner_auth(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	int r;

	if (config_is_empty(n)) {
		free(*(char **)to);
		*(char **)to = NULL;
		return 0;
	}
	if ((r = csm_yaml_string(n, CONFIG_TEXT_MAX, &s, rd->err)) != 0)
		return r;
	if (s.n == 0 || s.p[0] != '@')
		return csm_yaml_fail(n, rd->err,
			"must be \"\" or \"@/path\" of a file that holds it: a secret does not belong in this file");
	s.p++;
	s.n--;
	if (!config_is_path(s))
		return csm_yaml_fail(n, rd->err, "after '@' must come an absolute path without '.', '..' and '//'");
	return config_set(to, s);
}

static int read_pcrs(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	char text[CONFIG_PCRS_TEXT];
	int r = config_pcrs(n, text, rd->err);

	return r != 0 ? r : config_set(to, csm_str_of(text));
}

static int read_audit_size(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	uint64_t v = 0;
	int r = config_read_measure(rd, n, config_sizes, 4, "64MiB", &v);

	if (r != 0)
		return r;
	if (v < AUDIT_SIZE_MIN || v > AUDIT_SIZE_MAX)
		return csm_yaml_fail(n, rd->err, "must be from 16KiB to 16GiB");
	*(uint64_t *)to = v;
	return 0;
}

static int read_epoch_interval(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_seconds(rd, n, 1, EPOCH_INTERVAL_MAX_S, to);
}

static int read_connections(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_count(rd, n, 1, CSM_CONNECTIONS_MAX, to);
}

/* Of all together some are the administrator's: what is left has to be something. */
static int read_connections_all(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_count(rd, n, CSM_CONNECTIONS_ADMIN + 1, CSM_CONNECTIONS_MAX, to);
}

static int read_audit_files(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_count(rd, n, 2, AUDIT_FILES_MAX, to);
}

static int read_loops(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_count(rd, n, 0, LOOPS_MAX, to);
}

static int read_nice(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s, digits;
	uint64_t v;
	int r = csm_yaml_string(n, 32, &s, rd->err);
	bool less;

	if (r != 0)
		return r;
	less = s.n > 0 && s.p[0] == '-';
	digits = (struct csm_str){s.p + less, s.n - less};
	if (!n->plain || !config_only_of(digits, "0123456789") || !csm_parse_number(digits, less ? 20 : 19, &v))
		return csm_yaml_fail(n, rd->err, "must be a number from -20 to 19");
	*(int *)to = less ? -(int)v : (int)v;
	return 0;
}

/* Every key. NULL section: at the top. */
#define K(section, key, member, fn) {section, key, offsetof(struct csm_config, member), fn}
static const struct config_key keys[] = {
	K(NULL, "socket", socket, config_read_socket),
	K(NULL, "admin_socket", admin_socket, config_read_socket),
	K(NULL, "state_dir", state_dir, config_read_path),
	K(NULL, "policy", policy, read_optional_path),
	K(NULL, "deliver", deliver, read_optional_path),
	K(NULL, "plugin_dir", plugin_dir, read_plugin_dir),
	K("users", "broker", user_broker, config_read_user),
	K("users", "enrol", user_enrol, config_read_user),
	K("users", "ident", user_ident, config_read_user),
	K("users", "plughost", user_plughost, config_read_user),
	K(NULL, "root_key", root_key, read_root_key),
	K(NULL, "root_key_file", root_key_file, read_text),
	K(NULL, "root_key_unprotected", root_key_unprotected, config_read_flag),
	K("backends", "default", backend_default, read_backend),
	K("backends", "enable", backends, read_backends),
	K("backends", "fake", fake_script, read_text),
	K("tpm", "device", tpm_device, read_device),
	K("tpm", "tcti", tpm_tcti, read_tcti),
	K("tpm", "owner_auth", tpm_owner_auth_file, read_owner_auth),
	K("tpm", "bus_protection", tpm_bus_protection, read_bus_protection),
	K("tpm", "accept_foreign_primary", tpm_accept_foreign, config_read_flag),
	K("tpm", "pcrs", tpm_pcrs, read_pcrs),
	K("tpm", "policy_key", tpm_policy_key, config_read_path),
	K("tpm", "policy_file", tpm_policy_file, config_read_path),
	K("tpm", "policy_ref", tpm_policy_ref, read_text),
	K("store", "map_size", map_size, config_read_map_size),
	K("store", "epoch_interval", epoch_interval_s, read_epoch_interval),
	K("audit", "mode", audit_strict, read_audit_mode),
	K("audit", "max_size", audit_max_size, read_audit_size),
	K("audit", "max_files", audit_max_files, read_audit_files),
	K("limits", "connections_per_uid", connections_per_uid, read_connections),
	K("limits", "connections", connections, read_connections_all),
	K("kubernetes", "kubepods_root", kubepods_root, config_read_path),
	K(NULL, "loops", loops, read_loops),
	K(NULL, "nice", nice, read_nice),
	K(NULL, "log_level", log_level, config_read_log_level),
	K(NULL, "sandbox", require_sandbox, config_read_sandbox),
};

static int other_key(struct reader *rd, const char *section, const struct csm_yaml_node *n)
{
	if (section != NULL && strcmp(section, "backends") == 0)
		return config_read_plughost(rd, n);
	if (section == NULL && csm_str_eq(n->key, "enrolment"))
		return config_read_enrolment(rd, n);
	return csm_yaml_fail(n, rd->err, "unknown key");
}

static const struct config_keys all_keys = {keys, sizeof(keys) / sizeof(keys[0]), other_key};

static bool inside(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == 0);
}

/* What one key demands of another. */
static int check_root_key(struct reader *rd, const struct csm_yaml_node *root)
{
	const struct csm_config *c = rd->c;
	const struct csm_yaml_node *mode = csm_yaml_get(root, "root_key"), *file = csm_yaml_get(root, "root_key_file");

	if (c->root_key == CSM_ROOT_TPM)
		return file == NULL ? 0 : csm_yaml_fail(file, rd->err, "has no meaning with root_key: tpm");
	if (file == NULL)
		return csm_yaml_fail(mode, rd->err, "needs root_key_file: %s",
			c->root_key == CSM_ROOT_CREDENTIAL ? "the name of the credential" : "the path of a file");
	if (c->root_key == CSM_ROOT_CREDENTIAL) {
		if (c->root_key_file[0] == 0 || c->root_key_file[0] == '.' || strchr(c->root_key_file, '/') != NULL)
			return csm_yaml_fail(file, rd->err, "must be the name of a credential, not a path");
		return 0;
	}
	if (!config_is_path(csm_str_of(c->root_key_file)))
		return csm_yaml_fail(file, rd->err, "must be an absolute path without '.', '..' and '//'");
	if (inside(c->root_key_file, c->state_dir))
		return csm_yaml_fail(file, rd->err, "must lie outside state_dir, or it is in every copy of the store");
	if (c->root_key == CSM_ROOT_FILE && !c->root_key_unprotected)
		return csm_yaml_fail(mode, rd->err,
			"a root key in a plain file protects little: consent with root_key_unprotected: true");
	return 0;
}

static bool in_list(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list;; p += strcspn(p, ",") + 1) {
		if (strcspn(p, ",") == n && strncmp(p, name, n) == 0)
			return true;
		if (strchr(p, ',') == NULL)
			return false;
	}
}

/* The scripted back end is there with its script, and only then. */
static int check_backends(struct reader *rd, const struct csm_yaml_node *root)
{
	const struct csm_config *c = rd->c;
	const struct csm_yaml_node *map = csm_yaml_get(root, "backends");
	const struct csm_yaml_node *def = map != NULL ? csm_yaml_get(map, "default") : NULL;
	int r = map != NULL ? config_check_plughosts(rd, map) : 0;

	if (r != 0 || def == NULL || strcmp(c->backend_default, "auto") == 0 ||
		csm_config_plughost(c, c->backend_default) != NULL)
		return r;
	if (!is_backend(csm_str_of(c->backend_default)))
		return csm_yaml_fail(def, rd->err, "must be auto or one of: " BACKENDS);
	if (strcmp(c->backend_default, "fake") == 0)
		return c->fake_script != NULL ? 0 : csm_yaml_fail(def, rd->err, "fake is there only with a script for it");
	if (c->backends != NULL && !in_list(c->backends, c->backend_default))
		return csm_yaml_fail(def, rd->err, "%s is not among those that backends.enable has", c->backend_default);
	return 0;
}

static int set_defaults(struct csm_config *c)
{
	const struct config_text texts[] = {
		{&c->socket, "/run/csm/public/csm.sock"}, {&c->admin_socket, "/run/csm/admin.sock"},
		{&c->state_dir, "/var/lib/csm"}, {&c->policy, "/etc/csm/policy.yaml"},
		{&c->deliver, "/etc/csm/deliver.yaml"},
		{&c->user_broker, "csm"}, {&c->user_enrol, "csm-enrol"}, {&c->user_ident, "csm-ident"},
		{&c->user_plughost, "csm-plug"}, {&c->backend_default, "auto"}, {&c->tpm_device, "auto"},
		{&c->tpm_tcti, ""}, {&c->tpm_bus_protection, "full"}, {&c->kubepods_root, "/kubepods.slice"},
		{&c->log_level, "info"},
	};

	if (config_set_texts(texts, sizeof(texts) / sizeof(texts[0])) != 0)
		return CSM_ENOMEM;
	c->root_key = CSM_ROOT_TPM;
	c->map_size = UINT64_C(64) << 30;
	c->epoch_interval_s = 600;
	c->usage_interval_s = 3600;
	c->audit_max_size = UINT64_C(64) << 20;
	c->audit_max_files = 16;
	c->connections_per_uid = CSM_CONNECTIONS_PER_UID;
	c->connections = CSM_CONNECTIONS_MAX;
	c->nice = CSM_NICE;
	return 0;
}

int csm_config_parse(const char *text, size_t n, struct csm_config *ret, struct csm_policy_error *err)
{
	struct csm_config c = {0};
	struct reader rd = {&c, err};
	struct csm_yaml y;
	int r;

	*err = (struct csm_policy_error){0};
	r = set_defaults(&c);
	if (r == 0 && text != NULL && (r = csm_yaml_parse(text, n, CSM_CONFIG_MAX, &y, err)) == 0) {
		if ((r = config_read_keys(&rd, y.root, &all_keys)) == 0 && (r = check_root_key(&rd, y.root)) == 0)
			r = check_backends(&rd, y.root);
		if (r == 0)
			r = config_tpm_check(&c, y.root, err);
		csm_yaml_free(&y);
	}
	if (r != 0) {
		csm_config_clear(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void csm_config_clear(struct csm_config *c)
{
	char *const texts[] = {c->socket, c->admin_socket, c->state_dir, c->policy, c->deliver, c->plugin_dir, c->user_broker,
		c->user_enrol, c->user_ident, c->user_plughost, c->root_key_file, c->backend_default, c->backends,
		c->fake_script, c->tpm_device, c->tpm_tcti, c->tpm_owner_auth_file, c->tpm_bus_protection,
		c->tpm_pcrs, c->tpm_policy_key, c->tpm_policy_file, c->tpm_policy_ref, c->kubepods_root, c->log_level};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free(texts[i]);
	config_clear_plughosts(c);
	config_clear_enrolment(c);
	*c = (struct csm_config){0};
}
