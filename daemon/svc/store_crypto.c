/* The primitives under a record: its key, AES-256-GCM, header and associated data. */
#include <sodium.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

static const uint8_t nonce_zero[crypto_aead_aes256gcm_NPUBBYTES];

/* RFC 5869 2.3 for one block of output: HMAC(PRK, info || 0x01), info = "csm1" || kind || salt. */
void prk_record_key(
	const struct prk *prk, enum rec_kind kind, const uint8_t salt[static SALT_LEN], uint8_t out[static KEY_LEN])
{
	uint8_t info[4 + 1 + SALT_LEN + 1] = {'c', 's', 'm', '1', (uint8_t)kind};

	memcpy(info + 5, salt, SALT_LEN);
	info[5 + SALT_LEN] = 1;
	prk_mac(prk, &(struct part){info, sizeof(info)}, 1, out);
}

/* info = "csm1" || 0 || label: no record kind is 0. */
void prk_label_key(const struct prk *prk, const char *label, uint8_t out[static KEY_LEN])
{
	const struct part parts[] = {{"csm1", 5}, {label, strlen(label)}, {"\x01", 1}};

	prk_mac(prk, parts, 3, out);
}

int aead_init(struct aead *a, bool no_sodium)
{
	int r = CSM_ENOMEM;

	*a = (struct aead){0};
	if (!no_sodium && crypto_aead_aes256gcm_is_available())
		return 0;
	a->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	a->ctx = EVP_CIPHER_CTX_new();
	if (a->cipher == NULL || a->ctx == NULL)
		goto out;
	if (EVP_CipherInit_ex2(a->ctx, a->cipher, NULL, NULL, 1, NULL) != 1) {
		r = CSM_EINTERNAL;
		goto out;
	}
	r = 0;
out:
	if (r != 0)
		aead_free(a);
	return r;
}

void aead_free(struct aead *a)
{
	EVP_CIPHER_CTX_free(a->ctx);
	EVP_CIPHER_free(a->cipher);
	*a = (struct aead){0};
}

/* Lengths fit an int: nothing here is longer than a record. */
static bool evp_crypt(
	struct aead *a, const uint8_t *key, struct csm_bin aad, struct csm_bin in, uint8_t *out, int enc, uint8_t *tag)
{
	int n = 0;

	if (aad.n > INT32_MAX || in.n > INT32_MAX)
		return false;
	if (EVP_CipherInit_ex2(a->ctx, NULL, key, nonce_zero, enc, NULL) != 1)
		return false;
	if (!enc && EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag) != 1)
		return false;
	if (EVP_CipherUpdate(a->ctx, NULL, &n, aad.p, (int)aad.n) != 1)
		return false;
	if (in.n > 0 && EVP_CipherUpdate(a->ctx, out, &n, in.p, (int)in.n) != 1)
		return false;
	if (EVP_CipherFinal_ex(a->ctx, out + in.n, &n) != 1)
		return false;
	return !enc || EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag) == 1;
}

int aead_seal(struct aead *a, const uint8_t key[static KEY_LEN], struct csm_bin aad, struct csm_bin in, uint8_t *out)
{
	if (a->ctx != NULL)
		return evp_crypt(a, key, aad, in, out, 1, out + in.n) ? 0 : CSM_EINTERNAL;
	if (crypto_aead_aes256gcm_encrypt(out, NULL, in.p, in.n, aad.p, aad.n, NULL, nonce_zero, key) != 0)
		return CSM_EINTERNAL;
	return 0;
}

