"""Tables: pure functions of results. The same results give the same bytes."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from bench.results.analysis import Comparison, Contrast, Plan, Results, as_data
from bench.stages.store import as_json
from bench.stats import Interval


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number(value: float, like: float | None = None) -> str:
    """A score with as many decimals as its size (or that of ``like``) deserves."""
    size = abs(like if like is not None else value)
    return f"{value:.{2 if size >= 10 else 3 if size >= 1 else 4}f}"


def signed(value: float, like: float) -> str:
    """A difference with its sign."""
    text = number(value, like)
    return text if text.startswith("-") else f"+{text}"


def between(interval: Interval, like: float) -> str:
    """``+0.0123 [+0.0011, +0.0235]``, with a dagger if it rests on one training run."""
    low, high = signed(interval.low, like), signed(interval.high, like)
    dagger = "†" if interval.conditional else ""
    return f"{signed(interval.mean, like)} [{low}, {high}]{dagger}"


def grids(results: Results) -> tuple[Grid, ...]:
    """Arms, comparisons on the primary reward, and the other rewards."""
    return (_arms(results), _primary(results), *_exploratory(results))


def _scale(results: Results, reward: str) -> float:
    """A typical size of the differences of a reward, which decides the decimals."""
    means = [arm[reward] for arm in results.means.values()]
    return max((abs(m.mean) for m in means if isinstance(m, Interval)), default=1.0)


def _arms(results: Results) -> Grid:
    plan = results.plan
    header = ("arm", "seeds", *(marked(plan, r) for r in plan.rewards), "win rate against base*")
    rows = []
    for arm in plan.arms:
        cells = []
        for reward in plan.rewards:
            mean = results.means[arm.name][reward]
            cells.append("missing" if not isinstance(mean, Interval) else number(mean.mean))
        against = results.against_base.get(arm.name)
        trained = arm.name in results.against_base
        cells.append(wins(against) if against else "missing" if trained else "-")
        count = sum(seed is not None for seed in arm.seeds)
        rows.append((arm.name, str(count) if count else "-", *cells))
    return Grid("Mean scores (* primary)", header, tuple(rows))


def marked(plan: Plan, reward: str) -> str:
    """A reward's name with a star if it is the primary one, a degree sign if a note warns of it."""
    return f"{reward}{'*' if reward == plan.primary else ''}{'°' if reward in plan.marks else ''}"


def _primary(results: Results) -> Grid:
    reward = results.plan.primary
    scale = _scale(results, reward)
    interval = f"{100 * (1 - results.plan.alpha):g}% interval"
    header = ("comparison", f"difference [{interval}]", "p (Holm)", "win rate (W-T-L)", "dz",
              "verdict")  # fmt: skip
    rows = tuple(_primary_row(c, c.contrasts[reward], scale) for c in results.comparisons)
    return Grid(f"Paired differences on {reward} (primary)", header, rows)


def _primary_row(
    comparison: Comparison, contrast: Contrast | None, scale: float
) -> tuple[str, ...]:
    name = f"{comparison.on} - {comparison.off}"
    if contrast is None:
        return (name, "missing", "-", "-", "-", f"{comparison.verdict}: {comparison.reason}")
    p = comparison.p_adjusted
    return (
        name,
        between(contrast.interval, scale),
        "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}",
        wins(contrast),
        "-" if contrast.dz is None else f"{contrast.dz:+.2f}",
        comparison.verdict,
    )


def wins(contrast: Contrast) -> str:
    """``63.1 % (284-0-166)``."""
    w = contrast.wins
    return f"{100 * w.rate:.1f} % ({w.wins}-{w.ties}-{w.losses})"


def _exploratory(results: Results) -> tuple[Grid, ...]:
    others = [r for r in results.plan.rewards if r != results.plan.primary]
    if not others:
        return ()
    rows = []
    for comparison in results.comparisons:
        cells = []
        for reward in others:
            contrast = comparison.contrasts[reward]
            cells.append(
                "missing"
                if contrast is None
                else f"{between(contrast.interval, _scale(results, reward))} "
                f"{100 * contrast.wins.rate:.1f} %"
            )
        rows.append((f"{comparison.on} - {comparison.off}", *cells))
    title = "Other rewards: difference [unadjusted interval] and win rate, exploratory"
    header = ("comparison", *(marked(results.plan, reward) for reward in others))
    return (Grid(title, header, tuple(rows)),)


