#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/node/supervisor.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"
#include "libclient/base/writable.h"

#define DEFAULT_CONFIG "/etc/csm/csmd.yaml"
#define DEFAULT_POLICY "/etc/csm/policy.yaml"
#define ROOT_KEY_BYTES 32
#define SECRET_FILE_MAX 4096u
#define OWNER_AUTH_MAX 64u /* the longest digest of a TPM */

/* ---- plain files ---- */

static int read_fd(int fd, uint8_t *p, size_t cap, size_t *ret)
{
	size_t n = 0;

	for (;;) {
		ssize_t got = read(fd, p + n, cap - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return CSM_ESYSTEM;
		if (got == 0)
			break;
		n += (size_t)got;
		if (n == cap)
			return CSM_ETOO_LARGE;
	}
	*ret = n;
	return 0;
}

/* The text of a file, NUL-terminated. CSM_ENOT_FOUND when there is none. */
static int read_text(const char *path, size_t max, char **ret, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	char *text;

	if (fd < 0)
		return errno == ENOENT ? CSM_ENOT_FOUND : CSM_ESYSTEM;
	text = malloc(max + 2);
	r = text == NULL ? CSM_ENOMEM : read_fd(fd, (uint8_t *)text, max + 1, len);
	close(fd);
	if (r != 0) {
		free(text);
		return r;
	}
	text[*len] = '\0';
	*ret = text;
	return 0;
}

/* ---- files with secrets: ours or root's, closed to others ---- */

static int read_secret(const char *path, uint8_t **ret, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), r = CSM_ESYSTEM;
	uint8_t *p = NULL;
	struct stat st;

	if (fd < 0) {
		log_err("%s: %s", path, strerror(errno));
		return errno == ENOENT ? CSM_ENOT_FOUND : CSM_ESYSTEM;
	}
	if (fstat(fd, &st) != 0)
		goto out;
	r = CSM_EDENIED;
	if (!S_ISREG(st.st_mode)) {
		log_err("%s: it is not a regular file", path);
		goto out;
	}
	if ((st.st_mode & 077) != 0 || (st.st_uid != 0 && st.st_uid != geteuid())) {
		log_err("%s: others can read or change it; make it 0600 and root's", path);
		goto out;
	}
	r = CSM_ENOMEM;
	p = csm_lock_alloc(SECRET_FILE_MAX);
	if (p == NULL)
		goto out;
	if ((r = read_fd(fd, p, SECRET_FILE_MAX, len)) != 0)
		goto out;
	*ret = p;
	p = NULL;
out:
	csm_lock_free(p);
	close(fd);
	return r;
}

static int sync_folder_of(const char *path)
{
	char dir[PATH_MAX], *slash;
	int fd, r;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash == NULL)
		return CSM_EINVALID;
	slash[slash == dir] = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return CSM_ESYSTEM;
	r = fsync(fd) == 0 ? 0 : CSM_ESYSTEM;
	close(fd);
	return r;
}

/* A new root key file: complete and durable before a store can need it, or not there. */
static int make_root_key(const char *path)
{
	CSM_WIPED(key, ROOT_KEY_BYTES);
	char tmp[PATH_MAX];
	int fd, r = CSM_ESYSTEM;

	if ((size_t)snprintf(tmp, sizeof(tmp), "%s.new", path) >= sizeof(tmp))
		return CSM_ETOO_LARGE;
	randombytes_buf(key, sizeof(key));
	unlink(tmp);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return CSM_ESYSTEM;
	if (write(fd, key, sizeof(key)) == (ssize_t)sizeof(key) && fsync(fd) == 0 && link(tmp, path) == 0)
		r = 0;
	close(fd);
	unlink(tmp);
	return r == 0 ? sync_folder_of(path) : r;
}

static void strip_newline(const uint8_t *p, size_t *n)
{
	while (*n > 0 && (p[*n - 1] == '\n' || p[*n - 1] == '\r'))
		--*n;
}

