#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/close_range.h>
#include <time.h>
#include <unistd.h>
#include "daemon/node/supervisor.h"
#include "daemon/svc/log.h"
#include "daemon/svc/notify.h"

#define BROKER_NAME "csmd: broker"
#define DELAY_FIRST_MS 100
#define DELAY_MAX_MS 2000
#define LIFE_GOOD_MS 5000
#define STOP_WAIT_MS 15000
#define WARN_S 5
#define MEMLOCK_BYTES (256u * 1024u * 1024u) /* 1,024 parsed keys on each of 64 loops take less */

struct supervisor {
	struct files files;
	struct sockets sockets;
	char device[512];
	int exe_fd, signal_fd;
	int control, device_sock; /* our ends; -1 while no broker runs */
	pid_t broker;             /* 0: none */
	int64_t born_ms, again_ms; /* again_ms: when to start the next one; -1: not waiting */
	int delay_ms;
	uint64_t reload_seq; /* of the newest wish of the broker */
	bool stopping, ready;
	int64_t kill_ms;
	struct helper ident, enrol, deliver;
	char enrol_env[sizeof("CSM_SERVER=") + CSM_ENROL_URL_MAX];
	struct plughosts plughosts;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- one time ---- */

static int make_state_dir(const struct files *f)
{
	uid_t owner = f->broker_uid == (uid_t)-1 ? geteuid() : f->broker_uid;
	const char *dir = f->cfg.state_dir;
	struct stat st;

	bool made = mkdir(dir, 0700) == 0;

	if ((!made && errno != EEXIST) ||
		(made && f->broker_uid != (uid_t)-1 && chown(dir, f->broker_uid, f->broker_gid) != 0)) {
		log_err("state_dir %s cannot be made: %s", dir, strerror(errno));
		return CSM_ESYSTEM;
	}
	if (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode)) {
		log_err("state_dir %s is not a folder", dir);
		return CSM_ESYSTEM;
	}
	if (st.st_uid != owner || (st.st_mode & 077) != 0) {
		log_err("state_dir %s has to be 0700 and belong to uid %u", dir, owner);
		return CSM_EDENIED;
	}
	return 0;
}

/* Who waits for csmd should not run before it has answered: see csmd.yaml(5). What the one who started it has chosen is
 * left; refused is no harm. */
static void set_nice(int n)
{
	char text[16];
	int fd = -1, now, len;

	now = getpriority(PRIO_PROCESS, 0);
	if (now == 0 && n != 0 && setpriority(PRIO_PROCESS, 0, n) == 0)
		now = n;
	/* Between sessions the group's value decides; only a session of our own is ours to change. */
	if (now != 0 && getsid(0) == getpid())
		fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
	len = snprintf(text, sizeof(text), "%d", now);
	if (fd >= 0 && write(fd, text, (size_t)len) != len)
		log_debug("the session's processor share stays as it is");
	if (fd >= 0)
		close(fd);
}

static int set_up_process(struct supervisor *s)
{
	struct rlimit files, none = {0, 0};
	sigset_t set;
	int exe;

	/* As many descriptors as we may have; every connection is one. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	set_nice(s->files.cfg.nice);
	/* Root secrets pass through this process. */
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return CSM_ESYSTEM;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	/* Every broker is the program that we are, also after an upgrade on disk. */
	exe = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (exe < 0)
		return CSM_ESYSTEM;
	/* Clear of the numbers that the broker's sockets take. */
	s->exe_fd = fcntl(exe, F_DUPFD_CLOEXEC, 10);
	close(exe);
	return s->signal_fd < 0 || s->exe_fd < 0 ? CSM_ESYSTEM : 0;
}

/* ---- the broker's birth ---- */

static void raise_memlock(void)
{
	struct rlimit l = {MEMLOCK_BYTES, MEMLOCK_BYTES}, now;

	if (getrlimit(RLIMIT_MEMLOCK, &now) != 0 || now.rlim_cur >= l.rlim_cur || setrlimit(RLIMIT_MEMLOCK, &l) == 0)
		return;
	/* Without CAP_SYS_RESOURCE: as far as it goes. The broker tells when that is not enough. */
	now.rlim_cur = now.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &now);
}

