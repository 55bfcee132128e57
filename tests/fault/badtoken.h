/* A PKCS#11 library for tests: a token in memory that keeps its objects over C_Finalize, and does what bad libraries do
 * when it is told to. Found by dlsym of "badtoken". */
#ifndef TESTS_FAULT_BADTOKEN_H
#define TESTS_FAULT_BADTOKEN_H

#include <stdbool.h>
#include <p11-kit-1/p11-kit/pkcs11.h>

#define BADTOKEN_PIN "1234"

enum badtoken_sign {
	BAD_NOTHING,
	BAD_UNTOUCHED, /* CKR_OK, and neither a signature nor a length */
	BAD_SILENT,    /* CKR_OK and the right length, and no signature */
	BAD_SHORT,
	BAD_LONG,      /* a length that no buffer has */
	BAD_OTHER_KEY,
};

struct badtoken {
	/* what it does */
	enum badtoken_sign sign;
	const char *fail; /* this function, after `fail_after` calls, `fail_times` times */
	CK_RV fail_rv;
	unsigned fail_after, fail_times;
	bool gone;        /* no token in the slot */
	bool cannot_lock; /* and two threads at once are counted in `clashes` */
	bool twins;       /* a second token of the same name */
	bool extractable; /* keys are made extractable, whatever is asked for */
	bool many;        /* C_FindObjects tells of more than it was asked for */
	bool huge;        /* attributes are longer than the room for them */
	bool always_authenticate;
	unsigned sessions_max; /* 0: many */
	CK_FLAGS token_flags;  /* besides its own */
	/* what was done */
	unsigned initialized, logins, finds, sign_inits, signs, made, destroyed, clashes;
	/* what happens to it */
	unsigned (*objects)(void);
	unsigned (*sessions)(void);
	void (*lose_sessions)(void);
	void (*swap_keys)(void);      /* each private key becomes another, under its id */
	void (*double_keys)(void);    /* each private key is there twice */
	void (*hide_keys)(bool hide); /* no object is found */
	void (*wipe)(void);           /* a new token: nothing in it, all told things forgotten */
};

#endif
