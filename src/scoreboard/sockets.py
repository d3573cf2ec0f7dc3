"""The kernel's side of live push: options of the listening socket, and the limit on open files.

In comes a socket before it listens; out goes the same socket, whose accepted connections inherit the options
(Linux copies them on accept). It must never fail where a platform lacks an option: that one is left out.
"""

from __future__ import annotations

import contextlib
import resource
import socket

SEND_BUFFER_BYTES = 16_384
"""The kernel's send buffer a connection. Left alone, it grows to megabytes: thousands of old frames that a
client must read before it sees the present. Linux doubles the number for its own bookkeeping."""
UNSENT_BYTES = 8_192
"""How much may wait unsent before the kernel says "full": about eight frames."""
DEAD_MILLISECONDS = 30_000
"""A peer that acknowledges nothing for so long is gone. We write at least every 20 s (the heartbeat), so this
finds every dead peer without a ping or a timer a client."""


def tune(sock: socket.socket) -> None:
    """Set the options on a listening socket, for all connections that it will accept."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _tcp(sock, "TCP_NODELAY", 1)
    _tcp(sock, "TCP_NOTSENT_LOWAT", UNSENT_BYTES)
    _tcp(sock, "TCP_USER_TIMEOUT", DEAD_MILLISECONDS)


def _tcp(sock: socket.socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if option is not None:
        # A sandbox may know the name and not the option.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def raise_file_limit() -> None:
    """Raise the soft limit on open files to the hard one: every watching client is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems (macOS) name a hard limit that they do not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
