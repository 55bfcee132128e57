/* The keys behind certificates: requests signed by them, and the profiles' own. On the enrol thread, which waits for the
 * back end. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "daemon/node/enrol_int.h"
#include "daemon/node/making.h"
#include "daemon/pki/csr.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

struct sign_work {
	struct csm_backend *be;
	const struct csm_key_record *rec;
	struct csm_scheme scheme;
	struct csm_bin in;
	struct csm_plugin_out out;
	int r;
};

static void sign_there(void *arg)
{
	struct sign_work *w = arg;
	struct csm_cached_key *k;

	w->r = csm_cached_key_load(w->be, w->rec, &k);
	if (w->r != 0)
		return;
	w->r = csm_be_sign(w->be, k->key, &w->scheme, w->in, &w->out);
	csm_cached_key_free(k);
}

static int sign(struct enrol *e, const struct csm_key_record *rec, const struct csm_scheme *scheme, struct csm_bin in,
	struct csm_plugin_out *out)
{
	struct sign_work w = {.be = broker_backend(e->b, rec->backend), .rec = rec, .scheme = *scheme, .in = in, .out = *out};
	int r;

	if (rec->lost)
		return CSM_ESTATE;
	if (w.be == NULL || w.be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	r = csm_backend_run(w.be, sign_there, &w);
	*out = w.out;
	if (r == 0 && w.r == 0)
		counts_add(&e->b->counts, rec->id, NULL);
	return r != 0 ? r : w.r;
}

/* With the read transaction open: the record's slices are of it. */
static int make_csr(struct enrol *e, const struct csm_key_record *rec, const struct csm_msg_cert_info *want, struct csm_buf *out,
	char why[static 128])
{
	struct csm_csr_spec spec = {.subject = want->asked_subject, .sans = want->asked_san.v, .n_sans = want->asked_san.n,
		.spki = rec->spki.p, .spki_len = rec->spki.n, .scheme = csm_scheme_default(rec->alg)};
	uint8_t sig[CSM_SIGNATURE_MAX];
	struct csm_plugin_out sig_out = {.p = sig, .cap = sizeof(sig)};
	struct csm_csr *csr = NULL;
	int r;

	if ((rec->use & CSM_USE_SIGN) == 0) {
		(void)snprintf(why, 128, "the key was not made to sign");
		return CSM_EUNSUPPORTED;
	}
	if ((r = csm_csr_build(&spec, &csr, why)) == 0 && (r = sign(e, rec, &spec.scheme, csm_csr_tbs(csr), &sig_out)) == 0)
		r = csm_csr_finish(csr, sig, sig_out.len, out);
	csm_csr_free(csr);
	return r;
}

struct csm_str entry_key(const struct entry *en, char buf[static CSM_KEY_BESIDE_NAME])
{
	return en->turning ? csm_store_key_beside(entry_name(en), CSM_KEY_NEXT, buf) : entry_name(en);
}

const uint8_t *entry_key_id(const struct entry *en)
{
	return en->turning ? en->next_id : en->id;
}

int enrol_csr(struct enrol *e, struct entry *en, const struct csm_msg_cert_info *want, struct csm_buf *out, char why[static 128])
{
	char name[CSM_KEY_BESIDE_NAME];
	struct csm_key_record rec;
	struct csm_buf scratch;
	int r;

	csm_buf_init(&scratch, CSM_MESSAGE_MAX, true);
	if ((r = csm_reader_begin(e->reader)) != 0)
		goto out;
	r = csm_store_key_get(e->reader, entry_ns(en), entry_key(en, name), true, &scratch, &rec);
	if (r == 0)
		r = memcmp(rec.id, entry_key_id(en), CSM_KEY_ID_LEN) == 0 ? make_csr(e, &rec, want, out, why) : CSM_ENOT_FOUND;
	csm_reader_end(e->reader);
out:
	csm_buf_free(&scratch);
	return r;
}

int enrol_spki(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN],
	struct csm_buf *out, enum csm_alg *alg, uint64_t *signatures)
{
	struct csm_key_record rec;
	int r;

	if ((r = csm_reader_begin(e->reader)) != 0)
		return r;
	r = csm_store_key_get(e->reader, ns, name, false, NULL, &rec);
	if (r == 0 && memcmp(rec.id, id, CSM_KEY_ID_LEN) != 0)
		r = CSM_ENOT_FOUND;
	if (r == 0)
		r = csm_buf_put(out, rec.spki.p, rec.spki.n);
	if (r == 0 && alg != NULL)
		*alg = rec.alg;
	if (r == 0 && signatures != NULL)
		*signatures = rec.signatures;
	csm_reader_end(e->reader);
	return r;
}

/* ---- keys that are made ---- */

struct make_work {
	struct csm_backend *be;
	struct csm_plugin_keyspec spec;
	struct csm_plugin_out spki, pub, priv;
	int r;
};

static void make_there(void *arg)
{
	struct make_work *w = arg;

	w->r = csm_be_generate(w->be, &w->spec, &w->spki, &w->pub, &w->priv);
}

