/* The hardware plugin interface as its description has it, for the small library and the small host of this folder.
 * They know nothing of csm's own header, so that a mistake in that one shows. */
#ifndef TESTS_INTEROP_HWPLUGIN_ABI_H
#define TESTS_INTEROP_HWPLUGIN_ABI_H

#include <stddef.h>

typedef struct buffer_info_s {
	char id[33];
	int length_of_buffer;
	unsigned char *buffer;
} buffer_info_t;

typedef struct SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_s {
	int num_buffers;
	buffer_info_t *buffer_info[8];
} SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t;

typedef struct SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_s {
	unsigned long modulus_size;
	unsigned char *modulus;
	unsigned long exponent_size;
	unsigned char *exponent;
} SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t;

typedef struct sshsm_hw_functions_s {
	int (*xxx_init)(void);
	int (*xxx_uninit)(void);
	int (*xxx_activate)(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *);
	int (*xxx_load_key)(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *, void **, SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *);
	int (*xxx_unload_key)(void **);
	int (*xxx_rsa_sign_init)(void *, unsigned long, void *, int, void **);
	int (*xxx_rsa_sign)(void *, unsigned long, unsigned char *, int, void *, unsigned char *, int *);
	int (*xxx_rsa_sign_update)(void *, unsigned long, unsigned char *, int, void *);
	int (*xxx_rsa_sign_final)(void *, unsigned long, void *, unsigned char *, int *);
	int (*xxx_rsa_sign_cleanup)(void *, unsigned long, void *);
} SSHSM_HW_FUNCTIONS_t;

struct pss_params {
	int hash, mgf;
	size_t salt;
};

#endif
