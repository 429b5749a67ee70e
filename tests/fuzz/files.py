"""Files that netsim reads: networks, flows, studies, profiles, validations, kept points, checkpoints and data sets."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import pickle
import shlex
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz import pools
from tests.fuzz.law import Case, Ran, of_command

TINY = (
    "--workload tests.tiny:tiny --workers 2 --rounds 2 --batch-size 4 --compute-time 1ms --select-time 1ms "
    "--merge-time 1ms --k 3"
)


def _case(path: Path, content: bytes, command: str, *named: str, more: Sequence[str] = ()) -> Case:
    """Return the case of a command that reads a file of this content; FILE in the command stands for its path."""
    arguments = [str(path) if each == "FILE" else each for each in command.split()] + list(more)

    def call() -> Ran:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return of_command(arguments)

    shown = f"netsim {shlex.join(arguments)} with {path.name} = {content!r}"
    return Case(shown, call, [path.stem, "topology", "flows", *named])


@cache
def _networks() -> list[tuple[str, bytes]]:
    """Return valid files of networks, by their suffix."""
    from netsim.experiment.configuration import Experiment
    from topologies.export import FORMATS

    names = [
        "star",
        "ps",
        "ring",
        "torus:sides=2x2",
        "tree:fan-out=2",
        "racks:size=2,oversubscription=2",
        "wan:sites=2",
        "machines:gpus=2,pcie=1Gbps,ceiling=1Gbps",
    ]
    fabrics = [
        Experiment.of(topology=name, workers=4, timing_only=True, elements=1).fabric(everywhere=True) for name in names
    ]
    return [
        (f".{suffix}", "".join(FORMATS[suffix](each)).encode()) for each in fabrics for suffix in ("json", "graphml")
    ]


def valid_network(suffix: str) -> bytes:
    """Return a file of a network, ``.json`` or ``.graphml``."""
    return next(content for each, content in _networks() if each == suffix)


def networks(random: Random, folder: Path) -> Case:
    """Return a file of a network with something wrong in it, shown or simulated."""
    suffix, content = random.choice(_networks())
    if suffix == ".json" and pools.chance(random, 0.7):
        content = pools.as_json(pools.spoilt_tree(random, json.loads(content)))
    elif pools.chance(random, 0.3):
        content = pools.spoilt(random, content.decode()).encode("utf-8", "surrogatepass")
    elif pools.chance(random, 0.95):
        content = pools.spoilt_bytes(random, content)
    shown = ["topology show FILE", "topology show FILE --json", "topology export FILE"]
    run = "simulate --topology FILE --timing-only --elements 100 --workers 2 --json"
    return _case(folder / f"network{suffix}", content, random.choice([*shown, run]))


FORMATS = {
    ".graphml": """<graphml><key attr.name="LinkSpeedRaw" attr.type="double" for="edge" id="d0"/>
<key attr.name="Latitude" attr.type="double" for="node" id="d1"/>
<key attr.name="label" attr.type="string" for="edge" id="d2"/>
<graph edgedefault="directed"><node id="0"><data key="d1">48.5</data></node><node id="1"/><node id="2"/>
<edge source="0" target="1"><data key="d0">2500000000.0</data></edge><edge source="0" target="1"/>
<edge source="2" target="1"><data key="d2">10 Gbps</data></edge></graph></graphml>""",
    ".gml": """graph [ directed 0 multigraph 1 node [ id 0 label "a" Latitude 1.5 Longitude -2 Internal 1 ]
node [ id 1 label "b" Latitude 9 Longitude 2 ] node [ id 2 label "b" Internal 0 ] # a comment
edge [ source 0 target 1 LinkSpeedRaw 1000000000.0 ] edge [ source 0 target 1 LinkLabel "OC-3" ]
edge [ source 1 target 2 dist 12.5 ] ]""",
    ".json": '{"directed": false, "nodes": [{"id": 0, "name": "a", "pos": [1.5, 2]}, {"id": "1", "pos": [3, 4]}], '
    '"edges": [{"source": 0, "target": 1, "dist": 9.5, "ecmp_fwd": {"uni": 1.0}}]}',
    ".txt": "4 1 3\n3\n0 3 100Gbps 1us 0\n1 3 25Gb/s 1000ns 0.01\n2 3 100Gbps 0.001ms 0\n",
    ".yml": "topology: [ Ring, Switch ]\nnpus_count: [ 3, 2 ]\nbandwidth: [ 2.0, 50 ]  # x\nlatency: [ 5.0, 2e3 ]\n",
    ".xml": """<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1"><zone id="z" routing="Full">
