#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "daemon/svc/backend.h"

#define IDLE_MS 5u

static const char *const call_names[CSM_CALL__COUNT] = {
	[CSM_CALL_GENERATE] = "generate", [CSM_CALL_IMPORT] = "import", [CSM_CALL_LOAD] = "load", [CSM_CALL_SIGN] = "sign",
	[CSM_CALL_DECRYPT] = "decrypt", [CSM_CALL_DERIVE] = "derive", [CSM_CALL_SEAL] = "seal",
	[CSM_CALL_COUNTER] = "counter", [CSM_CALL_ATTEST] = "attest",
};

const char *csm_backend_call_name(enum csm_backend_call call)
{
	return call_names[call];
}

int csm_backend_load_so(struct csm_backend *be, const char *dir, const char *name, const char **why)
{
	const struct csm_plugin *const *found;
	int r = CSM_ENOT_FOUND;
	char path[512];

	*why = "the path is too long";
	if ((size_t)snprintf(path, sizeof(path), "%s/%s.so", dir, name) >= sizeof(path))
		return r;
	errno = 0;
	be->so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (be->so == NULL) {
		r = errno == ENOMEM || errno == EMFILE || errno == ENFILE || errno == EIO ? CSM_ESYSTEM : CSM_ENOT_FOUND;
		*why = dlerror();
		/* The loader does not always leave errno as it was. */
		return *why == NULL || strstr(*why, "memory") != NULL ? CSM_ESYSTEM : r;
	}
	found = dlsym(be->so, "csm_plugin_export");
	if (found == NULL || *found == NULL || (*found)->abi != CSM_PLUGIN_ABI || strcmp((*found)->name, name) != 0) {
		*why = "it is not a back end of this version";
		dlclose(be->so);
		be->so = NULL;
		return CSM_EUNSUPPORTED;
	}
	csm_backend_use(be, *found, NULL, 0);
	return 0;
}

void csm_backend_use(struct csm_backend *be, const struct csm_plugin *plugin, const char *name, unsigned threads)
{
	be->plugin = plugin;
	be->name = name;
	be->threads = threads;
	pthread_mutex_init(&be->health_lock, NULL);
	be->last_open = CSM_EUNAVAILABLE;
}

const char *csm_backend_name(const struct csm_backend *be)
{
	return be->name != NULL ? be->name : be->plugin->name;
}

/* A back end answers in CSM_E*; what is none of those it may use becomes BACKEND. */
static int map_result(int r)
{
	switch (r) {
	case 0:
	case CSM_EUNSUPPORTED:
	case CSM_EUNAVAILABLE:
	case CSM_ELOCKOUT:
	case CSM_EINVALID:
	case CSM_ETOO_LARGE:
	case CSM_EBUSY:
	case CSM_ETAMPERED:
	case CSM_ENOMEM:
		return r;
	default:
		return CSM_EBACKEND;
	}
}

void csm_backend_said(struct csm_backend *be, const char *text)
{
	pthread_mutex_lock(&be->health_lock);
	if (be->ctx == NULL)
		snprintf(be->said, sizeof(be->said), "%s", text);
	pthread_mutex_unlock(&be->health_lock);
}

int csm_backend_open(struct csm_backend *be)
{
	struct csm_plugin_ctx *ctx = NULL;
	int r = 0;

	if (be->ctx != NULL)
		return 0;
	if (be->plugin->probe != NULL)
		r = be->plugin->probe(&be->host);
	if (r == 0)
		r = be->plugin->open(&be->host, &ctx);
	if (r == 0 && (r = be->plugin->capabilities(ctx, &be->caps)) != 0)
		be->plugin->close(ctx);
	if (r == 0)
		be->ctx = ctx;
	be->last_open = map_result(r);
	csm_be_health_refresh(be);
	csm_be_storage_refresh(be);
	return be->last_open;
}

static void on_idle(void *arg)
{
	struct csm_backend *be = arg;

	if (be->ctx != NULL && be->plugin->idle != NULL)
		be->plugin->idle(be->ctx);
	csm_be_health_refresh(be);
	csm_be_storage_refresh(be);
}

int csm_backend_start(struct csm_backend *be, size_t queue_max, size_t queue_per_user)
{
	struct csm_workq_options opt = {
		.name = csm_backend_name(be),
		.threads = be->plugin->flags & CSM_PLUGIN_SERIAL ? 1 : be->threads,
		.max = queue_max,
		.max_per_user = queue_per_user,
		.idle = on_idle,
		.idle_ms = IDLE_MS,
		.arg = be,
	};

	if (opt.threads == 0)
		return 0;
	return csm_workq_new(&opt, &be->owner);
}

