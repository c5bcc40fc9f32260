"""How often each rule finds an effect where there is none, and where there is one.

    python tests/perf/verdicts.py            every table of docs/statistics.md, some minutes
    python tests/perf/verdicts.py --replicates 500 errors

Null experiments have arms of equal true means, compared in the pattern of the default: two
components alone and together (A - DPO, B - DPO, AB - A, AB - B, AB - DPO) and a control (X - DPO).
Twelve comparisons are that twice over, as with two objectives. What a rule sees of a comparison is
its mean and its three mean squares; for normal effects these are drawn directly: the arms' mean
squares are Wishart matrices, the comparisons' are contrasts of them. Everything is drawn from the
seeds written here, so the same command prints the same tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from bench.stats import (
    MeanSquares,
    crossed_interval,
    mean_squares,
    moderated_interval,
    seed_noise,
    share_of_gain,
    standard_error,
    two_sided_p,
    variance_components,
    within_share,
)
from bench.stats.moderated import Parts, behrens_fisher_p, moderate

Array = NDArray[np.float64]
ALPHA = 0.05
PATTERN = ((1, 0), (2, 0), (3, 1), (3, 2), (3, 0), (4, 0))
"""(on, off) among the arms DPO, A, B, AB, X."""
SMALL = {1: (0,), 2: (0, 1), 3: (0, 1, 4)}
"""Comparisons of families of fewer than six."""
PROMPT_SD, RESIDUAL_SD = 0.021, 0.022
"""Of one arm, in the evidence of results/first-world: sqrt(2) times as much in a comparison."""
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
SEEDS = (3, 4, 5, 6, 8)
SCORES = Path(__file__).parents[2] / "results" / "first-world" / "scores.parquet"
COMPARISONS = (
    ("DPO", "base"),
    ("DPO+A", "DPO"),
    ("DPO+B", "DPO"),
    ("DPO+A+B", "DPO+A"),
    ("DPO+A+B", "DPO+B"),
    ("DPO+A+B", "DPO"),
    ("DPO beta/5", "DPO"),
    ("DPO lr x5", "DPO"),
)


@dataclass(frozen=True)
class Design:
    """A family of null comparisons and the noise of its arms."""

    contrasts: Array
    """Shape (comparisons, arms), 1 for on and -1 for off."""
    n_seeds: int
    n_prompts: int
    seed_sd: Array
    """Of each arm, shape (arms,)."""

    @property
    def variance(self) -> Array:
        """Variance of the mean of each arm."""
        p = self.n_prompts
        return (
            self.seed_sd**2 / self.n_seeds + PROMPT_SD**2 / p + RESIDUAL_SD**2 / (self.n_seeds * p)
        )

    @property
    def worth(self) -> float:
        """Independent comparisons that the family is worth."""
        gram = self.contrasts @ self.contrasts.T
        scale = np.sqrt(np.diag(gram))
        return float(len(gram) ** 2 / np.square(gram / np.outer(scale, scale)).sum())


def design(
    family: int, n_seeds: int, n_prompts: int, share: float, noisy: dict[int, float] | None = None
) -> Design:
    """A family whose seed noise makes up a share of the variance of the mean.

    ``noisy`` multiplies the seed sd of some arms by a factor.
    """
    copies = 2 if family == 12 else 1
    pairs = [(on + 5 * c, off + 5 * c) for c in range(copies) for on, off in PATTERN]
    pairs = [pairs[i] for i in SMALL.get(family, range(family))]
    contrasts = np.zeros((family, 5 * copies))
    for row, (on, off) in enumerate(pairs):
        contrasts[row, on], contrasts[row, off] = 1.0, -1.0
    rest = PROMPT_SD**2 / n_prompts + RESIDUAL_SD**2 / (n_seeds * n_prompts)
    seed_sd = np.full(5 * copies, np.sqrt(n_seeds * rest * share / (1 - share)))
    for arm, factor in (noisy or {}).items():
        seed_sd[arm] *= factor
    return Design(contrasts, n_seeds, n_prompts, seed_sd)


def draw(plan: Design, replicates: int, rng: np.random.Generator) -> MeanSquares:
    """Means and mean squares of the comparisons, shape (replicates, comparisons)."""
    s, p, arms = plan.n_seeds, plan.n_prompts, len(plan.seed_sd)
    residual = np.full(arms, RESIDUAL_SD)

    def squares(df: int, sd: Array) -> Array:
        weights = plan.contrasts * sd
        if df < arms:  # rows of independent normals
            rows = rng.standard_normal((replicates, df, arms))
            return np.square(rows @ weights.T).sum(axis=1) / df
        factor = np.tril(rng.standard_normal((replicates, arms, arms)), -1)  # Bartlett
        diagonal = np.arange(arms)
        factor[:, diagonal, diagonal] = np.sqrt(rng.chisquare(df - diagonal, (replicates, arms)))
        return np.square(weights @ factor).sum(axis=-1) / df

    means = rng.standard_normal((replicates, arms)) * np.sqrt(plan.variance)
    return MeanSquares(
        mean=means @ plan.contrasts.T,
        seed=squares(s - 1, np.sqrt(residual**2 + p * plan.seed_sd**2)),
        prompt=squares(p - 1, np.sqrt(residual**2 + s * PROMPT_SD**2)),
        residual=squares((s - 1) * (p - 1), residual),
    )


Rule = Callable[[MeanSquares, Design], Array]


def crossed(x: MeanSquares, plan: Design) -> Array:
    """Each comparison on its own mean squares, Satterthwaite df."""
    se, df = standard_error(x.seed, x.prompt, x.residual, plan.n_seeds, plan.n_prompts)
    return two_sided_p(x.mean, se, df)


def seed_means(x: MeanSquares, plan: Design) -> Array:
    """Student's t on the means of the seeds."""
    se = np.sqrt(x.seed / (plan.n_seeds * plan.n_prompts))
    return two_sided_p(x.mean, se, np.full(se.shape, plan.n_seeds - 1.0))


