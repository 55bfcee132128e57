/* What issuers' keys have signed, in the store: a serial number once, over restarts too, and changes behind csmd's back found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/svc/store_internal.h"
#include "tests/lib/storefix.h"

#define RULES "the rules, as somebody packed them"

#define PAGE 4096

/* LMDB's too. */
static unsigned syncs_fail;
__attribute__((visibility("default"))) int fdatasync(int fd)
{
	if (syncs_fail == 0)
		return (int)syscall(SYS_fdatasync, fd);
	syncs_fail--;
	errno = EIO;
	return -1;
}

static int make(struct storefix *f, const char *name, unsigned use, const char *rules)
{
	struct csm_store_op op = {.kind = CSM_OP_KEY_CREATE, .ns = CSM_STR("ca"), .name = csm_str_of(name)};

	op.key = (struct csm_key_record){.backend = CSM_STR("soft"), .protection = CSM_STR("sealed"), .alg = CSM_ALG_P256, .use = use,
		.spki = {(const uint8_t *)"spki", 4}, .pub = {(const uint8_t *)"pub", 3}, .priv = {(const uint8_t *)"private", 7}};
	if (rules != NULL)
		op.key.issuer = (struct csm_bin){(const uint8_t *)rules, strlen(rules)};
	return storefix_do(f, &op);
}

static struct storefix *fix(bool with_counter)
{
	static struct storefix f;

	storefix_init(&f);
	f.with_counter = with_counter;
	f.opt.keep_journal = !with_counter;
	if (storefix_open(&f) != 0)
		return NULL;
	assert_int_equal(make(&f, "root", CSM_USE_ISSUER, RULES), 0);
	assert_int_equal(make(&f, "other", CSM_USE_ISSUER, RULES), 0);
	assert_int_equal(make(&f, "plain", CSM_USE_SIGN, NULL), 0);
	return &f;
}

static int setup(void **state)
{
	*state = fix(true);
	return *state != NULL ? 0 : -1;
}

/* What is in the journal stays there; a counter in memory would not outlive a process. */
static int setup_journal(void **state)
{
	*state = fix(false);
	return *state != NULL ? 0 : -1;
}

static int teardown(void **state)
{
	storefix_free(*state);
	return 0;
}

static int get(struct storefix *f, const char *name, struct csm_key_record *rec)
{
	struct csm_buf scratch;
	int r;

	csm_buf_init(&scratch, CSM_MESSAGE_MAX, true);
	assert_int_equal(csm_reader_begin(f->r), 0);
	r = csm_store_key_get(f->r, CSM_STR("ca"), csm_str_of(name), true, &scratch, rec);
	if (r == 0 && rec->issuer.n > 0)
		assert_memory_equal(rec->issuer.p, RULES, strlen(RULES));
	csm_reader_end(f->r);
	csm_buf_free(&scratch);
	return r;
}

static int issue_of(struct storefix *f, const char *name, const uint8_t *id, enum csm_issue_kind kind, const char *number, uint64_t rate)
{
	struct csm_store_issue i = {.kind = kind, .number = {(const uint8_t *)number, strlen(number)}, .rate = rate};
	struct csm_store_op op = {.kind = CSM_OP_ISSUE, .ns = CSM_STR("ca"), .name = csm_str_of(name), .issue = &i};

	memcpy(op.key.id, id, CSM_KEY_ID_LEN);
	return storefix_do(f, &op);
}

static int issue(struct storefix *f, const char *name, enum csm_issue_kind kind, const char *number, uint64_t rate)
{
	struct csm_key_record rec;

	assert_int_equal(get(f, name, &rec), 0);
	return issue_of(f, name, rec.id, kind, number, rate);
}
#define SERIAL(f, name, number) issue(f, name, CSM_ISSUE_SERIAL, number, 0)
#define CRL(f, name, number) issue(f, name, CSM_ISSUE_CRL, number, 0)