/* In the child: the two sockets in their places, nothing else, and the program anew. */
static void become_broker(const struct supervisor *s, int control, int device)
{
	char *argv[] = {(char[]){BROKER_NAME}, (char[]){"--broker"}, NULL};
	int c = fcntl(control, F_DUPFD, 10), d = fcntl(device, F_DUPFD, 10);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	raise_memlock();
	if (c < 0 || d < 0 || dup2(c, CONTROL_FD) < 0 || dup2(d, DEVICE_FD) < 0)
		_exit(127);
	/* Nothing else that whoever started us left open. */
	if (syscall(SYS_close_range, DEVICE_FD + 1, ~0u, CLOSE_RANGE_CLOEXEC) != 0) {
		close(c);
		close(d);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(SYS_execveat, s->exe_fd, "", argv, environ, AT_EMPTY_PATH);
	_exit(127);
}

static int send_setup(struct supervisor *s, uint8_t type)
{
	struct files *f = &s->files;
	struct setup setup = {
		.config = {(const uint8_t *)f->config_text, f->config_len},
		.policy = {(const uint8_t *)f->policy_text, f->policy_len},
		.broker_uid = f->broker_uid,
		.broker_gid = f->broker_gid,
		.supervisor_pid = (uint32_t)getpid(),
		.plugin_dir = csm_str_of(f->plugin_dir),
		.device = csm_str_of(s->device),
		.owner_auth = {f->owner_auth, f->owner_auth_len},
		.root_secret = {f->root_secret, f->root_secret_len},
		.reload_seq = s->reload_seq,
		.policy_error = csm_str_of(f->policy_error),
		.names = f->names,
		.n_names = f->n_names,
	};
	int fd, r;

	for (size_t i = 0; i < CSM_PLUGHOSTS_MAX; i++) {
		setup.pins[i] = (struct csm_bin){f->plughosts[i].pin, f->plughosts[i].pin_len};
		setup.pin_marks[i] = f->plughosts[i].pin_mark;
	}
	for (size_t i = 0; i < CSM_ENROL_PROFILES_MAX; i++) {
		setup.enrol_tokens[i] = (struct csm_bin){f->enrol[i].token, f->enrol[i].token_len};
		setup.enrol_anchors[i] = (struct csm_bin){(const uint8_t *)f->enrol[i].anchors, f->enrol[i].anchors_len};
	}
	if ((r = setup_to_memfd(&setup, &fd)) != 0)
		return r;
	r = control_send(s->control, type, NULL, 0, fd);
	close(fd);
	return r;
}

static int hand_over(struct supervisor *s)
{
	int r = send_setup(s, CTL_SETUP);

	for (size_t i = 0; r == 0 && i < SOCKETS_MAX; i++) {
		uint8_t role = (uint8_t)s->sockets.role[i];

		r = control_send(s->control, CTL_LISTENER, &role, 1, s->sockets.fd[i]);
	}
	return r != 0 ? r : control_send(s->control, CTL_START, NULL, 0, -1);
}

static void close_pair(int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

static void start_broker(struct supervisor *s)
{
	int control[2], device[2];

	s->again_ms = -1;
	s->born_ms = now_ms();
	s->reload_seq = 0;
	s->ready = false;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0)
		goto later;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, device) != 0) {
		close_pair(control);
		goto later;
	}
	s->broker = fork();
	if (s->broker == 0)
		become_broker(s, control[1], device[1]);
	close(control[1]);
	close(device[1]);
	if (s->broker < 0) {
		s->broker = 0;
		close(control[0]);
		close(device[0]);
		goto later;
	}
	s->control = control[0];
	s->device_sock = device[0];
	if (hand_over(s) != 0)
		log_warn("the broker took nothing over");
	return;
later:
	log_err("the broker could not be started: %s", strerror(errno));
	s->again_ms = now_ms() + DELAY_MAX_MS;
}

/* At once the first time, then after 100 ms doubling to 2 s; back to the start after 5 s of life. */
static void plan_restart(struct supervisor *s)
{
	if (now_ms() - s->born_ms >= LIFE_GOOD_MS)
		s->delay_ms = 0;
	s->again_ms = now_ms() + s->delay_ms;
	s->delay_ms = s->delay_ms == 0 ? DELAY_FIRST_MS : s->delay_ms * 2 > DELAY_MAX_MS ? DELAY_MAX_MS : s->delay_ms * 2;
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (helper_reap(&s->ident, pid, status, s->stopping, now_ms()) ||
			helper_reap(&s->enrol, pid, status, s->stopping, now_ms()) ||
			helper_reap(&s->deliver, pid, status, s->stopping, now_ms()) ||
			plughosts_reap(&s->plughosts, pid, status, s->stopping, now_ms()) || pid != s->broker)
			continue;
		if (!s->stopping && WIFSIGNALED(status))
			log_err("the broker was ended by signal %d", WTERMSIG(status));
		else if (!s->stopping)
			log_err("the broker ended with status %d", WEXITSTATUS(status));
		s->broker = 0;
		/* Their channels are gone with it, and one that sits in its library would not see that. */
		plughosts_kill(&s->plughosts);
		helper_kill(&s->enrol);
		close(s->control);
		close(s->device_sock);
		s->control = s->device_sock = -1;
		if (!s->stopping)
			plan_restart(s);
	}
}

/* ---- what happens ---- */

