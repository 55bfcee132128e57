/* The library and its keys: every call into it but those that sign. */
#include "plugins/hwpluginif/hwpluginif.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "libclient/base/lockmem.h"

uint64_t hw_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int hw_library_open(struct hw_library *l, const char *path, char why[static HW_WHY_MAX])
{
	sshsm_hw_plugin_get_plugin_functions_t *get;
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (so == NULL) {
		snprintf(why, HW_WHY_MAX, "the library cannot be loaded: %.200s", dlerror());
		return CSM_EUNSUPPORTED;
	}
	/* Slots that the library leaves alone are NULL. */
	memset(&l->fn, 0, sizeof(l->fn));
	*(void **)&get = dlsym(so, SSHSM_HW_PLUGIN_SYMBOL);
	if (get == NULL || get(&l->fn) != 0 || l->fn.load_key == NULL || l->fn.rsa_sign == NULL) {
		snprintf(why, HW_WHY_MAX, "%.200s has not the functions of a hardware plugin", path);
		dlclose(so);
		return CSM_EUNSUPPORTED;
	}
	l->so = so;
	return 0;
}

/* What a library is given: copies of the files in locked memory, gone after the call. */
struct input {
	SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t in;
	buffer_info_t info[SSHSM_HW_PLUGIN_BUFFERS_MAX];
	uint8_t *copy[SSHSM_HW_PLUGIN_BUFFERS_MAX];
};

static void input_free(struct input *in)
{
	for (size_t i = 0; i < SSHSM_HW_PLUGIN_BUFFERS_MAX; i++)
		csm_lock_free(in->copy[i]);
}

static int input_make(const struct hw_files *files, struct input *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < files->n; i++) {
		if ((ret->copy[i] = csm_lock_alloc(files->f[i].len + 1)) == NULL) {
			input_free(ret);
			return CSM_ENOMEM;
		}
		/* With a NUL behind it: libraries take text for a string. */
		memcpy(ret->copy[i], files->f[i].p, files->f[i].len + 1);
		memcpy(ret->info[i].id, files->f[i].id, sizeof(ret->info[i].id));
		ret->info[i].length_of_buffer = (int)files->f[i].len;
		ret->info[i].buffer = ret->copy[i];
		ret->in.buffer_info[i] = &ret->info[i];
	}
	ret->in.num_buffers = (int)files->n;
	return 0;
}

int hw_library_start(struct hw_library *l, char why[static HW_WHY_MAX])
{
	struct input in;
	int r, rc = 0;

	l->started_ms = hw_now_ms();
	if (l->fn.init != NULL && l->fn.init() != 0) {
		snprintf(why, HW_WHY_MAX, "%.200s: the library says that its hardware is not there", l->name);
		return CSM_EUNAVAILABLE;
	}
	if (l->fn.activate != NULL) {
		if ((r = input_make(&l->activate, &in)) != 0) {
			if (l->fn.uninit != NULL)
				(void)l->fn.uninit();
			return r;
		}
		rc = l->fn.activate(&in.in);
		input_free(&in);
	}
	if (rc != 0) {
		snprintf(why, HW_WHY_MAX, "%.200s: the library refuses the files of its activate folder", l->name);
		if (l->fn.uninit != NULL)
			(void)l->fn.uninit();
		return CSM_EUNAVAILABLE;
	}
	l->up = true;
	l->life++;
	return 0;
}

void hw_library_stop(struct hw_library *l)
{
	if (l->up && l->fn.uninit != NULL)
		(void)l->fn.uninit();
	l->up = false;
}

int hw_library_restart(struct hw_library *l)
{
	char why[HW_WHY_MAX];

	if (hw_now_ms() - l->started_ms < HW_RESTART_MS)
		return CSM_EUNAVAILABLE;
	hw_library_stop(l);
	return hw_library_start(l, why);
}

/* Libraries were seen whose handle has the four bytes of an int, where the interface has eight. Bytes in the same eight
 * as the first are in its page, and can be read whatever they are; the others, where a page ends before them, are not. */
#ifdef CSM_SANITIZED
__attribute__((no_sanitize_address))
#endif
void hw_handle_copy(const void *p, uint8_t out[static HW_HANDLE_LEN])
{
	const volatile uint8_t *from = p;
	size_t page = (size_t)sysconf(_SC_PAGESIZE), room = page - ((uintptr_t)p & (page - 1));

	for (size_t i = 0; i < HW_HANDLE_LEN; i++)
		out[i] = i < 4 || i < room ? from[i] : 0;
}

/* A copy with bounds of our own; what is no number of a sensible size is none. */
static int take_public(const SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *said, struct hw_public *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (said->modulus == NULL || said->modulus_size == 0 || said->modulus_size > sizeof(ret->modulus))
		return CSM_EBACKEND;
	memcpy(ret->modulus, said->modulus, said->modulus_size);
	ret->modulus_len = said->modulus_size;
	if (said->exponent != NULL && said->exponent_size <= sizeof(ret->exponent)) {
		memcpy(ret->exponent, said->exponent, said->exponent_size);
		ret->exponent_len = said->exponent_size;
	}
	return 0;
}

int hw_key_in(struct hw_key *k)
{
	SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t said = {0};
	struct hw_public pub;
	void *handle = NULL;
	struct input in;
	int r, rc;

	if (!k->lib->up)
		return CSM_EUNAVAILABLE;
	if (k->loaded && k->life == k->lib->life)
		return 0;
	k->loaded = false;
	if ((r = input_make(&k->files, &in)) != 0)
		return r;
	rc = k->lib->fn.load_key(&in.in, &handle, &said);
	input_free(&in);
	/* After a failure nothing that it left is touched: it may be freed already. */
	if (rc != 0)
		return CSM_EUNAVAILABLE;
	r = handle != NULL ? take_public(&said, &pub) : CSM_EBACKEND;
	free(said.modulus);
	free(said.exponent);
	if (handle == NULL)
		return r;
	hw_handle_copy(handle, k->handle);
	k->loaded = true;
	k->life = k->lib->life;
	k->load++;
	if (r == 0)
		k->pub = pub;
	else
		hw_key_out(k);
	return r;
}

void hw_key_out(struct hw_key *k)
{
	uint64_t handle;
	void *at = &handle;

	if (k->loaded && k->life == k->lib->life && k->lib->up && k->lib->fn.unload_key != NULL) {
		memcpy(&handle, k->handle, sizeof(handle));
		(void)k->lib->fn.unload_key(&at);
	}
	k->loaded = false;
}
