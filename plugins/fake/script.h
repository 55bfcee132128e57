/* What the fake back end is told to do: a list of rules, each for one slot of the table.
 *
 *   script := [ rule *( ";" rule ) ]
 *   rule   := slot "=" action *( "," action )
 *   slot   := "open" | "generate" | "load" | "public_key" | "sign" | "decrypt" | "derive" | "seal" | "unseal"
 *           | "counter_read" | "counter_increment" | "random" | "health"
 *   action := "after:" N             the first N calls pass this rule by
 *           | "delay:" N ("ms"|"s")  sleep first; at most 60 s
 *           | "fail:" ERROR [":" N]  answer this row of errors.def, at most N times (without N: always)
 *           | "down"                 only in health: not usable
 *           | "spoil"                only in sign: what is answered is no signature; "after" does not hold for it
 *
 * Spaces around rules are allowed. All rules of a slot apply, in their order; the first failure is the
 * answer. */
#ifndef CSM_FAKE_SCRIPT_H
#define CSM_FAKE_SCRIPT_H

#include <stdbool.h>
#include <stdint.h>
#include "libclient/base/name.h"

enum fake_slot {
	FAKE_OPEN,
	FAKE_GENERATE,
	FAKE_LOAD,
	FAKE_PUBLIC_KEY,
	FAKE_SIGN,
	FAKE_DECRYPT,
	FAKE_DERIVE,
	FAKE_SEAL,
	FAKE_UNSEAL,
	FAKE_COUNTER_READ,
	FAKE_COUNTER_INCREMENT,
	FAKE_RANDOM,
	FAKE_HEALTH,
	FAKE_SLOTS
};

#define FAKE_RULES_MAX 32u

struct fake_script {
	struct fake_rule {
		enum fake_slot slot;
		uint32_t after, delay_ms;
		int fail;       /* 0: none */
		uint32_t times; /* of the failure; 0: always */
		uint32_t failed;
		bool down, spoil;
	} rules[FAKE_RULES_MAX];
	size_t n;
	uint64_t calls[FAKE_SLOTS];
};

/* CSM_EINVALID: *at is where the text is wrong. */
CSM_MUST int fake_script_parse(struct csm_str text, struct fake_script *ret, size_t *at);
/* A call of slot happens: sleeps as told, and answers 0 or the scripted failure. One thread at a time. */
CSM_MUST int fake_script_step(struct fake_script *s, enum fake_slot slot);
bool fake_script_down(const struct fake_script *s);
bool fake_script_spoils(const struct fake_script *s);

#endif
