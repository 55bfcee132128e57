#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sodium.h>
#include <sys/socket.h>
#include "daemon/plughost/serve.h"
#include "daemon/svc/log.h"

#define CLOSE_WAIT_S 3u

struct serving {
	struct server *s;
	struct csm_channel *c;
};

static int say_hello(struct server *s, struct csm_channel *c, struct csm_bin instance)
{
	struct csm_msg_plug_hello m = {.abi = {s->plugin->abi, true}, .plugin = csm_str_of(s->plugin->name),
		.flags = {s->plugin->flags, true}, .instance = instance};
	int r = csm_channel_put(c, CSM_PLUG_HELLO, &m, NULL);

	return r != 0 ? r : csm_channel_send(c, 0, -1);
}

static void count(struct server *s, int more)
{
	pthread_mutex_lock(&s->lock);
	s->working += (unsigned)more;
	if (s->working == 0)
		pthread_cond_broadcast(&s->free_now);
	pthread_mutex_unlock(&s->lock);
}

/* One request after the other: read, do, answer. */
static int serve_channel(struct server *s, struct csm_channel *c)
{
	struct csm_frame f;
	int r;

	hostcall_serving(c);
	while ((r = csm_channel_recv(c, 0, &f, NULL)) == 0) {
		count(s, 1);
		r = calls_answer(s, c, &f);
		count(s, -1);
		if (r != 0 || (r = csm_channel_send(c, 0, -1)) != 0)
			break;
	}
	return r;
}

static void *serve_more(void *arg)
{
	struct serving v = *(struct serving *)arg;

	free(arg);
	/* Its end is that of all: the first channel sees it too. */
	(void)serve_channel(v.s, v.c);
	return NULL;
}

static int start_threads(struct server *s)
{
	for (size_t i = 1; i < CSM_PLUG_CHANNELS; i++) {
		struct serving *v = malloc(sizeof(*v));
		pthread_t t;

		if (v == NULL)
			return CSM_ENOMEM;
		*v = (struct serving){s, &s->channel[i]};
		if (pthread_create(&t, NULL, serve_more, v) != 0) {
			free(v);
			return CSM_ESYSTEM;
		}
		pthread_detach(t);
	}
	return 0;
}

/* Leave the device in order, if all calls end soon. */
static void close_plugin(struct server *s)
{
	struct held h;

	/* Their threads end with them. */
	for (size_t i = 1; i < CSM_PLUG_CHANNELS; i++)
		shutdown(s->channel[i].fd, SHUT_RDWR);
	alarm(CLOSE_WAIT_S);
	pthread_mutex_lock(&s->lock);
	while (s->working > 0)
		pthread_cond_wait(&s->free_now, &s->lock);
	pthread_mutex_unlock(&s->lock);
	hostcall_serving(NULL);
	if (s->ctx == NULL)
		return;
	while (held_next(s, &h)) {
		if (h.op != NULL)
			s->plugin->sign_cleanup(s->ctx, h.op);
		s->plugin->unload(s->ctx, h.key);
	}
	s->plugin->close(s->ctx);
}

int plughost_serve(struct server *s)
{
	uint8_t instance[16];
	int r = 0;

	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->free_now, NULL);
	hostcall_init(s);
	if ((r = held_init(s)) != 0)
		return r;
	randombytes_buf(instance, sizeof(instance));
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++)
		csm_channel_init(&s->channel[i], PLUGHOST_FD + (int)i);
	for (size_t i = 0; i < CSM_PLUG_CHANNELS && r == 0; i++)
		r = say_hello(s, &s->channel[i], (struct csm_bin){instance, sizeof(instance)});
	if (r == 0 && !(s->plugin->flags & CSM_PLUGIN_SERIAL))
		r = start_threads(s);
	/* With one owner's thread only the first channel is served: the broker asks on no other. */
	if (r == 0)
		r = serve_channel(s, &s->channel[0]);
	close_plugin(s);
	return r == CSM_ECLOSED ? 0 : r;
}
