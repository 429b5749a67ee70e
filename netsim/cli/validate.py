"""``netsim validate``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from netsim._util.errors import UsageError, check_choice, shown
from netsim._util.options import several
from netsim._util.standard_streams import reader_may_go
from netsim._util.units import read_number, read_whole
from netsim.cli.common import all_done, is_watched, say_json, write_out
from netsim.cli.options import number, option, whole

if TYPE_CHECKING:
    from netsim.comm.worker import Sends
    from netsim.experiment.profile import Profile
    from netsim.testbed.campaign import OnProgress, Setting, Validation
    from netsim.testbed.cells import Cell

VALIDATION_FAILED = 4
DEFAULT_ALGORITHMS = "dense,topk,gtopk,ps"


def validate(
    *,
    local: Annotated[
        str | None,
        option("Build a cluster of P ranks on this machine; several with commas: 4,8,16. Not under torchrun."),
    ] = None,
    bandwidth: Annotated[
        str | None,
        option("Bandwidth of every link; several with commas. [default: 100Mbps; under torchrun it is measured]"),
    ] = None,
    sizes: Annotated[str, option("Sizes of the vector of each rank, with commas.")] = "100KB,400KB,2MB",
    exchange: Annotated[str, option("Exchanges, with commas, all or none; permutation compares single flows.")] = "all",
    algorithm: Annotated[
        str, option("Algorithms whose rounds of training are compared, with commas, all or none.")
    ] = DEFAULT_ALGORITHMS,
    rounds: Annotated[int, option("Rounds of training in one repeat.", parser=whole, metavar="N")] = 1,
    density: Annotated[float, option("Density of sparse algorithms.", parser=number, metavar="X")] = 0.01,
    repeats: Annotated[
        int, option("Repeats of every measurement; one more goes before and is not counted.", parser=whole, metavar="N")
    ] = 7,
    send_mode: Annotated[
        str | None,
        option("When a sender continues: rendezvous or eager, as in simulate. [default: eager; trees both ways]"),
    ] = None,
    shaping: Annotated[
        str, option("How links are shaped: fair (a class for each pair), or tbf (plain token buckets).")
    ] = "fair",
    trunk: Annotated[str | None, option("Make two racks with a link of this bandwidth between them.")] = None,
    placement: Annotated[str, option("Placement of ranks in two racks: contiguous or interleaved.")] = "contiguous",
    latency: Annotated[
        str | None, option("One-way latency; needs a kernel with netem. [default: the machine's own]")
    ] = None,
    tolerance: Annotated[str, option("Exit with status 4 if a relative error is larger.")] = "10%",
    profile: Annotated[
        str | None,
        option(
            "Predict with a profile of netsim calibrate, not with messages measured beside the exchanges.",
            metavar="FILE",
        ),
    ] = None,
    backend: Annotated[str, option("Backend under torchrun: gloo, nccl or mpi.")] = "gloo",
    timeout: Annotated[str, option("Timeout of an operation that waits.")] = "60s",
    out: Annotated[
        Path | None,
        option(
            "Folder for scatter plot, CSV, JSON and measurements; stored settings are not measured again.",
            metavar="FOLDER",
        ),
    ] = None,
    as_json: Annotated[bool, option("Print one JSON document instead of the table.", "--json")] = False,
) -> None:
    """Run exchanges and training over a real network, and compare their times with netsim's predictions.

    The network is a shaped cluster that --local builds on this machine or, under torchrun, the network of its job.
    """
    import typer

    from netsim._util.storage import check_outputs, made_folder
    from netsim._util.units import parse_duration
    from netsim.distributed.launch import under_launcher
    from netsim.experiment.profile import load_profile
    from netsim.testbed.campaign import conclude
    from netsim.testbed.campaign import validate as run

    config: dict[str, Any] = {
        "local": local, "bandwidth": bandwidth, "sizes": sizes, "exchange": exchange, "algorithm": algorithm,
        "rounds": rounds, "density": density, "repeats": repeats, "sends": send_mode, "shaping": shaping,
        "trunk": trunk, "placement": placement, "latency": latency, "tolerance": tolerance,
    }  # fmt: skip
    allowed, timeout_s = _tolerance(tolerance), parse_duration(timeout, "timeout")
    given_profile = None if profile is None else load_profile(profile)
    if not under_launcher() and local is None:
        raise UsageError("local is missing: say how many ranks the cluster has, such as --local 8, or use torchrun")
    settings = [] if under_launcher() else _settings(config, timeout_s)
    records = None
    if out is not None:
        records = made_folder("out", out) / "points"
        made_folder("out", records)
        files = {name: out / f"validation.{name}" for name in ("json", "csv", "svg")}
        check_outputs({f"out {name}": file for name, file in files.items()}, {"profile": profile})
    if under_launcher():
        validation = _join(config, given_profile, backend, timeout_s, allowed)
        if not validation.comparison:
            return  # rank 0 reports
    else:
        with _progress(settings, records) as on_progress:
            validation = run(settings, allowed, on_progress, records, given_profile)
    sentences = conclude(validation, allowed)
    document = validation.as_json(config, sentences)
    writes = [] if out is None else [partial(_write, out, validation, document)]
    all_done([partial(say_json, document) if as_json else partial(_render, validation, sentences), *writes])
    if any(row.verdict == "off" for row in validation.comparison):
        raise typer.Exit(VALIDATION_FAILED)


def _join(
    config: dict[str, Any], profile: Profile | None, backend: str, timeout_s: float, tolerance: float
) -> Validation:
    """Validate as one rank of torchrun's job."""
    from netsim._util.units import parse_bandwidth
    from netsim.distributed.launch import ranks_given
    from netsim.testbed.campaign import ClusterNetwork, join

    of_clusters = {"local": None, "trunk": None, "latency": None, "placement": "contiguous", "shaping": "fair"}
    for name, default in of_clusters.items():
        if config[name] != default:
            raise UsageError(f"{name} {config[name]!r} was given, but torchrun started the ranks; leave it out")
    bandwidth = None if config["bandwidth"] is None else parse_bandwidth(config["bandwidth"])
    cells = tuple(_cells(config, ranks_given()))
    return join(cells, ClusterNetwork(bandwidth, profile), backend, timeout_s, tolerance)