void csm_backend_stop(struct csm_backend *be)
{
	csm_workq_free(be->owner);
	be->owner = NULL;
}

void csm_backend_close(struct csm_backend *be)
{
	if (be->ctx != NULL)
		be->plugin->close(be->ctx);
	be->ctx = NULL;
	/* The object stays mapped: libraries under it may have registered exit handlers. */
	be->plugin = NULL;
}

int csm_backend_run(struct csm_backend *be, void (*fn)(void *arg), void *arg)
{
	if (be->owner != NULL)
		return csm_workq_call(be->owner, fn, arg);
	fn(arg);
	return 0;
}

bool csm_backend_inline(const struct csm_backend *be, enum csm_alg alg)
{
	return !(be->plugin->flags & CSM_PLUGIN_SERIAL) && (be->plugin->flags & CSM_PLUGIN_INLINE_EC) &&
		!csm_alg_is_rsa(alg) && alg != CSM_ALG_P384 && alg != CSM_ALG_P521;
}

bool csm_backend_has(const struct csm_backend *be, enum csm_alg alg)
{
	return be->ctx != NULL && (be->caps.algs & (1u << alg)) != 0;
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* The end of every call: counts, and a result that fits its buffer or is a failure. */
static int finish(struct csm_backend *be, enum csm_backend_call call, uint64_t began, int r, struct csm_plugin_out *out)
{
	r = map_result(r);
	if (r == 0 && out != NULL && (out->len == 0 || out->len > out->cap))
		r = CSM_EBACKEND;
	atomic_fetch_add_explicit(&be->calls[call], 1, memory_order_relaxed);
	if (r != 0)
		atomic_fetch_add_explicit(&be->failures[call], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&be->micros[call], now_us() - began, memory_order_relaxed);
	if (r != 0 && out != NULL)
		out->len = 0;
	if (be->owner != NULL)
		csm_be_health_refresh(be);
	return r;
}

int csm_be_generate(struct csm_backend *be, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	uint64_t began = now_us();
	int r;

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (!csm_backend_has(be, spec->alg) || (spec->use & ~be->caps.uses) != 0)
		return CSM_EUNSUPPORTED;
	spki->len = pub->len = priv->len = 0;
	r = be->plugin->generate(be->ctx, spec, spki, pub, priv);
	if (r == 0 && (pub->len > pub->cap || priv->len > priv->cap))
		r = CSM_EBACKEND;
	return finish(be, CSM_CALL_GENERATE, began, r, spki);
}

int csm_be_discard(struct csm_backend *be, const uint8_t tag[static CSM_PLUGIN_TAG])
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->discard == NULL)
		return CSM_EUNSUPPORTED;
	return finish(be, CSM_CALL_GENERATE, began, be->plugin->discard(be->ctx, tag), NULL);
}

int csm_be_find(struct csm_backend *be, const char *ref, struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	uint64_t began = now_us();
	int r;

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->find == NULL)
		return CSM_EUNSUPPORTED;
	spki->len = pub->len = priv->len = 0;
	r = be->plugin->find(be->ctx, ref, spec, spki, pub, priv);
	if (r == 0 && (pub->len > pub->cap || priv->len > priv->cap || spec->alg >= CSM_ALG__COUNT ||
			      csm_alg_check_use(spec->alg, spec->use) != 0))
		r = CSM_EBACKEND;
	spec->exportable = false;
	if (r == CSM_ENOT_FOUND || r == CSM_ECONFLICT) {
		(void)finish(be, CSM_CALL_GENERATE, began, CSM_EINVALID, spki);
		return r;
	}
	return finish(be, CSM_CALL_GENERATE, began, r, spki);
}

int csm_be_import(struct csm_backend *be, const struct csm_plugin_keyspec *spec, struct csm_bin wrapped,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	uint64_t began = now_us();
	int r;

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->import == NULL || !csm_backend_has(be, spec->alg) || (spec->use & ~be->caps.uses) != 0)
		return CSM_EUNSUPPORTED;
	spki->len = pub->len = priv->len = 0;
	r = be->plugin->import(be->ctx, spec, wrapped.p, wrapped.n, spki, pub, priv);
	if (r == 0 && (pub->len > pub->cap || priv->len > priv->cap))
		r = CSM_EBACKEND;
	return finish(be, CSM_CALL_IMPORT, began, r, spki);
}