<host id="a" speed="1Gf"/><host id="b" speed="1Gf"/><router id="r"/><link id="l" bandwidth="1MBps" latency="1ms"/>
<link id="p" bandwidth="1Gbps" latency="0" sharing_policy="FATPIPE"/><cluster id="c" prefix="n" suffix=""
radical="0-1,4" speed="1Gf" bw="125MBps" lat="50us" bb_bw="1GBps" bb_lat="1ms" router_id="g"/>
<route src="a" dst="r"><link_ctn id="l" direction="UP"/></route><route src="r" dst="b"><link_ctn id="p"/></route>
<zoneRoute src="z" dst="c" gw_src="r" gw_dst="g"><link_ctn id="l"/></zoneRoute></zone></platform>""",
    ".csv": ",paris,tokyo\nparis,,110ms 500Mbps\ntokyo,120ms 1 Gbps,\n",
}
"""A small valid file of every format of other programs, by its ending."""
SNDLIB = """<network xmlns="http://sndlib.zib.de/network" version="1.0"><networkStructure>
<nodes coordinatesType="geographical"><node id="A"><coordinates><x>18.6</x><y>54.2</y></coordinates></node>
<node id="B"><coordinates><x>-17.9</x><y>53.1</y></coordinates></node></nodes>
<links><link id="L"><source>A</source><target>B</target></link></links></networkStructure></network>"""


def formats(random: Random, folder: Path) -> Case:
    """Return a file of a network in the format of another program, with something wrong in it, shown or simulated."""
    suffix = random.choice([*FORMATS])
    content = (SNDLIB if suffix == ".xml" and pools.chance(random, 0.4) else FORMATS[suffix]).encode()
    if suffix == ".json" and pools.chance(random, 0.5):
        content = pools.as_json(pools.spoilt_tree(random, json.loads(content)))
    elif pools.chance(random, 0.4):
        words = content.decode().split(" ")
        words[random.randrange(len(words))] = random.choice([pools.number(random), pools.text(random), "", words[0]])
        content = " ".join(words).encode("utf-8", "surrogatepass")
    elif pools.chance(random, 0.4):
        content = pools.spoilt(random, content.decode()).encode("utf-8", "surrogatepass")
    elif pools.chance(random, 0.95):
        content = pools.spoilt_bytes(random, content, 2)
    hosts = random.choice(["", "", ":hosts=2"])
    command = random.choice(
        ["topology show", "topology show --json", "simulate --timing-only --elements 9 --json --topology"]
    )
    command = f"{command} {folder / f'network{suffix}'}{hosts} --workers 2"
    return _case(folder / f"network{suffix}", content, command)


TRACE = {
    "traceEvents": [
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "ts": 0.5, "dur": 1000.0, "args": {}},
        {"ph": "X", "cat": "user_annotation", "name": "Optimizer.step#SGD.step", "ts": 900, "dur": 50},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 9, "dur": 5, "args": {"correlation": 1}},
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 20, "dur": 300, "args": {"correlation": 1}},
        *(
            {"ph": "X", "cat": "cpu_op", "name": "torch::autograd::AccumulateGrad", "ts": at, "dur": 9.5,
             "args": {"Input Dims": [[3, side]]}}
            for at, side in ((400, 1), (600, 2))
        ),
    ]
}  # fmt: skip


def profiler_traces(random: Random, folder: Path) -> Case:
    """Return a trace of torch.profiler with something wrong in it, simulated with."""
    content = pools.as_json(pools.spoilt_tree(random, TRACE))
    if pools.chance(random, 0.2):
        content = gzip.compress(content, mtime=0)
    if pools.chance(random, 0.3):
        content = pools.spoilt_bytes(random, content, 2)
    name = random.choice(["trace.json", "trace.json.gz"])
    command = "simulate --timing-only --elements 9 --workers 2 --overlap 12B --json --algorithm dense --ready FILE"
    return _case(folder / name, content, command, "ready", "trace")


HOSTS = ["worker0", "worker1", "worker2", "worker3", "server", "switch"]


def _table(random: Random) -> bytes:
    """Return a file of flows, in one of the forms that programs write, some cells of it wrong."""
    if pools.chance(random, 0.15):
        text = "2\n0 1 3 100 1048576 0\n1 2 3 100 1000000 0.5\n"
        return pools.spoilt_bytes(random, pools.spoilt(random, text).encode("utf-8", "surrogatepass"), 2)
    table = [random.choice([["src", "dst", "bytes", "start_s"], ["Src", "DST", "Bytes", "start_s"]])]
    for _ in range(random.randrange(5)):
        ends = [random.choice(HOSTS[:4]) for _ in range(2)]
        table.append([*ends, str(random.randrange(1, 10**6)), f"{random.random() / 100}"])
    for _ in range(random.randrange(3)):
        row = random.choice(table)
        wrong = [pools.number(random), pools.text(random), pools.quantity(random), random.choice(HOSTS)]
        row[random.randrange(len(row))] = random.choice(wrong)
    comma, end = random.choice([",", ",", ",", ";", "\t", ", "]), random.choice(["\n", "\n", "\r\n", "\r"])
    lines = [comma.join(f'"{cell}"' if pools.chance(random, 0.1) else cell for cell in row) for row in table]
    encoding = random.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin1"])
    content = (end.join(lines) + end).encode(encoding, "replace")
    return pools.spoilt_bytes(random, content, 2) if pools.chance(random, 0.3) else content


def flows(random: Random, folder: Path) -> Case:
    """Return a CSV file of flows for ``netsim flows``."""
    topology = random.choice(["star", "ring", "tree:fan-out=2", "racks:size=2"])
    more = random.choice(["", "--json", "--sharing rtt --json"])
    return _case(folder / "traffic.csv", _table(random), f"flows --topology {topology} --flows FILE --workers 4 {more}")


def background(random: Random, folder: Path) -> Case:
    """Return a CSV file of other jobs' flows for ``netsim simulate``."""
    algorithm = random.choice(["dense", "gtopk", "ps"])
    command = f"simulate --timing-only --elements 1000 --workers 4 --background FILE --json --algorithm {algorithm}"
    return _case(folder / "traffic.csv", _table(random), command)


