/* Facts that a person makes up, for policy explain. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/svc/policy_int.h"

#define VALUE_MAX 256u

static int set_text(char **field, struct csm_str v)
{
	if (*field != NULL || v.n == 0)
		return CSM_EINVALID;
	*field = strndup(v.p, v.n);
	return *field != NULL ? 0 : CSM_ENOMEM;
}

/* The first gid is the primary group, later ones are supplementary. */
static int add_gid(struct csm_facts *f, uint32_t gid)
{
	gid_t *more;

	if (f->gid == (gid_t)-1) {
		f->gid = gid;
		return 0;
	}
	more = realloc(f->groups, (f->n_groups + 1) * sizeof(*more));
	if (more == NULL)
		return CSM_ENOMEM;
	f->groups = more;
	f->groups[f->n_groups++] = gid;
	return 0;
}

static int add_exe(struct csm_facts *f, struct csm_str key, struct csm_str v)
{
	size_t n = 0;

	if (f->exe_made == NULL && (f->exe_made = calloc(1, sizeof(*f->exe_made))) == NULL)
		return CSM_ENOMEM;
	f->exe = f->exe_made;
	if (csm_str_eq(key, "exe")) {
		if (v.n < 2 || v.p[0] != '/' || f->exe_made->path[0] != '\0')
			return CSM_EINVALID;
		memcpy(f->exe_made->path, v.p, v.n);
		return 0;
	}
	if (v.n != 64 || f->exe_made->hashed || sodium_hex2bin(f->exe_made->sha256, 32, v.p, v.n, NULL, &n, NULL) != 0 || n != 32)
		return CSM_EINVALID;
	f->exe_made->hashed = true;
	return 0;
}

static int add_fact(struct csm_facts *f, struct csm_str key, struct csm_str v)
{
	uint64_t id;

	if (csm_str_eq(key, "uid") || csm_str_eq(key, "gid")) {
		if (!csm_parse_number(v, UINT32_MAX - 1, &id))
			return CSM_EINVALID;
		if (key.p[0] == 'g')
			return add_gid(f, (uint32_t)id);
		if (f->uid != (uid_t)-1)
			return CSM_EINVALID;
		f->uid = (uid_t)id;
		f->valid = !policy_id_is_overflow((uint32_t)id);
		return 0;
	}
	if (csm_str_eq(key, "exe") || csm_str_eq(key, "exe_sha256"))
		return add_exe(f, key, v);
	if (csm_str_eq(key, "unit"))
		return set_text(&f->unit, v);
	if (csm_str_eq(key, "user_unit"))
		return set_text(&f->user_unit, v);
	if (csm_str_eq(key, "label"))
		return set_text(&f->label, v);
	if (csm_str_eq(key, "pod") || csm_str_eq(key, "container")) {
		f->same_ns = false;
		return set_text(key.p[0] == 'p' ? &f->pod : &f->container, v);
	}
	return CSM_EINVALID;
}

int csm_facts_from_selectors(const struct csm_str *sel, size_t n, struct csm_facts *ret)
{
	struct csm_facts f = {.uid = (uid_t)-1, .gid = (gid_t)-1, .same_ns = true};
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		const char *eq = sel[i].n > 0 && sel[i].n <= VALUE_MAX ? memchr(sel[i].p, '=', sel[i].n) : NULL;
		if (eq == NULL || memchr(sel[i].p, 0, sel[i].n) != NULL) {
			r = CSM_EINVALID;
			break;
		}
		struct csm_str key = {sel[i].p, (size_t)(eq - sel[i].p)};
		r = add_fact(&f, key, (struct csm_str){eq + 1, sel[i].n - key.n - 1});
	}
	if (r != 0) {
		csm_facts_clear(&f);
		return r;
	}
	*ret = f;
	return 0;
}
