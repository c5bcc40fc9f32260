"""How many training seeds and prompts a declared bound needs, from the variances of a result."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench import stats
from bench.results.analysis import Array
from bench.results.protocol import Protocol

Kind = Literal["equivalence", "difference"]


@dataclass(frozen=True)
class Need:
    """What it takes to establish one thing about one comparison on the primary reward."""

    comparison: str
    """Its name."""
    kind: Kind
    """To show that the arms differ by less than the bound, where they do not differ at all; or to
    find a difference of the bound's size."""
    size: float
    """The bound in units of the primary reward."""
    power: float
    """Probability to establish it with the seeds and prompts of the result, in [0, 1]."""
    seeds: int | None
    """Fewest training seeds with as many prompts; None where no number is enough."""
    prompts: int | None
    """Fewest prompts with as many training seeds; None where no number is enough."""


def needs(family: list[Array | None], protocol: Protocol, target: float) -> list[Need]:
    """What the declared bound needs, for every comparison that there is enough of.

    Args:
        family: Differences of each comparison, as :func:`bench.results.analysis.differences` gives
            them.
        protocol: The declared analysis.
        target: Probability to reach, in (0, 1).

    Raises:
        ValueError: If the bound is a share of a gain that is not above 0.
    """
    declared = protocol.statistics
    names = [comparison.name for comparison in protocol.comparisons]
    whole = None if declared.gain is None else family[names.index(declared.gain)]
    if declared.share is not None and whole is not None and (gain := float(np.nanmean(whole))) <= 0:
        raise ValueError(
            f"the bound is {declared.share:.0%} of {declared.gain}, which is {gain:+.4g} here: "
            "expected a gain above 0; declare another in statistics.equivalence, or a bound"
        )
    several = [d for d in family if d is not None and len(d) > 1]
    found: list[Need] = []
    for name, d in zip(names, family, strict=True):
        if d is None or len(d) < 2 or (declared.share is not None and name == declared.gain):
            continue
        independent = stats.seed_noise(several).df / (len(d) - 1)
        for question in _questions(d, whole, protocol, max(1.0, independent)):
            n_seeds, n_prompts = d.shape
            found.append(
                Need(
                    name,
                    question.kind,
                    question.size,
                    stats.power(question, n_seeds, n_prompts),
                    stats.seeds_needed(question, n_prompts, target),
                    stats.prompts_needed(question, n_seeds, target),
                )
            )
    return found


def _questions(
    d: Array, whole: Array | None, protocol: Protocol, independent: float
) -> list[stats.Question]:
    declared, family = protocol.statistics, len(protocol.comparisons)
    alpha = declared.alpha
    components = stats.variance_components(d)
    if declared.bound is not None:
        same = stats.Question(components, declared.bound, "equivalence", family, independent, alpha)
    elif declared.share is not None and whole is not None:
        same = stats.share_question(d, whole, declared.share, independent=independent, alpha=alpha)
    else:
        return []
    other = stats.Question(components, same.size, "difference", family, independent, alpha)
    return [same, other]
