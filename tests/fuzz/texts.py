"""Texts that are read in one call: quantities, distributions, events,
topologies with keys; and options from Python."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

from netsim._util.options import several
from netsim._util.random_streams import Jitter, Straggler
from netsim._util.units import (
    format_bandwidth,
    format_bytes,
    format_duration,
    parse_bandwidth,
    parse_duration,
    parse_size,
)
from netsim.experiment.configuration import Experiment
from netsim.network.changes import LinkEvent
from netsim.network.cross_traffic import Sizes
from netsim.training.overlap import Ready, check_bucket
from netsim.training.workloads.splits import parse_split
from tests.fuzz import pools
from tests.fuzz.law import Case
from topologies import TOPOLOGIES, build
from topologies.builder import Shape
from topologies.spec import keys_of

READERS: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "bandwidth": (lambda text: format_bandwidth(parse_bandwidth(text)), ("1Gbps", "100Mbit/s", "25GiB/s")),
    "duration": (lambda text: format_duration(parse_duration(text)), ("50us", "1.5ms", "2s", "1h")),
    "time": (partial(parse_duration, zero=True), ("0s", "50us")),
    "size": (lambda text: format_bytes(parse_size(text)), ("100MB", "64KiB", "1B")),
    "sizes": (Sizes.of, ("exponential:1MB", "fixed:100kB", "lognormal:1MB:1.5")),
    "jitter": (lambda text: Jitter.of(text, "jitter"), ("lognormal:0.2", "exponential:0.5", "uniform:0.1")),
    "straggler": (Straggler.several, ("3:2.5", "5%:4", "0:2,5%:4")),
    "link event": (LinkEvent.several, ("worker3->switch@0.5s=100Mbps", "a<->b@1s=down,a<->b@2s=up")),
    "bucket": (check_bucket, ("25MB", "tensor")),
    "ready": (Ready.of, ("measured", "elements:0.5", "0.5,0.8,1")),
    "split": (parse_split, ("iid", "dirichlet:0.5", "by-class", "mix")),
    "list": (several, ("star,ring", "star:up=1Gbps,down=2Gbps,ring")),
}


def units(random: Random, folder: Path) -> Case:
    """Return a text to be read as a quantity or what else has a small language of its own."""
    name = random.choice(list(READERS))
    read, valid = READERS[name]
    draw = random.choice([pools.quantity, pools.quantity, lambda random: pools.spoilt(random, random.choice(valid)),
                          pools.text])  # fmt: skip
    text = draw(random)
    return Case(f"{name} {text!r}", lambda: _only(read, text), _parts(text))


def _only(call: Callable[..., Any], *arguments: Any) -> None:
    call(*arguments)


def _parts(text: str) -> list[str]:
    """Return what a message holds that shows `text`: the beginning of it or of a part, as Python writes it."""
    parts = [repr(part.strip())[1:-1][:8].rstrip("\\") for part in (*re.split("[,:=@]", text), *text.split(","))]
    return [repr(text)[:8].rstrip("\\"), *(part or "''" for part in parts)]


@cache
def _keys() -> dict[str, list[str]]:
    return {name: list(keys_of(function)) for name, function in TOPOLOGIES.items()}


def topology(random: Random) -> str:
    """Return the text of a topology with keys, mostly of the kind that each takes."""
    name = random.choice(list(TOPOLOGIES))
    if pools.chance(random, 0.1):
        name = pools.spoilt(random, name)
    keys = _keys().get(name, ["hash"])
    items = []
    for key in random.sample(keys, random.randrange(min(3, len(keys)) + 1)):
        if pools.chance(random, 0.05):
            key = pools.spoilt(random, key)
        usual = [str(random.randrange(1, 9)), f"{random.randrange(1, 5)}x{random.randrange(1, 5)}",
                 f"{pools.number(random)}Gbps",
                 f"{pools.number(random)}us", "1Gbps", "10ms", "2"]  # fmt: skip
        value = random.choice(usual) if pools.chance(random, 0.7) else random.choice([pools.number, pools.quantity,
            pools.text])(random)  # fmt: skip
        items.append(f"{key}={value}")
    return f"{name}:{','.join(items)}" if items else name


def keys(random: Random, folder: Path) -> Case:
    """Return a topology with keys, to be built for a few workers and routed."""
    text = topology(random)
    if pools.chance(random, 0.2):
        text = pools.spoilt(random, text)
    workers = random.choice([1, 2, 4, 8, 16])

    def call() -> None:
        options = Experiment.of(topology=text, workers=workers, timing_only=True, elements=1, k=1)
        fabric = options.fabric(everywhere=True)
        if workers <= 4 and len(fabric.hosts) > 1:
            hosts = list(fabric.hosts)
            fabric.route(hosts[0], hosts[-1])

    return Case(f"topology {text!r} for {workers} workers", call)


SCALARS: list[Any] = [*pools.HOSTILE, object(), len, b"x", (1,), {1}, range(3), complex(1), Path("x"), float, Ellipsis]


@cache
def _numpy() -> list[Any]:
    import numpy as np

    return [np.float64(0.1), np.int64(4), np.array([1]), np.array(2), np.array([1.0, 2.0]), np.bool_(True),
            np.str_("star"),
            np.float32("nan"), np.array([]), np.array(["x"])]  # fmt: skip


def options(random: Random, folder: Path) -> Case:
    """Return options of an experiment from Python, some of them of another kind than they should be."""
    names = [*inspect.signature(Experiment).parameters, "bandwidth", "latency", "algorithm", "lr", "compute_time",
             "background",
             "straggler", "link_event", "message_overhead", "protocol", "mtu", "window", "streams", "stream_rate",
             "clear_to_send", "host_ceiling"]  # fmt: skip
    given: dict[str, Any] = {"timing_only": True, "elements": 10}
    for name in random.sample(names, random.randrange(1, 4)):
        given[name] = random.choice([*SCALARS, *_numpy(), pools.text(random), pools.quantity(random), topology(random)])
    return Case(f"Experiment.of(**{given!r})", lambda: _only(lambda: Experiment.of(**given)))


def networks_built(random: Random) -> Any:
    """Return a small network of a topology, for files."""
    name = random.choice(
        [
            "star",
            "ring",
            "tree:fan-out=2",
            "racks:size=2",
            "ps",
            "torus:sides=2x2",
            "wan:sites=2",
            "machines:gpus=2,pcie=1Gbps",
        ]
    )
    return build(name, Shape(random.choice([2, 3, 4]), 10**9, 50e-6))
