/* What the library exports. State is the process's, as the interface has it, behind one lock. Handles and references are
 * numbers that are looked up, never pointers: a stale one is a failure, not a crash. */
#include "plugins/tpm2/hwlib/hwlib.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <tss2/tss2_mu.h>
#include "libclient/base/lockmem.h"
#include "plugins/include/csm_alg.h"

#define SUCCESS 0
#define FAILURE 1
/* A host may leave operations open (the first one always did): then the oldest gives way. */
#define OPS_MAX 1024u

static struct {
	pthread_mutex_t lock;
	bool up;
	pid_t pid; /* of the process that has called init */
	struct hwlib_host host;
	struct csm_plugin_ctx *tpm; /* NULL before activate, or the first key */
	struct hwlib_key *keys;
	struct hwlib_op *ops; /* the newest first */
	size_t n_ops;
	uint64_t last_id;
} lib = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Ends every call: the TPM is let go of for others, errors of OpenSSL are nobody's. */
static int leave(int r)
{
	if (lib.tpm != NULL)
		t2_idle(lib.tpm);
	pthread_mutex_unlock(&lib.lock);
	return r == 0 ? SUCCESS : FAILURE;
}

static struct hwlib_key *key_of(const void *handle)
{
	struct hwlib_key *k = lib.keys;
	uint64_t id = 0;

	if (handle != NULL)
		memcpy(&id, handle, sizeof(id));
	while (k != NULL && k->id != id)
		k = k->next;
	return k;
}

static struct hwlib_op *op_of(const void *ref, uint64_t key, unsigned long mechanism)
{
	struct hwlib_op *op = lib.ops;

	while (op != NULL && (uintptr_t)op->id != (uintptr_t)ref)
		op = op->next;
	return op != NULL && op->key == key && op->mechanism == mechanism ? op : NULL;
}

static void op_drop(struct hwlib_op *op)
{
	struct hwlib_op **at = &lib.ops;

	if (op == NULL)
		return;
	while (*at != op)
		at = &(*at)->next;
	*at = op->next;
	lib.n_ops--;
	hwlib_op_free(op);
}

static void key_drop(struct hwlib_key *k)
{
	struct hwlib_key **at = &lib.keys;
	struct hwlib_op *op, *next;

	for (op = lib.ops; op != NULL; op = next) {
		next = op->next;
		if (op->key == k->id)
			op_drop(op);
	}
	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	t2_unload(lib.tpm, k->key);
	EVP_PKEY_free(k->pkey);
	free(k);
}

static int tpm_open(void)
{
	struct csm_plugin_health h;
	int r;

	if (lib.tpm != NULL)
		return 0;
	if ((r = t2_open(&lib.host.host, &lib.tpm)) != 0) {
		lib.tpm = NULL;
		return r;
	}
	t2_health(lib.tpm, &h);
	if (h.usable)
		return 0;
	t2_close(lib.tpm);
	lib.tpm = NULL;
	return CSM_EUNAVAILABLE;
}

static void all_down(void)
{
	while (lib.keys != NULL)
		key_drop(lib.keys);
	while (lib.ops != NULL)
		op_drop(lib.ops);
	t2_close(lib.tpm);
	lib.tpm = NULL;
	lib.up = false;
}

/* A host that ends without uninit would leave its objects in the TPM's few slots. In a child of it they are not ours. */
static void at_exit(void)
{
	if (lib.up && lib.pid == getpid() && pthread_mutex_trylock(&lib.lock) == 0) {
		all_down();
		pthread_mutex_unlock(&lib.lock);
	}
}

static int lib_init(void)
{
	static bool registered;
	int r = 0;

	pthread_mutex_lock(&lib.lock);
	if (!lib.up) {
		/* OpenSSL's own handler first, so that it runs last. */
		if (!registered)
			registered = OPENSSL_init_crypto(0, NULL) == 1 && atexit(at_exit) == 0;
		lib.pid = getpid();
		hwlib_host_init(&lib.host);
		r = hwlib_host_probe(&lib.host);
		/* Numbers of an earlier process are none of this one's. */
		if (r == 0 && RAND_bytes((uint8_t *)&lib.last_id, sizeof(lib.last_id)) != 1)
			r = CSM_EBACKEND;
		lib.last_id >>= 1;
		lib.up = r == 0;
	}
	return leave(r);
}

