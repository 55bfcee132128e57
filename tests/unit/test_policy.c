/* Policies: the golden tables of tests/unit/golden/policy say what is decided and refused. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "daemon/svc/policy.h"

#define GOLDEN "tests/unit/golden/policy/"
#define COLUMNS 5

static bool find_user(void *arg, const char *name, uid_t *ret)
{
	(void)arg;
	if (strcmp(name, "deploy") == 0)
		*ret = 2001;
	else if (strcmp(name, "nobody") == 0)
		*ret = 65534;
	else
		return false;
	return true;
}

static bool find_group(void *arg, const char *name, gid_t *ret)
{
	(void)arg;
	if (strcmp(name, "ops") == 0)
		*ret = 300;
	else if (strcmp(name, "nogroup") == 0)
		*ret = 65534;
	else
		return false;
	return true;
}

static const struct csm_resolver resolver = {NULL, find_user, find_group};

static char *read_file(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, CSM_POLICY_MAX);

	if (f == NULL || text == NULL)
		fail_msg("cannot read %s", path);
	assert_true(fread(text, 1, CSM_POLICY_MAX - 1, f) > 0);
	fclose(f);
	return text;
}

static struct csm_policy *parse(const char *text)
{
	struct csm_policy_error err;
	struct csm_policy *p = NULL;
	int r = csm_policy_parse(text, text != NULL ? strlen(text) : 0, &resolver, &p, &err);

	if (r != 0)
		fail_msg("%u:%u %s", err.line, err.column, err.message);
	return p;
}

static void append(char *buf, size_t size, const char *a, const char *b)
{
	size_t n = strlen(buf);

	snprintf(buf + n, size - n, "%s%s", a, b);
}

static char *trim(char *s)
{
	size_t n;

	while (*s == ' ')
		s++;
	for (n = strlen(s); n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\n'); n--)
		s[n - 1] = 0;
	return s;
}

static int split(char *line, char *ret[COLUMNS])
{
	int n = 0;

	for (int i = 0; i < COLUMNS; i++)
		ret[i] = line + strlen(line); /* a column that is not there is empty */
	for (char *next = line; next != NULL && n < COLUMNS; n++) {
		char *bar = n < COLUMNS - 1 ? strstr(next, "|") : NULL;
		if (bar != NULL)
			*bar = 0;
		ret[n] = trim(next);
		next = bar != NULL ? bar + 1 : NULL;
	}
	return n;
}

/* "uid=5 unit=a.service"; "elsewhere" is a peer of other namespaces, "pid0" one whose pid is not told. */
static struct csm_subject *subject_of(struct csm_policy *p, const char *column, struct csm_facts *f)
{
	char buf[512], *word, *rest = buf;
	struct csm_str sel[16];
	struct csm_subject *s;
	bool elsewhere = false, pid0 = false;
	size_t n = 0;

	snprintf(buf, sizeof(buf), "%s", column);
	while ((word = strsep(&rest, " ")) != NULL) {
		if (*word == 0)
			continue;
		assert_true(n < 16);
		if (strcmp(word, "elsewhere") == 0)
			elsewhere = true;
		else if (strcmp(word, "pid0") == 0)
			pid0 = true;
		else
			sel[n++] = csm_str_of(word);
	}
	assert_int_equal(csm_facts_from_selectors(sel, n, f), 0);
	f->same_ns = f->same_ns && !elsewhere && !pid0;
	f->valid = f->valid && !pid0;
	assert_int_equal(csm_subject_new(p, f, &s), 0);
	return s;
}

static void expect_text(const char *where, const char *got, const char *want)
{
	if (strcmp(got, want) != 0)
		fail_msg("%s: got \"%s\"", where, got);
}

