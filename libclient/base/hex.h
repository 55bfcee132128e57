/* Hexadecimal digits. */
#ifndef CSM_BASE_HEX_H
#define CSM_BASE_HEX_H

#include "libclient/base/name.h"

/* Of one digit, in either case; -1: it is none. */
int csm_hex_digit(char c);
/* Lower case: 2n characters and a NUL. */
void csm_hex(const uint8_t *p, size_t n, char *out);
/* The n bytes of 2n digits in lower case, the one way to write them. CSM_EINVALID: they are something else. */
CSM_MUST int csm_unhex(struct csm_str s, uint8_t *out, size_t n);

#endif
