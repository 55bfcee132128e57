/* Certificates revoked. */
#include "daemon/central/ca_int.h"
#include "daemon/pki/crl.h"

#define POOL_MAX (1024u * 1024u)

int ca_revoke(struct central *c, const struct caller *by, struct csm_bin serial, int reason, const struct db_asked *asked,
	char why[static CA_WHY])
{
	bool replayed = false;
	bool any = by->role == CALLER_OPERATOR || by->role == CALLER_ADMINISTRATOR;
	struct csm_pool pool;
	struct db_cert cert;
	int r;

	if (by->role == CALLER_NONE)
		return ca_refuse(why, CSM_EUNAUTHENTICATED, "a client certificate is needed");
	csm_pool_init(&pool, POOL_MAX);
	r = db_cert_get(c->db, serial, &pool, &cert);
	if (!any && (r == CSM_ENOT_FOUND || (r == 0 && !ca_is_own(by, &cert))))
		r = ca_refuse(why, CSM_EDENIED, "the certificate is not the caller's to revoke");
	else if (!any && r == 0 && (reason == CSM_REASON_HOLD || reason == CSM_REASON_REMOVE_FROM_CRL))
		r = ca_refuse(why, CSM_EDENIED, "holds are for operators");
	else if (r == 0 && (r = db_revoke_asked(c->db, serial, reason, c->now(), csm_str_of(by->name), asked, &replayed)) == CSM_EDENIED)
		(void)ca_refuse(why, r, "the certificate by which was asked is revoked");
	if (r == CSM_ECONFLICT)
		(void)ca_refuse(why, r, "this Idempotency-Key was used with another request");
	else if (r == CSM_ENOT_FOUND)
		(void)ca_refuse(why, r, "no certificate has this serial number");
	else if (r == CSM_EEXISTS)
		(void)ca_refuse(why, r, "it is revoked already");
	else if (r != 0 && r != CSM_EDENIED)
		(void)ca_refuse(why, r, "the database: %s", csm_err_text(r));
	csm_pool_free(&pool);
	return r;
}
