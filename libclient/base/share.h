/* A recovery share as text that can be typed: 88 hexadecimal digits in groups of four, with '-' between. The bytes are
 *
 *   1   format: 1
 *   4   id of the set
 *   1   k: how many of the set are needed
 *   1   n: how many there are
 *   1   which one this is, 1 to n
 *   32  the share
 *   4   check: the first bytes of BLAKE2b-256 over all before, with "csm recovery share" behind
 *
 * Letters may be of either case; blanks, newlines and '-' do not matter; lines that begin with '#' are left out. The bytes
 * of a share are a secret: what takes and gives them wipes its own copies. */
#ifndef CSM_BASE_SHARE_H
#define CSM_BASE_SHARE_H

#include <stddef.h>
#include <stdint.h>
#include "libclient/base/err.h"

#define CSM_SHARE_LEN 32u
#define CSM_SHARE_SET 4u
#define CSM_SHARES_MAX 32u
#define CSM_SHARE_TEXT 110u /* with its NUL */

struct csm_share {
	uint8_t set[CSM_SHARE_SET];
	uint8_t threshold, count, index;
	uint8_t share[CSM_SHARE_LEN];
};

void csm_share_text(const struct csm_share *s, char out[static CSM_SHARE_TEXT]);
/* CSM_EINVALID with *why (static): it is not one, or a digit is wrong. */
CSM_MUST int csm_share_parse(const char *text, size_t n, struct csm_share *ret, const char **why);

#endif
