// SPDX-License-Identifier: GPL-3.0-or-later
/* Each packet becomes its request; malformed ones are refused, strange ones unknown. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gdbstub/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX UINT64_MAX

/* What a packet is parsed to; fields that a request does not use are zero. data is text with its
 * NUL left out. */
struct expected {
	const char *packet;
	enum gdb_request_type type;
	uint64_t addr, len;
	unsigned number;
	int thread;
	const char *data;
};

static const struct expected plain[] = {
	{"?", GDB_STOP_REASON, 0, 0, 0, 0, ""},
	{"!", GDB_EXTENDED_MODE, 0, 0, 0, 0, ""},
	{"g", GDB_READ_REGISTERS, 0, 0, 0, 0, ""},
	{"G6162", GDB_WRITE_REGISTERS, 0, 0, 0, 0, "ab"},
	{"p10", GDB_READ_REGISTER, 0, 0, 0x10, 0, ""},
	{"P1F=6a6B", GDB_WRITE_REGISTER, 0, 0, 0x1f, 0, "jk"},
	{"mffffffff81000000,40", GDB_READ_MEMORY, 0xffffffff81000000, 0x40, 0, 0, ""},
	{"m0,ffffffffffffffff", GDB_READ_MEMORY, 0, MAX, 0, 0, ""},
	{"x10,0", GDB_READ_BINARY, 0x10, 0, 0, 0, ""},
	{"M10,2:6869", GDB_WRITE_MEMORY, 0x10, 2, 0, 0, "hi"},
	{"X10,0:", GDB_WRITE_MEMORY, 0x10, 0, 0, 0, ""},
	{"X10,3:,:;", GDB_WRITE_MEMORY, 0x10, 3, 0, 0, ",:;"},
	{"qCRC:1000,20", GDB_CRC_MEMORY, 0x1000, 0x20, 0, 0, ""},
	{"qSearch:memory:1000;ff;a;b", GDB_SEARCH_MEMORY, 0x1000, 0xff, 0, 0, "a;b"},
	{"bs", GDB_REVERSE_STEP, 0, 0, 0, 0, ""},
	{"bc", GDB_REVERSE_CONTINUE, 0, 0, 0, 0, ""},
	{"vCont?", GDB_RESUME_KINDS, 0, 0, 0, 0, ""},
	{"Hg0", GDB_SELECT_THREAD, 0, 0, 'g', 0, ""},
	{"Hc-1", GDB_SELECT_THREAD, 0, 0, 'c', -1, ""},
	{"Hgp1.2", GDB_SELECT_THREAD, 0, 0, 'g', 2, ""},
	{"Hgp1.-1", GDB_SELECT_THREAD, 0, 0, 'g', -1, ""},
	{"Hgp1", GDB_SELECT_THREAD, 0, 0, 'g', -1, ""},
	{"T2", GDB_THREAD_ALIVE, 0, 0, 0, 2, ""},
	{"qC", GDB_CURRENT_THREAD, 0, 0, 0, 0, ""},
	{"qfThreadInfo", GDB_FIRST_THREADS, 0, 0, 0, 0, ""},
	{"qsThreadInfo", GDB_MORE_THREADS, 0, 0, 0, 0, ""},
	{"qThreadExtraInfo,1", GDB_THREAD_INFO, 0, 0, 0, 1, ""},
	{"qSupported", GDB_FEATURES, 0, 0, 0, 0, ""},
	{"qSupported:swbreak+;xmlRegisters=i386", GDB_FEATURES, 0, 0, 0, 0,
	 "swbreak+;xmlRegisters=i386"},
	{"QStartNoAckMode", GDB_NO_ACKS, 0, 0, 0, 0, ""},
	{"qXfer:features:read:target.xml:0,ffb", GDB_READ_OBJECT, 0, 0xffb, 0, 0, "target.xml"},
	{"qXfer:auxv:read::10,20", GDB_READ_OBJECT, 0x10, 0x20, 0, 0, ""},
	{"qRcmd,68656c70", GDB_MONITOR, 0, 0, 0, 0, "help"},
	{"qRcmd,", GDB_MONITOR, 0, 0, 0, 0, ""},
	{"qAttached", GDB_ATTACHED, 0, 0, 0, 0, ""},
	{"qAttached:1", GDB_ATTACHED, 0, 0, 0, 0, ""},
	{"vRun", GDB_RESTART, 0, 0, 1, 0, ""},
	{"vRun;", GDB_RESTART, 0, 0, 1, 0, ""},
	{"vRun;6b;343025;61", GDB_RESTART, 0, 0, 1, 0, "40% a"},
	{"R00", GDB_RESTART, 0, 0, 0, 0, ""},
	{"k", GDB_KILL, 0, 0, 0, 0, ""},
	{"vKill;1", GDB_KILL, 0, 0, 1, 0, ""},
	{"D", GDB_DETACH, 0, 0, 0, 0, ""},
	{"D;1", GDB_DETACH, 0, 0, 0, 0, ""},
	{"Qqemu.sstepbits", GDB_STEP_FLAGS_KNOWN, 0, 0, 0, 0, ""},
	{"qqemu.sstepbits", GDB_STEP_FLAGS_KNOWN, 0, 0, 0, 0, ""},
	{"qqemu.sstep", GDB_GET_STEP_FLAGS, 0, 0, 0, 0, ""},
	{"Qqemu.sstep=7", GDB_SET_STEP_FLAGS, 0, 0, 7, 0, ""},
	{"qqemu.PhyMemMode", GDB_GET_PHYSICAL, 0, 0, 0, 0, ""},
	{"Qqemu.PhyMemMode:1", GDB_SET_PHYSICAL, 0, 0, 1, 0, ""},
};

