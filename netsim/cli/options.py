"""The command line's options that several commands share, each said once.

A template is a function whose parameters are the options; :func:`takes` gives them to a command, which
receives their values as ``**options``, under the names that
:meth:`netsim.experiment.configuration.Experiment.of` takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from netsim._util.errors import shown
from netsim._util.units import read_number, read_whole

Command = TypeVar("Command", bound=Callable[..., None])


def option(text: str, *names: str, **others: Any) -> Any:
    """Return the description of an option; its name is the parameter's unless `names` says otherwise."""
    return typer.Option(*names, help=text, **others)


def whole(text: str) -> int:
    """Return the whole number that `text` writes."""
    value = read_whole(str(text))  # typer hands over defaults, too
    if value is None:
        raise typer.BadParameter(f"{shown(text)} is not a whole number of at most 18 digits; write it like 8")
    return value


def number(text: str) -> float:
    """Return the number that `text` writes; who takes it says of what is not finite which option it is."""
    value = read_number(str(text))
    if value is None and str(text).strip().lower().removeprefix("-") in ("nan", "inf", "infinity"):
        return float(text)
    if value is None:
        raise typer.BadParameter(f"{shown(text)} is not a finite number; write it like 0.1")
    return value


def links(
    bandwidth: Annotated[
        str | None,
        option("Of every link, each way: 1Gbps, 100Mbit/s, 25GiB/s. [default: that of a --profile, or 1Gbps]"),
    ] = None,
    latency: Annotated[
        str | None, option("One way, host to host across one switch: 50us. [default: that of a --profile, or 50us]")
    ] = None,
    bandwidth_scale: Annotated[
        float, option("Multiply the bandwidth of every link by this, also where a file or keys decide it.")
    ] = 1.0,
    latency_scale: Annotated[float, option("Multiply the latency of every link by this, likewise.")] = 1.0,
    fan_out: Annotated[int, option("Children of a switch in a tree.")] = 8,
) -> None:
    """Template: the links of the simulated network, as far as its topology does not decide them."""


def network(
    profile: Annotated[
        str | None, option("File of netsim calibrate: what was measured of network and hosts, unless said here.")
    ] = None,
    sharing: Annotated[
        str, option("Of a link by flows: maxmin (alike), or rtt (by 1 / latency of their routes).")
    ] = "maxmin",
) -> None:
    """Template: the rest of the simulated network."""


def effects(
    protocol: Annotated[str, option("ideal, or tcp: headers, connections, slow start.")] = "ideal",
    initial_window: Annotated[int, option("tcp: segments that slow start begins with.")] = 10,
    connections: Annotated[
        str, option("tcp: established, or opened at a round trip per-pair of hosts or per-message.")
    ] = "established",
    switching: Annotated[str, option("ideal (a message flows), cut-through or store-and-forward.")] = "ideal",
    message_overhead: Annotated[str | None, option("Time that a message takes each of its hosts: 20us.")] = None,
    byte_cost: Annotated[str | None, option("Time that each byte of a message takes both hosts: 0.1ns.")] = None,
    compute_jitter: Annotated[
        str | None, option("Factor on a worker's compute times, by step: lognormal:0.2, exponential:0.5, uniform:0.1.")
    ] = None,
    straggler: Annotated[
        str | None, option("3:2.5 (worker 3 is 2.5 times slower), 5%:4 (one step in 20), or several with commas.")
    ] = None,
    latency_jitter: Annotated[str | None, option("Factor on a message's latency: lognormal:0.5, for example.")] = None,
    background: Annotated[
        str | None, option("Traffic of others: a load on every link, like 0.3, or a CSV file of src,dst,bytes,start_s.")
    ] = None,
    background_size: Annotated[
        str, option("Of their flows: exponential:1MB, fixed:100kB, lognormal:1MB:1.5.")
    ] = "exponential:1MB",
    link_event: Annotated[
        str | None, option("'worker3->switch@0.5s=100Mbps' (or =down, =up; <-> both ways); several with commas.")
    ] = None,
) -> None:
    """Template: what slows real networks, each off unless asked for."""