STUDIES = [
    'study = "sweep"\n[settings.fixed]\ntiming_only = true\nelements = 1000\nworkers = 4\n[settings.vary]\n'
    'algorithm = ["dense", "gtopk"]\nbandwidth = ["1Gbps", "10Gbps"]\n',
    'study = "scaling"\n[settings]\nworkers = [2, 4, 8, 16]\nalgorithms = ["dense", "topk:gather=bruck"]\nseed = 0\n'
    'topologies = ["star"]\nbandwidths = ["1Gbps"]\ndensities = [0.01]\nlatency = "50us"\nmodel = "resnet50"\n'
    'exact_up_to = 256\n',
    'study = "time-to-accuracy"\n[settings]\ndata = "digits"\nrounds = 150\ntarget = 0.85\nseeds = [0]\nlr = 0.1\n'
    'algorithms = ["dense", "sasg"]\nbandwidths = ["1Gbps"]\ncompute_time = "5ms"\n',
    'study = "gtopk-paper"\n[settings]\ntasks = ["fc-mnist:digits"]\nrounds = [10]\nratios = [100]\nseeds = [0]\n'
    'residual_workers = [4]\nresidual_splits = ["iid"]\nworkers = 4\n',
    'study = "sasg-paper"\n[settings]\nworkload = "digits-mlp"\ndata = "digits"\nmix = "none"\nrounds = 10\nlr = 0.1\n'
    'lr_decay_at = "5"\ndensities = [0.01]\nseeds = [0]\n',
]  # fmt: skip


