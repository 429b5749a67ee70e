"""What a notebook shows: reports as text, HTML, pictures and tables of pandas."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.figure import Figure

import netsim
from algorithms import ALGORITHMS
from netsim.report.palette import COLOURS, looks_of
from netsim.report.progress_bar import STEPS, progress_bar

SMALL: dict[str, Any] = {"timing_only": True, "elements": 1000, "workers": 4, "k": 10, "compute_time": "1ms"}


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.fixture(scope="module")
def report() -> netsim.Report:
    return netsim.simulate(**SMALL, algorithm="dense,gtopk")


class Cells(HTMLParser):
    """The cells of the tables, the texts outside of them, and the attributes of all elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, "an element was not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_print_shows_the_table_of_the_command_line(report: netsim.Report) -> None:
    text = str(report)
    assert all(result.title in text for result in report.results)
    assert all(" ".join(sentence.split()) in " ".join(text.split()) for sentence in report.conclusion)
    assert "\x1b" not in text
    assert len(repr(report)) < 200


def test_html_has_the_cells_and_a_picture_and_loads_nothing(report: netsim.Report) -> None:
    html = report._repr_html_()
    cells = Cells(html)
    header, *rows = cells.rows
    assert [row[0] for row in rows] == [result.title for result in report.results]
    assert all(len(row) == len(header) for row in rows)
    assert [row[-1] for row in rows] == [result.bound_by for result in report.results]
    tags = {tag for tag, _ in cells.elements}
    assert "svg" in tags
    assert tags.isdisjoint({"script", "link", "iframe", "img", "style"})
    for _, attributes in cells.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "href") or (value or "").startswith("#")
    fixed = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', html))
    assert fixed <= {*COLOURS, "#ffffff"}, "a fixed colour beside the palette may be illegible on a dark page"


def test_names_of_elements_differ_between_two_reports(report: netsim.Report) -> None:
    other = netsim.simulate(**SMALL | {"workers": 5}, algorithm="dense,gtopk")
    names = [set(re.findall(r'id="([^"]+)"', each._repr_html_())) for each in (report, other)]
    assert names[0]
    assert names[0].isdisjoint(names[1])


def test_html_is_escaped(report: netsim.Report) -> None:
    from dataclasses import replace

    results = [replace(report.results[0], title="<script>alert(1)</script>", bound_by="a & b")]
    html = replace(report, results=results, conclusion=["1 < 2 & <b>3</b>"])._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert Cells(html).rows[1][0] == "<script>alert(1)</script>"


def test_the_length_of_a_bar_is_the_round_time(report: netsim.Report) -> None:
    axes = report.plot(Figure().subplots())
    for bars, result in zip(axes.containers, report.results, strict=False):
        (bar,) = bars.patches
        assert bar.get_width() == pytest.approx(result.round_time_s)
        assert colors.same_color(bar.get_facecolor(), COLOURS[0 if result.algorithm == "dense" else 2])
    assert "SIMULATED" in axes.get_xlabel()
    assert "(s)" in axes.get_xlabel()


def test_a_new_picture_is_drawn_in_a_figure_of_pyplot(report: netsim.Report) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    axes = report.plot()
    assert len(plt.get_fignums()) == len(before) + 1
    plt.close(axes.figure)


@pytest.mark.parametrize("others", [[], ["topk"], ["ps", "topk", "gtopk-hier"]])
def test_a_colour_belongs_to_an_algorithm(others: list[str]) -> None:
    colours = {name: look.colour for name, look in looks_of({n: n for n in ["dense", "gtopk", *others]}).items()}
    assert (colours["dense"], colours["gtopk"]) == (COLOURS[0], COLOURS[2])
    assert len(set(colours.values())) == len(colours)
    every = looks_of({name: name for name in ALGORITHMS})
    assert set(every) == set(ALGORITHMS)


def test_a_table_of_pandas_keeps_whole_numbers(report: netsim.Report) -> None:
    table = report.to_pandas()
    assert table["k"].tolist()[1] == 10
    assert table["k"].isna().tolist() == [True, False]
    assert str(table["k"].dtype) == "Int64"


