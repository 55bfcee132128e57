/* A small library with the hardware plugin interface, written from its description: keys are PKCS#8 files, OpenSSL
 * signs. It does all that the interface asks for, and on request what the originals got wrong. What was called is
 * written to hwlib_log. */
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "abi.h"
#include "library.h"

#define EXPORT __attribute__((visibility("default")))
#define KEYS 64

EXPORT unsigned long hwlib_mode;
EXPORT char hwlib_log[1 << 16];
EXPORT int hwlib_live_keys, hwlib_live_ops;
EXPORT char hwlib_ids[256]; /* of the buffers of the last load_key */

static struct {
	EVP_PKEY *pkey;
	uint64_t handle;
	unsigned signatures;
} keys[KEYS];
static EVP_PKEY *last_loaded;
static int *page_end;
static int initialised, worn_out;

struct op {
	unsigned long mechanism;
	struct pss_params pss;
	int has_pss;
	unsigned char *data;
	size_t len;
};

static void note(const char *what)
{
	size_t n = strlen(hwlib_log);

	snprintf(hwlib_log + n, sizeof(hwlib_log) - n, "%s ", what);
}

static int lib_init(void)
{
	note("init");
	if (initialised || (hwlib_mode & HWLIB_NOT_THERE))
		return 1;
	initialised = 1;
	worn_out = 0;
	return 0;
}

static void forget(int i)
{
	if (keys[i].pkey == last_loaded)
		last_loaded = NULL;
	EVP_PKEY_free(keys[i].pkey);
	keys[i].pkey = NULL;
	hwlib_live_keys--;
}

static int lib_uninit(void)
{
	note("uninit");
	if (!initialised)
		return 1;
	for (int i = 0; i < KEYS; i++)
		if (keys[i].pkey != NULL)
			forget(i);
	if (page_end != NULL)
		munmap((void *)((uintptr_t)page_end & ~(uintptr_t)4095), 4096);
	page_end = NULL;
	initialised = 0;
	return 0;
}

static int lib_activate(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in)
{
	note("activate");
	for (int i = 0; i < in->num_buffers; i++) {
		const buffer_info_t *b = in->buffer_info[i];
		char text[64] = "";

		memcpy(text, b->buffer, b->length_of_buffer < 63 ? (size_t)b->length_of_buffer : 63);
		if (strncmp(text, "mode=", 5) == 0)
			hwlib_mode = strtoul(text + 5, NULL, 0);
	}
	return (hwlib_mode & HWLIB_NO_ACTIVATE) != 0;
}

static unsigned char *number(const BIGNUM *bn, int little, unsigned long *size)
{
	int n = BN_num_bytes(bn);
	unsigned char *p = malloc((size_t)n);

	if (little)
		BN_bn2lebinpad(bn, p, n);
	else
		BN_bn2bin(bn, p);
	*size = (unsigned long)n;
	return p;
}

static void tell_public(EVP_PKEY *pkey, SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *pub)
{
	BIGNUM *n = NULL, *e = NULL;
	EVP_PKEY *other = NULL;

	if (hwlib_mode & HWLIB_OTHER_KEY)
		pkey = other = EVP_RSA_gen(2048);
	EVP_PKEY_get_bn_param(pkey, "n", &n);
	EVP_PKEY_get_bn_param(pkey, "e", &e);
	pub->modulus = number(n, (hwlib_mode & HWLIB_LITTLE_MODULUS) != 0, &pub->modulus_size);
	if (hwlib_mode & (HWLIB_HOST_EXPONENT | HWLIB_ZERO_EXPONENT)) {
		unsigned v = (hwlib_mode & HWLIB_ZERO_EXPONENT) ? 0 : (unsigned)BN_get_word(e);

		pub->exponent = malloc(4);
		memcpy(pub->exponent, &v, 4);
		pub->exponent_size = 4;
	} else if (!(hwlib_mode & HWLIB_NO_EXPONENT)) {
		pub->exponent = number(e, 0, &pub->exponent_size);
	}
	BN_free(n);
	BN_free(e);
	EVP_PKEY_free(other);
}

/* The last int of a page behind which there is nothing. */
static int *end_of_page(void)
{
	char *two;

	if (page_end != NULL)
		return page_end;
	two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(two + 4096, 4096);
	page_end = (int *)(void *)(two + 4096 - sizeof(int));
	return page_end;
}

