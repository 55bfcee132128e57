/* The back end for libraries with the hardware plugin interface: its own header. One thread, the owner's.
 *
 * The configured folder has one folder for each library (S*), that one a folder for each key (key*). A key folder is
 * loaded into its library once, however many times csm has it loaded (hw_key). Whatever the library says is a claim:
 * each signature is verified with the public key before it leaves. */
#ifndef PLUGINS_HWPLUGINIF_HWPLUGINIF_H
#define PLUGINS_HWPLUGINIF_HWPLUGINIF_H

#include <openssl/evp.h>
#include "plugins/include/csm_alg.h"
#include "plugins/include/csm_hwpluginif.h"
#include "plugins/include/csm_plugin.h"
#include "proto-spec/limits.h"

#define HW_FILE_MAX 65536u
#define HW_NAME_MAX 256u /* of a folder below the configured one, "S01tpm/key01", with its NUL */
#define HW_LIBRARIES_MAX 16u
#define HW_KEYS_MAX 4096u
#define HW_ENTRIES_MAX 65536u /* looked at below the configured folder */
#define HW_DEPTH_MAX 8u
#define HW_HANDLE_LEN 8u
#define HW_MODULUS_MAX 512u
#define HW_WHY_MAX 512u
#define HW_RESTART_MS 1000u /* a library is started anew at most once in this time */

/* ---- folder.c: what lies on the disk ------------------------------------------------ */

struct hw_files {
	size_t n;
	struct {
		char id[SSHSM_HW_PLUGIN_ID_MAX + 1];
		uint8_t *p; /* locked memory */
		size_t len;
	} f[SSHSM_HW_PLUGIN_BUFFERS_MAX];
};
void hw_files_free(struct hw_files *files);
/* Files of root/name that start with one of the prefixes (NULL-terminated), by name. CSM_ENOT_FOUND: no such folder;
 * CSM_EINVALID: more than eight, an id too long, a link that leads out of root, not a file; else CSM_ESYSTEM, CSM_ENOMEM. */
CSM_MUST int hw_files_read(const char *root, const char *name, const char *const *prefixes, struct hw_files *ret,
	char why[static HW_WHY_MAX]);
/* One file, with a NUL behind it; the same errors. Wipe and free with csm_lock_free. */
CSM_MUST int hw_file_read(const char *root, const char *name, uint8_t **ret, size_t *len, char why[static HW_WHY_MAX]);
/* The sorted names of the folders (or links to such) in root/name that start with prefix, where the case of its first
 * letter does not count. Free each and the list. CSM_ENOT_FOUND, CSM_ETOO_LARGE, CSM_ENOMEM. */
CSM_MUST int hw_folders(const char *root, const char *name, const char *prefix, size_t max, char ***ret, size_t *n);
void hw_folders_free(char **names, size_t n);
/* root/name with all links followed, which must not lead out of root: CSM_EINVALID; CSM_ENOT_FOUND. */
CSM_MUST int hw_inside(const char *root, const char *name, char out[static 4096]);

/* ---- trust.c: who can write it -------------------------------------------------------- */

/* May none but root and this process's user change path, or put another in its place? All that lies in it counts too.
 * False with why; a path that is not there is false too. */
bool hw_trusted(const char *path, char why[static HW_WHY_MAX]);

/* ---- library.c ----------------------------------------------------------------------------- */

struct hw_library {
	char name[HW_NAME_MAX]; /* of its folder */
	void *so;
	SSHSM_HW_FUNCTIONS_t fn;
	struct hw_files activate;
	bool up;                /* init and activate went well */
	unsigned life;          /* counts these */
	uint64_t started_ms;    /* when init was last called */
};

/* What the library says that the public key is. */
struct hw_public {
	uint8_t modulus[HW_MODULUS_MAX + 8], exponent[8];
	size_t modulus_len, exponent_len; /* exponent_len 0: none was said */
};

/* A key folder. */
struct hw_key {
	struct hw_library *lib;
	char name[HW_NAME_MAX];
	char label[128]; /* of its pkcs11.cfg; may be empty */
	struct hw_files files;
	unsigned refs;   /* how many times it is loaded here */
	bool loaded;     /* in the library, in the life of */
	unsigned life;
	unsigned load;   /* counts loads: what was begun in an earlier one is gone */
	uint8_t handle[HW_HANDLE_LEN];
	struct hw_public pub;
};

