"""What a page says in sentences beside what the tables say."""

from collections.abc import Iterator
from typing import Any

from bench.report.cells import Cell, Table, name
from bench.report.notes import bound, warning
from bench.report.numbers import between, of_gain, scale
from bench.report.tables import NOTHING
from bench.results.analysis import Finding, Results
from bench.results.manifest import Manifest


def compared(results: Results, manifest: Manifest | None) -> Iterator[tuple[str, str]]:
    """What was compared and how, in five lines."""
    protocol = results.protocol
    p, i, pairs = protocol.prompts, protocol.images, protocol.pairs
    base = "the base model" if manifest is None else f"the base model {manifest.inputs.base.name}"
    seeds = [*protocol.training_seeds()]
    data = pairs.data if isinstance(pairs.data, str) else pairs.data.get("name", "pairs")
    yield (
        "Arms",
        (
            f"{', '.join(arm.name for arm in protocol.arms[1:])}; each starts from {base} and is "
            f"trained with {len(seeds)} seed(s) on {pairs.kept} pairs of {data}."
        ),
    )
    yield (
        "Images",
        (
            f"{len(p.ids)} prompts of {p.name} ({p.split} split), {i.per_prompt} image(s) each by "
            f"{i.sampler}, {i.steps} steps, guidance {i.guidance:g}; equal noise in every arm."
        ),
    )
    yield (
        "Judged by",
        (
            f"{protocol.primary}, declared beforehand; {len(protocol.rewards) - 1} other reward(s) "
            "are exploratory."
        ),
    )
    yield (
        "Tested",
        (
            f"paired differences over training seeds and prompts at {protocol.statistics.alpha:g}, "
            f"Holm over {len(results.comparisons)} comparison(s); equivalent: {bound(results)}."
        ),
    )
    yield "Read as", f"{protocol.label}. Made by dpo-bench {protocol.bench}."


def answer(results: Results, finding: Finding) -> str:
    """What came of a comparison, in numbers and words."""
    primary = results.protocol.primary
    contrast = finding.contrasts[primary]
    if contrast is None:
        return f"{finding.reason}."
    told = between(contrast.interval, scale(results, primary))
    share = "" if contrast.of_gain is None else f", {of_gain(contrast.of_gain)} of the gain"
    return f"{told} on {primary}{share}: {finding.reason}."


def metrics(results: Results, manifest: Manifest | None) -> Iterator[tuple[str, str, str]]:
    """Each reward, which question it answers by what it says of itself, and how to read it."""
    cards = {} if manifest is None else manifest.rewards
    for reward in results.protocol.rewards:
        primary = "Verdicts rest on it. " if reward.name == results.protocol.primary else ""
        judge = f" No independent judge here: {warning(reward)}." if reward.marks else ""
        read = f"{primary}{reward.direction.capitalize()} is better.{judge}"
        yield reward.name, _question(cards.get(reward.name, {})), read


def _question(card: dict[str, Any]) -> str:
    """What a card says, or what follows from it where it says nothing."""
    if card.get("answers"):
        return str(card["answers"])
    if not card:
        return "The folder does not say what it answers."
    seen = "the picture alone" if card["text"] is None else "picture and prompt"
    learnt = f"learnt from {', '.join(card['trained_on'])}" if card["trained_on"] else "not learnt"
    return f"It does not say what it answers: {card['scale']} from {seen}, {learnt}."


def side_by_side(results: dict[str, Results]) -> Table:
    """The comparisons of several results, by their names, each on its own primary reward."""
    found = {
        label: {f.comparison.name: f for f in one.comparisons} for label, one in results.items()
    }
    names = dict.fromkeys(n for comparisons in found.values() for n in comparisons)
    rows = [
        (name(n), *(_beside(results[label], found[label].get(n)) for label in results))
        for n in names
    ]
    heads = [f"{label}: on {one.protocol.primary}" for label, one in results.items()]
    title = "The same comparisons in each result"
    return Table(title, (name("comparison"), *map(name, heads)), tuple(rows))


def _beside(results: Results, finding: Finding | None) -> Cell:
    if finding is None:
        return NOTHING
    contrast = finding.contrasts[results.protocol.primary]
    if contrast is None:
        return Cell(None, finding.verdict, (finding.verdict,))
    told = between(contrast.interval, scale(results, results.protocol.primary))
    return Cell(contrast.interval.mean, f"{told} {finding.verdict}", (finding.verdict,))
