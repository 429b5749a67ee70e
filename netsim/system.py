"""What a result depends on besides its configuration: versions and hardware."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

DISTRIBUTION = "netsim-dsgd"
"""Our name on package indexes, where "netsim" is somebody else's."""


def version() -> str:
    """Return the installed version, or "unknown" in a checkout that was not installed."""
    try:
        return installed_version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def environment(device: str | None) -> dict[str, Any]:
    """Return versions and hardware; `device` is where gradients were computed, None if nowhere."""
    found: dict[str, Any] = {"netsim": version(), "python": platform.python_version(), "machine": platform.machine()}
    if device is not None:
        import torch

        found |= {
            "torch": torch.__version__,
            "device": device,
            "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }
    return found


def surroundings() -> dict[str, str]:
    """Return in words what a study was run with: versions of what decides its numbers, and the machine."""
    versions = [f"Python {platform.python_version()}"]
    for name in ("torch", "numpy", "scikit-learn"):
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {installed_version(name)}")
    return {"versions": ", ".join(versions), "hardware": f"{_processor()}, {os.cpu_count()} cores"}


def _processor() -> str:
    """Return the processor's name where Linux tells it, and else its kind."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
