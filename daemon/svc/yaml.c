#include "daemon/svc/yaml.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define POOL_MAX (64u << 20)

/* Where the builder stands: inside `cur`, and after a key there, before its value. */
struct builder {
	yaml_parser_t parser;
	struct csm_yaml y;
	struct csm_yaml_node *cur;
	unsigned depth;
	size_t nodes;
	bool document; /* one has begun */
	bool have_key;
	struct csm_str key;
	unsigned key_line, key_column;
	struct csm_policy_error *err;
};

struct csm_yaml_shown csm_yaml_show(struct csm_str s)
{
	struct csm_yaml_shown shown = {{0}};
	size_t n = s.n > 48 ? 48 : s.n;

	for (size_t i = 0; i < n; i++)
		shown.s[i] = s.p[i] >= 0x20 && s.p[i] < 0x7f ? s.p[i] : '?';
	if (s.n > n)
		memcpy(shown.s + n, "...", 4);
	return shown;
}

static int fail_at(struct csm_policy_error *err, unsigned line, unsigned column, const char *text)
{
	err->line = line;
	err->column = column;
	snprintf(err->message, sizeof(err->message), "%s", text);
	return CSM_EINVALID;
}

/* "rules[2].allow[1]" of the node, written from its root down. */
static size_t path_of(const struct csm_yaml_node *n, char *buf, size_t size)
{
	const struct csm_yaml_node *up[CSM_YAML_DEPTH_MAX + 2];
	size_t depth = 0, used = 0;

	for (; n != NULL && n->parent != NULL && depth < sizeof(up) / sizeof(up[0]); n = n->parent)
		up[depth++] = n;
	buf[0] = 0;
	while (depth-- > 0 && used + 1 < size) {
		int r;
		if (up[depth]->key.p != NULL)
			r = snprintf(buf + used, size - used, "%s%s", used > 0 ? "." : "",
				csm_yaml_show(up[depth]->key).s);
		else
			r = snprintf(buf + used, size - used, "[%zu]", up[depth]->index + 1);
		if (r < 0)
			break;
		used += (size_t)r;
	}
	return used < size ? used : size - 1;
}

int csm_yaml_fail(const struct csm_yaml_node *n, struct csm_policy_error *err, const char *fmt, ...)
{
	size_t used = path_of(n, err->message, sizeof(err->message) / 2);
	va_list ap;

	if (used > 0) {
		memcpy(err->message + used, ": ", 3);
		used += 2;
	}
	err->line = n->line;
	err->column = n->column;
	va_start(ap, fmt);
	vsnprintf(err->message + used, sizeof(err->message) - used, fmt, ap);
	va_end(ap);
	return CSM_EINVALID;
}

/* A refusal while the tree is built: at the pending key, else at the event. */
static int refuse(struct builder *b, const yaml_mark_t *mark, const char *text)
{
	char msg[192];

	if (!b->have_key)
		return fail_at(b->err, (unsigned)mark->line + 1, (unsigned)mark->column + 1, text);
	snprintf(msg, sizeof(msg), "%s: %s", csm_yaml_show(b->key).s, text);
	return fail_at(b->err, b->key_line, b->key_column, msg);
}

static uint32_t hash(const char *p, size_t n)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)p[i]) * 16777619u;
	return h;
}

static int take_text(struct builder *b, const yaml_event_t *ev, struct csm_str *ret)
{
	size_t n = ev->data.scalar.length;
	const char *v = (const char *)ev->data.scalar.value;
	char *p;

	for (size_t i = 0; i < n; i++)
		if ((uint8_t)v[i] < 0x20 || v[i] == 0x7f)
			return refuse(b, &ev->start_mark, "control characters and line breaks are not allowed in a value");
	p = csm_pool_alloc(&b->y.pool, n + 1);
	if (p == NULL)
		return CSM_ENOMEM;
	memcpy(p, v, n);
	*ret = (struct csm_str){p, n};
	return 0;
}

static int take_key(struct builder *b, const yaml_event_t *ev)
{
	int r = take_text(b, ev, &b->key);
	uint32_t h;

	if (r != 0)
		return r;
	if (b->key.n == 0)
		return refuse(b, &ev->start_mark, "a key must not be empty");
	b->have_key = true;
	b->key_line = (unsigned)ev->start_mark.line + 1;
	b->key_column = (unsigned)ev->start_mark.column + 1;
	h = hash(b->key.p, b->key.n);
	for (const struct csm_yaml_node *c = b->cur->first; c != NULL; c = c->next)
		if (c->key_hash == h && csm_str_same(c->key, b->key))
			return refuse(b, &ev->start_mark, "the key is there twice");
	return 0;
}

/* NULL with the reason in *r. */
static struct csm_yaml_node *add_node(struct builder *b, const yaml_event_t *ev, enum csm_yaml_kind kind, int *r)
{
	struct csm_yaml_node *n;

