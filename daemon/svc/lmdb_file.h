/* What the store and csm-server's database have in common as files of LMDB. Any thread. */
#ifndef CSM_SVC_LMDB_FILE_H
#define CSM_SVC_LMDB_FILE_H

#include <lmdb.h>
#include <stdint.h>
#include "libclient/base/err.h"

/* LMDB's own code, or an errno, as CSM_E. */
int csm_lmdb_err(int rc);
/* One process at a time: LMDB alone would let a second one write. The lock goes with *fd, which is set as soon as there is one.
 * CSM_EBUSY: another process has it; CSM_ESYSTEM with errno. */
CSM_MUST int csm_lmdb_lock(const char *folder, int *fd);
/* Make the folder's data.mdb where it has none, by way of its new.mdb. LMDB's code, or an errno. */
CSM_MUST int csm_lmdb_seed(const char *folder);
/* The names in a folder are on the disk. CSM_ESYSTEM with errno. */
CSM_MUST int csm_lmdb_sync_folder(const char *path);
/* Pages that were freed and may be used again; LMDB shows them to readers only. */
size_t csm_lmdb_free_pages(MDB_txn *txn);
/* What the file may grow by: of the disk, and by the process's limit. */
uint64_t csm_lmdb_disk_left(MDB_env *env);

#endif
