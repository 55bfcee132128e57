/* Who asks. */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "daemon/central/central.h"
#include "daemon/svc/prk.h"
#include "libclient/base/lockmem.h"

#define SHOWN_MAX 512u /* of what Basic decodes to */

/* What is worth nothing is counted by it: the address without its port. Not so a certificate, which TLS has verified: who has one
 * is not held up by what others show from the same address. Its signature stands for it: to hash all of it takes OpenSSL longer than
 * to find it in the database. */
static struct csm_bin refused_key(const struct csm_http_req *req, uint8_t hash[static 32])
{
	const char *colon = strrchr(req->peer, ':');
	const ASN1_BIT_STRING *sig = NULL;

	if (req->peer_cert != NULL)
		X509_get0_signature(&sig, NULL, req->peer_cert);
	if (sig != NULL && ASN1_STRING_length(sig) > 0) {
		sha256_of(ASN1_STRING_get0_data(sig), (size_t)ASN1_STRING_length(sig), hash);
		return (struct csm_bin){hash, 32};
	}
	return (struct csm_bin){(const uint8_t *)req->peer, colon != NULL ? (size_t)(colon - req->peer) : strlen(req->peer)};
}

static int by_local(const struct central *c, const struct csm_http_req *req, struct caller *ret)
{
	if (req->peer_uid != c->admin_uid)
		return CSM_EUNAUTHENTICATED;
	ret->role = CALLER_ADMINISTRATOR;
	snprintf(ret->name, sizeof(ret->name), "uid %u", (unsigned)req->peer_uid);
	return 0;
}

static int role_of(struct csm_str role, enum caller_role *ret)
{
	static const struct {
		const char *name;
		enum caller_role role;
	} roles[] = {{"", CALLER_SERVICE}, {"node", CALLER_NODE}, {"operator", CALLER_OPERATOR},
		{"administrator", CALLER_ADMINISTRATOR}};

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (csm_str_eq(role, roles[i].name)) {
			*ret = roles[i].role;
			return 0;
		}
	return CSM_EUNAUTHENTICATED;
}

/* The record's bytes, not only its serial: another issuer below the same root may have used the number too. */
static bool is_it(const X509 *cert, struct csm_bin der)
{
	uint8_t *p = NULL;
	int n = i2d_X509(cert, &p);
	bool same = n > 0 && (size_t)n == der.n && memcmp(p, der.p, der.n) == 0;

	OPENSSL_free(p);
	return same;
}

/* NULL: it is one that this authority issued, and good now; else what is wrong with it. */
static const char *fault_of(const struct central *c, const X509 *cert, const struct db_cert *row)
{
	uint64_t now = c->now();

	if (!is_it(cert, row->der))
		return "another one has its serial number";
	if (row->state != DB_VALID)
		return "revoked";
	if (now >= row->not_after)
		return "expired";
	return now < row->not_before ? "not valid yet" : NULL;
}

/* `name` is who it is, and behind that why it is worth nothing. */
static int by_cert(struct central *c, const X509 *cert, struct csm_pool *pool, struct caller *ret)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
	struct csm_bin id = {serial->data, (size_t)serial->length};
	char hex[2 * DB_SERIAL_MAX + 1];
	const char *fault = "unknown";
	struct db_cert found;
	int r;

	if (id.n == 0 || id.n > DB_SERIAL_MAX)
		return CSM_EUNAUTHENTICATED;
	sodium_bin2hex(hex, sizeof(hex), id.p, id.n);
	snprintf(ret->name, sizeof(ret->name), "cert %s", hex);
	r = db_cert_get(c->db, id, pool, &found);
	if (r != 0 && r != CSM_ENOT_FOUND && r != CSM_EINVALID)
		return r;
	if (r != 0 || (fault = fault_of(c, cert, &found)) != NULL) {
		snprintf(ret->name, sizeof(ret->name), "cert %s, %s", hex, fault);
		return CSM_EUNAUTHENTICATED;
	}
	if ((r = role_of(found.role, &ret->role)) != 0)
		return r;
	ret->cert = found;
	return 0;
}

