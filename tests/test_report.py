"""The report: safe whatever names hold, the same bytes again, and legible in a browser."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from netsim._util.errors import NetsimError
from netsim.report import Document, Figure, Section, Table
from netsim.report.drawing import (
    Axis,
    Heat,
    Mark,
    Series,
    TimeSpan,
    against,
    gantt,
    heat_map,
    lines,
    stacked_bars,
)
from netsim.report.page import shown, to_html, write_report
from netsim.report.svg import renamed, standalone
from tests.browser import CHROMIUM, CUT, OVERLAPPING, Page, browser

NASTY = (
    '<b>bold</b> & </script><script>alert(1)</script>" onload="x',
    r"[/red] ${7*7} {{7*7}} $\frac{$",
    "_hidden",
    "=1+1 字 ✓ tab\tbell\x07nul\x00",
)
SVG = ("text", "g", "use", "path", "defs", "clippath", "rect")
WORKERS = [2, 4, 8, 16, 32, 64, 128]


@functools.cache
def drawings(name: str = "gTop-k") -> dict[str, str]:
    """Return a picture of every kind, with `name` wherever text goes."""
    time = Axis(f"time (ms) {name}")
    fit = [1e-3 * p for p in WORKERS]
    curves = [Series(name, WORKERS, fit, [1e-4] * 7, [1] * 7, fit, "gtopk"), Series("other", WORKERS, WORKERS)]
    return {
        "lines": lines(curves, Axis("workers", 2), Axis("s", 10), [Mark(name, 9, 8, 10)], {f"{name} level": 1}),
        "bars": stacked_bars([name, "b"], {name: [1, 2], "c": [0, 3]}, time),
        "gantt": gantt([TimeSpan(name, "compute", 0, 1), TimeSpan("b", name, 1, 2)], time),
        "heat": heat_map(Heat([name, "b"], [0, 1, 2], [[0, 1], [0.5, 0.2]], name), time),
        "against": against([Series(name, [1, 2], [1, 3], [0.5, 2], [2, 4])], time, Axis("s")),
    }


def document(name: str = "gTop-k") -> Document:
    figures = [Figure(f"{kind} {name}", name, svg, name) for kind, svg in drawings(name).items()]
    table = Table(f"Rows {name}", [name, "time (s)"], [[name, 0.123456789], ["b", None]], name)
    section = Section(name, f"{name}\n\n{name}", figures, [table])
    return Document(name, [name], [section], [name], {"command": name, name: name})


class Outline(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_text_and_nothing_else(name: str) -> None:
    """The page with a nasty name has the very elements of a page with a plain one."""
    nasty, plain = Outline(to_html(document(name))), Outline(to_html(document("plain")))
    count = [tag for tag, _ in nasty.tags if tag not in ("text", "g", "use", "path", "defs", "clippath", "rect")]
    assert count == [
        tag for tag, _ in plain.tags if tag not in ("text", "g", "use", "path", "defs", "clippath", "rect")
    ]
    assert not {"script", "iframe", "img", "object", "link", "a", "b"} & {tag for tag, _ in nasty.tags}
    for tag, attributes in nasty.tags:
        assert not [each for each in attributes if each.startswith("on") or each in ("style", "src")], tag
        assert re.fullmatch(r"#[\w.-]+|", attributes.get("href") or ""), tag
    assert name.split("\t")[0] in "".join(nasty.text)


@pytest.mark.parametrize("name", [NASTY[1], "_hidden"])
def test_names_are_drawn_as_they_are(name: str) -> None:
    for kind, svg in drawings(name).items():
        assert name in "".join(Outline(standalone(svg)).text), kind


def test_a_page_is_a_sentence_and_a_picture_and_the_rest_is_folded() -> None:
    """Before the first fold stand the title, the first sentence and the first picture; nothing is there twice."""
    table = Table("T", ["a"], [[1]])
    first, second = (Figure(f"picture {n}", "c", drawings()["bars"], "SIMULATED") for n in (1, 2))
    sections = [Section("One", figures=[first]), Section("Two", "Text.", [second], [table])]
    page = to_html(Document("Title", ["Headline.", "More."], sections, ["Limit."], {"command": "netsim"}))
    seen, *folded = page.partition("<main>")[2].split("<details>")
    assert "Headline." in seen
    assert "picture 1" in seen
    assert all(page.count(f">{text}<") == 1 for text in ("Headline.", "More.", "picture 1", "picture 2", "Limit."))
    summaries = [re.findall(r"<summary><h2>(.*?)</h2>", part) for part in folded]
    assert summaries == [["Further conclusions"], ["Two"], ["Limits and assumptions"], ["How to reproduce"]]


def test_the_policy_allows_one_style_sheet_and_nothing_else() -> None:
    tags = Outline(to_html(document())).tags
    (policy,) = [each["content"] for tag, each in tags if tag == "meta" and "http-equiv" in each]
    assert policy is not None
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[\w+/]+='; base-uri 'none'; form-action 'none'", policy)
    assert [tag for tag, _ in tags].count("style") == 1


@pytest.mark.slow
def test_the_same_document_is_the_same_page_in_another_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.test_report import document; "
        "from netsim.report.page import to_html; sys.stdout.buffer.write(to_html(document()).encode())"
    )
    pages = [
        subprocess.run([sys.executable, "-c", script], env={"PYTHONHASHSEED": seed, "PATH": "", **_python_path()},
                       capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert pages[0] == pages[1] == to_html(document()).encode()


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}


def test_pictures_in_one_page_share_no_names() -> None:
    names = [each["id"] for _, each in Outline(to_html(document())).tags if "id" in each]
    assert names
    assert len(names) == len(set(names))


def test_what_a_picture_refers_to_is_there() -> None:
    for kind, svg in drawings().items():
        text = renamed(standalone(svg), "f1-")
        referred = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', text))
        assert referred <= set(re.findall(r'\bid="([^"]+)"', text)), kind


def test_svg_keeps_nothing_that_runs_or_loads() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)" viewBox="0 0 1 1"><script>alert(1)</script>'
        '<image href="http://example.com/x.png"/><foreignObject/><style>@import "x"</style>'
        '<path d="M0 0" style="fill: url(http://example.com/x); stroke: #ff0000" onclick="x"/>'
        '<use href="http://example.com/x.svg#a"/></svg>'
    )
    kept = standalone(svg)
    assert "example.com" not in kept
    assert "alert" not in kept
    assert 'stroke="#ff0000"' in kept
    with pytest.raises(ValueError, match="expected an svg element"):
        standalone("<html/>")


def test_tables_beside_the_page(tmp_path: Path) -> None:
    """Spreadsheets compute what begins with "=": text does not, numbers stay numbers."""
    rows = [["=1+1", -2.5, None], ["+x", float("nan"), 3], ["@y", 1e-9, True]]
    tables = [Table("Fits", ["name", "=value", "n"], rows), Table("Fits", ["a"], [])]
    files = write_report(Document("t", [], [Section("s", tables=tables)]), tmp_path / "report.html")
    names = ["report.html", "report-fits.csv", "report-fits.jsonl", "report-fits-2.csv", "report-fits-2.jsonl"]
    assert [each.name for each in files] == names
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names)
    with (tmp_path / "report-fits.csv").open(newline="") as file:
        header, *read = csv.reader(file)
    assert header == ["name", "'=value", "n"]
    assert [row[0] for row in read] == ["'=1+1", "'+x", "'@y"]
    assert float(read[0][1]) == -2.5
    lines_ = (tmp_path / "report-fits.jsonl").read_text().splitlines()
    assert json.loads(lines_[1]) == {"name": "+x", "=value": None, "n": 3}
    assert json.loads(lines_[2])["=value"] == 1e-9


def test_pictures_beside_the_page_stand_alone(tmp_path: Path) -> None:
    """Each is a file of its own, black on white, with nothing that runs or loads, and the same again."""
    files = [each for each in write_report(document(), tmp_path / "report.html") if each.suffix == ".svg"]
    assert len(files) == len(set(files)) == len(drawings())
    for each in files:
        picture = ElementTree.fromstring(each.read_text("utf-8"))
        first = next(iter(picture))
        assert (first.tag.rpartition("}")[2], first.get("fill"), first.get("width")) == ("rect", "#ffffff", "100%")
        assert "currentColor" not in each.read_text("utf-8")
        assert not re.search(r"<script|https?://(?!www\.w3\.org)", each.read_text("utf-8"))
    before = [each.read_bytes() for each in files]
    write_report(document(), tmp_path / "report.html")
    assert [each.read_bytes() for each in files] == before


def test_a_row_of_the_wrong_length_is_named() -> None:
    with pytest.raises(ValueError, match="a row has 1 cells, but there are 2 columns"):
        Table("t", ["a", "b"], [["x"]])


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NetsimError, match="could not be written: No such file or directory"):
        write_report(document(), tmp_path / "missing" / "report.html")


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, "–"), (float("nan"), "–"), (1234567, "1,234,567"), (0.000123456, "0.0001235"), (12345.6, "12,346"),
     (True, "yes"), ("x", "x"), (1e9, "1e+09")],
)  # fmt: skip
def test_cells_for_people(cell: Any, text: str) -> None:
    assert shown(cell) == text


def test_matplotlib_is_imported_only_to_draw() -> None:
    script = "import sys, netsim.report, netsim.report.drawing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "jinja2", "seaborn", "torch"} & set(loaded)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine to open the page in (Debian: apt-get install chromium)")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_a_browser_shows_it_without_a_complaint(page: Page, tmp_path: Path) -> None:
    (path, *_) = write_report(document(), tmp_path / "report.html")
    page.requests.clear()
    page.open(path.as_uri())
    assert page.requests == [path.as_uri()]
    assert page.complaints == []
    for width, dark in itertools.product((360, 1280), (False, True)):
        page.look(width, dark=dark)
        assert page.evaluate("document.querySelectorAll('figure svg').length") == len(drawings())
        assert page.evaluate("[...document.querySelectorAll('svg')].every(svg => svg.clientHeight > 80)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(CUT) == []
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate("[...document.querySelectorAll('td')].every(cell => cell.getBoundingClientRect().width)")
        ink = page.evaluate("getComputedStyle(document.body).color")
        written = "[...new Set([...document.querySelectorAll('svg text')].map(text => getComputedStyle(text).fill))]"
        assert page.evaluate(written) == [ink]


def test_paper_shows_what_is_folded_on_a_screen(page: Page, tmp_path: Path) -> None:
    (path, *_) = write_report(document(), tmp_path / "report.html")
    page.open(path.as_uri())
    hidden = "[...document.querySelectorAll('td, h3, li, svg')].filter(each => !each.checkVisibility()).length"
    page.look(1000)
    assert page.evaluate(hidden) > 0
    page.look(1000, media="print")
    assert page.evaluate(hidden) == 0


def test_the_browser_test_would_notice(page: Page, tmp_path: Path) -> None:
    """A page that breaks each rule on purpose."""
    bad = to_html(document()).replace(
        "</main>",
        '<script>console.log("x")</script><img src="http://127.0.0.1:9/x.png" alt=""><svg viewBox="0 0 9 9" '
        'width="9"><text x="5" y="5">cut off</text><text x="5" y="5">cut off</text></svg></main>',
    )
    path = tmp_path / "bad.html"
    path.write_text(bad, "utf-8")
    page.complaints.clear()
    page.open(path.as_uri())
    assert len(page.complaints) >= 2
    assert "cut off" in page.evaluate(CUT)
    assert "cut off / cut off" in page.evaluate(OVERLAPPING)
