/* A folder of files that changes as a whole. A generation is made beside the folder, on the disk, and takes its name in
 * one exchange (renameat2), or, where the file system cannot exchange and the folder is not there yet, by a symbolic link
 * of that name, which then points from one generation to the next. Who has the folder open, or opens it, finds the one
 * before or the new one, whole, at each time; a process that is killed leaves the one or the other, and what else it leaves
 * goes with the next generation.
 *
 * No link is followed below the folder that the generations lie in, nothing is written that has not just been made, and
 * nothing removed but files of the names that a generation has. Any thread; one struct csm_gen per thread. */
#ifndef CSM_BASE_GENERATION_H
#define CSM_BASE_GENERATION_H

#include <stddef.h>
#include <sys/types.h>
#include "libclient/base/err.h"

#define CSM_GEN_FILES_MAX 16u
#define CSM_GEN_WHY 256u

struct csm_gen_file {
	const char *name;
	const void *p;
	size_t n;
};

struct csm_gen_place {
	const char *path; /* the folder; borrowed */
	/* The names that a generation may have, ended by NULL; borrowed. A folder with others is left alone. */
	const char *const *names;
	/* (uid_t)-1: as the one before, where we may say so. */
	uid_t uid;
	gid_t gid;
	mode_t dir_mode;  /* 0: as the one before, else 0755 */
	mode_t file_mode; /* 0: 0644 */
	/* For who has more rights than the folder's owner: path is absolute and goes through no link, the folder around it
	 * is root's (or the caller's) or uid's, and nobody else may write in it; what lies there and is neither uid's, nor in
	 * a folder of root's, is left alone. uid and gid are given. */
	bool strict;
	long linger_ms;   /* how long the one before outlives the exchange, for who has just looked the folder up */
};

struct csm_gen;
/* why: what is wrong, for people, at least CSM_GEN_WHY bytes; written on failure only, here and below. CSM_EINVALID: the
 * path is none; CSM_EEXISTS: something else is there; CSM_EDENIED: others than uid might interfere; CSM_ESYSTEM. Removes
 * what killed processes have left. */
CSM_MUST int csm_gen_open(const struct csm_gen_place *place, struct csm_gen **ret, char *why);
/* The next generation, on the disk beside the folder. Once. */
CSM_MUST int csm_gen_write(struct csm_gen *g, const struct csm_gen_file *files, size_t n, char *why);
/* It takes the folder's name. CSM_EUNSUPPORTED: the file system cannot exchange what is there; CSM_ECONFLICT: somebody
 * else moves things about. */
CSM_MUST int csm_gen_swap(struct csm_gen *g, char *why);
/* The one before has its place again; where there was none, the new one stays, and it is CSM_ENOT_FOUND. After csm_gen_swap. */
CSM_MUST int csm_gen_back(struct csm_gen *g, char *why);
/* What has not the folder's name goes, after linger_ms if it had it. NULL is a no-op. */
void csm_gen_close(struct csm_gen *g);

/* All of it, without a way back. */
CSM_MUST int csm_gen_put(const struct csm_gen_place *place, const struct csm_gen_file *files, size_t n, char *why);

#endif
