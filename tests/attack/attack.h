/* What the attack programs share: the wire by hand, an honest client beside them, rounds. An attack is refused when no
 * hostile process got a result. All waits are bounded; what cannot be set up ends the program with status 99. */
#ifndef TESTS_ATTACK_ATTACK_H
#define TESTS_ATTACK_ATTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum outcome {
	ATTACK_REFUSED,    /* an error */
	ATTACK_CHALLENGED, /* proof_required; the nonce is set */
	ATTACK_SERVED,     /* a result: the attack works */
	ATTACK_CLOSED,
	ATTACK_SILENCE
};
#define NONCE_MAX 32

/* Descriptors that survive an execve, out of the way of others. */
#define REPORT_FD 100
#define CONN_FD 101
#define PASS_FD 102

struct answer {
	enum outcome what;
	uint32_t msgid, code;
	size_t nonce_n;
	uint8_t nonce[NONCE_MAX];
};

void attack_die(const char *what) __attribute__((noreturn));
/* A new connection to $CSM_SOCKET; stays open over execve. */
int attack_connect(void);
/* The bytes of secret.get on that object; of prove. */
size_t attack_get_bytes(uint32_t msgid, const char *object, uint8_t out[static 512]);
size_t attack_prove_bytes(uint32_t msgid, const struct answer *a, uint8_t out[static 512]);
/* Send it; false when the connection is gone. */
bool attack_send(int fd, const void *p, size_t n);
bool attack_get(int fd, uint32_t msgid, const char *object);
bool attack_prove(int fd, uint32_t msgid, const struct answer *a);
/* The next answer, within ms. */
struct answer attack_answer(int fd, int ms);
/* Get the object, proving what is asked for: what an honest client does. */
enum outcome attack_honest_get(int fd, const char *object);
/* The answers to `expected` requests, at most ms for each: SERVED if there is a result among them, else the last thing.
 * With an object, every challenge is answered by a proof and a request. */
enum outcome attack_all(int fd, unsigned expected, const char *object, int ms);

/* Send descriptors of /dev/null along. */
bool attack_send_with_fds(int fd, const void *p, size_t n, int fds);
bool attack_pass_fd(int sock, int fd);
int attack_take_fd(int sock, int ms);

/* Where we are root: the user of $ATTACK_UID from now on. */
void attack_become_user(void);
/* A child of its own that ends with its parent; 0 in it. */
pid_t attack_fork(void);
/* True when it ended by itself with that status within ms; it is gone in any case. */
bool attack_reap(pid_t pid, int ms, int *status);

/* Arguments: TRUSTED OBJECT PLAIN ROUNDS. TRUSTED: the program that policy trusts with OBJECT; PLAIN: an object that
 * policy gives this uid whatever its program. Runs ROUNDS rounds, with an honest client that has to be served after
 * each one (with $ATTACK_HONEST, else OBJECT), and says how many attacks were refused; the status is 1 if one was not.
 */
struct attack {
	const char *trusted, *object, *plain;
	unsigned round;
};
int attack_run(int argc, char **argv, enum outcome (*once)(const struct attack *a));

#endif
