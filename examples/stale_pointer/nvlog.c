// SPDX-License-Identifier: GPL-3.0-or-later
#include "nvlog.h"

#include "guest.h"

#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71
#define CMOS_LOG_HEAD 0x40
#define CMOS_LOG 0x41
#define CMOS_LOG_SIZE 63

#define STALL_TICKS 200

enum request_state { REQUEST_NEW, REQUEST_BUSY, REQUEST_DONE };

struct request {
	uint64_t seen;	  /* tick at which the watchdog last looked at it */
	uint64_t started; /* tick */
	uint32_t state;
	uint32_t len;
	uint8_t data[NVLOG_RECORD_MAX];
};

/*
 * current is set by the writer only, watched by the watchdog only, and both are single stores, so
 * neither side needs to keep interrupts off during the slow port accesses. A request belongs to the
 * writer until the watchdog looks at it, then to the watchdog.
 */
static struct {
	struct request *current;
	struct request *watched;
	uint64_t records;
	uint64_t stalls;
	uint64_t watchdog_ticks;
	uint8_t head;
} nvlog;

static void cmos_write(uint8_t index, uint8_t value)
{
	outb(CMOS_INDEX, index);
	outb(CMOS_DATA, value);
}

static struct request *request_begin(const void *record, size_t len)
{
	struct request *req = kzalloc(sizeof(*req));

	if (!req)
		panic("nvlog: out of memory");
	req->started = timer_ticks;
	req->len = (uint32_t)(len < NVLOG_RECORD_MAX ? len : NVLOG_RECORD_MAX);
	memcpy(req->data, record, req->len);
	req->state = REQUEST_BUSY;
	nvlog.current = req;
	return req;
}

static void request_finish(struct request *req)
{
	bool watched = nvlog.watched == req;

	req->state = REQUEST_DONE;
	/* The record counts from here on: a reader after a crash starts from the head. */
	cmos_write(CMOS_LOG_HEAD, nvlog.head);
	nvlog.current = NULL;
	nvlog.records++;
	/* What the watchdog looks at, it frees itself. */
	if (!watched)
		kfree(req);
}

void nvlog_write(const void *record, size_t len)
{
	struct request *req = request_begin(record, len);

	for (uint32_t i = 0; i < req->len; i++) {
		cmos_write(CMOS_LOG + nvlog.head, req->data[i]);
		nvlog.head = (uint8_t)((nvlog.head + 1) % CMOS_LOG_SIZE);
	}
	request_finish(req);
}

void nvlog_tick(void)
{
	struct request *req = nvlog.watched;

	if (!nvlog.watchdog_ticks || timer_ticks % nvlog.watchdog_ticks)
		return;
	if (req) {
		req->seen = timer_ticks;
		if (req->state == REQUEST_DONE) {
			nvlog.watched = NULL;
			kfree(req);
		} else if (req->started + STALL_TICKS < timer_ticks) {
			nvlog.stalls++;
		}
	}
	if (!nvlog.watched)
		nvlog.watched = nvlog.current;
}

void nvlog_init(uint64_t watchdog_ticks)
{
	nvlog.watchdog_ticks = watchdog_ticks;
	cmos_write(CMOS_LOG_HEAD, 0);
}

uint64_t nvlog_records(void)
{
	return nvlog.records;
}