static int lib_uninit(void)
{
	pthread_mutex_lock(&lib.lock);
	all_down();
	pthread_mutex_unlock(&lib.lock);
	return SUCCESS;
}

/* The one file of the activate folder: the parent's handle, in hex. */
static int take_parent(const SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in, char parent[static 16])
{
	const buffer_info_t *b = in->num_buffers > 0 ? in->buffer_info[0] : NULL;
	char text[32] = "", *end;
	unsigned long v;
	size_t n;

	if (in->num_buffers == 0)
		return 0;
	if (in->num_buffers != 1 || b == NULL || b->buffer == NULL || b->length_of_buffer <= 0 ||
		(size_t)b->length_of_buffer >= sizeof(text))
		return CSM_EINVALID;
	n = (size_t)b->length_of_buffer;
	memcpy(text, b->buffer, n);
	while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL)
		text[--n] = '\0';
	v = strtoul(text, &end, 16);
	if (n == 0 || *end != '\0' || v >> TPM2_HR_SHIFT != TPM2_HT_PERSISTENT || v > UINT32_MAX)
		return CSM_EINVALID;
	snprintf(parent, 16, "0x%08lx", v);
	return 0;
}

static int lib_activate(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in)
{
	char parent[16] = "";
	int r = CSM_EINVALID;

	pthread_mutex_lock(&lib.lock);
	if (!lib.up || in == NULL || (r = take_parent(in, parent)) != 0)
		return leave(r);
	if (strcmp(parent, lib.host.parent) != 0) {
		r = CSM_EINVALID;
		if (lib.keys != NULL)
			return leave(r); /* they are another parent's */
		t2_close(lib.tpm);
		lib.tpm = NULL;
		memcpy(lib.host.parent, parent, sizeof(parent));
	}
	return leave(tpm_open());
}

static TSS2_RC use_step(struct csm_plugin_ctx *c, void *arg)
{
	return t2_key_use(c, arg);
}

/* As the broker would have it loaded; and into the TPM once, so that a key of another parent is refused here. */
static int load(const TPM2B_PUBLIC *pub, const TPM2B_PRIVATE *priv, struct csm_plugin_key **ret)
{
	struct csm_plugin_keyspec spec = {.use = 0};
	uint8_t spki[1024], pub_text[CSM_PLUGIN_PUB_MAX], priv_text[CSM_PLUGIN_PRIV_MAX];
	size_t spki_len = 0, pub_len = 0, priv_len = 0;
	struct csm_plugin_blob blob;
	int r;

	if ((pub->publicArea.objectAttributes & TPMA_OBJECT_SIGN_ENCRYPT) != 0)
		spec.use |= CSM_USE_SIGN;
	if ((pub->publicArea.objectAttributes & TPMA_OBJECT_DECRYPT) != 0)
		spec.use |= CSM_USE_DECRYPT;
	if ((r = csm_alg_of_rsa_bits(pub->publicArea.parameters.rsaDetail.keyBits, &spec.alg)) != 0 ||
		(r = csm_tpm_public_spki(&pub->publicArea, spki, sizeof(spki), &spki_len)) != 0)
		return r;
	if (Tss2_MU_TPM2B_PUBLIC_Marshal(pub, pub_text, sizeof(pub_text), &pub_len) != TSS2_RC_SUCCESS ||
		Tss2_MU_TPM2B_PRIVATE_Marshal(priv, priv_text, sizeof(priv_text), &priv_len) != TSS2_RC_SUCCESS)
		return CSM_EINVALID;
	blob = (struct csm_plugin_blob){spki, spki_len, pub_text, pub_len, priv_text, priv_len};
	r = t2_load(lib.tpm, &spec, &blob, ret);
	OPENSSL_cleanse(priv_text, sizeof(priv_text));
	if (r == 0 && (r = t2_run(lib.tpm, use_step, *ret)) != 0) {
		t2_unload(lib.tpm, *ret);
		*ret = NULL;
	}
	return r;
}

