#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/workq.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* A job that notes when it ran; a gate waits for the test first. */
struct job {
	struct csm_job job;
	int tag;
};

static sem_t at_gate, open_gate;
static int order[256];
static atomic_int n_ran;

static void note(struct csm_job *j)
{
	int at = atomic_fetch_add(&n_ran, 1);

	if (at < (int)N_ELEMS(order))
		order[at] = ((struct job *)j)->tag;
}

static void gate(struct csm_job *j)
{
	(void)j;
	sem_post(&at_gate);
	sem_wait(&open_gate);
}

static int setup(void **state)
{
	(void)state;
	sem_init(&at_gate, 0, 0);
	sem_init(&open_gate, 0, 0);
	n_ran = 0;
	return 0;
}

static struct csm_workq *queue(size_t max, size_t per_user)
{
	struct csm_workq_options opt = {.name = "test", .threads = 1, .max = max, .max_per_user = per_user};
	struct csm_workq *q = NULL;

	assert_int_equal(csm_workq_new(&opt, &q), 0);
	return q;
}

/* The one thread waits in the gate, so that what is pushed stays queued. */
static void stop_at_gate(struct csm_workq *q, struct job *g)
{
	*g = (struct job){.job = {.run = gate, .user = 9999}};
	assert_int_equal(csm_workq_push(q, &g->job), 0);
	sem_wait(&at_gate);
}

static void users_take_turns(void **state)
{
	static const struct {
		uint32_t user;
		int tag;
	} pushed[] = {{1, 11}, {1, 12}, {1, 13}, {1, 14}, {65, 21}, {65, 22}, {3, 31}};
	static const int expected[] = {11, 21, 31, 12, 22, 13, 14};
	struct csm_workq *q = queue(100, 100);
	struct job g, jobs[N_ELEMS(pushed)];

	(void)state;
	stop_at_gate(q, &g);
	for (size_t i = 0; i < N_ELEMS(pushed); i++) {
		jobs[i] = (struct job){.job = {.run = note, .user = pushed[i].user}, .tag = pushed[i].tag};
		assert_int_equal(csm_workq_push(q, &jobs[i].job), 0);
	}
	assert_int_equal(csm_workq_depth(q), N_ELEMS(pushed));
	sem_post(&open_gate);
	csm_workq_free(q);
	assert_int_equal(n_ran, N_ELEMS(expected));
	assert_memory_equal(order, expected, sizeof(expected));
}

/* Whoever comes later waits for one job of each other user, not for all of them. */
static void a_flood_delays_others_by_one(void **state)
{
	struct csm_workq *q = queue(200, 150);
	struct job g, flood[100], late = {.job = {.run = note, .user = 2}, .tag = -1};

	(void)state;
	stop_at_gate(q, &g);
	for (size_t i = 0; i < N_ELEMS(flood); i++) {
		flood[i] = (struct job){.job = {.run = note, .user = 1}, .tag = (int)i};
		assert_int_equal(csm_workq_push(q, &flood[i].job), 0);
	}
	assert_int_equal(csm_workq_push(q, &late.job), 0);
	sem_post(&open_gate);
	csm_workq_free(q);
	assert_int_equal(n_ran, 101);
	assert_int_equal(order[1], -1);
}

static void bounds(void **state)
{
	struct csm_workq *q = queue(5, 3);
	struct job g, jobs[7];

	(void)state;
	stop_at_gate(q, &g);
	for (size_t i = 0; i < N_ELEMS(jobs); i++)
		jobs[i] = (struct job){.job = {.run = note, .user = i < 4 ? 1u : (uint32_t)i}, .tag = (int)i};
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(csm_workq_push(q, &jobs[i].job), 0);
	assert_int_equal(csm_workq_push(q, &jobs[3].job), CSM_EBUSY); /* of one user */
	assert_int_equal(csm_workq_push(q, &jobs[4].job), 0);
	assert_int_equal(csm_workq_push(q, &jobs[5].job), 0);
	assert_int_equal(csm_workq_push(q, &jobs[6].job), CSM_EBUSY); /* in all */
	assert_int_equal(csm_workq_depth(q), 5);
	sem_post(&open_gate);
	/* What was refused may come again. */
	for (int i = 0; i < 5000 && csm_workq_depth(q) > 0; i++)
		usleep(1000);
	assert_int_equal(csm_workq_push(q, &jobs[3].job), 0);
	csm_workq_free(q);
	assert_int_equal(n_ran, 6);
}

static void count_call(void *arg)
{
	*(pthread_t *)arg = pthread_self();
	atomic_fetch_add(&n_ran, 1);
}

static void *release_later(void *arg)
{
	(void)arg;
	usleep(20000);
	sem_post(&open_gate);
	return NULL;
}

