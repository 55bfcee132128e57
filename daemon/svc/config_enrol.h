/* enrolment: {profiles: {NAME: {...}}} of csmd.yaml: which CA, how it is spoken to, and for what names it is asked. */
#ifndef CSM_SVC_CONFIG_ENROL_H
#define CSM_SVC_CONFIG_ENROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto-spec/limits.h"

#define CSM_ENROL_LIST_MAX 16u

/* Strings are owned by the configuration; lists end with NULL. */
struct csm_enrol_profile {
	char *name;
	bool est;                        /* protocol: est, else cms */
	char *url, *domain;              /* at most one of them; neither: as csm-enrol finds it */
	char *label;                     /* of the profile at the CA; NULL: the CA's default */
	char *anchors_file;              /* PEM; NULL: root_sha256 or what was kept */
	char *root_sha256;               /* 64 hexadecimal digits; NULL: none */
	char *token_file;                /* NULL: none */
	char *subject;                   /* templates, see csm_enrol_expand of daemon/node */
	char *san[CSM_ENROL_LIST_MAX + 1];
	char *names[CSM_ENROL_LIST_MAX + 1]; /* what callers may ask for by themselves: globs over "dns:...", "/CN=..."; none: nothing */
	bool any_subject;                /* subject_by: ca */
	struct {                         /* of the profile's own key, by which the node is known to the CA */
		char *label, *subject;
		char *san[CSM_ENROL_LIST_MAX + 1];
	} node;
	uint64_t life_s;                 /* 0: the CA's */
	uint64_t renew_percent;          /* of a certificate's life, before which it is renewed; 0: two thirds */
	bool new_key;                    /* a renewal is for another key */
	uint64_t overlap_s;              /* the one before is there for so long */
	char *key_backend;               /* tls_key_backend: of the profile's own key; NULL: chosen */
	uint64_t timeout_s;              /* of one exchange with the CA */
};
/* What may stand between braces. */
extern const char *const csm_enrol_variables[]; /* NULL at the end */
#define CSM_ENROL_VARIABLES "{hostname}, {name}, {namespace}, {unit}, {pod}"

struct csm_config;
/* NULL: there is no such profile. name "": the one called default. */
const struct csm_enrol_profile *csm_config_enrol(const struct csm_config *c, const char *name, size_t n);

#endif
