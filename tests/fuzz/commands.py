"""Random subsets of all options of every command, made from the commands themselves: a new option is fuzzed unlisted.

The words of an option's help are values for it, since examples stand there. Bases keep what is run small.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import files, pools
from tests.fuzz.law import Case, Ran, of_command
from tests.fuzz.texts import topology

TIMED = "--timing-only --elements 1000 --workers 4"
BASES: dict[str, list[str]] = {
    "simulate": [TIMED, TIMED, TIMED, files.TINY],
    "run": ["--workload tests.tiny:tiny --workers 2 --rounds 2 --batch-size 4 --k 3"],
    "recommend": ["--elements 1000 --workers 4 --compute-time 1ms --jobs 1 --density 0.1"],
    "study": ["--dry-run", "--dry-run --quick"],
    "flows": ["--topology star --flows flows.csv"],
    "topology placement": ["--elements 1000 --workers 4 --algorithm dense,gtopk"],
    "validate": ["--local 4"],
    "calibrate": ["--from table.txt"],
}
"""What a command is given first; of an option that is given again, the last counts."""

BOUNDED = {
    "--workers": "1 2 3 4 8",
    "--nproc": "1 2 4",
    "--local": "2 4",
    "--rounds": "1 2 3",
    "--elements": "1 7 1000",
    "--batch-size": "1 4 16",
    "--density-warmup": "0 1 2",
    "--repeats": "1 3",
    "--jobs": "1",
    "--workload": "tests.tiny:tiny",
    "--data": "digits synthetic",
    "--data-dir": "data .",
    "--background": "0.1 0.3 flows.csv",
    "--background-size": "exponential:1MB fixed:100kB",
    "--algorithm": "dense topk,gtopk ps,sasg randk gtopk-hier:group-size=2 dense-hier:group-size=2,dense-double-tree "
    "lag:history=1,lasg-ps:delay=2",
    "--cluster": "dask:// x",
    "--profile": "profile.toml",
    "--flows": "flows.csv",
    "--from": "table.txt",
    "--checkpoint": "new.ckpt run.ckpt",
    "--validation": "validation validation/validation.json",
}
"""Values instead of those that the help has, where those would start long runs, or are files."""

LEFT_OUT = {("doctor", "--clean"), ("fetch", "data")}
"""What changes the machine or downloads; the names of data to fetch are hostile ones only."""

FILES = [
    "flows.csv", "profile.toml", "network.json", "network.graphml", "run.ckpt", "study.toml", "out.json", "out.csv",
    "out.jsonl", "out.svg", "out.json.gz", "data", ".", "", "missing/out.json", "flows.csv/out.json", "x" * 300,
    "é.json", "[bold].json", "a b", "-", "out", "validation", "trace.json", "link.json", "dangling.json", "loop",
    "null", "table.txt",
]  # fmt: skip
OUTPUTS = ("--out", "--metrics", "--trace", "--chakra", "--checkpoint", "--nccl-tests")
HUGE = [
    "0", "-1", "17", "1000000000", "2147483647", "2147483648", "9223372036854775808", "1" + "0" * 30, pools.DIGITS,
    "1.5", "1e3", "x", "", "nan", " 4", "4 ", "+4", "٣", "1_0", "0x4",
]  # fmt: skip


@cache
def commands() -> list[tuple[str, Any]]:
    """Return every command with its name."""
    import typer

    from netsim.cli.app import app

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for part, each in command.commands.items():
                yield from below(f"{name} {part}".strip(), each)
        else:
            yield name, command

    return list(below("", typer.main.get_command(app)))


def options(random: Random, folder: Path) -> Case:
    """Return a command with random options, in a folder that has a file of every kind."""
    _template(folder)
    name, command = random.choice(commands())
    if name in ("simulate", "recommend", "doctor") or pools.chance(random, 0.3):  # the last two are slow
        likely = "simulate" if pools.chance(random, 0.9) else name
        name, command = next(each for each in commands() if each[0] == likely)
    arguments = name.split()
    arguments += [*_arguments(random, name, command), *random.choice(BASES.get(name, [""])).split()]
    known = [
        each for each in command.params if each.param_type_name == "option" and (name, each.opts[-1]) not in LEFT_OUT
    ]
    for each in random.sample(known, min(len(known), random.choice([0, 1, 1, 2, 2, 3, 4, 6, 9]))):
        arguments += _given(random, name, each)
    if pools.chance(random, 0.4) and any("--json" in each.opts for each in known):
        arguments.append("--json")
    if pools.chance(random, 0.05):
        arguments.insert(random.randrange(len(arguments) + 1), pools.text(random))
    arguments = [each.replace("\0", "") for each in arguments]
    return Case(f"netsim {shlex.join(arguments)}", _in(folder, arguments), _nameable(command, arguments))


def _nameable(command: Any, arguments: list[str]) -> list[str]:
    """Return what an error may name: an option, as it is typed or read, or the beginning of what was given."""
    options = [each.opts[-1].lstrip("-") for each in command.params]
    parts = [part for each in arguments for part in (each.split("=", 1) if each.startswith("-") else [each])]
    values = [repr(part)[1:-1][:8].rstrip("\\") for part in parts]
    return [
        "extra argument",
        *options,
        *(each.replace("-", " ") for each in options),
        *(each for each in values if each.strip("'")),
    ]


def _in(folder: Path, arguments: list[str]) -> Callable[[], Ran]:
    """Return what runs the command in a folder with files, as new."""

    def call() -> Ran:
        home = folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(_template(folder), home)
        _make_special_files(home)
        with contextlib.chdir(home):
            return of_command(arguments)

    return call


def _arguments(random: Random, name: str, command: Any) -> list[str]:
    """Return values for what has no name; those of ``study`` are mostly studies, those of ``fetch`` never data."""
    given = []
    for each in command.params:
        if each.param_type_name != "argument" or pools.chance(random, 0.03):
            continue
        usual = [*_words(each)] if (name, each.name) not in LEFT_OUT else ["x", "mnis"]
        if name.startswith("topology"):
            usual = [topology(random), topology(random), "network.json", "network.graphml", *usual]
        given.append(random.choice(usual) if pools.chance(random, 0.9) or name == "fetch" else pools.text(random))
    return given


def _given(random: Random, command: str, option: Any) -> list[str]:
    name = random.choice(option.opts)
    if option.is_flag:
        return [name]
    value = _value(random, name, option)
    return [f"{name}={value}"] if value.startswith("-") or pools.chance(random, 0.2) else [name, value]


def _value(random: Random, name: str, option: Any) -> str:
    """Return a value: mostly a usual one of its kind, then one at a limit, then a hostile one."""
    words = BOUNDED[name].split() if name in BOUNDED else _words(option)
    if name in ("--topology",):
        words = [topology(random), topology(random), "network.json", "network.graphml"]
    if name == "--set":
        key = random.choice(["workers", "vary.algorithm", "fixed.elements", "seeds", "fixed.timing_only", "bandwidths"])
        words = [f"{key}={random.choice(['2,4,8,16', 'dense,gtopk', '1', 'true', '1Gbps', ''])}"]
    if _is_path(option) or name in ("--out", "--profile", "--background"):
        words = [*words, *FILES, *(["fifo"] if name in OUTPUTS else [])]
    if pools.chance(random, 0.7) and words:
        return random.choice(words)
    if _reads_number(option):
        return random.choice([*HUGE, pools.number(random)])
    draw = random.choice([pools.number, pools.quantity, pools.text,
                          lambda random: pools.spoilt(random, random.choice(words or ["x"]))])  # fmt: skip
    value: str = draw(random)
    if name in ("--jobs", "--cluster", "--data-dir", *OUTPUTS):
        return value if not value.lstrip().startswith(("/", "~", "..")) and not value[:1].isdigit() else "x"
    return value


def _reads_number(option: Any) -> bool:
    return option.metavar in ("N", "X", "P")


def _is_path(option: Any) -> bool:
    return bool(re.search("[Ff]ile|[Ff]older", option.help or ""))


def _words_of_help(option: Any) -> list[str]:
    return re.findall(r"[\w.%+-]+(?:[:=/@>-][\w.%=,:>@-]*\w)?", (option.help or "").replace(". ", " "))


@cache
def _usual_words() -> set[str]:
    """Return the words in the help of several options, which are English and no values."""
    helps = {each.opts[0]: set(_words_of_help(each)) for _, command in commands() for each in command.params}
    counts = Counter(word for words in helps.values() for word in words)
    return {word for word, count in counts.items() if count > 3}


@cache
def _words(option: Any) -> list[str]:
    """Return what may be values among the words of an option's help, and its default."""
    default = [] if option.default is None or callable(option.default) else [str(option.default)]
    if _reads_number(option):
        return [*default, "0", "1", "2", "3", "0.1", "0.5", "0.9", "1.5"]
    return [*default, *(word for word in _words_of_help(option) if word not in _usual_words())]