/* A call waits until it ran, on the queue's thread, and is not refused when the queue is full. */
static void call_waits_and_is_never_too_much(void **state)
{
	struct csm_workq *q = queue(1, 1);
	struct job g, one = {.job = {.run = note, .user = 1}}, two = one;
	pthread_t on = pthread_self(), releaser;

	(void)state;
	stop_at_gate(q, &g);
	assert_int_equal(csm_workq_push(q, &one.job), 0);
	assert_int_equal(csm_workq_push(q, &two.job), CSM_EBUSY);
	assert_int_equal(pthread_create(&releaser, NULL, release_later, NULL), 0);
	assert_int_equal(csm_workq_call(q, count_call, &on), 0);
	assert_int_equal(n_ran, 2);
	assert_false(pthread_equal(on, pthread_self()));
	pthread_join(releaser, NULL);
	csm_workq_free(q);
}

static atomic_int n_idle;

static void on_idle(void *arg)
{
	(void)arg;
	atomic_fetch_add(&n_idle, 1);
}

static void wait_idle(int n)
{
	for (int i = 0; i < 5000 && n_idle < n; i++)
		usleep(1000);
}

static void idle_comes_once_after_work(void **state)
{
	struct csm_workq_options opt = {
		.name = "test", .threads = 1, .max = 8, .max_per_user = 8, .idle = on_idle, .idle_ms = 5};
	struct job j = {.job = {.run = note, .user = 1}};
	struct csm_workq *q = NULL;

	(void)state;
	n_idle = 0;
	assert_int_equal(csm_workq_new(&opt, &q), 0);
	wait_idle(1);
	usleep(50000);
	assert_int_equal(n_idle, 1);
	assert_int_equal(csm_workq_push(q, &j.job), 0);
	wait_idle(2);
	usleep(50000);
	assert_int_equal(n_idle, 2);
	assert_int_equal(n_ran, 1);
	csm_workq_free(q);
}

/* Pushes until it is told that the queue is being freed. */
static struct csm_workq *ending;
static atomic_int last_r;
static struct job spare[64];

static void push_until_shutdown(struct csm_job *j)
{
	int r = 0;

	(void)j;
	sem_post(&at_gate);
	for (int i = 0; i < 5000; i++) {
		size_t n = (size_t)i < N_ELEMS(spare) ? (size_t)i : 0;

		if ((size_t)i < N_ELEMS(spare)) {
			spare[n] = (struct job){.job = {.run = note, .user = 1}};
			r = csm_workq_push(ending, &spare[n].job);
		} else {
			struct job extra = {.job = {.run = note, .user = 1}};

			r = csm_workq_push(ending, &extra.job); /* full, or at its end */
		}
		if (r == CSM_ESHUTDOWN)
			break;
		usleep(1000);
	}
	last_r = r;
}

static void free_runs_what_is_queued_and_takes_no_more(void **state)
{
	struct job first = {.job = {.run = push_until_shutdown, .user = 2}};

	(void)state;
	ending = queue(N_ELEMS(spare), N_ELEMS(spare));
	assert_int_equal(csm_workq_push(ending, &first.job), 0);
	sem_wait(&at_gate);
	usleep(20000);
	csm_workq_free(ending);
	assert_int_equal(last_r, CSM_ESHUTDOWN);
	assert_true(n_ran >= 1);
	csm_workq_free(NULL);
}

/* ---- kinds: jobs that are taken together ---- */

static struct csm_workq *of_kinds;
static struct {
	atomic_int n, at_once, most;
	size_t size[64];
} batches;

static void note_together(struct csm_job *const *jobs, size_t n)
{
	int at = atomic_fetch_add(&batches.n, 1), now = atomic_fetch_add(&batches.at_once, 1) + 1;

	if (now > atomic_load(&batches.most))
		atomic_store(&batches.most, now);
	if (at < (int)N_ELEMS(batches.size))
		batches.size[at] = n;
	for (size_t i = 0; i < n; i++)
		note(jobs[i]);
	atomic_fetch_sub(&batches.at_once, 1);
}

/* A batch that holds a job without a tag waits in the gate. */
static void gate_together(struct csm_job *const *jobs, size_t n)
{
	if (((struct job *)jobs[0])->tag == 0)
		gate(jobs[0]);
	note_together(jobs, n);
}

static void forget_batches(void)
{
	atomic_store(&batches.n, 0);
	atomic_store(&batches.most, 0);
}

static void push_kind(struct csm_workq *q, struct job *j, struct csm_job_kind *k, uint32_t user, int tag)
{
	*j = (struct job){.job = {.run = note, .user = user, .kind = k}, .tag = tag};
	assert_int_equal(csm_workq_push(q, &j->job), 0);
	csm_workq_go(q, k);
}

static void until_ran(int n)
{
	for (int i = 0; i < 20000 && atomic_load(&n_ran) < n; i++)
		usleep(1000);
	assert_int_equal(atomic_load(&n_ran), n);
}

