/* A group that is refused at its end, after its rows are in LMDB's transaction, which others before it have left open: nothing of it
 * stays for those that come behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/lib/auditfix.h"
#include "tests/lib/storefix.h"

static int set_told(struct storefix *f, const char *name)
{
	struct csm_audit_event e = audit_event_of(CSM_AUDIT_CHANGE, "secret.set", 1000, name);
	struct csm_store_op op = {.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = csm_str_of(name),
		.payload = {(const uint8_t *)name, strlen(name)}, .event = &e};

	return storefix_do(f, &op);
}

static int get(struct storefix *f, const char *name)
{
	char v[256];

	return storefix_get(f, "web", "db", name, 0, v);
}

static bool holds(struct storefix *f)
{
	struct csm_store_stat st;

	csm_store_stat(f->s, &st);
	return st.secrets == 2 && get(f, "a") == 0 && get(f, "b") == CSM_ENOT_FOUND && get(f, "c") == 0;
}

/* The audit log cannot be written, and nothing goes without it. */
static int refused_by_the_log(struct storefix *f, struct csm_audit *a)
{
	if (csm_store_open(&f->opt, &f->s) != 0 || csm_store_tell(f->s, a) != 0 || csm_store_start(f->s) != 0 ||
		csm_reader_new(f->s, &f->r) != 0 || set_told(f, "a") != 0)
		return 1;
	audit_limit_file(audit_file_size() + 20);
	if (set_told(f, "b") != CSM_EUNAVAILABLE || get(f, "b") != CSM_ENOT_FOUND)
		return 2;
	audit_limit_file(RLIM_INFINITY);
	csm_audit_tick(a);
	if (set_told(f, "c") != 0)
		return 3;
	if (!holds(f))
		return 4;
	/* With this LMDB commits all that its transaction has. */
	return storefix_domain(f, "web", "other") == 0 && holds(f) ? 0 : 5;
}

static void test_refused(void **state)
{
	struct storefix f;
	struct csm_audit *a;
	int status;
	pid_t pid;

	(void)state;
	storefix_init(&f);
	f.opt.keep_journal = true;
	assert_int_equal(storefix_open(&f), 0);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	storefix_close(&f);
	audit_options.strict = true;
	a = audit_opened();
	assert_non_null(a);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(refused_by_the_log(&f, a));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	csm_audit_close(a);
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	assert_true(holds(&f));
	storefix_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refused, audit_setup, audit_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
