/* The conversation with the broker: questions in, answers out, in the order in which they are known. */
#ifndef CSM_IDENT_SERVE_H
#define CSM_IDENT_SERVE_H

#include "libclient/base/err.h"

/* Until the broker closes its end. wake: a non-blocking eventfd for its threads. */
CSM_MUST int serve(int sock, int wake);

#endif
