/* Who can change a file, or put another one in its place? */
#ifndef CSM_BASE_WRITABLE_H
#define CSM_BASE_WRITABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CSM_ANY_UID UINT32_MAX

/* True when somebody can who is not root: that uid (or, for CSM_ANY_UID, the owner), everyone, or a group; and when the
 * file is not there. *why says who and what. Links are followed; access lists are not looked at. */
bool csm_path_writable(const char *path, uint32_t uid, char *why, size_t n);

#endif