static int lib_load_key(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in, void **handle,
	SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *pub)
{
	static uint64_t next = 0x1122334400000000;
	const unsigned char *p;
	int i;

	note("load_key");
	hwlib_ids[0] = '\0';
	for (i = 0; i < in->num_buffers; i++) {
		size_t n = strlen(hwlib_ids);

		snprintf(hwlib_ids + n, sizeof(hwlib_ids) - n, "%s=%d ", in->buffer_info[i]->id,
			in->buffer_info[i]->length_of_buffer);
	}
	if (hwlib_mode & HWLIB_NO_LOAD) {
		pub->modulus = (unsigned char *)8;
		*handle = (void *)16;
		return 1;
	}
	for (i = 0; i < KEYS && keys[i].pkey != NULL; i++)
		;
	if (i == KEYS || in->num_buffers < 1)
		return 1;
	p = in->buffer_info[0]->buffer;
	if ((keys[i].pkey = d2i_AutoPrivateKey(NULL, &p, in->buffer_info[0]->length_of_buffer)) == NULL)
		return 1;
	last_loaded = keys[i].pkey;
	hwlib_live_keys++;
	keys[i].signatures = 0;
	keys[i].handle = ++next;
	*handle = &keys[i].handle;
	if (hwlib_mode & HWLIB_INT_HANDLE) {
		*end_of_page() = (int)(uint32_t)next;
		*handle = page_end;
	}
	tell_public(keys[i].pkey, pub);
	return 0;
}

static int index_of(const void *handle)
{
	for (int i = 0; i < KEYS; i++)
		if (keys[i].pkey != NULL &&
			memcmp(handle, &keys[i].handle, (hwlib_mode & HWLIB_INT_HANDLE) ? sizeof(int) : 8) == 0)
			return i;
	return -1;
}

static int lib_unload_key(void **handle)
{
	int i = index_of(*handle);

	note("unload_key");
	if (i < 0)
		return 1;
	forget(i);
	return 0;
}

static const EVP_MD *hash_of(unsigned long mechanism)
{
	switch (mechanism) {
	case 2:
		return EVP_md5();
	case 5:
	case 11:
		return EVP_sha1();
	case 6:
	case 12:
		return EVP_sha224();
	case 7:
	case 13:
		return EVP_sha256();
	case 8:
	case 14:
		return EVP_sha384();
	case 9:
	case 15:
		return EVP_sha512();
	default:
		return NULL;
	}
}

static const EVP_MD *hash_of_pss(int hash)
{
	static const unsigned long mechanisms[] = {0, 2, 5, 6, 7, 8, 9};

	return hash >= 1 && hash <= 6 ? hash_of(mechanisms[hash]) : NULL;
}

/* data by the mechanism: hash if it says so, then sign. */
static int sign(EVP_PKEY *pkey, const struct op *op, unsigned char *out, int *outlen)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	const EVP_MD *md = hash_of(op->mechanism);
	unsigned char digest[64], sig[512];
	const unsigned char *in = op->data;
	size_t n = op->len, sig_len = sizeof(sig);
	unsigned dlen;
	int pss = op->mechanism >= 10, ok;

	if (md != NULL) {
		EVP_Digest(op->data, op->len, digest, &dlen, md, NULL);
		in = digest;
		n = dlen;
	} else if (op->mechanism == 10) {
		md = hash_of_pss(op->pss.hash);
	}
	ok = EVP_PKEY_sign_init(c) == 1 && op->mechanism != 4 && op->mechanism >= 1 && op->mechanism <= 15 &&
		EVP_PKEY_CTX_set_rsa_padding(c, pss ? RSA_PKCS1_PSS_PADDING :
				op->mechanism == 1  ? RSA_NO_PADDING :
						      RSA_PKCS1_PADDING) == 1 &&
		(md == NULL || EVP_PKEY_CTX_set_signature_md(c, md) == 1) && (!pss || md != NULL) &&
		(!pss || EVP_PKEY_CTX_set_rsa_pss_saltlen(c, op->has_pss ? (int)op->pss.salt : RSA_PSS_SALTLEN_DIGEST) == 1) &&
		EVP_PKEY_sign(c, sig, &sig_len, in, n) == 1 && (size_t)*outlen >= sig_len;
	EVP_PKEY_CTX_free(c);
	if (!ok)
		return 1;
	memcpy(out, sig, sig_len);
	*outlen = (int)sig_len;
	return 0;
}

static int lib_rsa_sign_init(void *handle, unsigned long mechanism, void *param, int len, void **ref)
{
	struct op *op;

	note("sign_init");
	if (index_of(handle) < 0 || (op = calloc(1, sizeof(*op))) == NULL)
		return 1;
	op->mechanism = mechanism;
	if (mechanism >= 10 && param != NULL && len == (int)sizeof(op->pss)) {
		memcpy(&op->pss, param, sizeof(op->pss));
		op->has_pss = 1;
	}
	hwlib_live_ops++;
	*ref = op;
	return 0;
}

