#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "libclient/base/chain.h"
#include "libclient/base/hex.h"

/* A log in memory: two files of lines, as the daemon makes them. */
#define FILES 2
#define PER_FILE 12
#define LINES (FILES * PER_FILE)

struct log {
	char text[LINES + 2][512];
	size_t n;
	size_t file_at[FILES]; /* index of the first line of each file */
};
static uint8_t public_key[32], secret_key[64], last_hash[32];

__attribute__((format(printf, 2, 3))) static void append(char *line, const char *fmt, ...)
{
	size_t n = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + n, 512 - n, fmt, ap);
	va_end(ap);
}

static void finish_line(char *line, const uint8_t prev[static 32], uint8_t hash[static 32])
{
	char hex[65];

	csm_chain_hash(prev, (struct csm_bin){(const uint8_t *)line, strlen(line)}, hash);
	csm_hex(hash, 32, hex);
	append(line, ",\"hash\":\"%s\"}", hex);
}

static void checkpoint(char *line, unsigned seq, const uint8_t prev[static 32])
{
	size_t n = sizeof(CSM_CHAIN_SIGNED) - 1, len;
	uint8_t text[700], signature[64];
	char hex[129];

	csm_hex(public_key, 32, hex);
	snprintf(line, 512, "{\"seq\":%u,\"time\":5,\"event\":\"checkpoint\",\"key\":\"%s\"", seq, hex);
	memcpy(text, CSM_CHAIN_SIGNED, n);
	memcpy(text + n, prev, 32);
	len = strlen(line);
	memcpy(text + n + 32, line, len);
	crypto_sign_detached(signature, NULL, text, n + 32 + len, secret_key);
	csm_hex(signature, 64, hex);
	append(line, ",\"signature\":\"%s\"", hex);
}

/* From line `first` (an index) on, with the hash of the line before: also what one does who changes a line and makes the
 * rest fit, but for the signatures. */
static void make(struct log *l, size_t first, const uint8_t before[static 32], const char *what, bool sign)
{
	uint8_t prev[32], hash[32];
	char hex[65];

	memcpy(prev, before, 32);
	for (size_t i = first; i < LINES; i++) {
		unsigned seq = (unsigned)i + 1;

		csm_hex(prev, 32, hex);
		if (i % PER_FILE == 0)
			snprintf(l->text[i], 512, "{\"seq\":%u,\"time\":5,\"event\":\"file\",\"prev\":\"%s\",\"version\":1", seq, hex);
		else if (i % PER_FILE == 5 && sign)
			checkpoint(l->text[i], seq, prev);
		else if (i % PER_FILE == 5)
			*strstr(l->text[i], ",\"hash\"") = '\0';
		else
			snprintf(l->text[i], 512, "{\"seq\":%u,\"time\":5,\"event\":\"change\",\"object\":\"%s:%u\"", seq,
				i == first ? what : "k", seq);
		finish_line(l->text[i], prev, hash);
		memcpy(prev, hash, 32);
	}
	l->n = LINES;
	for (size_t f = 0; f < FILES; f++)
		l->file_at[f] = f * PER_FILE;
	if (sign)
		memcpy(last_hash, prev, 32);
}

static struct log good(void)
{
	static const uint8_t zeros[32];
	struct log l;

	memset(&l, 0, sizeof(l));
	make(&l, 0, zeros, "k", true);
	return l;
}

/* ---- what was found ---- */

struct found {
	size_t problems, notes;
	size_t uncovered;
	struct csm_chain_finding first, note, open;
	struct csm_chain_finding all[64];
};
static struct found found;
static struct csm_chain_sum sum;
static bool with_head = true, with_key = true, all_given = true;

static void on_found(void *arg, const struct csm_chain_finding *f)
{
	(void)arg;
	if (f->problem == CSM_CHAIN_NOTE) {
		found.note = *f;
		found.notes++;
		return;
	}
	if (f->problem == CSM_CHAIN_UNCOVERED) {
		found.open = *f;
		found.uncovered++;
		return;
	}
	if (found.problems == 0)
		found.first = *f;
	if (found.problems < 64)
		found.all[found.problems] = *f;
	found.problems++;
}