static int make_and_keep(struct enrol *e, const struct enrol_make *m, struct make_work *w, uint8_t id[static CSM_KEY_ID_LEN])
{
	struct csm_store_op sop = {.kind = CSM_OP_KEY_CREATE, .ns = m->ns, .name = m->name};
	struct csm_audit_event event = {.kind = CSM_AUDIT_CHANGE, .method = "key.create", .object = m->object, .detail = m->detail};
	int r = csm_backend_run(w->be, make_there, w);

	if (r != 0 || w->r != 0)
		return r != 0 ? r : w->r;
	randombytes_buf(sop.key.id, sizeof(sop.key.id));
	sop.key.backend = csm_str_of(csm_backend_name(w->be));
	sop.key.protection = csm_str_of(w->be->caps.protection);
	sop.key.alg = w->spec.alg;
	sop.key.use = w->spec.use;
	sop.key.exportable = w->spec.exportable;
	sop.key.origin = CSM_KEY_MADE;
	sop.key.created = (uint64_t)time(NULL);
	sop.key.spki = (struct csm_bin){w->spki.p, w->spki.len};
	sop.key.pub = (struct csm_bin){w->pub.p, w->pub.len};
	sop.key.priv = (struct csm_bin){w->priv.p, w->priv.len};
	sop.key.tag = m->tag;
	sop.event = &event;
	if ((r = enrol_commit(e, &sop)) == 0)
		memcpy(id, sop.key.id, CSM_KEY_ID_LEN);
	return r;
}

int enrol_make_key(struct enrol *e, const struct enrol_make *m, uint8_t id[static CSM_KEY_ID_LEN])
{
	uint8_t spki[CSM_SPKI_MAX], pub[CSM_PLUGIN_PUB_MAX];
	struct make_work w = {.be = m->be, .spec = m->spec, .spki = {.p = spki, .cap = sizeof(spki)},
		.pub = {.p = pub, .cap = sizeof(pub)}, .priv = {.cap = CSM_PLUGIN_PRIV_MAX}};
	int r;

	if (w.be == NULL || w.be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (making_needed(w.be) || !csm_backend_has(w.be, m->spec.alg))
		return CSM_EUNSUPPORTED;
	if ((w.priv.p = csm_lock_alloc(CSM_PLUGIN_PRIV_MAX)) == NULL)
		return CSM_ENOMEM;
	r = make_and_keep(e, m, &w, id);
	csm_lock_free(w.priv.p);
	return r;
}

/* ---- a profile's own ---- */

/* The strongest, or the one that the profile names. A device that keeps what it makes needs more care than a key that is soon
 * made anew: then it is the software back end, and a profile that names one is told. */
static struct csm_backend *choose(struct enrol *e, const struct eprofile *p)
{
	struct csm_backend *be = broker_preferred(e->b);

	if (p->cfg->key_backend != NULL)
		return broker_backend(e->b, csm_str_of(p->cfg->key_backend));
	if (be == NULL || making_needed(be) || !csm_backend_has(be, CSM_ALG_P256))
		be = broker_backend(e->b, CSM_STR("soft"));
	return be;
}

static int make_own(struct enrol *e, struct eprofile *p, uint8_t id[static CSM_KEY_ID_LEN])
{
	char object[CSM_KEYREF_MAX + 1];
	struct enrol_make m = {.be = choose(e, p), .spec = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN}, .ns = CSM_STR(CSM_OWN_NAMESPACE),
		.name = csm_str_of(p->cfg->name)};
	int r;

	(void)snprintf(object, sizeof(object), CSM_OWN_NAMESPACE ":%s", p->cfg->name);
	m.object = csm_str_of(object);
	if ((r = enrol_make_key(e, &m, id)) == 0)
		log_info("enrolment: %s: its key was made in the back end %s", p->cfg->name, csm_backend_name(m.be));
	return r;
}

int enrol_own_backend(struct enrol *e, struct eprofile *p)
{
	struct csm_key_record rec;
	int r;

	if (p->key_backend[0] != '\0')
		return 0;
	if ((r = csm_reader_begin(e->reader)) != 0)
		return r;
	r = csm_store_key_get(e->reader, CSM_STR(CSM_OWN_NAMESPACE), csm_str_of(p->cfg->name), false, NULL, &rec);
	if (r == 0)
		(void)snprintf(p->key_backend, sizeof(p->key_backend), "%.*s", (int)rec.backend.n, rec.backend.p);
	csm_reader_end(e->reader);
	return r;
}

int enrol_own_key(struct enrol *e, struct eprofile *p, uint8_t id[static CSM_KEY_ID_LEN])
{
	struct csm_key_record rec;
	int r;

	if ((r = csm_reader_begin(e->reader)) != 0)
		return r;
	r = csm_store_key_get(e->reader, CSM_STR(CSM_OWN_NAMESPACE), csm_str_of(p->cfg->name), false, NULL, &rec);
	if (r == 0)
		memcpy(id, rec.id, CSM_KEY_ID_LEN);
	csm_reader_end(e->reader);
	return r == CSM_ENOT_FOUND ? make_own(e, p, id) : r;
}
