#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "daemon/node/conn.h"
#include "daemon/node/peer.h"
#include "daemon/svc/log.h"

#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446
#endif

static bool same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Equal in all that a selector can look at; cgroup stands for unit, user_unit, container and pod. */
static bool same_facts(const struct csm_facts *a, const struct csm_facts *b)
{
	return a->uid == b->uid && a->gid == b->gid && a->pid == b->pid && a->valid == b->valid &&
		a->same_ns == b->same_ns && a->n_groups == b->n_groups &&
		(a->n_groups == 0 || memcmp(a->groups, b->groups, a->n_groups * sizeof(*a->groups)) == 0) &&
		same_text(a->cgroup, b->cgroup) && same_text(a->label, b->label);
}

/* pidfds of one process share an inode (pidfs, Linux 6.9); 0 where that is not known. Told by the file system: the
 * inode's type has changed between kernels, and older ones give all pidfds the same inode. */
static uint64_t inode_of(int pidfd)
{
	struct statfs fs;
	struct stat st;

	if (pidfd < 0 || fstatfs(pidfd, &fs) != 0 || fs.f_type != PID_FS_MAGIC || fstat(pidfd, &st) != 0)
		return 0;
	return st.st_ino;
}

static void on_exit_of_peer(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;

	(void)fd;
	(void)what;
	conn_close_peer(p->loop, p);
}

static void peer_free(struct peer *p)
{
	if (p->pidfd >= 0) {
		if (event_initialized(&p->exit_event))
			event_del(&p->exit_event);
		close(p->pidfd);
	}
	csm_subject_free(p->subject);
	csm_subject_free(p->exe_subject);
	free(p->exe);
	csm_audit_place_unref(p->place);
	csm_facts_clear(&p->facts);
	free(p);
}

static struct peer *find_same(struct loop *l, const struct peer *p)
{
	if (p->pidfd_ino == 0)
		return NULL;
	for (struct peer *q = l->peers; q != NULL; q = q->next)
		if (q->pidfd_ino == p->pidfd_ino && same_facts(&q->facts, &p->facts))
			return q;
	return NULL;
}

int peer_get(struct loop *l, int fd, struct peer **ret)
{
	struct peer *p = calloc(1, sizeof(*p)), *known;
	int r;

	if (p == NULL)
		return CSM_ENOMEM;
	p->loop = l;
	p->pidfd = -1;
	r = csm_facts_of_socket(fd, l->b->cfg.kubepods_root, l->b->degraded != NULL, &p->facts, &p->pidfd);
	if (r == 0)
		r = csm_audit_place_new(&p->facts, &p->place);
	if (r != 0) {
		peer_free(p);
		return r;
	}
	p->pidfd_ino = inode_of(p->pidfd);
	known = find_same(l, p);
	if (known != NULL) {
		peer_free(p);
		admit_file_spared(&l->b->admit);
		p = known;
	} else {
		if (p->pidfd >= 0) {
			event_assign(&p->exit_event, l->base, p->pidfd, EV_READ, on_exit_of_peer, p);
			if (event_add(&p->exit_event, NULL) != 0) {
				peer_free(p);
				return CSM_ESYSTEM;
			}
		}
		p->next = l->peers;
		l->peers = p;
	}
	p->n_conns++;
	*ret = p;
	return 0;
}

void peer_put(struct peer *p)
{
	struct peer **at = &p->loop->peers;

	if (--p->n_conns > 0)
		return;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	admit_file_spared(&p->loop->b->admit);
	peer_free(p);
}

int peer_subject(struct peer *p, const struct csm_subject **ret)
{
	struct csm_subject *s;
	int r;

	if (p->subject == NULL || csm_subject_policy(p->subject) != p->loop->policy) {
		if ((r = csm_subject_new(p->loop->policy, &p->facts, &s)) != 0)
			return r;
		csm_subject_free(p->subject);
		p->subject = s;
	}
	*ret = p->subject;
	return 0;
}

int peer_subject_with(struct peer *p, const struct csm_exe *exe, const struct csm_subject **ret)
{
	struct csm_facts facts = p->facts;
	struct csm_exe *copy;
	struct csm_subject *s;
	int r;

	if (p->exe_subject == NULL || csm_subject_policy(p->exe_subject) != p->loop->policy ||
		p->exe->hashed != exe->hashed || !csm_exe_same(p->exe, exe)) {
		copy = malloc(sizeof(*copy));
		if (copy == NULL)
			return CSM_ENOMEM;
		*copy = *exe;
		facts.exe = copy;
		if ((r = csm_subject_new(p->loop->policy, &facts, &s)) != 0) {
			free(copy);
			return r;
		}
		csm_subject_free(p->exe_subject);
		free(p->exe);
		p->exe_subject = s;
		p->exe = copy;
	}
	*ret = p->exe_subject;
	return 0;
}

bool peer_lives(const struct peer *p)
{
	struct pollfd f = {.fd = p->pidfd, .events = POLLIN};

	return p->pidfd >= 0 && poll(&f, 1, 0) == 0;
}

void peer_signed(struct loop *l, const struct peer *p, const uint8_t id[static CSM_KEY_ID_LEN])
{
	struct count_who who = {.uid = 0};

	if (p != NULL) {
		who.uid = p->facts.uid;
		who.place = p->place;
		if (p->exe != NULL && p->exe->path[0] != '\0')
			who.program = p->exe->path;
	}
	counts_add(&l->b->counts, id, p != NULL ? &who : NULL);
}
