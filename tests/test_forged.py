"""Files whose seal is right and whose contents nobody wrote: one line, never a traceback."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import netsim
from netsim._util.checksummed_file import sealed, write_sealed
from netsim._util.errors import NetsimError
from netsim.cluster.plan import Cluster
from netsim.experiment.profile import load_profile, save_profile
from netsim.testbed.campaign import Setting, validate
from netsim.testbed.cells import Cell
from netsim.testbed.p2p_measurements import REQUIRED_KEYS
from tests.test_calibration import profile

SCHEMA = "netsim.checkpoint/1"
OPTIONS: dict[str, Any] = {
    "workload": "tests.tiny:tiny", "workers": 3, "batch_size": 4, "rounds": 6, "compute_time": "3ms",
    "select_time": "1ms", "merge_time": "100us", "k": 5,
}  # fmt: skip
ALGORITHMS = {"dense,gtopk": ("gtopk", {}), "dense,sasg": ("sasg", {"momentum": 0.9}), "topk,lasg-ps": ("lasg-ps", {})}
STRANGE: list[Any] = [
    None, True, -1, 0, 10**30, 1e308, float("nan"), "", "dense", "\0", [], {}, (), [[]], {"a": 1}, (0,), (10**9,),
    torch.zeros(0), torch.zeros(3), torch.zeros(2, 2), torch.zeros(1).expand(10**12), torch.full((5,), float("inf")),
    torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.int64), torch.arange(5, dtype=torch.int32),
    torch.zeros(5, dtype=torch.complex64),
]  # fmt: skip


@pytest.fixture(scope="module", params=ALGORITHMS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of a run that was interrupted in its second algorithm, and the run's options."""
    second, others = ALGORITHMS[request.param]
    options = OPTIONS | others | {"algorithm": request.param}
    path = tmp_path_factory.mktemp("saved") / "run.ckpt"

    def interrupt(name: str, step: int) -> None:
        if (name, step) == (second, 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        netsim.simulate(checkpoint=path, checkpoint_every=2, on_round=interrupt, **options)
    return path, options


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to everything in a container of containers."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, each in items:
        yield from places(each, (*place, key))


def changed(value: Any, place: tuple[Any, ...], change: Any) -> Any:
    """Return `value` with ``change(what is at the place)`` there."""
    if not place:
        return change(value)
    key, *rest = place
    if isinstance(value, dict):
        return value | {key: changed(value[key], tuple(rest), change)}
    return type(value)([changed(each, tuple(rest), change) if at == key else each for at, each in enumerate(value)])


def forged(chance: random.Random, value: Any) -> Any:
    """Return something else in the place of `value`: another kind, another size, one more or one less."""
    if isinstance(value, dict) and value and chance.random() < 0.5:
        left = dict(value)
        key = chance.choice(list(left))
        what = left.pop(key)
        return left if chance.random() < 0.5 else left | {chance.choice(["odd", 7, key]): what, "more": what}
    if isinstance(value, list | tuple) and value and chance.random() < 0.5:
        return chance.choice([value[:-1], value + value[-1:], value[::-1], value[:1]])
    if isinstance(value, int) and chance.random() < 0.5:
        return chance.choice([value + 1, value - 1, -value, value * 10**6])
    if isinstance(value, torch.Tensor) and value.ndim and chance.random() < 0.5:
        return chance.choice([value[:-1], value.double(), value.reshape(1, -1), value * float("nan"), value.flip(0)])
    return copy.copy(chance.choice(STRANGE))


def refused(**options: Any) -> NetsimError | None:
    """Return the error that a simulation ends with, None if it ends well."""
    try:
        netsim.simulate(**options).to_json()
    except NetsimError as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.slow
def test_a_forged_checkpoint_is_one_line(saved: tuple[Path, dict[str, Any]], tmp_path: Path, seed: int) -> None:
    """Where what was changed makes no difference to the kind of what is there, the run goes on."""
    path, options = saved
    chance = random.Random(seed)
    with sealed(path, SCHEMA, "checkpoint") as (header, body):
        pass
    header = {name: value for name, value in header.items() if name not in ("schema", "sha256")}
    for _ in range(chance.choice([1, 1, 2])):
        if chance.random() < 0.2:
            header = changed(header, chance.choice(list(places(header))), lambda value: forged(chance, value))
            if not isinstance(header, dict):
                header = {}
            header = json.loads(json.dumps(header, default=str, skipkeys=True))
        else:
            body = changed(body, chance.choice(list(places(body))), lambda value: forged(chance, value))
    other = tmp_path / "forged.ckpt"
    write_sealed(other, SCHEMA, header, body)
    error = refused(checkpoint=other, resume=True, **options)
    if error is not None:
        assert "\n" not in str(error)
        assert 10 < len(str(error)) < 1000
        assert error.exit_code in (1, 2, 3)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("running", "step"), -1, "step"),
        (("running", "ranks"), [], "shorter"),
        (("running", "table", 0, 1), {}, ""),
        (("measured",), {"x": 5}, "measured"),
        (("results", 0, "rounds"), "many", "rounds"),
    ],
)
def test_what_is_said_of_it(
    saved: tuple[Path, dict[str, Any]], tmp_path: Path, place: Any, value: Any, said: str
) -> None:
    path, options = saved
    with sealed(path, SCHEMA, "checkpoint") as (header, body):
        pass
    header = {name: each for name, each in header.items() if name not in ("schema", "sha256")}
    other = tmp_path / "forged.ckpt"
    write_sealed(other, SCHEMA, header, changed(body, place, lambda _: value))
    with pytest.raises(NetsimError, match=rf"^(\S+: )?checkpoint .* is damaged \([^\n]*{said}[^\n]*$") as refused:
        netsim.simulate(checkpoint=other, resume=True, **options)
    assert str(other) in str(refused.value)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.slow
