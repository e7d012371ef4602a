// SPDX-License-Identifier: GPL-3.0-or-later
/* What gdb is answered, over a fake target: every request, stops and their reasons, both directions
 * of time. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/gdb_client.h"

#include "gdbstub/packet.h"

#include <inttypes.h>

#define ROUNDS 20

static int setup(void **state)
{
	struct client *c = malloc(sizeof(*c));
	struct fake *f = fake_create(ROUNDS, false);

	assert_non_null(c);
	assert_non_null(f);
	client_connect(c, f);
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	struct client *c = *state;

	client_close(c);
	fake_destroy(c->fake);
	free(c);
	return 0;
}

#define check(c, request, expected) assert_string_equal(client_request(c, request), expected)

/* Requests in order, with what is answered. "..." at the end: begins so. */
static const struct {
	const char *request, *reply;
} dialogue[] = {
	{"qSupported:swbreak+;hwbreak+",
	 "PacketSize=20100;QStartNoAckMode+;qXfer:features:read+..."},
	{"vMustReplyEmpty", ""},
	{"QStartNoAckMode", "OK"},
	{"Hgp0.0", "OK"},
	{"qTStatus", ""},
	{"qOffsets", ""},
	{"?", "T05thread:1;06:0000000000000000;07:0080000000000000;10:0010000000000000;"},
	{"qfThreadInfo", "m1"},
	{"qsThreadInfo", "l"},
	{"qAttached", "1"},
	{"qC", "QC1"},
	{"qThreadExtraInfo,1", "6b65726e656c2c2061742030"}, /* "kernel, at 0" */
	{"qThreadExtraInfo,2", "E03"},
	{"T1", "OK"},
	{"T2", "E03"},
	{"Hg1", "OK"},
	{"Hg2", "E03"},
	{"Hc-1", "OK"},
	{"Hc0", "OK"},
	{"vCont?", "vCont;c;C;s;S;t;r"},
	/* Registers. */
	{"p8", "1122334455667788"},
	{"p10", "0010000000000000"},
	{"p11", "02000000"},
	{"p20", "7f030000"},
	{"p28", "000102030405060708090a0b0c0d0e0f"},
	{"p38", "801f0000"},
	{"p39", "bc9a785634120000"},
	{"pff", "E16"},
	{"p7fffffff", "E16"},
	{"g", "00000000000000000000000000000000140000000000000000..."},
	{"G00", "E16"},
	{"P8=0102030405060708", "OK"},
	{"p8", "0102030405060708"},
	{"P8=01", "E16"},
	{"Pff=00", "E16"},
	{"P4a=00000000", "OK"},	 /* tr, which can only be read: as it is */
	{"P4a=01000000", "E01"}, /* ... and not */
	/* Memory: virtual, physical (which this target moves by a page), at the edge, outside. */
	{"m20000,9", "68696e647369676874"},
	{"x20000,9", "bhindsight"},
	{"x20000,0", "b"},
	{"m20000,0", "E16"},
	{"m3fffe,10", "0000"},
	{"m40000,1", "E0e"},
	{"mffffffffffffffff,2", "E0e"},
	{"qqemu.PhyMemMode", "0"},
	{"Qqemu.PhyMemMode:1", "OK"},
	{"qqemu.PhyMemMode", "1"},
	{"m1f000,4", "68696e64"},
	{"Qqemu.PhyMemMode:0", "OK"},
	{"m20000,4", "68696e64"},
	{"X20000,0:", "OK"},
	{"M20000,2:4849", "OK"},
	{"X20002,3:*|~", "OK"},
	{"m20000,9", "48492a7c7e6967687..."},
	{"M3ffff,2:0000", "E0e"},
	{"X40000,1:a", "E0e"},
	/* CRC-32/MPEG-2 of "123456789" is 0376e6e7. */
	{"M21000,9:313233343536373839", "OK"},
	{"qCRC:21000,9", "C376e6e7"},
	{"qCRC:3ffff,2", "E0e"},
	{"qSearch:memory:0;40000;ight", "1,20005"},
	{"qSearch:memory:20006;100;ight", "0"},
	{"qSearch:memory:20005;3;ight", "0"},
	{"qSearch:memory:20005;4;ight", "1,20005"},
	{"qSearch:memory:3f000;ffffffffffffffff;ight", "E0e"},
	/* Points. */
	{"Z0,1014,1", "OK"},
	{"Z1,1014,1;X3,220127", "OK"},
	{"Z2,9000,8", "OK"},
	{"Z3,9000,8", "OK"},
	{"Z4,9000,1000", "OK"},
	{"Z2,3fff0,100", "E0e"},
	{"Z0,40000,1", "E0e"},
	{"Z7,1000,1", ""},
	{"z0,1014,1", "OK"},
	{"z0,1014,1", "OK"},
	{"z1,1014,1", "OK"},
	{"z2,9000,8", "OK"},
	{"z3,9000,8", "OK"},
	{"z4,9000,1000", "OK"},
	/* QEMU's. */
	{"Qqemu.sstepbits", "ENABLE=1"},
	{"qqemu.sstep", "0x1"},
	{"Qqemu.sstep=7", "E16"},
	{"Qqemu.sstep=1", "OK"},
	/* Objects. */
	{"qXfer:auxv:read::0,100", "l"},
	{"qXfer:features:read:other.xml:0,100", "E00"},
	{"qXfer:features:read:target.xml:0,5", "m<?xml"},
	{"qXfer:features:read:target.xml:5,9", "m version="},
	{"qXfer:features:read:target.xml:ffffff,10", "l"},
	{"qXfer:memory-map:read::0,1000",
	 "l<?xml version=\"1.0\"?><memory-map><memory type=\"ram\" start=\"0x0\"..."},
	{"qXfer:threads:read::0,1000", "l<?xml version=\"1.0\"?><threads><thread id=\"1\" "
				       "core=\"0\" name=\"CPU 0\">kernel, at 0</thread></threads>"},
	/* Malformed and unknown. */
	{"m10", "E16"},
	{"", ""},
	{"vFile:setfs:0", ""},
	/* Running. */
	{"vCont;s:1", "T05thread:1;06:0000000000000000;07:f87f000000000000;10:0110000000000000;"},
	{"bs", "T05thread:1;06:0000000000000000;07:0080000000000000;10:0010000000000000;"},
	{"bs", "T05thread:1;06:0000000000000000;07:0080000000000000;10:0010000000000000;replaylog:"
	       "begin;"},
	{"bc", "T05thread:1;06:0000000000000000;07:0080000000000000;10:0010000000000000;replaylog:"
	       "begin;"},
	{"vCont;c",
	 "T05thread:1;06:0000000000000000;07:0080000000000000;10:0f10000000000000;replaylog:end;"},
	{"s",
	 "T05thread:1;06:0000000000000000;07:0080000000000000;10:0f10000000000000;replaylog:end;"},
	{"vCont;t", "T00thread:1;06:0000000000000000;07:0080000000000000;10:0f10000000000000;"},
	{"bs", "T05thread:1;06:f87f000000000000;07:f87f000000000000;10:0e10000000000000;"},
	{"c1014",
	 "T05thread:1;06:f87f000000000000;07:f87f000000000000;10:1710000000000000;replaylog:end;"},
};

