"""The conclusion of a scaling study in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netsim._util.units import format_duration, format_factor
from studies.crossovers import Crossover
from studies.fits import Fit
from studies.growth import BREAKS, Broken, Condition, Growth, Law, order_of

BASIS = {"1": "", "log2(P)": "log₂P", "(P-1)/P": "(P−1)/P", "P": "P", "sqrt(P)": "√P"}
LARGE_ERROR = 0.2
"""Relative error above which a sentence says that none of the forms describes the curve."""


def in_words(growth: Growth) -> list[str]:
    """Return the conclusion: the growth laws and crossovers on the first network, and topologies that are slower."""
    first = growth.conditions[0]
    laws = [law for law in growth.laws if (law.topology, law.bandwidth) == (first.topology, first.bandwidth)]
    span = f"P = {growth.grid[0]} to {growth.grid[-1]:,}"
    sentences = [
        _headline(growth, laws, first),
        f"{_fastest(growth, first)} ({first.in_words()}).",
        *(_law(growth, law, span) for law in laws),
        *_broken(growth),
        *_kept(growth),
        *_orders(growth, first, span),
    ]
    return [text if text.startswith("gTop-k") else text[0].upper() + text[1:] for text in sentences]


def _headline(growth: Growth, laws: Sequence[Law], first: Condition) -> str:
    """Return the order of each algorithm."""
    orders = ", ".join(f"{growth.titles[law.algorithm]} {_in_order(law)}" for law in laws)
    return f"Communication on {first.topology} grows: {orders}."


def _in_order(law: Law) -> str:
    if law.order is None:
        return "in an order that depends on the density"
    return f"nearest to {law.order}" if _poor(law) else f"in {law.order}"


def _poor(law: Law) -> bool:
    return max(fitted.worst for fitted in law.fits.values()) > LARGE_ERROR


def _fastest(growth: Growth, first: Condition) -> str:
    """Return the fastest algorithm at the largest P, the P from which it stays fastest, and the fastest at fewer P."""
    grid = growth.grid
    last = growth.fastest(first, grid[-1])
    simulated = sorted({workers for name in growth.algorithms() for workers in growth.outcomes(first, name)})
    # At a P of the search for crossovers some algorithms were not simulated. An algorithm that is slower than one of
    # the simulated ones is not the fastest there.
    others = [
        workers
        for workers in simulated
        if workers <= grid[-1]
        and (workers in grid or any(workers in growth.outcomes(first, name) for name in last))
        and growth.fastest(first, workers) != last
    ]
    since = [workers for workers in grid if workers > max(others, default=0)]
    span = f"{since[0]:,} to {since[-1]:,}" if len(since) > 1 else f"{since[0]:,}"
    before = dict.fromkeys(name for workers in grid if workers < since[0] for name in growth.fastest(first, workers))
    below = f"; at fewer, {' or '.join(growth.titles[name] for name in before)}" if before else ""
    names, have = _several([growth.titles[name] for name in last], "has", "have")
    return f"With {span} workers {names} {have} the shortest round{below}"


def _several(titles: Sequence[str], one: str, more: str) -> tuple[str, str]:
    """Return titles as the subject of a sentence, and the matching verb."""
    return (titles[0], one) if len(titles) == 1 else (f"{', '.join(titles[:-1])} and {titles[-1]} alike", more)


def _law(growth: Growth, law: Law, span: str) -> str:
    """Return a sentence on one algorithm: its law if the fits of all densities agree, otherwise each fit."""
    title, where = growth.titles[law.algorithm], f"on {law.topology}, {law.bandwidth} ({span})"
    if law.order is None:
        fits = "; ".join(
            f"at density {density:g} {order_of(fitted)}, {_formula(fitted)}{_misfit([fitted])}"
            for density, fitted in law.fits.items()
        )
        return f"{title} communicates in an order that depends on the density {where}: {fits}."
    (density, fitted), *_ = law.fits.items()
    selected = growth.curves[Condition(law.topology, law.bandwidth, density), law.algorithm][growth.grid[0]]["k"]
    at_k = f" at k = {selected:,}" if selected is not None else ""
    told = f"communicates in {law.order}"
    if _poor(law):
        told = f"communicates in none of the five forms, nearest to {law.order},"
    sentence = f"{title} {told}{_bounded(fitted)} {where}: {_formula(fitted)}{at_k}"
    if law.entry is not None and law.entry.proportional:
        ends = _between(map(format_duration, law.entry.interval))
        basis = f" · {BASIS[fitted.form]}" if fitted.form != "1" else ""
        sentence += f"; each further selected entry costs {format_duration(law.entry.seconds)}{basis}{ends}"
    return f"{sentence}{_misfit(law.fits.values())}."


def _bounded(fitted: Fit) -> str:
    if fitted.slope < 0:
        return " (falling as P grows)"
    return " (bounded in P)" if fitted.form in ("1", "(P-1)/P") else ""


def _misfit(fits: Iterable[Fit]) -> str:
    worst = max(fits, key=lambda fitted: fitted.worst)
    if worst.describes:
        return ""
    none = "none of the forms describes the curve: " if worst.worst > LARGE_ERROR else ""
    return f"; {none}the best has errors up to {worst.worst:.0%}"


def _formula(fitted: Fit) -> str:
    if fitted.form == "1":
        return _signed(fitted.intercept) + _between(map(_signed, fitted.intercept_interval), "95% interval ")
    formula = f"{_signed(fitted.slope)} · {BASIS[fitted.form]}"
    if fitted.offset:
        formula += f" {'−' if fitted.offset < 0 else '+'} {format_duration(abs(fitted.offset))}"
    return formula + _between(map(_signed, fitted.slope_interval), "95% interval of the slope ")


def _between(ends: Iterable[str], what: str = "") -> str:
    """Return an interval in parentheses; nothing if its ends have the same text."""
    low, high = ends
    return "" if low == high else f" ({what}{low} to {high})"


def _signed(seconds: float) -> str:
    return f"{'−' if seconds < 0 else ''}{format_duration(abs(seconds))}"


def _broken(growth: Growth) -> list[str]:
    """Return a sentence on the worst condition of each algorithm and slower topology; another form counts as worse."""
    worst: dict[tuple[str, str], Broken] = {}
    for each in growth.broken():
        key = (each.algorithm, each.condition.topology)
        if key not in worst or _severity(each) > _severity(worst[key]):
            worst[key] = each
    reference = growth.conditions[0].topology
    laws = {(law.algorithm, law.bandwidth): law for law in growth.laws if law.topology == reference}
    sentences = []
    for (algorithm, topology), each in worst.items():
        form = BASIS[each.form] or "a constant"
        verdict = f"breaks its law on {topology}: {form} fits best, and"
        if each.form == each.reference:
            verdict = f"keeps its form on {topology}, but"
        elif laws[algorithm, each.condition.bandwidth].form is None:
            verdict = f"has another form on {topology}: {form} fits best, and"
        sentences.append(
            f"{growth.titles[algorithm]} {verdict} with {growth.grid[-1]:,} workers it takes "
            f"{format_factor(each.times_as_long)} as long as on {reference} ({each.condition.in_words()})."
        )
    return sentences


def _kept(growth: Growth) -> list[str]:
    """Return a sentence for each other topology on the algorithms that it does not slow down by BREAKS."""
    slower = {(each.condition.topology, each.algorithm) for each in growth.broken()}
    topologies = dict.fromkeys(condition.topology for condition in growth.conditions[1:])
    reference = growth.conditions[0].topology
    kept = {
        topology: [growth.titles[name] for name in growth.algorithms() if (topology, name) not in slower]
        for topology in topologies
        if topology != reference
    }
    return [
        f"On {topology}, communication of {', '.join(names)} with {growth.grid[-1]:,} workers takes less than "
        f"{BREAKS:g}× as long as on {reference}, at every bandwidth and density."
        for topology, names in kept.items()
        if names
    ]


def _severity(each: Broken) -> tuple[bool, float]:
    return each.form != each.reference, each.times_as_long


def _orders(growth: Growth, first: Condition, span: str) -> list[str]:
    """Return sentences on the crossovers of the first condition, and on the pairs that keep their order."""
    here = [changes for (condition, _), changes in growth.changes().items() if condition in (first, first.dense())]
    sentences = []
    for changes in here:
        told = _alternating(growth, changes, first) if len(changes) > 1 else _change(growth, changes[0], first)
        sentences.append(told)
    kept = [_stays(growth, *each) for each in growth.never_cross() if each[0] in (first, first.dense())]
    if kept:
        sentences.append(f"The order is the same for all of {span}: {', '.join(kept)} ({first.in_words()}).")
    equal = [
        f"{growth.titles[one]} and {growth.titles[other]}"
        for condition, one, other in growth.always_equal()
        if condition in (first, first.dense())
    ]
    if equal:
        sentences.append(f"Equally fast for all of {span}: {', '.join(equal)} ({first.in_words()}).")
    return sentences


def _stays(growth: Growth, condition: Condition, faster: str, slower: str) -> str:
    pair = (faster, slower)
    equal = sorted(set(growth.together(condition, pair)) - set(growth.ahead(condition, pair)))
    but = f" (equal at P = {', '.join(_runs(equal, growth.together(condition, pair)))})" if equal else ""
    return f"{growth.titles[faster]} faster than {growth.titles[slower]}{but}"


def _alternating(growth: Growth, changes: Sequence[Crossover], condition: Condition) -> str:
    """Return a sentence on an order that changes several times: the P at which the less often faster one is faster."""
    pair = (changes[0].before, changes[0].after)
    leads = {name: growth.ahead(condition, order) for name, order in zip(pair, (pair, pair[::-1]), strict=True)}
    ahead, other = sorted(pair, key=lambda name: len(leads[name]))
    leading = ", ".join(_runs(leads[ahead], growth.together(condition, pair)))
    return (
        f"The order of {growth.titles[other]} and {growth.titles[ahead]} alternates: of the simulated P, "
        f"{growth.titles[ahead]} is faster only at {leading} ({condition.in_words()})."
    )


def _runs(some: Sequence[int], every: Sequence[int]) -> list[str]:
    """Return the P of `some` as text, with neighbours in `every` joined: "4", "6 to 9", "16 on"."""
    told: list[str] = []
    start = None
    for position, workers in enumerate(every, 1):
        if workers in some and start is None:
            start = workers
        if start is not None and (position == len(every) or every[position] not in some):
            alone = str(start) if start == workers else f"{start} to {workers}"
            told.append(f"{start} on" if position == len(every) and start != workers else alone)
            start = None
    return told


def _change(growth: Growth, each: Crossover, condition: Condition) -> str:
    after, before = growth.titles[each.after], growth.titles[each.before]
    interval = "" if each.interval is None else _between(map(_number, each.interval))
    fitted = "" if each.fitted is None else f"the fitted curves cross at P = {_number(each.fitted)}{interval}"
    if each.bracket is None:
        return f"Beyond the simulated P, {after} overtakes {before}: {fitted} ({condition.in_words()})."
    low, high = each.bracket
    simulated = growth.together(condition, (each.before, each.after))
    last = max(workers for workers in simulated if workers < high)
    exact = "" if high - last == 1 else f" (or from a P after {last:,})"
    exact += (
        f"; equal at P = {', '.join(_runs([p for p in simulated if low < p < high], simulated))}" if last > low else ""
    )
    fitted = f"; {fitted}" if fitted else ""
    return f"{after} is faster than {before} from P = {high:,}{exact}{fitted} ({condition.in_words()})."


def _number(workers: float) -> str:
    return f"{workers:,.0f}" if workers >= 100 else f"{workers:.3g}"
