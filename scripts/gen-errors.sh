#!/bin/bash
# Writes csm/errors.h, the public list of error codes, from proto-spec/errors.def.
set -euo pipefail
cat <<'HEAD'
/* Error codes of csm, made from proto-spec/errors.def. */
#ifndef CSM_ERRORS_DEFINED
#define CSM_ERRORS_DEFINED
enum csm_error {
	CSM_OK = 0,
HEAD
sed -nE 's/^X\(([A-Z_]+), *([0-9]+), *"([a-z_]+)",.*"(.*)"\)$/\tCSM_E\1 = \2, \/* \3: \4 *\//p' "$1"
printf '};\n#endif\n'
