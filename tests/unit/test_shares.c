/* Recovery shares: as text, as what they share out, and as what opens the copy of a root key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sodium.h>
#include "daemon/node/recovery.h"
#include "daemon/svc/shares.h"

static const uint8_t root[32] = "the root key of a node for tests";

static struct csm_share sample(void)
{
	struct csm_share s = {.set = {1, 2, 0xab, 0xff}, .threshold = 3, .count = 5, .index = 2};

	for (unsigned i = 0; i < CSM_SHARE_LEN; i++)
		s.share[i] = (uint8_t)(i * 7 + 1);
	return s;
}

static int parse(const char *text, struct csm_share *ret)
{
	const char *why = NULL;
	int r = csm_share_parse(text, strlen(text), ret, &why);

	assert_true(r == 0 || why != NULL);
	return r;
}

static void a_share_is_text_and_back(void **state)
{
	struct csm_share s = sample(), t;
	char text[CSM_SHARE_TEXT], typed[400];
	size_t n = 0;

	(void)state;
	csm_share_text(&s, text);
	assert_int_equal(strlen(text), CSM_SHARE_TEXT - 1);
	/* the bytes that the header states */
	assert_memory_equal(text, "0101-02ab-ff03-0502-0108-0f16", 29);
	assert_int_equal(parse(text, &t), 0);
	assert_memory_equal(&s, &t, sizeof(s));
	/* as somebody types it */
	n = (size_t)snprintf(typed, sizeof(typed), "# a comment with 0123\n ");
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '-') {
			typed[n++] = (p - text) % 3 == 0 ? '\n' : ' ';
			continue;
		}
		typed[n++] = (char)(*p >= 'a' ? *p - 32 : *p);
	}
	typed[n] = '\0';
	assert_int_equal(parse(typed, &t), 0);
	assert_memory_equal(&s, &t, sizeof(s));
}

static void each_wrong_digit_is_told(void **state)
{
	struct csm_share s = sample(), t;
	char text[CSM_SHARE_TEXT];

	(void)state;
	csm_share_text(&s, text);
	for (size_t i = 0; text[i] != '\0'; i++) {
		char was = text[i];

		if (was == '-')
			continue;
		text[i] = was == '0' ? '1' : '0';
		assert_int_equal(parse(text, &t), CSM_EINVALID);
		text[i] = 'g';
		assert_int_equal(parse(text, &t), CSM_EINVALID);
		text[i] = was;
	}
	assert_int_equal(parse(text, &t), 0);
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		const char *why;

		assert_int_equal(csm_share_parse(text, n, &t, &why), CSM_EINVALID);
	}
	char more[CSM_SHARE_TEXT + 4];

	snprintf(more, sizeof(more), "%s00", text);
	assert_int_equal(parse(more, &t), CSM_EINVALID);
	assert_int_equal(parse("", &t), CSM_EINVALID);
}

static void numbers_that_cannot_be_are_refused(void **state)
{
	static const uint8_t bad[][3] = {{1, 5, 1}, {0, 5, 1}, {6, 5, 1}, {2, 33, 1}, {2, 5, 0}, {2, 5, 6}};
	struct csm_share s, t;
	char text[CSM_SHARE_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		s = sample();
		s.threshold = bad[i][0];
		s.count = bad[i][1];
		s.index = bad[i][2];
		csm_share_text(&s, text);
		assert_int_equal(parse(text, &t), CSM_EINVALID);
	}
}

static void any_k_of_n_join(void **state)
{
	struct csm_share shares[CSM_SHARES_MAX], some[CSM_SHARES_MAX];
	uint8_t secret[CSM_SHARE_LEN], got[CSM_SHARE_LEN];

	(void)state;
	for (unsigned turn = 0; turn < 200; turn++) {
		unsigned n = 2 + randombytes_uniform(CSM_SHARES_MAX - 1), k = 2 + randombytes_uniform(n - 1);

		randombytes_buf(secret, sizeof(secret));
		assert_int_equal(csm_shares_split(secret, k, n, shares), 0);
		for (unsigned i = n - 1; i > 0; i--) {
			unsigned j = randombytes_uniform(i + 1);
			struct csm_share keep = shares[i];

			shares[i] = shares[j];
			shares[j] = keep;
		}
		memcpy(some, shares, k * sizeof(some[0]));
		assert_int_equal(csm_shares_join(some, k, got), 0);
		assert_memory_equal(got, secret, sizeof(secret));
		/* one less, or one that is changed, gives something else */
		if (k > 2) {
			assert_int_equal(csm_shares_join(some, k - 1, got), 0);
			assert_memory_not_equal(got, secret, sizeof(secret));
		}
		some[0].share[5] ^= 1;
		assert_int_equal(csm_shares_join(some, k, got), 0);
		assert_memory_not_equal(got, secret, sizeof(secret));
		some[0].index = some[1].index;
		assert_int_equal(csm_shares_join(some, k, got), CSM_EINVALID);
	}
	assert_int_equal(csm_shares_split(secret, 1, 3, shares), CSM_EINVALID);
	assert_int_equal(csm_shares_split(secret, 4, 3, shares), CSM_EINVALID);
	assert_int_equal(csm_shares_split(secret, 2, CSM_SHARES_MAX + 1, shares), CSM_EINVALID);
}