static int read_root_secret(struct files *f, bool check)
{
	/* The configuration has it for every mode but tpm. */
	const char *dir = getenv("CREDENTIALS_DIRECTORY"), *file = f->cfg.root_key_file;
	char path[PATH_MAX];
	int r;

	if (f->cfg.root_key == CSM_ROOT_TPM)
		return 0;
	if (f->cfg.root_key == CSM_ROOT_CREDENTIAL) {
		if (dir == NULL) {
			log_err("root_key is credential, and systemd has handed over none");
			return CSM_EINVALID;
		}
		snprintf(path, sizeof(path), "%s/%s", dir, file);
		return read_secret(path, &f->root_secret, &f->root_secret_len);
	}
	if (f->cfg.root_key == CSM_ROOT_FILE && access(file, F_OK) != 0 && errno == ENOENT) {
		snprintf(path, sizeof(path), "%s/store/data.mdb", f->cfg.state_dir);
		if (access(path, F_OK) == 0) {
			log_err("%s is not there, but the store that it opens is: bring it back", file);
			return CSM_ENOT_FOUND;
		}
		if (check)
			return 0; /* the first start makes it */
		if (make_root_key(file) != 0) {
			log_err("cannot make the root key file %s: %s", file, strerror(errno));
			return CSM_ESYSTEM;
		}
	}
	r = read_secret(file, &f->root_secret, &f->root_secret_len);
	if (r == 0 && f->cfg.root_key == CSM_ROOT_PASSPHRASE)
		strip_newline(f->root_secret, &f->root_secret_len);
	return r;
}

/* Another file, or another content, gives another number; never 0. */
static uint64_t mark_of(const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return 1;
	return ((uint64_t)st.st_ino * 0x9e3779b97f4a7c15u ^ (uint64_t)st.st_ctim.tv_sec * 1000000000u ^
		       (uint64_t)st.st_ctim.tv_nsec ^ (uint64_t)st.st_size << 48) |
		1;
}

static int read_pins(struct files *f)
{
	for (size_t i = 0; i < f->cfg.n_plughosts; i++) {
		struct file_plughost *p = &f->plughosts[i];
		const char *path = f->cfg.plughosts[i].pin_file;
		int r;

		if (path == NULL)
			continue;
		p->pin_mark = mark_of(path);
		if ((r = read_secret(path, &p->pin, &p->pin_len)) != 0)
			return r;
		strip_newline(p->pin, &p->pin_len);
	}
	return 0;
}

/* A CA whose token is not there, or spent and removed, is asked by what the node has had from it; one whose anchors are not
 * there is asked for nothing. */
static int read_enrol(struct files *f)
{
	for (size_t i = 0; i < f->cfg.n_enrol; i++) {
		const struct csm_enrol_profile *p = &f->cfg.enrol[i];
		struct file_enrol *e = &f->enrol[i];
		int r;

		if (p->token_file != NULL && access(p->token_file, F_OK) == 0) {
			if ((r = read_secret(p->token_file, &e->token, &e->token_len)) != 0)
				return r;
			strip_newline(e->token, &e->token_len);
		}
		if (p->anchors_file != NULL && (r = read_text(p->anchors_file, CSM_CERT_CHAIN_MAX, &e->anchors, &e->anchors_len)) != 0)
			log_err("enrolment: %s: %s: %s", p->name, p->anchors_file,
				r == CSM_ETOO_LARGE ? "it is too large" : strerror(errno));
	}
	return 0;
}

/* ---- names ---- */

static bool user_number(const char *name, uid_t *uid, gid_t *gid)
{
	struct passwd *pw = getpwnam(name);
	char *end;
	unsigned long n;

	if (pw == NULL) {
		errno = 0;
		n = strtoul(name, &end, 10);
		if (errno != 0 || *end != '\0' || end == name || n == 0 || n >= UINT32_MAX)
			return false;
		*uid = (uid_t)n;
		*gid = (gid_t)n;
		return true;
	}
	*uid = pw->pw_uid;
	*gid = pw->pw_gid;
	return true;
}

/* A back end without a user is away, the others are not; one with the user of another process is refused. */
static int find_plughost_users(struct files *f)
{
	for (size_t i = 0; i < f->cfg.n_plughosts; i++) {
		const struct csm_plughost_config *c = &f->cfg.plughosts[i];
		struct file_plughost *p = &f->plughosts[i];
		bool taken;

		if (!user_number(c->user, &p->uid, &p->gid)) {
			log_err("backends: %s: there is no user %s: it is not started", c->name, c->user);
			p->uid = (uid_t)-1;
			continue;
		}
		taken = p->uid == 0 || p->uid == f->broker_uid || p->uid == f->ident_uid ||
			(p->uid == f->enrol_uid && f->cfg.n_enrol > 0);
		for (size_t k = 0; k < i; k++)
			taken = taken || p->uid == f->plughosts[k].uid;
		if (taken) {
			log_err("backends: %s: its user %s is that of another process: it needs one of its own", c->name, c->user);
			return CSM_EINVALID;
		}
	}
	return 0;
}

/* Who has the network is nobody else. Without such a user the rest goes on. */
static int find_enrol_user(struct files *f)
{
	if (!user_number(f->cfg.user_enrol, &f->enrol_uid, &f->enrol_gid)) {
		log_err("users: enrol: there is no user %s: no certificate is enrolled or renewed", f->cfg.user_enrol);
		f->enrol_uid = (uid_t)-1;
	} else if (f->enrol_uid == 0 || f->enrol_uid == f->broker_uid || f->enrol_uid == f->ident_uid) {
		log_err("users: enrol: the user %s is that of another process: csm-enrol needs one of its own", f->cfg.user_enrol);
		return CSM_EINVALID;
	}
	return 0;
}