	if (++b->nodes > CSM_YAML_NODES_MAX || (b->cur != NULL && b->cur->n >= CSM_YAML_CHILDREN_MAX)) {
		*r = refuse(b, &ev->start_mark, "too many entries");
		return NULL;
	}
	n = csm_pool_alloc(&b->y.pool, sizeof(*n));
	if (n == NULL) {
		*r = CSM_ENOMEM;
		return NULL;
	}
	n->kind = kind;
	n->line = (unsigned)ev->start_mark.line + 1;
	n->column = (unsigned)ev->start_mark.column + 1;
	n->parent = b->cur;
	if (b->have_key) {
		n->key = b->key;
		n->key_hash = hash(b->key.p, b->key.n);
		n->line = b->key_line;
		n->column = b->key_column;
		b->have_key = false;
	}
	if (b->cur == NULL) {
		b->y.root = n;
	} else {
		n->index = b->cur->n++;
		if (b->cur->last == NULL)
			b->cur->first = n;
		else
			b->cur->last->next = n;
		b->cur->last = n;
	}
	return n;
}

static bool wants_key(const struct builder *b)
{
	return b->cur != NULL && b->cur->kind == CSM_YAML_MAP && !b->have_key;
}

static int on_scalar(struct builder *b, const yaml_event_t *ev)
{
	struct csm_yaml_node *n;
	struct csm_str text = {0};
	int r;

	if (ev->data.scalar.anchor != NULL)
		return refuse(b, &ev->start_mark, "anchors are not allowed");
	if (ev->data.scalar.tag != NULL)
		return refuse(b, &ev->start_mark, "tags are not allowed");
	if (wants_key(b))
		return take_key(b, ev);
	if ((r = take_text(b, ev, &text)) != 0 || (n = add_node(b, ev, CSM_YAML_SCALAR, &r)) == NULL)
		return r;
	n->text = text;
	n->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	return 0;
}

static int on_open(struct builder *b, const yaml_event_t *ev, enum csm_yaml_kind kind)
{
	bool map = kind == CSM_YAML_MAP;
	struct csm_yaml_node *n;
	int r;

	if ((map ? ev->data.mapping_start.anchor : ev->data.sequence_start.anchor) != NULL)
		return refuse(b, &ev->start_mark, "anchors are not allowed");
	if ((map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag) != NULL)
		return refuse(b, &ev->start_mark, "tags are not allowed");
	if (wants_key(b))
		return refuse(b, &ev->start_mark, "a key must be a plain word");
	if (++b->depth > CSM_YAML_DEPTH_MAX)
		return refuse(b, &ev->start_mark, "nested too deeply");
	if ((n = add_node(b, ev, kind, &r)) == NULL)
		return r;
	b->cur = n;
	return 0;
}

static int on_document(struct builder *b, const yaml_event_t *ev)
{
	if (b->document)
		return refuse(b, &ev->start_mark, "a second document is not allowed");
	if (ev->data.document_start.version_directive != NULL ||
		ev->data.document_start.tag_directives.start != ev->data.document_start.tag_directives.end)
		return refuse(b, &ev->start_mark, "directives are not allowed");
	b->document = true;
	return 0;
}

static int on_event(struct builder *b, const yaml_event_t *ev)
{
	switch (ev->type) {
	case YAML_DOCUMENT_START_EVENT:
		return on_document(b, ev);
	case YAML_ALIAS_EVENT:
		return refuse(b, &ev->start_mark, "aliases are not allowed");
	case YAML_SCALAR_EVENT:
		return on_scalar(b, ev);
	case YAML_SEQUENCE_START_EVENT:
		return on_open(b, ev, CSM_YAML_LIST);
	case YAML_MAPPING_START_EVENT:
		return on_open(b, ev, CSM_YAML_MAP);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->depth--;
		b->cur = b->cur->parent;
		return 0;
	default:
		return 0;
	}
}

/* What libyaml itself refuses: it tells a mark, or for bytes that are not UTF-8 only an offset. */
static int syntax_error(struct builder *b, const char *text, size_t n)
{
	const yaml_parser_t *p = &b->parser;
	unsigned line = (unsigned)p->problem_mark.line + 1, column = (unsigned)p->problem_mark.column + 1;
	char msg[192];

	if (p->error == YAML_MEMORY_ERROR)
		return CSM_ENOMEM;
	if (p->error == YAML_READER_ERROR) {
		line = column = 1;
		for (size_t i = 0; i < p->problem_offset && i < n; i++) {
			if (text[i] == '\n')
				line++, column = 1;
			else if (((uint8_t)text[i] & 0xc0) != 0x80)
				column++;
		}
	}
	snprintf(msg, sizeof(msg), "not YAML: %s", p->problem != NULL ? p->problem : "cannot be read");
	return fail_at(b->err, line, column, msg);
}