/* As root that we are: what it reads says whose folders and hooks there are. */
static void start_deliver(struct supervisor *s)
{
	static char name[] = "csm-deliver", opt_config[] = "--config", opt_level[] = "--log-level",
		    opt_required[] = "--sandbox-required";
	const struct csm_config *cfg = &s->files.cfg;
	char *argv[] = {name, opt_config, cfg->deliver, opt_level, cfg->log_level, cfg->require_sandbox ? opt_required : NULL, NULL};
	char *envp[] = {NULL};
	const struct helper_start how = {
		.control = s->control, .argv = argv, .envp = envp, .sockets = 1, .plughost = -1, .now_ms = now_ms()};

	helper_start_as(&s->deliver, &how);
}

static void start_helpers(struct supervisor *s)
{
	if (s->ident.again_ms >= 0 && now_ms() >= s->ident.again_ms)
		helper_start(&s->ident, s->control, &s->files.cfg, s->files.ident_uid, s->files.ident_gid, now_ms());
	if (s->deliver.again_ms >= 0 && now_ms() >= s->deliver.again_ms)
		start_deliver(s);
	if (s->enrol.again_ms >= 0 && now_ms() >= s->enrol.again_ms)
		helper_start(&s->enrol, s->control, &s->files.cfg, s->files.enrol_uid, s->files.enrol_gid, now_ms());
	plughosts_start(&s->plughosts, s->control, &s->files, now_ms());
}

/* csm-enrol: where csmd.yaml has profiles, and there is a user for it. */
static void find_enrol(struct supervisor *s)
{
	const char *server = getenv("CSM_SERVER");
	bool user = geteuid() != 0 || s->files.enrol_uid != (uid_t)-1;

	helper_find(&s->enrol, "csm-enrol", CSM_R_ENROL);
	s->enrol.sockets = CSM_ENROL_CHANNELS;
	if (server != NULL && strlen(server) <= CSM_ENROL_URL_MAX) {
		snprintf(s->enrol_env, sizeof(s->enrol_env), "CSM_SERVER=%s", server);
		s->enrol.env = s->enrol_env;
	}
	helper_want(&s->enrol, s->files.cfg.n_enrol > 0 && user, now_ms());
}

/* In a process of its own: a file may be on a file system whose server does not answer. */
static void warn_of_files(struct supervisor *s)
{
	pid_t pid = s->files.needs_ident ? fork() : -1;

	if (pid != 0)
		return; /* its end is told with the others' */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
	alarm(WARN_S);
	files_warn(&s->files);
	_exit(0);
}

/* Before the broker has the policy that needs them. */
static void look_at_helpers(struct supervisor *s)
{
	bool user = geteuid() != 0 || s->files.ident_uid != (uid_t)-1;

	files_look_at_policy(&s->files);
	warn_of_files(s);
	if (s->files.needs_ident && !user)
		log_err("users: ident: there is no user %s: rules that name an executable match nobody", s->files.cfg.user_ident);
	helper_want(&s->ident, s->files.needs_ident && user, now_ms());
	helper_want(&s->deliver, s->files.cfg.deliver != NULL && access(s->files.cfg.deliver, F_OK) == 0, now_ms());
	start_helpers(s);
}

static void reload(struct supervisor *s)
{
	csm_notify_systemd("RELOADING=1");
	if (s->deliver.pid > 0)
		kill(s->deliver.pid, SIGHUP);
	/* Of a file that cannot be read the broker is told why; it keeps what it has, and answers who asked. */
	if (files_reread_policy(&s->files) != 0)
		log_err("the policy stays as it was");
	else
		look_at_helpers(s);
	if (s->control >= 0 && send_setup(s, CTL_RELOAD) != 0)
		log_warn("the broker did not take the policy");
}

static void begin_stop(struct supervisor *s)
{
	if (s->stopping)
		return;
	s->stopping = true;
	s->kill_ms = now_ms() + STOP_WAIT_MS;
	csm_notify_systemd("STOPPING=1");
	if (s->control >= 0 && control_send(s->control, CTL_STOP, NULL, 0, -1) != 0)
		log_warn("the broker does not listen");
}

static void on_signal(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			reload(s);
		else if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			begin_stop(s);
	}
	reap(s);
}

static void on_control(struct supervisor *s)
{
	struct control_msg msg;

	if (control_recv(s->control, &msg) != 0)
		return; /* the end is told by SIGCHLD */
	if (msg.fd >= 0)
		close(msg.fd);
	switch (msg.type) {
	case CTL_READY:
		s->ready = true;
		log_info("serving");
		csm_notify_systemd("READY=1");
		break;
	case CTL_WANT_RELOAD:
		if (msg.len == sizeof(s->reload_seq))
			memcpy(&s->reload_seq, msg.body, sizeof(s->reload_seq));
		reload(s);
		break;
	case CTL_PLUG_RESET:
		if (msg.len == sizeof(struct plug_channel)) {
			struct plug_channel which;

			memcpy(&which, msg.body, sizeof(which));
			plughosts_reset(&s->plughosts, &which);
		}
		break;
	case CTL_RELOADED:
		csm_notify_systemd("READY=1");
		break;
	default:
		break;
	}
}

