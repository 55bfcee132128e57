#include "daemon/svc/config_read.h"
#include "libclient/base/duration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOCKET_PATH_MAX 107u /* of sockaddr_un, with its NUL */
#define MAP_SIZE_MIN (UINT64_C(1) << 20)
#define MAP_SIZE_MAX (UINT64_C(16) << 40)

int config_set(char **field, struct csm_str s)
{
	char *p = strndup(s.p, s.n);

	if (p == NULL)
		return CSM_ENOMEM;
	free(*field);
	*field = p;
	return 0;
}

int config_set_texts(const struct config_text *texts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (config_set(texts[i].field, csm_str_of(texts[i].value)) != 0)
			return CSM_ENOMEM;
	return 0;
}

bool config_is_path(struct csm_str s)
{
	if (s.n < 2 || s.p[0] != '/' || s.p[s.n - 1] == '/' || strstr(s.p, "//") != NULL)
		return false;
	for (const char *p = s.p; (p = strstr(p, "/.")) != NULL; p++)
		if (p[2] == '/' || p[2] == 0 || (p[2] == '.' && (p[3] == '/' || p[3] == 0)))
			return false;
	return true;
}

bool config_only_of(struct csm_str s, const char *chars)
{
	for (size_t i = 0; i < s.n; i++)
		if (strchr(chars, s.p[i]) == NULL)
			return false;
	return s.n > 0;
}

bool config_is_empty(const struct csm_yaml_node *n)
{
	return n->kind == CSM_YAML_SCALAR && !n->plain && n->text.n == 0;
}

/* ---- keys ---- */

static bool in_section(const struct config_key *k, const char *section)
{
	return section == NULL ? k->section == NULL : k->section != NULL && strcmp(k->section, section) == 0;
}

static const char *find_section(const struct config_keys *keys, struct csm_str s)
{
	for (size_t i = 0; i < keys->n; i++)
		if (keys->key[i].section != NULL && csm_str_eq(s, keys->key[i].section))
			return keys->key[i].section;
	return NULL;
}

static int read_section(
	struct reader *rd, const struct csm_yaml_node *map, const struct config_keys *keys, const char *section)
{
	int r = csm_yaml_expect(map, CSM_YAML_MAP, rd->err);

	for (const struct csm_yaml_node *c = map->first; r == 0 && c != NULL; c = c->next) {
		const char *sub = section == NULL ? find_section(keys, c->key) : NULL;
		size_t i = 0;

		if (sub != NULL) {
			r = read_section(rd, c, keys, sub);
			continue;
		}
		while (i < keys->n && !(in_section(&keys->key[i], section) && csm_str_eq(c->key, keys->key[i].key)))
			i++;
		r = i < keys->n ? keys->key[i].read(rd, c, (char *)rd->c + keys->key[i].off) : keys->other(rd, section, c);
	}
	return r;
}

int config_read_keys(struct reader *rd, const struct csm_yaml_node *root, const struct config_keys *keys)
{
	return read_section(rd, root, keys, NULL);
}

/* ---- texts ---- */

int config_read_path_of(struct reader *rd, const struct csm_yaml_node *n, size_t max, char **to)
{
	struct csm_str s;
	int r = csm_yaml_string(n, max, &s, rd->err);

	if (r != 0)
		return r;
	if (!config_is_path(s))
		return csm_yaml_fail(n, rd->err, "must be an absolute path without '.', '..' and '//'");
	return config_set(to, s);
}

int config_read_path(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_path_of(rd, n, CONFIG_TEXT_MAX, to);
}

int config_read_socket(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return config_read_path_of(rd, n, SOCKET_PATH_MAX, to);
}

