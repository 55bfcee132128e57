/* What the supervisor reads as root: configuration, policy, names, secrets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <ftw.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/supervisor.h"
#include "daemon/svc/log.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static char dir[64], config[96];
static struct files f;
static const struct supervisor_options opt = {.config = config};

static const char *in_dir(const char *name)
{
	static char path[4][128];
	static unsigned turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void put(const char *name, const char *text, mode_t mode)
{
	const char *path = in_dir(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

/* A configuration over this folder. %s in more is the folder. */
static void configure(const char *more)
{
	char text[2048], lines[1024] = "";
	const char *at;
	size_t n = 0;

	for (at = more; *at != '\0' && n < sizeof(lines) - 128; at++)
		if (*at == '@' && at[1] == '/')
			n += (size_t)snprintf(lines + n, sizeof(lines) - n, "%s", dir);
		else
			lines[n++] = *at;
	lines[n] = '\0';
	snprintf(text, sizeof(text), "state_dir: %s/state\nsocket: %s/s\nadmin_socket: %s/a\nplugin_dir: %s\n%s", dir, dir, dir,
		dir, lines);
	put("csmd.yaml", text, 0644);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/csm-files-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(config, sizeof(config), "%s/csmd.yaml", dir);
	memset(&f, 0, sizeof(f));
	unsetenv("CREDENTIALS_DIRECTORY");
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	files_clear(&f);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Reads anew; what was read before is cleared. */
static int again(void)
{
	files_clear(&f);
	return files_read(&opt, &f);
}

static bool has_name(bool group, const char *name, uint32_t *id)
{
	for (size_t i = 0; i < f.n_names; i++)
		if (f.names[i].group == group && csm_str_eq(f.names[i].name, name)) {
			*id = f.names[i].id;
			return true;
		}
	return false;
}

#define TPM "root_key: tpm\npolicy: \"\"\nusers: {broker: 59001}\n"

static void the_configuration(void **state)
{
	(void)state;
	assert_int_equal(again(), CSM_ENOT_FOUND);
	configure(TPM);
	assert_int_equal(again(), 0);
	assert_int_equal(f.broker_uid, geteuid() == 0 ? 59001 : (uid_t)-1);
	assert_int_equal(f.broker_gid, geteuid() == 0 ? 59001 : (gid_t)-1);
	assert_string_equal(f.plugin_dir, dir);
	assert_null(f.policy_text);
	assert_null(f.root_secret);
	assert_null(f.owner_auth);
	put("csmd.yaml", "colour: red\n", 0644);
	assert_int_equal(again(), CSM_EINVALID);
	put("csmd.yaml", "", 0644);
	assert_int_equal(again(), CSM_EINVALID);
	assert_int_equal(supervisor_check(&opt), 1);
	configure(TPM);
	assert_int_equal(supervisor_check(&opt), 0);
	/* Above its bound. */
	char *big = malloc(CSM_CONFIG_MAX + 2);
	memset(big, '#', CSM_CONFIG_MAX + 1);
	big[CSM_CONFIG_MAX + 1] = '\0';
	put("csmd.yaml", big, 0644);
	assert_int_equal(again(), CSM_ETOO_LARGE);
	free(big);
	unlink(config);
	assert_int_equal(mkdir(config, 0755), 0);
	assert_int_equal(again(), CSM_ESYSTEM);
}

static void the_brokers_user(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	configure("root_key: tpm\npolicy: \"\"\nusers: {broker: nobody}\n");
	assert_int_equal(again(), 0);
	assert_int_equal(f.broker_uid, 65534);
	configure("root_key: tpm\npolicy: \"\"\nusers: {broker: no-such-user}\n");
	assert_int_equal(again(), CSM_EINVALID);
	configure("root_key: tpm\npolicy: \"\"\nusers: {broker: root}\n");
	assert_int_equal(again(), CSM_EINVALID);
	configure("root_key: tpm\npolicy: \"\"\nusers: {broker: 0}\n");
	assert_int_equal(again(), CSM_EINVALID);
	configure("root_key: tpm\npolicy: \"\"\nusers: {broker: 59001x}\n");
	assert_int_equal(again(), CSM_EINVALID);
}

static const char policy[] =
	"version: 1\n"
	"identities:\n"
	"  a: {user: root}\n"
	"  b: {user: nobody, group: daemon}\n"
	"  c: {group: root}\n"
	"  d: {user: no-such-user, group: no-such-group}\n"
	"  e: {uid: 4711}\n";

static void names_become_numbers(void **state)
{
	uint32_t id = 99;

	(void)state;
	put("policy.yaml", policy, 0644);
	configure("root_key: tpm\npolicy: @/policy.yaml\nusers: {broker: 59001}\n");
	assert_int_equal(again(), 0);
	assert_string_equal(f.policy_text, policy);
	assert_int_equal(f.policy_len, strlen(policy));
	assert_int_equal(f.n_names, 4);
	assert_true(has_name(false, "root", &id));
	assert_int_equal(id, 0);
	assert_true(has_name(false, "nobody", &id));
	assert_int_equal(id, 65534);
	assert_true(has_name(true, "daemon", &id));
	assert_int_equal(id, 1);
	assert_true(has_name(true, "root", &id));
	assert_false(has_name(false, "daemon", &id));
	assert_false(has_name(false, "no-such-user", &id));
	assert_false(has_name(true, "no-such-group", &id));
}

static void a_policy_that_is_missing_or_wrong(void **state)
{
	(void)state;
	configure("root_key: tpm\npolicy: @/policy.yaml\nusers: {broker: 59001}\n");
	assert_int_equal(again(), CSM_ENOT_FOUND);
	put("policy.yaml", "version: 1\nrules: 7\n", 0644);
	assert_int_equal(again(), CSM_EINVALID);
	put("policy.yaml", "", 0644);
	assert_int_equal(again(), CSM_EINVALID);
}

static void a_policy_that_changes(void **state)
{
	uint32_t id;

	(void)state;
	put("policy.yaml", policy, 0644);
	configure("root_key: tpm\npolicy: @/policy.yaml\nusers: {broker: 59001}\n");
	assert_int_equal(again(), 0);
	put("policy.yaml", "version: 1\nidentities: {x: {user: daemon}}\n", 0644);
	assert_int_equal(files_reread_policy(&f), 0);
	assert_int_equal(f.n_names, 1);
	assert_true(has_name(false, "daemon", &id));
	/* What does not parse is handed on for the broker to refuse. */
	put("policy.yaml", "version: [", 0644);
	assert_int_equal(files_reread_policy(&f), 0);
	assert_string_equal(f.policy_text, "version: [");
	assert_int_equal(f.n_names, 0);
	/* What cannot be read leaves what was there, and is told. */
	assert_int_equal(unlink(in_dir("policy.yaml")), 0);
	assert_int_equal(files_reread_policy(&f), CSM_ENOT_FOUND);
	assert_string_equal(f.policy_text, "version: [");
	assert_non_null(strstr(f.policy_error, "No such file"));
	put("policy.yaml", policy, 0644);
	assert_int_equal(files_reread_policy(&f), 0);
	assert_string_equal(f.policy_error, "");
	assert_int_equal(f.n_names, 4);
}

/* ---- secrets ---- */

#define ROOT_FILE "root_key: file\nroot_key_file: @/root.key\nroot_key_unprotected: true\npolicy: \"\"\nusers: {broker: 59001}\n"

static void the_root_key_is_made_once(void **state)
{
	uint8_t key[32];
	struct stat st;

	(void)state;
	configure(ROOT_FILE);
	/* Looking makes nothing. */
	assert_int_equal(supervisor_check(&opt), 0);
	assert_int_equal(access(in_dir("root.key"), F_OK), -1);
	assert_int_equal(again(), 0);
	assert_int_equal(stat(in_dir("root.key"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, 32);
	assert_int_equal(f.root_secret_len, 32);
	assert_false(sodium_is_zero(f.root_secret, 32));
	memcpy(key, f.root_secret, 32);
	assert_int_equal(again(), 0);
	assert_memory_equal(f.root_secret, key, 32);
	assert_int_equal(access(in_dir("root.key.new"), F_OK), -1);
	/* What an interrupted start left behind is no key. */
	put("root.key.new", "half", 0600);
	assert_int_equal(unlink(in_dir("root.key")), 0);
	assert_int_equal(again(), 0);
	assert_int_equal(f.root_secret_len, 32);
	assert_memory_not_equal(f.root_secret, key, 32);
}

/* A store whose key is lost gets no new one. */
static void no_new_key_for_an_old_store(void **state)
{
	(void)state;
	configure(ROOT_FILE);
	assert_int_equal(mkdir(in_dir("state"), 0700), 0);
	assert_int_equal(mkdir(in_dir("state/store"), 0700), 0);
	put("state/store/data.mdb", "x", 0600);
	assert_int_equal(again(), CSM_ENOT_FOUND);
	assert_int_equal(supervisor_check(&opt), 1);
	assert_int_equal(access(in_dir("root.key"), F_OK), -1);
}

static void a_folder_that_is_not_there(void **state)
{
	(void)state;
	configure("root_key: file\nroot_key_file: @/none/root.key\nroot_key_unprotected: true\npolicy: \"\"\n"
		  "users: {broker: 59001}\n");
	assert_int_equal(again(), CSM_ESYSTEM);
}

static void a_secret_that_others_can_read(void **state)
{
	static const mode_t modes[] = {0604, 0640, 0660, 0602, 0644, 0677};

	(void)state;
	configure(ROOT_FILE);
	put("root.key", "0123456789abcdef0123456789abcdef", 0600);
	assert_int_equal(again(), 0);
	for (size_t i = 0; i < N_ELEMS(modes); i++) {
		assert_int_equal(chmod(in_dir("root.key"), modes[i]), 0);
		assert_int_equal(again(), CSM_EDENIED);
		assert_null(f.root_secret);
	}
	assert_int_equal(chmod(in_dir("root.key"), 0400), 0);
	assert_int_equal(again(), 0);
	if (geteuid() == 0) {
		/* Another user's file can be changed by it. */
		assert_int_equal(chown(in_dir("root.key"), 4711, 0), 0);
		assert_int_equal(again(), CSM_EDENIED);
	}
	/* Neither a pipe, which would make us wait, nor a folder. */
	unlink(in_dir("root.key"));
	assert_int_equal(mkfifo(in_dir("root.key"), 0600), 0);
	assert_int_equal(again(), CSM_EDENIED);
	unlink(in_dir("root.key"));
	assert_int_equal(mkdir(in_dir("root.key"), 0700), 0);
	assert_int_equal(again(), CSM_EDENIED);
	rmdir(in_dir("root.key"));
	/* Too much is no secret. */
	char *big = malloc(5000);
	memset(big, 'x', 4999);
	big[4999] = '\0';
	put("root.key", big, 0600);
	free(big);
	assert_int_equal(again(), CSM_ETOO_LARGE);
}

static void assert_root_secret(const char *p, size_t n)
{
	assert_int_equal(again(), 0);
	assert_int_equal(f.root_secret_len, n);
	assert_memory_equal(f.root_secret, p, n);
}

static void a_passphrase_has_no_newline(void **state)
{
	(void)state;
	configure("root_key: passphrase\nroot_key_file: @/pass\npolicy: \"\"\nusers: {broker: 59001}\n");
	assert_int_equal(again(), CSM_ENOT_FOUND);
	put("pass", "correct horse \r\n\n", 0600);
	assert_root_secret("correct horse ", 14);
	put("pass", "\n", 0600);
	assert_int_equal(again(), 0);
	assert_int_equal(f.root_secret_len, 0);
}

static void a_credential_comes_from_systemd(void **state)
{
	(void)state;
	configure("root_key: credential\nroot_key_file: other\npolicy: \"\"\nusers: {broker: 59001}\n");
	assert_int_equal(again(), CSM_EINVALID); /* there is no folder of credentials */
	setenv("CREDENTIALS_DIRECTORY", dir, 1);
	assert_int_equal(again(), CSM_ENOT_FOUND);
	put("other", "\x01\x02\n", 0400);
	/* Bytes, as they are. */
	assert_root_secret("\x01\x02\n", 3);
}

static void the_owners_authorisation(void **state)
{
	char long_one[66];

	(void)state;
	configure("root_key: tpm\npolicy: \"\"\nusers: {broker: 59001}\ntpm: {owner_auth: \"@@/owner\"}\n");
	assert_int_equal(again(), CSM_ENOT_FOUND);
	put("owner", "open sesame\n", 0600);
	assert_int_equal(again(), 0);
	assert_int_equal(f.owner_auth_len, 11);
	assert_memory_equal(f.owner_auth, "open sesame", 11);
	put("owner", "open sesame\n", 0644);
	assert_int_equal(again(), CSM_EDENIED);
	memset(long_one, 'x', 65);
	long_one[65] = '\0';
	put("owner", long_one, 0600);
	assert_int_equal(again(), CSM_EINVALID);
	long_one[64] = '\0';
	put("owner", long_one, 0600);
	assert_int_equal(again(), 0);
	assert_int_equal(f.owner_auth_len, 64);
	int fd = open(in_dir("owner"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, "a\0b", 3), 3);
	close(fd);
	assert_int_equal(again(), CSM_EINVALID);
}

static void where_the_back_ends_are(void **state)
{
	char text[256];

	(void)state;
	configure(TPM);
	snprintf(text, sizeof(text), "root_key: tpm\npolicy: \"\"\nusers: {broker: 59001}\nplugin_dir: %s/none\n", dir);
	put("csmd.yaml", text, 0644);
	assert_int_equal(again(), CSM_ENOT_FOUND);
	/* Without a setting: beside the program, and a test has none there. */
	put("csmd.yaml", TPM, 0644);
	assert_int_equal(again(), CSM_ENOT_FOUND);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_configuration),
		TEST(the_brokers_user),
		TEST(names_become_numbers),
		TEST(a_policy_that_is_missing_or_wrong),
		TEST(a_policy_that_changes),
		TEST(the_root_key_is_made_once),
		TEST(no_new_key_for_an_old_store),
		TEST(a_folder_that_is_not_there),
		TEST(a_secret_that_others_can_read),
		TEST(a_passphrase_has_no_newline),
		TEST(a_credential_comes_from_systemd),
		TEST(the_owners_authorisation),
		TEST(where_the_back_ends_are),
	};

	alarm(60);
	csm_log_level(LOG_EMERG);
	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