static void check_reply(const char *request, const char *reply, const char *expected)
{
	size_t n = strlen(expected);
	bool open = n >= 3 && strcmp(expected + n - 3, "...") == 0;

	if (open ? strncmp(reply, expected, n - 3) != 0 : strcmp(reply, expected) != 0)
		fail_msg("'%s' is answered '%s', not '%s'", request, reply, expected);
}

static void test_dialogue(void **state)
{
	struct client *c = *state;

	for (size_t i = 0; i < ARRAY_SIZE(dialogue); i++)
		check_reply(dialogue[i].request, client_request(c, dialogue[i].request),
			    dialogue[i].reply);
}

/* Every register: g is all of p in order; P changes that one alone. */
static void test_registers(void **state)
{
	struct client *c = *state;
	char request[64], one[64], all[8192];
	size_t at = 0;

	strcpy(all, client_request(c, "g"));
	for (unsigned i = 0; i < gdb_regs_count(true); i++) {
		size_t digits = 2 * gdb_reg_size(i);

		snprintf(request, sizeof(request), "p%x", i);
		strcpy(one, client_request(c, request));
		assert_int_equal(strlen(one), digits);
		assert_memory_equal(one, all + at, digits);

		one[0] = one[0] == '5' ? '6' : '5';
		snprintf(request, sizeof(request), "P%x=%s", i, one);
		if (gdb_reg_writable(i)) {
			check(c, request, "OK");
			all[at] = one[0];
		} else {
			check(c, request, "E01");
		}
		check(c, "g", all);
		at += digits;
	}
	assert_int_equal(strlen(all), at);

	/* G: all at once; what cannot be written stays. */
	client_hex("G", "", request, sizeof(request));
	memmove(all + 1, all, at + 1);
	all[0] = 'G';
	check(c, all, "OK");
	check(c, "g", all + 1);
	all[at] = 0;
	check(c, all, "E16");
}

