"""A run that is interrupted and resumed ends as if nothing had happened; a file that changed is refused."""

from __future__ import annotations

import copy
import json
import random
import shlex
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import netsim
from algorithms import ALGORITHMS, with_options
from netsim.cli.main import main
from netsim.comm.payload import Dense, Vector
from netsim.comm.worker import Worker
from netsim.simulator.checkpoint import SCHEMA, Checkpoint, CheckpointState
from netsim.training.algorithm import Convergence, State
from netsim.training.costs import MeasuredCosts
from netsim.training.loop import Trained
from tests.engines import without_the_way
from tests.test_signals import disguised

ROOT = Path(__file__).parent.parent
TINY: dict[str, Any] = {
    "workload": "tests.tiny:tiny",
    "workers": 3,
    "batch_size": 4,
    "rounds": 9,
    "k": 5,
    "compute_time": "3ms",
    "select_time": "1ms",
    "merge_time": "100us",
}
EVERY = 2
SASG = "sasg:history=2,alpha=1"
LAZY = [name for name, kind in ALGORITHMS.items() if kind.convergence is Convergence.STALE]


def asked(name: str) -> str:
    """The algorithm, with rules that skip within nine rounds if it has any."""
    return with_options(name, history=2, alpha=1.0)


VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"algorithm": asked(name)} for name in ALGORITHMS},
    "lag": {"algorithm": "lag:history=2,alpha=20"},
    **{f"{name} with momentum": {"algorithm": asked(name), "momentum": 0.9} for name in ("dense", "topk", "sasg")},
    "gtopk corrected": {"algorithm": "gtopk", "momentum": 0.9, "momentum_correction": True},
    "gtopk intersected": {"algorithm": "gtopk:residual=index-intersection", "topology": "tree", "fan_out": 2},
    **{f"{name} with a host of its own": {"algorithm": asked(name), "topology": "ps"} for name in ("ps", *LAZY)},
    "local-sgd in steps": {"algorithm": "post-local-sgd:h=3,start=4", "momentum": 0.9},
    "diloco in steps": {"algorithm": "diloco:h=3"},
    "streaming-diloco in steps": {"algorithm": "streaming-diloco:h=4,fragments=2,tau=3"},
    "lag of sizes": {"algorithm": "lag:history=2", "timing_only": True, "elements": 100, "workload": "digits-mlp"},
    "gtopk of sizes": {"algorithm": "gtopk", "timing_only": True, "elements": 100, "workload": "digits-mlp"},
}
QUICK = [
    "dense", "topk", "gtopk", "sasg", "ps-signsgd", "oktopk", "powersgd", "sasg with momentum", "gtopk corrected",
    "streaming-diloco in steps", "lag of sizes",
]  # fmt: skip
"""A variant of each kind of memory; the others are slow tests."""


def interrupt_at(algorithm: str, step: int) -> Any:
    def on_round(name: str, ended: int) -> None:
        if (name, ended) == (algorithm, step):
            raise KeyboardInterrupt

    return on_round