def _tolerance(text: str) -> float:
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    value = (read_number(number) or 0.0) / (100 if percent else 1)
    if not value > 0:
        raise UsageError(f"tolerance {shown(text)} must be more than zero; write it like 10% or 0.1")
    return value


def _settings(config: dict[str, Any], timeout_s: float) -> list[Setting]:
    """Return a setting for each number of ranks and each bandwidth."""
    from netsim._util.units import parse_bandwidth, parse_duration
    from netsim.cluster.plan import Cluster
    from netsim.testbed.campaign import Setting

    if config["repeats"] < 1:
        raise UsageError(f"repeats {config['repeats']} must be at least 1")
    settings = []
    for text in _listed(config["local"]):
        if (ranks := read_whole(text)) is None or ranks < 2:
            raise UsageError(f"local {shown(text)} must be a number of ranks, at least 2, such as 8")
        for bandwidth in _listed(config["bandwidth"] or "100Mbps"):
            cluster = Cluster(
                ranks=ranks,
                bandwidth_bps=parse_bandwidth(bandwidth),
                trunk_bps=None if config["trunk"] is None else parse_bandwidth(config["trunk"]),
                placement=config["placement"],
                shaping=config["shaping"],
                latency_s=0.0 if config["latency"] is None else parse_duration(config["latency"], "latency"),
            )
            settings.append(
                Setting(
                    cluster=cluster, cells=tuple(_cells(config, cluster.ranks, cluster.racks > 1)), timeout_s=timeout_s
                )
            )
    if not any(setting.cells for setting in settings):
        given = ", ".join(f"{name} {shown(config[name])}" for name in ("local", "bandwidth", "sizes", "exchange"))
        raise UsageError(f"nothing would be compared with {given}; name at least one of each, or an algorithm")
    return settings


def _cells(config: dict[str, Any], ranks: int, racks: bool = False) -> Iterator[Cell]:
    """Yield the cells to compare: exchanges, then training rounds. With `racks`, the default includes single flows."""
    from algorithms import ALGORITHMS
    from netsim._util.units import parse_size
    from netsim.comm.worker import SENDS
    from netsim.testbed.cells import Cell
    from netsim.testbed.exchanges import COLLECTIVES, EXCHANGES

    if config["sends"] is not None:
        check_choice("send-mode", config["sends"], SENDS)
    for size in _listed(config["sizes"]):
        usual = list(EXCHANGES) if racks else COLLECTIVES
        for name in _chosen("exchange", config["exchange"], EXCHANGES, usual):
            both: tuple[Sends, ...] = ("eager", "rendezvous") if "tree" in name else ("eager",)
            for sends in both if config["sends"] is None else (config["sends"],):
                yield Cell(name=name, bytes=parse_size(size), sends=sends, repeats=config["repeats"])
    for name in _chosen("algorithm", config["algorithm"], ALGORITHMS, list(ALGORITHMS)):
        yield _round(config, name, ranks)


