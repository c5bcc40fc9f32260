"""Tables of a leaderboard: pure functions of its groups."""

from collections.abc import Iterator, Sequence

from bench.report import published
from bench.report.cells import Cell, Mark, Report, Table, Value, name
from bench.report.numbers import between, number, wins
from bench.report.published import Block
from bench.report.tables import MISSING, NOTHING, exact
from bench.results.board import MOST, Group
from bench.results.cost import Cost
from bench.results.gains import Hacking, Row, Standing
from bench.results.protocol import Reward
from bench.stats import Strength

TITLE = "Leaderboard"
FIGURES = ("group", "base", "base_sha256", "prompts", "prompts_sha256", "n_prompts",
           "images_per_prompt", "sampler", "steps", "guidance", "result", "arm", "n_seeds",
           "reward", "signature", "primary", "mean", "gain", "low", "high", "p", "win_rate", "wins",
           "ties", "losses", "rank_best", "rank_worst", "strength", "strength_low",
           "strength_high", "hacking", "hacking_up", "hours", "device",
           "seconds_per_step")  # fmt: skip


def report(groups: Sequence[Group], papers: Sequence[Block]) -> Report:
    """All that is shown of a leaderboard: our groups, then what papers have published."""
    shown = [table for n, group in enumerate(groups, 1) for table in _tables(n, group)]
    told = (*_rules(groups), *(note for n, g in enumerate(groups, 1) for note in _notes(n, g)))
    more = (*published.notes(papers, groups),) if papers else ()
    return Report(TITLE, (*shown, *published.tables(papers)), (*told, *more))


def _tables(n: int, group: Group) -> Iterator[Table]:
    images = group.images
    yield _primary(
        group,
        f"Group {n}: {group.base}, {group.n_prompts} prompts of {group.prompts}, "
        f"{images.sampler} {images.steps} steps, guidance {images.guidance:g}; on {group.primary}",
    )
    if len(group.rewards) > 1:
        yield _others(
            group, f"Group {n}, other rewards: gain [unadjusted interval], win rate, rank"
        )
    if group.rows[0].strength is not None:
        yield _strengths(group, f"Group {n}: Bradley-Terry strengths on {group.primary}")


def _primary(group: Group, title: str) -> Table:
    level = f"{100 * (1 - group.alpha):g}%"
    columns = ("row", "result", f"gain over base [{level} interval]", "win rate (W-T-L)", "rank",
               "reward hacking", "prompts x images x seeds", "training")  # fmt: skip
    like = _like(group, group.primary)
    rows = tuple(_row(row, group, like) for row in group.rows)
    return Table(title, tuple(map(name, columns)), rows)


def _row(row: Row, group: Group, like: float) -> tuple[Cell, ...]:
    standing = row.standings[group.primary]
    seeds = f" x {row.seeds}" if row.seeds else ""
    size = f"{group.n_prompts} x {group.images.per_prompt}{seeds}"
    return (
        name(row.arm), name(row.result) if row.seeds else NOTHING, _gain(row, standing, like),
        Cell(standing.wins.rate, wins(standing.wins)) if standing.wins else NOTHING,
        _rank(standing), _hacking(row.hacking), name(size), _cost(row.cost),
    )  # fmt: skip


def _gain(row: Row, standing: Standing, like: float) -> Cell:
    """The gain; of the base model its mean score."""
    if not row.seeds and standing.mean is not None:
        return Cell(0.0, f"(scores {number(standing.mean)})")
    if standing.gain is None:
        return MISSING
    return Cell(standing.gain.mean, between(standing.gain, like))


def _rank(standing: Standing) -> Cell:
    if standing.rank is None:
        return MISSING
    best, worst = standing.rank
    return Cell(best, str(best) if best == worst else f"{best}-{worst}")


def _hacking(found: Hacking | None) -> Cell:
    if found is None:
        return NOTHING
    if found.word == "no":
        return name("no")
    marks: tuple[Mark, ...] = ("hurts",) if found.word == "seen" else ()
    return Cell(found.word, f"{found.word}: {', '.join(found.up)}", marks)


def _cost(cost: Cost | None) -> Cell:
    if cost is None:
        return NOTHING
    took = f"{cost.hours:.2g} {cost.device} h, {cost.seconds_per_step:.2g} s/step"
    return Cell(cost.hours, took)


def _others(group: Group, title: str) -> Table:
    others = [reward for reward in group.rewards if reward.name != group.primary]
    likes = {reward.name: _like(group, reward.name) for reward in others}
    rows = tuple(
        (name(row.arm), name(row.result) if row.seeds else NOTHING,
         *(_other(row, row.standings[reward], like) for reward, like in likes.items()))
        for row in group.rows
    )  # fmt: skip
    return Table(title, (name("row"), name("result"), *map(_judge, others)), rows)


def _judge(reward: Reward) -> Cell:
    return Cell(reward.name, f"{reward.name}°", ("warned",)) if reward.marks else name(reward.name)


def _other(row: Row, standing: Standing, like: float) -> Cell:
    gain, rank = _gain(row, standing, like), _rank(standing)
    won = f" {100 * standing.wins.rate:.1f} %" if standing.wins else ""
    return Cell(gain.value, f"{gain.text}{won}; {rank.text}", gain.marks)