def larger(x: MeanSquares, plan: Design) -> Array:
    """The larger of the two."""
    return np.maximum(crossed(x, plan), seed_means(x, plan))


def threshold(x: MeanSquares, plan: Design) -> Array:
    """S - 1 degrees of freedom where seeds hold more than a fifth of the variance."""
    se, df = standard_error(x.seed, x.prompt, x.residual, plan.n_seeds, plan.n_prompts)
    share = np.maximum(x.seed - x.residual, 0) / (se**2 * plan.n_seeds * plan.n_prompts)
    return two_sided_p(x.mean, se, np.where(share > 0.2, plan.n_seeds - 1.0, df))


def with_seed_noise(x: MeanSquares, plan: Design, seed: Array, seed_df: Array | float) -> Array:
    """Satterthwaite with another seed mean square on other degrees of freedom."""
    s, p = plan.n_seeds, plan.n_prompts
    total = np.maximum(seed - x.residual, 0) + np.maximum(x.prompt - x.residual, 0) + x.residual
    spread = seed**2 / seed_df + x.prompt**2 / (p - 1) + x.residual**2 / ((s - 1) * (p - 1))
    return two_sided_p(x.mean, np.sqrt(total / (s * p)), total**2 / spread)


def limma(x: MeanSquares, plan: Design) -> Array:
    """Empirical Bayes: prior variance and prior df by Smyth's (2004) moments of log MSs / MSe."""
    df = plan.n_seeds - 1
    ratio = x.seed / x.residual
    log = np.log(ratio) - special.digamma(df / 2) + np.log(df / 2)
    surplus = log.var(axis=-1, ddof=1) - special.polygamma(1, df / 2)
    prior_df = np.full(surplus.shape, 1e6)
    prior_df[surplus > 1e-6] = 2 * inverse_trigamma(surplus[surplus > 1e-6])
    half = prior_df / 2
    prior = np.exp(log.mean(axis=-1) + special.digamma(half) - np.log(half))
    total = (prior_df + df)[:, None]
    shrunk = (prior_df * prior)[:, None] / total + df * ratio / total
    return with_seed_noise(x, plan, shrunk * x.residual, total)