static void test_without_avx(void **state)
{
	struct client *c = *state;
	size_t with = strlen(client_request(c, "g"));

	assert_non_null(
		strstr(client_request(c, "qXfer:features:read:target.xml:0,10000"), "i386.avx"));
	c->fake->target.avx = false;
	assert_int_equal(strlen(client_request(c, "g")), with - 16 * 32);
	assert_null(
		strstr(client_request(c, "qXfer:features:read:target.xml:0,10000"), "i386.avx"));
	check(c, "p71", "E16");
}

static void test_branch_notice(void **state)
{
	struct client *c = *state;

	check(c, "X20000,0:", "OK"); /* gdb tries whether X is known */
	assert_int_equal(c->fake->branches, 0);
	check(c, "P0=0500000000000000", "OK");
	client_request(c, "vCont;s:1");
	assert_string_equal(c->console, "branch 1 starts at 0\n");
	client_request(c, "vCont;s:1");
	assert_string_equal(c->console, "");
}

/* A read of 64 KiB fits one packet, in either way. */
static void test_big_read(void **state)
{
	struct client *c = *state;

	assert_int_equal(strlen(client_request(c, "m0,10000")), 0x20000);
	client_request(c, "x0,10000");
	assert_int_equal(c->len, 1 + 0x10000);
	assert_memory_equal(c->reply + 1, c->fake->ram, 0x10000);
	/* More is cut, as the protocol allows. */
	assert_in_range(strlen(client_request(c, "m0,40000")), 0x20000, GDB_PACKET_MAX);
}

/* The whole description, in small pieces. */
static void test_description_in_pieces(void **state)
{
	struct client *c = *state;
	struct buf xml = {0}, whole = {0};
	char request[64];

	gdb_regs_describe(&whole, true);
	do {
		snprintf(request, sizeof(request), "qXfer:features:read:target.xml:%zx,3f",
			 xml.len);
		client_request(c, request);
		buf_put(&xml, c->reply + 1, c->len - 1);
	} while (c->reply[0] == 'm');
	assert_int_equal(xml.len, whole.len);
	assert_memory_equal(xml.data, whole.data, xml.len);
	buf_free(&xml);
	buf_free(&whole);
}

/* --- Going both ways ------------------------------------------------------------------------ */

