/* MessagePack encoding into a csm_buf, by msgpack-c's packer; shortest forms. */
#ifndef CSM_WIRE_ENC_H
#define CSM_WIRE_ENC_H

#include "libclient/base/buf.h"
#include "libclient/base/name.h"

CSM_MUST int csm_enc_nil(struct csm_buf *b);
CSM_MUST int csm_enc_bool(struct csm_buf *b, bool v);
CSM_MUST int csm_enc_u64(struct csm_buf *b, uint64_t v);
CSM_MUST int csm_enc_str(struct csm_buf *b, struct csm_str s);
CSM_MUST int csm_enc_bin(struct csm_buf *b, struct csm_bin s);
CSM_MUST int csm_enc_array(struct csm_buf *b, uint32_t n);
CSM_MUST int csm_enc_map(struct csm_buf *b, uint32_t n);

#endif
