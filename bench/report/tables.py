"""Tables: pure functions of results. The same results give the same cells."""

from bench.report.cells import Cell, Mark, Table, Value, name
from bench.report.notes import shared, warning
from bench.report.numbers import between, number, of_gain, scale, wins
from bench.results.analysis import Contrast, Finding, Results
from bench.results.protocol import Reward, Tuning
from bench.stats import WinRate
from trainers.files import canonical_json

MISSING = Cell(None, "missing", ("missing",))
NOTHING = Cell(None, "-")
FIGURES = ("on", "off", "reward", "primary", "difference", "low", "high", "se", "df", "p", "p_holm",
           "of_gain", "of_gain_low", "of_gain_high", "win_rate", "wins", "ties", "losses", "dz",
           "bootstrap_low", "bootstrap_high", "n_seeds", "n_prompts", "n_missing", "conditional",
           "verdict", "mark")  # fmt: skip


def tables(results: Results) -> tuple[Table, ...]:
    """Arms, comparisons on the primary reward, the other rewards, and the trials before them."""
    return (_arms(results), _primary(results), *_exploratory(results), *_trials(results))


def _arms(results: Results) -> Table:
    protocol = results.protocol
    rewards = (_judge(results, reward) for reward in protocol.rewards)
    rows = []
    for arm in protocol.arms:
        means = (results.means[arm.name][reward.name] for reward in protocol.rewards)
        cells = [MISSING if m is None else Cell(m.mean, number(m.mean)) for m in means]
        against = results.against_base.get(arm.name)
        trained = arm.name in results.against_base
        won = _wins(against) if against else MISSING if trained else NOTHING
        seeds = sum(seed is not None for seed in arm.seeds)
        rows.append((name(arm.name), Cell(seeds, str(seeds)) if seeds else NOTHING, *cells, won))
    columns = (name("arm"), name("seeds"), *rewards, name("win rate against base*", "primary"))
    return Table("Mean scores (* primary)", columns, tuple(rows))


def _judge(results: Results, reward: Reward) -> Cell:
    """A reward's name with a star if it is the primary one, a degree sign if a note warns of it."""
    signs: dict[Mark, str] = {}
    if reward.name == results.protocol.primary:
        signs["primary"] = "*"
    if reward.marks:
        signs["warned"] = "°"
    return Cell(reward.name, reward.name + "".join(signs.values()), tuple(signs))


def _primary(results: Results) -> Table:
    reward = results.protocol.primary
    level = f"{100 * (1 - results.protocol.statistics.alpha):g}% interval"
    columns = ("comparison", f"difference [{level}]", "of the gain", "p (Holm)",
               "win rate (W-T-L)", "dz", "verdict")  # fmt: skip
    rows = tuple(_primary_row(f, f.contrasts[reward], scale(results, reward))
                 for f in results.comparisons)  # fmt: skip
    return Table(f"Paired differences on {reward} (primary)", tuple(map(name, columns)), rows)


def _primary_row(finding: Finding, contrast: Contrast | None, like: float) -> tuple[Cell, ...]:
    word, p = finding.verdict, finding.p_adjusted
    if contrast is None:
        why = Cell(word, f"{word}: {finding.reason}", (word,))
        return (_pair(finding), MISSING, NOTHING, NOTHING, NOTHING, NOTHING, why)
    share = contrast.of_gain
    return (
        _pair(finding),
        Cell(contrast.interval.mean, between(contrast.interval, like)),
        NOTHING if share is None else Cell(share.share, of_gain(share)),
        NOTHING if p is None else Cell(p, "<0.0001" if p < 1e-4 else f"{p:.4f}"),
        _wins(contrast.wins),
        NOTHING if contrast.dz is None else Cell(contrast.dz, f"{contrast.dz:+.2f}"),
        name(word, word),
    )


def _pair(finding: Finding) -> Cell:
    return name(finding.comparison.name)


def _wins(won: WinRate) -> Cell:
    return Cell(won.rate, wins(won))


def _exploratory(results: Results) -> tuple[Table, ...]:
    others = [r for r in results.protocol.rewards if r.name != results.protocol.primary]
    if not others:
        return ()

    def cell(contrast: Contrast | None, like: float) -> Cell:
        if contrast is None:
            return MISSING
        share = f"{100 * contrast.wins.rate:.1f} %"
        return Cell(contrast.interval.mean, f"{between(contrast.interval, like)} {share}")

    rows = tuple(
        (_pair(f), *(cell(f.contrasts[r.name], scale(results, r.name)) for r in others))
        for f in results.comparisons
    )
    title = "Other rewards: difference [unadjusted interval] and win rate, exploratory"
    return (Table(title, (name("comparison"), *(_judge(results, r) for r in others)), rows),)


def _trials(results: Results) -> tuple[Table, ...]:
    """What was tried for each arm before, and chosen."""
    tuning, protocol = results.protocol.tuning, results.protocol
    if tuning is None:
        return ()
    rows = tuple(
        (
            name(trial.arm),
            *(Cell(v, canonical_json(v)) if (v := trial.settings.get(key)) is not None else NOTHING
              for key in _tried(tuning)),
            MISSING if trial.score is None else Cell(trial.score, number(trial.score)),
            name("chosen" if trial.chosen else ""),
        )
        for trial in tuning.trials
    )  # fmt: skip
    title = (
        f"Trials, by {protocol.primary} on {tuning.n_prompts} prompts of {tuning.prompts}, "
        f"training seeds {', '.join(map(str, tuning.seeds))}"
    )
    columns = ("arm", *_tried(tuning), "mean", "")
    return (Table(title, tuple(map(name, columns)), rows),)


def _tried(tuning: Tuning) -> list[str]:
    """The settings that any arm was given."""
    return list(dict.fromkeys(key for trial in tuning.trials for key in trial.settings))


def figures(results: Results) -> Table:
    """Every figure to 9 significant digits, one row per comparison and reward."""
    rows = tuple(
        tuple(map(exact, _figures(results, finding, reward)))
        for finding in results.comparisons
        for reward in results.protocol.rewards
    )
    return Table("Figures", tuple(map(name, FIGURES)), rows)


def _figures(results: Results, f: Finding, reward: Reward) -> tuple[Value, ...]:
    primary, contrast = reward.name == results.protocol.primary, f.contrasts[reward.name]
    head = (" + ".join(f.comparison.on), " + ".join(f.comparison.off), reward.name, primary)
    told = "; ".join(filter(None, (warning(reward), *shared(results.protocol))))
    tail = (f.verdict if primary else None, told)
    if contrast is None:
        return (*head, *[None] * (len(FIGURES) - len(head) - len(tail)), *tail)
    i, w = contrast.interval, contrast.wins
    share = contrast.of_gain
    shares = (None, None, None) if share is None else (share.share, share.low, share.high)
    return (*head, i.mean, i.low, i.high, i.se, i.df, i.p_value, f.p_adjusted if primary else None,
            *shares, w.rate, w.wins, w.ties, w.losses, contrast.dz,
            *(contrast.bootstrap or (None, None)), i.n_seeds, i.n_prompts, i.n_missing,
            i.conditional, *tail)  # fmt: skip


def exact(value: Value) -> Cell:
    """A figure to 9 significant digits; nothing where there is none."""
    text = f"{value:.9g}" if isinstance(value, float) else "" if value is None else str(value)
    return Cell(value, text)
