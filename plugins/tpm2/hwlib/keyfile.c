#include "plugins/tpm2/hwlib/hwlib.h"

#include <string.h>
#include <tss2/tss2_mu.h>

/* tpm-util writes the structures of the tpm2-tss that it was built with as they lie in memory, little-endian. Releases
 * differ in their lengths, not in where fields are. */
#define RAW_PUBLIC_MIN 360u
#define RAW_PUBLIC_MAX 616u
#define RAW_PRIVATE_MIN 912u
#define RAW_PRIVATE_MAX 1552u

static uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t le32(const uint8_t *p)
{
	return (uint32_t)le16(p) | (uint32_t)le16(p + 2) << 16;
}

static int raw_public(const uint8_t *p, size_t n, TPM2B_PUBLIC *ret)
{
	TPMT_PUBLIC *a = &ret->publicArea;

	if ((n != RAW_PUBLIC_MIN && n != RAW_PUBLIC_MAX) || le16(p + 4) != TPM2_ALG_RSA || le16(p + 12) > 64 ||
		le16(p + 100) > n - 102 || le16(p + 100) > sizeof(a->unique.rsa.buffer))
		return CSM_EINVALID;
	memset(ret, 0, sizeof(*ret));
	a->type = TPM2_ALG_RSA;
	a->nameAlg = le16(p + 6);
	a->objectAttributes = le32(p + 8);
	a->authPolicy.size = le16(p + 12);
	memcpy(a->authPolicy.buffer, p + 14, a->authPolicy.size);
	a->parameters.rsaDetail.symmetric.algorithm = le16(p + 80);
	a->parameters.rsaDetail.symmetric.keyBits.sym = le16(p + 82);
	a->parameters.rsaDetail.symmetric.mode.sym = le16(p + 84);
	a->parameters.rsaDetail.scheme.scheme = le16(p + 86);
	a->parameters.rsaDetail.scheme.details.anySig.hashAlg = le16(p + 88);
	a->parameters.rsaDetail.keyBits = le16(p + 92);
	a->parameters.rsaDetail.exponent = le32(p + 96);
	a->unique.rsa.size = le16(p + 100);
	memcpy(a->unique.rsa.buffer, p + 102, a->unique.rsa.size);
	return 0;
}

static int raw_private(const uint8_t *p, size_t n, TPM2B_PRIVATE *ret)
{
	if ((n != RAW_PRIVATE_MIN && n != RAW_PRIVATE_MAX) || le16(p) == 0 || le16(p) > n - 2 ||
		le16(p) > sizeof(ret->buffer))
		return CSM_EINVALID;
	memset(ret, 0, sizeof(*ret));
	ret->size = le16(p);
	memcpy(ret->buffer, p + 2, ret->size);
	return 0;
}

static int read_public(const uint8_t *p, size_t n, TPM2B_PUBLIC *ret)
{
	size_t off = 0;

	memset(ret, 0, sizeof(*ret));
	if (t2_public_parse(p, n, &off, ret) == 0 && off == n)
		return ret->publicArea.type == TPM2_ALG_RSA ? 0 : CSM_EUNSUPPORTED;
	return raw_public(p, n, ret);
}

static int read_private(const uint8_t *p, size_t n, TPM2B_PRIVATE *ret)
{
	size_t off = 0;

	memset(ret, 0, sizeof(*ret));
	if (Tss2_MU_TPM2B_PRIVATE_Unmarshal(p, n, &off, ret) == TSS2_RC_SUCCESS && off == n && ret->size > 0)
		return 0;
	return raw_private(p, n, ret);
}

/* Which is which shows from what is in them: a public part's first field after its size is a type of key. */
int hwlib_keyfile_read(const SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in, TPM2B_PUBLIC *pub, TPM2B_PRIVATE *priv)
{
	int have_pub = CSM_EINVALID, have_priv = CSM_EINVALID;

	for (int i = 0; i < in->num_buffers && i < SSHSM_HW_PLUGIN_BUFFERS_MAX; i++) {
		const buffer_info_t *b = in->buffer_info[i];
		size_t n;

		if (b == NULL || b->buffer == NULL || b->length_of_buffer < 4)
			continue;
		n = (size_t)b->length_of_buffer;
		if (have_pub != 0 && ((have_pub = read_public(b->buffer, n, pub)) == 0 || have_pub == CSM_EUNSUPPORTED)) {
			if (have_pub != 0)
				return have_pub;
			continue;
		}
		if (have_priv != 0)
			have_priv = read_private(b->buffer, n, priv);
	}
	return have_pub == 0 && have_priv == 0 ? 0 : CSM_EINVALID;
}
