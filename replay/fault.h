/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef REPLAY_FAULT_H
#define REPLAY_FAULT_H

#include "replay/replayer.h"

/* Behind each boundary, and at each landmark before it is compared: make the replay wrong if it is to be wrong here.
 * -EAGAIN: FAULT_LATE. */
int fault_inject(struct replay_fault *fault, struct machine *m, bool at_landmark, struct err *err);

#endif
