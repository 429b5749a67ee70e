"""The outcome of one exchange, and who sent what to whom in which round: as text, HTML, a table and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from netsim._util.units import format_bytes
from netsim.report.notebook import drawn, html_of, html_table, new_axes, paragraphs, with_packages
from netsim.report.palette import looks_of
from netsim.report.text import Column
from netsim.simulator.message_rounds import RoundMessage

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.axes import Axes

MOST_SHOWN = 100
"""Messages in the text and in the HTML of a notebook; the table of pandas has all."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ExchangeResult:
    """The outcome of one exchange; it unpacks as its first four attributes.

    Attributes
    ----------
    aggregated
        The total that every rank obtains (d,): the sum of all vectors, or of the entries that the algorithm keeps.
    residuals
        The residual of each rank (P, d).
    bytes_sent, bytes_received
        Bytes of values and indices, one number per rank.
    algorithm
        The name of the algorithm, with its options.
    sent
        All messages, in order of rounds. Every message takes one round, and its sender continues after it.
    """

    aggregated: torch.Tensor
    residuals: torch.Tensor
    bytes_sent: list[int]
    bytes_received: list[int]
    algorithm: str
    sent: Sequence[RoundMessage]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.aggregated, self.residuals, self.bytes_sent, self.bytes_received))

    def __repr__(self) -> str:
        lines = [f"round {number}, {operation}: {messages}" for number, operation, messages in self._rounds()]
        return "\n".join([self._summary, *lines, *self._rest])

    def _repr_html_(self) -> str:
        """Return the messages and a picture for a notebook, as HTML without scripts and external resources."""
        summary, rest = paragraphs([self._summary]), paragraphs(self._rest)
        if not self.sent:
            return html_of(summary)
        numbers, operations, messages = zip(*self._rounds(), strict=True)
        table = [
            Column("round", numbers),
            Column("collective", operations, "label"),
            Column("from → to", messages, "text"),
        ]
        picture = drawn(self.plot, height=1.2 + 0.3 * len(self.bytes_sent))
        return html_of(summary, picture, html_table(table), rest)

    def _rounds(self) -> Iterator[tuple[str, str, str]]:
        """Yield the number, the collective and the messages of each round."""
        for (number, operation), group in groupby(
            self.sent[:MOST_SHOWN], key=lambda each: (each.round, each.operation)
        ):
            messages = ", ".join(f"{each.src} → {each.dst} {format_bytes(each.bytes)}" for each in group)
            yield str(number), operation, messages

    @property
    def messages(self) -> pd.DataFrame:
        """The messages, one row each, with the columns ``round``, ``src``, ``dst``, ``bytes`` and ``operation``."""
        with with_packages("result.messages"):
            import pandas as pd

        return pd.DataFrame(self.sent, columns=list(RoundMessage._fields))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each message as an arrow from its sender to its receiver, over the rounds.

        Parameters
        ----------
        ax
            Where to draw; a new figure if None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, for changes of one's own.
        """
        with with_packages("result.plot()"):
            import seaborn as sns
            from matplotlib.ticker import MaxNLocator

        axes = new_axes() if ax is None else ax
        colour = looks_of({"": self.algorithm})[""].colour
        for each in self.sent:
            if each.src != each.dst:
                axes.annotate(
                    "",
                    xy=(each.round, each.dst),
                    xytext=(each.round - 1, each.src),
                    arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0},
                )
        ends = [(each.round - 1, each.src) for each in self.sent] + [(each.round, each.dst) for each in self.sent]
        sns.scatterplot(x=[x for x, _ in ends], y=[rank for _, rank in ends], color=colour, s=16, ax=axes, zorder=3)
        axes.set(xlabel="round", ylabel="rank", ylim=(len(self.bytes_sent) - 0.5, -0.5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        return axes

    @property
    def _summary(self) -> str:
        rounds = self.sent[-1].round if self.sent else 0
        most = format_bytes(max(self.bytes_sent))
        return (
            f"{self.algorithm} among {len(self.residuals)} ranks: {_count(len(self.sent), 'message')} in "
            f"{_count(rounds, 'round')}; a rank sends at most {most}."
        )

    @property
    def _rest(self) -> list[str]:
        more = len(self.sent) - MOST_SHOWN
        return [f"… and {_count(more, 'more message')}; result.messages has all."] if more > 0 else []


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
