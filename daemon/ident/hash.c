#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/ident/hash.h"

#define READ_SIZE (256u * 1024u)

static EVP_MD *sha256;

int hash_init(void)
{
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
		return CSM_EINTERNAL;
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	return sha256 != NULL ? 0 : CSM_EINTERNAL;
}

static void finish(struct hash_job *j, int r)
{
	struct stat st;

	if (r == 0 &&
		(fstat(j->fd, &st) != 0 || (uint64_t)st.st_size != j->size ||
			(uint64_t)st.st_ctim.tv_sec * 1000000000u + (uint64_t)st.st_ctim.tv_nsec != j->changed))
		r = CSM_EBUSY;
	if (r == 0 && EVP_DigestFinal_ex(j->md, j->sha256, NULL) != 1)
		r = CSM_EINTERNAL;
	EVP_MD_CTX_free(j->md);
	free(j->buf);
	close(j->fd);
	j->r = r;
	j->done(j);
}

/* One piece. CSM_EBUSY: there is more. */
static int piece(struct hash_job *j)
{
	uint64_t until = j->at + HASH_PIECE;

	while (j->at < until) {
		ssize_t n = read(j->fd, j->buf, READ_SIZE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return CSM_ESYSTEM;
		if (n == 0)
			return 0;
		j->at += (uint64_t)n;
		if (EVP_DigestUpdate(j->md, j->buf, (size_t)n) != 1)
			return CSM_EINTERNAL;
		/* A file that grows while it is read would have no end. */
		if (j->at > j->size)
			return CSM_ETOO_LARGE;
	}
	return CSM_EBUSY;
}

static void run(struct csm_job *job)
{
	struct hash_job *j = (struct hash_job *)job;
	int r = piece(j);

	/* To the end of the queue; one that is full gives no turn, so go on at once. */
	while (r == CSM_EBUSY) {
		r = csm_workq_push(j->q, &j->job);
		if (r == 0)
			return;
		r = r == CSM_EBUSY ? piece(j) : r;
	}
	finish(j, r == CSM_ETOO_LARGE ? CSM_EBUSY : r);
}

int hash_start(struct hash_job *j, struct csm_workq *q, uid_t uid)
{
	int r = CSM_ENOMEM;

	j->q = q;
	j->at = 0;
	j->job = (struct csm_job){.run = run, .user = uid};
	j->md = EVP_MD_CTX_new();
	j->buf = malloc(READ_SIZE);
	if (j->md == NULL || j->buf == NULL || EVP_DigestInit_ex(j->md, sha256, NULL) != 1)
		goto out;
	if ((r = csm_workq_push(q, &j->job)) == 0)
		return 0;
out:
	EVP_MD_CTX_free(j->md);
	free(j->buf);
	return r;
}
