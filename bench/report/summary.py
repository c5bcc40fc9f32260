"""What was found, in a few sentences: a pure function of results."""

from collections.abc import Iterator, Sequence

from bench.report.numbers import between, number, scale
from bench.results.analysis import Contrast, Finding, Results
from bench.stats import Interval, VerdictWord, tost_equivalent

NAMED = 8
"""Comparisons that a sentence names; others are counted."""
DECIDED: tuple[VerdictWord, ...] = ("helps", "hurts", "equivalent")
"""Verdicts that answer a question, in the order in which they are told."""
STANCE: dict[VerdictWord, int] = {"helps": 1, "hurts": -1, "equivalent": 0}
"""Which side a verdict takes: 1 for the arm that is looked at, -1 for the other."""


def summary(results: Results) -> tuple[str, ...]:
    """Six sentences at most, however many comparisons there are."""
    return (*_verdicts(results), *_disagreement(results), _missing(results))


def _verdicts(results: Results) -> Iterator[str]:
    """A sentence for each verdict, and one for all that is open; the first says what is judged."""
    protocol = results.protocol
    groups = {word: [f for f in results.comparisons if f.verdict == word] for word in DECIDED}
    like = scale(results, protocol.primary)
    bound = "" if results.delta0 is None else f", to within {number(results.delta0, like)},"
    leads = {"helps": "helps", "hurts": "hurts", "equivalent": f"is equivalent{bound}"}
    texts = [
        f"hat {leads[word]} is {_listed([_told(results, f) for f in found])}"
        for word, found in groups.items()
        if found
    ]
    if still := [f for f in results.comparisons if f.verdict not in DECIDED]:
        reasons = [f"{_told(results, f)} ({f.verdict}: {f.reason})" for f in still]
        texts.append(f"hat stays open is {_listed(reasons)}")
    for n, text in enumerate(texts):
        yield f"{_judged(results)}w{text}." if n == 0 else f"W{text}."


def _judged(results: Results) -> str:
    """The primary reward, where it starts, and what intervals and percentages are."""
    protocol = results.protocol
    start = results.means[protocol.arms[0].name][protocol.primary]
    told = "" if start is None else f"{number(start.mean)} for {protocol.arms[0].name}; "
    told += f"{100 * (1 - protocol.statistics.alpha):g}% intervals"
    if (found := gain(results)) is not None:
        told += f"; percentages of the gain {_pair(found)}"
    return f"On {protocol.primary} ({told}) "


def gain(results: Results) -> Finding | None:
    """The comparison of the first objective with the base model, where it is seen to help."""
    base, *trained = (arm.name for arm in results.protocol.arms)
    for found in results.comparisons:
        if [found.comparison.on, found.comparison.off] == [*trained[:1], base]:
            return found if found.verdict == "helps" else None
    return None


def _percent(results: Results, effect: float) -> str:
    """A difference in percent of :func:`gain`, from the means alone; empty without a gain."""
    found = gain(results)
    whole = found and found.contrasts[results.protocol.primary]
    return f", {100 * effect / whole.interval.mean:+.0f} %" if whole else ""


def _told(results: Results, finding: Finding) -> str:
    """``DPO+A - DPO: +0.0017 [-0.0036, +0.0071], +5 %``."""
    primary = results.protocol.primary
    contrast = finding.contrasts[primary]
    if contrast is None:
        return _pair(finding)
    text = f"{_pair(finding)}: {between(contrast.interval, scale(results, primary))}"
    if finding != gain(results):
        text += _percent(results, contrast.interval.mean)
    if finding.verdict in ("helps", "hurts") and _small(results, contrast.interval):
        text += " (smaller than the effect of interest)"
    return text


def _small(results: Results, interval: Interval) -> bool:
    alpha = results.protocol.statistics.alpha
    return results.delta0 is not None and tost_equivalent(interval, results.delta0, alpha)


def _pair(finding: Finding) -> str:
    return f"{finding.comparison.on} - {finding.comparison.off}"


def _listed(texts: Sequence[str]) -> str:
    more = [f"{len(texts) - NAMED} more"] if len(texts) > NAMED else []
    return "; ".join([*texts[:NAMED], *more])


def _disagreement(results: Results) -> Iterator[str]:
    """Where other rewards take a side that the primary one does not."""
    primary = results.protocol.primary
    others = [r.name for r in results.protocol.rewards if r.name != primary]
    if not others:
        return
    against = [(f, _dissent(f, others, primary)) for f in results.comparisons]
    against = [(f, names) for f, names in against if names]
    if not against:
        yield f"No other reward takes a side that {primary} does not."
        return
    most, names = max(against, key=lambda pair: len(pair[1]))
    rates = ", ".join(f"{name} {_rate(most.contrasts[name])}" for name in names)
    yield (
        f"Other rewards take a side that {primary} does not in {len(against)} of "
        f"{len(results.comparisons)} comparisons, most in {_pair(most)}: "
        f"{most.comparison.on} wins {rates} of images, by {primary} "
        f"{_rate(most.contrasts[primary])} ({most.verdict})."
    )


def _dissent(finding: Finding, others: Sequence[str], primary: str) -> list[str]:
    """Rewards that take a side which the primary one does not; none where it leaves it open."""
    stance = STANCE.get(finding.verdict, _side(finding.contrasts[primary]) or None)
    if stance is None:
        return []
    sides = {name: _side(finding.contrasts[name]) for name in others}
    return [name for name, side in sides.items() if side not in (0, stance)]


def _side(contrast: Contrast | None) -> int:
    """1 or -1: the arm that difference and win rate favour by their intervals; 0 if none."""
    if contrast is None:
        return 0
    i, w = contrast.interval, contrast.wins
    above, below = i.low > 0 or w.low > 0.5, i.high < 0 or w.high < 0.5
    return int(above) - int(below)


def _rate(contrast: Contrast | None) -> str:
    return "nothing" if contrast is None else f"{100 * contrast.wins.rate:.1f} %"


def _missing(results: Results) -> str:
    gaps = [f"{reward} {n} of {results.expected}" for reward, n in results.missing.items() if n]
    return f"Missing scores: {', '.join(gaps)}." if gaps else "No score is missing."
