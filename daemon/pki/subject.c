#include <stdio.h>
#include <string.h>
#include <openssl/err.h>
#include "daemon/pki/subject.h"
#include "proto-spec/limits.h"

#define WHY_SIZE 128
#define TYPE_MAX 40

/* One TYPE=VALUE, from after its `/` to the next unescaped one. */
struct attribute {
	char type[TYPE_MAX + 1];
	char value[CSM_SUBJECT_MAX];
	size_t n;
};

static bool type_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
}

static int type_take(struct csm_str *s, struct attribute *a, char *why)
{
	size_t n = 0;

	while (n < s->n && n < TYPE_MAX && type_byte(s->p[n]))
		n++;
	if (n == 0 || n == s->n || s->p[n] != '=') {
		snprintf(why, WHY_SIZE, "subject: after each / comes an attribute's name and =");
		return CSM_EINVALID;
	}
	memcpy(a->type, s->p, n);
	a->type[n] = '\0';
	*s = (struct csm_str){s->p + n + 1, s->n - n - 1};
	return 0;
}

static int value_take(struct csm_str *s, struct attribute *a, char *why)
{
	size_t i = 0;

	for (a->n = 0; i < s->n && s->p[i] != '/'; i++) {
		if (s->p[i] == '+') {
			snprintf(why, WHY_SIZE,
				"subject: %s: attributes joined by + are not supported; \\+ is a plus sign", a->type);
			return CSM_EINVALID;
		}
		if (s->p[i] == '\\' && ++i == s->n) {
			snprintf(why, WHY_SIZE, "subject: %s: nothing follows the last \\", a->type);
			return CSM_EINVALID;
		}
		if ((unsigned char)s->p[i] < 0x20 || s->p[i] == 0x7f) {
			snprintf(why, WHY_SIZE, "subject: %s: a control character", a->type);
			return CSM_EINVALID;
		}
		a->value[a->n++] = s->p[i]; /* the whole subject fits, so this does */
	}
	*s = (struct csm_str){s->p + i, s->n - i};
	if (a->n == 0) {
		snprintf(why, WHY_SIZE, "subject: %s: the value is empty", a->type);
		return CSM_EINVALID;
	}
	return 0;
}

static int attribute_add(X509_NAME *name, const struct attribute *a, char *why)
{
	ASN1_OBJECT *type = OBJ_txt2obj(a->type, 0); /* a name or a dotted OID */
	int r = CSM_EINVALID;

	if (type == NULL) {
		snprintf(why, WHY_SIZE, "subject: %s: no such attribute", a->type);
		goto out;
	}
	if (X509_NAME_add_entry_by_OBJ(name, type, MBSTRING_UTF8, (const unsigned char *)a->value, (int)a->n, -1, 0) !=
		1) {
		snprintf(
			why, WHY_SIZE, "subject: %s: the value's length or characters are not allowed for it", a->type);
		goto out;
	}
	r = 0;
out:
	ASN1_OBJECT_free(type);
	if (r != 0)
		ERR_clear_error();
	return r;
}

int csm_subject_parse(struct csm_str text, X509_NAME **ret, char why[static 128])
{
	struct csm_str rest = text;
	struct attribute a;
	X509_NAME *name = NULL;
	int r = CSM_EINVALID;

	if (text.n > CSM_SUBJECT_MAX || !csm_utf8_valid(text.p, text.n)) {
		snprintf(why, WHY_SIZE, "subject: longer than %u bytes, or not UTF-8", CSM_SUBJECT_MAX);
		return r;
	}
	if (text.n == 0 || text.p[0] != '/') {
		snprintf(why, WHY_SIZE, "subject: does not start with /");
		return r;
	}
	if ((name = X509_NAME_new()) == NULL)
		return CSM_ENOMEM;
	if (text.n == 1)
		rest.n = 0;
	while (rest.n > 0) {
		rest = (struct csm_str){rest.p + 1, rest.n - 1};
		if ((r = type_take(&rest, &a, why)) != 0 || (r = value_take(&rest, &a, why)) != 0 ||
			(r = attribute_add(name, &a, why)) != 0)
			goto out;
	}
	*ret = name;
	name = NULL;
	r = 0;
out:
	X509_NAME_free(name);
	return r;
}
