/* Rules that name an executable: the program is looked at before such a request is decided, and the connection has to
 * prove that this program holds it (PROTOCOL.md, prove). Loop thread only. */
#ifndef CSM_NODE_PROOF_H
#define CSM_NODE_PROOF_H

#include "daemon/node/ask.h"
#include "daemon/node/dispatch.h"

/* What was found of the program of the peer whose request is in hand. */
struct look {
	int r;           /* 0, or why it is not known */
	const char *why; /* for people */
	const struct csm_exe *exe;
	bool proven; /* this program has proven that it holds the connection */
};

/* What a connection has proven; the last nonce stays good. */
struct proof {
	struct csm_exe exe;
	uint8_t nonce[16];
	bool proven;
};

/* True: the program has to be looked at first, or the request is a step of a signature in parts behind one for which that is
 * so; it goes on, or was answered, later. */
bool proof_defer(struct req *q);
/* The connection is closing. */
void proof_forget(struct conn *c);
/* Would the program, looked at, be allowed? 0, CSM_EPROOF_REQUIRED, CSM_EDENIED, CSM_EUNAVAILABLE. */
CSM_MUST int proof_decide(struct req *q, int perm, struct csm_str object);
/* The home namespace with the program looked at; as csm_subject_home, CSM_EPROOF_REQUIRED, CSM_EUNAVAILABLE. */
CSM_MUST int proof_home(struct req *q, const struct csm_subject *base, struct csm_str *ret, const char **why);
/* csm-ident's answer, without one of ours. */
void proof_notified(struct conn *c, const struct csm_frame *f);
/* The answer proof_required, with a nonce. */
void proof_challenge(struct req *q);

#endif