static int find_users(struct files *f)
{
	for (size_t i = 0; i < CSM_PLUGHOSTS_MAX; i++)
		f->plughosts[i].uid = (uid_t)-1;
	f->broker_uid = f->ident_uid = f->enrol_uid = (uid_t)-1;
	f->broker_gid = f->ident_gid = f->enrol_gid = (gid_t)-1;
	if (geteuid() != 0)
		return 0;
	if (!user_number(f->cfg.user_broker, &f->broker_uid, &f->broker_gid)) {
		log_err("users: broker: there is no user %s", f->cfg.user_broker);
		return CSM_EINVALID;
	}
	/* Only where a rule needs it; supervisor.c says so then. */
	if (!user_number(f->cfg.user_ident, &f->ident_uid, &f->ident_gid))
		f->ident_uid = (uid_t)-1;
	if (f->cfg.n_enrol > 0 && find_enrol_user(f) != 0)
		return CSM_EINVALID;
	return find_plughost_users(f);
}

static void found_name(void *arg, bool group, const char *name)
{
	struct files *f = arg;
	struct passwd *pw = group ? NULL : getpwnam(name);
	struct group *gr = group ? getgrnam(name) : NULL;
	struct setup_name *names;
	char **texts, *text;

	if ((pw == NULL && gr == NULL) || f->n_names == SETUP_NAMES_MAX)
		return;
	names = realloc(f->names, (f->n_names + 1) * sizeof(*names));
	if (names != NULL)
		f->names = names;
	texts = realloc(f->name_texts, (f->n_names + 1) * sizeof(*texts));
	if (texts != NULL)
		f->name_texts = texts;
	text = strdup(name);
	if (names == NULL || texts == NULL || text == NULL) {
		free(text);
		return;
	}
	f->name_texts[f->n_names] = text;
	f->names[f->n_names++] = (struct setup_name){
		.group = group, .name = csm_str_of(text), .id = group ? gr->gr_gid : pw->pw_uid};
}

static void clear_names(struct files *f)
{
	for (size_t i = 0; i < f->n_names; i++)
		free(f->name_texts[i]);
	free(f->name_texts);
	free(f->names);
	f->name_texts = NULL;
	f->names = NULL;
	f->n_names = 0;
}

/* ---- the files ---- */

static int read_config(const struct supervisor_options *opt, struct files *f)
{
	const char *path = opt->config != NULL ? opt->config : DEFAULT_CONFIG;
	struct csm_policy_error err = {0};
	int r = read_text(path, CSM_CONFIG_MAX, &f->config_text, &f->config_len);

	if (r == CSM_ENOT_FOUND && opt->config == NULL)
		r = 0;
	if (r != 0) {
		log_err("%s: %s", path, r == CSM_ETOO_LARGE ? "it is too large" : strerror(errno));
		return r;
	}
	if ((r = csm_config_parse(f->config_text, f->config_len, &f->cfg, &err)) != 0)
		log_err("%s: line %u, column %u: %s", path, err.line, err.column, err.message);
	return r;
}

int files_reread_policy(struct files *f)
{
	struct csm_policy_error err = {0};
	const char *path = f->cfg.policy;
	char *text = NULL;
	size_t n = 0;
	int r = path == NULL ? 0 : read_text(path, CSM_POLICY_MAX, &text, &n);

	/* Only the installed place may be empty; a file that was named has to be there. */
	if (r == CSM_ENOT_FOUND && strcmp(path, DEFAULT_POLICY) == 0)
		r = 0;
	if (r != 0) {
		snprintf(f->policy_error, sizeof(f->policy_error), "%.120s: %s", path,
			r == CSM_ETOO_LARGE ? "it is too large" : strerror(errno));
		log_err("%s", f->policy_error);
		return r;
	}
	f->policy_error[0] = '\0';
	free(f->policy_text);
	f->policy_text = text;
	f->policy_len = n;
	clear_names(f);
	if (text != NULL && csm_policy_names(text, n, found_name, f, &err) != 0)
		clear_names(f);
	return 0;
}

/* The broker cannot see the files that the policy names. */
static void warn_of_files(const struct csm_policy *p)
{
	struct csm_policy_exe e;
	char why[256];

	for (size_t i = 0; csm_policy_exe(p, i, &e); i++)
		if (csm_path_writable(e.path, e.uid, why, sizeof(why)))
			log_warn("policy: line %u: identity %s: %s", e.line, e.identity, why);
}

