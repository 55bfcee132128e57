#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/deliver/config.h"
#include "daemon/svc/config_read.h"
#include "libclient/base/writable.h"

#define TEXT_MAX 512u
#define DEADLINE_DEFAULT_S 30u
#define DEADLINE_MAX_S 600u

static int copy(const struct csm_yaml_node *n, char **ret, struct csm_policy_error *err)
{
	struct csm_str s;
	int r = csm_yaml_string(n, TEXT_MAX, &s, err);

	return r != 0 ? r : config_set(ret, s);
}

static int read_path(const struct csm_yaml_node *n, char **ret, struct csm_policy_error *err)
{
	return config_read_path_of(&(struct reader){.err = err}, n, TEXT_MAX, ret);
}

/* ---- users ---- */

static int find_user(const struct csm_yaml_node *n, uid_t *uid, gid_t *gid, struct csm_policy_error *err)
{
	const struct passwd *pw;
	struct csm_str s;
	uint64_t number;
	int r = csm_yaml_string(n, 32, &s, err);

	if (r != 0)
		return r;
	if (csm_parse_number(s, UINT32_MAX - 1, &number)) {
		pw = getpwuid((uid_t)number);
		*uid = (uid_t)number;
		*gid = pw != NULL ? pw->pw_gid : (gid_t)number;
		return 0;
	}
	pw = getpwnam(s.p);
	if (pw == NULL)
		return csm_yaml_fail(n, err, "there is no user %s", csm_yaml_show(s).s);
	*uid = pw->pw_uid;
	*gid = pw->pw_gid;
	return 0;
}

static int find_group(const struct csm_yaml_node *n, gid_t *gid, struct csm_policy_error *err)
{
	const struct group *gr;
	struct csm_str s;
	uint64_t number;
	int r = csm_yaml_string(n, 32, &s, err);

	if (r != 0)
		return r;
	gr = csm_parse_number(s, UINT32_MAX - 1, &number) ? NULL : getgrnam(s.p);
	if (gr == NULL && !csm_parse_number(s, UINT32_MAX - 1, &number))
		return csm_yaml_fail(n, err, "there is no group %s", csm_yaml_show(s).s);
	*gid = gr != NULL ? gr->gr_gid : (gid_t)number;
	return 0;
}

static int read_users(const struct csm_yaml_node *map, struct delivery_target *t, struct csm_policy_error *err)
{
	const struct csm_yaml_node *owner = csm_yaml_get(map, "owner"), *group = csm_yaml_get(map, "group"),
				   *hook = csm_yaml_get(map, "hook_user");
	struct csm_str s;
	int r = 0;

	if (owner != NULL)
		r = find_user(owner, &t->uid, &t->gid, err);
	t->hook_uid = t->uid;
	t->hook_gid = t->gid;
	if (r == 0 && group != NULL)
		r = find_group(group, &t->gid, err);
	if (r == 0 && hook != NULL)
		r = find_user(hook, &t->hook_uid, &t->hook_gid, err);
	if (r != 0)
		return r;
	hook = hook != NULL ? hook : owner;
	s = hook != NULL ? hook->text : CSM_STR("root");
	snprintf(t->hook_user, sizeof(t->hook_user), "%.*s", (int)s.n, s.p);
	return 0;
}

/* ---- the rest of a target ---- */

static int read_key(const struct csm_yaml_node *n, struct delivery_target *t, struct csm_policy_error *err)
{
	struct csm_str s;
	struct csm_ref ref;
	int r = csm_yaml_string(n, CSM_KEYREF_MAX, &s, err);

	if (r != 0)
		return r;
	if (csm_ref_parse(s, &ref) != 0 || ref.ns.p == NULL)
		return csm_yaml_fail(n, err, "must be NAMESPACE:KEY");
	snprintf(t->key, sizeof(t->key), "%.*s", (int)s.n, s.p);
	return 0;
}

static int read_mode(const struct csm_yaml_node *n, mode_t *ret, struct csm_policy_error *err)
{
	struct csm_str s;
	mode_t mode = 0;
	int r = csm_yaml_string(n, 4, &s, err);

	if (r != 0)
		return r;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '7')
			return csm_yaml_fail(n, err, "must be octal digits, like \"0640\"");
		mode = mode * 8 + (mode_t)(s.p[i] - '0');
	}
	if (s.n < 3 || (mode & ~(mode_t)0644) != 0 || (mode & 0400) == 0)
		return csm_yaml_fail(n, err, "must be the mode of files that their owner reads and others do not write: \"0600\" to \"0644\"");
	*ret = mode;
	return 0;
}