static void check_home(const char *where, const struct csm_subject *s, char *col[COLUMNS])
{
	const char *why = "";
	struct csm_str home = {0};
	int r = csm_subject_home(s, &home, &why);

	if (r != 0) {
		expect_text(where, csm_err_name(r), col[3]);
		expect_text(where, why, col[4]);
	} else if (!csm_str_eq(home, col[3])) {
		fail_msg("%s: home is %.*s", where, (int)home.n, home.p);
	}
}

static void check_identities(const char *where, const struct csm_subject *s, char *col[COLUMNS])
{
	char all[256] = "";
	const char *name;

	for (size_t i = 0; (name = csm_subject_identity(s, i)) != NULL; i++) {
		append(all, sizeof(all), i > 0 ? " " : "", name);
	}
	expect_text(where, all, col[3]);
}

static void check_decision(const char *where, const struct csm_subject *s, char *col[COLUMNS])
{
	const struct csm_method *m = csm_method_find(csm_str_of(col[1]));
	const char *rule = "";
	char head[32];
	unsigned line = 99999;
	int r;

	if (m == NULL) {
		fail_msg("%s: no method %s", where, col[1]);
		return;
	}
	r = csm_policy_decide(s, m->perm, csm_str_of(col[2]), &rule, &line);
	expect_text(where, r == 0 ? "allow" : csm_err_name(r), col[3]);
	expect_text(where, rule, col[4]);
	/* the line is the one that the text names */
	snprintf(head, sizeof(head), "(line %u):", line);
	assert_int_equal(line != 0, strncmp(rule, "rule ", 5) == 0);
	assert_true(line == 0 || strstr(rule, head) != NULL);
	assert_int_equal(csm_policy_decide(s, m->perm, csm_str_of(col[2]), NULL, NULL), r);
}

static void check_line(struct csm_policy *p, const char *where, char *line, size_t *warnings)
{
	const struct csm_policy_error *w = NULL;
	struct csm_subject *s;
	struct csm_facts f;
	char *col[COLUMNS], at[32];
	int n = split(line, col);

	if (strcmp(col[0], "warning") == 0) {
		assert_true(n == 3 && *warnings < csm_policy_warnings(p, &w));
		if (w == NULL)
			return;
		snprintf(at, sizeof(at), "%u:%u", w[*warnings].line, w[*warnings].column);
		expect_text(where, at, col[1]);
		expect_text(where, w[*warnings].message, col[2]);
		++*warnings;
		return;
	}
	assert_true(n >= 4);
	s = subject_of(p, col[0], &f);
	csm_facts_clear(&f); /* a subject borrows nothing of the facts */
	if (strcmp(col[1], "home") == 0)
		check_home(where, s, col);
	else if (strcmp(col[1], "identities") == 0)
		check_identities(where, s, col);
	else
		check_decision(where, s, col);
	csm_subject_free(s);
}

static void run_table(const char *yaml)
{
	const struct csm_policy_error *w;
	struct csm_policy *p;
	char path[256], where[512], *text, *table, *line, *rest;
	size_t lines = 0, warnings = 0;
	bool none = strstr(yaml, "/no-file.") != NULL; /* the one table about no file at all */

	text = read_file(yaml);
	p = parse(none ? NULL : text);
	snprintf(path, sizeof(path), "%.*s.expect", (int)(strlen(yaml) - strlen(".yaml")), yaml);
	table = read_file(path);
	rest = table;
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (line[0] == '#' || line[0] == 0)
			continue;
		snprintf(where, sizeof(where), "%s: %s", path, line);
		check_line(p, where, line, &warnings);
		lines++;
	}
	assert_true(lines > 0);
	if (csm_policy_warnings(p, &w) != warnings)
		fail_msg("%s: warnings that the table does not have, from \"%s\"", path, w[warnings].message);
	csm_policy_unref(p);
	free(text);
	free(table);
}

static void test_tables(void **state)
{
	glob_t g;

	(void)state;
	assert_int_equal(glob(GOLDEN "*.yaml", 0, NULL, &g), 0);
	assert_true(g.gl_pathc >= 6);
	for (size_t i = 0; i < g.gl_pathc; i++)
		run_table(g.gl_pathv[i]);
	globfree(&g);
}

