/* What the keys with certificates were used for, as the CA is told it. */
#include <sodium.h>
#include <string.h>
#include "daemon/node/enrol_int.h"

static int put(struct csm_buf *out, const char *text)
{
	return csm_buf_put(out, text, strlen(text));
}

/* A name has no control characters and no backslash; a quotation mark it may have. */
static int put_string(struct csm_buf *out, struct csm_str s)
{
	int r = put(out, "\"");

	for (size_t i = 0; i < s.n && r == 0; i++) {
		if (s.p[i] == '"')
			r = put(out, "\\");
		if (r == 0)
			r = csm_buf_put(out, &s.p[i], 1);
	}
	return r == 0 ? put(out, "\"") : r;
}

static int put_key(struct enrol *e, struct entry *en, bool first, struct csm_buf *out)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof(hash) + 1], name[CSM_KEYREF_MAX + 2], tail[200];
	struct csm_buf spki;
	uint64_t total = 0;
	int r;

	csm_buf_init(&spki, CSM_SPKI_MAX, false);
	r = enrol_spki(e, entry_ns(en), entry_name(en), en->id, &spki, NULL, &total);
	crypto_hash_sha256(hash, csm_buf_ptr(&spki), spki.len);
	csm_buf_free(&spki);
	if (r != 0)
		return 0; /* it was deleted */
	total += counts_pending(&e->b->counts, en->id);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	(void)snprintf(name, sizeof(name), "%s:%s", en->ns, en->name);
	(void)snprintf(tail, sizeof(tail), ",\"spki_sha256\":\"%s\",\"signatures\":%llu", hex,
		(unsigned long long)(total > en->reported ? total - en->reported : 0));
	if ((r = put(out, first ? "{\"key\":" : ",{\"key\":")) != 0 || (r = put_string(out, csm_str_of(name))) != 0 ||
		(r = put(out, tail)) != 0)
		return r;
	if (total > en->reported) {
		(void)snprintf(tail, sizeof(tail), ",\"last_used\":%llu", (unsigned long long)e->now.wall_s);
		r = put(out, tail);
	}
	en->reported = total;
	return r == 0 ? put(out, "}") : r;
}

int enrol_usage(struct enrol *e, struct eprofile *p, struct csm_buf *out)
{
	char head[160];
	bool first = true;
	int r;

	if ((r = put(out, "{\"node\":")) != 0 || (r = put_string(out, csm_str_of(e->hostname))) != 0)
		return r;
	(void)snprintf(head, sizeof(head), ",\"from\":%llu,\"to\":%llu,\"keys\":[", (unsigned long long)p->usage_from,
		(unsigned long long)e->now.wall_s);
	r = put(out, head);
	for (struct csm_renew_item *i = e->renew.first; i != NULL && r == 0; i = i->next) {
		struct entry *en = (struct entry *)i;

		if (en->p != p || en->item.not_after == 0)
			continue;
		r = put_key(e, en, first, out);
		first = false;
	}
	return r == 0 ? put(out, "]}") : r;
}
