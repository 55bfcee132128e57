/* Command lines of the daemons and of the helpers that csmd starts. */
#ifndef CSM_SVC_OPTIONS_H
#define CSM_SVC_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes the text of an option; false: it is none that may be given. */
typedef bool csm_option_fn(const char *text, void *to);

struct csm_option {
	const char *name;    /* without the hyphens */
	char letter;         /* 0: none */
	csm_option_fn *take; /* NULL: the option has no text, and *(bool *)to becomes true */
	void *to;
};
struct csm_program {
	const char *name, *usage;
	const struct csm_option *options; /* beside --help and --version, which every program has */
	size_t n;
};

/* Nothing but options may be there. False: the program ends with *status; the text that was asked for is printed, or what
 * is right was said. */
bool csm_options_read(const struct csm_program *p, int argc, char **argv, int *status);
/* The usage to stderr; returns the status of a call that is wrong. */
int csm_options_refuse(const struct csm_program *p);

/* Kinds of options. */
bool csm_option_text(const char *text, void *to);   /* const char **, borrowed */
bool csm_option_number(const char *text, void *to); /* uint32_t *: decimal digits */
bool csm_option_level(const char *text, void *to);  /* of the log, at once */

/* Are the n descriptors from `first` on sockets, as csmd hands them over? */
bool csm_options_sockets(int first, unsigned n);

#endif
