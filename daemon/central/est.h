/* Enrollment over Secure Transport (RFC 7030 with RFC 8951): /.well-known/est/[label/]{cacerts,simpleenroll,simplereenroll,csrattrs}.
 * The label is a profile's name; without one it is the token's profile, or the one named default. */
#ifndef CSM_CENTRAL_EST_H
#define CSM_CENTRAL_EST_H

#include "daemon/central/ca.h"

#define EST_BODY_MAX (2u * CSM_CSR_MAX)

/* ---- handlers; arg is the struct central. A first parameter is the label ---- */

csm_http_handler est_get_cacerts;
csm_http_handler est_post_enroll;
csm_http_handler est_post_reenroll;
csm_http_handler est_get_csrattrs;
csm_http_together est_enroll_together, est_reenroll_together;

/* ---- what they are made of (est_form.c). Pure functions, any thread ---- */

/* Does the value of a Content-Type name this type? Parameters and upper case do not matter. */
bool est_type_is(struct csm_str value, const char *type);
/* RFC 7030 4.2.2: subject and alternative names of the request are those of the certificate, and no others are asked for by
 * ChangeSubjectName (RFC 6402). CSM_EDENIED, with why. */
CSM_MUST int est_same_names(X509 *cert, const struct csm_certreq *req, char why[static CA_WHY]);
/* CsrAttrs, DER, appended: the kind of key where the profile leaves no choice, and alternative names where it demands
 * them. CSM_ENOT_FOUND: it has nothing to say. */
CSM_MUST int est_csrattrs(const struct csm_profile *profile, struct csm_buf *out);

#endif
