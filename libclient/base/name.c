#include <stdio.h>
#include <string.h>
#include "libclient/base/name.h"
#include "proto-spec/limits.h"

struct csm_str csm_str_of(const char *s)
{
	return (struct csm_str){s, s != NULL ? strlen(s) : 0};
}

bool csm_str_eq(struct csm_str a, const char *b)
{
	return csm_str_same(a, csm_str_of(b));
}

bool csm_str_same(struct csm_str a, struct csm_str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

void csm_text_vput(char *out, size_t cap, const char *fmt, va_list ap)
{
	static const char dots[] = "...";
	int n = vsnprintf(out, cap, fmt, ap);
	size_t at;

	if (n < 0 || (size_t)n < cap || cap < sizeof(dots))
		return;
	for (at = cap - sizeof(dots); at > 0 && ((uint8_t)out[at] & 0xc0) == 0x80; at--)
		;
	memcpy(out + at, dots, sizeof(dots));
}

void csm_text_put(char *out, size_t cap, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	csm_text_vput(out, cap, fmt, ap);
	va_end(ap);
}

/* How many bytes lead an ASCII run, eight at a time. */
static size_t ascii_run(const uint8_t *s, size_t n)
{
	size_t i = 0;
	uint64_t w;

	for (; n - i >= sizeof(w); i += sizeof(w)) {
		memcpy(&w, s + i, sizeof(w));
		if ((w & UINT64_C(0x8080808080808080)) != 0)
			break;
	}
	while (i < n && s[i] < 0x80)
		i++;
	return i;
}

/* The length of the well-formed sequence of two to four bytes at s (Unicode, table 3-7: no
 * overlong form, no surrogate, nothing above U+10FFFF), 0 if there is none. */
static size_t utf8_sequence(const uint8_t *s, size_t n)
{
	uint8_t lo = 0x80, hi = 0xbf;
	size_t len;

	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (s[0] == 0xe0)
		lo = 0xa0;
	else if (s[0] == 0xed)
		hi = 0x9f;
	else if (s[0] == 0xf0)
		lo = 0x90;
	else if (s[0] == 0xf4)
		hi = 0x8f;
	if (n < len || s[1] < lo || s[1] > hi)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	return len;
}

bool csm_utf8_valid(const char *p, size_t n)
{
	const uint8_t *s = (const uint8_t *)p;
	size_t i = 0, len;

	while (i < n) {
		i += ascii_run(s + i, n - i);
		if (i == n)
			break;
		len = utf8_sequence(s + i, n - i);
		if (len == 0)
			return false;
		i += len;
	}
	return true;
}

bool csm_namespace_valid(struct csm_str s)
{
	if (s.n == 0 || s.n > CSM_NAMESPACE_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

		if (!alnum && (i == 0 || (c != '.' && c != '_' && c != '-')))
			return false;
	}
	return true;
}

/* What separates the parts of a reference or means something in a glob. */
static bool is_reserved(uint8_t c)
{
	return c == '/' || c == ':' || c == '*' || c == '?' || c == '[' || c == '\\';
}

bool csm_name_valid(struct csm_str s)
{
	const uint8_t *p = (const uint8_t *)s.p;

	if (s.n == 0 || s.n > CSM_NAME_MAX || p[0] == '.' || p[0] == '-')
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (p[i] < 0x20 || p[i] == 0x7f || is_reserved(p[i]))
			return false;
		/* C1 controls, U+0080 to U+009F; c2 begins a sequence only. */
		if (p[i] == 0xc2 && i + 1 < s.n && p[i + 1] <= 0x9f)
			return false;
	}
	return csm_utf8_valid(s.p, s.n);
}

/* Split off `NAMESPACE:`; a bare name leaves ns.p NULL. */
static int take_namespace(struct csm_str *s, struct csm_str *ns)
{
	const char *colon = s->n > 0 ? memchr(s->p, ':', s->n) : NULL;
	struct csm_str head;

	*ns = (struct csm_str){NULL, 0};
	if (colon == NULL)
		return 0;
	head = (struct csm_str){s->p, (size_t)(colon - s->p)};
	if (!csm_namespace_valid(head))
		return CSM_EINVALID;
	*ns = head;
	s->p += head.n + 1;
	s->n -= head.n + 1;
	return 0;
}

static int parse_name(struct csm_str s, bool dotted, struct csm_ref *ret)
{
	struct csm_ref ref = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
	int r = take_namespace(&s, &ref.ns);
	size_t dot = dotted && s.n > 0 && s.p[0] == '.' ? 1 : 0;

	if (r != 0)
		return r;
	if (s.n > CSM_NAME_MAX || !csm_name_valid((struct csm_str){s.p + dot, s.n - dot}))
		return CSM_EINVALID;
	ref.name = s;
	*ret = ref;
	return 0;
}

int csm_ref_parse(struct csm_str s, struct csm_ref *ret)
{
	return parse_name(s, false, ret);
}

int csm_ref_parse_key(struct csm_str s, struct csm_ref *ret)
{
	return parse_name(s, true, ret);
}

int csm_ref_parse_secret(struct csm_str s, struct csm_ref *ret)
{
	struct csm_ref ref = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
	const char *slash;
	int r = take_namespace(&s, &ref.ns);

	if (r != 0)
		return r;
	slash = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;
	if (slash == NULL)
		return CSM_EINVALID;
	ref.name = (struct csm_str){s.p, (size_t)(slash - s.p)};
	ref.secret = (struct csm_str){slash + 1, s.n - ref.name.n - 1};
	if (!csm_name_valid(ref.name) || !csm_name_valid(ref.secret))
		return CSM_EINVALID;
	*ret = ref;
	return 0;
}

bool csm_glob_match(struct csm_str pattern, struct csm_str text)
{
	/* Only the last star needs another try: an earlier one that took more could not
	 * reach anything that the last one cannot. */
	size_t p = 0, t = 0, star = SIZE_MAX, resume = 0;

	while (t < text.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			star = ++p;
			resume = t;
		} else if (p < pattern.n && (pattern.p[p] == '?' || pattern.p[p] == text.p[t])) {
			p++;
			t++;
		} else if (star != SIZE_MAX) {
			p = star;
			t = ++resume;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*')
		p++;
	return p == pattern.n;
}
