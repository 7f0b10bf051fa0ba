"""Ports of servers that go away and come back."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_HOW_MANY = 8000


def port_to_come_back_to() -> int:
    """Return a port of loopback that nobody else is given while its server is away.

    Outgoing connections, and servers that ask for any port, get one of the system's range: another
    program had a port of it within 15 seconds. This one lies below.
    """
    first = int(_RANGE.read_text(encoding="ascii").split()[0])
    candidates = random.SystemRandom().sample(range(first - _HOW_MANY, first), _HOW_MANY)
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"none of the {_HOW_MANY} ports below {first} is free")
