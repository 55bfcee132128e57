#include <sodium.h>
#include <string.h>
#include <openssl/err.h>
#include "libclient/base/lockmem.h"
#include "libclient/tpmfmt/tpmutil.h"

/* ---- structures as they lay in memory ---- */

/* Offsets in a TPM2B_PUBLIC of tpm2-tss for x86-64, the same in all of its versions. */
enum {
	RAW_TYPE = 4,
	RAW_NAME_ALG = 6,
	RAW_ATTRIBUTES = 8,
	RAW_POLICY = 12,
	RAW_SYM = 80,
	RAW_SCHEME = 86,
	RAW_BITS = 92,
	RAW_EXPONENT = 96,
	RAW_MODULUS = 100,
};
/* Sizes of the structures with tpm2-tss 1.2 and 3.2. */
static const struct {
	size_t old, new;
} raw_sizes[TPMUTIL__PARTS] = {{360, 616}, {912, 1552}, {258, 514}, {68, 66}};

static uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t le32(const uint8_t *p)
{
	return (uint32_t)le16(p) | (uint32_t)le16(p + 2) << 16;
}

static bool raw_size(enum tpmutil_part part, struct csm_bin file)
{
	return file.n == raw_sizes[part].old || file.n == raw_sizes[part].new;
}

/* The content of a raw TPM2B, whose padding is zero: what is not, is another file. */
static bool raw_2b(struct csm_bin file, struct csm_bin *ret)
{
	size_t n = le16(file.p);

	if (n == 0 || n > file.n - 2)
		return false;
	for (size_t i = 2 + n; i < file.n; i++)
		if (file.p[i] != 0)
			return false;
	*ret = (struct csm_bin){file.p + 2, n};
	return true;
}

/* RSA only: the tool made nothing else. */
static int raw_public(struct csm_bin file, TPMT_PUBLIC *pub)
{
	TPMS_RSA_PARMS *d = &pub->parameters.rsaDetail;
	const uint8_t *p = file.p;
	size_t n;

	if (le16(p + RAW_TYPE) != TPM2_ALG_RSA || le16(p + RAW_NAME_ALG) != TPM2_ALG_SHA256)
		return CSM_EINVALID;
	n = le16(p + RAW_MODULUS);
	if (le16(p + RAW_POLICY) != 0 || le16(p + RAW_SYM) != TPM2_ALG_NULL || n > file.n - RAW_MODULUS - 2 ||
		n > sizeof(pub->unique.rsa.buffer))
		return CSM_EUNSUPPORTED;
	memset(pub, 0, sizeof(*pub));
	pub->type = TPM2_ALG_RSA;
	pub->nameAlg = TPM2_ALG_SHA256;
	pub->objectAttributes = le32(p + RAW_ATTRIBUTES);
	d->symmetric.algorithm = TPM2_ALG_NULL;
	/* A scheme with its hash is part of the Name. */
	d->scheme.scheme = le16(p + RAW_SCHEME);
	if (d->scheme.scheme != TPM2_ALG_NULL)
		d->scheme.details.anySig.hashAlg = le16(p + RAW_SCHEME + 2);
	d->keyBits = le16(p + RAW_BITS);
	d->exponent = le32(p + RAW_EXPONENT);
	pub->unique.rsa.size = (UINT16)n;
	memcpy(pub->unique.rsa.buffer, p + RAW_MODULUS + 2, n);
	return 0;
}

/* ---- telling them apart ---- */

/* A TPM2B that is the whole file. */
static bool whole_2b(struct csm_bin file, struct csm_bin *ret)
{
	return csm_tpm_take_2b(&file, UINT16_MAX, ret) && file.n == 0 && ret->n > 0;
}

static int find_public(struct csm_bin file, TPMT_PUBLIC *pub)
{
	struct csm_bin in;
	struct csm_buf form;
	int r;

	if (!raw_size(TPMUTIL_PUBLIC, file) || (r = raw_public(file, pub)) == CSM_EINVALID)
		return csm_tpm_public_get(file, pub);
	if (r != 0)
		return r;
	/* The same rules as for the standard form. */
	csm_buf_init(&form, CSM_TPM_PUBLIC_MAX, false);
	if ((r = csm_tpm_public_put(pub, &form)) == 0) {
		in = (struct csm_bin){csm_buf_ptr(&form), form.len};
		r = csm_tpm_public_get(in, pub);
	}
	csm_buf_free(&form);
	return r;
}

