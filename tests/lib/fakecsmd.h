/* A daemon that tests script: it speaks the wire from threads of the test's own process, answers
 * requests with what their fields say, and misbehaves on demand. */
#ifndef CSM_TESTS_FAKECSMD_H
#define CSM_TESTS_FAKECSMD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <pthread.h>
#include "libclient/wire/frame.h"

enum fake_mode {
	FAKE_NORMAL,
	FAKE_SILENT,   /* reads, never answers */
	FAKE_LOSE,     /* reads a request, closes; `lose` times, then normal */
	FAKE_RAW,      /* answers each request with the bytes of `raw` */
	FAKE_RAW_END,  /* the same, then closes */
	FAKE_ERROR,    /* answers with error_code, error_text, retry_after */
	FAKE_BACKWARD, /* holds `hold` requests of a connection, then answers them last to first */
	FAKE_SLOW,     /* answers after slow_ms */
	FAKE_PROOF,    /* asks each connection for a proof first, unless proof_refused */
};

#define FAKE_IDS 64
struct fake {
	char dir[64], path[96];
	int listener;
	pthread_t thread;
	_Atomic int mode, lose, hold, slow_ms;
	const void *raw;
	size_t raw_len;
	int error_code;
	const char *error_text;
	uint32_t retry_after;
	_Atomic unsigned accepted, open, requests, stopping, proofs;
	_Atomic bool proof_refused;
	pthread_mutex_t lock;
	char ids[FAKE_IDS][CSM_REQUEST_ID_MAX + 1]; /* request_ids in the order of arrival */
	unsigned n_ids;
	uint64_t stream_bytes;
};

/* Listens at f->path when it returns; fails the test otherwise. */
void fake_start(struct fake *f);
/* Ends every connection, and waits for the threads. */
void fake_stop(struct fake *f);
void fake_sleep_ms(unsigned ms);

#endif