def notes(results: Results) -> list[str]:
    """What a reader must know to trust the numbers."""
    plan = results.plan
    scale = _scale(results, plan.primary)
    aa = results.control[plan.primary]
    lines = [f"Read as: {plan.label}."]
    if aa is not None and results.delta0 is not None:
        source = "declared" if plan.delta0 is not None else "half-width of the A/A interval"
        lines.append(
            f"A/A control (base against base, other noise, {aa.n_seeds} pairs of image sets): "
            f"{between(aa, scale)}; smallest effect of interest {number(results.delta0, scale)} "
            f"({source})."
        )
    lines.append(
        f"Intervals: training seeds x prompts crossed, Satterthwaite df. Holm over "
        f"{len(results.comparisons)} declared comparisons on {plan.primary}."
    )
    lines += [
        f"{c.on} - {c.off}: {c.verdict}: {c.reason}; variance of the mean: "
        f"{_shares(c.contrasts[plan.primary])}."
        for c in results.comparisons
    ]
    lines += [f"° {reward}: {why}." for reward, why in plan.marks.items()]
    gaps = [f"{r} {n} of {results.expected}" for r, n in results.missing.items()]
    lines.append(f"Missing scores: {', '.join(gaps)}.")
    return [*lines, *plan.footer]


def _shares(contrast: Contrast | None) -> str:
    if contrast is None:
        return "unknown"
    i = contrast.interval
    return (
        f"seeds {i.share_seed:.0%}, prompts {i.share_prompt:.0%}, rest {i.share_residual:.0%}; "
        f"by seed {' '.join(f'{e:+.4f}' for e in contrast.seed_effects)}"
    )


def markdown(results: Results) -> str:
    """The whole as Markdown."""
    parts = [f"# {results.plan.title}\n"]
    for grid in grids(results):
        lines = [grid.header, tuple("---" for _ in grid.header), *grid.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"**{grid.title}**\n\n{table}\n")
    parts.append("\n".join(f"- {line}" for line in notes(results)) + "\n")
    return "\n".join(parts)


def json_text(results: Results) -> str:
    """Every figure, unrounded to 9 significant digits."""
    return as_json(as_data(results))


def csv_text(results: Results) -> str:
    """One line per comparison and reward."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["on", "off", "reward", "primary", "difference", "low", "high", "se", "df", "p", "p_holm",
         "win_rate", "wins", "ties", "losses", "dz", "bootstrap_low", "bootstrap_high",
         "n_seeds", "n_prompts", "n_missing", "conditional", "verdict", "mark"]
    )  # fmt: skip
    pairs = chain.from_iterable(
        ((c, reward, contrast) for reward, contrast in c.contrasts.items())
        for c in results.comparisons
    )
    for comparison, reward, contrast in pairs:
        writer.writerow(_csv_row(results, comparison, reward, contrast))
    return stream.getvalue()


def _csv_row(
    results: Results, c: Comparison, reward: str, contrast: Contrast | None
) -> list[object]:
    primary = reward == results.plan.primary
    head: list[object] = [c.on, c.off, reward, primary]
    tail = [c.verdict if primary else "", results.plan.marks.get(reward, "")]
    if contrast is None:
        return [*head, *[""] * 18, *tail]
    i, w = contrast.interval, contrast.wins
    low, high = contrast.bootstrap or (None, None)
    figures = [i.mean, i.low, i.high, i.se, i.df, i.p_value, c.p_adjusted if primary else None,
               w.rate, w.wins, w.ties, w.losses, contrast.dz, low, high]  # fmt: skip
    shown = ["" if x is None else f"{x:.9g}" for x in figures]
    counts = [i.n_seeds, i.n_prompts, i.n_missing, i.conditional]
    return [*head, *shown, *counts, *tail]


FORMATS: dict[str, Callable[[Results], str]] = {
    "table.md": markdown,
    "table.csv": csv_text,
    "table.json": json_text,
}
"""The files that are written beside the scores."""
