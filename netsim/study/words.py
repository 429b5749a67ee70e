"""The conclusion of a scaling study in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from netsim.study.crossovers import Crossover, turns
from netsim.study.fits import Fit
from netsim.study.growth import BREAKS, ROUND, Broken, Condition, Growth, Law
from netsim.units import format_duration

BASIS = {"1": "", "log2(P)": "log₂P", "(P-1)/P": "(P−1)/P", "P": "P", "sqrt(P)": "√P"}
LARGE_ERROR = 0.2
"""Relative error from which a sentence admits that no one form describes a curve."""


def in_words(growth: Growth) -> list[str]:
    """Return what was found: the laws on the first network, what breaks them, and the crossovers there."""
    first = growth.conditions[0]
    laws = [law for law in growth.laws if (law.topology, law.bandwidth) == (first.topology, first.bandwidth)]
    span = f"P = {growth.grid[0]} to {growth.grid[-1]:,}"
    sentences = [
        _headline(growth, laws, first),
        *(_law(growth, law, first, span) for law in laws),
        *_broken(growth),
        *_kept(growth),
        *_orders(growth, first, span),
    ]
    return [each if each.startswith("gTop-k") else each[0].upper() + each[1:] for each in sentences]


def _headline(growth: Growth, laws: Sequence[Law], first: Condition) -> str:
    """Return the orders of all algorithms, and who is the fastest of them from which P on."""
    orders = ", ".join(f"{growth.titles[law.algorithm]} in {law.order}" for law in laws)
    rounds = {name: growth.seconds(first, name, ROUND) for name in growth.algorithms()}
    grid = growth.grid
    fastest = [min(rounds, key=lambda name: rounds[name][workers]) for workers in grid]
    told, last = f"Communication on {first.topology} grows: {orders}.", growth.titles[fastest[-1]]
    since = next((at + 1 for at in reversed(range(len(grid))) if fastest[at] != fastest[-1]), 0)
    before = " or ".join(growth.titles[name] for name in dict.fromkeys(fastest[:since]))
    below = f"; at fewer, {before}" if before else ""
    span = f"{grid[since]:,} to {grid[-1]:,} workers"
    return f"{told} With {span} {last} has the shortest round{below} ({first.in_words()})."


def _law(growth: Growth, law: Law, first: Condition, span: str) -> str:
    key = (first, law.algorithm) if (first, law.algorithm) in growth.fits else (first.dense(), law.algorithm)
    found = growth.fits[key]
    selected = growth.curves[key][growth.grid[0]]["k"]
    bounded = " (bounded in P)" if law.form in ("1", "(P-1)/P") else ""
    at = f" at k = {selected:,}" if selected is not None else ""
    sentence = (
        f"{growth.titles[law.algorithm]} communicates in {law.order}{bounded} on {first.topology}, {first.bandwidth} "
        f"({span}): {_formula(found)}{at}"
    )
    if law.entry is not None and law.entry.proportional:
        low, high = (format_duration(bound) for bound in law.entry.interval)
        basis = f" · {BASIS[law.form]}" if law.form != "1" else ""
        sentence += f"; each further selected entry costs {format_duration(law.entry.seconds)}{basis} ({low} to {high})"
    if found.worst > LARGE_ERROR:
        sentence += f"; no one form describes it: this one is up to {found.worst:.0%} off"
    return sentence + "."


def _formula(found: Fit) -> str:
    if found.form == "1":
        low, high = (format_duration(bound) for bound in found.intercept_interval)
        return f"{format_duration(found.intercept)} (95% interval {low} to {high})"
    low, high = (format_duration(bound) for bound in found.slope_interval)
    sign = "−" if found.intercept < 0 else "+"
    return (
        f"{format_duration(found.slope)} · {BASIS[found.form]} {sign} {format_duration(abs(found.intercept))} "
        f"(95% interval of the slope {low} to {high})"
    )


def _broken(growth: Growth) -> list[str]:
    """Return a sentence for each algorithm and topology: the worst case, of the broken laws if any are."""
    worst: dict[tuple[str, str], Broken] = {}
    for each in growth.broken():
        key = (each.algorithm, each.condition.topology)
        if key not in worst or _severity(each) > _severity(worst[key]):
            worst[key] = each
    reference = growth.conditions[0].topology
    sentences = []
    for (algorithm, topology), each in worst.items():
        form = BASIS[each.form] or "a constant"
        what = f"breaks its law on {topology}: of the five forms {form} is nearest, and"
        if each.form == each.reference:
            what = f"keeps its law on {topology}, but"
        sentences.append(
            f"{growth.titles[algorithm]} {what} with {growth.grid[-1]:,} workers it takes {each.times_as_long:.3g}× as "
            f"long as on {reference} ({each.condition.in_words()})."
        )
    return sentences


def _kept(growth: Growth) -> list[str]:
    """Return a sentence that names, for every other topology, the algorithms that are as fast there, or nearly."""
    slower = {(each.condition.topology, each.algorithm) for each in growth.broken()}
    topologies = dict.fromkeys(condition.topology for condition in growth.conditions[1:])
    reference = growth.conditions[0].topology
    kept = {
        topology: [growth.titles[name] for name in growth.algorithms() if (topology, name) not in slower]
        for topology in topologies
        if topology != reference
    }
    return [
        f"On {topology}, rounds of {', '.join(names)} communicate for less than {BREAKS:g}× as long as on {reference}, "
        "at every bandwidth and density."
        for topology, names in kept.items()
        if names
    ]


def _severity(each: Broken) -> tuple[bool, float]:
    return each.form != each.reference, each.times_as_long


def _orders(growth: Growth, first: Condition, span: str) -> list[str]:
    """Return the crossovers of the first condition, and the pairs that keep their order there."""
    here = [changes for (condition, _), changes in growth.changes().items() if condition in (first, first.dense())]
    sentences = []
    for changes in here:
        if len(changes) > 1:
            sentences.append(_to_and_fro(growth, changes, first))
        else:
            sentences.append(_change(growth, changes[0], first))
    kept = [
        f"{growth.titles[faster]} before {growth.titles[slower]}"
        for condition, faster, slower in growth.never_cross()
        if condition in (first, first.dense())
    ]
    if kept:
        sentences.append(f"The order stays for all of {span}: {', '.join(kept)} ({first.in_words()}).")
    return sentences


def _to_and_fro(growth: Growth, changes: Sequence[Crossover], condition: Condition) -> str:
    """Say of an order that changes several times where the one is ahead whose turns hold fewer P."""
    last = growth.grid[-1]
    by = turns(changes, growth.grid[0])
    counts = {name: sum((end or last) - start + 1 for start, end in spans) for name, spans in by.items()}
    ahead, other = sorted(counts, key=lambda name: counts[name])
    told = [
        str(start) if start == end else f"{start} {'on' if end is None else f'to {end}'}" for start, end in by[ahead]
    ]
    return (
        f"The order of {growth.titles[other]} and {growth.titles[ahead]} goes to and fro: of the P simulated, "
        f"{growth.titles[ahead]} is the faster only at {', '.join(told)} ({condition.in_words()})."
    )


def _change(growth: Growth, each: Crossover, condition: Condition) -> str:
    after, before = growth.titles[each.after], growth.titles[each.before]
    interval = "" if each.interval is None else f" ({_number(each.interval[0])} to {_number(each.interval[1])})"
    fitted = "" if each.fitted is None else f"the fitted curves cross at P = {_number(each.fitted)}{interval}"
    if each.bracket is None:
        return f"Beyond what was simulated, {after} overtakes {before}: {fitted} ({condition.in_words()})."
    low, high = each.bracket
    exact = "" if high - low == 1 else f" (or from one after P = {low:,})"
    fitted = f"; {fitted}" if fitted else ""
    return f"{after} is faster than {before} from P = {high:,}{exact}{fitted} ({condition.in_words()})."


def _number(workers: float) -> str:
    return f"{workers:,.0f}" if workers >= 100 else f"{workers:.3g}"
