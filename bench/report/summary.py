"""What was found, in a few sentences: a pure function of results."""

from collections.abc import Iterator, Sequence

from bench.report.notes import shared
from bench.report.numbers import between, number, of_gain, scale
from bench.results.analysis import Contrast, Finding, Results
from bench.stats import VerdictWord

NAMED = 8
"""Comparisons that a sentence names; others are counted."""
DECIDED: tuple[VerdictWord, ...] = ("helps", "hurts", "equivalent")
"""Verdicts that answer a question, in the order in which they are told."""
STANCE: dict[VerdictWord, int] = {"helps": 1, "hurts": -1, "equivalent": 0}
"""Which side a verdict takes: 1 for the arm that is looked at, -1 for the other."""


def summary(results: Results) -> tuple[str, ...]:
    """Six sentences at most, however many comparisons there are, and one if prompts are shared."""
    return (*_verdicts(results), *_disagreement(results), _missing(results),
            *shared(results.protocol))  # fmt: skip


def _verdicts(results: Results) -> Iterator[str]:
    """A sentence for each verdict, and one for all that is open; the first says what is judged."""
    groups = {word: [f for f in results.comparisons if f.verdict == word] for word in DECIDED}
    leads = {"helps": "helps", "hurts": "hurts", "equivalent": "is equivalent"}
    texts = [
        f"hat {leads[word]} is {_listed([_told(results, f) for f in found])}"
        for word, found in groups.items()
        if found
    ]
    if still := [f for f in results.comparisons if f.verdict not in DECIDED]:
        texts.append(f"hat stays open is {_listed([_told(results, f) for f in still])}")
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
    """The comparison that others are held against, where it is seen to help."""
    for found in results.comparisons:
        if found.comparison.name == results.protocol.statistics.gain:
            return found if found.verdict == "helps" else None
    return None


def _told(results: Results, finding: Finding) -> str:
    """``DPO+A - DPO: +0.0017 [-0.0036, +0.0071], +5 % [-13, +21]``."""
    contrast = finding.contrasts[results.protocol.primary]
    if contrast is None:
        return _pair(finding)
    text = (
        f"{_pair(finding)}: {between(contrast.interval, scale(results, results.protocol.primary))}"
    )
    return text if contrast.of_gain is None else f"{text}, {of_gain(contrast.of_gain)}"


def _pair(finding: Finding) -> str:
    return finding.comparison.name


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
        f"{' and '.join(most.comparison.on)} wins {rates} of images, by {primary} "
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