int csm_be_load(struct csm_backend *be, const struct csm_plugin_keyspec *spec, const struct csm_plugin_blob *blob,
	struct csm_plugin_key **ret)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	return finish(be, CSM_CALL_LOAD, began, be->plugin->load(be->ctx, spec, blob, ret), NULL);
}

void csm_be_unload(struct csm_backend *be, struct csm_plugin_key *key)
{
	if (key != NULL && be->ctx != NULL)
		be->plugin->unload(be->ctx, key);
}

int csm_be_sign(struct csm_backend *be, struct csm_plugin_key *key, const struct csm_scheme *scheme, struct csm_bin in,
	struct csm_plugin_out *sig)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (scheme->hash != CSM_HASH_NONE && in.n != csm_hash_size(scheme->hash))
		return CSM_EINVALID;
	return finish(be, CSM_CALL_SIGN, began, be->plugin->sign(be->ctx, key, scheme, in.p, in.n, sig), sig);
}

int csm_be_signed(struct csm_backend *be, uint64_t began_us, int r, struct csm_plugin_out *sig)
{
	return finish(be, CSM_CALL_SIGN, began_us, r, sig);
}

uint64_t csm_be_now_us(void)
{
	return now_us();
}

int csm_be_decrypt(struct csm_backend *be, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	struct csm_bin in, struct csm_bin label, struct csm_plugin_out *plain)
{
	uint64_t began = now_us();
	int r;

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->decrypt == NULL)
		return CSM_EUNSUPPORTED;
	r = be->plugin->decrypt(be->ctx, key, scheme, in.p, in.n, label.p, label.n, plain);
	/* An empty message is a legal plain text. */
	if (r == 0 && plain->len == 0)
		return finish(be, CSM_CALL_DECRYPT, began, 0, NULL);
	return finish(be, CSM_CALL_DECRYPT, began, r, plain);
}

int csm_be_derive(struct csm_backend *be, struct csm_plugin_key *key, struct csm_bin peer, struct csm_plugin_out *shared)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->derive == NULL)
		return CSM_EUNSUPPORTED;
	return finish(be, CSM_CALL_DERIVE, began, be->plugin->derive(be->ctx, key, peer.p, peer.n, shared), shared);
}

int csm_be_attest(struct csm_backend *be, struct csm_plugin_key *key, struct csm_bin nonce,
	struct csm_plugin_out *statement)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->attest == NULL)
		return CSM_EUNSUPPORTED;
	return finish(be, CSM_CALL_ATTEST, began, be->plugin->attest(be->ctx, key, nonce.p, nonce.n, statement), statement);
}

int csm_be_activate(struct csm_backend *be, const struct csm_plugin_credential *credential, struct csm_plugin_out *proof)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->activate == NULL)
		return CSM_EUNSUPPORTED;
	return finish(be, CSM_CALL_ATTEST, began, be->plugin->activate(be->ctx, credential, proof), proof);
}

/* The one thing that a back end denies: its device is in another state than what was sealed. */
static int finish_seal(struct csm_backend *be, uint64_t began, int r, struct csm_plugin_out *out)
{
	int mapped = finish(be, CSM_CALL_SEAL, began, r, out);

	return r == CSM_EDENIED ? r : mapped;
}

int csm_be_witness(struct csm_backend *be, struct csm_bin text, struct csm_plugin_out *sig, struct csm_plugin_out *spki)
{
	uint64_t began = now_us();
	int r;

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->witness == NULL)
		return CSM_EUNSUPPORTED;
	spki->len = 0;
	r = be->plugin->witness(be->ctx, text.p, text.n, sig, spki);
	if (r == 0 && (spki->len == 0 || spki->len > spki->cap))
		r = CSM_EBACKEND;
	return finish(be, CSM_CALL_ATTEST, began, r, sig);
}

int csm_be_seal(struct csm_backend *be, struct csm_bin in, struct csm_plugin_out *sealed)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->seal == NULL)
		return CSM_EUNSUPPORTED;
	return finish_seal(be, began, be->plugin->seal(be->ctx, in.p, in.n, sealed), sealed);
}

