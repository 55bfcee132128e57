/* Descriptors of this process. */
#ifndef TESTS_LIB_FDS_H
#define TESTS_LIB_FDS_H

#include <stddef.h>

/* How many are open, counted in the same way each time: for comparing. */
size_t open_fds(void);

#endif