def inverse_trigamma(y: Array) -> Array:
    """Newton's iteration of Smyth (2004)."""
    x = 0.5 + 1 / y
    for _ in range(20):
        value = special.polygamma(1, x)
        x = x + value * (1 - value / y) / special.polygamma(2, x)
    return x


def pooled(x: MeanSquares, plan: Design) -> Array:
    """The family's seed noise for every comparison."""
    ratio = (x.seed / x.residual).mean(axis=-1, keepdims=True)
    return with_seed_noise(x, plan, ratio * x.residual, plan.worth * (plan.n_seeds - 1))


def floored(x: MeanSquares, plan: Design) -> Array:
    """The larger of own and family seed noise, Satterthwaite df."""
    parts = parts_of(x, plan)
    return with_seed_noise(x, plan, parts.seed, parts.seed_df)


def parts_of(x: MeanSquares, plan: Design) -> Parts:
    """Variance of the means, seed noise floored by the family's."""
    ratio = (x.seed / x.residual).mean(axis=-1, keepdims=True)
    return moderate(x, ratio, plan.worth * (plan.n_seeds - 1), plan.n_seeds, plan.n_prompts)


def moderated(x: MeanSquares, plan: Design) -> Array:
    """The rule of bench.stats: the same seed noise, Behrens-Fisher.

    Its p is never below the normal one beyond two standard errors, so it is worked out only where
    a rejection is possible at all.
    """
    parts = parts_of(x, plan)
    t = np.abs(x.mean) / np.sqrt(parts.total / (plan.n_seeds * plan.n_prompts))
    p = 2 * special.ndtr(-t)
    close = p < 0.045
    p[close] = behrens_fisher_p(t[close], Parts(*(part[close] for part in parts)))
    return np.asarray(p)


RULES: dict[str, Rule] = {
    "crossed, Satterthwaite": crossed,
    "(a) larger of crossed and seed means": larger,
    "(b) limma": limma,
    "(c) df S - 1 above a seed share of 20 %": threshold,
    "pooled seed noise": pooled,
    "floored seed noise, Satterthwaite": floored,
    "**floored seed noise, Behrens-Fisher**": moderated,
}


def rates(
    plan: Design, replicates: int, rng_seed: list[int], rules: Sequence[str] = tuple(RULES)
) -> dict[str, tuple[float, float]]:
    """By rule: null experiments with a rejection after Holm, and power for the last comparison.

    Its power is at a true difference of four true standard errors, at alpha / m: Holm's first step.
    """
    x = draw(plan, replicates, np.random.default_rng(rng_seed))
    last = np.abs(plan.contrasts[-1]) @ plan.variance
    shifted = MeanSquares(x.mean.copy(), x.seed, x.prompt, x.residual)
    shifted.mean[:, -1] += 4 * np.sqrt(last)
    level = ALPHA / len(plan.contrasts)
    found = {}
    for name in rules:
        rule = RULES[name]
        null = float((rule(x, plan).min(axis=-1) < level).mean())
        found[name] = null, float((rule(shifted, plan)[:, -1] < level).mean())
    return found


def grid(
    families: tuple[int, ...],
    replicates: int,
    noisy: dict[int, float] | None = None,
    rules: Sequence[str] = tuple(RULES),
) -> pd.DataFrame:
    """Rates over seeds, prompts and shares of seed noise: one row per cell and rule."""
    rows = [
        (name, family, s, p, share, *rate)
        for family in families
        for s in SEEDS
        for p in (100, 200)
        for share in SHARES
        for name, rate in rates(
            design(family, s, p, share, noisy),
            replicates,
            [family, s, p, round(100 * share)],
            rules,
        ).items()
    ]
    return pd.DataFrame(
        rows, columns=["rule", "family", "seeds", "prompts", "share", "any", "power"]
    )