static int parse_policy(struct files *f, bool warn, struct csm_policy_error *err)
{
	struct setup s = {.names = f->names, .n_names = f->n_names};
	struct csm_resolver resolver = setup_resolver(&s);
	struct csm_policy *p = NULL;
	int r = csm_policy_parse(f->policy_text, f->policy_len, &resolver, &p, err);

	if (r == 0) {
		f->needs_ident = csm_policy_needs_exe(p);
		if (warn)
			warn_of_files(p);
	}
	csm_policy_unref(p);
	return r;
}

static int check_policy(struct files *f)
{
	struct csm_policy_error err = {0};
	int r = parse_policy(f, false, &err);

	if (r != 0)
		log_err("%s: line %u, column %u: %s", f->cfg.policy, err.line, err.column, err.message);
	return r;
}

void files_warn(struct files *f)
{
	struct csm_policy_error err = {0};

	if (parse_policy(f, true, &err) != 0)
		log_debug("the policy does not parse");
}

void files_look_at_policy(struct files *f)
{
	struct csm_policy_error err = {0};

	/* The broker says what is wrong with one that is; the last good one stays in force. */
	if (parse_policy(f, false, &err) != 0)
		log_debug("the policy does not parse");
}

/* Beside the program as built, or as installed. */
static int find_plugins(const struct supervisor_options *opt, struct files *f)
{
	static const char *const places[] = {"../lib/csm/plugins", "../lib/" CSM_TRIPLET "/csm/plugins"};
	char exe[PATH_MAX], dir[PATH_MAX + 64], *slash;
	struct stat st;
	ssize_t n;

	if (f->cfg.plugin_dir != NULL) {
		if (stat(f->cfg.plugin_dir, &st) != 0 || !S_ISDIR(st.st_mode)) {
			log_err("%s: line %u, column %u: plugin_dir: there is no folder %s",
				opt->config != NULL ? opt->config : DEFAULT_CONFIG, f->cfg.plugin_dir_line,
				f->cfg.plugin_dir_column, f->cfg.plugin_dir);
			return CSM_ENOT_FOUND;
		}
		snprintf(f->plugin_dir, sizeof(f->plugin_dir), "%s", f->cfg.plugin_dir);
		return 0;
	}
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n <= 0)
		return CSM_ESYSTEM;
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash == NULL)
		return CSM_ESYSTEM;
	*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(dir, sizeof(dir), "%s/%s", exe, places[i]);
		if (access(dir, R_OK | X_OK) == 0 && strlen(dir) < sizeof(f->plugin_dir)) {
			memcpy(f->plugin_dir, dir, strlen(dir) + 1);
			return 0;
		}
	}
	log_err("the folder of the back ends is not beside %s", exe);
	return CSM_ENOT_FOUND;
}

int files_read(const struct supervisor_options *opt, struct files *ret)
{
	struct files f = {0};
	int r;

	if ((r = read_config(opt, &f)) != 0 || (r = files_reread_policy(&f)) != 0 || (r = check_policy(&f)) != 0 ||
		(r = find_users(&f)) != 0 || (r = find_plugins(opt, &f)) != 0 || (r = read_root_secret(&f, opt->check)) != 0 ||
		(r = read_pins(&f)) != 0 || (r = read_enrol(&f)) != 0)
		goto out;
	if (f.cfg.tpm_owner_auth_file != NULL) {
		if ((r = read_secret(f.cfg.tpm_owner_auth_file, &f.owner_auth, &f.owner_auth_len)) != 0)
			goto out;
		strip_newline(f.owner_auth, &f.owner_auth_len);
		r = CSM_EINVALID;
		if (f.owner_auth_len > OWNER_AUTH_MAX || memchr(f.owner_auth, '\0', f.owner_auth_len) != NULL) {
			log_err("%s: an owner authorisation is at most %u bytes of text", f.cfg.tpm_owner_auth_file, OWNER_AUTH_MAX);
			goto out;
		}
	}
	*ret = f;
	return 0;
out:
	files_clear(&f);
	return r;
}

void files_clear(struct files *f)
{
	free(f->config_text);
	free(f->policy_text);
	clear_names(f);
	csm_lock_free(f->root_secret);
	csm_lock_free(f->owner_auth);
	for (size_t i = 0; i < CSM_PLUGHOSTS_MAX; i++)
		csm_lock_free(f->plughosts[i].pin);
	for (size_t i = 0; i < CSM_ENROL_PROFILES_MAX; i++) {
		csm_lock_free(f->enrol[i].token);
		free(f->enrol[i].anchors);
	}
	csm_config_clear(&f->cfg);
	memset(f, 0, sizeof(*f));
}
