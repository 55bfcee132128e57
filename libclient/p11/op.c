/* What the operations of a session share: one at a time, its key and parameters, and the message. */
#include <stdlib.h>
#include <string.h>
#include "libclient/p11/p11.h"

void op_end(struct op *op)
{
	object_unref(op->object);
	EVP_MD_CTX_free(op->md);
	p11_wipe_free(op->in, op->in_room);
	free(op->found);
	*op = (struct op){.kind = OP_NONE};
}

CK_RV op_begin(struct session *s, enum op_kind kind, const CK_MECHANISM *m, bool *ended)
{
	*ended = false;
	if (m == NULL) {
		if (s->op.kind != kind)
			return CKR_ARGUMENTS_BAD;
		op_end(&s->op);
		*ended = true;
		return CKR_OK;
	}
	if (s->op.kind != OP_NONE)
		return CKR_OPERATION_ACTIVE;
	return m->pParameter == NULL && m->ulParameterLen != 0 ? CKR_MECHANISM_PARAM_INVALID : CKR_OK;
}

static const struct use_row {
	CK_FLAGS flag;
	CK_OBJECT_CLASS class;
} uses[] = {
	[OP_SIGN] = {CKF_SIGN, CKO_PRIVATE_KEY},
	[OP_VERIFY] = {CKF_VERIFY, CKO_PUBLIC_KEY},
	[OP_ENCRYPT] = {CKF_ENCRYPT, CKO_PUBLIC_KEY},
	[OP_DECRYPT] = {CKF_DECRYPT, CKO_PRIVATE_KEY},
};

static bool permitted(enum op_kind kind, const struct object *o, const struct keyinfo *i)
{
	if (o->class != uses[kind].class)
		return false;
	return kind == OP_SIGN ? i->sign : kind == OP_DECRYPT ? i->decrypt : true;
}

static CK_RV key_fits(enum op_kind kind, const struct mech *mech, const struct object *o, const struct keyinfo **ret)
{
	const struct keyinfo *i;
	CK_RV rv;

	if (o->class == CKO_SECRET_KEY)
		return CKR_KEY_TYPE_INCONSISTENT;
	if (o->class != CKO_PRIVATE_KEY && o->class != CKO_PUBLIC_KEY)
		return CKR_KEY_HANDLE_INVALID;
	rv = key_load(o->key, &i);
	if (rv != CKR_OK)
		return rv == CKR_OBJECT_HANDLE_INVALID ? CKR_KEY_HANDLE_INVALID : rv;
	if (i->alg->type != mech->key_type)
		return CKR_KEY_TYPE_INCONSISTENT;
	if (!permitted(kind, o, i))
		return CKR_KEY_FUNCTION_NOT_PERMITTED;
	*ret = i;
	return CKR_OK;
}

CK_RV op_key(struct session *s, struct op *op, const CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
	CK_RV rv;

	op->mech = mech_by_type(m->mechanism);
	if (op->mech == NULL || (op->mech->info.flags & uses[op->kind].flag) == 0)
		return CKR_MECHANISM_INVALID;
	rv = op_param(op, m);
	if (rv != CKR_OK)
		return rv;
	op->object = object_get(s, key);
	return op->object == NULL ? CKR_KEY_HANDLE_INVALID : key_fits(op->kind, op->mech, op->object, &op->info);
}

/* ---- parameters ---- */

static CK_RV param_pss(struct op *op, const CK_MECHANISM *m)
{
	CK_RSA_PKCS_PSS_PARAMS p;
	const struct hash *h;

	if (m->pParameter == NULL || m->ulParameterLen != sizeof(p))
		return CKR_MECHANISM_PARAM_INVALID;
	memcpy(&p, m->pParameter, sizeof(p));
	h = hash_by_mech(p.hashAlg);
	if (h == NULL || !h->signs || p.mgf != h->mgf || (op->hash != NULL && op->hash != h))
		return CKR_MECHANISM_PARAM_INVALID;
	/* csm's salts are as long as the hash; of others' signatures each that can be */
	if (p.sLen > 512 || (op->kind == OP_SIGN && p.sLen != h->size))
		return CKR_MECHANISM_PARAM_INVALID;
	op->hash = h;
	op->salt = p.sLen;
	return CKR_OK;
}