def test_a_forged_profile_is_one_line(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "p.toml"
    save_profile(profile(), path)
    lines = path.read_text().splitlines()
    odd = [
        "nan",
        "inf",
        "-1",
        "1e999",
        "0",
        '"text"',
        "true",
        "[]",
        "{}",
        "1979-05-27",
        "9" * 5000,
        '"\\u0000"',
        "'''",
        "[",
    ]
    for _ in range(chance.choice([1, 2])):
        at = chance.randrange(len(lines))
        match chance.randrange(4):
            case 0 if "=" in lines[at]:
                lines[at] = f"{lines[at].partition('=')[0]}= {chance.choice(odd)}"
            case 1:
                del lines[at]
            case 2:
                lines.insert(at, chance.choice(["[link]", "odd = 1", "a.b.c = 1", "\0", "[[work]]", "[" * 2000]))
            case _:
                lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
    path.write_text("\n".join(lines))
    error = refused(profile=path, timing_only=True, elements=1000, workers=2)
    if error is not None:
        assert "\n" not in str(error)
        assert str(path) in str(error) or error.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"format = 1", b"\0", b"[" * 100_000, b"a=" + b"[" * 100_000])
def test_what_is_no_profile(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.toml").write_bytes(content)
    with pytest.raises(netsim.UsageError, match=r"^profile [^\n]+$"):
        load_profile(tmp_path / "p.toml")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "folder"])
def test_what_is_no_file_of_a_profile(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(netsim.UsageError, match=r"^profile [^\n]+$"):
        load_profile(f"{tmp_path}/{name}")


POINTS = dict.fromkeys(sorted(REQUIRED_KEYS), 1e-4) | {
    "large_bytes": 10**5,
    "large_s": 0.02,
    "ranks": 2,
}
RECORD: dict[str, Any] = {
    "network": "a network", "date": "today", "seconds": 1.0, "load_before": 0.0, "processors_busy": 0.1, "cores": 2,
    "points": POINTS, "cells": [{"times": [0.01, 0.02], "by_rank": [[0.01], [0.02]], "points": {}}],
}  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_a_forged_measurement_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Or is taken, where it could have been measured."""
    setting = Setting(
        cluster=Cluster(ranks=2, bandwidth_bps=50_000_000),
        cells=(Cell(name="ring-all-reduce", bytes=1000, repeats=2, sends="eager"),),
    )
    asked: list[Setting] = []
    monkeypatch.setattr("netsim.testbed.campaign._measure", lambda setting, _: asked.append(setting) or RECORD)
    file = setting.file(tmp_path)
    assert file is not None
    chance = random.Random(seed)
    strange = changed(RECORD, chance.choice(list(places(RECORD))), lambda value: forged(chance, value))
    file.write_text(json.dumps(strange, default=str, skipkeys=True)[: None if seed % 10 else -20])
    found = validate([setting], 0.1, lambda *_: None, tmp_path)
    found.to_json()
    assert len(found.comparison) == 1
    if asked:  # and what was measured is kept
        assert json.loads(file.read_text()) == RECORD