/* Cases "=== LINE:COLUMN MESSAGE", then the text that is refused. */
static void check_refusal(char *head, char *text)
{
	struct csm_policy_error err = {77, 77, "untouched"};
	struct csm_policy *p = NULL;
	char got[320];

	head = trim(head);
	if (csm_policy_parse(text, strlen(text), &resolver, &p, &err) != CSM_EINVALID)
		fail_msg("taken, but expected: %s", head);
	assert_null(p);
	snprintf(got, sizeof(got), "%u:%u %s", err.line, err.column, err.message);
	expect_text(head, got, head);
	/* names for the resolver come from the same text, and are refused for the same reason */
	assert_int_equal(csm_policy_names(text, strlen(text), NULL, NULL, &err), CSM_EINVALID);
}

static void test_refusals(void **state)
{
	char *all = read_file(GOLDEN "refusals.cases"), *head = strstr(all, "=== ");
	size_t n = 0;

	(void)state;
	while (head != NULL) {
		char *text = strchr(head, '\n') + 1;
		char *next = strstr(text - 1, "\n=== ");
		text[-1] = 0;
		if (next != NULL) {
			next[1] = 0;
			next += 1;
		}
		check_refusal(head + 4, text);
		if (next != NULL)
			*next = '=';
		head = next;
		n++;
	}
	assert_true(n >= 50);
	free(all);
}

static void refused(const char *text, size_t n, unsigned line, unsigned column, const char *message)
{
	struct csm_policy_error err;
	struct csm_policy *p = NULL;

	assert_int_equal(csm_policy_parse(text, n, NULL, &p, &err), CSM_EINVALID);
	assert_string_equal(err.message, message);
	assert_int_equal(err.line, line);
	assert_int_equal(err.column, column);
	assert_null(p);
}

/* What does not fit in a file of cases. */
static void test_refusals_of_bytes_and_sizes(void **state)
{
	static const char invalid[] = "version: 1\nx: \xff\n";
	static const char nul[] = "version: \"1\\0\"\n";
	char *big = malloc(CSM_POLICY_MAX + 1);
	size_t n;

	(void)state;
	assert_non_null(big);
	refused(invalid, sizeof(invalid) - 1, 2, 4, "not YAML: invalid leading UTF-8 octet");
	refused("version: 1\n\0", 12, 2, 1, "not YAML: control characters are not allowed");
	refused(nul, sizeof(nul) - 1, 1, 1, "version: control characters and line breaks are not allowed in a value");
	refused("", 0, 1, 1, "the file is empty");

	n = (size_t)snprintf(big, CSM_POLICY_MAX, "version: 1\n#");
	memset(big + n, 'x', CSM_POLICY_MAX + 1 - n);
	refused(big, CSM_POLICY_MAX + 1, 0, 0, "the file is longer than 524288 bytes");
	struct csm_policy *p;
	struct csm_policy_error err;
	assert_int_equal(csm_policy_parse(big, CSM_POLICY_MAX, NULL, &p, &err), 0);
	csm_policy_unref(p);

	n = (size_t)snprintf(big, CSM_POLICY_MAX, "version: 1\nidentities:\n");
	for (unsigned i = 0; i < CSM_POLICY_IDENTITIES_MAX + 1; i++)
		n += (size_t)snprintf(big + n, CSM_POLICY_MAX - n, "  i%u: {uid: 5}\n", i);
	refused(big, n, 2, 1, "identities: more than 1024 identities");

	n = (size_t)snprintf(big, CSM_POLICY_MAX, "version: 1\nidentities: {a: {uid: 5}}\nrules:\n");
	for (unsigned i = 0; i < CSM_POLICY_RULES_MAX + 1; i++)
		n += (size_t)snprintf(big + n, CSM_POLICY_MAX - n, "- {allow: [seal], to: [a], on: [\"a:*\"]}\n");
	refused(big, n, 3, 1, "rules: more than 4096 rules");

	n = (size_t)snprintf(big, CSM_POLICY_MAX, "version: 1\nrules:\n");
	for (unsigned i = 0; i < CSM_YAML_CHILDREN_MAX + 1; i++)
		n += (size_t)snprintf(big + n, CSM_POLICY_MAX - n, "- x\n");
	refused(big, n, 3 + CSM_YAML_CHILDREN_MAX, 3, "too many entries");
	free(big);
}