STUDY_WORDS = ["stud", "set", "option", "elements", "workload", "timing_only", "algorithm", "rounds", "workers"]
"""One of these is in an error about a setting, which need not name the file."""


def spoilt_toml(random: Random, text: str) -> bytes:
    """Return a TOML file, lines of it with other values or keys, or spoilt as any text or file is."""
    lines = text.splitlines()
    for _ in range(random.randrange(4)):
        at = random.randrange(len(lines))
        key, equals, value = lines[at].partition(" = ")
        match random.randrange(6):
            case 0 if equals:
                lines[at] = f"{key} = {toml(pools.hostile(random))}"
            case 1 if equals:
                lines[at] = f"{key} = [{value}, {toml(pools.hostile(random))}]"
            case 2 if equals:
                lines[at] = f"{json.dumps(pools.text(random))} = {value}"
            case 3:
                del lines[at]
                lines = lines or [""]
            case 4 if equals:
                lines[at] = f"{key} = {pools.spoilt(random, value)}"
            case _:
                lines.insert(at, random.choice(lines))
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return pools.spoilt_bytes(random, content, 2) if pools.chance(random, 0.15) else content


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {toml(each)}' for key, each in value.items())} }}"
    return '""' if value is None else json.dumps(value)


@cache
def _code_versions_known() -> None:
    """Have the code of every study hashed, which takes seconds, once and beside the time of any input."""
    from netsim.study_engine.store import Store
    from studies import STUDIES, load_study

    for name in STUDIES:
        Store(Path(), load_study(name).measure)


def studies(random: Random, folder: Path) -> Case:
    """Return a TOML file of a study, planned."""
    _code_versions_known()
    sets = []
    for _ in range(random.choice([0, 0, 0, 1, 2])):
        usual = ["workers", "vary.algorithm", "fixed.elements", "seeds", "rounds", "lr", "target", pools.text(random)]
        sets += ["--set", f"{random.choice(usual)}={pools.spoilt(random, '2,4,8')}".replace("\0", "")]
    command = random.choice(["study FILE --dry-run", "study FILE --dry-run --json"])
    return _case(folder / "study.toml", spoilt_toml(random, random.choice(STUDIES)), command, *STUDY_WORDS, more=sets)


PROFILE = """format = 1

[provenance]
kind = "MEASURED"
date = "2026-11-01T12:00:00Z"
command = "netsim calibrate"
where = "loopback"
backend = "gloo"
ranks = 2
netsim = "0.1.0"
python = "3.11"
torch = "2.6"
kernel = "6.0"
machine = "x86"
cores = 2
load = 0.1

[link]
fixed_s = 2e-05
each_s = 8e-10
residual_median = 0.01
residual_worst = 0.02
free_bytes = 0.0
nominal_bps = 1e10
efficiency = 0.95
points = [
  { size = 4, seconds = 2e-05, low_s = 1e-05, high_s = 3e-05, repeats = 5, residual = 0.01 },
]

[message]
fixed_s = 1e-05
each_s = 1e-10
residual_median = 0.01
residual_worst = 0.02

[work.select_exact]
fixed_s = 1e-05
entry_s = 1e-09
element_s = 1e-09
residual_median = 0.01
residual_worst = 0.02

[work.add_all]
fixed_s = 1e-05
entry_s = 1e-09
element_s = 1e-09
residual_median = 0.01
residual_worst = 0.02

[step]
workload = "digits-mlp"
batch_size = 16
elements = 1126410
seconds = 0.002
repeats = 5
"""