/* Both parts by malloc, big-endian; the exponent reads the same in either order. */
static int tell_public(const TPMT_PUBLIC *pub, SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *ret)
{
	UINT32 e = pub->parameters.rsaDetail.exponent != 0 ? pub->parameters.rsaDetail.exponent : 65537;
	unsigned skip = 0;

	ret->modulus = malloc(pub->unique.rsa.size);
	ret->exponent = malloc(4);
	if (ret->modulus == NULL || ret->exponent == NULL) {
		free(ret->modulus);
		free(ret->exponent);
		memset(ret, 0, sizeof(*ret));
		return CSM_ENOMEM;
	}
	memcpy(ret->modulus, pub->unique.rsa.buffer, pub->unique.rsa.size);
	ret->modulus_size = pub->unique.rsa.size;
	while (skip < 3 && (e >> (24 - 8 * skip) & 0xff) == 0)
		skip++;
	for (unsigned i = skip; i < 4; i++)
		ret->exponent[i - skip] = (unsigned char)(e >> (24 - 8 * i));
	ret->exponent_size = 4 - skip;
	return 0;
}

static int lib_load_key(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in, void **handle,
	SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *info)
{
	TPM2B_PUBLIC pub = {0};
	TPM2B_PRIVATE priv = {0};
	struct hwlib_key *k = NULL;
	int r = CSM_EINVALID;

	pthread_mutex_lock(&lib.lock);
	if (!lib.up || in == NULL || handle == NULL || info == NULL || (r = hwlib_keyfile_read(in, &pub, &priv)) != 0 ||
		(r = tpm_open()) != 0)
		goto out;
	r = CSM_ENOMEM;
	if ((k = calloc(1, sizeof(*k))) == NULL || (r = load(&pub, &priv, &k->key)) != 0)
		goto out;
	if ((r = csm_tpm_public_evp(&pub.publicArea, &k->pkey)) != 0 || (r = tell_public(&pub.publicArea, info)) != 0)
		goto out;
	k->len = pub.publicArea.unique.rsa.size;
	k->id = ++lib.last_id;
	k->next = lib.keys;
	lib.keys = k;
	*handle = &k->id;
	k = NULL;
out:
	OPENSSL_cleanse(&priv, sizeof(priv));
	if (k != NULL) {
		t2_unload(lib.tpm, k->key);
		EVP_PKEY_free(k->pkey);
		free(k);
	}
	return leave(r);
}

static int lib_unload_key(void **handle)
{
	struct hwlib_key *k;

	pthread_mutex_lock(&lib.lock);
	k = handle != NULL ? key_of(*handle) : NULL;
	if (k != NULL)
		key_drop(k);
	return leave(k != NULL ? 0 : CSM_ENOT_FOUND);
}

static int begin(const void *handle, unsigned long mechanism, const void *param, int len, struct hwlib_op **ret)
{
	const struct hwlib_key *k = key_of(handle);
	struct hwlib_op *op, *oldest;
	int r;

	if (k == NULL)
		return CSM_ENOT_FOUND;
	if ((r = hwlib_op_new(mechanism, param, len, &op)) != 0)
		return r;
	if (lib.n_ops == OPS_MAX) {
		for (oldest = lib.ops; oldest->next != NULL; oldest = oldest->next)
			;
		op_drop(oldest);
	}
	op->id = ++lib.last_id;
	op->key = k->id;
	op->next = lib.ops;
	lib.ops = op;
	lib.n_ops++;
	*ret = op;
	return 0;
}

static int lib_rsa_sign_init(void *handle, unsigned long mechanism, void *param, int len, void **ref)
{
	struct hwlib_op *op = NULL;
	int r = CSM_EINVALID;

	pthread_mutex_lock(&lib.lock);
	if (lib.up && ref != NULL && (r = begin(handle, mechanism, param, len, &op)) == 0)
		*ref = (void *)(uintptr_t)op->id;
	return leave(r);
}

