/* Issuers and profiles of server.yaml: what certificates are given, in whose name, and who may ask. Immutable once parsed, any
 * thread may read them. */
#ifndef CSM_CENTRAL_PROFILES_H
#define CSM_CENTRAL_PROFILES_H

#include "daemon/pki/profile.h"
#include "daemon/svc/yaml.h"

/* Who may ask by a profile (`ask`). Renewal under a certificate of its own is not asked for here: whoever got one may. */
enum profile_ask { ASK_TOKEN = 1, ASK_SERVICE = 2, ASK_NODE = 4, ASK_OPERATOR = 8, ASK_ADMINISTRATOR = 16 };

/* Which certificates a person approves. */
#define PROFILES_ISSUERS_MAX 16u

enum profile_approval { APPROVAL_NONE, APPROVAL_FIRST, APPROVAL_ALL, APPROVAL_TWO }; /* TWO: as ALL, and not by who made the token */

struct issuer_config {
	const char *name;
	const char *key;    /* "[NAMESPACE:]KEY" in the csmd beside csm-server */
	const char *scheme; /* NULL: what fits the key */
	const char *external; /* another authority: the enrolment profile of the csmd beside, which asks it, for the name `key`; NULL: ours */
	const char *chain_file;
	struct csm_bin chain; /* of an external one, DER: its certificate first, the root last; profiles_set_chain */
};
struct profile_config {
	const char *name;
	const struct issuer_config *issuer;
	struct csm_profile x509; /* its URLs are those of the issuer, where public_url is set */
	uint64_t life;           /* seconds, where a request names none */
	unsigned ask;            /* enum profile_ask */
	enum profile_approval approval;
	const char *role;        /* what the holder may do here: "" (a service's), "node", "operator", "administrator" */
};

struct profiles;
/* `issuers` and `profiles` of the file; without them {default: {key: ca}} and the profiles `default` and `node`; `operator` and
 * `administrator` are there in any case. public_url: "" for none, without
 * a slash at its end. CSM_EINVALID with *err, CSM_ENOMEM. */
CSM_MUST int profiles_read(const struct csm_yaml_node *root, const char *public_url, struct profiles **ret,
	struct csm_policy_error *err);
void profiles_free(struct profiles *p);
/* NULL: none of that name. */
const struct issuer_config *profiles_issuer(const struct profiles *p, struct csm_str name);
const struct profile_config *profiles_get(const struct profiles *p, struct csm_str name);
/* What is in the chain_file of an issuer. CSM_EINVALID: no certificates of CAs, PEM. */
CSM_MUST int profiles_set_chain(struct profiles *p, const struct issuer_config *issuer, struct csm_bin pem);
/* Those that others had from the same files; `from` has to live as long. CSM_ENOT_FOUND: one names another file. */
CSM_MUST int profiles_take_chains(struct profiles *p, const struct profiles *from);
/* In the file's order; NULL past the end. */
const struct issuer_config *profiles_issuer_at(const struct profiles *p, size_t i);
const struct profile_config *profiles_at(const struct profiles *p, size_t i);

/* Below public_url: where an issuer's lists, answers and certificate are. The last part is its name. */
#define PROFILES_OCSP_PATH "/ocsp/"
#define PROFILES_CRL_PATH "/crl/"      /* NAME.crl */
#define PROFILES_DELTA_PATH "/crl/"    /* NAME.delta.crl */
#define PROFILES_ISSUER_PATH "/ca/"    /* NAME.cer: its certificate, DER */

#endif