def profiles(random: Random, folder: Path) -> Case:
    """Return a profile, simulated with."""
    algorithm = random.choice(["dense", "topk,gtopk"])
    command = f"simulate --timing-only --elements 1000 --workers 2 --profile FILE --json --algorithm {algorithm}"
    return _case(folder / "profile.toml", spoilt_toml(random, PROFILE), command)


TABLE = """# Collective test starting: all_reduce_perf
#  Rank  0 Group  0 Pid   4711 on      node0 device  0 [0x00] NVIDIA L40S
#  Rank  1 Group  0 Pid   4712 on      node1 device  0 [0x01] NVIDIA L40S
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
        1024           256     float     sum      -1    21.02    0.05    0.05      0    21.02    0.05    0.05      0
     1048576        262144     float     sum      -1   1068.6    0.98    0.98      0   1068.6    0.98    0.98      0
"""
OSU_TABLE = """# OSU MPI Bandwidth Test v7.5
# Datatype: MPI_CHAR.
# Size      Bandwidth (MB/s)
1024                   800.10
1048576               1200.50
"""
RUN = {
    "args": ["all_reduce_perf"],
    "config": {"nthreads": 1, "ngpus": 2, "devices": [{"rank": 0, "group": 0, "hostname": "n", "device_info": "H100"}]},
    "results": [
        {"size": 1024, "out_of_place": {"time": 21.0, "nwrong": 0}, "in_place": {"time": 21.0, "nwrong": None}},
        {"size": 1048576, "out_of_place": {"time": 1068.0, "nwrong": 0}, "in_place": None},
    ],
}


def tables(random: Random, folder: Path) -> Case:
    """Return the output of another program's benchmark, for ``netsim calibrate``."""
    if pools.chance(random, 0.4):
        content = pools.as_json(pools.spoilt_tree(random, RUN))
    else:
        content = pools.spoilt(random, random.choice([TABLE, OSU_TABLE])).encode("utf-8", "surrogatepass")
    if pools.chance(random, 0.2):
        content = pools.spoilt_bytes(random, content, 2)
    more = random.choice(["", "--workers 3", "--collective sendrecv", "--algorithm dense-tree", "--bandwidth 1Gbps"])
    return _case(folder / "table.txt", content, f"calibrate --from FILE --out p.toml --json {more}", *TABLE_WORDS)


TABLE_WORDS = ["from", "workers", "collective", "algorithm"]
"""One of these is in an error about a table."""

VALIDATION = {
    "schema": "netsim.validation/1",
    "environment": {"hardware": "a machine", "cores": 2},
    "conclusion": ["All agree."],
    "comparison": [
        {"kind": "exchange", "title": "ring", "workers": 4, "bytes": 1000, "network": "100 Mbit/s", "predicted_s": 0.1,
         "measured_s": 0.11, "measured_ci_s": [0.1, 0.12], "error": 0.1, "verdict": "agrees"},
        {"kind": "round", "title": "gTop-k", "workers": 4, "bytes": 1000, "network": "100 Mbit/s", "predicted_s": 0.2,
         "measured_s": 0.21, "measured_ci_s": [0.2, 0.22], "error": 0.1, "verdict": "off"},
    ],
}  # fmt: skip


def validations(random: Random, folder: Path) -> Case:
    """Return a file of ``netsim validate``, for ``netsim recommend``."""
    content = pools.as_json(pools.spoilt_tree(random, VALIDATION))
    if pools.chance(random, 0.2):
        content = pools.spoilt_bytes(random, content)
    command = "recommend --workers 2 --compute-time 1ms --elements 1000 --algorithm dense,gtopk --density 0.1 --jobs 1"
    return _case(folder / "validation.json", content, f"{command} --validation FILE --json")