/* As many as wait, in the order of the turns, no more than fit; others have theirs in between. */
static void a_kind_is_taken_together_in_turn(void **state)
{
	static const int expected[] = {11, 21, 31, 12, 13, 14, 32};
	struct csm_job_kind kind = {.run = note_together, .busy_max = 1};
	struct job g, jobs[8], more[40];
	struct csm_workq *q = queue(100, 100);

	(void)state;
	forget_batches();
	stop_at_gate(q, &g);
	push_kind(q, &jobs[0], &kind, 1, 11);
	push_kind(q, &jobs[1], &kind, 1, 12);
	push_kind(q, &jobs[2], &kind, 1, 13);
	push_kind(q, &jobs[3], &kind, 2, 21);
	push_kind(q, &jobs[4], NULL, 3, 32); /* first of its lane, not of the kind: the one behind it may go */
	push_kind(q, &jobs[5], &kind, 3, 31);
	push_kind(q, &jobs[6], &kind, 1, 14);
	sem_post(&open_gate);
	until_ran(N_ELEMS(expected));
	assert_memory_equal(order, expected, sizeof(expected));
	assert_int_equal(batches.n, 1);
	assert_int_equal(batches.size[0], 6);

	forget_batches();
	stop_at_gate(q, &g);
	for (size_t i = 0; i < N_ELEMS(more); i++)
		push_kind(q, &more[i], &kind, 1, (int)i + 1);
	sem_post(&open_gate);
	csm_workq_free(q);
	assert_int_equal(batches.n, 3);
	assert_true(batches.size[0] == CSM_JOBS_MAX && batches.size[1] == CSM_JOBS_MAX && batches.size[2] == 8);
}

/* What comes at the same time is one batch, though a thread waits for it; a full batch is not waited with. */
static void no_thread_is_woken_before_all_are_there(void **state)
{
	struct csm_job_kind kind = {.run = note_together, .busy_max = 1};
	struct csm_workq *q = queue(100, 100);
	struct job jobs[5], more[CSM_JOBS_MAX];
	bool together = false;

	(void)state;
	for (unsigned try = 0; try < 100; try++) { /* a thread that is not asleep yet takes what it sees */
		forget_batches();
		atomic_store(&n_ran, 0);
		for (size_t i = 0; i < N_ELEMS(jobs); i++) {
			jobs[i] = (struct job){.job = {.run = note, .user = 1, .kind = &kind}};
			assert_int_equal(csm_workq_push(q, &jobs[i].job), 0);
		}
		usleep(20000);
		together = csm_workq_depth(q) == N_ELEMS(jobs);
		csm_workq_go(q, &kind);
		until_ran(N_ELEMS(jobs));
		if (together)
			break;
	}
	assert_true(together);
	assert_int_equal(batches.n, 1);
	for (size_t i = 0; i < N_ELEMS(more); i++) {
		more[i] = (struct job){.job = {.run = note, .user = 1, .kind = &kind}};
		assert_int_equal(csm_workq_push(q, &more[i].job), 0);
	}
	until_ran(N_ELEMS(jobs) + N_ELEMS(more));
	csm_workq_free(q);
}

/* The thread that was woken for a job takes what comes before it: another one is there for the job. */
static void a_kind_takes_no_jobs_thread(void **state)
{
	struct csm_workq_options opt = {.name = "test", .threads = 2, .max = 100, .max_per_user = 100};
	struct csm_job_kind kind = {.run = gate_together, .busy_max = 2};
	struct csm_workq *q = NULL;
	struct job first, other;

	(void)state;
	forget_batches();
	assert_int_equal(csm_workq_new(&opt, &q), 0);
	usleep(20000);
	first = (struct job){.job = {.run = note, .user = 1, .kind = &kind}};
	assert_int_equal(csm_workq_push(q, &first.job), 0);
	push_kind(q, &other, NULL, 2, 1);
	sem_wait(&at_gate);
	until_ran(1);
	sem_post(&open_gate);
	csm_workq_free(q);
	assert_int_equal(n_ran, 2);
}