def algorithms(
    algorithm: Annotated[
        str,
        option(
            "dense, dense-tree, topk, gtopk, gtopk-naive, gtopk-hier, randk, ps, ps-topk, lag, lasg-wk1, lasg-wk2, "
            "lasg-ps, sasg; several with commas."
        ),
    ] = "dense,topk,gtopk,ps",
    sends: Annotated[
        str | None,
        option(
            "When a sender goes on: acknowledged (its receiver has the message) or eager (at once, so the next message "
            "shares the link). [default: acknowledged in simulations, eager for real]"
        ),
    ] = None,
    topology: Annotated[
        str,
        option(
            "star, ps, ring, torus, tree, racks, fat-tree, dragonfly or wan, with keys, such as fat-tree:k=8; or a "
            "file: FILE.json, FILE.graphml."
        ),
    ] = "star",
    placement: Annotated[str, option("Of ranks on hosts: given, locality, cyclic or random.")] = "given",
    group_size: Annotated[
        int | None, option("gtopk-hier: consecutive ranks of a group. [default: the topology's racks]")
    ] = None,
    density: Annotated[
        float | None, option("Fraction of entries that sparse algorithms select. [default: 0.001]")
    ] = None,
    k: Annotated[int | None, option("Number of entries that sparse algorithms select.", "--k")] = None,
    per_tensor: Annotated[
        bool, option("Sparse algorithms: apply the density to each tensor by itself.", "--per-tensor")
    ] = False,
    select: Annotated[
        str, option("exact, sampled (at most k) or threshold (about k); randk draws at random.")
    ] = "exact",
    density_warmup: Annotated[
        int, option("Rounds in which the density of sparse algorithms falls from 1/4 to its value.")
    ] = 0,
    residual: Annotated[str, option("gtopk: keep-at-merge or index-intersection.")] = "keep-at-merge",
    gather: Annotated[str, option("topk: ring or doubling (recursive doubling).")] = "ring",
    serial_server: Annotated[
        bool, option("ps, ps-topk, lag, lasg, sasg: the server receives one worker after another.", "--serial-server")
    ] = False,
    overlap: Annotated[
        str | None,
        option(
            "Exchange gradients while backward goes on, in buckets of up to 25MB (or another size), last layers first; "
            "or tensor, a bucket for each. k is then per bucket."
        ),
    ] = None,
    history: Annotated[int, option("lag, lasg, sasg: D, the movements that the rule looks back at.")] = 10,
    delay: Annotated[int | None, option("lag, lasg, sasg: skips that force an upload. [default: D]")] = None,
    alpha: Annotated[
        float | None, option("lag, lasg, sasg: a movement weighs alpha / γ. [default: sasg 0.5, others 0.1 / γ]")
    ] = None,
) -> None:
    """Template: which algorithms, and how they exchange."""


def training(
    workload: Annotated[
        str,
        option(
            "digits-mlp, fc-mnist, resnet20, vgg16, resnet18, lstm-ptb, lstm-an4, char-lstm, or your own "
            "module:factory; its module may lie in the current folder, which is looked at after everything installed."
        ),
    ] = "digits-mlp",
    data: Annotated[
        str | None,
        option(
            "digits, mnist, fashion-mnist, cifar10, cifar100, ptb, python-docs, synthetic, or two with +. "
            "[default: the workload's]"
        ),
    ] = None,
    data_dir: Annotated[str | None, option("Folder that holds the data sets.")] = None,
    split: Annotated[str, option("Of the data over workers: iid, dirichlet:ALPHA, by-class or mix.")] = "iid",
    sampling: Annotated[str, option("Mini-batches: random, or epochs (nothing twice before all once).")] = "random",
    batch_size: Annotated[int, option("Samples of a worker's mini-batch.")] = 16,
    rounds: Annotated[int | None, option("Steps of training. [default: 5, or 1 with --timing-only]")] = None,
    lr: Annotated[float, option("Learning rate γ.")] = 0.1,
    lr_warmup: Annotated[int, option("Rounds in which the learning rate grows to its value.")] = 0,
    lr_decay: Annotated[float, option("What the learning rate is multiplied by at each of --lr-decay-at.")] = 0.1,
    lr_decay_at: Annotated[str | None, option("Rounds, with commas.")] = None,
    momentum: Annotated[float, option("Heavy-ball momentum on the sum, as in torch.optim.SGD.")] = 0.0,
    momentum_correction: Annotated[
        bool,
        option(
            "Sparse algorithms: apply the momentum at each worker, before selection (DGC). Dense ones keep it on the "
            "sum; sasg has none.",
            "--momentum-correction",
        ),
    ] = False,
    weight_decay: Annotated[
        float, option("Multiple of the parameters added to each worker's gradient, after it is clipped.")
    ] = 0.0,
    clip: Annotated[
        float | None, option("Largest norm of a worker's own gradient, cut as by torch's clip_grad_norm_.")
    ] = None,
    aggregate: Annotated[str, option("Whether workers' vectors are averaged (mean) or added (sum).")] = "mean",
    eval_every: Annotated[int, option("Rounds between evaluations on the test set, for --metrics; 0: none.")] = 0,
    seed: Annotated[int, option("Of everything random.")] = 0,
    device: Annotated[str, option("Where gradients are computed: auto, cpu, cuda or cuda:0.")] = "auto",
) -> None:
    """Template: what is trained, and how."""


