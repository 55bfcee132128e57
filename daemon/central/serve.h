/* csm-server at work. */
#ifndef CSM_CENTRAL_SERVE_H
#define CSM_CENTRAL_SERVE_H

/* Until SIGTERM. An exit status. */
int central_serve(const char *config);
/* Read the file, say what is wrong. An exit status. */
int central_serve_check(const char *config);

#endif