static int parse(struct gdb_request *r, const char *packet, struct err *err)
{
	return gdb_request_parse(r, (const uint8_t *)packet, strlen(packet), err);
}

static void test_plain(void **state)
{
	struct gdb_request r = {0};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		const struct expected *e = &plain[i];

		assert_int_equal(parse(&r, e->packet, &err), 0);
		assert_int_equal(r.type, e->type);
		assert_int_equal(r.addr, e->addr);
		assert_int_equal(r.len, e->len);
		assert_int_equal(r.number, e->number);
		assert_int_equal(r.thread, e->thread);
		assert_int_equal(r.data.len, strlen(e->data));
		if (r.data.len)
			assert_memory_equal(r.data.data, e->data, r.data.len);
	}
	buf_free(&r.data);
}

/* Resuming: kind and thread of each action. */
static const struct {
	const char *packet;
	bool selected, has_pc;
	uint64_t pc;
	unsigned n;
	struct gdb_action actions[3];
} resumes[] = {
	{"c", true, false, 0, 1, {{GDB_CONTINUE, -1, 0, 0}}},
	{"s1000", true, true, 0x1000, 1, {{GDB_STEP, -1, 0, 0}}},
	{"C05", true, false, 0, 1, {{GDB_CONTINUE, -1, 0, 0}}},
	{"S0b;1000", true, true, 0x1000, 1, {{GDB_STEP, -1, 0, 0}}},
	{"vCont;c", false, false, 0, 1, {{GDB_CONTINUE, -1, 0, 0}}},
	{"vCont;C0f:-1", false, false, 0, 1, {{GDB_CONTINUE, -1, 0, 0}}},
	{"vCont;s:1;c", false, false, 0, 2, {{GDB_STEP, 1, 0, 0}, {GDB_CONTINUE, -1, 0, 0}}},
	{"vCont;S05:2;t:3;c:p1.1",
	 false,
	 false,
	 0,
	 3,
	 {{GDB_STEP, 2, 0, 0}, {GDB_STAY, 3, 0, 0}, {GDB_CONTINUE, 1, 0, 0}}},
	{"vCont;r1000,1010:1;c:-1",
	 false,
	 false,
	 0,
	 2,
	 {{GDB_STEP_RANGE, 1, 0x1000, 0x1010}, {GDB_CONTINUE, -1, 0, 0}}},
};