static uint64_t rip_of(struct client *c)
{
	const char *p = strstr((const char *)c->reply, ";10:");
	uint64_t rip = 0;

	assert_non_null(p);
	for (int i = 7; i >= 0; i--) {
		unsigned byte;

		assert_int_equal(sscanf(p + 4 + 2 * i, "%2x", &byte), 1);
		rip = rip << 8 | byte;
	}
	return rip;
}

static bool says(struct client *c, const char *reason)
{
	return strstr((const char *)c->reply, reason) != NULL;
}

static void test_steps_both_ways(void **state)
{
	struct client *c = *state;
	char *states[ROUNDS * FAKE_ROUND];
	const size_t n = ARRAY_SIZE(states);

	for (size_t i = 0; i < n; i++) {
		states[i] = strdup(client_request(c, "g"));
		client_request(c, "vCont;s:1");
	}
	for (size_t i = n; i-- > 0;) {
		client_request(c, "bs");
		check(c, "g", states[i]);
	}
	for (size_t i = 0; i < n; i++)
		free(states[i]);
}

static void test_breakpoints_both_ways(void **state)
{
	struct client *c = *state;

	client_request(c, "qSupported:swbreak+;hwbreak+");
	check(c, "Z0,1014,1", "OK");
	for (uint64_t i = 0; i < ROUNDS; i++) {
		client_request(c, "vCont;c");
		assert_int_equal(rip_of(c), FAKE_INC);
		assert_true(says(c, "swbreak:;"));
		assert_int_equal(c->fake->position, 5 + i * FAKE_ROUND);
		/* On it "continue" hits at once, a step goes past it. */
		client_request(c, "vCont;c");
		assert_int_equal(c->fake->position, 5 + i * FAKE_ROUND);
		client_request(c, "vCont;s:1");
		assert_int_equal(rip_of(c), FAKE_STORE);
		assert_false(says(c, "swbreak"));
	}
	client_request(c, "vCont;c");
	assert_true(says(c, "replaylog:end;"));
	for (uint64_t i = ROUNDS; i-- > 0;) {
		client_request(c, "bc");
		assert_true(says(c, "swbreak:;"));
		assert_int_equal(c->fake->position, 5 + i * FAKE_ROUND);
	}
	client_request(c, "bc");
	assert_true(says(c, "replaylog:begin;"));
	assert_false(says(c, "swbreak"));
}

static void test_conditions(void **state)
{
	struct client *c = *state;

	/* rax == 7 at the store, either by register 0 or by memory at 0x9000 being 6. */
	check(c, "Z1,1017,1;X7,26000022071327", "OK");
	check(c, "Z1,1014,1;X8,2390001a22061327", "OK");
	client_request(c, "qSupported:hwbreak+");
	client_request(c, "vCont;c");
	assert_int_equal(rip_of(c), FAKE_INC);
	assert_int_equal(c->fake->regs.gpr[GDB_RAX], 6);
	client_request(c, "vCont;s:1");
	assert_int_equal(rip_of(c), FAKE_STORE);
	assert_true(says(c, "hwbreak:;"));
	client_request(c, "vCont;s:1");
	client_request(c, "vCont;c");
	assert_true(says(c, "replaylog:end;"));
	client_request(c, "bc");
	assert_int_equal(rip_of(c), FAKE_STORE);
	assert_int_equal(c->fake->regs.gpr[GDB_RAX], 7);
	/* One of several conditions is enough; none that can be evaluated stops too. */
	check(c, "Z1,1014,1;X3,220027X3,220127", "OK");
	client_request(c, "bc");
	client_request(c, "bc");
	assert_int_equal(c->fake->regs.gpr[GDB_RAX], 5);
	check(c, "Z1,1014,1;X1,01", "OK");
	client_request(c, "bc");
	assert_int_equal(c->fake->regs.gpr[GDB_RAX], 4);
}