def errors(replicates: int) -> None:
    """Family-wise error and power of every rule."""
    table = grid((6, 12), replicates)
    print("Any helps or hurts in null experiments, in %, the worst of families of 6 and 12, of 100")
    print("and 200 prompts and of 0 to 80 % of seed noise; and mean power, in %\n")
    seeds = [f"{s} seeds" for s in SEEDS]
    print_row("rule", *seeds, "cells above 6 %", *(f"power {s}" for s in SEEDS))
    print_row(*["---"] * (2 + 2 * len(SEEDS)))
    for name in RULES:
        of = table[table.rule == name]
        worst, power = of.groupby("seeds")["any"].max(), of.groupby("seeds")["power"].mean()
        above = f"{(of['any'] > 0.06).sum()} of {len(of)}"
        print_row(name, *map(percent, worst), above, *(f"{100 * v:.0f}" for v in power))
    print("\nThe chosen rule and (a) by share of seed noise, 3 seeds, 100 prompts: error / power\n")
    print_row("rule", "family", *(f"{s:.0%}" for s in SHARES))
    print_row(*["---"] * (2 + len(SHARES)))
    for name in (*list(RULES)[:2], list(RULES)[-1]):
        for family in (6, 12):
            of = table[
                (table.rule == name)
                & (table.family == family)
                & (table.seeds == 3)
                & (table.prompts == 100)
            ]
            cells = [
                f"{100 * a:.1f} / {100 * w:.0f}" for a, w in zip(of["any"], of.power, strict=True)
            ]
            print_row(name, family, *cells)


def cases(replicates: int) -> None:
    """Families that are small, or of arms with unequal seed noise."""
    shown = [list(RULES)[i] for i in (0, 1, 4, 6)]
    print("Small families and arms of unequal seed noise: worst error and mean power over the same")
    print("seeds, prompts and shares, in %\n")
    print_row("case", *(f"{name}: error / power" for name in shown))
    print_row(*["---"] * (1 + len(shown)))
    for label, families, noisy in (
        ("one comparison", (1,), None),
        ("two comparisons", (2,), None),
        ("three comparisons", (3,), None),
        ("seed sd of X three times the others'", (6, 12), {4: 3.0}),
        ("seed sd of AB three times the others'", (6, 12), {3: 3.0}),
        ("seed sd of AB ten times the others'", (6, 12), {3: 10.0}),
    ):
        of = grid(families, replicates, noisy, shown).groupby("rule")
        worst, power = of["any"].max(), of.power.mean()
        print_row(label, *(f"{100 * worst[n]:.1f} / {100 * power[n]:.0f}" for n in shown))


def experiment(
    rng: np.random.Generator,
    n_seeds: int,
    n_prompts: int,
    gain: float,
    difference: float = 0.0,
    seed_sd: float = 0.0035,
) -> list[Array]:
    """Matrices of DPO - base and the six comparisons, noise as in results/first-world, S x P each.

    ``difference`` is that of X - DPO.
    """
    base_prompts = rng.normal(0, 0.065, n_prompts)
    arms = []
    for shift in (gain, gain, gain, gain, gain + difference):
        arms.append(
            shift
            + rng.normal(0, seed_sd, (n_seeds, 1))
            + rng.normal(0, PROMPT_SD, n_prompts)
            + rng.normal(0, RESIDUAL_SD, (n_seeds, n_prompts))
        )
    return [arms[0] + base_prompts, *(arms[on] - arms[off] for on, off in PATTERN)]


def equivalent(family: list[Array], share: float) -> bool:
    """Is the last comparison shown within a share of the first, which is established itself?

    The conditions of judge, without the shares of the gain that take most of its time.
    """
    noise = seed_noise(family)
    gain = moderated_interval(family[0], noise)
    established = gain.mean > 0 and gain.p_value < ALPHA / len(family)
    return established and within_share(family[-1], family[0], share, noise)


def equivalence(replicates: int) -> None:
    """Share of X - DPO called equivalent, by prompts."""
    gain = 0.0325
    prompts = (10, 20, 50, 100, 200, 500)
    print(f"X - DPO called equivalent, in %, of {replicates} experiments; gain .0325\n")
    print_row("true difference", "bound", "seeds", *(f"{p} prompts" for p in prompts))
    print_row(*["---"] * (3 + len(prompts)))
    for difference, share in ((0.0, 0.2), (0.0, 0.1), (0.2 * gain, 0.2)):
        for n_seeds in (2, 3, 6):
            cells = []
            for n_prompts in prompts:
                rng = np.random.default_rng([n_seeds, n_prompts, round(1e4 * difference)])
                found = [
                    equivalent(experiment(rng, n_seeds, n_prompts, gain, difference), share)
                    for _ in range(replicates)
                ]
                cells.append(percent(sum(found) / replicates))
            print_row(f"{difference / gain:.0%} of the gain", f"{share:.0%}", n_seeds, *cells)