static CK_RV param_oaep(struct op *op, const CK_MECHANISM *m)
{
	CK_RSA_PKCS_OAEP_PARAMS p;
	const struct hash *h;

	if (m->pParameter == NULL || m->ulParameterLen != sizeof(p))
		return CKR_MECHANISM_PARAM_INVALID;
	memcpy(&p, m->pParameter, sizeof(p));
	h = hash_by_mech(p.hashAlg);
	if (h == NULL || (op->kind == OP_DECRYPT && !h->signs) || p.mgf != h->mgf)
		return CKR_MECHANISM_PARAM_INVALID;
	if ((p.source != CKZ_DATA_SPECIFIED && (p.source != 0 || p.ulSourceDataLen != 0)) ||
		p.ulSourceDataLen > sizeof(op->label) || (p.pSourceData == NULL && p.ulSourceDataLen != 0))
		return CKR_MECHANISM_PARAM_INVALID;
	op->hash = h;
	op->label_len = p.ulSourceDataLen;
	if (op->label_len > 0)
		memcpy(op->label, p.pSourceData, op->label_len);
	return CKR_OK;
}

/* Ed25519 as such, without a context and not prehashed. */
static CK_RV param_eddsa(const CK_MECHANISM *m)
{
	CK_EDDSA_PARAMS p;

	if (m->ulParameterLen == 0)
		return CKR_OK;
	if (m->ulParameterLen != sizeof(p))
		return CKR_MECHANISM_PARAM_INVALID;
	memcpy(&p, m->pParameter, sizeof(p));
	return p.phFlag != CK_FALSE || p.ulContextDataLen != 0 ? CKR_MECHANISM_PARAM_INVALID : CKR_OK;
}

CK_RV op_param(struct op *op, const CK_MECHANISM *m)
{
	op->hash = op->mech->hash != 0 ? hash_by_mech(op->mech->hash) : NULL;
	switch (op->mech->kind) {
	case MECH_RSA_PSS:
		return param_pss(op, m);
	case MECH_RSA_OAEP:
		return param_oaep(op, m);
	case MECH_EDDSA:
		return param_eddsa(m);
	default:
		return m->ulParameterLen != 0 ? CKR_MECHANISM_PARAM_INVALID : CKR_OK;
	}
}

/* ---- the message ---- */

static CK_RV hash_start(struct op *op)
{
	EVP_MD *md = pub_md(op->hash);

	op->md = EVP_MD_CTX_new();
	if (md == NULL || op->md == NULL || EVP_DigestInit_ex2(op->md, md, NULL) != 1) {
		EVP_MD_free(md);
		return CKR_HOST_MEMORY;
	}
	EVP_MD_free(md);
	return CKR_OK;
}

static CK_RV gather(struct op *op, const void *p, size_t n)
{
	size_t need = op->in_len + n;
	uint8_t *more;

	if (n > P11_INPUT_MAX || need > P11_INPUT_MAX)
		return CKR_DATA_LEN_RANGE;
	if (need > op->in_room) {
		size_t room = need < 256 ? 256 : need < P11_INPUT_MAX / 2 ? 2 * need : P11_INPUT_MAX;

		more = malloc(room);
		if (more == NULL)
			return CKR_HOST_MEMORY;
		if (op->in_len > 0)
			memcpy(more, op->in, op->in_len);
		p11_wipe_free(op->in, op->in_room);
		op->in = more;
		op->in_room = room;
	}
	if (n > 0)
		memcpy(op->in + op->in_len, p, n);
	op->in_len = need;
	return CKR_OK;
}