static void test_watches_both_ways(void **state)
{
	struct client *c = *state;

	check(c, "Z2,8ffc,5", "OK"); /* one byte of the counter: the low one */
	for (uint64_t i = 1; i <= 3; i++) {
		client_request(c, "vCont;c");
		assert_true(says(c, "watch:9000;"));
		assert_int_equal(rip_of(c), FAKE_STORE_AGAIN);
		assert_int_equal(c->fake->ram[FAKE_COUNTER], i);
	}
	/* Backwards: before the write, with the old value. */
	for (uint64_t i = 3; i-- > 0;) {
		client_request(c, "bc");
		assert_true(says(c, "watch:9000;"));
		assert_int_equal(rip_of(c), FAKE_STORE);
		assert_int_equal(c->fake->ram[FAKE_COUNTER], i);
	}
	/* A byte that never changes is never hit. */
	check(c, "z2,8ffc,5", "OK");
	check(c, "Z2,9001,7", "OK");
	client_request(c, "vCont;c");
	assert_true(says(c, "replaylog:end;"));
	check(c, "z2,9001,7", "OK");
	/* Reads; then a write watch, an access watch and a breakpoint on one instruction. */
	check(c, "Z3,9000,8", "OK");
	client_request(c, "bc");
	assert_true(says(c, "rwatch:9000;"));
	assert_int_equal(rip_of(c), FAKE_LOAD);
	check(c, "z3,9000,8", "OK");
	client_request(c, "qSupported:swbreak+");
	check(c, "Z2,9000,1", "OK");
	check(c, "Z4,9000,8", "OK");
	check(c, "Z0,1017,1", "OK");
	client_request(c, "bc"); /* the second store, for the access watch alone */
	assert_int_equal(rip_of(c), FAKE_STORE_AGAIN);
	assert_true(says(c, ";awatch:9000;"));
	assert_false(says(c, ";watch:"));
	client_request(c, "bc");
	assert_int_equal(rip_of(c), FAKE_STORE);
	assert_true(says(c, "swbreak:;"));
	assert_true(says(c, ";awatch:9000;"));
	assert_true(says(c, ";watch:9000;"));
}

/* Reasons that gdb did not ask for are left out. */
static void test_no_break_reasons(void **state)
{
	struct client *c = *state;

	check(c, "Z0,1014,1", "OK");
	client_request(c, "vCont;c");
	assert_int_equal(rip_of(c), FAKE_INC);
	assert_false(says(c, "swbreak"));
}

static void test_range_step(void **state)
{
	struct client *c = *state;

	client_request(c, "vCont;r1000,1004:1");
	assert_int_equal(rip_of(c), FAKE_CALL);
	client_request(c, "vCont;r1004,1009:1");
	assert_int_equal(rip_of(c), FAKE_WORK);
	check(c, "Z0,1017,1", "OK");
	client_request(c, "vCont;r1010,1022:1");
	assert_int_equal(rip_of(c), FAKE_STORE);
	client_request(c, "vCont;r1010,1022:1");
	assert_int_equal(rip_of(c), FAKE_AFTER_CALL);
	/* A range of nothing is one step. */
	client_request(c, "vCont;r1009,1009:1");
	assert_int_equal(c->fake->position, 12);
}

