#!/bin/bash
# After a power cut the store and the counter in the TPM belong together: the store is not taken for an older one, and
# nothing acknowledged is lost.
# bound: 120
# bound-long: 1200
exec env CSM_POWERCUT_BACKEND=tpm2 "$(dirname "$0")/power-cut-loses-nothing.sh"