static void check(const struct log *l)
{
	static const char *const names[FILES] = {"one", "two"};
	struct csm_chain_check *c;

	memset(&found, 0, sizeof(found));
	assert_int_equal(csm_chain_check_new(on_found, NULL, &c), 0);
	if (with_head)
		csm_chain_check_head(c, LINES, last_hash, all_given);
	if (with_key)
		csm_chain_check_key(c, public_key);
	for (size_t i = 0; i < l->n; i++) {
		for (size_t f = 0; f < FILES; f++)
			if (l->file_at[f] == i)
				csm_chain_check_file(c, names[f]);
		csm_chain_check_line(c, l->text[i], strlen(l->text[i]));
	}
	csm_chain_check_end(c, &sum);
	csm_chain_check_free(c);
	assert_int_equal(sum.problems, found.problems);
	assert_int_equal(sum.notes, found.notes);
}

static bool has(enum csm_chain_problem p, const char *file, uint64_t line, uint64_t seq, uint64_t last)
{
	for (size_t i = 0; i < found.problems && i < 64; i++) {
		const struct csm_chain_finding *f = &found.all[i];

		if (f->problem == p && strcmp(f->file, file) == 0 && f->line == line && f->seq == seq && f->last == last)
			return true;
	}
	for (size_t i = 0; i < found.problems && i < 64; i++)
		print_message("found %s %s:%u seq %u..%u\n", csm_chain_problem_name(found.all[i].problem), found.all[i].file,
			(unsigned)found.all[i].line, (unsigned)found.all[i].seq, (unsigned)found.all[i].last);
	return false;
}

static const char *file_of(size_t i)
{
	return i < PER_FILE ? "one" : "two";
}

static uint64_t line_of(size_t i)
{
	return i % PER_FILE + 1;
}

static void take_out(struct log *l, size_t i)
{
	memmove(l->text[i], l->text[i + 1], (l->n - i - 1) * sizeof(l->text[0]));
	l->n--;
	for (size_t f = 0; f < FILES; f++)
		l->file_at[f] -= l->file_at[f] > i;
}

static void put_in(struct log *l, size_t i, const char *text)
{
	char copy[512];

	snprintf(copy, sizeof(copy), "%s", text);
	memmove(l->text[i + 1], l->text[i], (l->n - i) * sizeof(l->text[0]));
	memcpy(l->text[i], copy, sizeof(copy));
	l->n++;
	for (size_t f = 0; f < FILES; f++)
		l->file_at[f] += l->file_at[f] > i || (l->file_at[f] == i && i > 0);
}

/* ---- tests ---- */

static void a_good_log_has_nothing(void **state)
{
	struct log l = good();

	(void)state;
	check(&l);
	assert_int_equal(found.problems, 0);
	assert_int_equal(found.notes, 0);
	assert_int_equal(sum.lines, LINES);
	assert_int_equal(sum.first, 1);
	assert_int_equal(sum.last, LINES);
	assert_int_equal(sum.checkpoints, 2);
	assert_int_equal(sum.signed_to, PER_FILE + 5);
	assert_true(sum.head_seen);
	assert_int_equal(sum.uncovered, 0);
	assert_int_equal(found.uncovered, 0);
}

static void every_changed_byte_is_found_at_its_line(void **state)
{
	struct log all = good();

	(void)state;
	for (size_t i = 0; i < LINES; i++)
		for (size_t at = 0; at < strlen(all.text[i]); at += 3) {
			struct log l = all;

			l.text[i][at] ^= 1;
			if (l.text[i][at] == '\0')
				continue;
			check(&l);
			if (found.problems == 0)
				fail_msg("line %zu byte %zu", i, at);
			/* Where the number or the hash itself was changed it may show at the next line. */
			assert_string_equal(found.first.file, file_of(i));
			assert_in_range(found.first.line, 1, line_of(i) + 1);
		}
}

static void a_changed_line_is_named(void **state)
{
	struct log all = good();

	(void)state;
	for (size_t i = 1; i < LINES; i++) {
		struct log l = all;
		char *object = strstr(l.text[i], "\"k:");

		if (object == NULL)
			continue;
		object[1] = 'x';
		check(&l);
		assert_int_equal(found.problems, 1);
		assert_true(has(CSM_CHAIN_CHANGED, file_of(i), line_of(i), i + 1, i + 1));
	}
}

