/* The selector `exe`: a program by its path, its digest, or both. */
#include <string.h>

#include "daemon/svc/policy_int.h"
#include "libclient/base/hex.h"

static bool ends_with(struct csm_str s, const char *end)
{
	size_t n = strlen(end);

	return s.n > n && memcmp(s.p + s.n - n, end, n) == 0;
}

static bool path_ok(struct csm_str s)
{
	if (s.n < 2 || s.p[0] != '/' || s.p[s.n - 1] == '/' || memchr(s.p, '*', s.n) != NULL)
		return false;
	return strstr(s.p, "//") == NULL && strstr(s.p, "/./") == NULL && strstr(s.p, "/../") == NULL &&
		!ends_with(s, "/.") && !ends_with(s, "/..");
}

/* Programs that run what their caller gives them; a version may follow the name, as in python3.11. */
static bool is_interpreter(struct csm_str path)
{
	static const char *const names[] = {"sh", "ash", "bash", "busybox", "dash", "ksh", "mksh", "zsh", "fish", "csh",
		"tcsh", "awk", "gawk", "mawk", "env", "expect", "java", "lua", "luajit", "node", "nodejs", "perl",
		"php", "pypy", "python", "R", "Rscript", "ruby", "tclsh", "wish", "gdb", "strace", "ld.so",
		"ld-linux-x86-64.so.", "ld-linux.so.", "ld-linux-aarch64.so.", "ld-musl-x86_64.so.", "setpriv",
		"chroot", "unshare", "nsenter", "xargs", "find", "make"};
	const char *base = memrchr(path.p, '/', path.n);
	size_t n = path.n - (size_t)(base + 1 - path.p);

	base++;
	while (n > 0 && ((base[n - 1] >= '0' && base[n - 1] <= '9') || base[n - 1] == '.' || base[n - 1] == '-'))
		n--;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t len = strlen(names[i]);

		while (len > 0 && names[i][len - 1] == '.')
			len--;
		if (len == n && memcmp(base, names[i], n) == 0)
			return true;
	}
	return false;
}

static int parse_path(struct policy_parse *pp, const struct csm_yaml_node *n, struct selector *sel)
{
	const struct csm_yaml_node *identity = n->parent;
	int r = csm_yaml_string(n, CSM_EXE_PATH_MAX, &sel->text, pp->err);

	if (r != 0)
		return r;
	if (!path_ok(sel->text))
		return csm_yaml_fail(n, pp->err, "must be an absolute path without globs, '.' and '..'");
	if (!is_interpreter(sel->text))
		return 0;
	while (identity->parent != NULL && identity->parent->parent != NULL && identity->parent->parent->parent != NULL)
		identity = identity->parent;
	policy_warn(pp, n->line, n->column, "identity %s: %s runs whatever it is given: this narrows nothing",
		csm_yaml_show(identity->key).s, csm_yaml_show(sel->text).s);
	return 0;
}

static int parse_sha256(struct policy_parse *pp, const struct csm_yaml_node *n, struct selector *sel)
{
	struct csm_str hex;
	uint8_t *digest;
	int r = csm_yaml_string(n, 64, &hex, pp->err);

	if (r != 0)
		return r;
	digest = csm_pool_alloc(&pp->p->pool, 32);
	if (digest == NULL)
		return CSM_ENOMEM;
	if (csm_unhex(hex, digest, 32) != 0)
		return csm_yaml_fail(n, pp->err, "must be 64 hexadecimal digits in lower case, as sha256sum prints them");
	sel->sha256 = digest;
	return 0;
}

int policy_parse_exe(struct policy_parse *pp, const struct csm_yaml_node *n, struct selector *sel)
{
	static const char *const known[] = {"path", "sha256"};
	const struct csm_yaml_node *path, *sha256;
	int r;

	if (n->kind == CSM_YAML_SCALAR)
		return parse_path(pp, n, sel);
	if ((r = csm_yaml_known(n, known, 2, pp->err)) != 0)
		return r;
	path = csm_yaml_get(n, "path");
	sha256 = csm_yaml_get(n, "sha256");
	if (path == NULL && sha256 == NULL)
		return csm_yaml_fail(n, pp->err, "needs a path, a sha256, or both");
	if (path != NULL && (r = parse_path(pp, path, sel)) != 0)
		return r;
	return sha256 == NULL ? 0 : parse_sha256(pp, sha256, sel);
}

bool policy_exe_matches(const struct selector *sel, const struct csm_exe *exe)
{
	if (sel->text.p != NULL && (exe->path[0] == '\0' || !csm_str_eq(sel->text, exe->path)))
		return false;
	return sel->sha256 == NULL || (exe->hashed && memcmp(sel->sha256, exe->sha256, sizeof(exe->sha256)) == 0);
}

static bool exe_of(const struct identity *id, struct csm_policy_exe *ret)
{
	*ret = (struct csm_policy_exe){.identity = id->name, .uid = UINT32_MAX, .line = id->line};
	for (size_t i = 0; id->has_exe && i < id->n_sel; i++) {
		const struct selector *sel = &id->sel[i];

		if (sel->kind == SEL_EXE)
			ret->path = sel->text.p;
		if ((sel->kind == SEL_UID || sel->kind == SEL_USER) && sel->known)
			ret->uid = sel->number;
		if (sel->kind == SEL_USER)
			ret->user = sel->text.p;
	}
	return ret->path != NULL;
}

bool csm_policy_exe(const struct csm_policy *p, size_t i, struct csm_policy_exe *ret)
{
	for (size_t k = 0; k < p->n_identities; k++)
		if (exe_of(&p->identities[k], ret) && i-- == 0)
			return true;
	return false;
}