int aead_open(struct aead *a, const uint8_t key[static KEY_LEN], struct csm_bin aad, struct csm_bin in, uint8_t *out)
{
	uint8_t tag[TAG_LEN];
	size_t n;

	if (in.n < TAG_LEN)
		return CSM_ETAMPERED;
	n = in.n - TAG_LEN;
	if (a->ctx == NULL) {
		if (crypto_aead_aes256gcm_decrypt(out, NULL, NULL, in.p, in.n, aad.p, aad.n, nonce_zero, key) != 0)
			return CSM_ETAMPERED;
		return 0;
	}
	memcpy(tag, in.p + n, TAG_LEN);
	if (!evp_crypt(a, key, aad, (struct csm_bin){in.p, n}, out, 0, tag)) {
		sodium_memzero(out, n);
		return CSM_ETAMPERED;
	}
	return 0;
}

void rec_header(uint8_t *p, enum rec_kind kind, uint64_t now, const uint8_t *kek_id, size_t clear_n)
{
	memset(p, 0, HDR_LEN);
	p[0] = REC_FORMAT;
	p[1] = REC_SUITE;
	p[2] = (uint8_t)kind;
	p[3] = REC_LIVE;
	put16(p + 4, (uint16_t)(HDR_LEN + clear_n));
	put64(p + HDR_OFF_TIME, now);
	if (kek_id != NULL)
		memcpy(p + HDR_OFF_KEK, kek_id, KEK_ID_LEN);
	randombytes_buf(p + HDR_OFF_SALT, SALT_LEN);
}

int rec_parse(struct csm_bin v, enum rec_kind kind, struct rec *ret)
{
	size_t n;

	if (v.n < HDR_LEN + TAG_LEN || v.p[0] != REC_FORMAT || v.p[1] != REC_SUITE || v.p[2] != kind)
		return CSM_ETAMPERED;
	n = get16(v.p + 4);
	if (n < HDR_LEN || n > HDR_MAX || n > v.n - TAG_LEN || get16(v.p + 6) != 0)
		return CSM_ETAMPERED;
	*ret = (struct rec){
		.kind = kind,
		.state = v.p[3],
		.time = get64(v.p + HDR_OFF_TIME),
		.kek_id = v.p + HDR_OFF_KEK,
		.salt = v.p + HDR_OFF_SALT,
		.clear = {v.p + HDR_LEN, n - HDR_LEN},
		.header = {v.p, n},
		.body = {v.p + n, v.n - n},
	};
	return 0;
}

/* kind || length of the key || key || header: the length keeps key and header apart. */
static int rec_aad(
	enum rec_kind kind, struct csm_bin key, struct csm_bin header, uint8_t aad[static AAD_MAX], size_t *n)
{
	if (key.n > STORE_KEY_MAX || header.n > HDR_MAX)
		return CSM_EINVALID;
	aad[0] = (uint8_t)kind;
	put16(aad + 1, (uint16_t)key.n);
	memcpy(aad + 3, key.p, key.n);
	memcpy(aad + 3 + key.n, header.p, header.n);
	*n = 3 + key.n + header.n;
	return 0;
}

int rec_seal(struct aead *a, const struct prk *prk, enum rec_kind kind, struct csm_bin key, uint8_t *value,
	size_t header_n, struct csm_bin plain)
{
	CSM_WIPED(k, KEY_LEN);
	uint8_t aad[AAD_MAX];
	size_t n;
	int r;

	r = rec_aad(kind, key, (struct csm_bin){value, header_n}, aad, &n);
	if (r != 0)
		return r;
	prk_record_key(prk, kind, value + HDR_OFF_SALT, k);
	return aead_seal(a, k, (struct csm_bin){aad, n}, plain, value + header_n);
}

int rec_open(struct aead *a, const struct prk *prk, const struct rec *rec, struct csm_bin key, uint8_t *out)
{
	CSM_WIPED(k, KEY_LEN);
	uint8_t aad[AAD_MAX];
	size_t n;
	int r;

	r = rec_aad(rec->kind, key, rec->header, aad, &n);
	if (r != 0)
		return r;
	prk_record_key(prk, rec->kind, rec->salt, k);
	return aead_open(a, k, (struct csm_bin){aad, n}, rec->body, out);
}
