/* The back ends of the broker: opened plugins, and the one wrapper through which all their slots are called.
 * The wrapper checks that a slot is there, that outputs stay within their buffers and results are CSM_E*,
 * and counts calls, failures and time. */
#ifndef CSM_SVC_BACKEND_H
#define CSM_SVC_BACKEND_H

#include <pthread.h>
#include <stdatomic.h>
#include "daemon/svc/workq.h"
#include "plugins/include/csm_alg.h"

enum csm_backend_call {
	CSM_CALL_GENERATE,
	CSM_CALL_IMPORT,
	CSM_CALL_LOAD,
	CSM_CALL_SIGN,
	CSM_CALL_DECRYPT,
	CSM_CALL_DERIVE,
	CSM_CALL_SEAL,
	CSM_CALL_COUNTER,
	CSM_CALL_ATTEST,
	CSM_CALL__COUNT
};
const char *csm_backend_call_name(enum csm_backend_call call);

/* A back end's health with strings of its own. */
struct csm_backend_health {
	struct csm_plugin_health h;
	char reason[160], device[160], sealed[80], refused[160];
};

struct csm_backend {
	const struct csm_plugin *plugin;
	const char *name;        /* NULL: the plugin's */
	unsigned threads;        /* of its own, for a plugin that is not SERIAL and whose calls may block; 0: none */
	struct csm_plugin_host host;
	_Atomic(struct csm_plugin_ctx *) ctx; /* NULL until opened; set once caps are known */
	struct csm_plugin_caps caps;
	void *so;
	struct csm_workq *owner; /* the thread or threads that call it; NULL: any may, or before csm_backend_start */
	bool preferred;          /* new keys go here by default */
	int last_open;           /* result of the last try to open */
	pthread_mutex_t health_lock;
	char said[160];          /* its last warning while it was not open, under health_lock */
	struct csm_backend_health health; /* SERIAL: as of the owner's last call, under health_lock */
	uint8_t storage[CSM_PLUGIN_STORAGE_MAX]; /* the storage key as it was last seen, under health_lock */
	size_t storage_len;                      /* 0: none, or not known yet */
	atomic_ullong calls[CSM_CALL__COUNT], failures[CSM_CALL__COUNT], micros[CSM_CALL__COUNT];
};

const char *csm_backend_name(const struct csm_backend *be);

/* Make a table of this program's own a back end; nothing is opened. */
void csm_backend_use(struct csm_backend *be, const struct csm_plugin *plugin, const char *name, unsigned threads);
/* Load `dir`/`name`.so and check its ABI; nothing is opened. CSM_ENOT_FOUND when there is no such file,
 * CSM_EUNSUPPORTED for another ABI; why (static or dlerror's text) for the log. */
CSM_MUST int csm_backend_load_so(struct csm_backend *be, const char *dir, const char *name, const char **why);
/* Probe and open. Called before threads, later on the owner's thread. */
CSM_MUST int csm_backend_open(struct csm_backend *be);
/* It warns of something: while it is not open, that is why. Any thread. */
void csm_backend_said(struct csm_backend *be, const char *text);
/* Start the owner's thread of a SERIAL back end, or the threads of its own; none for others. */
CSM_MUST int csm_backend_start(struct csm_backend *be, size_t queue_max, size_t queue_per_user);
/* Finish what is queued and end the owner's thread; then the caller's thread may call the back end. */
void csm_backend_stop(struct csm_backend *be);
/* After csm_backend_stop, when all its keys are unloaded. */
void csm_backend_close(struct csm_backend *be);

/* Run fn where the back end may be called: on the owner's thread (waits), or at once. */
CSM_MUST int csm_backend_run(struct csm_backend *be, void (*fn)(void *arg), void *arg);
/* May a loop call load and sign for this algorithm by itself? */
bool csm_backend_inline(const struct csm_backend *be, enum csm_alg alg);
bool csm_backend_has(const struct csm_backend *be, enum csm_alg alg);

/* The slots; see csm_plugin.h. All but health answer CSM_EUNAVAILABLE while the back end is not open. */
CSM_MUST int csm_be_generate(struct csm_backend *be, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv);
/* A key that is in the device; CSM_ENOT_FOUND, CSM_ECONFLICT. */
CSM_MUST int csm_be_discard(struct csm_backend *be, const uint8_t tag[static CSM_PLUGIN_TAG]);
CSM_MUST int csm_be_find(struct csm_backend *be, const char *ref, struct csm_plugin_keyspec *spec,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv);
CSM_MUST int csm_be_import(struct csm_backend *be, const struct csm_plugin_keyspec *spec, struct csm_bin wrapped,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv);
CSM_MUST int csm_be_load(struct csm_backend *be, const struct csm_plugin_keyspec *spec,
	const struct csm_plugin_blob *blob, struct csm_plugin_key **ret);
void csm_be_unload(struct csm_backend *be, struct csm_plugin_key *key);
CSM_MUST int csm_be_sign(struct csm_backend *be, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	struct csm_bin in, struct csm_plugin_out *sig);
/* Count a signature that was made elsewhere, which took so long; its result as csm_be_sign would give it. */
CSM_MUST int csm_be_signed(struct csm_backend *be, uint64_t began_us, int r, struct csm_plugin_out *sig);
uint64_t csm_be_now_us(void);
CSM_MUST int csm_be_decrypt(struct csm_backend *be, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	struct csm_bin in, struct csm_bin label, struct csm_plugin_out *plain);
CSM_MUST int csm_be_derive(struct csm_backend *be, struct csm_plugin_key *key, struct csm_bin peer,
	struct csm_plugin_out *shared);
CSM_MUST int csm_be_attest(struct csm_backend *be, struct csm_plugin_key *key, struct csm_bin nonce,
	struct csm_plugin_out *statement);
CSM_MUST int csm_be_activate(struct csm_backend *be, const struct csm_plugin_credential *credential,
	struct csm_plugin_out *proof);
CSM_MUST int csm_be_witness(struct csm_backend *be, struct csm_bin text, struct csm_plugin_out *sig,
	struct csm_plugin_out *spki);
CSM_MUST int csm_be_seal(struct csm_backend *be, struct csm_bin in, struct csm_plugin_out *sealed);
CSM_MUST int csm_be_unseal(struct csm_backend *be, struct csm_bin sealed, struct csm_plugin_out *out);
CSM_MUST int csm_be_adopt(struct csm_backend *be, bool take, bool *changed);
CSM_MUST int csm_be_counter(struct csm_backend *be, bool increment, uint64_t *ret);
/* Any thread: a SERIAL back end's is at most as old as its last call, or csm_be_health_refresh. */
void csm_be_health(struct csm_backend *be, struct csm_backend_health *ret);
/* The storage key, a TPM2B_PUBLIC, at most CSM_PLUGIN_STORAGE_MAX bytes; 0 of them: there is none, or it is not known
 * now. Any thread: as of the owner's last look, which it takes when it is idle and each second. */
size_t csm_be_storage_key(struct csm_backend *be, uint8_t out[static CSM_PLUGIN_STORAGE_MAX]);
void csm_be_storage_refresh(struct csm_backend *be); /* on the thread that may call the back end */
/* Look anew; on the thread that may call the back end. */
void csm_be_health_refresh(struct csm_backend *be);

#endif