static void again(struct storefix *f)
{
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

static void rules_come_back_as_they_were(void **state)
{
	struct storefix *f = *state;
	struct csm_key_record rec;

	again(f);
	assert_int_equal(get(f, "root", &rec), 0);
	assert_int_equal(rec.use, CSM_USE_ISSUER);
	assert_int_equal(rec.issuer.n, strlen(RULES));
	assert_int_equal(get(f, "plain", &rec), 0);
	assert_int_equal(rec.issuer.n, 0);
	/* the one without the other is no key */
	assert_int_equal(make(f, "bare", CSM_USE_ISSUER, NULL), CSM_EINVALID);
	assert_int_equal(make(f, "mixed", CSM_USE_SIGN, RULES), CSM_EINVALID);
	assert_int_equal(make(f, "both", CSM_USE_ISSUER | CSM_USE_SIGN, RULES), CSM_EINVALID);
}

static void a_serial_number_is_used_once(void **state)
{
	struct storefix *f = *state;
	uint8_t zero[CSM_KEY_ID_LEN] = {1};

	assert_int_equal(SERIAL(f, "root", "12345678"), 0);
	assert_int_equal(SERIAL(f, "root", "12345678"), CSM_EEXISTS);
	assert_int_equal(SERIAL(f, "root", "123456789"), 0);
	assert_int_equal(SERIAL(f, "root", "1234567"), 0);
	assert_int_equal(SERIAL(f, "other", "12345678"), 0);
	assert_int_equal(SERIAL(f, "plain", "12345678"), CSM_EINVALID);
	assert_int_equal(SERIAL(f, "root", ""), CSM_EINVALID);
	assert_int_equal(SERIAL(f, "root", "123456789012345678901"), CSM_EINVALID);
	assert_int_equal(issue_of(f, "root", zero, CSM_ISSUE_SERIAL, "87654321", 0), CSM_ECONFLICT);
	assert_int_equal(issue_of(f, "none", zero, CSM_ISSUE_SERIAL, "87654321", 0), CSM_ENOT_FOUND);
	again(f);
	assert_int_equal(SERIAL(f, "root", "12345678"), CSM_EEXISTS);
	assert_int_equal(SERIAL(f, "root", "87654321"), 0);
}

static void they_go_with_their_key(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_KEY_DELETE, .ns = CSM_STR("ca"), .name = CSM_STR("root")};
	struct csm_key_record rec;

	assert_int_equal(SERIAL(f, "root", "12345678"), 0);
	assert_int_equal(SERIAL(f, "other", "12345678"), 0);
	assert_int_equal(CRL(f, "root", "9"), 0);
	assert_int_equal(get(f, "root", &rec), 0);
	assert_int_equal(storefix_do(f, &op), 0);
	assert_int_equal(make(f, "root", CSM_USE_ISSUER, RULES), 0);
	assert_int_equal(issue_of(f, "root", rec.id, CSM_ISSUE_SERIAL, "22345678", 0), CSM_ECONFLICT);
	assert_int_equal(SERIAL(f, "root", "12345678"), 0);
	assert_int_equal(CRL(f, "root", "1"), 0);
	again(f);
	assert_int_equal(SERIAL(f, "other", "12345678"), CSM_EEXISTS);
}

static void lists_do_not_go_back(void **state)
{
	struct storefix *f = *state;

	assert_int_equal(CRL(f, "root", "\x07"), 0);
	assert_int_equal(CRL(f, "root", "\x06"), CSM_ECONFLICT);
	assert_int_equal(CRL(f, "root", "\x07"), 0);
	assert_int_equal(CRL(f, "root", "\x01\x01"), 0);
	again(f);
	assert_int_equal(CRL(f, "root", "\xff"), CSM_ECONFLICT);
	assert_int_equal(CRL(f, "other", "\x01"), 0);
}

static void the_rate_is_of_all_kinds_and_kept(void **state)
{
	struct storefix *f = *state;

	assert_int_equal(issue(f, "root", CSM_ISSUE_SERIAL, "12345678", 3), 0);
	assert_int_equal(issue(f, "root", CSM_ISSUE_CRL, "\x01", 3), 0);
	/* what is refused is not counted */
	assert_int_equal(issue(f, "root", CSM_ISSUE_SERIAL, "12345678", 3), CSM_EEXISTS);
	assert_int_equal(issue(f, "root", CSM_ISSUE_OTHER, "", 3), 0);
	assert_int_equal(issue(f, "root", CSM_ISSUE_OTHER, "", 3), CSM_EBUSY);
	again(f);
	assert_int_equal(issue(f, "root", CSM_ISSUE_SERIAL, "22345678", 3), CSM_EBUSY);
	assert_int_equal(issue(f, "root", CSM_ISSUE_SERIAL, "22345678", 4), 0);
	assert_int_equal(issue(f, "other", CSM_ISSUE_OTHER, "", 1), 0);
}

/* ---- behind csmd's back ---- */

