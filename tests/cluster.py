"""Whether this kernel lets the tests build a shaped cluster."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys

PROBE = """
from netsim.cluster.namespaces import become_owner, build
from netsim.cluster.plan import Cluster
from netsim._util.errors import NetsimError
try:
    become_owner()
    build(Cluster(ranks=2, bandwidth_bps=100_000_000))
except NetsimError as error:
    print(error)
"""


@functools.cache
def why_no_cluster() -> str:
    """Return why a shaped cluster cannot be built here, an empty text if it can."""
    if shutil.which("nsenter") is None:
        return "the command 'nsenter' is missing; install util-linux"
    return subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout.strip()