/* The token of "Bearer TOKEN", or the password of "Basic USER:TOKEN". */
static int token_shown(struct csm_str value, char shown[SHOWN_MAX + 1], struct csm_str *ret)
{
	size_t n;
	const char *colon;

	if (value.n > 7 && strncasecmp(value.p, "Bearer ", 7) == 0) {
		*ret = (struct csm_str){value.p + 7, value.n - 7};
		while (ret->n > 0 && ret->p[0] == ' ') {
			ret->p++;
			ret->n--;
		}
		return ret->n > 0 ? 0 : CSM_EUNAUTHENTICATED;
	}
	if (value.n <= 6 || strncasecmp(value.p, "Basic ", 6) != 0 ||
		sodium_base642bin((uint8_t *)shown, SHOWN_MAX, value.p + 6, value.n - 6, " ", &n, NULL,
			sodium_base64_VARIANT_ORIGINAL) != 0)
		return CSM_EUNAUTHENTICATED;
	colon = memchr(shown, ':', n);
	if (colon == NULL || colon + 1 == shown + n)
		return CSM_EUNAUTHENTICATED;
	*ret = (struct csm_str){colon + 1, (size_t)(shown + n - colon - 1)};
	return 0;
}

static int by_token(struct central *c, struct csm_str value, struct csm_pool *pool, struct caller *ret)
{
	CSM_WIPED(shown, SHOWN_MAX + 1);
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[2 * DB_TOKEN_ID_LEN + 1];
	struct csm_str token;
	bool waits = false;
	int r = token_shown(value, (char *)shown, &token);

	if (r != 0)
		return r;
	crypto_hash_sha256(hash, (const uint8_t *)token.p, token.n);
	r = db_token_find(c->db, hash, pool, &ret->token);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_EUNAUTHENTICATED : r;
	sodium_bin2hex(hex, sizeof(hex), ret->token.id, sizeof(ret->token.id));
	snprintf(ret->name, sizeof(ret->name), "token %s", hex);
	/* It was found by its hash: what is left to compare tells nothing of the token. */
	if (sodium_memcmp(hash, ret->token.hash, sizeof(hash)) != 0)
		return CSM_EUNAUTHENTICATED;
	/* after its time it asks for nothing new, and what it has asked for may still wait for a person */
	if (c->now() >= ret->token.expires && (r = db_request_any(c->db, csm_str_of(ret->name), &waits)) != 0)
		return r;
	if (c->now() >= ret->token.expires && !waits)
		return CSM_EUNAUTHENTICATED;
	ret->role = CALLER_TOKEN;
	return 0;
}

int caller_find(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct csm_pool *pool, struct caller *ret)
{
	uint8_t hash[32];
	struct csm_str shown = csm_http_header(req, "Authorization");
	struct csm_bin key = refused_key(req, hash);
	struct caller found = {.role = CALLER_NONE};
	uint64_t now_ms = c->now() * 1000;
	int r = 0;

	if (req->door != CSM_HTTP_LOCAL && (req->peer_cert != NULL || shown.p != NULL) &&
		csm_rates_spent(c->refused_rates, key.p, key.n, now_ms))
		return CSM_EBUSY;
	if (req->door == CSM_HTTP_LOCAL)
		r = by_local(c, req, &found);
	else if (req->peer_cert != NULL)
		r = by_cert(c, req->peer_cert, pool, &found);
	else if (shown.p != NULL)
		r = by_token(c, shown, pool, &found);
	snprintf(res->who, sizeof(res->who), "%s", found.name);
	if (r == CSM_EUNAUTHENTICATED && csm_rates_take(c->refused_rates, key.p, key.n, now_ms, NULL) != 0)
		return CSM_EBUSY;
	if (r == 0 && found.role != CALLER_NONE && req->door != CSM_HTTP_LOCAL && !req->again)
		r = csm_rates_take(c->caller_rates, found.name, strlen(found.name), now_ms, NULL);
	if (r == 0)
		*ret = found;
	return r;
}

bool caller_is(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct csm_pool *pool, unsigned roles,
	struct caller *ret)
{
	int r = caller_find(c, req, res, pool, ret);

	if (r == CSM_EUNAUTHENTICATED) {
		csm_http_fail(res, r, "what was shown to say who you are is worth nothing: unknown, expired or revoked");
		return false;
	}
	if (r != 0) {
		csm_http_fail(res, r, "%s", r == CSM_EBUSY ? "too many requests" : "who asks could not be found out");
		return false;
	}
	if (roles & (1u << ret->role))
		return true;
	if (ret->role == CALLER_NONE)
		csm_http_fail(res, CSM_EUNAUTHENTICATED, "show a client certificate or a token");
	else
		csm_http_fail(res, CSM_EDENIED, "this is not for you");
	return false;
}