def _round(config: dict[str, Any], name: str, ranks: int) -> Cell:
    """Return the cell of an algorithm's rounds."""
    from algorithms import class_of
    from netsim.comm.payload import INDEX_BYTES, VALUE_BYTES
    from netsim.experiment.configuration import Experiment
    from netsim.simulator.session import tensors_of_workload
    from netsim.testbed.cells import Cell

    experiment = Experiment.of(
        workers=ranks, algorithm=name, rounds=config["rounds"], density=config["density"], device="cpu"
    )
    elements = sum(tensors_of_workload(experiment))
    sparse = class_of(name).sparse
    nbytes = experiment.k_of(elements) * (VALUE_BYTES + INDEX_BYTES) if sparse else elements * VALUE_BYTES
    sends: Sends = config["sends"] or "eager"
    return Cell(name=name, bytes=nbytes, sends=sends, repeats=config["repeats"], experiment=experiment.config())


def _chosen(kind: str, text: str, known: Any, usual: list[str]) -> list[str]:
    from algorithms import class_of

    if text == "none":
        return []
    names = usual if text == "all" else [name for name in several(text) if name]
    for name in names:
        if kind == "algorithm":
            class_of(name)
        else:
            check_choice(kind, name.partition(":")[0], known)
    return names


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _progress(settings: list[Setting], folder: Path | None) -> Iterator[OnProgress]:
    """Print how long measuring takes. On a terminal, also show the current measurement and the time left.

    Settings that have a file in `folder` take no time.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from netsim._util.units import format_duration
    from netsim.testbed.campaign import stored_record

    console = Console(stderr=True)
    new = [setting for setting in settings if stored_record(setting.file(folder)) is None]
    seconds = sum(
        guess * (cell.repeats + 1)
        for setting in new
        for guess, cell in zip(setting.seconds(), setting.cells, strict=True)
    )
    told = f"measuring takes about {format_duration(seconds + 5 * len(new))}" if new else f"measured before: {folder}"
    console.print(told, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not is_watched(console)) as shown:
        bar = shown.add_task("starting", total=seconds)
        yield lambda what, done, total: shown.update(bar, completed=done, total=total, description=what)


def _write(out: Path, validation: Validation, document: str) -> None:
    """Write the document, the comparison as CSV, and the scatter plot into a folder."""
    from netsim.report.document import Table
    from netsim.report.drawing import Axis, Series, against
    from netsim.report.files import as_csv

    write_out(out / "validation.json", document)
    rows = [row.as_json() for row in validation.comparison]
    columns = [name for name in rows[0] if name != "measured_ci_s"]
    cells = [[*(row[name] for name in columns), *row["measured_ci_s"]] for row in rows]
    table = Table("validation", [*columns, "measured_ci_low_s", "measured_ci_high_s"], cells)
    write_out(out / "validation.csv", as_csv(table).rstrip("\n"))
    series = []
    for title in dict.fromkeys(row.title for row in validation.comparison):
        of_title = [row for row in validation.comparison if row.title == title]
        series.append(Series(title, [row.measured_s for row in of_title], [row.predicted_s for row in of_title]))
    drawing = against(series, Axis("measured (s)", 10), Axis("predicted (s)", 10))
    write_out(out / "validation.svg", drawing.rstrip("\n"))


def _render(validation: Validation, sentences: list[str]) -> None:
    """Print the comparison as a table, and the conclusion."""
    from rich.markup import escape
    from rich.table import Table

    from netsim._util.units import format_bytes, format_duration
    from netsim.report.terminal import print_table, wide_console

    rows = [
        {
            "what": escape(compared.title),
            "P": str(compared.workers),
            "network": escape(compared.network),
            "sends": compared.sends,
            "size": format_bytes(compared.bytes),
            "predicted": format_duration(compared.predicted_s),
            "measured": format_duration(compared.measured_s),
            "95 % interval": " to ".join(map(format_duration, compared.measured_ci_s)),
            "error": f"{compared.error:+.1%}",
            "": compared.verdict,
        }
        for compared in validation.comparison
    ]
    same = {name: rows[0][name] for name in ("P", "network", "sends") if len({row[name] for row in rows}) == 1}
    columns = [name for name in rows[0] if name not in same]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="left" if name in ("what", "network", "sends", "") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    console = wide_console()
    with reader_may_go():
        if same:
            console.print(
                "; ".join(f"{name}: {value}" for name, value in same.items()), highlight=False, soft_wrap=True
            )
        print_table(console, table)
        for sentence in sentences:
            console.print(escape(sentence), highlight=False, soft_wrap=True)
