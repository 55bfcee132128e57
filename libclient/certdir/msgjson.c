#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "libclient/certdir/msgjson.h"

int csm_json_base64(const void *p, size_t n, json_t **ret)
{
	size_t size = sodium_base64_ENCODED_LEN(n, sodium_base64_VARIANT_ORIGINAL);
	char *text = csm_lock_alloc(size);
	json_t *j = NULL;

	if (text != NULL) {
		(void)sodium_bin2base64(text, size, p, n, sodium_base64_VARIANT_ORIGINAL);
		j = json_string(text);
		csm_lock_free(text);
	}
	if (j == NULL)
		return CSM_ENOMEM;
	*ret = j;
	return 0;
}

static int json_number(uint64_t v, json_t **ret)
{
	/* what JSON's readers hold is signed */
	*ret = json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
	return *ret != NULL ? 0 : CSM_ENOMEM;
}

static int json_strs(const struct csm_strs *list, json_t **ret)
{
	json_t *j = json_array();
	size_t i;

	for (i = 0; j != NULL && i < list->n; i++)
		if (json_array_append_new(j, json_stringn(list->v[i].p, list->v[i].n)) != 0) {
			json_decref(j);
			j = NULL;
		}
	*ret = j;
	return j != NULL ? 0 : CSM_ENOMEM;
}

static int json_maps(const struct csm_field *f, const struct csm_strs *list, json_t **ret)
{
	json_t *j = json_array(), *item;
	int r = j != NULL ? 0 : CSM_ENOMEM;
	size_t i;

	for (i = 0; r == 0 && i < list->n; i++) {
		r = csm_json_of(f->sub, (const uint8_t *)(const void *)list->v + i * f->sub->size, &item);
		if (r == 0 && json_array_append_new(j, item) != 0)
			r = CSM_ENOMEM;
	}
	if (r != 0)
		json_decref(j);
	else
		*ret = j;
	return r;
}

static int json_field(const struct csm_field *f, const void *at, json_t **ret)
{
	const struct csm_str *s = at;
	const struct csm_bin *b = at;

	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64:
		return json_number(((const struct csm_u64 *)at)->v, ret);
	case CSM_K_BOOL:
		*ret = json_boolean(((const struct csm_bool *)at)->v);
		return 0;
	case CSM_K_STR:
		*ret = json_stringn(s->p, s->n);
		return *ret != NULL ? 0 : CSM_ENOMEM;
	case CSM_K_BIN:
		return csm_json_base64(b->p, b->n, ret);
	case CSM_K_STRS:
		return json_strs(at, ret);
	case CSM_K_MAP:
		return csm_json_of(f->sub, *(void *const *)at, ret);
	case CSM_K_MAPS:
		return json_maps(f, at, ret);
	}
	return CSM_EINTERNAL;
}

int csm_json_of(const struct csm_msgdef *def, const void *msg, json_t **ret)
{
	json_t *j = json_object(), *value;
	int r = j != NULL ? 0 : CSM_ENOMEM;
	size_t i;

	for (i = 0; r == 0 && i < def->n_fields; i++) {
		const struct csm_field *f = &def->fields[i];

		if (!csm_field_present(f, msg))
			continue;
		r = json_field(f, (const uint8_t *)msg + f->off, &value);
		if (r == 0 && json_object_set_new(j, f->name, value) != 0)
			r = CSM_ENOMEM;
	}
	if (r != 0) {
		json_decref(j);
		return r;
	}
	*ret = j;
	return 0;
}

static int dump_some(const char *p, size_t n, void *arg)
{
	return csm_buf_put(arg, p, n);
}

int csm_json_put(const json_t *j, struct csm_buf *b)
{
	if (json_dump_callback(j, dump_some, b, JSON_INDENT(2) | JSON_PRESERVE_ORDER) != 0)
		return CSM_ENOMEM;
	return csm_buf_put(b, "\n", 1);
}
