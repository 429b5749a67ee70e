"""What a validation measures: its settings and cells, from the options of ``netsim validate``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

from algorithms import ALGORITHMS, class_of
from netsim._util.errors import UsageError, check_choice, shown
from netsim._util.options import as_written
from netsim.cluster.plan import Cluster, Placement, Shaping
from netsim.comm.payload import INDEX_BYTES, VALUE_BYTES
from netsim.comm.worker import Sends
from netsim.experiment.command_options import ValidationOptions
from netsim.experiment.configuration import Experiment
from netsim.experiment.profile import Profile
from netsim.simulator.opening import shapes_of_workload
from netsim.testbed.campaign import ClusterNetwork, Setting
from netsim.testbed.cells import Cell
from netsim.testbed.exchanges import COLLECTIVES, EXCHANGES

BANDWIDTH_BPS = 100_000_000
"""Bandwidth of a shaped cluster's links, where none is given."""
OF_CLUSTERS = ("local", "trunk_bps", "latency_s", "placement", "shaping")
"""Options of a shaped cluster, which a job of torchrun cannot have."""


def settings_of(options: ValidationOptions) -> list[Setting]:
    """Return a setting for each number of ranks and each bandwidth; raise UsageError if there is nothing to compare."""
    if options.local is None:
        raise UsageError("local is missing: say how many ranks the cluster has, such as --local 8, or use torchrun")
    settings = []
    for ranks in options.local:
        for bandwidth_bps in (BANDWIDTH_BPS,) if options.bandwidth_bps is None else options.bandwidth_bps:
            cluster = Cluster(
                ranks=ranks,
                bandwidth_bps=bandwidth_bps,
                trunk_bps=options.trunk_bps,
                placement=cast(Placement, options.placement),
                shaping=cast(Shaping, options.shaping),
                latency_s=options.latency_s or 0.0,
            )
            cells = cells_of(options, cluster.ranks, racks=cluster.racks > 1)
            settings.append(Setting(cluster=cluster, cells=cells, timeout_s=options.timeout_s))
    if not any(setting.cells for setting in settings):
        written = as_written(options)
        given = ", ".join(f"{name} {shown(written[name])}" for name in ("local", "bandwidth", "sizes", "exchange"))
        raise UsageError(f"nothing would be compared with {given}; name at least one of each, or an algorithm")
    return settings


def idle_options(options: ValidationOptions, *, joined: bool) -> list[str]:
    """Return a sentence for every option that was given and had no effect; `joined`: whether under torchrun."""
    algorithms, exchanges = _chosen(options.algorithm, list(ALGORITHMS)), _chosen(options.exchange, COLLECTIVES)
    sparse = any(class_of(name).sparse for name in algorithms)
    idle = [
        (("density",) if algorithms and not sparse else (), "no algorithm selects entries"),
        (("rounds", "density") if not algorithms else (), "no round of training is compared"),
        (("sizes",) if not exchanges else (), "no exchange is compared"),
        (("backend",) if not joined else (), "a cluster of --local uses gloo; torchrun's jobs take other backends"),
    ]
    written = as_written(options)
    return [
        f"{' and '.join(f'--{name} {written[name]}' for name in given)} changed nothing: {why}."
        for names, why in idle
        if (given := options.differing(*names))
    ]


def network_of(options: ValidationOptions, profile: Profile | None) -> ClusterNetwork:
    """Return what is known of the network of torchrun's job; raise UsageError for options of a shaped cluster."""
    written = {name: value for name, value in as_written(options).items() if value is not None}
    for name in options.differing(*OF_CLUSTERS):
        option = name.removesuffix("_bps").removesuffix("_s")
        raise UsageError(f"{option} {shown(written[option])} was given, but torchrun started the ranks; leave it out")
    if options.bandwidth_bps is None:
        return ClusterNetwork(None, profile)
    if len(options.bandwidth_bps) != 1:
        raise UsageError(f"bandwidth {shown(written['bandwidth'])} must be one value: torchrun's job has one network")
    return ClusterNetwork(options.bandwidth_bps[0], profile)


def cells_of(options: ValidationOptions, ranks: int, *, racks: bool = False) -> tuple[Cell, ...]:
    """Return the cells to compare: exchanges, then training rounds. With `racks`, the default includes single flows."""
    return (*_exchanges(options, list(EXCHANGES) if racks else COLLECTIVES), *_rounds(options, ranks))


def _exchanges(options: ValidationOptions, usual: Sequence[str]) -> Iterator[Cell]:
    names = _chosen(options.exchange, usual)
    for name in names:
        check_choice("exchange", name, EXCHANGES)
    for size in options.sizes:
        for name in names:
            both: tuple[str, ...] = ("eager", "rendezvous") if "tree" in name else ("eager",)
            for sends in both if options.sends is None else (options.sends,):
                yield Cell(name=name, bytes=size, sends=cast(Sends, sends), repeats=options.repeats)


def _rounds(options: ValidationOptions, ranks: int) -> Iterator[Cell]:
    for name in _chosen(options.algorithm, list(ALGORITHMS)):
        sparse = class_of(name).sparse
        experiment = Experiment.of(
            workers=ranks, algorithm=name, rounds=options.rounds, density=options.density, device="cpu"
        )
        elements = sum(map(math.prod, shapes_of_workload(experiment)))
        nbytes = experiment.k_of(elements) * (VALUE_BYTES + INDEX_BYTES) if sparse else elements * VALUE_BYTES
        sends = cast(Sends, options.sends or "eager")
        yield Cell(name=name, bytes=nbytes, sends=sends, repeats=options.repeats, experiment=experiment.config())


def _chosen(names: Sequence[str], usual: Sequence[str]) -> Sequence[str]:
    return usual if names == ("all",) else () if names == ("none",) else names
