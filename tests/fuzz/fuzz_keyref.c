/* References of keys: what is accepted is written again as the very same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/base/keyref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t out[CSM_KEYREF_DER_MAX];
	struct csm_keyref ref;
	size_t n;

	if (csm_keyref_decode(data, size, &ref) != 0)
		return 0;
	if (csm_keyref_encode(&ref, out, &n) != 0 || n != size || memcmp(out, data, n) != 0)
		abort();
	return 0;
}
