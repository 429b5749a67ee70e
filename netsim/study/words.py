"""The conclusion of a scaling study in sentences."""

from __future__ import annotations

from netsim.study.crossovers import Crossover
from netsim.study.fits import Fit
from netsim.study.growth import Broken, Condition, Growth, Law
from netsim.units import format_duration

BASIS = {"1": "", "log2(P)": "log₂P", "(P-1)/P": "(P−1)/P", "P": "P", "sqrt(P)": "√P"}
LARGE_ERROR = 0.2
"""Relative error from which a sentence admits that no one form describes a curve."""


def in_words(growth: Growth) -> list[str]:
    """Return what was found: the laws on the first network, what breaks them, and the crossovers there."""
    first = growth.conditions[0]
    laws = [law for law in growth.laws if (law.topology, law.bandwidth) == (first.topology, first.bandwidth)]
    span = f"P = {growth.grid[0]} to {growth.grid[-1]}"
    return [
        *(_law(growth, law, first, span) for law in laws),
        *_broken(growth),
        *_orders(growth, first, span),
    ]


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
        sentence += f"; a selected entry more costs {format_duration(law.entry.seconds)}{basis} ({low} to {high})"
    if found.worst > LARGE_ERROR:
        sentence += f"; no one form describes it: this one is up to {found.worst:.0%} off"
    return sentence + "."


def _formula(found: Fit) -> str:
    if found.form == "1":
        low, high = (format_duration(bound) for bound in found.intercept_interval)
        return f"{format_duration(found.intercept)} (95% interval {low} to {high})"
    low, high = (format_duration(bound) for bound in found.slope_interval)
    return (
        f"{format_duration(found.intercept)} + {format_duration(found.slope)} · {BASIS[found.form]} "
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
            f"{growth.titles[algorithm]} {what} with {growth.grid[-1]} workers it takes {each.times_as_long:.3g}× as "
            f"long as on {reference} ({each.condition.in_words()})."
        )
    return sentences


def _severity(each: Broken) -> tuple[bool, float]:
    return each.form != each.reference, each.times_as_long


def _orders(growth: Growth, first: Condition, span: str) -> list[str]:
    """Return the crossovers of the first condition, and the pairs that keep their order there."""
    pairs: dict[frozenset[str], list[Crossover]] = {}
    for condition, each in growth.crossovers:
        if condition in (first, first.dense()):
            pairs.setdefault(frozenset((each.before, each.after)), []).append(each)
    sentences = []
    for changes in pairs.values():
        if len(changes) > 1:
            one, other = growth.titles[changes[0].before], growth.titles[changes[0].after]
            at = ", ".join(str(each.workers) for each in changes)
            sentences.append(
                f"The order of {one} and {other} changes {len(changes)} times, at P = {at}; {one} is first."
            )
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


def _change(growth: Growth, each: Crossover, condition: Condition) -> str:
    after, before = growth.titles[each.after], growth.titles[each.before]
    interval = "" if each.interval is None else f" ({each.interval[0]:.3g} to {each.interval[1]:.3g})"
    fitted = "" if each.fitted is None else f"the fitted curves cross at P = {each.fitted:.3g}{interval}"
    if each.bracket is None:
        return f"Beyond what was simulated, {after} overtakes {before}: {fitted} ({condition.in_words()})."
    low, high = each.bracket
    exact = "" if high - low == 1 else f" (or from one after P = {low})"
    fitted = f"; {fitted}" if fitted else ""
    return f"{after} is faster than {before} from P = {high}{exact}{fitted} ({condition.in_words()})."
