/* What certificates an issuer gives: a profile is data, and a request is held against it. Who may ask by which profile is
 * the caller's to know. Pure functions, any thread, no I/O. */
#ifndef CSM_PKI_PROFILE_H
#define CSM_PKI_PROFILE_H

#include "daemon/pki/certreq.h"

#define CSM_PROFILE_EKUS_MAX 16u
#define CSM_PROFILE_SUBJECT_MAX 64u
#define CSM_PATH_ANY (-1)

/* Key types and sizes of a profile. */
enum csm_profile_key {
	CSM_PROFILE_P256 = 1,
	CSM_PROFILE_P384 = 2,
	CSM_PROFILE_P521 = 4,
	CSM_PROFILE_ED25519 = 8,
	CSM_PROFILE_RSA = 16, /* of rsa_min to rsa_max bits */
};

/* One kind of attribute that a subject may have, once. */
struct csm_subject_rule {
	int nid;               /* NID_commonName */
	struct csm_str value;  /* glob, as csm_glob_match; compared as UTF-8. "*" of a CN: any text but a host's name that `sans` does not
	                        * allow, where the certificate may serve TLS */
	bool required;
};

struct csm_profile {
	unsigned keys; /* enum csm_profile_key */
	int rsa_min, rsa_max;
	uint64_t max_life; /* seconds, from not_before */

	uint32_t key_usage;                   /* KU_ bits that the certificate has; a request may ask for no other one */
	const char *ekus[CSM_PROFILE_EKUS_MAX]; /* names or object identifiers, as OBJ_txt2obj takes them; likewise */
	size_t n_ekus;

	const struct csm_subject_rule *subject; /* none: the subject must be empty */
	size_t n_subject;
	bool cn_is_san; /* a CN has to stand among the alternative names as well */

	/* Alternative names that may be asked for:
	 *   dns:a.example     that host; dns:.example, every host below; dns:*.a.example, * within one label; dns:**, every host
	 *   ip:10.0.0.0/8     addresses of the network; without / that one
	 *   uri:spiffe://x/ns-*, * within one segment of the path or label of the host; ** at the end, more segments
	 *   email:a@x.example that address; email:@x.example, everyone at the host; email:.example, at every host below
	 * Hosts do not tell upper from lower case. */
	const struct csm_str *sans;
	size_t n_sans;
	size_t max_sans;    /* 0: as many as a request can have */
	bool needs_san;
	bool wildcards;     /* "*.a.example" itself may be asked for, where the rule dns:.a.example would allow its hosts */

	bool ocsp_no_check; /* of a delegated OCSP responder: nobody asks whether it is revoked itself (RFC 6960 4.2.2.2.1) */

	/* A CA's: then the subject's key signs certificates. */
	bool ca;
	int path_len; /* CSM_PATH_ANY: not limited but by the issuer's */
	/* Name constraints of that CA: "dns:x", "ip:10.0.0.0/8", "uri:host", "email:host", as OpenSSL's nameConstraints. */
	const struct csm_str *permitted, *excluded;
	size_t n_permitted, n_excluded;

	/* Where to ask; NULL: not told. */
	const char *ocsp_url, *issuer_url, *crl_url, *delta_url;
};

/* Is the profile itself in order? CSM_EINVALID: `why` names the field. To be asked once, when it is read. */
CSM_MUST int csm_profile_check(const struct csm_profile *profile, char why[static CSM_CERTREQ_WHY]);

/* May the request have a certificate of this life (seconds) by this profile? CSM_EDENIED: `why` says why not, with no byte of
 * the request but object identifiers. CSM_ENOMEM. */
CSM_MUST int csm_profile_allows(const struct csm_profile *profile, const struct csm_certreq *req, uint64_t life,
	char why[static CSM_CERTREQ_WHY]);

/* The rules for one alternative name, of which GEN_DNS, GEN_IPADD, GEN_URI and GEN_EMAIL may match. (profile_san.c) */
bool csm_san_allowed(const struct csm_profile *profile, const GENERAL_NAME *name);
/* Is it a rule as above? */
bool csm_san_rule_valid(struct csm_str rule);

struct csm_net {
	uint8_t at[16];
	size_t n; /* bytes of the address: 4 or 16 */
	unsigned bits;
};
/* "10.0.0.0/8"; without / one address. */
bool csm_net_parse(struct csm_str s, struct csm_net *ret);

#endif
