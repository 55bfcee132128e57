/* A host for the PKCS#11 back end in unit tests: its configuration is a variable. */
#ifndef TESTS_LIB_P11HOST_H
#define TESTS_LIB_P11HOST_H

#include "plugins/include/csm_plugin.h"

struct p11host_conf {
	const char *uri, *pin, *sessions, *algs, *module;
	bool refused; /* over restarts */
	uint8_t record[64];
	size_t record_len;
	unsigned asked;
};
extern struct p11host_conf p11host_conf;
extern const struct csm_plugin_host p11host;

#endif