static int build(struct builder *b, const char *text, size_t n)
{
	yaml_event_t ev;
	bool end = false;
	int r = 0;

	while (r == 0 && !end) {
		if (yaml_parser_parse(&b->parser, &ev) == 0)
			return syntax_error(b, text, n);
		end = ev.type == YAML_STREAM_END_EVENT;
		r = on_event(b, &ev);
		yaml_event_delete(&ev);
	}
	if (r != 0)
		return r;
	if (b->y.root == NULL ||
		(b->y.root->kind == CSM_YAML_SCALAR && b->y.root->plain && b->y.root->text.n == 0))
		return fail_at(b->err, 1, 1, "the file is empty");
	return csm_yaml_expect(b->y.root, CSM_YAML_MAP, b->err);
}

int csm_yaml_parse(const char *text, size_t n, size_t max, struct csm_yaml *ret, struct csm_policy_error *err)
{
	struct builder b = {.err = err};
	char msg[64];
	int r;

	*err = (struct csm_policy_error){0};
	if (n > max) {
		snprintf(msg, sizeof(msg), "the file is longer than %zu bytes", max);
		return fail_at(err, 0, 0, msg);
	}
	if (yaml_parser_initialize(&b.parser) == 0)
		return CSM_ENOMEM;
	csm_pool_init(&b.y.pool, POOL_MAX);
	yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, n);
	r = build(&b, text, n);
	yaml_parser_delete(&b.parser);
	if (r != 0) {
		csm_pool_free(&b.y.pool);
		return r;
	}
	*ret = b.y;
	return 0;
}

void csm_yaml_free(struct csm_yaml *y)
{
	csm_pool_free(&y->pool);
	y->root = NULL;
}

const struct csm_yaml_node *csm_yaml_get(const struct csm_yaml_node *map, const char *key)
{
	for (const struct csm_yaml_node *c = map->first; c != NULL; c = c->next)
		if (csm_str_eq(c->key, key))
			return c;
	return NULL;
}

int csm_yaml_expect(const struct csm_yaml_node *n, enum csm_yaml_kind kind, struct csm_policy_error *err)
{
	static const char *const names[] = {"a single value", "a mapping (key: value)", "a list"};

	if (n->kind == kind)
		return 0;
	return csm_yaml_fail(n, err, "must be %s", names[kind]);
}

int csm_yaml_known(const struct csm_yaml_node *map, const char *const *known, size_t n_known,
	struct csm_policy_error *err)
{
	int r = csm_yaml_expect(map, CSM_YAML_MAP, err);

	for (const struct csm_yaml_node *c = map->first; r == 0 && c != NULL; c = c->next) {
		size_t i = 0;
		while (i < n_known && !csm_str_eq(c->key, known[i]))
			i++;
		if (i == n_known)
			r = csm_yaml_fail(c, err, "unknown key");
	}
	return r;
}

int csm_yaml_string(const struct csm_yaml_node *n, size_t max, struct csm_str *ret, struct csm_policy_error *err)
{
	int r = csm_yaml_expect(n, CSM_YAML_SCALAR, err);

	if (r != 0)
		return r;
	if (n->plain && (n->text.n == 0 || csm_str_eq(n->text, "~") || csm_str_eq(n->text, "null")))
		return csm_yaml_fail(n, err, "has no value");
	if (n->text.n > max)
		return csm_yaml_fail(n, err, "must be at most %zu bytes", max);
	*ret = n->text;
	return 0;
}

bool csm_parse_number(struct csm_str s, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (s.n == 0 || s.n > 20 || (s.n > 1 && s.p[0] == '0'))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned digit = (unsigned)(uint8_t)s.p[i] - '0';
		if (digit > 9 || v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	if (v > max)
		return false;
	*ret = v;
	return true;
}

int csm_yaml_number(const struct csm_yaml_node *n, uint64_t min, uint64_t max, uint64_t *ret,
	struct csm_policy_error *err)
{
	struct csm_str s = {0};
	uint64_t v;
	int r = csm_yaml_string(n, 64, &s, err);

	if (r != 0)
		return r;
	if (!n->plain || !csm_parse_number(s, UINT64_MAX, &v))
		return csm_yaml_fail(n, err, "must be a whole number in decimal digits");
	if (v < min || v > max)
		return csm_yaml_fail(n, err, "must be from %" PRIu64 " to %" PRIu64, min, max);
	*ret = v;
	return 0;
}

int csm_yaml_bool(const struct csm_yaml_node *n, bool *ret, struct csm_policy_error *err)
{
	struct csm_str s = {0};
	int r = csm_yaml_string(n, 64, &s, err);

	if (r != 0)
		return r;
	if (!n->plain || (!csm_str_eq(s, "true") && !csm_str_eq(s, "false")))
		return csm_yaml_fail(n, err, "must be true or false");
	*ret = csm_str_eq(s, "true");
	return 0;
}
