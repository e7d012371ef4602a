// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* A handler may set *quit just before poll sleeps: look again so often. */
#define QUIT_POLL_MS 200

/* --- Unix sockets --------------------------------------------------------------------------- */

/* A socket file that nobody listens on any more. */
static bool is_stale(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;
	bool stale;

	if (fd < 0)
		return false;
	stale = stat(sa->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
		connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int listen_unix(struct gdb_listener *l, const char *path, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int rc;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, ENAMETOOLONG, "the socket path %s is longer than %zu bytes",
			       path, sizeof(sa.sun_path) - 1);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return err_sys(err, errno, "cannot make a socket for gdb");
	rc = bind(l->fd, (struct sockaddr *)&sa, sizeof(sa));
	if (rc < 0 && errno == EADDRINUSE && is_stale(&sa) && unlink(path) == 0)
		rc = bind(l->fd, (struct sockaddr *)&sa, sizeof(sa));
	if (rc < 0)
		return err_sys(err, errno, "cannot make the socket %s for gdb", path);
	l->is_path = true;
	memcpy(l->name, path, strlen(path) + 1);
	/* Nobody can connect before listen, so nobody slips in under the wider mode. */
	if (chmod(path, 0600) < 0 || listen(l->fd, 1) < 0)
		return err_sys(err, errno, "cannot listen on %s for gdb", path);
	return 0;
}

/* --- TCP ------------------------------------------------------------------------------------ */

/* "HOST:PORT", ":PORT" or "PORT"; brackets around an IPv6 address are taken off. */
static int split(const char *address, char host[64], char port[8], struct err *err)
{
	const char *colon = strrchr(address, ':');
	const char *start = address;
	const char *digits = colon ? colon + 1 : address;
	size_t n = colon ? (size_t)(colon - address) : 0;
	char *end;

	if (n >= 2 && start[0] == '[' && start[n - 1] == ']') {
		start++;
		n -= 2;
	}
	if (*digits < '0' || *digits > '9' || strtoul(digits, &end, 10) > 65535 || *end ||
	    n >= 64 || strlen(digits) >= 8)
		return err_set(err, EINVAL,
			       "'%s' is no place for gdb: give the path of a socket (with a '/'), "
			       "or a port "
			       "such as 1234 or localhost:1234",
			       address);
	snprintf(host, 64, "%.*s", (int)n, start);
	if (n == 0 || strcmp(host, "localhost") == 0)
		strcpy(host, "127.0.0.1");
	strcpy(port, digits);
	return 0;
}

static bool is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

/* The port may have been the kernel's choice. */
static void name_port(struct gdb_listener *l)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char host[64], port[8];

	if (getsockname(l->fd, (struct sockaddr *)&sa, &len) < 0 ||
	    getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	snprintf(l->name, sizeof(l->name), sa.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
		 port);
}

static int listen_tcp(struct gdb_listener *l, const char *address, bool allow_remote,
		      struct err *err)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
				       .ai_socktype = SOCK_STREAM};
	struct addrinfo *ai = NULL;
	const int on = 1;
	char host[64], port[8];
	int rc = split(address, host, port, err);

	if (rc)
		return rc;
	if (getaddrinfo(host, port, &hints, &ai) != 0)
		return err_set(err, EINVAL,
			       "'%s' is no numeric address; names of hosts are not looked up",
			       host);
	l->remote = !is_loopback(ai->ai_addr);
	if (l->remote && !allow_remote) {
		rc = err_set(err, EPERM,
			     "%s can be reached from other machines, and whoever reaches it owns "
			     "the guest: "
			     "use a socket path or localhost, or add --gdb-allow-remote",
			     address);
		goto out;
	}
	l->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0) {
		rc = err_sys(err, errno, "cannot make a socket for gdb");
		goto out;
	}
	/* The next run can have the port at once. */
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(l->fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(l->fd, 1) < 0)
		rc = err_sys(err, errno, "cannot listen on %s for gdb", address);
	else
		name_port(l);
out:
	freeaddrinfo(ai);
	return rc;
}

/* --- Both ----------------------------------------------------------------------------------- */

int gdb_listener_open(struct gdb_listener *l, const char *address, bool allow_remote,
		      struct err *err)
{
	static const char prefix[] = "unix:";
	int rc;

	*l = (struct gdb_listener){.fd = -1};
	if (strncmp(address, prefix, strlen(prefix)) == 0)
		rc = listen_unix(l, address + strlen(prefix), err);
	else if (strchr(address, '/'))
		rc = listen_unix(l, address, err);
	else
		rc = listen_tcp(l, address, allow_remote, err);
	if (rc)
		gdb_listener_close(l);
	return rc;
}

void gdb_listener_close(struct gdb_listener *l)
{
	if (l->fd >= 0)
		close(l->fd);
	if (l->is_path)
		unlink(l->name);
	l->fd = -1;
	l->is_path = false;
}

int gdb_listener_accept(struct gdb_listener *l, int timeout_ms, const volatile sig_atomic_t *quit,
			int *fd, struct err *err)
{
	const int on = 1;

	for (;;) {
		int slice =
			timeout_ms >= 0 && timeout_ms < QUIT_POLL_MS ? timeout_ms : QUIT_POLL_MS;
		struct pollfd p = {.fd = l->fd, .events = POLLIN};
		int n = poll(&p, 1, slice);

		if (quit && *quit)
			return err_set(err, EINTR, "interrupted");
		if (n < 0 && errno != EINTR)
			return err_sys(err, errno, "cannot wait for gdb");
		if (n > 0) {
			*fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
			if (*fd < 0 && (errno == ECONNABORTED || errno == EINTR))
				continue; /* gone again */
			if (*fd < 0)
				return err_sys(err, errno, "cannot accept a connection from gdb");
			/* Each packet is waited for; fails on a Unix socket, which has no such
			 * delay. */
			setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
			return 1;
		}
		if (timeout_ms >= 0) {
			timeout_ms -= slice;
			if (timeout_ms <= 0)
				return 0;
		}
	}
}