def interrupted(path: Path, options: dict[str, Any], step: int, algorithm: str | None = None, **others: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        netsim.simulate(
            checkpoint=path, on_round=interrupt_at(algorithm or options["algorithm"], step), **TINY | options, **others
        )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of gTop-k after four of nine rounds."""
    path = tmp_path / "run.ckpt"
    interrupted(path, {"algorithm": "gtopk"}, 5, checkpoint_every=EVERY)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in VARIANTS]
)
def test_a_resumed_run_ends_as_if_it_had_not_been_interrupted(tmp_path: Path, variant: str) -> None:
    """Its report is the same to the last byte, and its metrics are those of the later steps."""
    options = VARIANTS[variant]
    whole = netsim.simulate(
        checkpoint=tmp_path / "whole", checkpoint_every=EVERY, metrics=tmp_path / "whole.jsonl", **TINY | options
    )
    everything = rows(tmp_path / "whole.jsonl")
    for step in (2, 3, 7, 8):
        path, metrics = tmp_path / str(step), tmp_path / f"{step}.jsonl"
        interrupted(path, options, step, checkpoint_every=EVERY, metrics=metrics)
        resumed = netsim.simulate(checkpoint=path, resume=True, metrics=metrics, **TINY | options)
        assert resumed.to_json() == whole.to_json()
        assert rows(metrics) == [row for row in everything if row["step"] >= step // EVERY * EVERY]


def test_the_mean_of_the_gradients_norm_goes_on_where_it_was(tmp_path: Path) -> None:
    """The mean at step 6 has the evaluations of steps 0, 3 and 6, two of them from before the interrupt."""
    options = {"algorithm": "dense", "eval_every": 3}
    netsim.simulate(
        checkpoint=tmp_path / "whole", checkpoint_every=EVERY, metrics=tmp_path / "whole.jsonl", **TINY | options
    )
    interrupted(tmp_path / "path", options, 4, checkpoint_every=EVERY, metrics=tmp_path / "path.jsonl")
    netsim.simulate(checkpoint=tmp_path / "path", resume=True, metrics=tmp_path / "path.jsonl", **TINY | options)
    everything, resumed = rows(tmp_path / "whole.jsonl"), rows(tmp_path / "path.jsonl")
    assert resumed == everything[4:]
    norms = [everything[step]["gradient_norm_sq"] for step in (0, 3, 6)]
    assert resumed[2]["gradient_norm_sq_mean"] == pytest.approx(sum(norms) / 3)
    assert norms[0] != pytest.approx(norms[2])


def test_what_is_resumed_includes_skips(tmp_path: Path) -> None:
    """Otherwise the lazy methods above would not have had anything but uploads to remember."""
    for name in LAZY:
        (result,) = netsim.simulate(**TINY | VARIANTS[name]).results
        assert result.uploads < TINY["workers"] * TINY["rounds"]


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    options = {"algorithm": f"dense,{SASG},gtopk"}
    whole = netsim.simulate(checkpoint=tmp_path / "whole", checkpoint_every=1, **TINY | options)
    path = tmp_path / "path"
    interrupted(path, options, 1, "dense", checkpoint_every=1)
    for algorithm, step in [("dense", 4), (SASG, 0), (SASG, 8), ("gtopk", 1), ("gtopk", 2)]:
        interrupted(path, options, step, algorithm, resume=True)
    told: list[tuple[str, int]] = []
    resumed = netsim.simulate(
        checkpoint=path, resume=True, on_round=lambda *round: told.append(round), **TINY | options
    )
    assert resumed.to_json() == whole.to_json()
    assert told == [("gtopk", step) for step in range(2, 9)]
    again = netsim.simulate(checkpoint=path, resume=True, on_round=interrupt_at("dense", 0), **TINY | options)
    assert again.to_json() == whole.to_json()


def test_an_interrupt_before_the_first_checkpoint_leaves_no_file(tmp_path: Path) -> None:
    interrupted(tmp_path / "path", {"algorithm": "topk"}, 1, checkpoint_every=EVERY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rounds", "every"), [(9, 1), (25, 2), (100, 10)])
def test_a_tenth_of_the_rounds_by_default(tmp_path: Path, rounds: int, every: int) -> None:
    netsim.simulate(checkpoint=tmp_path / "path", timing_only=True, elements=10, rounds=rounds, algorithm="dense")
    assert Checkpoint.read(tmp_path / "path").every == every


def test_only_times_depend_on_checkpoints(tmp_path: Path) -> None:
    """Ranks wait for each other at each; parameters, bytes and uploads are those of a run without."""
    options = TINY | {"algorithm": f"gtopk,{SASG}"}
    plain = netsim.simulate(**options)
    waiting = netsim.simulate(checkpoint=tmp_path / "path", checkpoint_every=EVERY, **options)
    rare = netsim.simulate(checkpoint=tmp_path / "rare", checkpoint_every=100, **options)
    assert list(map(without_the_way, rare.results)) == list(map(without_the_way, plain.results))
    for before, after in zip(plain.results, waiting.results, strict=True):
        assert after.round_time_s >= before.round_time_s
        for same in ("parameters_sha256", "final_loss", "bytes_sent_by_rank", "uploads", "value_bits_up", "bits_down"):
            assert before[same] == after[same]


def test_measured_charges_are_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run measures nothing again that was measured before the checkpoint."""
    options = {"algorithm": "gtopk,dense"} | dict.fromkeys(("compute_time", "select_time", "merge_time"))

    def measure(restart: bool) -> None:
        ticks = iter(range(10**9, 10**12, 12345))
        monkeypatch.setattr(
            MeasuredCosts, "_time", lambda *_: next(ticks) if restart else pytest.fail("it measured again")
        )

    measure(True)
    whole = netsim.simulate(checkpoint=tmp_path / "whole", checkpoint_every=1, **TINY | options)
    measure(True)
    interrupted(tmp_path / "path", options, 7, "dense", checkpoint_every=1)
    measure(False)
    resumed = netsim.simulate(checkpoint=tmp_path / "path", resume=True, **TINY | options)
    assert resumed.to_json() == whole.to_json()


def test_a_run_that_moves_to_another_machine_says_so(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsim.api.simulation.environment", lambda _: {"cpu_capability": "OTHER"})
    report = netsim.simulate(checkpoint=saved, resume=True, algorithm="gtopk", **TINY)
    assert report.environment["cpu_capability"] == "OTHER"
    (before,) = report.environment["resumed_from"]
    assert before["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


# What is shared stays shared.


def pairs(before: Any, after: Any) -> list[tuple[Any, Any]]:
    """Return all objects of two memories that correspond to each other, after comparing plain values."""
    assert type(before) is type(after)
    if isinstance(before, torch.Tensor):
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
        return []
    if isinstance(before, tuple):
        return [pair for both in zip(before, after, strict=True) for pair in pairs(*both)]
    if is_dataclass(before):
        parts = [(getattr(before, each.name), getattr(after, each.name)) for each in fields(before)]
        return [(before, after), *(pair for both in parts for pair in pairs(*both))]
    assert before == after
    return []


@pytest.mark.parametrize("variant", VARIANTS)
def test_objects_that_ranks_share_are_shared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    options = VARIANTS[variant]
    kept: dict[int, Trained] = {}
    save = Checkpoint.save

    def keep(self: Checkpoint, algorithm: str, standing: CheckpointState, workers: list[Worker]) -> None:
        kept.clear()
        kept.update(copy.deepcopy(standing.trained))  # what follows works on residuals where they are
        save(self, algorithm, standing, workers)

    monkeypatch.setattr(Checkpoint, "save", keep)
    interrupted(tmp_path / "path", options, 7, checkpoint_every=EVERY)
    workers = [Worker(rank, 3, max(2, len(kept) - 1)) for rank in kept]
    links: Any = [None] * 100
    loaded = Checkpoint.read(tmp_path / "path").state(options["algorithm"], workers, links, "cpu")
    assert loaded.step == 6
    assert loaded.trained.keys() == kept.keys()
    assert len({id(trained.parameters) for trained in loaded.trained.values()}) == 1
    found = [pair for rank in kept for pair in pairs(kept[rank], loaded.trained[rank])]
    assert len({id(before) for before, _ in found}) == len({id(after) for _, after in found})
    assert len({(id(before), id(after)) for before, after in found}) == len({id(before) for before, _ in found})


def test_the_file_holds_what_is_shared_once(tmp_path: Path) -> None:
    """Eight workers with a residual each and parameters in common: 9 d float32."""
    size, workers = 100_000, [Worker(rank, 8) for rank in range(8)]
    parameters = Dense(torch.randn(size))
    memory = ALGORITHMS["gtopk"].remembers[0]
    trained = {rank: Trained(parameters, State(memory(Dense(torch.randn(size))), None)) for rank in range(8)}
    Checkpoint(tmp_path / "path", {}, 1).save("gtopk", CheckpointState(1, Counter(), trained), workers)
    assert 9 * 4 * size < (tmp_path / "path").stat().st_size < 9 * 4 * size + 20_000


def test_what_a_round_replaced_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the checkpoint nor the segment before holds on to residuals: memory stays at P·d."""
    held: dict[int, list[weakref.ref[Any]]] = {}
    save = Checkpoint.save

    def watch(self: Checkpoint, algorithm: str, standing: CheckpointState, workers: list[Worker]) -> None:
        residuals = [trained.state.memory.residual for trained in standing.trained.values()]
        held[standing.step] = [weakref.ref(residual) for residual in residuals]
        save(self, algorithm, standing, workers)

    def on_round(_: str, step: int) -> None:
        if step - 1 in held:
            seen.extend(residual() for residual in held[step - 1])

    monkeypatch.setattr(Checkpoint, "save", watch)
    seen: list[object] = []
    netsim.simulate(checkpoint=tmp_path / "path", checkpoint_every=3, on_round=on_round, algorithm="gtopk", **TINY)
    assert seen == [None] * 6


def test_a_memory_that_no_algorithm_lists_is_named(tmp_path: Path) -> None:
    class Secret(NamedTuple):
        residual: Vector

    trained = {0: Trained(Dense(torch.zeros(3)), State(Secret(Dense(torch.zeros(3))), None))}
    with pytest.raises(netsim.NetsimError, match=r"Secret.*`remembers`"):
        Checkpoint(tmp_path / "path", {}, 1).save("gtopk", CheckpointState(1, Counter(), trained), [Worker(0, 1)])


# Files that changed, or belong to another run.


def refused(path: Path, **options: Any) -> netsim.NetsimError:
    with pytest.raises(netsim.NetsimError) as error:
        netsim.simulate(checkpoint=path, resume=True, **TINY | {"algorithm": "gtopk"} | options)
    assert "\n" not in str(error.value)
    assert repr(str(path)) in str(error.value)
    return error.value


def test_every_bit_counts(saved: Path) -> None:
    """One bit flipped anywhere, and all bits of some bytes: in the header, in between, in the body."""
    content = saved.read_bytes()
    header = content.index(b"\n") + 1
    draw = random.Random(1)
    places = [(draw.randrange(len(content)), draw.randrange(8)) for _ in range(200)]
    places += [(draw.randrange(header), draw.randrange(8)) for _ in range(200)]
    places += [(at, bit) for at in (0, 30, header - 1, header, len(content) - 1) for bit in range(8)]
    for at, bit in places:
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        saved.write_bytes(changed)
        assert refused(saved).exit_code == 1, (at, bit)
    saved.write_bytes(content)
    netsim.simulate(checkpoint=saved, resume=True, algorithm="gtopk", **TINY)


def test_a_file_that_was_cut_or_grew_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    header = content.index(b"\n") + 1
    for length in (0, 1, 10, header - 1, header, header + 1, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        assert refused(saved).exit_code == 1, length
    saved.write_bytes(content + b"\0")
    assert refused(saved).exit_code == 1


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[" * 100_000, b"\xff\xfe\n", b'{"schema": "netsim.report/1"}\n'])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    assert "is not a file of schema netsim.checkpoint/1" in str(refused(tmp_path / "other"))


def test_another_schema_is_named(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(SCHEMA.encode(), b"netsim.checkpoint/0", 1))
    error = refused(saved)
    assert "netsim.checkpoint/0" in str(error)
    assert SCHEMA in str(error)
    assert error.exit_code == 1


def test_another_version_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsim.simulator.checkpoint.version", lambda: "99.0")
    error = refused(saved)
    assert "99.0" in str(error)
    assert netsim.__version__ in str(error)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 1}, ["seed 1", "with 0"]),
        ({"rounds": 10}, ["rounds 10", "with 9"]),
        ({"lr": 0.2, "momentum": 0.9}, ["lr 0.2", "with 0.1"]),
        ({"algorithm": "dense"}, ["algorithm ['dense']", "with ['gtopk']"]),
        ({"bandwidth": "2Gbps"}, ["bandwidth 2000000000", "with 1000000000"]),
        ({"compute_time": "4ms"}, ["compute-time 0.004", "with 0.003"]),
        ({"checkpoint_every": 3}, ["checkpoint-every 3", "with 2"]),
    ],
    ids=str,
)
def test_the_first_option_that_differs_is_named(saved: Path, options: dict[str, Any], said: list[str]) -> None:
    error = refused(saved, **options)
    assert [part for part in said if part not in str(error)] == []
    assert error.exit_code == 2


def test_a_disk_that_is_full_leaves_the_last_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        assert "No space left on device" in str(refused(saved))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# The command line.

OPTIONS = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in TINY.items())
COMMAND = f"simulate {OPTIONS} --algorithm gtopk --json"


def said(capsys: pytest.CaptureFixture[str], arguments: str) -> tuple[int, str]:
    code = main(shlex.split(arguments))
    return code, capsys.readouterr().err


def test_options_that_do_not_fit(capsys: pytest.CaptureFixture[str], saved: Path) -> None:
    before = saved.read_bytes()
    missing = saved.parent / "missing"
    for arguments, parts in [
        (f"--checkpoint {saved}", ["is there already", "--resume"]),
        (f"--checkpoint {missing} --resume", ["was not found", "leave --resume out"]),
        ("--resume", ["add --checkpoint"]),
        ("--checkpoint-every 3", ["checkpoint-every 3", "add --checkpoint"]),
        (f"--checkpoint {missing} --checkpoint-every 0", ["checkpoint-every 0", "at least 1"]),
        (f"--checkpoint {missing} --checkpoint-every two", ["'two'"]),
        (f"--checkpoint {missing / 'file'}", ["folder that was not found"]),
        (f"--checkpoint {saved.parent}", ["is a folder"]),
        (f"--checkpoint {saved} --resume --seed 4", ["seed 4", "with 0"]),
    ]:
        code, message = said(capsys, f"{COMMAND} {arguments}")
        assert (code, message.count("\n")) == (2, 1)
        assert [part for part in parts if part not in message] == []
    assert saved.read_bytes() == before
    saved.write_bytes(before[:-1])
    code, message = said(capsys, f"{COMMAND} --checkpoint {saved} --resume")
    assert (code, message.count("\n")) == (1, 1)


def stop_here() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("every", [1, 1000])
@pytest.mark.parametrize("stop", [stop_here, disguised])
def test_an_interrupt_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
    stop: Callable[[], None],
) -> None:
    path = tmp_path / "run.ckpt"
    finish = Checkpoint.save

    def interrupt(self: Checkpoint, algorithm: str, standing: CheckpointState, workers: list[Worker]) -> None:
        finish(self, algorithm, standing, workers)
        if standing.step == 4:
            stop()

    monkeypatch.setattr(Checkpoint, "save", interrupt)
    if every > 1:
        monkeypatch.setattr(Checkpoint, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, message = said(capsys, f"{COMMAND} --checkpoint {path} --checkpoint-every {every}")
    assert (code, message.count("\n")) == (130, 1)
    assert repr(str(path)) in message
    assert (("--resume" in message), ("4 rounds of gtopk" in message)) == (every == 1, every == 1)
    assert path.exists() == (every == 1)


ROUNDS = 500


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "netsim", *arguments, "--checkpoint", str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], changed_since: float = 0.0) -> None:
    """Wait until a checkpoint was written, so that the run is under way."""
    while process.poll() is None and not (path.exists() and path.stat().st_mtime > changed_since):
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT once, SIGKILL three times at random moments, and each time on from there."""
    options = TINY | {"rounds": ROUNDS, "algorithm": "gtopk"}
    arguments = [*shlex.split(COMMAND), "--rounds", str(ROUNDS), "--checkpoint-every", "1"]
    path, draw = tmp_path / "run.ckpt", random.Random(2)
    changed, reached = 0.0, [0]
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL):
        with start(path, *arguments, *(["--resume"] if path.exists() else [])) as process:
            wait_for(path, process, changed)
            time.sleep(draw.uniform(0, 0.1))
            process.send_signal(number)
            _, message = process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        if number == signal.SIGINT:
            assert message.splitlines()[-1].startswith("netsim: interrupted; checkpoint")
            assert "Traceback" not in message
            assert message.endswith("--resume to go on from there\n")
        Checkpoint.read(path)
        done = json.loads(path.read_bytes().partition(b"\n")[0])["done"]["gtopk"]
        assert done > reached[-1]
        reached.append(done)
        changed = path.stat().st_mtime
    assert reached[-1] < ROUNDS
    monkeypatch.setattr("netsim.simulator.checkpoint.write_sealed", lambda *_: None)  # takes most of the time
    resumed = netsim.simulate(checkpoint=path, resume=True, **options)
    whole = netsim.simulate(checkpoint=tmp_path / "whole", checkpoint_every=1, **options)
    assert resumed.to_json() == whole.to_json()