static void test_resumes(void **state)
{
	struct gdb_request r = {0};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(resumes); i++) {
		assert_int_equal(parse(&r, resumes[i].packet, &err), 0);
		assert_int_equal(r.type, GDB_RESUME);
		assert_int_equal(r.selected, resumes[i].selected);
		assert_int_equal(r.has_pc, resumes[i].has_pc);
		assert_int_equal(r.addr, resumes[i].pc);
		assert_int_equal(r.n_actions, resumes[i].n);
		for (unsigned k = 0; k < r.n_actions; k++) {
			assert_int_equal(r.actions[k].kind, resumes[i].actions[k].kind);
			assert_int_equal(r.actions[k].thread, resumes[i].actions[k].thread);
			assert_int_equal(r.actions[k].start, resumes[i].actions[k].start);
			assert_int_equal(r.actions[k].end, resumes[i].actions[k].end);
		}
	}
	buf_free(&r.data);
}

static const struct {
	const char *packet;
	enum gdb_request_type type;
	enum gdb_point_type point;
	uint64_t addr, len;
	const char *conditions;
	size_t n;
} points[] = {
	{"Z0,1000,1", GDB_SET_POINT, GDB_POINT_SOFT, 0x1000, 1, "", 0},
	{"z0,1000,1", GDB_CLEAR_POINT, GDB_POINT_SOFT, 0x1000, 1, "", 0},
	{"Z1,ffffffff81000000,1", GDB_SET_POINT, GDB_POINT_HARD, 0xffffffff81000000, 1, "", 0},
	{"Z2,2000,1000", GDB_SET_POINT, GDB_POINT_WRITE, 0x2000, 0x1000, "", 0},
	{"Z3,2000,1", GDB_SET_POINT, GDB_POINT_READ, 0x2000, 1, "", 0},
	{"z4,ffffffffffffffff,1", GDB_CLEAR_POINT, GDB_POINT_ACCESS, MAX, 1, "", 0},
	{"Z4,ffffffffffffffff,1", GDB_SET_POINT, GDB_POINT_ACCESS, MAX, 1, "", 0},
	{"Z0,10,1;X3,220127", GDB_SET_POINT, GDB_POINT_SOFT, 0x10, 1, "\x03\0\0\0\x22\x01\x27", 7},
	{"Z0,10,1;X1,27X2,2827", GDB_SET_POINT, GDB_POINT_SOFT, 0x10, 1,
	 "\x01\0\0\0\x27\x02\0\0\0\x28\x27", 11},
	{"Z0,10,1;X1,27;X1,28", GDB_SET_POINT, GDB_POINT_SOFT, 0x10, 1,
	 "\x01\0\0\0\x27\x01\0\0\0\x28", 10},
};

static void test_points(void **state)
{
	struct gdb_request r = {0};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		assert_int_equal(parse(&r, points[i].packet, &err), 0);
		assert_int_equal(r.type, points[i].type);
		assert_int_equal(r.point.type, points[i].point);
		assert_int_equal(r.point.addr, points[i].addr);
		assert_int_equal(r.point.len, points[i].len);
		assert_int_equal(r.point.conditions_len, points[i].n);
		if (points[i].n)
			assert_memory_equal(r.point.conditions, points[i].conditions, points[i].n);
	}
	buf_free(&r.data);
}

