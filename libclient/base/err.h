/* Error codes: 0 or a positive CSM_E*, the rows of proto-spec/errors.def. */
#ifndef CSM_BASE_ERR_H
#define CSM_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CSM_MUST __attribute__((warn_unused_result))

#ifndef CSM_ERRORS_DEFINED
#define CSM_ERRORS_DEFINED
enum csm_error {
	CSM_OK = 0,
#define X(sym, num, name, class, http, text) CSM_E##sym = num,
#include "proto-spec/errors.def"
#undef X
};
#endif

enum csm_error_class {
	CSM_CLASS_FAILED,
	CSM_CLASS_DENIED,
	CSM_CLASS_NOT_FOUND,
	CSM_CLASS_CONFLICT,
	CSM_CLASS_RETRY,
	CSM_CLASS_UNREACHABLE,
};

/* The short name ("denied") and the text of a code; "unknown" for a number that is none. */
const char *csm_err_name(int code);
const char *csm_err_text(int code);
/* The code that has this name on the wire, of n bytes; 0: none has. */
int csm_err_of_name(const char *name, size_t n);
enum csm_error_class csm_err_class(int code);
bool csm_err_retryable(int code);
/* The code as the wire may carry it: NOMEM becomes BUSY and SYSTEM UNAVAILABLE, since a repeat may help; other
 * client-side codes and unknown numbers become INTERNAL. */
int csm_err_on_wire(int code);

#endif
