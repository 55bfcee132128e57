/* issue.sign, and issue.begin, update and finish for long lists: what keys with the use `issuer` sign. */
#include "daemon/node/dispatch.h"

#define NOT_YET "this node has no issuers"

void do_ISSUE_SIGN(struct req *q)
{
	req_error(q, CSM_EUNSUPPORTED, NOT_YET);
}

void do_ISSUE_BEGIN(struct req *q)
{
	req_error(q, CSM_EUNSUPPORTED, NOT_YET);
}

void do_ISSUE_UPDATE(struct req *q)
{
	req_error(q, CSM_EUNSUPPORTED, NOT_YET);
}

void do_ISSUE_FINISH(struct req *q)
{
	req_error(q, CSM_EUNSUPPORTED, NOT_YET);
}