static void test_largest_counts(void **state)
{
	char *big = malloc(CSM_POLICY_MAX);
	struct csm_policy *p;
	size_t n;

	(void)state;
	assert_non_null(big);
	n = (size_t)snprintf(big, CSM_POLICY_MAX, "version: 1\nidentities:\n");
	for (unsigned i = 0; i < CSM_POLICY_IDENTITIES_MAX; i++)
		n += (size_t)snprintf(big + n, CSM_POLICY_MAX - n, "  i%u: {uid: %u}\n", i, i);
	n += (size_t)snprintf(big + n, CSM_POLICY_MAX - n, "rules:\n");
	for (unsigned i = 0; i < CSM_POLICY_RULES_MAX; i++)
		n += (size_t)snprintf(big + n, CSM_POLICY_MAX - n, "- {allow: [seal], to: [i%u], on: [\"a:*\"]}\n", i % 1024);
	p = parse(big);
	assert_int_equal(csm_policy_n_identities(p), CSM_POLICY_IDENTITIES_MAX);
	assert_int_equal(csm_policy_n_rules(p), CSM_POLICY_RULES_MAX);
	csm_policy_unref(p);
	free(big);
}

struct told {
	char all[256];
};

static void tell(void *arg, bool group, const char *name)
{
	struct told *t = arg;

	append(t->all, sizeof(t->all), group ? "g:" : "u:", name);
	append(t->all, sizeof(t->all), " ", "");
}

static void test_names(void **state)
{
	static const char text[] = "version: 1\nidentities:\n  a: {user: ann}\n  b: {user: ann, group: ann}\n"
				   "  c: {user: bob, uid: 7}\n  d: {uid: 9}\n";
	struct csm_policy_error err;
	struct told t = {""};

	(void)state;
	assert_int_equal(csm_policy_names(text, strlen(text), tell, &t, &err), 0);
	assert_non_null(strstr(t.all, "u:ann "));
	assert_non_null(strstr(t.all, "g:ann "));
	assert_non_null(strstr(t.all, "u:bob "));
	assert_int_equal(strlen(t.all), strlen("u:ann g:ann u:bob "));
}

/* Without a resolver names are taken, match nobody, and are no cause for a warning. */
static void test_no_resolver(void **state)
{
	static const char text[] = "version: 1\nidentities: {a: {user: root}}\nnamespaces: {n: {home-of: [a]}}\n";
	const struct csm_policy_error *w;
	struct csm_policy_error err;
	struct csm_policy *p;
	struct csm_subject *s;
	struct csm_facts f;

	(void)state;
	assert_int_equal(csm_policy_parse(text, strlen(text), NULL, &p, &err), 0);
	assert_int_equal(csm_policy_warnings(p, &w), 0);
	s = subject_of(p, "uid=0", &f);
	assert_null(csm_subject_identity(s, 0));
	assert_ptr_equal(csm_subject_policy(s), p);
	csm_subject_free(s);
	csm_policy_unref(p);
}

