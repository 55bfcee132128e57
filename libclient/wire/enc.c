#include <msgpack/pack.h>
#include "libclient/wire/enc.h"
#include "proto-spec/limits.h"

static int buf_write(void *data, const char *p, size_t n)
{
	return csm_buf_put(data, p, n);
}

static void packer(msgpack_packer *pk, struct csm_buf *b)
{
	msgpack_packer_init(pk, b, buf_write);
}

int csm_enc_nil(struct csm_buf *b)
{
	msgpack_packer pk;

	packer(&pk, b);
	return msgpack_pack_nil(&pk);
}

int csm_enc_bool(struct csm_buf *b, bool v)
{
	msgpack_packer pk;

	packer(&pk, b);
	return v ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk);
}

int csm_enc_u64(struct csm_buf *b, uint64_t v)
{
	msgpack_packer pk;

	packer(&pk, b);
	return msgpack_pack_uint64(&pk, v);
}

int csm_enc_str(struct csm_buf *b, struct csm_str s)
{
	msgpack_packer pk;
	int r;

	packer(&pk, b);
	if (s.n > CSM_MESSAGE_MAX)
		return CSM_ETOO_LARGE;
	r = msgpack_pack_str(&pk, s.n);
	if (r != 0 || s.n == 0)
		return r;
	return msgpack_pack_str_body(&pk, s.p, s.n);
}

int csm_enc_bin(struct csm_buf *b, struct csm_bin s)
{
	msgpack_packer pk;
	int r;

	packer(&pk, b);
	if (s.n > CSM_MESSAGE_MAX)
		return CSM_ETOO_LARGE;
	r = msgpack_pack_bin(&pk, s.n);
	if (r != 0 || s.n == 0)
		return r;
	return msgpack_pack_bin_body(&pk, s.p, s.n);
}

int csm_enc_array(struct csm_buf *b, uint32_t n)
{
	msgpack_packer pk;

	packer(&pk, b);
	return msgpack_pack_array(&pk, n);
}

int csm_enc_map(struct csm_buf *b, uint32_t n)
{
	msgpack_packer pk;

	packer(&pk, b);
	return msgpack_pack_map(&pk, n);
}
