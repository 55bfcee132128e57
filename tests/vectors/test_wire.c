/* Every record of proto-spec/vectors through csm's scanner, decoder and encoder. */
#include <setjmp.h>
#include <stdarg.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/wire/frame.h"

#define VECTORS "proto-spec/vectors/"

/* ---- records ------------------------------------------------------------------- */

struct vector {
	char name[64];
	char direction[24];
	char method[64];
	char expect[24];
	char field[40];
	uint8_t *bytes;
	size_t n;
	uint8_t *reads_as; /* NULL: bytes */
	size_t reads_as_n;
};
static uint8_t *unhex(const char *s, size_t *n)
{
	size_t len = strlen(s);
	uint8_t *p = malloc(len / 2 + 1);

	assert_non_null(p);
	assert_int_equal(len % 2, 0);
	for (size_t i = 0; i < len; i += 2) {
		char pair[3] = {s[i], s[i + 1], 0}, *end;

		p[i / 2] = (uint8_t)strtoul(pair, &end, 16);
		assert_ptr_equal(end, pair + 2);
	}
	*n = len / 2;
	return p;
}

static void copy(char *to, size_t room, const char *from)
{
	assert_true(strlen(from) < room);
	memcpy(to, from, strlen(from) + 1);
}

static void take_line(struct vector *v, const char *key, char *value)
{
	char *space;

	if (strcmp(key, "name") == 0) {
		copy(v->name, sizeof(v->name), value);
	} else if (strcmp(key, "direction") == 0) {
		copy(v->direction, sizeof(v->direction), value);
	} else if (strcmp(key, "method") == 0) {
		copy(v->method, sizeof(v->method), value);
	} else if (strcmp(key, "expect") == 0) {
		space = strchr(value, ' ');
		if (space != NULL) {
			*space = 0;
			copy(v->field, sizeof(v->field), space + 1);
		}
		copy(v->expect, sizeof(v->expect), value);
	} else if (strcmp(key, "hex") == 0) {
		assert_null(v->bytes);
		v->bytes = unhex(value, &v->n);
	} else if (strcmp(key, "reads-as") == 0) {
		assert_null(v->reads_as);
		v->reads_as = unhex(value, &v->reads_as_n);
	} else {
		assert_string_equal(key, "json");
	}
}

/* The next record; false at the end. */
static bool vector_next(FILE *f, struct vector *v)
{
	char *line = NULL, *colon, *value;
	size_t room = 0;
	ssize_t n;

	memset(v, 0, sizeof(*v));
	while ((n = getline(&line, &room, f)) > 0) {
		if (line[n - 1] == '\n')
			line[--n] = 0;
		if (line[0] == '#')
			continue;
		if (n == 0 && v->name[0] != 0)
			break;
		if (n == 0)
			continue;
		colon = strchr(line, ':');
		assert_non_null(colon);
		*colon = 0;
		value = colon[1] == ' ' ? colon + 2 : colon + 1;
		take_line(v, line, value);
	}
	free(line);
	return v->name[0] != 0;
}

static void each_vector(const char *path, void (*check)(const struct vector *v), size_t least)
{
	FILE *f = fopen(path, "re");
	struct vector v;
	size_t n = 0;
	bool more;

	assert_non_null(f);
	do {
		more = vector_next(f, &v);
		if (more) {
			assert_non_null(v.bytes);
			check(&v);
			n++;
		}
		free(v.bytes);
		free(v.reads_as);
	} while (more);
	(void)fclose(f);
	assert_true(n >= least);
}

/* ---- reading and writing one ------------------------------------------------------ */

struct reading {
	int r;
	char field[40];
	struct csm_buf again; /* the message as csm writes it */
};

