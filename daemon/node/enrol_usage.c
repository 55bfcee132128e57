/* What the keys with certificates were used for, as the CA is told it. */
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/enrol_int.h"

/* One key's part; NULL: it was deleted meanwhile, or there is no memory. */
static json_t *report_of(struct enrol *e, struct entry *en, uint64_t from)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof(hash) + 1], name[CSM_KEYREF_MAX + 2];
	struct csm_buf spki;
	uint64_t total = 0, used;
	json_t *j;
	int r;

	csm_buf_init(&spki, CSM_SPKI_MAX, false);
	r = enrol_spki(e, entry_ns(en), entry_name(en), en->id, &spki, NULL, &total);
	crypto_hash_sha256(hash, csm_buf_ptr(&spki), spki.len);
	csm_buf_free(&spki);
	if (r != 0)
		return NULL;
	total += counts_pending(&e->b->counts, en->id);
	used = total > en->reported ? total - en->reported : 0;
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	(void)snprintf(name, sizeof(name), "%s:%s", en->ns, en->name);
	j = json_pack("{s:s, s:s, s:I, s:I, s:I}", "key", name, "spki_sha256", hex, "from", (json_int_t)from, "to",
		(json_int_t)e->now.wall_s, "signatures", (json_int_t)used);
	if (j != NULL && used > 0 && json_object_set_new(j, "last_used", json_integer((json_int_t)e->now.wall_s)) != 0) {
		json_decref(j);
		return NULL;
	}
	en->reported = total;
	return j;
}

int enrol_usage(struct enrol *e, struct eprofile *p, struct csm_buf *out)
{
	json_t *list = json_array(), *root = json_pack("{s:o}", "reports", list);
	char *text = NULL;
	int r = root == NULL ? CSM_ENOMEM : 0;

	for (struct csm_renew_item *i = e->renew.first; i != NULL && r == 0; i = i->next) {
		struct entry *en = (struct entry *)i;
		json_t *one = en->p == p && en->item.not_after != 0 ? report_of(e, en, p->usage_from) : NULL;

		if (one != NULL && json_array_append_new(list, one) != 0)
			r = CSM_ENOMEM;
	}
	if (r == 0 && (text = json_dumps(root, JSON_COMPACT)) == NULL)
		r = CSM_ENOMEM;
	if (r == 0)
		r = csm_buf_put(out, text, strlen(text));
	free(text);
	json_decref(root);
	return r;
}
