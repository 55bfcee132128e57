/* sd_notify(3) without its library and what that loads: "READY=1". Nothing where there is no systemd. */
#ifndef CSM_SVC_NOTIFY_H
#define CSM_SVC_NOTIFY_H

void csm_notify_systemd(const char *state);

#endif