static void write_again(const struct csm_frame *f, const struct csm_msgdef *def, const void *body, struct csm_buf *b)
{
	static const uint8_t error_head[] = {0x94, 0x01}, nil = 0xc0;
	struct csm_buf raw;

	csm_buf_init(&raw, CSM_MESSAGE_MAX, false);
	if (f->type == CSM_REQUEST) {
		char method[65];

		assert_true(f->method.n < sizeof(method));
		memcpy(method, f->method.p, f->method.n);
		method[f->method.n] = 0;
		assert_int_equal(csm_frame_request(b, f->msgid, method, def, body), 0);
	} else if (f->type == CSM_NOTIFICATION) {
		/* csm sends none: the parts are put together here. */
		static const uint8_t head[] = {0x93, 0x02, 0xa4, 'p', 'i', 'n', 'g', 0x91};

		assert_int_equal(csm_buf_put(b, head, sizeof(head)), 0);
		assert_int_equal(csm_msg_encode(def, body, b), 0);
	} else if (f->error.p != NULL) {
		assert_int_equal(csm_frame_result_raw(&raw, f->msgid, (struct csm_bin){&nil, 1}), 0);
		assert_int_equal(csm_buf_put(b, error_head, 2), 0);
		/* the msgid, as it stands in an answer with a result */
		assert_int_equal(csm_buf_put(b, csm_buf_ptr(&raw) + 2, raw.len - 4), 0);
		assert_int_equal(csm_msg_encode(def, body, b), 0);
		assert_int_equal(csm_buf_put(b, &nil, 1), 0);
	} else {
		assert_int_equal(csm_frame_result(b, f->msgid, def, body), 0);
	}
	csm_buf_free(&raw);
}

static void read_body(const struct vector *v, const struct csm_frame *f, struct reading *out)
{
	const struct csm_method *m;
	const struct csm_msgdef *def;
	struct csm_bin body = f->type == CSM_RESPONSE ? (f->error.p != NULL ? f->error : f->result) : f->params;
	struct csm_str name = f->type == CSM_RESPONSE ? csm_str_of(v->method) : f->method, bad;
	struct csm_pool pool;
	void *p;

	if (f->error.p != NULL) {
		def = CSM_DEF(error);
	} else {
		m = csm_method_find(name);
		if (m == NULL) {
			out->r = CSM_EUNKNOWN_METHOD;
			return;
		}
		def = f->type == CSM_RESPONSE ? m->response : m->request;
	}
	p = malloc(def->size);
	assert_non_null(p);
	csm_pool_init(&pool, 256 * 1024);
	out->r = csm_msg_decode(def, body, f->type == CSM_RESPONSE ? CSM_UNKNOWN_SKIP : CSM_UNKNOWN_REFUSE, &pool, p, &bad);
	if (out->r == 0) {
		write_again(f, def, p, &out->again);
	} else {
		/* A field that is not known may have any name: what it begins with will do. */
		memcpy(out->field, bad.p, bad.n < sizeof(out->field) ? bad.n : sizeof(out->field) - 1);
	}
	csm_pool_free(&pool);
	free(p);
}

static void read_vector(const struct vector *v, struct reading *out)
{
	struct csm_frame f;
	size_t n = 0;

	memset(out, 0, sizeof(*out));
	csm_buf_init(&out->again, CSM_MESSAGE_MAX, false);
	out->r = csm_scan(v->bytes, v->n, &n);
	if (out->r != 0)
		return;
	assert_int_equal(n, v->n);
	out->r = csm_frame_parse(v->bytes, n, &f);
	if (out->r == 0)
		read_body(v, &f, out);
}

static void check_one(const struct vector *v)
{
	struct reading got;
	const char *name;

	read_vector(v, &got);
	name = got.r == CSM_EBUSY ? "incomplete" : csm_err_name(got.r);
	if (strcmp(name, v->expect) != 0 || strcmp(got.field, v->field) != 0)
		fail_msg("%s: %s %s, expected %s %s", v->name, name, got.field, v->expect, v->field);
	if (got.r == 0) {
		const uint8_t *want = v->reads_as != NULL ? v->reads_as : v->bytes;
		size_t want_n = v->reads_as != NULL ? v->reads_as_n : v->n;

		if (got.again.len != want_n || memcmp(csm_buf_ptr(&got.again), want, want_n) != 0)
			fail_msg("%s: written again, the bytes differ", v->name);
	}
	csm_buf_free(&got.again);
}