/* What the target is asked for with three threads. */
static void test_threads(void **state)
{
	static const struct {
		const char *setup, *request;
		enum gdb_run run;
		int thread;
		bool others, reverse;
	} cases[] = {
		{"Hc-1", "vCont;c", GDB_RUN_CONTINUE, GDB_THREAD_ALL, true, false},
		{"Hc-1", "vCont;s:1;c", GDB_RUN_STEP, 1, true, false},
		{"Hc-1", "vCont;s:2", GDB_RUN_STEP, 2, false, false},
		{"Hc-1", "vCont;c:3", GDB_RUN_CONTINUE, 3, false, false},
		{"Hc-1", "vCont;t:1;c", GDB_RUN_CONTINUE, GDB_THREAD_ALL, true, false},
		{"Hc-1", "vCont;t:1;r10,20:2;c", GDB_RUN_STEP_RANGE, 2, true, false},
		{"Hc2", "c", GDB_RUN_CONTINUE, 2, false, false},
		{"Hc2", "s", GDB_RUN_STEP, 2, false, false},
		{"Hc0", "s", GDB_RUN_STEP, 1, true, false},
		{"Hc-1", "c", GDB_RUN_CONTINUE, GDB_THREAD_ALL, true, false},
		{"Hc3", "bs", GDB_RUN_STEP, 3, true, true},
		{"Hc3", "bc", GDB_RUN_CONTINUE, GDB_THREAD_ALL, true, true},
	};
	struct client *c = *state;

	c->fake->target.threads = 3;
	check(c, "qfThreadInfo", "m1,2,3");
	assert_non_null(strstr(client_request(c, "qXfer:threads:read::0,1000"),
			       "name=\"CPU 1\">&lt;asleep&gt;</thread>"));
	check(c, "Hg3", "OK");
	check(c, "p10", "0060000000000000");
	check(c, "P10=0000000000000000", "E01");
	client_request(c, "vCont;s:1"); /* which selects the thread that stopped */
	check(c, "p10", "0110000000000000");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		fake_seek(c->fake, 5);
		check(c, cases[i].setup, "OK");
		client_request(c, cases[i].request);
		assert_int_equal(c->fake->last_resume.run, cases[i].run);
		assert_int_equal(c->fake->last_resume.thread, cases[i].thread);
		assert_int_equal(c->fake->last_resume.others, cases[i].others);
		assert_int_equal(c->fake->last_resume.reverse, cases[i].reverse);
	}
	/* A stop undoes Hc. */
	check(c, "Hc3", "OK");
	client_request(c, "s");
	client_request(c, "c");
	assert_int_equal(c->fake->last_resume.thread, GDB_THREAD_ALL);
}

static void test_step_flags(void **state)
{
	struct client *c = *state;

	c->fake->target.can_skip = true;
	check(c, "qqemu.sstepbits", "ENABLE=1,NOIRQ=2,NOTIMER=4");
	client_request(c, "s");
	assert_false(c->fake->last_resume.skip_interrupts);
	check(c, "Qqemu.sstep=7", "OK");
	check(c, "qqemu.sstep", "0x7");
	client_request(c, "s");
	assert_true(c->fake->last_resume.skip_interrupts);
}

/* --- Monitor, restart, errors --------------------------------------------------------------- */

static void test_monitor(void **state)
{
	struct client *c = *state;

	assert_string_equal(client_monitor(c, "seek 50%"), "OK");
	assert_string_equal(c->console, "now at 111\n");
	assert_string_equal(client_monitor(c, "info version"), "OK");
	assert_string_equal(c->console, "1\n");
	assert_string_equal(client_monitor(c, "bogus"), "E16");
	assert_string_equal(c->console, "'bogus' is no command; try help\n");
	assert_string_equal(client_monitor(c, ""), "E16");
	client_request(c, "qSupported:error-message+");
	assert_string_equal(client_monitor(c, "bogus"), "E.'bogus' is no command; try help");
	assert_string_equal(c->console, "");
}

static void test_error_texts(void **state)
{
	struct client *c = *state;

	client_request(c, "qSupported:multiprocess+;error-message+;swbreak+");
	check(c, "m40000,1", "E.there is no memory at 0x40000");
	check(c, "Z0,40000,1", "E.there is no memory at 0x40000");
	check(c, "m", "E.the packet 'm' is malformed");
	client_request(c, "qSupported:error-message-;xerror-message+");
	check(c, "m40000,1", "E0e");
}