/* Who can write the log only can make all of it fit from the changed line on, but neither the signature nor the end. */
static void a_log_made_anew_is_found(void **state)
{
	struct log all = good();

	(void)state;
	for (size_t i = 1; i < LINES; i++) {
		struct log l = all;
		struct csm_chain_line before;

		if (i % PER_FILE == 0 || i % PER_FILE == 5)
			continue;
		assert_int_equal(csm_chain_parse(l.text[i - 1], strlen(l.text[i - 1]), &before), 0);
		make(&l, i, before.hash, "forged", false);
		with_key = false;
		check(&l);
		assert_int_equal(found.problems, 1);
		assert_true(has(CSM_CHAIN_CHANGED, "two", PER_FILE, LINES, LINES));
		with_key = true;
		with_head = false;
		check(&l);
		/* Behind the last checkpoint only the end tells. */
		assert_int_equal(found.problems > 0, i <= PER_FILE + 5);
		if (i < 5)
			assert_true(has(CSM_CHAIN_UNSIGNED, "one", 6, 6, 6));
		else if (i <= PER_FILE + 5)
			assert_true(has(CSM_CHAIN_UNSIGNED, "two", 6, PER_FILE + 6, PER_FILE + 6));
		with_head = true;
	}
}

/* Without the head only lines up to a signed checkpoint are known to be csmd's: the others are told, of any part. */
static void what_nothing_vouches_for_is_told(void **state)
{
	(void)state;
	with_head = false;
	for (size_t n = 0; n <= LINES; n++) {
		struct log l = good();
		size_t covered = n >= PER_FILE + 6 ? PER_FILE + 6 : n >= 6 ? 6 : 0;

		l.n = n;
		if (n <= PER_FILE)
			l.file_at[1] = SIZE_MAX;
		check(&l);
		assert_int_equal(found.problems, 0);
		assert_int_equal(sum.uncovered, n > covered || n == 0 ? covered + 1 : 0);
		assert_int_equal(found.uncovered, n > covered || n == 0);
		if (n > covered) {
			assert_int_equal(found.open.seq, covered + 1);
			assert_int_equal(found.open.last, n);
			assert_string_equal(found.open.file, file_of(covered));
			assert_int_equal(found.open.line, line_of(covered));
		}
		/* Without the key it is no finding, but not hidden. */
		with_key = false;
		check(&l);
		assert_int_equal(found.uncovered, 0);
		assert_int_equal(sum.uncovered, 1);
		with_key = true;
		/* The head, where it is there, vouches for what is before it. */
		with_head = true;
		all_given = false;
		check(&l);
		assert_int_equal(sum.uncovered, n == LINES ? 0 : n > covered || n == 0 ? covered + 1 : 0);
		all_given = true;
		with_head = false;
	}
	with_head = true;
}

/* All of it made anew, with hashes that fit and without a checkpoint: nothing in it says that it is the node's. */
static void a_log_without_checkpoints_is_not_vouched_for(void **state)
{
	static const uint8_t zeros[32];
	uint8_t prev[32];
	struct log l = {0};

	(void)state;
	memcpy(prev, zeros, 32);
	for (unsigned i = 0; i < 10; i++) {
		char hex[65];

		csm_hex(prev, 32, hex);
		if (i == 0)
			snprintf(l.text[i], 512, "{\"seq\":1,\"time\":5,\"event\":\"file\",\"prev\":\"%s\",\"version\":1", hex);
		else
			snprintf(l.text[i], 512, "{\"seq\":%u,\"time\":5,\"event\":\"change\",\"object\":\"k:%u\"", i + 1, i);
		finish_line(l.text[i], prev, prev);
	}
	l.n = 10;
	l.file_at[1] = SIZE_MAX;
	with_head = false;
	check(&l);
	with_head = true;
	assert_int_equal(found.problems, 0);
	assert_int_equal(found.uncovered, 1);
	assert_int_equal(found.open.seq, 1);
	assert_int_equal(found.open.last, 10);
	assert_non_null(strstr(found.open.text, "no checkpoint"));
}