/* The end of an operation, whatever comes of it. */
static int finish(struct hwlib_op *op, const void *handle, unsigned char *outsig, int *outsiglen)
{
	const struct hwlib_key *k = key_of(handle);
	uint8_t sig[HWLIB_BLOCK_MAX];
	int r = CSM_EINVALID;

	if (k == NULL || outsig == NULL || outsiglen == NULL || k->len > sizeof(sig))
		goto out;
	r = CSM_ETOO_LARGE;
	if (*outsiglen < 0 || (size_t)*outsiglen < k->len)
		goto out;
	if ((r = hwlib_op_sign(lib.tpm, k, op, sig)) != 0)
		goto out;
	memcpy(outsig, sig, k->len);
	*outsiglen = (int)k->len;
out:
	op_drop(op);
	return r;
}

static int lib_rsa_sign(void *handle, unsigned long mechanism, unsigned char *msg, int msg_len, void *ref,
	unsigned char *outsig, int *outsiglen)
{
	const struct hwlib_key *k;
	struct hwlib_op *op = NULL;
	int r = CSM_EINVALID;

	pthread_mutex_lock(&lib.lock);
	if (!lib.up || msg_len < 0 || (msg == NULL && msg_len > 0) || (k = key_of(handle)) == NULL)
		return leave(r);
	/* A host may have called without rsa_sign_init. */
	if (ref == NULL)
		r = begin(handle, mechanism, NULL, 0, &op);
	else if ((op = op_of(ref, k->id, mechanism)) != NULL)
		r = 0;
	if (r != 0)
		return leave(r);
	if ((r = hwlib_op_update(op, msg, (size_t)msg_len)) != 0) {
		op_drop(op);
		return leave(r);
	}
	return leave(finish(op, handle, outsig, outsiglen));
}

static int lib_rsa_sign_update(void *handle, unsigned long mechanism, unsigned char *msg, int msg_len, void *ref)
{
	const struct hwlib_key *k;
	struct hwlib_op *op;
	int r = CSM_EINVALID;

	pthread_mutex_lock(&lib.lock);
	if (lib.up && msg_len >= 0 && (msg != NULL || msg_len == 0) && (k = key_of(handle)) != NULL &&
		(op = op_of(ref, k->id, mechanism)) != NULL)
		r = hwlib_op_update(op, msg, (size_t)msg_len);
	return leave(r);
}

static int lib_rsa_sign_final(void *handle, unsigned long mechanism, void *ref, unsigned char *outsig, int *outsiglen)
{
	const struct hwlib_key *k;
	struct hwlib_op *op;
	int r = CSM_EINVALID;

	pthread_mutex_lock(&lib.lock);
	if (lib.up && (k = key_of(handle)) != NULL && (op = op_of(ref, k->id, mechanism)) != NULL)
		r = finish(op, handle, outsig, outsiglen);
	return leave(r);
}

/* Of an operation that is over already nothing is left: that is what was asked for. */
static int lib_rsa_sign_cleanup(void *handle, unsigned long mechanism, void *ref)
{
	const struct hwlib_key *k;

	pthread_mutex_lock(&lib.lock);
	if ((k = key_of(handle)) != NULL)
		op_drop(op_of(ref, k->id, mechanism));
	return leave(k != NULL ? 0 : CSM_ENOT_FOUND);
}

sshsm_hw_plugin_get_plugin_functions_t sshsm_hw_plugin_get_plugin_functions;

__attribute__((visibility("default"))) int sshsm_hw_plugin_get_plugin_functions(SSHSM_HW_FUNCTIONS_t *functions)
{
	if (functions == NULL)
		return FAILURE;
	*functions = (SSHSM_HW_FUNCTIONS_t){
		.init = lib_init,
		.uninit = lib_uninit,
		.activate = lib_activate,
		.load_key = lib_load_key,
		.unload_key = lib_unload_key,
		.rsa_sign_init = lib_rsa_sign_init,
		.rsa_sign = lib_rsa_sign,
		.rsa_sign_update = lib_rsa_sign_update,
		.rsa_sign_final = lib_rsa_sign_final,
		.rsa_sign_cleanup = lib_rsa_sign_cleanup,
	};
	return SUCCESS;
}