/* However a message is cut, the scanner asks for more and never for too much; in pieces it comes
 * to the same end as at once. */
static void check_prefixes(const struct vector *v)
{
	struct csm_scanner s;
	size_t whole = 0, need;
	int at_once = csm_scan(v->bytes, v->n, &whole), r = CSM_EBUSY;

	csm_scanner_init(&s);
	for (size_t n = 0; n <= v->n; n++) {
		/* a copy of its own, so that a read beyond it is seen */
		uint8_t *p = malloc(n > 0 ? n : 1);

		assert_non_null(p);
		memcpy(p, v->bytes, n);
		r = csm_scanner_run(&s, p, n, &need);
		if (r == CSM_EBUSY)
			assert_true(need > n && (at_once != 0 || need <= whole));
		assert_int_equal(r, csm_scan(p, n, &need));
		free(p);
		if (r != CSM_EBUSY)
			break;
		assert_true(at_once != 0 || n < whole);
	}
	assert_int_equal(r, at_once);
}

/* Read a damaged message: what it comes out as is of no interest, and csm need not write it the
 * same way, but nothing may be read beyond its end. */
static void read_damaged(const struct vector *v)
{
	struct reading got = {.r = 0};
	struct csm_frame f;
	size_t n;

	csm_buf_init(&got.again, CSM_MESSAGE_MAX, false);
	if (csm_scan(v->bytes, v->n, &n) == 0 && csm_frame_parse(v->bytes, n, &f) == 0 && f.type == CSM_REQUEST)
		read_body(v, &f, &got);
	csm_buf_free(&got.again);
}

static void check_damage(const struct vector *v)
{
	struct vector bent = *v;

	bent.bytes = malloc(v->n > 0 ? v->n : 1);
	assert_non_null(bent.bytes);
	for (size_t i = 0; i < 8 * v->n && i < 3200; i++) {
		memcpy(bent.bytes, v->bytes, v->n);
		bent.bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		read_damaged(&bent);
	}
	free(bent.bytes);
}

static void test_messages(void **state)
{
	(void)state;
	each_vector(VECTORS "messages.txt", check_one, 190);
}

static void test_errors(void **state)
{
	(void)state;
	each_vector(VECTORS "errors.txt", check_one, 24);
}

static void test_malformed(void **state)
{
	(void)state;
	each_vector(VECTORS "malformed.txt", check_one, 60);
}

static void test_prefixes(void **state)
{
	(void)state;
	each_vector(VECTORS "messages.txt", check_prefixes, 190);
	each_vector(VECTORS "errors.txt", check_prefixes, 24);
	each_vector(VECTORS "malformed.txt", check_prefixes, 60);
}

static void test_damage(void **state)
{
	(void)state;
	each_vector(VECTORS "messages.txt", check_damage, 190);
	each_vector(VECTORS "malformed.txt", check_damage, 60);
}

/* Every method that is served has its messages among the vectors. */
static const struct csm_method *sought;
static bool found;

static void look_for_method(const struct vector *v)
{
	found = found || strcmp(v->method, sought->name) == 0;
}

static void test_all_methods(void **state)
{
	(void)state;
	for (size_t i = 0; i < CSM_M__COUNT; i++) {
		sought = &csm_methods[i];
		found = sought->where == CSM_W_NONE;
		each_vector(VECTORS "messages.txt", look_for_method, 1);
		if (!found)
			fail_msg("no vector of %s", sought->name);
	}
}

/* The msgpack module of Python reads the same. */
static void test_python(void **state)
{
	char *argv[] = {(char *)"/usr/bin/python3", (char *)"tests/vectors/check_vectors.py", NULL};
	char *envp[] = {(char *)"PYTHONDONTWRITEBYTECODE=1", (char *)"PATH=/usr/bin:/bin", NULL};
	int status = -1;
	pid_t pid;

	(void)state;
	assert_int_equal(posix_spawn(&pid, argv[0], NULL, NULL, argv, envp), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_all_methods),
		cmocka_unit_test(test_python),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
