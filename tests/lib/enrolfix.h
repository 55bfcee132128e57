/* A broker with an enrolment profile, where the test is csm-enrol and the CA. See brokerfix.h:
 *
 *	fix_config = config;
 *	if (!fix_prepare(120, NULL, policy))
 *		return 77;
 *	return cmocka_run_group_tests(tests, enrolfix_begin, enrolfix_end);
 *
 * with ENROLFIX_TEST for each test. */
#ifndef TESTS_LIB_ENROLFIX_H
#define TESTS_LIB_ENROLFIX_H

#include "daemon/node/enrol_int.h"
#include "tests/lib/brokerfix.h"
#include "tests/lib/certmake.h"

#define ANSWER_MS 5000

int enrolfix_begin(void **state);
int enrolfix_end(void **state);
int enrolfix_setup(void **state);
int enrolfix_teardown(void **state);
#define ENROLFIX_TEST(f) cmocka_unit_test_setup_teardown(f, enrolfix_setup, enrolfix_teardown)

extern EVP_PKEY *root_key, *false_key;
extern X509 *root_cert, *false_root; /* whom the first profile trusts, and another of its name */
extern int chan, admin;              /* csm-enrol's channel; the administrator's connection */
extern struct testreader reader, waiter; /* of chan; of who waits for a certificate */
extern struct csm_msg_enrol_job job; /* the one taken last */

/* As csm-enrol. */
void ask_next(void);
/* The job that was asked for; 0, CSM_ETIMEOUT, or the error. */
int take_job(int ms);
/* Ask, and take one that is this. */
void next_job(const char *what);
int call_chan(const char *method, const void *params);
/* The end of the job: a certificate for its request, but for what the spec says. */
void done_with(const struct certspec *s);
/* The same in two steps. */
void send_done(const struct certspec *s);
void take_done(void);
void done_badly(const char *error, const char *why, uint64_t retry);

/* As a client. */
void ask_enrol(int fd, const char *key, uint32_t id);
int answer_of(int fd, uint32_t id, struct csm_msg_cert_info *info);
int get(const char *key, struct csm_msg_cert_info *info);
/* The text of the last error has this in it. */
void told(const char *text);

#endif