static void on_device(struct supervisor *s)
{
	struct control_msg msg;
	uint8_t e;
	int fd;

	if (control_recv(s->device_sock, &msg) != 0)
		return;
	if (msg.fd >= 0)
		close(msg.fd);
	if (msg.type == CTL_POLICY_KEY || msg.type == CTL_POLICY_FILE)
		fd = policy_file_open(&s->files.cfg, msg.type == CTL_POLICY_KEY);
	else
		fd = device_open(s->device);
	e = (uint8_t)(fd < 0 && errno < 256 ? errno : 0);
	if (control_send(s->device_sock, msg.type, &e, 1, fd) != 0)
		log_warn("the broker did not take the TPM's descriptor");
	if (fd >= 0)
		close(fd);
}

static int wait_ms(const struct supervisor *s)
{
	int64_t until = s->stopping ? s->kill_ms : s->again_ms, helper = s->stopping ? -1 : s->ident.again_ms, left;
	int64_t others[] = {s->stopping ? -1 : plughosts_next(&s->plughosts), s->stopping ? -1 : s->enrol.again_ms,
		s->stopping ? -1 : s->deliver.again_ms};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (helper < 0 || (others[i] >= 0 && others[i] < helper))
			helper = others[i];
	if (until < 0 || (helper >= 0 && helper < until))
		until = helper;
	if (until < 0)
		return -1;
	left = until - now_ms();
	return left < 0 ? 0 : (int)left;
}

static void serve(struct supervisor *s)
{
	while (!s->stopping || s->broker > 0 || s->ident.pid > 0 || s->enrol.pid > 0 || s->deliver.pid > 0 ||
		plughosts_run(&s->plughosts)) {
		struct pollfd p[3] = {{.fd = s->signal_fd, .events = POLLIN}, {.fd = s->control, .events = POLLIN},
			{.fd = s->device_sock, .events = POLLIN}};
		int control = s->control, device = s->device_sock;

		if (poll(p, 3, wait_ms(s)) < 0 && errno != EINTR)
			break;
		if (p[2].revents & POLLIN)
			on_device(s);
		if (p[1].revents & POLLIN)
			on_control(s);
		if (p[0].revents & POLLIN)
			on_signal(s);
		else if ((control >= 0 && (p[1].revents & POLLHUP)) || (device >= 0 && (p[2].revents & POLLHUP)))
			usleep(1000); /* its end is about to be told */
		if (s->stopping && s->broker > 0 && now_ms() >= s->kill_ms)
			kill(s->broker, SIGKILL);
		if (s->stopping && now_ms() >= s->kill_ms) {
			helper_kill(&s->ident);
			helper_kill(&s->enrol);
			helper_kill(&s->deliver);
			plughosts_kill(&s->plughosts);
		}
		if (!s->stopping && s->again_ms >= 0 && now_ms() >= s->again_ms)
			start_broker(s);
		if (!s->stopping)
			start_helpers(s);
	}
}

int supervisor_main(const struct supervisor_options *opt)
{
	static struct supervisor s;

	s.control = s.device_sock = -1;
	s.again_ms = -1;
	if (sodium_init() < 0)
		return 1;
	if (files_read(opt, &s.files) != 0)
		return 1;
	csm_log_level(csm_log_parse_level(s.files.cfg.log_level));
	if (geteuid() != 0)
		log_warn("started by an ordinary user: privileges are not dropped");
	if (set_up_process(&s) != 0) {
		log_err("the process could not be set up: %s", strerror(errno));
		return 1;
	}
	if (make_state_dir(&s.files) != 0 || sockets_open(&s.files.cfg, &s.sockets) != 0)
		return 1;
	device_name(&s.files.cfg, s.device, sizeof(s.device));
	helper_find(&s.ident, "csm-ident", CSM_R_IDENT);
	helper_find(&s.deliver, "csm-deliver", CSM_R_DELIVER);
	find_enrol(&s);
	plughosts_find(&s.plughosts, &s.files, now_ms());
	start_broker(&s);
	look_at_helpers(&s);
	serve(&s);
	sockets_close(&s.sockets);
	files_clear(&s.files);
	return 0;
}

int supervisor_check(const struct supervisor_options *opt)
{
	struct supervisor_options look = {.config = opt->config, .check = true};
	struct files f;

	if (sodium_init() < 0 || files_read(&look, &f) != 0)
		return 1;
	files_warn(&f);
	files_clear(&f);
	return 0;
}