/* One share of two, over many splits of one byte: each value comes as often as any other, whatever the secret is. */
static void one_share_too_few_is_just_noise(void **state)
{
	static unsigned seen[2][256];
	const unsigned splits = 4000;

	(void)state;
	for (unsigned which = 0; which < 2; which++)
		for (unsigned i = 0; i < splits; i++) {
			uint8_t secret[CSM_SHARE_LEN];
			struct csm_share s[2];

			memset(secret, which == 0 ? 0 : 0xff, sizeof(secret));
			assert_int_equal(csm_shares_split(secret, 2, 2, s), 0);
			for (unsigned b = 0; b < CSM_SHARE_LEN; b++)
				seen[which][s[0].share[b]]++;
		}
	/* 500 each on average, a standard deviation of 22: eight of these are not reached by chance */
	for (unsigned v = 0; v < 256; v++)
		for (unsigned which = 0; which < 2; which++)
			assert_in_range(seen[which][v], 500 - 180, 500 + 180);
}

/* ---- the copy of a root key ---- */

static struct recovery_info info;
static uint8_t record[RECOVERY_RECORD];
static struct csm_share set[CSM_SHARES_MAX];

static int open_by(const struct csm_share *shares, size_t n, const char *why_part, size_t which_wanted)
{
	uint8_t got[32] = {0};
	const char *why = NULL;
	size_t which = 99;
	int r = recovery_open((struct csm_bin){record, sizeof(record)}, shares, n, got, &why, &which);

	if (r == 0) {
		assert_memory_equal(got, root, sizeof(root));
		return 0;
	}
	assert_memory_not_equal(got, root, sizeof(root));
	assert_non_null(strstr(why, why_part));
	assert_int_equal(which, which_wanted);
	return r;
}

static int make(void **state)
{
	(void)state;
	info = (struct recovery_info){.threshold = 3, .count = 5};
	return recovery_make(root, &info, record, set);
}

static void three_of_five_open_the_copy(void **state)
{
	struct csm_share s[5];

	(void)state;
	assert_null(memmem(record, sizeof(record), root, 8));
	for (unsigned a = 0; a < 5; a++)
		for (unsigned b = 0; b < 5; b++)
			for (unsigned c = 0; c < 5; c++) {
				s[0] = set[a];
				s[1] = set[b];
				s[2] = set[c];
				if (a != b && b != c && a != c)
					assert_int_equal(open_by(s, 3, "", 3), 0);
			}
	assert_int_equal(open_by(set, 5, "", 5), 0);
}

static void what_is_wrong_with_a_share_is_told(void **state)
{
	struct csm_share s[3], other[5];
	uint8_t other_record[RECOVERY_RECORD];
	struct recovery_info other_info = {.threshold = 3, .count = 5};

	(void)state;
	memcpy(s, set, sizeof(s));
	assert_int_equal(open_by(s, 2, "too few", 2), CSM_EINVALID);
	assert_int_equal(open_by(s, 0, "too few", 0), CSM_EINVALID);
	s[2] = s[0];
	assert_int_equal(open_by(s, 3, "twice", 2), CSM_EINVALID);
	assert_int_equal(recovery_make(root, &other_info, other_record, other), 0);
	memcpy(s, set, sizeof(s));
	s[1] = other[1];
	assert_int_equal(open_by(s, 3, "another set", 1), CSM_EINVALID);
	memcpy(s[1].set, info.set, sizeof(info.set)); /* one that says it is of this set */
	assert_int_equal(open_by(s, 3, "false", 3), CSM_EINVALID);
	memcpy(s, set, sizeof(s));
	s[0].threshold = 2;
	assert_int_equal(open_by(s, 3, "other numbers", 0), CSM_EINVALID);
	s[0] = set[0];
	assert_int_equal(open_by(s, 3, "", 3), 0);
}

static void every_byte_of_the_copy_counts(void **state)
{
	uint8_t got[32];
	const char *why;
	size_t which;

	(void)state;
	for (size_t i = 0; i < sizeof(record); i++) {
		record[i] ^= 4;
		assert_int_not_equal(
			recovery_open((struct csm_bin){record, sizeof(record)}, set, 3, got, &why, &which), 0);
		record[i] ^= 4;
	}
	for (size_t n = 0; n < sizeof(record); n++)
		assert_int_not_equal(recovery_open((struct csm_bin){record, n}, set, 3, got, &why, &which), 0);
	assert_int_equal(open_by(set, 3, "", 3), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_share_is_text_and_back),
		cmocka_unit_test(each_wrong_digit_is_told),
		cmocka_unit_test(numbers_that_cannot_be_are_refused),
		cmocka_unit_test(any_k_of_n_join),
		cmocka_unit_test(one_share_too_few_is_just_noise),
		cmocka_unit_test_setup(three_of_five_open_the_copy, make),
		cmocka_unit_test_setup(what_is_wrong_with_a_share_is_told, make),
		cmocka_unit_test_setup(every_byte_of_the_copy_counts, make),
	};

	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