def _strengths(group: Group, title: str) -> Table:
    columns = ("row", "result", "log-odds against base [interval]", "beats base")
    found = sorted(group.rows, key=lambda row: -_strength(row).value)
    rows = tuple(
        (name(row.arm), name(row.result) if row.seeds else NOTHING, *_odds(_strength(row)))
        for row in found
    )
    return Table(title, tuple(map(name, columns)), rows)


def _strength(row: Row) -> Strength:
    assert row.strength is not None, "strengths are of all rows of a group, or of none"
    return row.strength


def _odds(s: Strength) -> tuple[Cell, Cell]:
    chance = s.chance
    return (
        Cell(s.value, f"{s.value:+.2f} [{s.low:+.2f}, {s.high:+.2f}]"),
        Cell(chance, f"{100 * chance:.1f} %"),
    )


def _like(group: Group, reward: str) -> float:
    """A typical size of scores, which decides the decimals of gains."""
    means = (row.standings[reward].mean for row in group.rows)
    return max((abs(mean) for mean in means if mean is not None), default=1.0)


def _rules(groups: Sequence[Group]) -> Iterator[str]:
    """What every figure means."""
    yield (
        "Gain: an arm's scores less those of the base model of its own result, at the same prompt "
        "and image noise, signed so that positive is better. Intervals: training seeds x prompts "
        "crossed, seed noise moderated over the arms of the result, not adjusted for their number; "
        "† rests on one training run."
    )
    yield (
        "Rank: places that a row can have. A row is above another only where their paired "
        "difference is shown, by Holm over all differences of that row; three training seeds or "
        "more are needed. Runs of equal training seeds are paired, others are taken in order. "
        "Above 1 % of missing pairs there is no rank."
    )
    yield (
        "Reward hacking: a reward that the preferences were made from, or that learnt from data "
        "which the prompts are of, gains (interval above 0, three seeds), while no independent "
        "reward or oracle does (suspected), or one loses (seen). '-': no such rewards to compare."
    )
    yield (
        "Training: hours of one core or GPU over all seeds, and wall time of a step, as the "
        "manifest records them; a run that was taken up again counts from there."
    )
    if any(group.rows[0].strength for group in groups):
        yield (
            "Bradley-Terry: every two rows meet on every prompt, ties count half, one tie of every "
            f"two is added; the interval is a bootstrap over prompts, for up to {MOST} rows, "
            "conditional on these training runs."
        )


def _notes(n: int, group: Group) -> Iterator[str]:
    i = group.images
    yield (
        f"Group {n}: base model sha256 {group.base_sha256[:12]}; {group.prompts} ({group.split} "
        f"split, sha256 {group.prompts_sha256[:12]}), {i.per_prompt} image(s) each: {i.sampler}, "
        f"{i.steps} steps, guidance {i.guidance:g}, eta {i.eta:g}, seed {i.seed}, {i.dtype}"
        f"{', TF32' if i.matmul == 'tf32' else ''}; scored by "
        f"{', '.join(reward.signature for reward in group.rewards)}."
    )
    for source in group.sources:
        twins = "".join(f"; {arm} is {twin} and has no row" for arm, twin in source.twins.items())
        made = "".join(f"; images of {arm} are made with {text!r} before the prompt"
                       for arm, text in source.prefixes.items())  # fmt: skip
        yield (
            f"Group {n}, {source.name}: {source.title}; read as: {source.label}; trained on "
            f"{source.pairs}{twins}{made}."
        )
    for reward, spread in group.base_spread.items():
        if spread > 0:
            yield (
                f"Group {n}: the base model's mean of {reward} differs by {spread:.2g} between "
                "results: they were made on machines that round differently."
            )


def figures(groups: Sequence[Group]) -> Table:
    """Every figure to 9 significant digits, one row per row and reward."""
    rows = tuple(
        tuple(map(exact, _figures(n, group, row, reward)))
        for n, group in enumerate(groups, 1)
        for row in group.rows
        for reward in group.rewards
    )
    return Table("Figures", tuple(map(name, FIGURES)), rows)


def _figures(n: int, group: Group, row: Row, reward: Reward) -> tuple[Value, ...]:
    i, s, primary = group.images, row.standings[reward.name], reward.name == group.primary
    gain, won, cost, hacked = s.gain, s.wins, row.cost, row.hacking
    strength = row.strength if primary else None
    return (
        n, group.base, group.base_sha256, group.prompts, group.prompts_sha256, group.n_prompts,
        i.per_prompt, i.sampler, i.steps, i.guidance, row.result, row.arm, row.seeds, reward.name,
        reward.signature, primary, s.mean,
        *((gain.mean, gain.low, gain.high, gain.p_value) if gain else (None,) * 4),
        *((won.rate, won.wins, won.ties, won.losses) if won else (None,) * 4),
        *(s.rank or (None, None)),
        *((strength.value, strength.low, strength.high) if strength else (None,) * 3),
        *((hacked.word, " ".join(hacked.up)) if hacked else (None, None)),
        *((cost.hours, cost.device, cost.seconds_per_step) if cost else (None,) * 3),
    )  # fmt: skip
