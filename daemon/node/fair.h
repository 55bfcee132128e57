/* Whose turn it is on a loop. While one user alone asks, each of its connections is served as it becomes readable, and
 * after FAIR_LONE units of work, or FAIR_WATCHED where others are connected, the loop looks who has come. Once two have
 * asked within FAIR_ALONE_MS, what is readable waits in a queue of its user: users are served in turn, for FAIR_TURN_US at
 * a time, and between turns the loop looks who else has come. Who had nothing waiting goes before those who still have. So
 * a user who floods costs others such a turn, not the time of all that was sent; and one who is connected and asks nothing
 * costs nothing. Loop thread only. */
#ifndef CSM_NODE_FAIR_H
#define CSM_NODE_FAIR_H

#include "daemon/node/loop.h"

#define FAIR_TURN_US 12u
#define FAIR_CALM_US 60u /* the same when one user alone has asked for FAIR_CALM_MS */
#define FAIR_CALM_MS 20u
#define FAIR_ALONE_MS 1000u
/* Units of work: a message is one, the use of a key FAIR_KEY, and each FAIR_BYTES of a message and its answer one. */
#define FAIR_LONE 256u
#define FAIR_WATCHED 64u
#define FAIR_KEY 16u
#define FAIR_BYTES 4096u
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
/* A connection of u has become readable. */
static inline void fair_asks(struct loop *l, const struct user *u)
{
	if (u == l->asker)
		return;
	l->asker = u;
	l->contested_ms = l->now_ms;
}
/* Do several users ask? */
static inline bool fair_contested(const struct loop *l)
{
	return fair_needed(l) && l->now_ms - l->contested_ms < FAIR_ALONE_MS;
}
/* Has so much been done that it is time to look who has come? */
static inline bool fair_used_up(const struct loop *l)
{
	return l->served >= (fair_needed(l) ? FAIR_WATCHED : FAIR_LONE);
}
/* Has what becomes readable to wait for a turn? */
static inline bool fair_waits(const struct loop *l)
{
	return fair_contested(l) || fair_used_up(l);
}
/* There is something to read or to handle: conn_serve is called when it is the connection's turn. */
void fair_ready(struct conn *c);
/* Is the turn used up? Who goes on then keeps others waiting. */
bool fair_over(const struct loop *l);

#endif