static int read_deadline(const struct csm_yaml_node *n, unsigned *ret, struct csm_policy_error *err)
{
	uint64_t v = 0;
	int r = config_read_seconds(&(struct reader){.err = err}, n, 1, DEADLINE_MAX_S, &v);

	if (r == 0)
		*ret = (unsigned)v;
	return r;
}

static int read_hook(const struct csm_yaml_node *n, struct delivery_target *t, struct csm_policy_error *err)
{
	size_t i = 0;
	int r = csm_yaml_expect(n, CSM_YAML_LIST, err);

	if (r != 0)
		return r;
	if (n->n < 1 || n->n > DELIVERY_ARGS_MAX)
		return csm_yaml_fail(n, err, "must have 1 to %u words", DELIVERY_ARGS_MAX);
	if ((r = read_path(n->first, &t->hook[i++], err)) != 0)
		return r;
	for (const struct csm_yaml_node *w = n->first->next; w != NULL && r == 0; w = w->next)
		r = copy(w, &t->hook[i++], err);
	return r;
}

static int read_unit(const struct csm_yaml_node *n, struct delivery_target *t, struct csm_policy_error *err)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.\\@-";
	struct csm_str s;
	int r = csm_yaml_string(n, 255, &s, err);

	if (r != 0)
		return r;
	if (s.n == 0 || s.p[0] == '-' || strspn(s.p, good) != s.n)
		return csm_yaml_fail(n, err, "must be the name of a unit, like nginx.service");
	return copy(n, &t->reload_unit, err);
}

static int read_target(const struct csm_yaml_node *map, struct delivery_target *t, struct csm_policy_error *err)
{
	static const char *const known[] = {"key", "folder", "owner", "group", "mode", "reload_unit", "hook", "hook_user",
		"deadline", "roll_back"};
	const struct csm_yaml_node *n;
	int r;

	if (!csm_namespace_valid(map->key))
		return csm_yaml_fail(map, err, "a target's name has lower case letters, digits, '.', '_' and '-'");
	snprintf(t->name, sizeof(t->name), "%.*s", (int)map->key.n, map->key.p);
	t->mode = 0644;
	t->deadline_s = DEADLINE_DEFAULT_S;
	t->roll_back = true;
	if ((r = csm_yaml_expect(map, CSM_YAML_MAP, err)) != 0 ||
		(r = csm_yaml_known(map, known, sizeof(known) / sizeof(known[0]), err)) != 0)
		return r;
	if ((n = csm_yaml_get(map, "key")) == NULL || (r = read_key(n, t, err)) != 0)
		return r != 0 ? r : csm_yaml_fail(map, err, "needs a key");
	if ((n = csm_yaml_get(map, "folder")) == NULL || (r = read_path(n, &t->folder, err)) != 0)
		return r != 0 ? r : csm_yaml_fail(map, err, "needs a folder");
	if ((r = read_users(map, t, err)) != 0 || ((n = csm_yaml_get(map, "mode")) != NULL && (r = read_mode(n, &t->mode, err)) != 0) ||
		((n = csm_yaml_get(map, "deadline")) != NULL && (r = read_deadline(n, &t->deadline_s, err)) != 0) ||
		((n = csm_yaml_get(map, "hook")) != NULL && (r = read_hook(n, t, err)) != 0) ||
		((n = csm_yaml_get(map, "reload_unit")) != NULL && (r = read_unit(n, t, err)) != 0) ||
		((n = csm_yaml_get(map, "roll_back")) != NULL && (r = csm_yaml_bool(n, &t->roll_back, err)) != 0))
		return r;
	return 0;
}

/* Two targets in one folder would take turns for ever. */
static int check_folders(const struct csm_yaml_node *targets, const struct delivery_config *c, struct csm_policy_error *err)
{
	const struct csm_yaml_node *n = targets->first;

	for (size_t i = 0; i < c->n && n != NULL; i++, n = n->next)
		for (size_t k = 0; k < i; k++)
			if (strcmp(c->target[i].folder, c->target[k].folder) == 0)
				return csm_yaml_fail(n, err, "has the folder of %s", c->target[k].name);
	return 0;
}

