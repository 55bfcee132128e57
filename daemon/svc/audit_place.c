/* Where a process runs, as the lines of the audit log have it. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/audit_internal.h"

#define VALUE_MAX 160u /* characters of one, escaped; what is longer is cut off */
#define FIELDS 4u

/* The kernel's names of cgroups hold any byte, and systemd's a backslash. */
static void put_value(char *out, const char *value)
{
	size_t n = 0;

	for (; *value != '\0' && n + 2 <= VALUE_MAX; value++) {
		if (*value == '"' || *value == '\\')
			out[n++] = '\\';
		out[n++] = *value < 0x20 || *value >= 0x7f ? '?' : *value;
	}
	out[n] = '\0';
}

int csm_audit_place_new(const struct csm_facts *f, struct csm_audit_place **ret)
{
	const struct {
		const char *name, *value;
	} fields[FIELDS] = {{"unit", f->unit}, {"user_unit", f->user_unit}, {"pod", f->pod}, {"container", f->container}};
	char text[AUDIT_PLACE_MAX], value[VALUE_MAX + 1];
	struct csm_audit_place *p;
	size_t n = 0;

	_Static_assert(FIELDS * (VALUE_MAX + sizeof(",\"user_unit\":\"\"")) <= AUDIT_PLACE_MAX, "all of them fit");
	for (size_t i = 0; i < FIELDS; i++) {
		if (fields[i].value == NULL)
			continue;
		put_value(value, fields[i].value);
		n += (size_t)snprintf(text + n, sizeof(text) - n, ",\"%s\":\"%s\"", fields[i].name, value);
	}
	if (n == 0) {
		*ret = NULL;
		return 0;
	}
	p = calloc(1, sizeof(*p) + n + 1);
	if (p == NULL)
		return CSM_ENOMEM;
	p->refs = 1;
	p->n = n;
	memcpy(p->text, text, n);
	rows_init();
	p->hash = rows_hash((struct csm_str){p->text, n});
	*ret = p;
	return 0;
}

struct csm_audit_place *csm_audit_place_ref(struct csm_audit_place *p)
{
	if (p != NULL)
		atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void csm_audit_place_unref(struct csm_audit_place *p)
{
	if (p != NULL && atomic_fetch_sub(&p->refs, 1) == 1)
		free(p);
}

const char *csm_audit_place_text(const struct csm_audit_place *p)
{
	return p != NULL ? p->text : "";
}

bool audit_place_same(const struct csm_audit_place *a, const struct csm_audit_place *b)
{
	return a == b || (a != NULL && b != NULL && a->n == b->n && memcmp(a->text, b->text, a->n) == 0);
}