#define DIGITS "0123456789"
int config_read_user(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	struct csm_str s;
	uint64_t uid;
	int r = csm_yaml_string(n, 32, &s, rd->err);

	if (r != 0)
		return r;
	if (csm_str_eq(s, "root") || csm_str_eq(s, "0"))
		return csm_yaml_fail(n, rd->err, "must not be root");
	if (config_only_of(s, DIGITS)) {
		if (!csm_parse_number(s, UINT32_MAX - 1, &uid) || uid == 65534)
			return csm_yaml_fail(n, rd->err, "is no number of a user");
	} else if (!config_only_of(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" DIGITS "_.-") || s.p[0] == '-') {
		return csm_yaml_fail(n, rd->err, "must be the name or number of a user");
	}
	return config_set(to, s);
}

int config_read_word(
	struct reader *rd, const struct csm_yaml_node *n, const char *const *words, size_t n_words, size_t *ret)
{
	char all[160] = "";
	struct csm_str s;
	size_t used = 0;
	int r = csm_yaml_string(n, CSM_TOKEN_STR_MAX, &s, rd->err);

	if (r != 0)
		return r;
	for (size_t i = 0; i < n_words; i++) {
		if (csm_str_eq(s, words[i])) {
			*ret = i;
			return 0;
		}
		used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "", words[i]);
	}
	return csm_yaml_fail(n, rd->err, "must be one of: %s", all);
}

int config_read_log_level(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	static const char *const words[] = {"error", "warning", "info", "debug"};
	size_t i = 0;
	int r = config_read_word(rd, n, words, 4, &i);

	return r != 0 ? r : config_set(to, n->text);
}

/* ---- flags and numbers ---- */

int config_read_flag(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	return csm_yaml_bool(n, to, rd->err);
}

int config_read_sandbox(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	static const char *const words[] = {"best-effort", "required"};
	size_t i = 0;
	int r = config_read_word(rd, n, words, 2, &i);

	if (r == 0)
		*(bool *)to = i == 1;
	return r;
}

int config_read_count(struct reader *rd, const struct csm_yaml_node *n, uint64_t min, uint64_t max, unsigned *ret)
{
	uint64_t v;
	int r = csm_yaml_number(n, min, max, &v, rd->err);

	if (r == 0)
		*ret = (unsigned)v;
	return r;
}

int config_read_measure(struct reader *rd, const struct csm_yaml_node *n, const struct config_unit *units, size_t n_units,
	const char *example, uint64_t *ret)
{
	struct csm_str s, digits;
	uint64_t v;
	size_t i = 0;
	int r = csm_yaml_string(n, 32, &s, rd->err);

	if (r != 0)
		return r;
	digits = s;
	digits.n = strspn(s.p, DIGITS);
	while (i < n_units && !csm_str_eq((struct csm_str){s.p + digits.n, s.n - digits.n}, units[i].name))
		i++;
	if (i == n_units || !csm_parse_number(digits, UINT64_MAX / units[i].factor, &v))
		return csm_yaml_fail(n, rd->err, "must be a number with a unit, as %s", example);
	*ret = v * units[i].factor;
	return 0;
}

const struct config_unit config_sizes[4] = {{"KiB", UINT64_C(1) << 10}, {"MiB", UINT64_C(1) << 20},
	{"GiB", UINT64_C(1) << 30}, {"TiB", UINT64_C(1) << 40}};

int config_read_map_size(struct reader *rd, const struct csm_yaml_node *n, void *to)
{
	uint64_t v = 0;
	int r = config_read_measure(rd, n, config_sizes, 4, "64GiB", &v);

	if (r != 0)
		return r;
	if (v < MAP_SIZE_MIN || v > MAP_SIZE_MAX || v % 4096 != 0)
		return csm_yaml_fail(n, rd->err, "must be from 1MiB to 16TiB, in whole pages of 4KiB");
	*(uint64_t *)to = v;
	return 0;
}

int config_read_seconds(struct reader *rd, const struct csm_yaml_node *n, uint64_t min, uint64_t max, uint64_t *ret)
{
	char least[CSM_DURATION_TEXT], most[CSM_DURATION_TEXT];
	struct csm_str s;
	uint64_t v = 0;
	int r = csm_yaml_string(n, 32, &s, rd->err);

	if (r != 0)
		return r;
	if ((r = csm_duration_parse(s, max, &v)) == CSM_EINVALID)
		return csm_yaml_fail(n, rd->err, "must be a number with a unit (" CSM_DURATION_UNITS "), as 10min");
	if (r != 0 || v < min)
		return csm_yaml_fail(n, rd->err, "must be from %s to %s", csm_duration_text(min, least), csm_duration_text(max, most));
	*ret = v;
	return 0;
}