/* A subject holds its policy; an old one still judges by it after a reload. */
static void test_references(void **state)
{
	struct csm_policy *p = parse("version: 1\ndefault: uid-namespaces\n");
	struct csm_subject *s;
	struct csm_facts f;

	(void)state;
	s = subject_of(p, "uid=1000", &f);
	csm_policy_unref(csm_policy_ref(p));
	csm_policy_unref(p);
	assert_int_equal(csm_policy_decide(s, CSM_PERM_KEY_SIGN, CSM_STR("uid-1000:a"), NULL, NULL), 0);
	assert_int_equal(csm_policy_decide(s, CSM_PERM_KEY_SIGN, CSM_STR("uid-10000:a"), NULL, NULL), CSM_EDENIED);
	csm_subject_free(s);
	csm_subject_free(NULL);
	csm_policy_unref(NULL);
}

/* Objects are slices: what lies behind their end is not looked at. */
static void test_object_ends_where_it_ends(void **state)
{
	struct csm_policy *p = parse("version: 1\ndefault: uid-namespaces\nidentities: {a: {uid: 1000}}\nrules:\n"
				     "- {allow: [seal], to: [a], on: [\"web:app-*\", \"web:tls\"]}\n");
	static const char *const objects[] = {"web:app-1", "web:tls", "uid-1000:a"};
	static const size_t shortest[] = {8, 7, 9};
	struct csm_subject *s;
	struct csm_facts f;

	(void)state;
	s = subject_of(p, "uid=1000", &f);
	for (size_t i = 0; i < 3; i++)
		for (size_t n = 0; n <= strlen(objects[i]); n++)
			assert_int_equal(csm_policy_decide(s, CSM_PERM_SEAL, (struct csm_str){objects[i], n}, NULL, NULL),
				n >= shortest[i] ? 0 : CSM_EDENIED);
	csm_subject_free(s);
	csm_policy_unref(p);
}

/* Only who has all the rest of such an identity is worth a look, and only for what it would be granted. */
static void test_who_is_looked_at(void **state)
{
	static const char text[] = "version: 1\nidentities:\n"
		"  a: {uid: 5, exe: /bin/a}\n"
		"  b: {uid: 6, exe: {sha256: \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}}\n"
		"  h: {uid: 7, exe: /bin/a}\n"
		"namespaces: {home: {home-of: [h]}}\n"
		"rules:\n- {allow: [key.sign], to: [a, b], on: [\"x:*\"]}\n- {allow: [key.list], to: [h], on: [\"x:*\"]}\n";
	static const struct {
		uid_t uid;
		bool askable, looked, sign, show, digest, home;
	} cases[] = {
		{5, true, false, true, false, false, false},
		{5, false, false, false, false, false, false},
		{5, true, true, false, false, false, false},
		{6, true, false, true, false, true, false},
		{7, true, false, true, true, false, true},
		{8, true, false, false, false, false, false},
	};
	struct csm_exe exe = {.path = "/bin/other"};
	struct csm_policy_error err;
	struct csm_policy *p;

	(void)state;
	assert_int_equal(csm_policy_parse(text, sizeof(text) - 1, NULL, &p, &err), 0);
	assert_true(csm_policy_needs_exe(p));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct csm_facts f = {.uid = cases[i].uid, .gid = 1, .valid = true, .exe_askable = cases[i].askable,
			.exe = cases[i].looked ? &exe : NULL};
		struct csm_subject *s;
		bool digest = false;

		assert_int_equal(csm_subject_new(p, &f, &s), 0);
		assert_int_equal(csm_subject_wants_exe(s, CSM_PERM_KEY_SIGN, &digest), cases[i].sign);
		assert_int_equal(digest, cases[i].digest);
		assert_int_equal(csm_subject_wants_exe(s, CSM_PERM_KEY_SHOW, NULL), cases[i].show);
		assert_false(csm_subject_wants_exe(s, CSM_PERM_OPEN, NULL));
		assert_false(csm_subject_wants_exe(s, CSM_PERM_ADMIN, NULL));
		assert_int_equal(csm_subject_home_wants_exe(s), cases[i].home);
		csm_subject_free(s);
	}
	csm_policy_unref(p);
}