static void a_dropped_line_is_named(void **state)
{
	struct log all = good();

	(void)state;
	for (size_t i = 0; i < LINES; i++) {
		struct log l = all;

		take_out(&l, i);
		check(&l);
		assert_true(found.problems > 0);
		if (i == LINES - 1)
			assert_true(has(CSM_CHAIN_CUT, "two", PER_FILE - 1, LINES, LINES));
		else if (i == PER_FILE - 1)
			assert_true(has(CSM_CHAIN_DROPPED, "two", 1, i + 1, i + 1));
		else
			assert_true(has(CSM_CHAIN_DROPPED, file_of(i), line_of(i), i + 1, i + 1));
	}
}

static void a_moved_line_is_named(void **state)
{
	struct log all = good();

	(void)state;
	for (size_t i = 1; i < LINES; i++)
		for (size_t to = 1; to < LINES; to++) {
			struct log l = all;
			char text[512];

			if (i == to || i % PER_FILE == 0)
				continue;
			memcpy(text, l.text[i], sizeof(text));
			take_out(&l, i);
			put_in(&l, to, text);
			check(&l);
			if (found.problems == 0)
				fail_msg("line %zu moved to %zu", i, to);
			/* Moved back it is late itself; moved on, the ones it has passed are. */
			bool moved = false;
			for (size_t k = 0; k < found.problems; k++)
				moved = moved || found.all[k].problem == CSM_CHAIN_MOVED;
			assert_true(moved);
			if (to > i)
				assert_true(found.all[0].seq >= i + 1);
		}
}

static void a_doubled_line_is_named(void **state)
{
	struct log all = good();

	(void)state;
	for (size_t i = 0; i < LINES; i++) {
		struct log l = all;
		bool last = i % PER_FILE == PER_FILE - 1;

		put_in(&l, i + 1, all.text[i]);
		if (last && i + 1 < LINES) /* still in its own file */
			l.file_at[1] = i + 2;
		check(&l);
		assert_int_equal(found.problems, 1);
		assert_true(has(CSM_CHAIN_DOUBLED, file_of(i), line_of(i) + 1, i + 1, i + 1));
		/* Once more at the end. */
		l = all;
		put_in(&l, LINES, all.text[i]);
		check(&l);
		assert_int_equal(found.problems, 1);
		assert_true(has(CSM_CHAIN_DOUBLED, "two", PER_FILE + 1, i + 1, i + 1));
	}
}

static void a_cut_end_is_found_by_the_head(void **state)
{
	(void)state;
	for (size_t n = 1; n < LINES; n++) {
		struct log l = good();

		l.n = n;
		if (n <= PER_FILE)
			l.file_at[1] = SIZE_MAX;
		check(&l);
		assert_int_equal(found.problems, 1);
		assert_true(has(CSM_CHAIN_CUT, file_of(n - 1), line_of(n - 1), n + 1, LINES));
		/* A part of the log may be given, too. */
		all_given = false;
		check(&l);
		assert_int_equal(found.problems, 0);
		assert_int_equal(found.note.seq, n + 1);
		assert_int_equal(found.note.last, LINES);
		all_given = true;
		with_head = false;
		check(&l);
		assert_int_equal(found.problems + found.notes, 0);
		with_head = true;
	}
}

static void older_files_may_be_elsewhere(void **state)
{
	struct log l = good();

	(void)state;
	for (size_t i = 0; i < PER_FILE; i++)
		take_out(&l, 0);
	l.file_at[0] = SIZE_MAX;
	check(&l);
	assert_int_equal(found.problems, 0);
	assert_int_equal(found.notes, 1);
	assert_int_equal(found.note.seq, 1);
	assert_int_equal(found.note.last, PER_FILE);
	/* But not a part of a file. */
	take_out(&l, 0);
	check(&l);
	assert_true(has(CSM_CHAIN_DROPPED, "two", 1, PER_FILE + 1, PER_FILE + 1));
}

