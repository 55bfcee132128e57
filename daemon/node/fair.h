/* Whose turn it is on a loop. While all connections of a loop are one user's, each is served as it becomes readable, and
 * after FAIR_LONE messages at the latest the loop looks who has come: another user may just be connecting. As soon as there are several users, what is readable waits in a queue of its user: users are served in turn, for
 * FAIR_TURN_US at a time, and between turns the loop looks who else has come. Who had nothing waiting goes before those
 * who still have. So a user who floods costs others such a turn, not the time of all that was sent. Loop thread only. */
#ifndef CSM_NODE_FAIR_H
#define CSM_NODE_FAIR_H

#include "daemon/node/loop.h"

#define FAIR_TURN_US 12u
#define FAIR_CALM_US 60u /* the same when one user alone has asked for FAIR_CALM_MS */
#define FAIR_CALM_MS 20u
#define FAIR_LONE 128u
#define FAIR_READ 16384u /* bytes of one recvmsg while there are several users */

/* The connections of one uid, on one kind of socket. */
struct user {
	const struct admit_slot *slot;
	enum csm_role role;
	unsigned n_conns;
	struct conn *first, *last; /* those that wait for a turn */
	struct turns *in;          /* loop->fresh or loop->turns; NULL: nothing waits */
	struct user *next, *next_turn;
};

void fair_init(struct loop *l);
void fair_free(struct loop *l);
/* The connection belongs to its slot's user from here on. */
CSM_MUST int fair_enter(struct conn *c);
void fair_leave(struct conn *c);
static inline bool fair_needed(const struct loop *l)
{
	return l->n_users > 1;
}
/* Has what becomes readable to wait for a turn? */
static inline bool fair_waits(const struct loop *l)
{
	return l->n_users > 1 || l->served >= FAIR_LONE;
}
/* There is something to read or to handle: conn_serve is called when it is the connection's turn. */
void fair_ready(struct conn *c);
/* Is the turn used up? Who goes on then keeps others waiting. */
bool fair_over(const struct loop *l);

#endif