/* While as many threads as may are at it the rest gathers, and the other threads are for others. */
static void a_kind_keeps_to_its_threads(void **state)
{
	struct csm_workq_options opt = {.name = "test", .threads = 4, .max = 100, .max_per_user = 100};
	struct csm_job_kind kind = {.run = gate_together, .busy_max = 2};
	struct job first, second, jobs[5], other[20];
	struct csm_workq *q = NULL;

	(void)state;
	forget_batches();
	assert_int_equal(csm_workq_new(&opt, &q), 0);
	push_kind(q, &first, &kind, 1, 0);
	sem_wait(&at_gate);
	push_kind(q, &second, &kind, 1, 0);
	sem_wait(&at_gate);
	for (size_t i = 0; i < N_ELEMS(jobs); i++)
		push_kind(q, &jobs[i], &kind, (uint32_t)i, 1);
	for (size_t i = 0; i < N_ELEMS(other); i++)
		push_kind(q, &other[i], NULL, 1, 2);
	until_ran(N_ELEMS(other)); /* though the lane begins with what may not go */
	assert_int_equal(csm_workq_depth(q), N_ELEMS(jobs));
	assert_int_equal(batches.n, 0);
	sem_post(&open_gate);
	until_ran(N_ELEMS(other) + 1 + N_ELEMS(jobs));
	assert_int_equal(batches.n, 2);
	assert_int_equal(batches.size[1], N_ELEMS(jobs));
	sem_post(&open_gate);
	csm_workq_free(q);
	assert_int_equal(n_ran, N_ELEMS(other) + 2 + N_ELEMS(jobs));
}

static void each_again(struct csm_job *const *jobs, size_t n)
{
	struct csm_workq *q = of_kinds;

	for (size_t i = 0; i < n; i++) {
		jobs[i]->kind = NULL;
		assert_int_equal(csm_workq_push_again(q, jobs[i]), 0);
	}
}

/* What was taken once is taken back, however full it is there, and at the end too. */
static void what_was_taken_may_be_queued_again(void **state)
{
	struct csm_job_kind kind = {.run = each_again, .busy_max = 1};
	struct job g, jobs[6], more[4];

	(void)state;
	of_kinds = queue(N_ELEMS(jobs), N_ELEMS(jobs));
	stop_at_gate(of_kinds, &g);
	for (size_t i = 0; i < N_ELEMS(jobs); i++)
		push_kind(of_kinds, &jobs[i], &kind, 1, 1);
	sem_post(&open_gate);
	until_ran(N_ELEMS(jobs));
	stop_at_gate(of_kinds, &g);
	for (size_t i = 0; i < N_ELEMS(more); i++)
		push_kind(of_kinds, &more[i], &kind, (uint32_t)i, 1);
	sem_post(&open_gate);
	csm_workq_free(of_kinds);
	assert_int_equal(n_ran, N_ELEMS(jobs) + N_ELEMS(more));
}

static struct csm_job_kind stress[2] = {{.run = note_together, .busy_max = 1}, {.run = note_together, .busy_max = 2}};

static void *pusher(void *arg)
{
	static struct job jobs[4][500];
	static atomic_int next;
	struct csm_workq *q = arg;
	int me = atomic_fetch_add(&next, 1) % 4;

	for (size_t i = 0; i < N_ELEMS(jobs[0]); i++) {
		jobs[me][i] = (struct job){.job = {.run = note, .user = (uint32_t)(i % 7), .kind = i % 3 > 0 ? &stress[i % 3 - 1] : NULL}};
		while (csm_workq_push(q, &jobs[me][i].job) == CSM_EBUSY)
			usleep(100);
		csm_workq_go(q, i % 3 > 0 ? &stress[i % 3 - 1] : NULL);
	}
	return NULL;
}

static void many_threads_run_each_job_once(void **state)
{
	struct csm_workq_options opt = {.name = "test", .threads = 3, .max = 50, .max_per_user = 20};
	struct csm_workq *q = NULL;
	pthread_t t[4];

	(void)state;
	forget_batches();
	assert_int_equal(csm_workq_new(&opt, &q), 0);
	for (size_t i = 0; i < N_ELEMS(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, pusher, q), 0);
	for (size_t i = 0; i < N_ELEMS(t); i++)
		pthread_join(t[i], NULL);
	csm_workq_free(q);
	assert_int_equal(n_ran, 2000);
	assert_in_range(batches.most, 1, 3);
	assert_int_equal(stress[0].busy + stress[1].busy + stress[0].waiting + stress[1].waiting, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(users_take_turns, setup),
		cmocka_unit_test_setup(a_flood_delays_others_by_one, setup),
		cmocka_unit_test_setup(bounds, setup),
		cmocka_unit_test_setup(call_waits_and_is_never_too_much, setup),
		cmocka_unit_test_setup(idle_comes_once_after_work, setup),
		cmocka_unit_test_setup(free_runs_what_is_queued_and_takes_no_more, setup),
		cmocka_unit_test_setup(a_kind_is_taken_together_in_turn, setup),
		cmocka_unit_test_setup(no_thread_is_woken_before_all_are_there, setup),
		cmocka_unit_test_setup(a_kind_takes_no_jobs_thread, setup),
		cmocka_unit_test_setup(a_kind_keeps_to_its_threads, setup),
		cmocka_unit_test_setup(what_was_taken_may_be_queued_again, setup),
		cmocka_unit_test_setup(many_threads_run_each_job_once, setup),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
