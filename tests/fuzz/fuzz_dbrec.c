/* Any bytes as a row of csm-server's database: refused, or read, and then written again as the same bytes. */
#include <stdlib.h>
#include <string.h>
#include "daemon/central/dbrec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct rec_def *const defs[] = {&rec_schema, &rec_ref, &rec_cert, &rec_der, &rec_revoked, &rec_token, &rec_token_ref,
		&rec_replay, &rec_value, &rec_event, &rec_usage, &rec_node, &rec_request};
	static const uint8_t raw[DB_KEY_LEN];
	const struct csm_bin at = {(const uint8_t *)"k", 1};
	_Alignas(16) uint8_t out[1024] = {0};
	struct csm_pool pool;
	struct rec_key key;
	struct csm_buf b;

	rec_key_init(&key, raw);
	csm_pool_init(&pool, 65536);
	csm_buf_init(&b, 4u << 20, false);
	for (size_t i = 0; i < sizeof(defs) / sizeof(defs[0]); i++) {
		csm_pool_reset(&pool);
		csm_buf_reset(&b);
		must(defs[i]->size <= sizeof(out));
		if (rec_get(NULL, defs[i], at, (struct csm_bin){data, size}, &pool, out) != 0)
			continue;
		must(rec_put(&key, defs[i], at, out, &b) == 0);
		must(b.len == size && memcmp(csm_buf_ptr(&b), data, size - REC_TAG_LEN) == 0);
		must(rec_get(&key, defs[i], at, (struct csm_bin){csm_buf_ptr(&b), b.len}, &pool, out) == 0);
	}
	csm_buf_free(&b);
	csm_pool_free(&pool);
	return 0;
}