static void what_csmd_told_is_repeated(void **state)
{
	static const char *const notes[] = {"gap", "repaired", "removed"};
	struct log l = good();
	uint8_t hash[32];
	char hex[65];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		l = good();
		snprintf(l.text[LINES], 512, "{\"seq\":%d,\"time\":6,\"event\":\"%s\",\"x\":1", LINES + 1, notes[i]);
		finish_line(l.text[LINES], last_hash, hash);
		l.n++;
		check(&l);
		assert_int_equal(found.problems, 0);
		assert_int_equal(found.notes, 1);
		assert_int_equal(found.note.seq, LINES + 1);
	}
	/* A break says what it follows, and is a fault for good. */
	l = good();
	csm_hex(public_key, 32, hex);
	snprintf(l.text[LINES], 512, "{\"seq\":%d,\"time\":6,\"event\":\"break\",\"prev\":\"%s\",\"reason\":\"r\"", LINES + 5, hex);
	finish_line(l.text[LINES], public_key, hash);
	l.n++;
	check(&l);
	assert_int_equal(found.problems, 2);
	assert_true(has(CSM_CHAIN_CHANGED, "two", PER_FILE + 1, LINES + 5, LINES + 5));
	assert_true(has(CSM_CHAIN_DROPPED, "two", PER_FILE + 1, LINES + 1, LINES + 4));
}

static void what_is_no_line(void **state)
{
	static const char *const bad[] = {"", "{}", "{\"seq\":1}", "{\"seq\":0,\"time\":1,\"event\":\"a\",\"hash\":\"00\"}",
		"{\"seq\":01,\"time\":1,\"event\":\"a\"", "{\"seq\":99999999999999999999,\"time\":1,\"event\":\"a\"",
		"{\"seq\":1,\"time\":-1,\"event\":\"a\"", "{\"seq\":1,\"time\":1,\"event\":\"A\"", "{\"seq\":1,\"time\":1,\"event\":\"a",
		"{ \"seq\":1,\"time\":1,\"event\":\"a\""};
	char text[4096], hash[80], as[65];
	struct csm_chain_line l;
	struct log log = good();

	(void)state;
	memset(as, 'a', 64);
	as[64] = '\0';
	snprintf(hash, sizeof(hash), ",\"hash\":\"%s\"}", as);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "%s%s", bad[i], hash);
		assert_int_equal(csm_chain_parse(text, strlen(text), &l), CSM_EINVALID);
		assert_int_equal(csm_chain_parse(bad[i], strlen(bad[i]), &l), CSM_EINVALID);
	}
	snprintf(text, sizeof(text), "{\"seq\":1,\"time\":1,\"event\":\"a\"%s", hash);
	assert_int_equal(csm_chain_parse(text, strlen(text), &l), 0);
	for (size_t n = 0; n < strlen(text); n++)
		assert_int_equal(csm_chain_parse(text, n, &l), CSM_EINVALID);
	/* Above the longest line. */
	memset(text, ' ', sizeof(text));
	assert_int_equal(csm_chain_parse(text, sizeof(text), &l), CSM_EINVALID);
	/* Garbage between lines is told, and nothing else with it. */
	put_in(&log, 3, "garbage");
	check(&log);
	assert_int_equal(found.problems, 1);
	assert_true(has(CSM_CHAIN_CHANGED, "one", 4, 4, 4));
}

static int setup(void **state)
{
	(void)state;
	return sodium_init() < 0 ? -1 : crypto_sign_keypair(public_key, secret_key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_log_has_nothing),
		cmocka_unit_test(every_changed_byte_is_found_at_its_line),
		cmocka_unit_test(a_changed_line_is_named),
		cmocka_unit_test(a_log_made_anew_is_found),
		cmocka_unit_test(what_nothing_vouches_for_is_told),
		cmocka_unit_test(a_log_without_checkpoints_is_not_vouched_for),
		cmocka_unit_test(a_dropped_line_is_named),
		cmocka_unit_test(a_moved_line_is_named),
		cmocka_unit_test(a_doubled_line_is_named),
		cmocka_unit_test(a_cut_end_is_found_by_the_head),
		cmocka_unit_test(older_files_may_be_elsewhere),
		cmocka_unit_test(what_csmd_told_is_repeated),
		cmocka_unit_test(what_is_no_line),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
