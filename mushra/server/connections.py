"""Waitress, made to withstand clients that open many connections or do not read what they asked for.

Waitress accepts up to a limit, then nobody, until a connection that was idle for two minutes goes; one whose
client does not read never goes. Here the connection that has been idle longest makes room, of the address
that has most of them, so that nobody shuts out others.
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

#: Connections in all; fewer where the system allows fewer open files.
MAX_CONNECTIONS = 1000
#: Connections of one address. A class of 40 behind one router, 6 connections a browser, stays below.
MAX_PER_ADDRESS = 300
#: Bytes on the way to one client.
SEND_BUFFER = 256 * 1024
#: Files that one connection may have open: itself, what is sent, a body that does not fit into memory.
_FILES_EACH = 3
#: Files for everything else: data base, log, plots.
_FILES_KEPT = 150

#: Seconds after which a connection goes: one without a request; one whose request does not come to its end;
#: one whose client does not read its answer, with a thread waiting for it and without.
IDLE_S, REQUEST_S, UNREAD_S, HELD_UP_S = 120.0, 30.0, 60.0, 10.0


def make_server(
    app: Any, host: str, port: int, *, threads: int, max_body_bytes: int, behind_proxy: bool
) -> Any:
    """A server that listens; ``run`` it, then ``close`` it.

    Args:
        host: address to listen at. A name may stand for several.
        port: 0 takes a free one.
        threads: requests that are handled at once.
        max_body_bytes: larger bodies are refused before the application sees them.
        behind_proxy: all listeners come from one address; no limit per address then.

    Raises:
        OSError: nothing can listen there.
    """
    adjustments = Adjustments(
        host=host,
        port=port,
        threads=threads,
        ident="mushra",
        max_request_body_size=max_body_bytes,
        # select() ends the server at the 1024th descriptor.
        asyncore_use_poll=True,
        cleanup_interval=2,
        # `create_app` believes them or not; waitress would take them away, and all listeners be one address.
        clear_untrusted_proxy_headers=not behind_proxy,
        connection_limit=1_000_000,  # ours is `_Server.most`
    )
    # A client that does not read holds so much of the system's memory, not the megabytes it would give.
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
    """How many files this process may have open, after asking for as many as it may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = MAX_CONNECTIONS * _FILES_EACH + _FILES_KEPT
    wanted = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return enough if soft == resource.RLIM_INFINITY else soft


class _Channel(HTTPChannel):
    # The server closes connections while the loop asks each whether it waits for something. If a closed one
    # says yes, the loop waits for its file number, and closes the next connection that gets that number.
    def readable(self) -> bool:
        return self.connected and bool(super().readable())

    def writable(self) -> bool:
        return self.connected and bool(super().writable())


class _Server(TcpWSGIServer):
    channel_class = _Channel
    most = MAX_CONNECTIONS
    most_each = MAX_PER_ADDRESS

    def readable(self) -> bool:
        # Asked before each round of waiting, when no event of a connection is in hand.
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
            # Whoever moved longest ago stands last. A request in the queue is no better: an attacker's queue
            # would shut out the newest connection, which has none yet.
            group.sort(key=lambda channel: channel.last_activity, reverse=True)
            while len(group) > self.most_each:
                group.pop().handle_close()
        while len(self.active_channels) > self.most:
            max(groups.values(), key=len).pop().handle_close()


def _allowed_s(channel: Any) -> float:
    """Seconds that nothing may move on a connection."""
    if channel.total_outbufs_len:
        return HELD_UP_S if channel.requests else UNREAD_S
    if channel.requests:
        return 600.0  # the application is at work
    return IDLE_S if channel.request is None and channel.last_activity > channel.creation_time else REQUEST_S


def _who(address: str) -> str:
    """What connections are counted by: an IPv4 address, or the network that an IPv6 subscriber is given."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
