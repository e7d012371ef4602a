/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A machine that runs by itself, without a recording: forward only, stopped where a debugger wants it. Under the hooks
 * here is a recorder that writes nothing, so what time and interrupts do is what they do under `hindsight run`.
 */
#ifndef DEBUGGER_LIVE_H
#define DEBUGGER_LIVE_H

#include "debugger/timeline.h"
#include "replay/recorder.h"

struct live_options {
	struct recorder_options recorder;
	/* Asked several times a second: true ends a run where it is. May be NULL. */
	bool (*interrupt)(void *ctx);
	void *interrupt_ctx;
};

struct live;

/* The machine stays the caller's. Until live_close its hooks are ours; then they are again what they were. */
int live_open(struct live **l, struct machine *m, const struct live_options *o, struct err *err);
void live_close(struct live *l);

/*
 * Both return 0 with why in *stop, TIMELINE_END when the guest's run is over (machine.end says how); -EINTR: stopped on
 * request. A step into code that cannot be stepped ends where the guest is back in its kernel.
 */
int live_step(struct live *l, struct timeline_stop *stop, struct err *err);
int live_continue(struct live *l, const struct timeline_stops *stops, struct timeline_stop *stop, struct err *err);

#endif
