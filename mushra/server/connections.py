"""Waitress with protection against clients that open many connections or do not read their answers.

Waitress accepts connections up to a limit. Then it accepts none until it closes one that was idle for two
minutes; it never closes one whose client does not read. This server closes the longest idle connection of the
address with the most connections, so that one address cannot lock out the others.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import defaultdict
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import MultiSocketServer, TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

#: Most connections; fewer if the system allows fewer open files.
MAX_CONNECTIONS = 1000
#: Most connections of one address; enough for a class of 40 behind one router with 6 connections a browser.
MAX_PER_ADDRESS = 300
#: Most bytes in transit to one client.
SEND_BUFFER = 256 * 1024
#: Files that one connection may have open: its socket, the sent file, a body that does not fit into memory.
_FILES_EACH = 3
#: Open files for everything else: data base, log, plots.
_FILES_KEPT = 150

#: Seconds after which a connection is closed: without a request; with an incomplete request; with an answer
#: that its client does not read, without and with a thread that waits for it.
IDLE_S, REQUEST_S, UNREAD_S, HELD_UP_S = 120.0, 30.0, 60.0, 10.0


def make_server(
    app: Any, host: str, port: int, *, threads: int, max_body_bytes: int, behind_proxy: bool
) -> Any:
    """A server that listens; call ``run``, then ``close``.

    Args:
        host: address to listen at, or a name, which may have several addresses.
        port: 0 selects a free one.
        threads: number of requests handled at once.
        max_body_bytes: larger bodies are refused before they reach the application.
        behind_proxy: whether all listeners come from one address, so that there is no limit per address.

    Raises:
        OSError: the server cannot listen there.
    """
    adjustments = Adjustments(
        host=host,
        port=port,
        threads=threads,
        ident="mushra",
        max_request_body_size=max_body_bytes,
        # select() would end the server at the 1024th descriptor.
        asyncore_use_poll=True,
        cleanup_interval=2,
        # `create_app` decides on these headers. Waitress would drop them, so that all listeners had one
        # address.
        clear_untrusted_proxy_headers=not behind_proxy,
        connection_limit=1_000_000,  # the limit is `_Server.most`
    )
    # This limits the system memory that a client which does not read can take.
    buffer = (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    adjustments.socket_options = [*Adjustments.socket_options, buffer]
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(threads)
    sockets: dict[int, Any] = {}
    servers = [
        _Server(app, sockets, dispatcher=dispatcher, adj=adjustments, sockinfo=where)
        for where in adjustments.listen
    ]
    most = min(MAX_CONNECTIONS, (_open_files() - _FILES_KEPT) // _FILES_EACH)
    for server in servers:
        server.most = max(10, most // len(servers))
        server.most_each = server.most if behind_proxy else min(MAX_PER_ADDRESS, server.most)
    if len(servers) == 1:
        return servers[0]
    listening = [(server.effective_host, server.effective_port) for server in servers]
    return MultiSocketServer(sockets, adjustments, listening, dispatcher, servers[0].log_info)


def _open_files() -> int:
    """Number of files that this process may have open; raises its limit as far as needed and allowed."""
    try:
        import resource
    except ImportError:  # Windows does not have this limit
        return 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = MAX_CONNECTIONS * _FILES_EACH + _FILES_KEPT
    wanted = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return enough if soft == resource.RLIM_INFINITY else soft


class _Channel(HTTPChannel):
    # The server may close a connection while the loop asks each whether it waits. If a closed one answers
    # yes, the loop waits for its file number and closes the next connection that gets this number.
    def readable(self) -> bool:
        return self.connected and bool(super().readable())

    def writable(self) -> bool:
        return self.connected and bool(super().writable())


class _Server(TcpWSGIServer):
    channel_class = _Channel
    most = MAX_CONNECTIONS
    most_each = MAX_PER_ADDRESS

    def readable(self) -> bool:
        # The loop calls this before each round of waiting, when no connection is being handled.
        self._make_room()
        return bool(super().readable())

    def maintenance(self, now: float) -> None:
        for channel in list(self.active_channels.values()):
            if now - channel.last_activity > _allowed_s(channel):
                channel.handle_close()

    def _make_room(self) -> None:
        if len(self.active_channels) <= self.most_each:
            return
        groups: dict[str, list[Any]] = defaultdict(list)
        for channel in self.active_channels.values():
            groups[_who(channel.addr[0])].append(channel)
        for group in groups.values():
            # The longest idle connection is last. Requests in the queue do not protect a connection: an
            # attacker's queue would lock out the newest connection, which has none yet.
            group.sort(key=lambda channel: channel.last_activity, reverse=True)
            while len(group) > self.most_each:
                group.pop().handle_close()
        while len(self.active_channels) > self.most:
            max(groups.values(), key=len).pop().handle_close()


def _allowed_s(channel: Any) -> float:
    """Seconds for which a connection may be idle."""
    if channel.total_outbufs_len:
        return HELD_UP_S if channel.requests else UNREAD_S
    if channel.requests:
        return 600.0  # the application is at work
    return IDLE_S if channel.request is None and channel.last_activity > channel.creation_time else REQUEST_S


def _who(address: str) -> str:
    """Key by which connections are counted: an IPv4 address, or the network of an IPv6 subscriber."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
