/* Who may have what: pure decisions over a caller, a profile, a token and a certificate. */
#include <string.h>
#include <strings.h>
#include "daemon/central/ca_int.h"

/* ---- by which profile ---- */

static unsigned asks_as(const struct caller *by)
{
	switch (by->role) {
	case CALLER_TOKEN:
		return ASK_TOKEN;
	case CALLER_SERVICE:
		return ASK_SERVICE;
	case CALLER_NODE:
		return ASK_NODE;
	case CALLER_OPERATOR:
		return ASK_OPERATOR;
	case CALLER_ADMINISTRATOR:
		return ASK_ADMINISTRATOR;
	default:
		return 0;
	}
}

/* A token was given for a role by who may give it; a profile may change meanwhile. */
static int token_role(const struct db_token *t, const struct profile_config *p, const char **role, char *why)
{
	static const char *const roles[] = {"", "node", "operator", "administrator"};

	if (t->profile.n > 0 && !csm_str_eq(t->profile, p->name))
		return ca_refuse(why, CSM_EDENIED, "the token is for another profile");
	if ((p->role[0] != '\0' || t->profile.n == 0) && !csm_str_eq(t->role, p->role))
		return ca_refuse(why, CSM_EDENIED, "the token is not for the role %s, which profile %s gives",
			p->role[0] != '\0' ? p->role : "of a service", p->name);
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (csm_str_eq(t->role, roles[i])) {
			*role = roles[i];
			return 0;
		}
	return ca_refuse(why, CSM_EINTERNAL, "the token has a role that does not exist");
}

int ca_may_ask(const struct caller *by, const struct profile_config *p, const char **role, char why[static CA_WHY])
{
	static const char *const who[] = {[CALLER_NONE] = "nobody", [CALLER_TOKEN] = "a token", [CALLER_SERVICE] = "a service",
		[CALLER_NODE] = "a node", [CALLER_OPERATOR] = "an operator", [CALLER_ADMINISTRATOR] = "an administrator"};

	if (by->role == CALLER_NONE)
		return ca_refuse(why, CSM_EUNAUTHENTICATED, "a client certificate or a token is needed");
	if ((p->ask & asks_as(by)) == 0)
		return ca_refuse(why, CSM_EDENIED, "profile %s is not for %s to ask", p->name, who[by->role]);
	if (by->role == CALLER_TOKEN)
		return token_role(&by->token, p, role, why);
	if ((strcmp(p->role, "administrator") == 0 || strcmp(p->role, "operator") == 0) && by->role != CALLER_ADMINISTRATOR)
		return ca_refuse(why, CSM_EDENIED, "the role %s, which profile %s gives, is an administrator's to give", p->role, p->name);
	*role = p->role;
	return 0;
}

/* ---- the names of a token ---- */

static bool starts(struct csm_str s, const char *with, struct csm_str *rest)
{
	size_t n = strlen(with);

	if (s.n < n || memcmp(s.p, with, n) != 0)
		return false;
	*rest = (struct csm_str){s.p + n, s.n - n};
	return true;
}

static bool same_fold(struct csm_str a, struct csm_str b)
{
	return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

/* "dns:a" is for an alternative name of that form; and for a CN "a", which readers take for a host. */
static bool token_has(const struct db_token *t, struct csm_str san, struct csm_str cn)
{
	struct csm_str have, asked;

	for (size_t i = 0; i < t->n_names; i++) {
		if (cn.p != NULL) {
			if ((starts(t->names[i], "cn:", &have) && csm_str_same(have, cn)) ||
				(starts(t->names[i], "dns:", &have) && same_fold(have, cn)))
				return true;
		} else if (csm_str_same(t->names[i], san) ||
			(starts(t->names[i], "dns:", &have) && starts(san, "dns:", &asked) && same_fold(have, asked))) {
			return true;
		}
	}
	return false;
}

int ca_token_names(const struct db_token *t, const struct csm_certreq *q, struct csm_pool *pool, char why[static CA_WHY])
{
	struct csm_str *sans = NULL, cn = {NULL, 0};
	size_t n = 0;
	int r;

	if (t->any_name)
		return 0;
	if ((r = ca_san_texts(q->sans, pool, &sans, &n)) != 0 || (r = ca_cn(q->subject, pool, &cn)) != 0)
		return ca_refuse(why, r, "the names cannot be read");
	for (size_t i = 0; i < n; i++)
		if (!token_has(t, sans[i], (struct csm_str){NULL, 0}))
			return ca_refuse(why, CSM_EDENIED, "the token is for other names: alternative name %zu is not among them", i + 1);
	if (cn.p != NULL && !token_has(t, cn, cn))
		return ca_refuse(why, CSM_EDENIED, "the token is for other names: CN is not among them");
	if (cn.p == NULL && n == 0)
		return ca_refuse(why, CSM_EDENIED, "the token is for certain names, and the request has none");
	return 0;
}

/* ---- whose name ---- */

bool ca_new_node(const struct caller *by, const struct db_cert *row)
{
	if (!csm_str_eq(row->role, "node") || row->renews.n > 0 || by->role == CALLER_OPERATOR || by->role == CALLER_ADMINISTRATOR)
		return false;
	if (by->role == CALLER_NODE && csm_str_same(by->cert.node, row->node))
		return false;
	return by->role != CALLER_TOKEN || by->token.any_name;
}

/* ---- whose certificate ---- */

static bool same_bin(struct csm_bin a, struct csm_bin b)
{
	return a.n > 0 && a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

bool ca_is_own(const struct caller *by, const struct db_cert *cert)
{
	if (by->role < CALLER_SERVICE || by->cert.serial.n == 0)
		return false;
	if (same_bin(by->cert.serial, cert->serial) || same_bin(by->cert.renews, cert->serial))
		return true;
	/* what was issued to a node for one of its services; never what may do something here */
	return by->role == CALLER_NODE && by->cert.node.n > 0 && csm_str_same(by->cert.node, cert->node) && cert->role.n == 0;
}