def _make_special_files(home: Path) -> None:
    """Make links, a FIFO and, where this user may, a device like /dev/null in a folder of a case."""
    for name, target in (("link.json", "network.json"), ("dangling.json", "nowhere.json"), ("loop", "loop")):
        (home / name).symlink_to(target)
    os.mkfifo(home / "fifo")
    with contextlib.suppress(PermissionError):
        os.mknod(home / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))


@cache
def _template(folder: Path) -> Path:
    """Return a folder with a file of each kind that a command reads."""
    home = folder / "template"
    (home / "validation").mkdir(parents=True)
    (home / "data").mkdir()
    contents: dict[str, bytes] = {
        "flows.csv": b"src,dst,bytes,start_s\nworker0,worker1,1000,0\nworker1,worker2,1000,0.001\n",
        "profile.toml": files.PROFILE.encode(),
        "table.txt": files.TABLE.encode(),
        "study.toml": files.STUDIES[0].encode(),
        "network.json": files.valid_network(".json"),
        "network.graphml": files.valid_network(".graphml"),
        "run.ckpt": files.valid_checkpoint(folder, "gtopk"),
        "validation/validation.json": json.dumps(files.VALIDATION).encode(),
    }
    for name, content in contents.items():
        (home / name).write_bytes(content)
    return home