int csm_be_unseal(struct csm_backend *be, struct csm_bin sealed, struct csm_plugin_out *out)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->unseal == NULL)
		return CSM_EUNSUPPORTED;
	return finish_seal(be, began, be->plugin->unseal(be->ctx, sealed.p, sealed.n, out), out);
}

int csm_be_adopt(struct csm_backend *be, bool take, bool *changed)
{
	uint64_t began = now_us();

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->adopt == NULL)
		return CSM_EUNSUPPORTED;
	return finish(be, CSM_CALL_SEAL, began, be->plugin->adopt(be->ctx, take, changed), NULL);
}

int csm_be_counter(struct csm_backend *be, bool increment, uint64_t *ret)
{
	uint64_t began = now_us();
	int r;

	if (be->ctx == NULL)
		return CSM_EUNAVAILABLE;
	if (be->plugin->counter_read == NULL || be->plugin->counter_increment == NULL)
		return CSM_EUNSUPPORTED;
	r = increment ? be->plugin->counter_increment(be->ctx, ret) : be->plugin->counter_read(be->ctx, ret);
	return finish(be, CSM_CALL_COUNTER, began, r, NULL);
}

void csm_be_health_refresh(struct csm_backend *be)
{
	struct csm_backend_health now = {.h = {.usable = false}};
	const char *reason = be->last_open == CSM_ELOCKOUT ? "lockout" : be->last_open == 0 ? "not opened" : csm_err_text(be->last_open);

	if (be->ctx != NULL) {
		be->plugin->health(be->ctx, &now.h);
		reason = now.h.reason;
	}
	snprintf(now.reason, sizeof(now.reason), "%s", reason != NULL ? reason : "");
	snprintf(now.device, sizeof(now.device), "%s", now.h.device != NULL ? now.h.device : "");
	snprintf(now.sealed, sizeof(now.sealed), "%s", now.h.sealed != NULL ? now.h.sealed : "");
	snprintf(now.refused, sizeof(now.refused), "%s", now.h.seal_refused != NULL ? now.h.seal_refused : "");
	pthread_mutex_lock(&be->health_lock);
	if (be->ctx != NULL)
		be->said[0] = '\0';
	else if (be->last_open != CSM_ELOCKOUT && be->said[0] != '\0')
		memcpy(now.reason, be->said, sizeof(now.reason));
	be->health = now;
	pthread_mutex_unlock(&be->health_lock);
}

void csm_be_storage_refresh(struct csm_backend *be)
{
	uint8_t now[CSM_PLUGIN_STORAGE_MAX] = {0};
	struct csm_plugin_out out = {.p = now, .cap = sizeof(now)};

	if (be->ctx == NULL || be->plugin->storage_key == NULL || be->plugin->storage_key(be->ctx, &out) != 0 ||
		out.len > sizeof(now))
		out.len = 0;
	pthread_mutex_lock(&be->health_lock);
	memcpy(be->storage, now, out.len);
	be->storage_len = out.len;
	pthread_mutex_unlock(&be->health_lock);
}

static size_t storage_kept(struct csm_backend *be, uint8_t *out)
{
	size_t n;

	pthread_mutex_lock(&be->health_lock);
	n = be->storage_len;
	memcpy(out, be->storage, n);
	pthread_mutex_unlock(&be->health_lock);
	return n;
}

size_t csm_be_storage_key(struct csm_backend *be, uint8_t out[static CSM_PLUGIN_STORAGE_MAX])
{
	size_t n = storage_kept(be, out);

	/* One that may be called from any thread is asked when it has not told yet. */
	if (n == 0 && !(be->plugin->flags & CSM_PLUGIN_SERIAL)) {
		csm_be_storage_refresh(be);
		n = storage_kept(be, out);
	}
	return n;
}

void csm_be_health(struct csm_backend *be, struct csm_backend_health *ret)
{
	if (!(be->plugin->flags & CSM_PLUGIN_SERIAL))
		csm_be_health_refresh(be);
	pthread_mutex_lock(&be->health_lock);
	*ret = be->health;
	pthread_mutex_unlock(&be->health_lock);
	ret->h.reason = ret->reason[0] != '\0' ? ret->reason : NULL;
	ret->h.device = ret->device[0] != '\0' ? ret->device : NULL;
	ret->h.sealed = ret->sealed[0] != '\0' ? ret->sealed : NULL;
	ret->h.seal_refused = ret->refused[0] != '\0' ? ret->refused : NULL;
}