static void test_selectors_of_explain(void **state)
{
	static const char *const bad[] = {"", "uid", "uid=", "uid=x", "uid=-1", "uid=4294967295", "uid=01", "user=root",
		"exe=", "exe=bin/sh", "exe_sha256=00", "unit=", "=5", "uid=99999999999"};
	struct csm_str two[] = {CSM_STR("uid=1"), CSM_STR("uid=2")};
	struct csm_str good[] = {CSM_STR("uid=1"), CSM_STR("gid=2"), CSM_STR("gid=3"), CSM_STR("gid=4"),
		CSM_STR("pod=x=y")};
	struct csm_facts f;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct csm_str s = csm_str_of(bad[i]);
		assert_int_equal(csm_facts_from_selectors(&s, 1, &f), CSM_EINVALID);
	}
	assert_int_equal(csm_facts_from_selectors(two, 2, &f), CSM_EINVALID);
	assert_int_equal(csm_facts_from_selectors(good, 5, &f), 0);
	assert_int_equal(f.uid, 1);
	assert_int_equal(f.gid, 2);
	assert_int_equal(f.n_groups, 2);
	assert_int_equal(f.groups[1], 4);
	assert_string_equal(f.pod, "x=y");
	assert_false(f.same_ns);
	csm_facts_clear(&f);
}

/* A rule's text is bounded and stays UTF-8 where it is cut. */
static void test_rule_text_is_cut(void **state)
{
	char text[4096];
	const char *rule;
	struct csm_policy *p;
	struct csm_subject *s;
	struct csm_facts f;

	(void)state;
	for (unsigned shift = 0; shift < 4; shift++) {
		size_t n = (size_t)snprintf(text, sizeof(text),
			"version: 1\nidentities: {a: {uid: 5}}\nrules:\n- {allow: [seal], to: [a], on: [\"a:%.*s", (int)shift, "xxxx");
		for (int i = 0; i < 40; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "\xc3\xa4\xe2\x82\xac");
		for (int i = 0; i < 40; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "\", \"a:\xc3\xa4\xe2\x82\xac*");
		snprintf(text + n, sizeof(text) - n, "\"]}\n");
		p = parse(text);
		s = subject_of(p, "uid=5", &f);
		assert_int_equal(csm_policy_decide(s, CSM_PERM_SEAL, CSM_STR("a:\xc3\xa4\xe2\x82\xacx"), &rule, NULL), 0);
		assert_true(strlen(rule) <= 512 && strlen(rule) > 500);
		assert_true(csm_utf8_valid(rule, strlen(rule)));
		assert_string_equal(rule + strlen(rule) - 3, "...");
		csm_subject_free(s);
		csm_policy_unref(p);
	}
}

/* The installed file gives each uid its own namespace, and no more. */
static void test_installed_file(void **state)
{
	char *text = read_file("daemon/node/etc/policy.yaml");
	struct csm_policy *p;

	(void)state;
	assert_string_equal(text, "version: 1\ndefault: uid-namespaces\n");
	p = parse(text);
	assert_int_equal(csm_policy_n_identities(p) + csm_policy_n_rules(p), 0);
	assert_false(csm_policy_needs_exe(p));
	csm_policy_unref(p);
	free(text);
}

struct spaces {
	char text[256];
};

static void space_found(void *arg, struct csm_str ns)
{
	struct spaces *sp = arg;
	size_t n = strlen(sp->text);

	snprintf(sp->text + n, sizeof(sp->text) - n, "%.*s ", (int)ns.n, ns.p);
}

