/* What a cgroup path says. Only forms that begin at the root of the hierarchy count, in places where
 * root alone makes cgroups: a user may name a cgroup of his own subtree as he likes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/identity.h"

#define CGROUP_PATH_MAX 4096u
#define ID_HEX 64u /* of a container */
#define UNIT_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
#define DELETED " (deleted)" /* what the kernel adds to the path of a cgroup that is gone */

/* The next component of a path "/a/b"; false at its end. */
static bool next(struct csm_str *path, struct csm_str *ret)
{
	const char *slash;

	if (path->n < 2 || path->p[0] != '/')
		return false;
	ret->p = path->p + 1;
	slash = memchr(ret->p, '/', path->n - 1);
	ret->n = slash != NULL ? (size_t)(slash - ret->p) : path->n - 1;
	path->p += 1 + ret->n;
	path->n -= 1 + ret->n;
	return true;
}

/* Drops a whole leading path: "/system.slice" of "/system.slice/a", not of "/system.slices". */
static bool below(struct csm_str *path, struct csm_str root)
{
	if (path->n <= root.n + 1 || memcmp(path->p, root.p, root.n) != 0 || path->p[root.n] != '/')
		return false;
	path->p += root.n;
	path->n -= root.n;
	return true;
}

static bool cut_start(struct csm_str *s, struct csm_str start)
{
	if (s->n < start.n || memcmp(s->p, start.p, start.n) != 0)
		return false;
	s->p += start.n;
	s->n -= start.n;
	return true;
}

static bool cut_end(struct csm_str *s, struct csm_str end)
{
	if (s->n < end.n || memcmp(s->p + s->n - end.n, end.p, end.n) != 0)
		return false;
	s->n -= end.n;
	return true;
}

static bool sane(struct csm_str path)
{
	struct csm_str c;

	if (csm_str_eq(path, "/"))
		return true;
	if (path.n == 0 || path.n > CGROUP_PATH_MAX || path.p[0] != '/' || cut_end(&path, CSM_STR(DELETED)))
		return false;
	while (next(&path, &c))
		if (c.n == 0 || csm_str_eq(c, ".") || csm_str_eq(c, ".."))
			return false;
	return path.n == 0;
}

static bool is_hex(struct csm_str s, size_t n)
{
	if (s.n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
	return true;
}

static int put(char **field, struct csm_str s)
{
	char *p = strndup(s.p, s.n);

	if (p == NULL)
		return CSM_ENOMEM;
	free(*field);
	*field = p;
	return 0;
}

/* Only names that systemd gives: what else a user may name a cgroup would end up in answers and logs. */
static bool is_unit(struct csm_str c)
{
	static const char *const ends[] = {".service", ".scope", ".socket", ".mount", ".swap"};

	for (size_t i = 0; i < c.n; i++)
		if (strchr(UNIT_BYTES, c.p[i]) == NULL)
			return false;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct csm_str name = c;
		if (cut_end(&name, csm_str_of(ends[i])) && name.n > 0)
			return true;
	}
	return false;
}

/* The unit below `slice` ("system"): slices that are its children by name, then the unit; what lies
 * deeper belongs to the unit. NULL slice: below a user's manager, where any slice may stand. */
static bool find_unit(struct csm_str path, const char *slice, struct csm_str *ret)
{
	struct csm_str parent = csm_str_of(slice), c;

	while (next(&path, &c)) {
		struct csm_str name = c, rest;
		if (!cut_end(&name, CSM_STR(".slice"))) {
			*ret = c;
			return is_unit(c);
		}
		rest = name;
		if (slice != NULL && (!cut_start(&rest, parent) || rest.n < 2 || rest.p[0] != '-'))
			return false;
		parent = name;
	}
	return false;
}

static bool is_uid(struct csm_str s)
{
	if (s.n == 0 || s.n > 10 || (s.n > 1 && s.p[0] == '0'))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return true;
}

/* /user.slice/user-1000.slice/user@1000.service/app.slice/app.service: "1000/app.service" */
static int user_unit(struct csm_facts *f, struct csm_str path)
{
	struct csm_str uid, manager, unit;
	char *text;

	if (!below(&path, CSM_STR("/user.slice")) || !next(&path, &uid) || !next(&path, &manager))
		return 0;
	if (!cut_start(&uid, CSM_STR("user-")) || !cut_end(&uid, CSM_STR(".slice")) || !is_uid(uid) ||
		!cut_start(&manager, CSM_STR("user@")) || !cut_end(&manager, CSM_STR(".service")) ||
		!csm_str_same(uid, manager) || !find_unit(path, NULL, &unit))
		return 0;
	if (asprintf(&text, "%.*s/%.*s", (int)uid.n, uid.p, (int)unit.n, unit.p) < 0)
		return CSM_ENOMEM;
	free(f->user_unit);
	f->user_unit = text;
	return 0;
}

