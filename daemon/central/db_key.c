/* The database's key, in its folder: sealed by the csmd beside it, so that nobody who has just the files can make a row. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "libclient/include/csm/csm.h"
#include "daemon/central/db.h"

#define SEALED_MAX (DB_KEY_LEN + CSM_SEAL_EXTRA_BYTES)
static const char context[] = "csm-server database";

static int read_all(int fd, uint8_t *p, size_t *n)
{
	size_t have = 0;
	ssize_t got;

	while (have < *n && (got = read(fd, p + have, *n - have)) != 0) {
		if (got < 0 && errno != EINTR)
			return CSM_ESYSTEM;
		have += got > 0 ? (size_t)got : 0;
	}
	*n = have;
	return 0;
}

static int key_open(struct csm *csm, int fd, uint8_t key[static DB_KEY_LEN])
{
	uint8_t sealed[SEALED_MAX + 1], plain[DB_KEY_LEN];
	size_t n = sizeof(sealed), len = sizeof(plain);
	int r = read_all(fd, sealed, &n);

	if (r == 0)
		r = csm_unseal(csm, sealed, n, context, sizeof(context) - 1, plain, &len);
	if (r == 0 && len != sizeof(plain))
		r = CSM_ETAMPERED;
	if (r == 0)
		memcpy(key, plain, sizeof(plain));
	sodium_memzero(plain, sizeof(plain));
	return r;
}

/* Whole and on the disk before it has its name. */
static int write_file(int dir, const uint8_t *p, size_t n)
{
	int fd = openat(dir, "key.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), r = CSM_ESYSTEM;

	if (fd < 0)
		return r;
	if (write(fd, p, n) == (ssize_t)n && fsync(fd) == 0 && renameat(dir, "key.new", dir, "key") == 0 && fsync(dir) == 0)
		r = 0;
	close(fd);
	return r;
}

static int key_make(struct csm *csm, int dir, uint8_t key[static DB_KEY_LEN])
{
	uint8_t sealed[SEALED_MAX], plain[DB_KEY_LEN];
	size_t n = sizeof(sealed);
	int r;

	if (faccessat(dir, "data.mdb", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return CSM_ENOT_FOUND;
	randombytes_buf(plain, sizeof(plain));
	r = csm_seal(csm, plain, sizeof(plain), context, sizeof(context) - 1, sealed, &n);
	if (r == 0 && (r = write_file(dir, sealed, n)) == 0)
		memcpy(key, plain, sizeof(plain));
	sodium_memzero(plain, sizeof(plain));
	return r;
}

int db_key_load(struct csm *csm, const char *dir, uint8_t key[static DB_KEY_LEN])
{
	int at, fd, r;

	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return CSM_ESYSTEM;
	at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return CSM_ESYSTEM;
	fd = openat(at, "key", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) {
		r = key_open(csm, fd, key);
		close(fd);
	} else {
		r = errno == ENOENT ? key_make(csm, at, key) : CSM_ESYSTEM;
	}
	close(at);
	return r;
}