/* The namespaces that rules name, and those that their patterns would match. */
static void test_namespaces_of_a_subject(void **state)
{
	struct csm_policy *p = parse("version: 1\ndefault: uid-namespaces\nidentities:\n  a: {uid: 5}\n  b: {uid: 6}\n"
		"rules:\n- {allow: [key.sign], to: [a], on: [\"web:*\", \"one:key\", \"list:\"]}\n"
		"- {allow: [secret.get], to: [a], on: [\"shared:db/*\"]}\n"
		"- {allow: [key.sign], to: [b], on: [\"team-*:tls\", \"*.x:*\", \"lit:a*b\"]}\n");
	struct csm_facts f;
	struct csm_subject *s = subject_of(p, "uid=5", &f);
	struct spaces sp = {""};

	(void)state;
	assert_false(csm_subject_namespaces(s, space_found, &sp));
	assert_string_equal(sp.text, "uid-5 web one list shared ");
	assert_true(csm_subject_in_namespace(s, CSM_STR("web")));
	assert_true(csm_subject_in_namespace(s, CSM_STR("uid-5")));
	assert_false(csm_subject_in_namespace(s, CSM_STR("we")));
	assert_false(csm_subject_in_namespace(s, CSM_STR("webb")));
	assert_false(csm_subject_in_namespace(s, CSM_STR("uid-6")));
	csm_subject_free(s);
	s = subject_of(p, "uid=6", &f);
	sp.text[0] = '\0';
	assert_true(csm_subject_namespaces(s, space_found, &sp));
	assert_string_equal(sp.text, "uid-6 lit ");
	assert_true(csm_subject_in_namespace(s, CSM_STR("team-")));
	assert_true(csm_subject_in_namespace(s, CSM_STR("team-red")));
	assert_true(csm_subject_in_namespace(s, CSM_STR("a.x")));
	assert_false(csm_subject_in_namespace(s, CSM_STR("team")));
	assert_false(csm_subject_in_namespace(s, CSM_STR("web")));
	csm_subject_free(s);
	s = subject_of(p, "uid=70000", &f);
	sp.text[0] = '\0';
	assert_false(csm_subject_namespaces(s, space_found, &sp));
	assert_string_equal(sp.text, "uid-70000 ");
	csm_subject_free(s);
	csm_policy_unref(p);
	/* no policy serves the peer */
	p = parse("version: 1\n");
	s = subject_of(p, "uid=5", &f);
	sp.text[0] = '\0';
	assert_false(csm_subject_namespaces(s, space_found, &sp));
	assert_string_equal(sp.text, "");
	assert_false(csm_subject_in_namespace(s, CSM_STR("uid-5")));
	csm_subject_free(s);
	csm_policy_unref(p);
}

/* Every permission of methods.def can be granted by its name, and no other row can. */
static void test_every_permission(void **state)
{
	char text[256];
	struct csm_policy_error err;

	(void)state;
	for (int i = 0; i < CSM_M__COUNT; i++) {
		struct csm_policy *p = NULL;
		bool grantable = csm_methods[i].perm == i;
		int r;
		snprintf(text, sizeof(text),
			"version: 1\nidentities: {a: {uid: 5}}\nrules:\n- {allow: [%s], to: [a], on: [\"a:*\"]}\n",
			csm_methods[i].name);
		r = csm_policy_parse(text, strlen(text), NULL, &p, &err);
		assert_int_equal(r, grantable ? 0 : CSM_EINVALID);
		if (!grantable)
			continue;
		struct csm_facts f;
		struct csm_subject *s = subject_of(p, "uid=5", &f);
		for (int other = 0; other < CSM_M__COUNT; other++)
			if (csm_methods[other].perm == other)
				assert_int_equal(csm_policy_decide(s, other, CSM_STR("a:x"), NULL, NULL),
					other == i ? 0 : CSM_EDENIED);
		csm_subject_free(s);
		csm_policy_unref(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_refusals_of_bytes_and_sizes),
		cmocka_unit_test(test_largest_counts),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_no_resolver),
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_object_ends_where_it_ends),
		cmocka_unit_test(test_who_is_looked_at),
		cmocka_unit_test(test_selectors_of_explain),
		cmocka_unit_test(test_rule_text_is_cut),
		cmocka_unit_test(test_installed_file),
		cmocka_unit_test(test_namespaces_of_a_subject),
		cmocka_unit_test(test_every_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
