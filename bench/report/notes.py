"""Notes under the tables: the protocol, the control and the reasons of the verdicts, in words."""

from collections.abc import Iterator

from bench.report.numbers import between, number, scale
from bench.results.analysis import Contrast, Results
from bench.results.protocol import Mark, Protocol, Reward


def notes(results: Results) -> tuple[str, ...]:
    """What a reader must know to trust the numbers."""
    return (*_judgement(results), *_warnings(results.protocol), _gaps(results),
            *footer(results.protocol))  # fmt: skip


def _judgement(results: Results) -> Iterator[str]:
    protocol = results.protocol
    primary = protocol.primary
    like, aa = scale(results, primary), results.control[primary]
    yield f"Read as: {protocol.label}."
    if aa is not None and results.delta0 is not None:
        declared = protocol.statistics.delta0 is not None
        source = "declared" if declared else "half-width of the A/A interval"
        yield (
            f"A/A control (base against base, other noise, {aa.n_seeds} pairs of image sets): "
            f"{between(aa, like)}; smallest effect of interest {number(results.delta0, like)} "
            f"({source})."
        )
    yield (
        f"Intervals: training seeds x prompts crossed, Satterthwaite df. Holm over "
        f"{len(results.comparisons)} declared comparisons on {primary}."
    )
    for f in results.comparisons:
        yield (
            f"{f.comparison.on} - {f.comparison.off}: {f.verdict}: {f.reason}; variance of the "
            f"mean: {_shares(f.contrasts[primary])}."
        )


def _shares(contrast: Contrast | None) -> str:
    if contrast is None:
        return "unknown"
    i = contrast.interval
    return (
        f"seeds {i.share_seed:.0%}, prompts {i.share_prompt:.0%}, rest {i.share_residual:.0%}; "
        f"by seed {' '.join(f'{e:+.4f}' for e in contrast.seed_effects)}"
    )


def _warnings(protocol: Protocol) -> Iterator[str]:
    return (f"° {reward.name}: {warning(reward)}." for reward in protocol.rewards if reward.marks)


def warning(reward: Reward) -> str:
    """Why a reward is no independent judge, in words; empty if it is one."""
    return "; ".join(map(_reason, reward.marks))


def _reason(mark: Mark) -> str:
    learnt = f"trained on {', '.join(mark.datasets)}"
    return {
        "labelled": "the preferences of the training pairs were made from it",
        "same-set": f"{learnt}, where the prompts come from",
        "same-source": f"{learnt}, of one source with the prompts",
    }[mark.kind]


def _gaps(results: Results) -> str:
    gaps = (f"{reward} {n} of {results.expected}" for reward, n in results.missing.items())
    return f"Missing scores: {', '.join(gaps)}."


def footer(protocol: Protocol) -> Iterator[str]:
    """What was drawn, trained on and scored with."""
    p, i, pairs = protocol.prompts, protocol.images, protocol.pairs
    left = f", {p.repeated} repeated left out" if p.repeated else ""
    yield (
        f"{len(p.ids)} prompts of {p.name} ({p.split} split, sha256 {p.sha256[:12]}{left}), "
        f"{i.per_prompt} image(s) each: {i.sampler}, {i.steps} steps, guidance {i.guidance:g}, "
        f"eta {i.eta:g}, seed {i.seed}, {i.dtype}."
    )
    yield (
        f"{pairs.kept} training pairs ({pairs.ties} ties dropped); training seeds "
        f"{', '.join(map(str, protocol.training_seeds()))}."
    )
    for reward in protocol.rewards:
        yield f"{reward.name}: {reward.signature}"
    yield f"dpo-bench {protocol.bench}."