static bool is_pod_uid(struct csm_str s, char dash)
{
	if (s.n < 32 || s.n > 36)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != dash && !((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
	return true;
}

static bool is_qos(struct csm_str s)
{
	return csm_str_eq(s, "burstable") || csm_str_eq(s, "besteffort");
}

/* A container below a pod: "cri-containerd-ID.scope" with the systemd driver, "ID" or "crio-ID" without. */
static int pod_container(struct csm_facts *f, struct csm_str path, bool systemd)
{
	static const char *const engines[] = {"cri-containerd-", "crio-", "docker-"};
	struct csm_str c, id;

	if (!next(&path, &c) || (systemd && !cut_end(&c, CSM_STR(".scope"))))
		return 0;
	if (!systemd && is_hex(c, ID_HEX))
		return put(&f->container, c);
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		id = c;
		if (cut_start(&id, csm_str_of(engines[i])) && is_hex(id, ID_HEX))
			return put(&f->container, id);
	}
	return 0;
}

/* ROOT/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice; ROOT ends in `stem`.slice */
static int pod_systemd(struct csm_facts *f, struct csm_str path, struct csm_str stem)
{
	struct csm_str c, qos;
	int r;

	if (!next(&path, &c) || !cut_end(&c, CSM_STR(".slice")) || !cut_start(&c, stem) || !cut_start(&c, CSM_STR("-")))
		return 0;
	if (is_qos(c)) {
		qos = c;
		if (!next(&path, &c) || !cut_end(&c, CSM_STR(".slice")) || !cut_start(&c, stem) ||
			!cut_start(&c, CSM_STR("-")) || !cut_start(&c, qos) || !cut_start(&c, CSM_STR("-")))
			return 0;
	}
	if (!cut_start(&c, CSM_STR("pod")) || !is_pod_uid(c, '_'))
		return 0;
	if ((r = put(&f->pod, c)) != 0)
		return r;
	for (char *p = f->pod; *p != 0; p++)
		if (*p == '_')
			*p = '-';
	return pod_container(f, path, true);
}

/* ROOT/burstable/pod<uid> */
static int pod_cgroupfs(struct csm_facts *f, struct csm_str path)
{
	struct csm_str c;
	int r;

	if (!next(&path, &c) || (is_qos(c) && !next(&path, &c)) || !cut_start(&c, CSM_STR("pod")) || !is_pod_uid(c, '-'))
		return 0;
	if ((r = put(&f->pod, c)) != 0)
		return r;
	return pod_container(f, path, false);
}

static int pod(struct csm_facts *f, struct csm_str path, const char *kubepods_root)
{
	struct csm_str root = csm_str_of(kubepods_root), stem, c;

	if (root.n < 2 || !below(&path, root))
		return 0;
	stem = root;
	while (next(&root, &c))
		stem = c;
	return cut_end(&stem, CSM_STR(".slice")) ? pod_systemd(f, path, stem) : pod_cgroupfs(f, path);
}

/* Containers of an engine that runs without Kubernetes. */
static int engine_container(struct csm_facts *f, struct csm_str path)
{
	static const struct {
		const char *parent, *start, *end;
	} engines[] = {
		{"/system.slice", "docker-", ".scope"}, {"/docker", "", ""},
		{"/machine.slice", "libpod-", ".scope"}, {"/libpod_parent", "libpod-", ""},
		{"/system.slice", "nerdctl-", ".scope"},
	};

	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		struct csm_str rest = path, c;
		if (below(&rest, csm_str_of(engines[i].parent)) && next(&rest, &c) &&
			cut_start(&c, csm_str_of(engines[i].start)) && cut_end(&c, csm_str_of(engines[i].end)) &&
			is_hex(c, ID_HEX))
			return put(&f->container, c);
	}
	return 0;
}

int csm_facts_from_cgroup(struct csm_facts *f, const char *path, const char *kubepods_root)
{
	struct csm_str whole = csm_str_of(path), rest = whole, unit;
	int r;

	if (!sane(whole))
		return CSM_EINVALID;
	if ((r = put(&f->cgroup, whole)) != 0)
		return r;
	if (below(&rest, CSM_STR("/system.slice")) && find_unit(rest, "system", &unit) &&
		(r = put(&f->unit, unit)) != 0)
		return r;
	if ((r = user_unit(f, whole)) != 0 || (r = pod(f, whole, kubepods_root)) != 0)
		return r;
	return engine_container(f, whole);
}
