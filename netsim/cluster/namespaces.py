"""Network namespaces without names, which leave nothing behind.

A process makes a namespace by entering it, and keeps it by an open file descriptor. When the process that holds the
descriptors ends, however it ends, the kernel removes the namespaces with their cables and bridges.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from netsim._util.errors import InfeasibleError, NetsimError
from netsim.cluster import plan
from netsim.cluster.plan import Cluster

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
TOOL_FOLDERS = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Search path of `ip` and `tc`: the PATH of ordinary users often lacks the last two folders."""
TOOL_S = 60.0
"""Timeout of one call of `ip` or `tc`, in seconds: more than any cluster needs."""
SETTINGS = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv4/tcp_no_metrics_save": "1",
    "ipv4/tcp_wmem": "4096 33554432 33554432",
}
"""Kernel settings of a host's namespace.

Only the ranks send (no IPv6), no connection starts with what an earlier one learned, and send buffers hold a whole
message. By default send buffers grow from 0.1 to 4 MB as a connection ages."""
FILTERS = ("iptables", "ip6tables", "arptables")
"""Firewalls that a bridge consults for every frame; a cluster has no rules, so they are switched off."""


def become_owner() -> None:
    """Enter a new network namespace that this process owns; an ordinary user gets a user namespace, too.

    The process must have one thread.

    Raises
    ------
    InfeasibleError
        With the reason, where the kernel refuses or a tool is missing.
    """
    if sys.platform != "linux":
        raise InfeasibleError("a shaped cluster is made of network namespaces, which only Linux has")
    for tool in ("ip", "tc"):
        if which(tool, path=TOOL_FOLDERS) is None:
            raise InfeasibleError(f"the command {tool!r} is missing; install iproute2")
    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid == 0:
            try:
                _unshare(CLONE_NEWNET)
            except OSError:  # root of a container, without the right
                _unshare(CLONE_NEWUSER | CLONE_NEWNET)
                _map_root(uid, gid)
        else:
            _unshare(CLONE_NEWUSER | CLONE_NEWNET)
            _map_root(uid, gid)
    except OSError as error:
        raise InfeasibleError(
            f"this kernel refuses user and network namespaces ({error.strerror}): look at "
            "/proc/sys/user/max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns, "
            "or run as root in a container that is allowed to"
        ) from None


def _map_root(uid: int, gid: int) -> None:
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny")
    (process / "uid_map").write_text(f"0 {uid} 1")
    (process / "gid_map").write_text(f"0 {gid} 1")


def _unshare(flags: int) -> None:
    _call("unshare", flags)


def enter(namespace: int) -> None:
    """Move this thread, and the processes that it starts from now on, into the network namespace of a descriptor."""
    _call("setns", namespace, CLONE_NEWNET)


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _here() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def within(namespace: int) -> Iterator[None]:
    """Enter a namespace, and return to the present one at the end."""
    before = _here()
    try:
        enter(namespace)
        yield
    finally:
        enter(before)
        os.close(before)


def build(cluster: Cluster) -> list[int]:
    """Build the cluster; the namespace that this process owns gets the switches.

    Returns
    -------
    list of int
        A file descriptor for the namespace of each rank's host; open descriptors keep the namespaces alive.

    Raises
    ------
    InfeasibleError
        If the cluster has latency, and the kernel no netem.
    NetsimError
        If `ip` or `tc` fails.
    """
    if cluster.latency_s and not has_netem():
        raise InfeasibleError(
            f"a latency of {cluster.latency_s * 1e3:g} ms was asked for, but this kernel has no netem "
            "(CONFIG_NET_SCH_NETEM); leave --latency out"
        )
    switches = _here()
    hosts = []
    for _ in range(cluster.ranks):
        _unshare(CLONE_NEWNET)
        hosts.append(_here())
    enter(switches)
    os.close(switches)
    _set({f"bridge/bridge-nf-call-{table}": "0" for table in FILTERS})
    _tool("ip", plan.cables(cluster, [f"/proc/{os.getpid()}/fd/{namespace}" for namespace in hosts]))
    for rank, namespace in enumerate(hosts):
        with within(namespace):
            _set(SETTINGS | {"ipv4/tcp_min_tso_segs": str(cluster.gso_segments)})
            _tool("ip", plan.host(cluster, rank))
            _tool("tc", plan.host_shaping(cluster, rank))
    _tool("tc", plan.switch_shaping(cluster))
    return hosts


def _set(settings: dict[str, str]) -> None:
    """Change kernel settings of this thread's namespace, as far as this kernel has them."""
    for setting, value in settings.items():
        if (path := Path("/proc/sys/net") / setting).exists():
            path.write_text(value)


def has_netem() -> bool:
    """Return whether this kernel can delay packets; to be called in a namespace that this process owns."""
    command = [which("tc", path=TOOL_FOLDERS) or "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _tool(name: str, commands: str) -> None:
    """Run `ip` or `tc` on a batch of commands."""
    command = [which(name, path=TOOL_FOLDERS) or name, "-batch", "-"]
    try:
        done = subprocess.run(command, input=commands, capture_output=True, text=True, timeout=TOOL_S)
    except subprocess.TimeoutExpired:
        raise NetsimError(f"the shaped cluster could not be built: {name} was not done in {TOOL_S:g} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise NetsimError(f"the shaped cluster could not be built: {name} said {said!r}; try netsim doctor")