static void serials_open(struct storefix *f, struct rawstore *w, MDB_dbi *dbi)
{
	storefix_close(f);
	raw_open(f, w);
	assert_int_equal(mdb_dbi_open(w->txn, "serials", 0, dbi), 0);
}

static void found_and_accepted(struct storefix *f, const char *what)
{
	struct csm_store_op op = {.kind = CSM_OP_ACCEPT};

	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	assert_true(storefix_damaged(f, what));
	assert_int_equal(storefix_do(f, &op), 0);
	again(f);
}

static void a_number_taken_out_or_put_in_is_found(void **state)
{
	struct storefix *f = *state;
	uint8_t key[CSM_KEY_ID_LEN + 8];
	struct csm_key_record rec;
	struct rawstore w;
	MDB_dbi dbi;

	assert_int_equal(get(f, "root", &rec), 0);
	memcpy(key, rec.id, CSM_KEY_ID_LEN);
	for (size_t i = 0; i < 8; i++)
		key[CSM_KEY_ID_LEN + i] = (uint8_t)('1' + i);
	assert_int_equal(SERIAL(f, "root", "12345678"), 0);
	assert_int_equal(SERIAL(f, "root", "22345678"), 0);
	serials_open(f, &w, &dbi);
	raw_del(&w, dbi, key, sizeof(key));
	raw_close(&w);
	found_and_accepted(f, "serials");
	assert_int_equal(SERIAL(f, "root", "22345678"), CSM_EEXISTS);
	assert_int_equal(SERIAL(f, "root", "32345678"), 0);
	/* one for another: as many as before */
	serials_open(f, &w, &dbi);
	key[CSM_KEY_ID_LEN] = '3';
	raw_del(&w, dbi, key, sizeof(key));
	key[CSM_KEY_ID_LEN] = '9';
	raw_put(&w, dbi, key, sizeof(key), "", 0);
	raw_close(&w);
	found_and_accepted(f, "serials");
	assert_int_equal(SERIAL(f, "root", "92345678"), CSM_EEXISTS);
	/* all of them */
	serials_open(f, &w, &dbi);
	assert_int_equal(mdb_drop(w.txn, dbi, 0), 0);
	raw_close(&w);
	found_and_accepted(f, "serials");
	assert_int_equal(SERIAL(f, "root", "92345678"), 0);
}

static void changed_rules_are_found(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_ACCEPT};
	struct csm_key_record rec;
	struct rawstore w;
	uint8_t *v, *at;
	size_t n;

	storefix_close(f);
	raw_open(f, &w);
	v = raw_get(&w, w.keys, "ca\0root", 7, &n);
	at = memmem(v, n, RULES, strlen(RULES));
	assert_non_null(at);
	at[0] ^= 1;
	raw_put(&w, w.keys, "ca\0root", 7, v, n);
	raw_close(&w);
	free(v);
	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	assert_true(storefix_damaged(f, "ca:root"));
	assert_int_equal(storefix_do(f, &op), 0);
	/* accepted or not: such a key is gone */
	assert_int_equal(get(f, "root", &rec), CSM_ENOT_FOUND);
	assert_int_equal(SERIAL(f, "other", "12345678"), 0);
	again(f);
}

/* ---- in the journal, before LMDB has it ---- */

static uint64_t in_journal(const struct storefix *f)
{
	return f->s->journal.entries;
}

