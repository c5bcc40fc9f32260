"""Tables of a comparison of two results or two arms."""

from collections.abc import Iterator

from bench.report.cells import Cell, Mark, Report, Table, name
from bench.report.numbers import between, wins
from bench.report.tables import NOTHING
from bench.results.compare import ALPHA, Compared, Comparison

MARKS: dict[str, tuple[Mark, ...]] = {"better": ("helps",), "worse": ("hurts",)}


def report(found: Comparison) -> Report:
    """What differs, then the scores."""
    tables = [
        Table(
            f"{kind.capitalize()} that differ",
            (name("key"), name("first"), name("second")),
            tuple((name(d.key), name(d.first), name(d.second)) for d in of_kind),
        )
        for kind in ("settings", "versions", "files")
        if (of_kind := [d for d in found.differences if d.what == kind])
    ]
    if found.scores:
        tables.append(_scores(found))
    return Report(f"{found.second} against {found.first}", tuple(tables), tuple(_notes(found)))


def _scores(found: Comparison) -> Table:
    columns = ("arm", "reward", "second - first [95% interval]", "p (Holm)", "win rate (W-T-L)",
               "second is", "compared")  # fmt: skip
    return Table("Scores", tuple(map(name, columns)), tuple(map(_row, found.scores)))


def _row(each: Compared) -> tuple[Cell, ...]:
    d, p = each.difference, each.p_adjusted
    how = f"{each.how}: {each.why}" if each.why else each.how
    return (
        name(each.arm),
        name(each.reward),
        Cell(d.mean, between(d, each.like)) if d else NOTHING,
        NOTHING if p is None else Cell(p, "<0.0001" if p < 1e-4 else f"{p:.4f}"),
        Cell(each.wins.rate, wins(each.wins)) if each.wins else NOTHING,
        name(each.word, *MARKS.get(each.word, ())),
        name(how),
    )


def _notes(found: Comparison) -> Iterator[str]:
    kinds = {d.what for d in found.differences}
    for kind in ("settings", "versions", "files"):
        if kind not in kinds:
            yield f"No {kind} differ, as far as they are recorded."
    yield (
        f"{found.same_images} of {found.images} images that have the same seed, prompt and number "
        "on both sides are the same bytes."
    )
    if found.alone:
        yield f"On one side only: {', '.join(found.alone)}."
    yield (
        "Differences are signed so that positive is better for the second. Beyond noise is p below "
        f"{ALPHA:g} after Holm over all of them, with three training seeds or more. Paired: the "
        "same prompts, settings of the images and noise. By prompt: images were made otherwise, so "
        "that their noise is in the interval. Unpaired: Welch's interval of two means."
    )