@cache
def _kept(folder: Path) -> dict[str, bytes]:
    """Return the kept points of a tiny study, by name."""
    _code_versions_known()
    file, out = folder / "tiny.toml", folder / "kept"
    file.write_text(STUDIES[0].replace('["1Gbps", "10Gbps"]', '["1Gbps"]'))
    ran = of_command(["study", str(file), "--out", str(out), "--jobs", "1"])
    assert ran.code == 0, ran.err
    return {path.name: path.read_bytes() for path in sorted((out / "points").glob("*.json"))}


def points(random: Random, folder: Path) -> Case:
    """Return kept points of a study, one of them damaged or forged: it is measured again, and the study goes on."""
    kept = _kept(folder)
    name = random.choice(list(kept))
    tree = json.loads(kept[name])
    if pools.chance(random, 0.4):
        tree["outcome"] = pools.spoilt_tree(random, tree["outcome"])
        try:
            text = json.dumps(
                tree["outcome"], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
            )
            tree["sha256"] = hashlib.sha256(text.encode()).hexdigest()  # whoever forges a point can seal it, too
        except (ValueError, UnicodeEncodeError):
            pass
        content = pools.as_json(tree)
    elif pools.chance(random, 0.5):
        content = pools.as_json(pools.spoilt_tree(random, tree))
    else:
        content = pools.spoilt_bytes(random, kept[name])
    path = folder / "kept" / "points" / name
    command = f"study {folder / 'tiny.toml'} --out {folder / 'kept'} --jobs 1 --resume --json"
    return _case(path, content, command, "kept", "point")


@cache
def valid_checkpoint(folder: Path, algorithm: str) -> bytes:
    """Return a checkpoint of a run that was interrupted after a round."""
    import netsim

    path = folder / f"{algorithm}.whole"

    def interrupt(name: str, step: int) -> None:
        if step == 1:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"workload": "tests.tiny:tiny", "workers": 2, "rounds": 2, "batch_size": 4, "k": 3}
    options |= {"compute_time": "1ms", "select_time": "1ms", "merge_time": "1ms", "algorithm": algorithm}
    with contextlib.suppress(KeyboardInterrupt):
        netsim.simulate(checkpoint=path, checkpoint_every=1, on_round=interrupt, **options)
    return path.read_bytes()


def checkpoints(random: Random, folder: Path) -> Case:
    """Return a checkpoint that is damaged, or forged under a checksum that is right, resumed."""
    algorithm = random.choice(["gtopk", "sasg", "dense"])
    content = valid_checkpoint(folder, algorithm)
    if pools.chance(random, 0.6):
        content = _forged(random, content)
    elif pools.chance(random, 0.95):
        content = pools.spoilt_bytes(random, content)
    command = f"simulate {TINY} --algorithm {algorithm} --checkpoint FILE --resume --json"
    return _case(folder / "run.ckpt", content, command)


def _forged(random: Random, content: bytes) -> bytes:
    """Return a checkpoint with other contents, and the checksum of those."""
    import torch

    line, _, body = content.partition(b"\n")
    header = json.loads(line)
    where = random.randrange(3)
    if where == 0:
        schema, sha256 = header["schema"], header["sha256"]
        header = pools.spoilt_tree(random, header)
        if isinstance(header, dict) and pools.chance(random, 0.8):
            header |= {"schema": schema, "sha256": sha256}
    elif where == 1:
        held = torch.load(io.BytesIO(body), weights_only=True)
        held = _spoilt_body(random, held)
        saved = io.BytesIO()
        torch.save(held, saved)
        body = saved.getvalue()
    else:
        body = pools.spoilt_bytes(random, body)
    if not isinstance(header, dict) or not isinstance(header.get("sha256"), str):
        return json.dumps(header).encode() + b"\n" + body
    line = json.dumps(header | {"sha256": "0" * 64}).encode() + b"\n"
    digest = hashlib.sha256(line + body).hexdigest().encode()
    return line.replace(b"0" * 64, digest, 1) + body