def charges(
    compute_time: Annotated[str | None, option("Charge this a step, ASSUMED, not measured: 60ms.")] = None,
    select_time: Annotated[str | None, option("Charge this a selection, ASSUMED, not measured.")] = None,
    merge_time: Annotated[str | None, option("Charge this a merge or sum, ASSUMED, not measured.")] = None,
    ready: Annotated[
        str | None,
        option(
            "--overlap: when buckets are there: measured, elements (ASSUMED; elements:0.5 if forward takes half, not a "
            "third), or each one's share of the compute time, 0.5,0.8,1. [default: measured where compute times are]"
        ),
    ] = None,
    timing_only: Annotated[bool, option("No data, no gradients: only times and bytes.", "--timing-only")] = False,
    elements: Annotated[int | None, option("With --timing-only: elements of the gradient.")] = None,
    model: Annotated[
        str | None,
        option(
            "With --timing-only, the tensors of a known model: alexnet, vgg16, resnet18, resnet50, resnet101, vit-b16, "
            "bert-base, bert-large, gpt2, gpt2-medium, gpt2-large, gpt2-xl, lstm-ptb or lstm-an4."
        ),
    ] = None,
) -> None:
    """Template: what computing is charged in simulated time."""


def long_runs(
    metrics: Annotated[
        Path | None,
        option(
            "Write what the papers argue with, a row a step, to this file: .csv or .jsonl. With --resume it "
            "starts anew, with the step after the checkpoint."
        ),
    ] = None,
    checkpoint: Annotated[Path | None, option("Save what the run needs to go on to this file.")] = None,
    checkpoint_every: Annotated[
        int | None, option("Rounds between checkpoints, at which workers wait for each other. [default: rounds / 10]")
    ] = None,
    trace: Annotated[
        Path | None,
        option("Write what went on, instant by instant, to this file (.json or .json.gz); ui.perfetto.dev opens it."),
    ] = None,
    resume: Annotated[bool, option("Go on from --checkpoint, with the same options.", "--resume")] = False,
) -> None:
    """Template: what a long run writes on the way."""


def output(
    as_json: Annotated[bool, option("Print one JSON document instead of the table.", "--json")] = False,
    out: Annotated[Path | None, option("Also write the JSON document to this file.")] = None,
) -> None:
    """Template: where the result goes."""


def _parse_strictly(hint: Any) -> None:
    """Have numbers read by :func:`whole` and :func:`number`, whose errors name the value."""
    if get_origin(hint) is not Annotated:
        return  # a template says what it is
    kind, *described = get_args(hint)
    kinds = get_args(kind) or (kind,)
    for parser, wanted, metavar in ((whole, int, "N"), (number, float, "X")):
        if wanted in kinds:
            described[0].parser, described[0].metavar = parser, metavar


def takes(*templates: Callable[..., Any]) -> Callable[[Command], Command]:
    """Give a command the options of `templates` after its own."""

    def decorate(command: Command) -> Command:
        parameters: dict[str, inspect.Parameter] = {}
        sources: list[Callable[..., Any]] = [command, *templates]
        for source in sources:
            hints = get_type_hints(source, include_extras=True)
            for name, parameter in inspect.signature(source).parameters.items():
                if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                    _parse_strictly(hints[name])
                    parameters[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        return command

    return decorate
