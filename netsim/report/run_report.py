"""The report of a run: the results of all algorithms as JSON, text, HTML, a picture and a table of pandas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netsim._util.units import format_duration
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import LossTimes, Result
from netsim.report.notebook import as_text, drawn, html_of, html_table, new_axes, paragraphs, verbatim, with_packages

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from netsim.network.graph import LinkRanges

SCHEMA = "netsim.report/1"
_COLUMN = "\N{SYMBOL FOR SUBSTITUTE} a number a rank "
"""Placeholder in the JSON text for a list that is written on one line."""


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The results of one experiment with its configuration, environment and conclusion.

    ``print(report)`` shows the table of the command line; a notebook shows the table and a picture.
    """

    config: Mapping[str, Any]
    results: list[Result]
    conclusion: Sequence[str] = field(default_factory=list)
    """Which algorithm is fastest, its lead, and how the order changes with the number of workers."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    effects: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of the simulated imperfections of network and hosts, by option."""
    link_ranges: LinkRanges | None = None
    """Bandwidths and latencies of the simulated links; None for a real run, or a network without links."""
    notes: list[str] = field(default_factory=list)
    """Sentences on options that were given and had no effect, and on algorithms that did not lower the loss."""
    known_errors: Sequence[str] = field(default_factory=list)
    """Sentences on how wrong predictions of such exchanges were; none for a real run."""
    network_notes: list[str] = field(default_factory=list)
    """What was read from a topology file of another program, and what was ASSUMED; none for other topologies."""
    time_to_loss: LossTimes | None = None
    """How long each algorithm took to a training loss that all reached; None for one algorithm or without losses."""
    experiment: Experiment = field(default_factory=Experiment)
    """The configuration as it was given, for the header of the table."""

    def __repr__(self) -> str:
        rounds = (f"{result.title} {format_duration(result.round_time_s)}" for result in self.results)
        return f"Report({', '.join(rounds)} a round; print it for the table)"

    def __str__(self) -> str:
        from netsim.report.terminal import render

        return as_text(lambda console: render(self, self.experiment, console))

    def _repr_html_(self) -> str:
        """Return header, table, picture and sentences for a notebook, as HTML without scripts or external resources."""
        from netsim.report.terminal import header_lines, known_lines, table_columns

        header = verbatim(header_lines(self, self.experiment))
        picture = drawn(self.plot, height=1.2 + 0.4 * len(self.results))
        sentences = paragraphs([*self.conclusion, *known_lines(self.known_errors)])
        return html_of(header, html_table(table_columns(self.results, self.time_to_loss)), picture, sentences)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the round time of each algorithm; the lighter part of a bar is computation.

        Parameters
        ----------
        ax
            Where to draw; a new figure if None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, for changes of one's own.
        """
        with with_packages("report.plot()"):
            import seaborn as sns
        from netsim.report.palette import looks_of

        axes = new_axes() if ax is None else ax
        titles = [result.title for result in self.results]
        seconds = [result.round_time_s for result in self.results]
        looks = looks_of({result.title: result.algorithm for result in self.results})
        colours = {title: look.colour for title, look in looks.items()}
        sns.barplot(
            x=seconds, y=titles, hue=titles, palette=colours, saturation=1, legend=False, errorbar=None, ax=axes
        )
        for bars, result in zip(axes.containers, self.results, strict=True):
            axes.bar_label(bars, [f" {format_duration(result.round_time_s)}"])  # type: ignore[arg-type]
        computed = [result.compute_time_s + result.select_time_s for result in self.results]
        axes.barh(titles, computed, height=0.8, color="white", alpha=0.6, linewidth=0)
        axes.set_xlim(0, 1.2 * max(seconds))
        lighter = "; lighter: computation" if any(computed) else ""
        axes.set(xlabel=f"round time (s), {self._provenance}{lighter}", ylabel="")
        return axes

    @property
    def _provenance(self) -> str:
        """The source of the times: SIMULATED or MEASURED."""
        return "SIMULATED" if self.results[0].mode == "simulated" else "MEASURED"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as documented in docs/json.md, in SI units."""
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "environment": dict(self.environment),
            "effects": dict(self.effects),
            "link_ranges": self.link_ranges and self.link_ranges.as_json(),
            "loss_to_reach": None if self.time_to_loss is None else self.time_to_loss.loss,
            "results": [self._row(result) | {"paper_accounting": result.paper_accounting} for result in self.results],
            "conclusion": list(self.conclusion),
            "notes": list(self.notes),
            "known_errors": list(self.known_errors),
            "network_notes": list(self.network_notes),
        }

    def _row(self, result: Result) -> dict[str, Any]:
        """Return a result by name, with the time to the common loss."""
        seconds = {} if self.time_to_loss is None else self.time_to_loss.seconds
        return result.to_dict() | {"time_to_loss_s": seconds.get(result.algorithm)}

    def to_json(self) -> str:
        """Return the report as indented JSON, with each list of one number per rank on one line."""
        document = self.to_dict()
        columns = []
        for result in document["results"]:
            columns.append(json.dumps(result["bytes_sent_by_rank"]))
            result["bytes_sent_by_rank"] = f"{_COLUMN}{len(columns) - 1}"
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        for index, column in enumerate(columns):
            text = text.replace(f'"{_COLUMN}{index}"', column, 1)
        return text

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per algorithm and the JSON keys as columns, which name their units."""
        with with_packages("report.to_pandas()"):
            import pandas as pd

        table = pd.DataFrame([self._row(result) for result in self.results])
        return table.astype({"k": "Int64"})  # which has missing values; those of a float would be NaN
