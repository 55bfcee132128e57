#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/admit.h"

static void bound_of_one_uid(void **state)
{
	struct admit_slot *s[4], *other;
	struct admit a;

	(void)state;
	admit_init(&a, 100, 3, 10);
	for (int i = 0; i < 3; i++)
		assert_non_null(s[i] = admit_enter(&a, 1000, false));
	assert_ptr_equal(s[0], s[2]);
	assert_null(admit_enter(&a, 1000, false));
	/* Another uid, in the same place of the table, has its own count. */
	assert_non_null(other = admit_enter(&a, 1256, false));
	assert_ptr_not_equal(other, s[0]);
	assert_int_equal(admit_total(&a), 4);
	admit_leave(&a, s[0]);
	assert_non_null(s[0] = admit_enter(&a, 1000, false));
	/* The administrator's socket is not counted by uid. */
	assert_non_null(s[3] = admit_enter(&a, 1000, true));
	admit_leave(&a, s[3]);
	for (int i = 0; i < 3; i++)
		admit_leave(&a, s[i]);
	admit_leave(&a, other);
	assert_int_equal(admit_total(&a), 0);
}

static void a_place_counts_by_itself(void **state)
{
	static const char pod[] = "a1b2c3d4-0000-1111-2222-333344445555";
	char box[66];
	struct admit_slot *root, *moved[3], *other;
	struct admit a;

	(void)state;
	memset(box, 'a', sizeof(box) - 1);
	box[65] = 0;
	admit_init(&a, 100, 3, 10);
	/* Whatever the uid, and beside those of the uids. */
	for (uid_t uid = 0; uid < 3; uid++) {
		root = admit_enter(&a, uid, false);
		assert_non_null(moved[uid] = admit_move(&a, root, pod));
	}
	assert_ptr_equal(moved[0], moved[2]);
	assert_non_null(root = admit_enter(&a, 0, false));
	assert_ptr_not_equal(root, moved[0]);
	assert_int_not_equal(root->number, moved[0]->number);
	assert_int_equal(root->n, 1);
	assert_int_equal(moved[0]->n, 3);
	/* The fourth stays where it was, until it is turned away. */
	assert_null(admit_move(&a, root, pod));
	assert_int_equal(root->n, 1);
	assert_int_equal(admit_total(&a), 4);
	/* What is charged to the one is not charged to the other. */
	assert_true(admit_charge(&a, moved[0], ADMIT_BUFFERED_PER_UID));
	assert_false(admit_charge(&a, moved[0], 1));
	assert_true(admit_charge(&a, root, 1));
	admit_credit(&a, root, 1);
	admit_credit(&a, moved[0], ADMIT_BUFFERED_PER_UID);
	/* Another place, of the longest name; and one that is too long. */
	assert_null(admit_move(&a, root, box));
	box[64] = 0;
	assert_non_null(other = admit_move(&a, root, box));
	assert_ptr_not_equal(other, moved[0]);
	/* The administrator's root is a third. */
	assert_non_null(root = admit_enter(&a, 0, true));
	assert_true(root->admin);
	admit_leave(&a, root);
	admit_leave(&a, other);
	for (int i = 0; i < 3; i++)
		admit_leave(&a, moved[i]);
	assert_int_equal(admit_total(&a), 0);
	for (size_t i = 0; i < sizeof(a.slots) / sizeof(a.slots[0]); i++)
		assert_null(a.slots[i]);
}

static void the_reserve_is_the_administrators(void **state)
{
	struct admit_slot *s[10];
	struct admit a;

	(void)state;
	admit_init(&a, 10, 100, 4);
	for (unsigned i = 0; i < 6; i++)
		assert_non_null(s[i] = admit_enter(&a, i, false));
	assert_null(admit_enter(&a, 7, false));
	for (unsigned i = 6; i < 10; i++)
		assert_non_null(s[i] = admit_enter(&a, 0, true));
	assert_null(admit_enter(&a, 0, true));
	assert_int_equal(admit_total(&a), 10);
	for (unsigned i = 0; i < 10; i++)
		admit_leave(&a, s[i]);
	assert_int_equal(admit_total(&a), 0);
}