static int read_root(const struct csm_yaml_node *root, struct delivery_config *c, struct csm_policy_error *err)
{
	static const char *const known[] = {"state_dir", "targets"};
	const struct csm_yaml_node *targets = csm_yaml_get(root, "targets"), *dir = csm_yaml_get(root, "state_dir");
	int r = csm_yaml_known(root, known, 2, err);

	if (r != 0)
		return r;
	if (dir != NULL && (r = read_path(dir, &c->state_dir, err)) != 0)
		return r;
	if (dir == NULL && (c->state_dir = strdup("/var/lib/csm-deliver")) == NULL)
		return CSM_ENOMEM;
	if (targets == NULL)
		return csm_yaml_fail(root, err, "targets: is missing");
	if ((r = csm_yaml_expect(targets, CSM_YAML_MAP, err)) != 0)
		return r;
	if (targets->n > CSM_DELIVER_TARGETS_MAX)
		return csm_yaml_fail(targets, err, "has more than %u targets", CSM_DELIVER_TARGETS_MAX);
	for (const struct csm_yaml_node *n = targets->first; n != NULL; n = n->next)
		if ((r = read_target(n, &c->target[c->n++], err)) != 0)
			return r;
	return check_folders(targets, c, err);
}

int delivery_config_parse(const char *text, size_t n, struct delivery_config *ret, struct csm_policy_error *err)
{
	struct csm_yaml y;
	int r;

	*ret = (struct delivery_config){0};
	*err = (struct csm_policy_error){0};
	if ((r = csm_yaml_parse(text, n, CSM_CONFIG_MAX, &y, err)) != 0)
		return r;
	r = read_root(y.root, ret, err);
	csm_yaml_free(&y);
	if (r != 0)
		delivery_config_clear(ret);
	return r;
}

void delivery_config_clear(struct delivery_config *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->target[i].folder);
		free(c->target[i].reload_unit);
		for (size_t k = 0; k < DELIVERY_ARGS_MAX; k++)
			free(c->target[i].hook[k]);
	}
	free(c->state_dir);
	*c = (struct delivery_config){0};
}

mode_t delivery_dir_mode(mode_t files)
{
	return files | 0200 | (files & 0444) >> 2;
}

/* ---- the file ---- */

static int read_text(int fd, char *text, size_t cap, size_t *ret)
{
	size_t n = 0;
	ssize_t got;

	while ((got = read(fd, text + n, cap - n)) > 0)
		n += (size_t)got;
	*ret = n;
	return got < 0 ? CSM_ESYSTEM : n == cap ? CSM_ETOO_LARGE : 0;
}

/* As root, nobody else may put another file in its place; as an ordinary user it only has to be ours. */
static int check_file(const char *path, int fd, char *why)
{
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		snprintf(why, DELIVERY_WHY, "%s is no file", path);
		return CSM_EDENIED;
	}
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 022) != 0) {
		snprintf(why, DELIVERY_WHY, "%s has to be root's, and nobody else may write it", path);
		return CSM_EDENIED;
	}
	return geteuid() == 0 && csm_path_writable(path, CSM_ANY_UID, why, DELIVERY_WHY) ? CSM_EDENIED : 0;
}

int delivery_config_read(const char *path, struct delivery_config *ret, char *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), r;
	char *text = malloc(CSM_CONFIG_MAX + 1);
	struct csm_policy_error err;
	size_t n;

	snprintf(why, DELIVERY_WHY, "%s cannot be read: %s", path, fd < 0 ? strerror(errno) : "no memory");
	r = text == NULL ? CSM_ENOMEM : fd < 0 ? CSM_ESYSTEM : check_file(path, fd, why);
	if (r == 0 && (r = read_text(fd, text, CSM_CONFIG_MAX + 1, &n)) == 0) {
		r = delivery_config_parse(text, n, ret, &err);
		if (r == CSM_EINVALID)
			csm_text_put(why, DELIVERY_WHY, "line %u, column %u: %s", err.line, err.column, err.message);
	}
	if (fd >= 0)
		close(fd);
	free(text);
	return r;
}
