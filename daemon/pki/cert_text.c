#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include "daemon/pki/cert.h"

#define TYPE_MAX 128

static int put_text(struct csm_buf *out, const char *s)
{
	return csm_buf_put(out, (const uint8_t *)s, strlen(s));
}

static bool is_control(const uint8_t *p, size_t n, size_t i)
{
	/* C1 in UTF-8 is c2 80 to c2 9f; its second byte is a control too, and the first is left as it is by no text. */
	return p[i] < 0x20 || p[i] == 0x7f || (p[i] == 0xc2 && i + 1 < n && p[i + 1] <= 0x9f);
}

/* A value with what has a meaning in the form behind a backslash. */
static int put_value(struct csm_buf *out, const uint8_t *p, size_t n)
{
	char hex[8];
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		if (is_control(p, n, i)) {
			bool two = p[i] == 0xc2;

			snprintf(hex, sizeof(hex), two ? "\\%02X\\%02X" : "\\%02X", p[i], two ? p[i + 1] : 0);
			r = put_text(out, hex);
			i += two;
			continue;
		}
		if (p[i] == '/' || p[i] == '+' || p[i] == '\\')
			r = csm_buf_put(out, (const uint8_t *)"\\", 1);
		if (r == 0)
			r = csm_buf_put(out, p + i, 1);
	}
	return r;
}

static int put_entry(struct csm_buf *out, const X509_NAME_ENTRY *e)
{
	const ASN1_OBJECT *type = X509_NAME_ENTRY_get_object(e);
	int nid = OBJ_obj2nid(type), n, r;
	unsigned char *value = NULL;
	char text[TYPE_MAX];

	n = OBJ_obj2txt(text, sizeof(text), type, 1);
	if (n <= 0 || n >= (int)sizeof(text))
		return CSM_EINVALID;
	if ((r = put_text(out, nid != NID_undef ? OBJ_nid2sn(nid) : text)) != 0 || (r = put_text(out, "=")) != 0)
		return r;
	n = ASN1_STRING_to_UTF8(&value, X509_NAME_ENTRY_get_data(e));
	r = n >= 0 && csm_utf8_valid((const char *)value, (size_t)n) ? put_value(out, value, (size_t)n) : CSM_EINVALID;
	OPENSSL_free(value);
	return r;
}

int csm_name_text(const X509_NAME *name, struct csm_buf *out)
{
	int n = X509_NAME_entry_count(name), set = -1, r = 0;

	if (n == 0)
		return put_text(out, "/");
	for (int i = 0; i < n && r == 0; i++) {
		const X509_NAME_ENTRY *e = X509_NAME_get_entry(name, i);

		r = put_text(out, X509_NAME_ENTRY_set(e) == set ? "+" : "/");
		set = X509_NAME_ENTRY_set(e);
		if (r == 0)
			r = put_entry(out, e);
	}
	return r;
}

/* An IA5String of what can be seen: a NUL in the middle of a host name is an old attack. */
static int put_ia5(struct csm_buf *out, const char *prefix, const ASN1_STRING *s)
{
	const uint8_t *p = ASN1_STRING_get0_data(s);
	size_t n = (size_t)ASN1_STRING_length(s);
	int r;

	for (size_t i = 0; i < n; i++)
		if (p[i] < 0x20 || p[i] > 0x7e)
			return CSM_EINVALID;
	if (n == 0)
		return CSM_EINVALID;
	return (r = put_text(out, prefix)) != 0 ? r : csm_buf_put(out, p, n);
}

static int put_ip(struct csm_buf *out, const ASN1_STRING *s)
{
	int n = ASN1_STRING_length(s), r;
	char text[INET6_ADDRSTRLEN];

	if ((n != 4 && n != 16) ||
		inet_ntop(n == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(s), text, sizeof(text)) == NULL)
		return CSM_EINVALID;
	return (r = put_text(out, "ip:")) != 0 ? r : put_text(out, text);
}

static int put_oid(struct csm_buf *out, const char *prefix, const ASN1_OBJECT *o)
{
	char text[TYPE_MAX];
	int n = OBJ_obj2txt(text, sizeof(text), o, 1), r;

	if (n <= 0 || n >= (int)sizeof(text))
		return CSM_EINVALID;
	return (r = put_text(out, prefix)) != 0 ? r : put_text(out, text);
}

int csm_san_text(const GENERAL_NAME *name, struct csm_buf *out)
{
	int r;

	switch (name->type) {
	case GEN_DNS:
		return put_ia5(out, "dns:", name->d.dNSName);
	case GEN_URI:
		return put_ia5(out, "uri:", name->d.uniformResourceIdentifier);
	case GEN_EMAIL:
		return put_ia5(out, "email:", name->d.rfc822Name);
	case GEN_IPADD:
		return put_ip(out, name->d.iPAddress);
	case GEN_DIRNAME:
		return (r = put_text(out, "dirname:")) != 0 ? r : csm_name_text(name->d.directoryName, out);
	case GEN_RID:
		return put_oid(out, "rid:", name->d.registeredID);
	case GEN_OTHERNAME:
		return put_oid(out, "other:", name->d.otherName->type_id);
	default:
		return put_text(out, "other:");
	}
}