static const char *const malformed[] = {
	"G6",
	"G6x",
	"p",
	"pxyz",
	"p10,",
	"p100000000",
	"P",
	"P1",
	"P1=1",
	"P=12",
	"m",
	"m10",
	"m10,",
	"m,10",
	"m10,1,",
	"m10;1",
	"m11111111111111111,1",
	"m-1,1",
	"x",
	"x10",
	"M10,1",
	"M10,1:",
	"M10,1:1",
	"M10,1:6161",
	"M10,2:61",
	"X10,1:",
	"X10,1:ab",
	"X10,2",
	"Z",
	"Z0",
	"Z0,",
	"Z0,10",
	"Z0,10,",
	"Z0,10,1,",
	"Z0,10,1;Y",
	"Z0,10,1;X",
	"Z0,10,1;X3",
	"Z0,10,1;X3,",
	"Z0,10,1;X3,2201",
	"Z0,10,1;Xffffffffffffffff,22",
	"Z0,10,1;X1,2",
	"Z0,10,1;cmds:0,X1,27",
	"Z2,10,0",
	"Z2,ffffffffffffffff,2",
	"z",
	"z0,10",
	"z0,10,1;X1,27",
	"Zx,10,1",
	"cx",
	"c10 ",
	"sx",
	"C",
	"Cx",
	"C1ff",
	"C05;",
	"C05;x",
	"S",
	"H",
	"Hx0",
	"Hg",
	"Hgx",
	"Hgp",
	"Hg1.",
	"Hgp1.",
	"T",
	"Tx",
	"T1,",
	"vCont;",
	"vCont;x",
	"vCont;c;",
	"vCont;C",
	"vCont;c:",
	"vCont;c:x",
	"vCont;r10",
	"vCont;r10,",
	"vCont;s:1,c",
	"qRcmd,6",
	"qRcmd,6x",
	"qSearch:memory:",
	"qSearch:memory:10",
	"qSearch:memory:10;",
	"qSearch:memory:10;1",
	"qSearch:memory:10;1;",
	"qCRC:",
	"qCRC:10",
	"qThreadExtraInfo,",
	"qSupportedx",
	"qXfer:features:read:",
	"qXfer:features:read:target.xml",
	"qXfer:features:read:target.xml:",
	"qXfer:features:read:target.xml:0",
	"qXfer:features:read:target.xml:0,",
	"qXfer:features:read:target.xml:0,1,",
	"vRun;6",
	"vRunx",
	"Qqemu.sstep=",
	"Qqemu.PhyMemMode:",
	"Qqemu.PhyMemMode:x",
};

static void test_malformed(void **state)
{
	struct gdb_request r = {0};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		err.text[0] = 0;
		if (parse(&r, malformed[i], &err) != -EINVAL)
			fail_msg("'%s' is taken", malformed[i]);
		assert_true(err.text[0]);
	}
	buf_free(&r.data);
}

static const char *const unknown[] = {
	"",
	"a",
	"b",
	"bx",
	"i",
	"B",
	"Z5,10,1",
	"z9,10,1",
	"vMustReplyEmpty",
	"vCtrlC",
	"vFile:setfs:0",
	"vAttach;1",
	"v",
	"q",
	"Q",
	"qOffsets",
	"qSymbol::",
	"qTStatus",
	"qTfV",
	"qL1160000000000000000",
	"qGetTIBAddr:1",
	"qHostInfo",
	"qCatch",
	"qXfer:exec-file:read:1:0,1",
	"qXfer:features:write:a:0,1",
	"QPassSignals:e",
	"QThreadSuffixSupported",
	"qqemu.Supported",
	"gx",
	"?x",
	"!x",
	"qCx",
	"qfThreadInfox",
	"QStartNoAckModeX",
	"bsx",
	"bcx",
	"\xff\xff",
};

static void test_unknown(void **state)
{
	struct gdb_request r = {0};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
		assert_int_equal(parse(&r, unknown[i], &err), 0);
		if (r.type != GDB_UNKNOWN)
			fail_msg("'%s' is known", unknown[i]);
	}
	buf_free(&r.data);
}

/* Every beginning of every packet above is taken, refused or unknown, and never read beyond. */
static void test_prefixes(void **state)
{
	struct gdb_request r = {0};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		for (size_t n = 0; n <= strlen(plain[i].packet); n++) {
			uint8_t *exact = malloc(n ? n : 1);
			int rc;

			/* The address sanitizer sees a read behind it. */
			memcpy(exact, plain[i].packet, n);
			rc = gdb_request_parse(&r, exact, n, &err);
			assert_true(rc == 0 || rc == -EINVAL);
			free(exact);
		}
	}
	buf_free(&r.data);
}

static void test_too_many_actions(void **state)
{
	char packet[8 + 2 * (GDB_ACTIONS_MAX + 1)] = "vCont";
	struct gdb_request r = {0};
	struct err err;

	(void)state;
	for (unsigned i = 0; i < GDB_ACTIONS_MAX; i++)
		strcat(packet, ";c");
	assert_int_equal(parse(&r, packet, &err), 0);
	assert_int_equal(r.n_actions, GDB_ACTIONS_MAX);
	strcat(packet, ";c");
	assert_int_equal(parse(&r, packet, &err), -EINVAL);
	buf_free(&r.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_points),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_too_many_actions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
