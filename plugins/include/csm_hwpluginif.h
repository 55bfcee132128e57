/* The hardware plugin interface of ONAP's work on SoftHSM, as csm speaks it in both directions: plugins/hwpluginif
 * hosts libraries that have it, plugins/tpm2/hwlib offers csm's TPM code through it. In prose: PLUGIN.md, "The
 * hardware plugin interface". The names are the interface's own, so that code written for it compiles.
 *
 * A library exports sshsm_hw_plugin_get_plugin_functions, which fills a table. Everywhere 0 is success and all else
 * failure. A slot may be NULL: it is then passed by. RSA only. */
#ifndef CSM_HWPLUGINIF_H
#define CSM_HWPLUGINIF_H

#include <stddef.h>

#define SSHSM_HW_PLUGIN_BUFFERS_MAX 8
#define SSHSM_HW_PLUGIN_ID_MAX 32

/* One file of a folder. The host owns it, and frees it after the call. */
typedef struct {
	char id[SSHSM_HW_PLUGIN_ID_MAX + 1]; /* what follows the first dot of the file's name */
	int length_of_buffer;
	unsigned char *buffer;
} buffer_info_t;

typedef struct {
	int num_buffers;
	buffer_info_t *buffer_info[SSHSM_HW_PLUGIN_BUFFERS_MAX];
} SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t;

/* Both parts are big-endian, allocated by the library with malloc and freed by the host. */
typedef struct {
	unsigned long modulus_size;
	unsigned char *modulus;
	unsigned long exponent_size;
	unsigned char *exponent;
} SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t;

typedef struct {
	int (*init)(void);
	int (*uninit)(void);
	int (*activate)(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in);
	/* *keyHandle points to 8 bytes of the library's, which the host copies. */
	int (*load_key)(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in, void **keyHandle,
		SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *pub);
	int (*unload_key)(void **keyHandle);
	/* From here on keyHandle points to the host's copy, good during the call. */
	int (*rsa_sign_init)(void *keyHandle, unsigned long mechanism, void *param, int len, void **ref);
	/* *outsiglen: capacity on entry, length on return. */
	int (*rsa_sign)(void *keyHandle, unsigned long mechanism, unsigned char *msg, int msg_len, void *ref,
		unsigned char *outsig, int *outsiglen);
	int (*rsa_sign_update)(void *keyHandle, unsigned long mechanism, unsigned char *msg, int msg_len, void *ref);
	int (*rsa_sign_final)(void *keyHandle, unsigned long mechanism, void *ref, unsigned char *outsig, int *outsiglen);
	/* Ends what rsa_sign_init began and neither rsa_sign has done nor rsa_sign_final has seen. */
	int (*rsa_sign_cleanup)(void *keyHandle, unsigned long mechanism, void *ref);
} SSHSM_HW_FUNCTIONS_t;

#define SSHSM_HW_PLUGIN_SYMBOL "sshsm_hw_plugin_get_plugin_functions"
typedef int sshsm_hw_plugin_get_plugin_functions_t(SSHSM_HW_FUNCTIONS_t *functions);

/* SoftHSM's numbers, not PKCS#11's. */
enum csm_hw_mechanism {
	CSM_HW_RSA = 1,      /* the bare operation on a block as long as the modulus */
	CSM_HW_RSA_MD5 = 2,  /* hash, then PKCS#1 v1.5 */
	CSM_HW_RSA_PKCS = 3, /* PKCS#1 v1.5 of what is given, a DigestInfo */
	CSM_HW_RSA_OAEP = 4, /* encrypts: nothing to sign with */
	CSM_HW_RSA_SHA1 = 5,
	CSM_HW_RSA_SHA224 = 6,
	CSM_HW_RSA_SHA256 = 7,
	CSM_HW_RSA_SHA384 = 8,
	CSM_HW_RSA_SHA512 = 9,
	CSM_HW_RSA_PSS = 10, /* PSS of a digest, which the parameter names */
	CSM_HW_RSA_SHA1_PSS = 11,
	CSM_HW_RSA_SHA224_PSS = 12,
	CSM_HW_RSA_SHA256_PSS = 13,
	CSM_HW_RSA_SHA384_PSS = 14,
	CSM_HW_RSA_SHA512_PSS = 15,
};

/* The parameter of the PSS mechanisms. */
enum csm_hw_hash {
	CSM_HW_HASH_MD5 = 1,
	CSM_HW_HASH_SHA1 = 2,
	CSM_HW_HASH_SHA224 = 3,
	CSM_HW_HASH_SHA256 = 4,
	CSM_HW_HASH_SHA384 = 5,
	CSM_HW_HASH_SHA512 = 6,
};
enum csm_hw_mgf {
	CSM_HW_MGF1_SHA1 = 1,
	CSM_HW_MGF1_SHA224 = 2,
	CSM_HW_MGF1_SHA256 = 3,
	CSM_HW_MGF1_SHA384 = 4,
	CSM_HW_MGF1_SHA512 = 5,
};
struct csm_hw_pss {
	enum csm_hw_hash hash;
	enum csm_hw_mgf mgf;
	size_t salt_len;
};

#if defined(__LP64__)
_Static_assert(sizeof(buffer_info_t) == 48 && offsetof(buffer_info_t, length_of_buffer) == 36 &&
		offsetof(buffer_info_t, buffer) == 40, "the interface's layout");
_Static_assert(sizeof(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t) == 72, "the interface's layout");
_Static_assert(sizeof(SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t) == 32, "the interface's layout");
_Static_assert(sizeof(SSHSM_HW_FUNCTIONS_t) == 80, "the interface's layout");
_Static_assert(sizeof(struct csm_hw_pss) == 16, "the interface's layout");
#endif

#endif
