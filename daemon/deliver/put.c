#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/deliver/put.h"
#include "daemon/svc/log.h"

#define LINGER_MS 100

bool delivery_put_hooked(const struct delivery_target *t, struct csm_gen *g, int r, char *why, const char **outcome)
{
	char text[DELIVERY_WHY], before[DELIVERY_WHY];

	*outcome = r == 0 ? "delivered" : "kept";
	if (r == 0)
		return false;
	snprintf(before, sizeof(before), "%s", why);
	if (!t->roll_back) {
		csm_text_put(why, DELIVERY_WHY, "%s; the new certificate stays", before);
		return false;
	}
	r = csm_gen_back(g, text);
	if (r == CSM_ENOT_FOUND) {
		csm_text_put(why, DELIVERY_WHY, "%s; there was none before it, it stays", before);
		return false;
	}
	if (r != 0) {
		csm_text_put(why, DELIVERY_WHY, "%s; not rolled back: %s", before, text);
		return false;
	}
	csm_text_put(why, DELIVERY_WHY, "%s; rolled back", before);
	*outcome = "rolled_back";
	return true;
}

int delivery_put_begin(const struct delivery_target *t, const struct csm_msg_cert_info *info, struct csm_bin spki,
	struct csm_gen **ret, char *why)
{
	const struct csm_gen_place place = {.path = t->folder, .names = csm_certdir_names, .uid = t->uid, .gid = t->gid,
		.dir_mode = delivery_dir_mode(t->mode), .file_mode = t->mode, .strict = true, .linger_ms = LINGER_MS};
	struct csm_gen *g = NULL;
	struct csm_certdir d;
	int r = csm_certdir_make(info, spki, &d);

	if (r != 0)
		snprintf(why, DELIVERY_WHY, "what csmd sent is no certificate of the key");
	else if ((r = csm_gen_open(&place, &g, why)) == 0 && (r = csm_gen_write(g, d.files, CSM_CERTDIR_FILES, why)) == 0)
		r = csm_gen_swap(g, why);
	csm_certdir_clear(&d);
	if (r == 0)
		*ret = g;
	else
		csm_gen_close(g);
	return r;
}

int delivery_put(const struct delivery_target *t, const struct csm_msg_cert_info *info, struct csm_bin spki,
	delivery_hook_fn *hook, void *arg, char *why, const char **outcome)
{
	char text[DELIVERY_WHY];
	struct csm_gen *g;
	int r = delivery_put_begin(t, info, spki, &g, why);

	*outcome = "refused";
	if (r != 0)
		return r;
	r = hook(arg, DELIVERY_NEW, why);
	/* Who has loaded the new one before it failed is to have the old one, too. */
	if (delivery_put_hooked(t, g, r, why, outcome) && hook(arg, DELIVERY_BACK, text) != 0)
		log_warn("%s: rolled back, but %s", t->name, text);
	csm_gen_close(g);
	return r;
}

/* ---- what is known at the next start ---- */

int delivery_state_open(const char *dir, int *ret)
{
	struct stat st;
	int fd;

	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return CSM_ESYSTEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return CSM_ESYSTEM;
	if (fstat(fd, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 022) != 0) {
		close(fd);
		return CSM_EDENIED;
	}
	*ret = fd;
	return 0;
}

/* Which folder it is that was filled, and how: another line in deliver.yaml, or another folder there, is another one. */
static bool place_hash(const struct delivery_target *t, char hex[static 65])
{
	uint8_t hash[32];
	char text[1200];
	struct stat st;

	if (stat(t->folder, &st) != 0)
		return false;
	snprintf(text, sizeof(text), "%s %s %u %u %o %" PRIu64 " %" PRIu64, t->key, t->folder, t->uid, t->gid, t->mode,
		(uint64_t)st.st_dev, (uint64_t)st.st_ino);
	crypto_generichash(hash, sizeof(hash), (const uint8_t *)text, strlen(text), NULL, 0);
	sodium_bin2hex(hex, 65, hash, sizeof(hash));
	return true;
}

/* "1 FINGERPRINT PLACE TIME\n", as delivery_stamp_write has it. */
static bool take_stamp(char *text, const char *place, struct delivery_stamp *ret)
{
	char *rest = text, *word[4], *end;
	uint64_t delivered;

	for (size_t i = 0; i < 4; i++)
		if ((word[i] = strsep(&rest, " \n")) == NULL)
			return false;
	delivered = strtoull(word[3], &end, 10);
	if (strcmp(word[0], "1") != 0 || strcmp(word[2], place) != 0 || strlen(word[1]) >= sizeof(ret->fingerprint) || *end != '\0')
		return false;
	snprintf(ret->fingerprint, sizeof(ret->fingerprint), "%s", word[1]);
	ret->delivered = delivered;
	return true;
}

void delivery_stamp_read(int state, const struct delivery_target *t, struct delivery_stamp *ret)
{
	int fd = openat(state, t->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char text[256] = "", place[65];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	*ret = (struct delivery_stamp){0};
	if (fd >= 0)
		close(fd);
	if (n > 0 && place_hash(t, place))
		(void)take_stamp(text, place, ret);
}

int delivery_stamp_write(int state, const struct delivery_target *t, const struct delivery_stamp *s)
{
	char text[256], place[65], temp[CSM_NAMESPACE_MAX + 8];
	int fd, n;
	bool good;

	if (!place_hash(t, place))
		return CSM_ESYSTEM;
	n = snprintf(text, sizeof(text), "1 %s %s %" PRIu64 "\n", s->fingerprint, place, s->delivered);
	/* A target's name begins with a letter or a digit. */
	snprintf(temp, sizeof(temp), ".%s", t->name);
	fd = openat(state, temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return CSM_ESYSTEM;
	good = write(fd, text, (size_t)n) == n && fsync(fd) == 0;
	good = close(fd) == 0 && good;
	if (!good || renameat(state, temp, state, t->name) != 0 || fsync(state) != 0)
		return CSM_ESYSTEM;
	return 0;
}
