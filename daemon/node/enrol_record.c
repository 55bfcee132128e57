/* The records of certificates that are wanted, written and read by the enrol thread. */
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/certinfo.h"
#include "daemon/node/enrol_int.h"

struct csm_str entry_ns(const struct entry *en)
{
	return csm_str_of(en->ns);
}

struct csm_str entry_name(const struct entry *en)
{
	return csm_str_of(en->name);
}

void erecord_init(struct erecord *rec)
{
	memset(rec, 0, sizeof(*rec));
	csm_pool_init(&rec->pool, ENROL_POOL_MAX);
	csm_buf_init(&rec->buf, CSM_MESSAGE_MAX, false);
}

void erecord_free(struct erecord *rec)
{
	csm_pool_free(&rec->pool);
	csm_buf_free(&rec->buf);
}

/* Required fields of one that has none yet. */
static const struct csm_msg_cert_info nothing = {.namespace = CSM_STR(""), .name = CSM_STR(""), .serial = CSM_STR(""),
	.subject = CSM_STR(""), .issuer = CSM_STR(""), .state = CSM_STR("pending"), .last_error = CSM_STR(""),
	.fingerprint = CSM_STR("")};

int erecord_load(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN],
	struct erecord *rec)
{
	uint64_t installed = 0;
	int r;

	rec->info = nothing;
	rec->chain = (struct csm_bin){NULL, 0};
	if ((r = csm_reader_begin(e->reader)) != 0)
		return r;
	r = csm_store_cert_get(e->reader, ns, name, id, &rec->buf, &installed);
	csm_reader_end(e->reader);
	if (r == 0)
		r = certinfo_unpack((struct csm_bin){csm_buf_ptr(&rec->buf), rec->buf.len}, e->now.wall_s, &rec->pool, &rec->info,
			&rec->chain);
	if (r == 0 && rec->info.installed.v == 0)
		rec->info.installed.v = installed;
	if (r != 0)
		rec->info = nothing;
	return r;
}

bool erecord_is_for(const struct csm_msg_cert_info *info, struct csm_str subject, const struct csm_strs *sans)
{
	if (!csm_str_same(info->asked_subject, subject) || info->asked_san.n != sans->n)
		return false;
	for (size_t i = 0; i < sans->n; i++)
		if (!csm_str_same(info->asked_san.v[i], sans->v[i]))
			return false;
	return true;
}

struct waiting {
	sem_t done;
};

static void committed(struct csm_store_op *sop)
{
	sem_post(&((struct waiting *)sop->arg)->done);
}

int enrol_commit(struct enrol *e, struct csm_store_op *sop)
{
	struct csm_store *store = e->b->store;
	struct waiting w;
	int r;

	if (store == NULL)
		return CSM_EUNAVAILABLE;
	sem_init(&w.done, 0, 0);
	sop->done = committed;
	/* cppcheck-suppress autoVariables ; it is answered when this returns */
	sop->arg = &w;
	if ((r = csm_store_submit(store, sop)) == 0) {
		while (sem_wait(&w.done) != 0)
			;
		r = sop->r;
	}
	sem_destroy(&w.done);
	return r;
}

int erecord_save(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN],
	const struct erecord *rec, struct csm_store_op *sop)
{
	struct csm_store_op own = {.ns = ns, .name = name};
	struct csm_buf payload;
	int r;

	if (sop == NULL)
		sop = &own;
	csm_buf_init(&payload, CSM_MESSAGE_MAX, false);
	sop->kind = sop->turns != NULL ? CSM_OP_KEY_TURN : CSM_OP_CERT_SET;
	memcpy(sop->key.id, id, CSM_KEY_ID_LEN);
	if ((r = certinfo_pack(&rec->info, rec->chain, &payload)) == 0) {
		sop->payload = (struct csm_bin){csm_buf_ptr(&payload), payload.len};
		r = enrol_commit(e, sop);
	}
	csm_buf_free(&payload);
	return r;
}

struct refused {
	struct csm_audit_wait wait;
	char object[CSM_KEYREF_MAX + 2];
};

static void refusal_written(struct csm_audit_wait *w)
{
	free(w);
}

void enrol_audit_refused(struct enrol *e, const struct entry *en, int r)
{
	struct refused *f;

	if (e->b->audit == NULL || (f = calloc(1, sizeof(*f))) == NULL)
		return;
	(void)snprintf(f->object, sizeof(f->object), "%s:%s", en->ns, en->name);
	f->wait.event = (struct csm_audit_event){
		.kind = CSM_AUDIT_DENIED, .method = "cert.enrol", .object = csm_str_of(f->object), .result = csm_err_name(r)};
	f->wait.done = refusal_written;
	csm_audit_submit(e->b->audit, &f->wait);
}

int enrol_info_answer(const struct erecord *rec, struct csm_str ns, struct csm_str name, uint64_t now, struct csm_buf *out)
{
	struct csm_msg_cert_info info = rec->info;

	info.namespace = ns;
	info.name = name;
	info.state = csm_str_of(certinfo_state(&info, now));
	info.anchors = (struct csm_bin){NULL, 0};
	info.reported = (struct csm_u64){0, false};
	return csm_msg_encode(CSM_DEF(cert_info), &info, out);
}