def _spoilt_body(random: Random, value: Any) -> Any:
    """Return what a checkpoint holds with one thing in it, at any depth, replaced or taken out."""
    import torch

    if not isinstance(value, dict | list | tuple) or not value or pools.chance(random, 0.1):
        tensors = [torch.zeros(0), torch.zeros(3, 3), torch.zeros(83), torch.full((83,), float("nan"))]
        others = [torch.zeros(83, dtype=torch.int64), (0,), (99,), (-1,), [(0,)]]
        return random.choice([pools.hostile(random), *tensors, *others])
    if isinstance(value, dict):
        key = random.choice(list(value))
        if pools.chance(random, 0.15):
            return {name: each for name, each in value.items() if name != key}
        if pools.chance(random, 0.1):
            return value | {pools.text(random): value[key]}
        return value | {key: _spoilt_body(random, value[key])}
    items = list(value)
    at = random.randrange(len(items))
    match random.randrange(8):
        case 0:
            del items[at]
        case 1:
            items.insert(at, items[at])
        case _:
            items[at] = _spoilt_body(random, items[at])
    return type(value)(items)


def data(random: Random, folder: Path) -> Case:
    """Return the files of a data set, one of them damaged, loaded."""
    from netsim.training.workloads.data import DATA
    from netsim.training.workloads.data.load import load

    name = random.choice(["mnist", "cifar10", "cifar100", "ptb"])
    home = folder / name
    whole = _data_files(name)
    wrong = random.choice(list(whole))
    content = whole[wrong]
    if wrong.endswith(".gz") and pools.chance(random, 0.5):
        content = gzip.compress(pools.spoilt_bytes(random, gzip.decompress(content)), mtime=0)
    elif pools.chance(random, 0.9):
        content = pools.spoilt_bytes(random, content)

    def call() -> None:
        for file, original in whole.items():
            path = home / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if file == wrong else original)
        load(name, DATA[name].shape, 0, home)

    return Case(f"{name} with {wrong} = {content[:300]!r}…", call, [wrong.removesuffix(".gz").rpartition("/")[2]])


@cache
def _data_files(name: str) -> dict[str, bytes]:
    """Return the files of a data set with very few samples."""
    drawn = np.random.default_rng(0)
    if name == "mnist":
        files = {}
        for part in ("train", "t10k"):
            images, labels = drawn.integers(0, 256, (3, 28, 28), np.uint8), drawn.integers(0, 10, 3, np.uint8)
            files[f"mnist/{part}-images-idx3-ubyte"] = struct.pack(">HBB3I", 0, 8, 3, 3, 28, 28) + images.tobytes()
            files[f"mnist/{part}-labels-idx1-ubyte"] = struct.pack(">HBBI", 0, 8, 1, 3) + labels.tobytes()
        packed = files.pop("mnist/train-images-idx3-ubyte")
        return files | {"mnist/train-images-idx3-ubyte.gz": gzip.compress(packed, mtime=0)}
    if name == "ptb":
        return {f"ptb/ptb.{part}.txt": b" the cat <unk> sat on a mat \n" * 40 for part in ("train", "test")}
    folder, parts, key = {
        "cifar10": ("cifar-10-batches-py", [*(f"data_batch_{each}" for each in range(1, 6)), "test_batch"], b"labels"),
        "cifar100": ("cifar-100-python", ["train", "test"], b"fine_labels"),
    }[name]
    batch = {b"data": drawn.integers(0, 256, (2, 3072), np.uint8), key: [0, 1]}
    return {f"{folder}/{part}": pickle.dumps(batch, protocol=2) for part in parts}