CK_RV op_data(struct op *op, const void *p, size_t n)
{
	CK_RV rv = CKR_OK;

	if (op->mech->hash == 0)
		return gather(op, p, n);
	if (op->md == NULL)
		rv = hash_start(op);
	if (rv == CKR_OK && n > 0 && EVP_DigestUpdate(op->md, p, n) != 1)
		rv = CKR_FUNCTION_FAILED;
	return rv;
}

CK_RV op_input(struct op *op, const uint8_t **p, size_t *n, uint8_t digest[static EVP_MAX_MD_SIZE])
{
	unsigned len = 0;
	CK_RV rv = CKR_OK;

	if (op->mech->hash == 0) {
		*p = op->in_len > 0 ? op->in : digest;
		*n = op->in_len;
		return CKR_OK;
	}
	if (op->md == NULL)
		rv = hash_start(op);
	if (rv != CKR_OK)
		return rv;
	if (EVP_DigestFinal_ex(op->md, digest, &len) != 1)
		return CKR_FUNCTION_FAILED;
	*p = digest;
	*n = len;
	return CKR_OK;
}

CK_RV op_init(CK_SESSION_HANDLE h, enum op_kind kind, const CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
	struct session *s;
	bool ended;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	rv = op_begin(s, kind, m, &ended);
	if (rv != CKR_OK || ended)
		return session_leave(s, rv);
	s->op.kind = kind;
	rv = op_key(s, &s->op, m, key);
	if (rv != CKR_OK)
		op_end(&s->op);
	return session_leave(s, rv);
}

/* ---- what the functions of one operation have in common ---- */

CK_RV op_enter(CK_SESSION_HANDLE h, enum op_kind kind, struct session **ret)
{
	CK_RV rv = session_enter(h, ret);

	if (rv != CKR_OK)
		return rv;
	return (*ret)->op.kind == kind ? CKR_OK : session_leave(*ret, CKR_OPERATION_NOT_INITIALIZED);
}

CK_RV op_update(CK_SESSION_HANDLE h, enum op_kind kind, const void *part, CK_ULONG n)
{
	struct session *s;
	CK_RV rv = op_enter(h, kind, &s);

	if (rv != CKR_OK)
		return rv;
	s->op.updated = true;
	rv = part == NULL && n != 0 ? CKR_ARGUMENTS_BAD : op_data(&s->op, part, n);
	if (rv != CKR_OK)
		op_end(&s->op);
	return session_leave(s, rv);
}

/* Length queries and buffers that are too small leave the operation as it is. */
static CK_RV result(
	const struct op_result *c, struct session *s, const void *data, CK_ULONG n, uint8_t *out, CK_ULONG *len)
{
	size_t want = c->len(&s->op);
	CK_RV rv;

	if (out == NULL || *len < want) {
		*len = want;
		return session_leave(s, out == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL);
	}
	rv = op_data(&s->op, data, n);
	if (rv == CKR_OK)
		rv = c->make(&s->op, out);
	if (rv == CKR_OK)
		*len = want;
	op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV op_once(const struct op_result *c, CK_SESSION_HANDLE h, const void *data, CK_ULONG n, uint8_t *out, CK_ULONG *len)
{
	struct session *s;
	CK_RV rv = op_enter(h, c->kind, &s);

	if (rv != CKR_OK)
		return rv;
	if (len != NULL && (data != NULL || n == 0) && !s->op.updated)
		return result(c, s, data, n, out, len);
	rv = len == NULL || (data == NULL && n != 0) ? CKR_ARGUMENTS_BAD : CKR_OPERATION_ACTIVE;
	op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV op_final(const struct op_result *c, CK_SESSION_HANDLE h, uint8_t *out, CK_ULONG *len)
{
	struct session *s;
	CK_RV rv = op_enter(h, c->kind, &s);

	if (rv != CKR_OK)
		return rv;
	if (len != NULL)
		return result(c, s, NULL, 0, out, len);
	op_end(&s->op);
	return session_leave(s, CKR_ARGUMENTS_BAD);
}
