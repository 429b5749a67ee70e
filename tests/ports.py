"""A TCP port of this machine's loopback for a test that must name one before anybody listens."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a free port below 32768, where the ports begin that Linux gives to programs that ask for any."""
    while True:
        port = random.SystemRandom().randint(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