static void test_restart(void **state)
{
	struct client *c = *state;
	char request[64];

	client_request(c, "vCont;c");
	client_request(c, "vRun;");
	assert_int_equal(rip_of(c), FAKE_MAIN);
	client_request(c, client_hex("vRun;;", "50%", request, sizeof(request)));
	assert_int_equal(c->fake->position, c->fake->end / 2);
	check(c, client_hex("vRun;;", "x", request, sizeof(request)), "E16");
	client_send(c, "R00", 3);
	check(c, "qC", "QC1"); /* R itself has no answer */
	assert_int_equal(c->fake->position, 0);
}

static void test_live(void **state)
{
	struct fake *f = fake_create(ROUNDS, true);
	struct client c;

	(void)state;
	client_connect(&c, f);
	assert_null(strstr(client_request(&c, "qSupported"), "Reverse"));
	check(&c, "bs", "E.only a recording can run backwards");
	check(&c, "bc", "E.only a recording can run backwards");
	check(&c, "vCont;c", "W00");
	client_close(&c);
	fake_destroy(f);
}

/* --- How it ends ---------------------------------------------------------------------------- */

static void test_ends(void **state)
{
	static const struct {
		const char *first, *request;
		bool answered;
		enum gdb_end end;
	} cases[] = {
		{"?", "D", true, GDB_END_DETACHED},
		{"?", "D;1", true, GDB_END_DETACHED},
		{"?", "k", false, GDB_END_KILLED},
		{"?", "vKill;1", true, GDB_END_KILLED},
		{"?", "?", true, GDB_END_LOST},
		/* In extended mode gdb stays; how it was left counts when it goes. */
		{"!", "D", true, GDB_END_DETACHED},
		{"!", "vKill;1", true, GDB_END_KILLED},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake *f = fake_create(ROUNDS, false);
		struct client c;

		client_connect(&c, f);
		client_request(&c, cases[i].first);
		client_send(&c, cases[i].request, strlen(cases[i].request));
		if (cases[i].answered)
			client_reply(&c);
		if (cases[i].first[0] == '!')
			check(&c, "qC", "QC1");
		else if (cases[i].end != GDB_END_LOST)
			assert_false(client_receive(&c));
		client_close(&c);
		assert_int_equal(c.rc, 0);
		assert_int_equal(c.end, cases[i].end);
		assert_string_equal(c.err.text, "");
		assert_int_equal(f->kills, cases[i].end == GDB_END_KILLED);
		fake_destroy(f);
	}
}

static void test_restart_after_kill(void **state)
{
	struct fake *f = fake_create(ROUNDS, false);
	struct client c;

	(void)state;
	client_connect(&c, f);
	check(&c, "!", "OK");
	client_send(&c, "k", 1);
	client_request(&c, "vRun;");
	client_close(&c);
	assert_int_equal(c.end, GDB_END_LOST);
	fake_destroy(f);
}

static void test_acks(void **state)
{
	struct client *c = *state;
	char first[256];

	/* Each packet is acknowledged, before it is answered. */
	client_send_bytes(c, "$qC#b4", 6);
	assert_int_equal(client_byte(c), '+');
	assert_int_equal(client_byte(c), '$');
	while (client_byte(c) != '#')
		;
	client_byte(c);
	client_byte(c);
	/* A damaged one is asked for again, a damaged answer is sent again. */
	client_send_bytes(c, "$qC#b5", 6);
	assert_int_equal(client_byte(c), '-');
	strcpy(first, client_request(c, "?"));
	client_send_bytes(c, "-", 1);
	assert_string_equal(client_reply(c), first);
	check(c, "QStartNoAckMode", "OK");
	client_send_bytes(c, "+$qC#00", 7);
	assert_int_equal(client_byte(c), '$');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_dialogue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_avx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_branch_notice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_big_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_description_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_steps_both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(test_breakpoints_both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(test_conditions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watches_both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_break_reasons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_range_step, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_step_flags, setup, teardown),
		cmocka_unit_test_setup_teardown(test_monitor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_error_texts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
		cmocka_unit_test(test_live),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_restart_after_kill),
		cmocka_unit_test_setup_teardown(test_acks, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