@pytest.mark.parametrize(("package", "use"), [("pandas", "to_pandas"), ("seaborn", "plot"), ("matplotlib", "plot")])
def test_a_missing_package_is_named(
    report: netsim.Report, monkeypatch: pytest.MonkeyPatch, package: str, use: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in (package, "seaborn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(netsim.NetsimError, match=f"pip install {package}") as caught:
        getattr(report, use)()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", ["dense", "dense-tree", "gtopk", "topk", "topk:gather=bruck", "ps"])
def test_messages_of_an_exchange_are_those_of_the_literature(name: str, ranks: int) -> None:
    """Rounds and messages of rings, binomial trees, Bruck's all-gather and a star, for P ranks."""
    done = netsim.exchange(name, np.eye(ranks, 16) + 1, k=3 if ALGORITHMS[name.partition(":")[0]].sparse else None)
    log = (ranks - 1).bit_length()
    counts = {
        "dense": (2 * (ranks - 1), 2 * ranks * (ranks - 1)),
        "dense-tree": (2 * log, 2 * (ranks - 1)),
        "gtopk": (2 * log, 2 * (ranks - 1)),
        "topk": (ranks - 1, ranks * (ranks - 1)),
        "topk:gather=bruck": (log, ranks * log),
        "ps": (2 if ranks > 1 else 0, 2 * (ranks - 1)),
    }
    rounds, messages = counts[name]
    table = done.messages
    assert len(table) == messages
    if messages:
        assert table["round"].max() <= rounds
        assert set(table["round"]) == set(range(1, table["round"].max() + 1))
        if ranks in (2, 8):  # a tree that is not full may end one round earlier
            assert table["round"].max() == rounds
    for rank in range(ranks):
        assert table["bytes"][table["src"] == rank].sum() == done.bytes_sent[rank]
        assert table["bytes"][table["dst"] == rank].sum() == done.bytes_received[rank]


def test_no_rank_sends_what_it_has_not_received() -> None:
    """A tree: a rank that sends to its parent in round r received from its children in rounds before r."""
    table = netsim.exchange("dense-tree", np.ones((8, 4))).messages
    up = table[table["operation"] == "tree_reduce"]
    for rank in range(8):
        received, sent = up["round"][up["dst"] == rank], up["round"][up["src"] == rank]
        assert received.empty or sent.empty or received.max() < sent.min()
    assert up["round"].max() < table["round"][table["operation"] == "tree_broadcast"].min()


def test_an_exchange_explains_itself() -> None:
    done = netsim.exchange("gtopk", np.eye(4, 8, dtype=np.float32), k=1)
    assert repr(done).splitlines()[1:] == [
        "round 1, tree_reduce: 1 → 0 8 B, 3 → 2 8 B",
        "round 2, tree_reduce: 2 → 0 8 B",
        "round 3, tree_broadcast: 0 → 2 8 B",
        "round 4, tree_broadcast: 0 → 1 8 B, 2 → 3 8 B",
    ]
    cells = Cells(done._repr_html_())
    assert cells.rows[1] == ["1", "tree_reduce", "1 → 0 8 B, 3 → 2 8 B"]
    axes = done.plot(Figure().subplots())
    arrows = [(text.xyann, text.xy) for text in axes.texts]
    assert arrows == [((each.round - 1, each.src), (each.round, each.dst)) for each in done.sent]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("round", "rank")
    alone = netsim.exchange("dense", np.ones((1, 4)))
    assert "0 messages in 0 rounds" in repr(alone)
    assert alone.messages.empty
    Cells(alone._repr_html_())


def test_a_long_exchange_is_cut_and_says_so() -> None:
    done = netsim.exchange("dense", np.ones((16, 16)))
    assert len(done.messages) == 2 * 16 * 15
    assert repr(done).splitlines()[-1] == "… and 380 more messages; result.messages has all."


class Bar:
    """Stands for IPython.display.ProgressBar: it notes what a notebook would show."""

    shown: ClassVar[list[str]] = []

    def __init__(self, total: int) -> None:
        self.total = total
        self._progress = 0

    def display(self) -> None:
        self.shown.append("displayed")

    @property
    def progress(self) -> int:
        return self._progress

    @progress.setter
    def progress(self, value: int) -> None:
        self._progress = value
        self.shown.append(f"{value}/{self.total}")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A process that looks like the kernel of a notebook; the texts of its progress bars."""
    monkeypatch.setattr(Bar, "shown", [])
    shell = SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(ProgressBar=Bar))
    return Bar.shown


def test_a_notebook_shows_a_bar_unless_told_not_to(notebook: list[str]) -> None:
    netsim.simulate(**SMALL, algorithm="dense,gtopk", rounds=2, engine="event")
    assert notebook == ["displayed", "1/4", "2/4", "3/4", "4/4"]
    notebook.clear()
    netsim.sweep(**SMALL, algorithm=["dense", "gtopk"])
    assert notebook[-1] == "2/2"
    notebook.clear()
    netsim.sweep(**SMALL, algorithm=["dense", "gtopk"], progress=False)
    assert notebook == []


def test_a_bar_of_many_steps_is_updated_few_times(notebook: list[str]) -> None:
    with progress_bar(None, "steps") as show:
        for step in range(1, 100_001):
            show(step, 100_000)
    assert notebook[-1] == "100000/100000"
    assert len(notebook) <= STEPS + 2


def test_elsewhere_a_bar_is_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    netsim.simulate(**SMALL, algorithm="dense")
    assert capsys.readouterr() == ("", "")
    netsim.simulate(**SMALL, algorithm="dense", progress=True)
    assert capsys.readouterr().out == ""