static void op_free(struct op *op)
{
	free(op->data);
	free(op);
	hwlib_live_ops--;
}

/* What the request for a defect leaves of a signature. */
static int finish(int i, const struct op *op, unsigned char *out, int *outlen)
{
	EVP_PKEY *pkey = (hwlib_mode & HWLIB_ONE_KEY) && last_loaded != NULL ? last_loaded : keys[i].pkey;
	int capacity = *outlen;

	if (hwlib_mode & HWLIB_CRASH)
		*(volatile int *)8 = 1;
	if (worn_out || ((hwlib_mode & HWLIB_FORGETS) && keys[i].signatures > 0))
		return 1;
	keys[i].signatures++;
	worn_out = (hwlib_mode & HWLIB_NEEDS_INIT) != 0;
	if ((hwlib_mode & HWLIB_SHORT_ONLY) && op->len > 1024)
		return 1;
	if ((hwlib_mode & HWLIB_BARE_ONLY) && op->mechanism != 1)
		return 1;
	if ((hwlib_mode & HWLIB_NO_PSS) && (op->mechanism == 1 || op->mechanism >= 10))
		return 1;
	if ((hwlib_mode & HWLIB_SILENT) || ((hwlib_mode & HWLIB_SHA256_ONLY) && op->mechanism != 7)) {
		*outlen = 0;
		return 0;
	}
	if (sign(pkey, op, out, outlen) != 0)
		return 1;
	if (hwlib_mode & HWLIB_GARBAGE)
		memset(out + 1, 0x42, (size_t)*outlen - 1);
	if (hwlib_mode & HWLIB_OVERRUN) {
		memset(out + capacity, 0x55, 200);
		*outlen = capacity + 200;
	}
	return 0;
}

static int lib_rsa_sign(void *handle, unsigned long mechanism, unsigned char *msg, int len, void *ref, unsigned char *out,
	int *outlen)
{
	struct op plain = {.mechanism = mechanism, .data = msg, .len = (size_t)len}, *op = ref;
	int i = index_of(handle), r = 1;

	note("sign");
	if (op != NULL && op->mechanism == mechanism) {
		plain.pss = op->pss;
		plain.has_pss = op->has_pss;
	}
	if (i >= 0)
		r = finish(i, &plain, out, outlen);
	/* After a failure the operation is the host's to clean up. */
	if (r == 0 && op != NULL)
		op_free(op);
	return r;
}

static int lib_rsa_sign_update(void *handle, unsigned long mechanism, unsigned char *msg, int len, void *ref)
{
	struct op *op = ref;
	unsigned char *grown;

	note("update");
	if (index_of(handle) < 0 || op->mechanism != mechanism ||
		((hwlib_mode & HWLIB_SHORT_ONLY) && op->len + (size_t)len > 1024) ||
		(grown = realloc(op->data, op->len + (size_t)len)) == NULL)
		return 1;
	memcpy(grown + op->len, msg, (size_t)len);
	op->data = grown;
	op->len += (size_t)len;
	return 0;
}

static int lib_rsa_sign_final(void *handle, unsigned long mechanism, void *ref, unsigned char *out, int *outlen)
{
	struct op *op = ref;
	int i = index_of(handle), r = 1;

	note("final");
	if (i >= 0 && op->mechanism == mechanism && !(hwlib_mode & HWLIB_NO_FINAL))
		r = finish(i, op, out, outlen);
	op_free(op);
	return r;
}

static int lib_rsa_sign_cleanup(void *handle, unsigned long mechanism, void *ref)
{
	note("cleanup");
	if (index_of(handle) < 0 || ref == NULL || ((struct op *)ref)->mechanism != mechanism)
		return 1;
	op_free(ref);
	return 0;
}

EXPORT int sshsm_hw_plugin_get_plugin_functions(SSHSM_HW_FUNCTIONS_t *f);
EXPORT int sshsm_hw_plugin_get_plugin_functions(SSHSM_HW_FUNCTIONS_t *f)
{
	if (hwlib_mode & HWLIB_FEW_SLOTS) {
		f->xxx_load_key = lib_load_key;
		f->xxx_rsa_sign = lib_rsa_sign;
		return 0;
	}
	*f = (SSHSM_HW_FUNCTIONS_t){lib_init, lib_uninit, lib_activate, lib_load_key, lib_unload_key, lib_rsa_sign_init,
		lib_rsa_sign, lib_rsa_sign_update, lib_rsa_sign_final, lib_rsa_sign_cleanup};
	return 0;
}