static void descriptors_are_counted(void **state)
{
	struct admit_slot *s[4];
	struct admit a;

	(void)state;
	admit_init(&a, 100, 100, 1);
	a.files_max = 7;
	assert_non_null(s[0] = admit_enter(&a, 1, false));
	assert_non_null(s[1] = admit_enter(&a, 1, false));
	/* Three are left, two of them the administrator's. */
	assert_null(admit_enter(&a, 1, false));
	assert_null(admit_enter(&a, 2, false));
	/* The second one's peer was the first one's. */
	admit_file_spared(&a);
	assert_non_null(s[2] = admit_enter(&a, 2, false));
	assert_null(admit_enter(&a, 2, false));
	assert_non_null(s[3] = admit_enter(&a, 2, true));
	assert_null(admit_enter(&a, 2, true));
	for (int i = 0; i < 4; i++)
		admit_leave(&a, s[i]);
	for (int i = 0; i < 3; i++)
		admit_file_spared(&a);
	assert_int_equal(a.files, 0);
	assert_non_null(s[0] = admit_enter(&a, 1, false));
	admit_leave(&a, s[0]);
}

static void waiting_bytes_are_bounded(void **state)
{
	struct admit_slot *s, *other;
	struct admit a;

	(void)state;
	admit_init(&a, 10, 10, 0);
	assert_non_null(s = admit_enter(&a, 1, false));
	assert_non_null(other = admit_enter(&a, 2, false));
	assert_false(admit_charge(&a, s, SIZE_MAX));
	assert_true(admit_charge(&a, s, ADMIT_BUFFERED_PER_UID - 1));
	assert_true(admit_charge(&a, s, 1));
	assert_false(admit_charge(&a, s, 1));
	assert_true(admit_charge(&a, other, 1000));
	admit_credit(&a, s, 10);
	assert_false(admit_charge(&a, s, 11));
	assert_true(admit_charge(&a, s, 10));
	admit_credit(&a, s, ADMIT_BUFFERED_PER_UID);
	assert_int_equal(s->buffered, 0);
	admit_leave(&a, s);
	admit_credit(&a, other, 1000);
	admit_leave(&a, other);
}

static void waiting_changes_are_bounded(void **state)
{
	struct admit_slot *s, *other;
	struct admit a;

	(void)state;
	admit_init(&a, 10, 10, 0);
	assert_non_null(s = admit_enter(&a, 1, false));
	assert_non_null(other = admit_enter(&a, 2, false));
	for (unsigned i = 0; i < ADMIT_COMMITS_PER_UID; i++)
		assert_true(admit_commit(&a, s));
	assert_false(admit_commit(&a, s));
	assert_true(admit_commit(&a, other));
	admit_committed(&a, other);
	admit_committed(&a, s);
	assert_true(admit_commit(&a, s));
	for (unsigned i = 0; i < ADMIT_COMMITS_PER_UID; i++)
		admit_committed(&a, s);
	admit_leave(&a, s);
	admit_leave(&a, other);
}

/* What waits outlives the connection, and counts for the next one of the uid. */
static void charges_outlive_the_connection(void **state)
{
	struct admit_slot *s;
	struct admit a;

	(void)state;
	admit_init(&a, 10, 10, 0);
	assert_non_null(s = admit_enter(&a, 1, false));
	assert_true(admit_charge(&a, s, ADMIT_BUFFERED_PER_UID));
	assert_true(admit_commit(&a, s));
	admit_leave(&a, s);
	assert_int_equal(admit_total(&a), 0);
	assert_ptr_equal(admit_enter(&a, 1, false), s);
	assert_false(admit_charge(&a, s, 1));
	admit_leave(&a, s);
	admit_credit(&a, s, ADMIT_BUFFERED_PER_UID);
	assert_ptr_equal(a.slots[1], s);
	admit_committed(&a, s);
	assert_null(a.slots[1]);
}

static struct admit shared;

static void *come_and_go(void *arg)
{
	for (unsigned i = 0; i < 20000; i++) {
		struct admit_slot *s = admit_enter(&shared, (uid_t)(i % 3), arg != NULL);

		if (s != NULL)
			admit_leave(&shared, s);
	}
	return NULL;
}

static void threads_leave_nothing_behind(void **state)
{
	pthread_t t[4];

	(void)state;
	admit_init(&shared, 4, 2, 1);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, come_and_go, i == 0 ? &shared : NULL), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(admit_total(&shared), 0);
	for (size_t i = 0; i < 256; i++)
		assert_null(shared.slots[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bound_of_one_uid),
		cmocka_unit_test(a_place_counts_by_itself),
		cmocka_unit_test(the_reserve_is_the_administrators),
		cmocka_unit_test(descriptors_are_counted),
		cmocka_unit_test(waiting_bytes_are_bounded),
		cmocka_unit_test(waiting_changes_are_bounded),
		cmocka_unit_test(charges_outlive_the_connection),
		cmocka_unit_test(threads_leave_nothing_behind),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