/* An inner key is AES-128's; a seed is as long as an RSA modulus; a blob begins with its integrity. */
static bool find_other(struct csm_bin file, enum tpmutil_part *part, struct csm_bin *content)
{
	struct csm_bin c, mac;

	for (int i = TPMUTIL_INNER; i >= TPMUTIL_PRIVATE; i--) {
		bool raw = raw_size((enum tpmutil_part)i, file) && raw_2b(file, &c);

		if (!raw && !whole_2b(file, &c))
			continue;
		*part = (enum tpmutil_part)i;
		*content = c;
		if (i == TPMUTIL_INNER && c.n == 16)
			return true;
		if (i == TPMUTIL_SEED && (c.n == 256 || c.n == 384 || c.n == 68))
			return true;
		if (i == TPMUTIL_PRIVATE && c.n <= CSM_TPM_DUPLICATE_MAX && csm_tpm_take_2b(&c, 64, &mac) &&
			(mac.n == 32 || mac.n == 0) && c.n > 0)
			return true;
	}
	return false;
}

int tpmutil_add(struct tpmutil_set *set, struct csm_bin file)
{
	struct csm_bin content = {0};
	enum tpmutil_part part = TPMUTIL_PUBLIC;
	TPMT_PUBLIC pub;
	int r = find_public(file, &pub);

	if (r == CSM_EUNSUPPORTED)
		return r;
	if (r != 0 && !find_other(file, &part, &content))
		return CSM_EINVALID;
	if (set->have[part])
		return CSM_EEXISTS;
	set->have[part] = true;
	if (part == TPMUTIL_PUBLIC)
		set->pub = pub;
	else
		*(part == TPMUTIL_PRIVATE ? &set->duplicate : part == TPMUTIL_SEED ? &set->seed : &set->inner) = content;
	return 0;
}

/* ---- opening ---- */

/* Decrypt with the inner key, and take off the integrity before it: a hash of the key and its Name. */
static int inner_open(struct csm_bin key, const TPM2B_NAME *name, struct csm_bin in, struct csm_buf *sensitive)
{
	static const uint8_t iv[16] = {0};
	CSM_WIPED(plain, CSM_TPM_SENSITIVE_MAX);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256_state st;
	struct csm_bin rest, told;
	int n = 0, r = CSM_ENOMEM;

	if (ctx == NULL)
		return r;
	r = CSM_EINVALID;
	if (in.n > CSM_TPM_SENSITIVE_MAX || EVP_CipherInit_ex2(ctx, EVP_aes_128_cfb128(), key.p, iv, 0, NULL) != 1 ||
		EVP_CipherUpdate(ctx, plain, &n, in.p, (int)in.n) != 1 || (size_t)n != in.n)
		goto out;
	rest = (struct csm_bin){plain, in.n};
	if (!csm_tpm_take_2b(&rest, sizeof(hash), &told) || told.n != sizeof(hash))
		goto out;
	crypto_hash_sha256_init(&st);
	crypto_hash_sha256_update(&st, rest.p, rest.n);
	crypto_hash_sha256_update(&st, name->name, name->size);
	crypto_hash_sha256_final(&st, hash);
	if (sodium_memcmp(hash, told.p, sizeof(hash)) == 0)
		r = csm_buf_put(sensitive, rest.p, rest.n);
	sodium_memzero(&st, sizeof(st));
out:
	EVP_CIPHER_CTX_free(ctx);
	ERR_clear_error();
	return r;
}

int tpmutil_open(const struct tpmutil_set *set, struct csm_buf *sensitive)
{
	static const uint8_t zeros[32] = {0}; /* of any length: an HMAC key is padded with zeros */
	TPM2B_NAME name;
	struct csm_buf inner;
	int r;

	if (!set->have[TPMUTIL_PUBLIC] || !set->have[TPMUTIL_PRIVATE])
		return CSM_EINVALID;
	if ((r = csm_tpm_name(&set->pub, &name)) != 0)
		return r;
	csm_buf_init(&inner, CSM_TPM_SENSITIVE_MAX, true);
	if ((r = csm_tpm_unwrap_seed(zeros, sizeof(zeros), &name, set->duplicate, &inner)) == CSM_EINVALID)
		r = CSM_ENOT_FOUND;
	if (r == 0)
		r = set->have[TPMUTIL_INNER] ?
			inner_open(set->inner, &name, (struct csm_bin){csm_buf_ptr(&inner), inner.len}, sensitive) :
			csm_buf_put(sensitive, csm_buf_ptr(&inner), inner.len);
	csm_buf_free(&inner);
	return r;
}
