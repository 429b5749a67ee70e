"""Rendezvous before there is a process group: how ranks meet, which are missing, and whether all agree."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

from netsim._util.errors import NetsimError, PeerSilentError, ProtocolError, UsageError, reason_of, shown
from netsim._util.system import version
from netsim._util.units import read_whole
from netsim.distributed.rank_context import CURRENT_RANK

T = TypeVar("T")
POLL_S = 0.01
"""Seconds between two looks at the store, or for a listener."""
LINGER_S = 0.5
"""Seconds for which the rank that serves the store stays after a failure, so that other ranks can read its cause."""
LAST_PORT = 2**16 - 1
MAY_DIFFER = ("data_dir", "command")
"""Keys of a configuration that may differ from host to host."""


_KEPT: list[Any] = []
"""Stores in files, kept until this process ends, since deleting one waits for the lock of its file."""


def rendezvous(init_method: str, rank: int, world_size: int, timeout_s: float) -> tuple[Any, bool]:
    """Return the store through which the ranks meet, and whether this rank serves it.

    Parameters
    ----------
    init_method
        ``file://PATH``, or ``env://`` for the address that torchrun gives.
    rank, world_size
        This rank, and the number of ranks.
    timeout_s
        Seconds after which waiting fails.

    Raises
    ------
    UsageError
        If rank, address or network interface are impossible.
    PeerSilentError
        If no rank listens at the address within the timeout.
    """
    from torch._C import _distributed_c10d as stores  # torch.distributed does not export these classes

    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is not one of a world of {world_size}: RANK must be 0 to WORLD_SIZE - 1")
    if init_method.startswith("file://"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        file = stores.FileStore(init_method.removeprefix("file://"), world_size)
        file.set_timeout(timedelta(seconds=timeout_s))
        _KEPT.append(file)
        return file, False
    address, port = meeting_place()
    if is_loopback(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    check_interfaces()
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = rank == 0 and not agents
    if not serves:
        wait_for_listener(address, port, timeout_s)
    store = stores.TCPStore(
        address,
        port,
        is_master=serves,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
        master_listen_fd=in_time(timeout_s, listener, address, port) if serves else None,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return stores.PrefixStore(f"netsim/attempt-{attempt}", store), serves


def meeting_place() -> tuple[str, int]:
    """Return the address and the port that torchrun gives for the rendezvous."""
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not address or not port:
        raise UsageError("MASTER_ADDR and MASTER_PORT must say where ranks meet, as torchrun sets them")
    port_number = read_whole(port)
    if port_number is None or not 0 < port_number <= LAST_PORT:
        raise UsageError(
            f"MASTER_PORT {shown(port)} must be a port that ranks can meet at, 1 to {LAST_PORT}, such as 29500"
        )
    try:
        address.encode("idna")
    except UnicodeError:
        raise UsageError(f"MASTER_ADDR {shown(address)} is not a host's name or address") from None
    return address, port_number


def check_interfaces() -> None:
    """Raise UsageError if GLOO_SOCKET_IFNAME names a network interface that this machine does not have."""
    requested = os.environ.get("GLOO_SOCKET_IFNAME", "")
    existing = [name for _, name in socket.if_nameindex()]
    if missing := [name for name in requested.split(",") if name and name not in existing]:
        raise UsageError(
            f"GLOO_SOCKET_IFNAME {shown(missing[0])} is no network interface here; there are {', '.join(existing)}"
        )


def in_time(timeout_s: float, function: Callable[..., T], *args: Any) -> T:
    """Call a function that may never return, such as one that asks a name service.

    Parameters
    ----------
    timeout_s
        Seconds to wait for its result.
    function, args
        The function and its arguments; the first argument is an address.

    Raises
    ------
    PeerSilentError
        After the timeout.
    """
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(function(*args))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        return result.result(timeout_s)
    except TimeoutError:
        raise PeerSilentError(
            f"{CURRENT_RANK}: nothing is known of {args[0]} within {timeout_s:g} s; is MASTER_ADDR right?", 0
        ) from None


def wait_for_listener(address: str, port: int, timeout_s: float) -> None:
    """Wait until a process listens at an address; raise PeerSilentError after the timeout.

    torch has such a wait, which was seen to take three times its timeout.
    """
    deadline, why = time.monotonic() + timeout_s, ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            in_time(left, socket.create_connection, (address, port), left).close()
        except (OSError, PeerSilentError) as error:  # no listener yet, or no entry in the name service yet
            why = f" ({reason})" if (reason := getattr(error, "strerror", None)) else ""
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
        else:
            return
    raise PeerSilentError(
        f"{CURRENT_RANK}: nobody to meet at {address}:{port} within {timeout_s:g} s{why}; is rank 0 there?", 0
    )


def is_loopback(address: str) -> bool:
    """Return whether an address is a loopback address."""
    return address in ("localhost", "::1") or address.startswith("127.")


def listener(address: str, port: int) -> int:
    """Return the descriptor of a socket that listens at one address; torch's own would listen at all."""
    try:
        family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as error:
        raise NetsimError(
            f"{CURRENT_RANK}: cannot listen at {address}:{port} ({reason_of(error)}); "
            "MASTER_ADDR must be an address of rank 0's host, and MASTER_PORT free there"
        ) from error
    listening.listen(512)
    return listening.detach()


def verify_config(
    store: Any, rank: int, world_size: int, timeout_s: float, config: Mapping[str, Any], serves: bool = False
) -> None:
    """Wait until every rank has published its configuration, and compare them.

    Parameters
    ----------
    store
        The store through which the ranks meet.
    rank, world_size
        This rank, and the number of ranks.
    timeout_s
        Seconds to wait.
    config
        The configuration of this rank.
    serves
        Whether this rank serves the store. A serving rank stays until all ranks have published or the time is up, so
        that the others can read which configuration differs.

    Raises
    ------
    ProtocolError
        If a rank's configuration differs.
    PeerSilentError
        If a rank publishes no configuration in time.
    """
    mine = json.loads(json.dumps({"world size": world_size, "netsim": version()} | dict(config)))
    store.set(f"claim-{rank}", json.dumps(mine))
    missing, mismatch = list(range(world_size)), ""
    deadline = time.monotonic() + timeout_s
    while missing and time.monotonic() < deadline and not (mismatch and not serves):
        for other in [peer for peer in missing if store.check([f"claim-{peer}"])]:
            missing.remove(other)
            if difference := _difference("", mine, json.loads(store.get(f"claim-{other}"))):
                mismatch = mismatch or f"rank {other} has {difference}; all ranks must be started alike"
        time.sleep(POLL_S)
    if serves and (mismatch or missing):
        time.sleep(LINGER_S)
    if mismatch:
        raise ProtocolError(f"{CURRENT_RANK}: {mismatch}")
    if missing:
        raise PeerSilentError(
            f"{CURRENT_RANK}: rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))} did not come within "
            f"{timeout_s:g} s; did all start, with the same world size?",
            missing[0],
        )


def _difference(name: str, mine: Any, theirs: Any) -> str:
    """Return in words the first difference between two configurations; an empty text if there is none."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            if key in MAY_DIFFER:
                continue
            if difference := _difference(key, mine.get(key), theirs.get(key)):
                return difference
        return ""
    return "" if mine == theirs else f"{name} {theirs!r}, this rank {mine!r}"