/* A process that opens the store, does that, and is gone. */
static void crash_after(struct storefix *f, int (*work)(struct storefix *f))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(storefix_open(f) == 0 && !csm_store_locked(f->s) ? work(f) : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int three_entries(struct storefix *f)
{
	bool good = SERIAL(f, "root", "12345678") == 0 && in_journal(f) == 1 && issue(f, "root", CSM_ISSUE_CRL, "\x07", 9) == 0 &&
		SERIAL(f, "root", "22345678") == 0 && in_journal(f) == 3;

	/* what is refused has no entry */
	return good && SERIAL(f, "root", "12345678") == CSM_EEXISTS && SERIAL(f, "root", "22345678") == CSM_EEXISTS &&
			CRL(f, "root", "\x06") == CSM_ECONFLICT && issue(f, "root", CSM_ISSUE_OTHER, "", 3) == CSM_EBUSY && in_journal(f) == 3 ?
		0 : 1;
}

static void journal_change(struct storefix *f, unsigned page, size_t at, size_t n)
{
	uint8_t p[PAGE];
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/store/journal", f->dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, p, PAGE, (off_t)page * PAGE), PAGE);
	for (size_t i = at; i < at + n; i++)
		p[i] ^= 1;
	assert_int_equal(pwrite(fd, p, PAGE, (off_t)page * PAGE), PAGE);
	close(fd);
}

static void nothing_answered_is_forgotten_in_a_crash(void **state)
{
	struct storefix *f = *state;

	storefix_close(f);
	store_copy(f, "store/data.mdb", "base");
	for (int i = 0; i < 2; i++) {
		crash_after(f, three_entries);
		again(f);
		assert_int_equal(in_journal(f), 0);
		assert_int_equal(SERIAL(f, "root", "12345678"), CSM_EEXISTS);
		assert_int_equal(SERIAL(f, "root", "22345678"), CSM_EEXISTS);
		assert_int_equal(CRL(f, "root", "\x06"), CSM_ECONFLICT);
		assert_int_equal(issue(f, "root", CSM_ISSUE_OTHER, "", 3), CSM_EBUSY);
		assert_int_equal(SERIAL(f, "other", "22345678"), 0);
		storefix_close(f);
		/* and once more, from a database without them and a journal of zeros */
		store_copy(f, "base", "store/data.mdb");
	}
}

/* The last entry did not reach the disk as a whole: then it was not answered. All before it was. */
static void of_a_torn_entry_nothing_counts(void **state)
{
	static const size_t at[] = {0, 8, 16, 24, 56, 300};
	struct storefix *f = *state;

	storefix_close(f);
	crash_after(f, three_entries);
	store_copy(f, "store/data.mdb", "base");
	store_copy(f, "store/journal", "whole");
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		store_copy(f, "base", "store/data.mdb");
		store_copy(f, "whole", "store/journal");
		journal_change(f, 2, at[i], 8);
		again(f);
		assert_int_equal(SERIAL(f, "root", "12345678"), CSM_EEXISTS);
		assert_int_equal(CRL(f, "root", "\x06"), CSM_ECONFLICT);
		assert_int_equal(SERIAL(f, "root", "22345678"), 0);
		assert_int_equal(SERIAL(f, "root", "22345678"), CSM_EEXISTS);
		storefix_close(f);
	}
	/* an answered one that is taken away or changed is found */
	store_copy(f, "base", "store/data.mdb");
	store_copy(f, "whole", "store/journal");
	journal_change(f, 0, 60, 1);
	found_and_accepted(f, "root");
}

/* LMDB's transaction is thrown away, with all that only it had of the rows: they come back from the journal. */
static void a_failed_group_forgets_none_before_it(void **state)
{
	static const unsigned fails[] = {1, 2};
	struct storefix *f = *state;

	assert_int_equal(SERIAL(f, "root", "12345678"), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(SERIAL(f, "root", i == 0 ? "32345678" : "42345678"), 0);
		assert_true(in_journal(f) > 0);
		syncs_fail = fails[i];
		/* the first failure is the entry's, the second LMDB's, which was to have it instead */
		assert_int_equal(SERIAL(f, "root", i == 0 ? "52345678" : "62345678"), i == 0 ? 0 : CSM_ESYSTEM);
		assert_int_equal(syncs_fail, 0);
		assert_int_equal(SERIAL(f, "root", "12345678"), CSM_EEXISTS);
		assert_int_equal(SERIAL(f, "root", i == 0 ? "32345678" : "42345678"), CSM_EEXISTS);
	}
	/* what was refused was not signed, and its number is free */
	assert_int_equal(SERIAL(f, "root", "52345678"), CSM_EEXISTS);
	assert_int_equal(SERIAL(f, "root", "62345678"), 0);
	again(f);
	assert_int_equal(SERIAL(f, "root", "42345678"), CSM_EEXISTS);
	assert_int_equal(SERIAL(f, "root", "62345678"), CSM_EEXISTS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define JOURNAL(name) cmocka_unit_test_setup_teardown(name, setup_journal, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rules_come_back_as_they_were),
		TEST(a_serial_number_is_used_once),
		TEST(they_go_with_their_key),
		TEST(lists_do_not_go_back),
		TEST(the_rate_is_of_all_kinds_and_kept),
		TEST(a_number_taken_out_or_put_in_is_found),
		TEST(changed_rules_are_found),
		JOURNAL(nothing_answered_is_forgotten_in_a_crash),
		JOURNAL(of_a_torn_entry_nothing_counts),
		JOURNAL(a_failed_group_forgets_none_before_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