def coverage(replicates: int) -> None:
    """Coverage of the 95 % intervals of X - DPO and of its share of the gain."""
    print(f"95 % intervals that hold the truth, in %, of {replicates} experiments, 100 prompts\n")
    print_row("seeds", "seed sd", "crossed", "moderated", "share of the gain", "gain established")
    print_row(*["---"] * 6)
    for n_seeds in (3, 5):
        for seed_sd in (0.0, 0.0035, 0.012):
            print_row(n_seeds, f"{seed_sd:g}", *map(percent, covered(replicates, n_seeds, seed_sd)))


def covered(replicates: int, n_seeds: int, seed_sd: float) -> tuple[float, float, float, float]:
    """Of crossed, moderated and Fieller intervals, and how often the last exists."""
    gain, difference = 0.0325, 0.01
    rng = np.random.default_rng([n_seeds, round(1e5 * seed_sd)])
    hits, shares = [], []
    for _ in range(replicates):
        family = experiment(rng, n_seeds, 100, gain, difference, seed_sd)
        noise = seed_noise(family)
        intervals = crossed_interval(family[-1]), moderated_interval(family[-1], noise)
        hits.append([i.low <= difference <= i.high for i in intervals])
        part = share_of_gain(family[-1], family[0], noise)
        shares += [] if part is None else [part.low <= difference / gain <= part.high]
    both = np.mean(hits, axis=0)
    return float(both[0]), float(both[1]), float(np.mean(shares)), len(shares) / replicates


def components(_: int) -> None:
    """Variance components of the committed evidence, on its primary reward."""
    rows = pd.read_parquet(SCORES)
    rows = rows[rows.reward == "oracle"].fillna({"train_seed": 0})
    arms = {
        name: of.pivot_table(index="train_seed", columns="prompt_id", values="score").to_numpy(
            float
        )
        for name, of in rows.groupby("arm")
    }
    family = [arms[on] - arms[off] for on, off in COMPARISONS]
    noise = seed_noise(family)
    print("Standard deviations between seeds, between prompts and of the rest; shares of the")
    print("variance of the mean; results/first-world, oracle, 6 seeds x 200 prompts\n")
    print_row(
        "comparison", "seed sd", "prompt sd", "rest sd", "MSs / MSe", "seeds", "prompts", "rest"
    )
    print_row(*["---"] * 8)
    for (on, off), d in zip(COMPARISONS, family, strict=True):
        c, i, x = variance_components(d), crossed_interval(d), mean_squares(d)
        sds = (f"{v**0.5:.4f}" for v in (c.seed, c.prompt, c.residual))
        parts = (f"{v:.0%}" for v in (i.share_seed, i.share_prompt, i.share_residual))
        print_row(f"{on} - {off}", *sds, f"{x.seed / x.residual:.1f}", *parts)
    print(f"\nPooled: MSs / MSe = {noise.ratio:.2f} on {noise.df:.1f} degrees of freedom.")


def print_row(*cells: object) -> None:
    """A line of a Markdown table."""
    print("|", " | ".join(map(str, cells)), "|")


def percent(value: float) -> str:
    """One digit after the point, without the sign."""
    return f"{100 * value:.1f}"


TABLES = {
    "components": components,
    "errors": errors,
    "cases": cases,
    "equivalence": equivalence,
    "coverage": coverage,
}
REPLICATES = {
    "components": 1,
    "errors": 10_000,
    "cases": 10_000,
    "equivalence": 400,
    "coverage": 1_000,
}


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--replicates", type=int, help="experiments per cell")
    args = parser.parse_args()
    if unknown := set(args.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    for index, name in enumerate(args.tables or TABLES):
        print("\n" * bool(index), end="")
        TABLES[name](args.replicates or REPLICATES[name])


if __name__ == "__main__":
    main()
