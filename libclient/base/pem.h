/* PEM: bytes between lines that say what they are. Any thread. */
#ifndef CSM_BASE_PEM_H
#define CSM_BASE_PEM_H

#include "libclient/base/buf.h"

/* Appended to b: the block of this label ("CERTIFICATE"), in lines of 64 characters. CSM_ETOO_LARGE, CSM_ENOMEM. */
CSM_MUST int csm_pem_put(struct csm_buf *b, const char *label, const void *der, size_t n);

#endif