/* dlopen and ask for the table. CSM_EUNSUPPORTED: it is no library of this kind. */
CSM_MUST int hw_library_open(struct hw_library *l, const char *path, char why[static HW_WHY_MAX]);
/* init and activate. CSM_EUNAVAILABLE. */
CSM_MUST int hw_library_start(struct hw_library *l, char why[static HW_WHY_MAX]);
void hw_library_stop(struct hw_library *l); /* uninit; all its keys count as not loaded */
/* Stop and start, at most once in HW_RESTART_MS: CSM_EUNAVAILABLE. */
CSM_MUST int hw_library_restart(struct hw_library *l);
/* In the library, in this life? Else load it. CSM_EUNAVAILABLE: the library refuses; CSM_EBACKEND: what it says of
 * the public key is none. */
CSM_MUST int hw_key_in(struct hw_key *k);
void hw_key_out(struct hw_key *k); /* unload_key, if it is in */
/* *p as a handle: 8 bytes, or the first 4 and zeros where no more can be read. */
void hw_handle_copy(const void *p, uint8_t out[static HW_HANDLE_LEN]);
uint64_t hw_now_ms(void);

/* ---- public.c ---------------------------------------------------------------------------------- */

/* The keys that pub can mean, the likeliest first; returns how many. Each is the caller's. */
#define HW_MEANINGS 4u
size_t hw_public_meanings(const struct hw_public *pub, EVP_PKEY *ret[static HW_MEANINGS]);
/* CSM_EUNSUPPORTED: no RSA key of 2048, 3072 or 4096 bits. */
CSM_MUST int hw_public_alg(const EVP_PKEY *pkey, enum csm_alg *ret);
CSM_MUST int hw_public_spki(EVP_PKEY *pkey, struct csm_plugin_out *spki);
/* A signature over the digest by the scheme? */
bool hw_public_verifies(
	EVP_PKEY *pkey, const struct csm_scheme *s, const uint8_t *digest, const uint8_t *sig, size_t sig_len);
/* The block that the bare RSA operation makes the signature of; em has the modulus's length. CSM_EBACKEND. */
CSM_MUST int hw_public_encode(EVP_PKEY *pkey, const struct csm_scheme *s, const uint8_t *digest, uint8_t *em);
/* A DigestInfo; returns its length. */
#define HW_DIGESTINFO_MAX 96u
size_t hw_digestinfo(enum csm_hash hash, const uint8_t *digest, uint8_t out[static HW_DIGESTINFO_MAX]);

/* ---- sign.c ---------------------------------------------------------------------------------------- */

struct csm_plugin_key {
	struct hw_key *key;
	enum csm_alg alg;
	EVP_PKEY *pkey;
	size_t len;       /* of a signature */
	bool bare[2];     /* PKCS#1, PSS: only the bare operation gives signatures that are good */
	bool has_done[2]; /* it has given one */
	uint8_t spki[CSM_SPKI_MAX];
	size_t spki_len;
};

/* One try with the key as it is loaded. 0; CSM_EBACKEND: the library said success and it was none; CSM_EUNAVAILABLE: it
 * refused. */
CSM_MUST int hw_try(struct csm_plugin_key *k, const struct csm_scheme *s, const uint8_t *digest, uint8_t *sig);
int hw_sign(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme, const uint8_t *in,
	size_t in_len, struct csm_plugin_out *sig);
int hw_sign_init(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme,
	struct csm_plugin_op **ret);
int hw_sign_update(struct csm_plugin_ctx *c, struct csm_plugin_op *op, const uint8_t *in, size_t in_len);
int hw_sign_final(struct csm_plugin_ctx *c, struct csm_plugin_op *op, struct csm_plugin_out *sig);
void hw_sign_cleanup(struct csm_plugin_ctx *c, struct csm_plugin_op *op);
/* The parameter of the PSS mechanisms for a hash; salt as long as it. */
struct csm_hw_pss hw_pss_of(enum csm_hash hash);

/* ---- hwpluginif.c ------------------------------------------------------------------------------------- */

struct csm_plugin_ctx {
	const struct csm_plugin_host *host;
	char root[4096]; /* of the configured folder, links followed */
	bool up;         /* the folder was read; libraries may be away all the same */
	uint64_t tried_ms;
	struct hw_library *libs[HW_LIBRARIES_MAX];
	size_t n_libs;
	struct hw_key **keys;
	size_t n_keys;
	char why[HW_WHY_MAX];
};
/* A line for the log, and what health tells until all is well. */
void hw_tell(struct csm_plugin_ctx *c, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
