"""Notes under the tables: the protocol, the control and the reasons of the verdicts, in words."""

from collections.abc import Iterator

from bench.report.numbers import between, number, scale, signed
from bench.results.analysis import Contrast, Results
from bench.results.protocol import Mark, Protocol, Reward


def notes(results: Results) -> tuple[str, ...]:
    """What a reader must know to trust the numbers."""
    return (*_judgement(results), *shared(results.protocol), *_warnings(results.protocol),
            _gaps(results), *footer(results.protocol))  # fmt: skip


def _judgement(results: Results) -> Iterator[str]:
    protocol = results.protocol
    primary, like = protocol.primary, scale(results, protocol.primary)
    yield f"Read as: {protocol.label}."
    yield (
        "Intervals: training seeds x prompts crossed, seed noise moderated over the "
        f"{len(results.comparisons)} declared comparisons, Behrens-Fisher; p by Holm over them on "
        f"{primary}; two training seeds decide nothing."
    )
    yield f"Equivalent: {bound(results)}."
    yield from _controls(results)
    yield from arms(protocol)
    for f in results.comparisons:
        contrast = f.contrasts[primary]
        seeds = (
            ""
            if contrast is None
            else "; by seed " + " ".join(signed(effect, like) for effect in contrast.seed_effects)
        )
        yield (
            f"{f.comparison.name}: {f.verdict}: {f.reason}; variance of the mean: "
            f"{_shares(contrast)}{seeds}."
        )


def arms(protocol: Protocol) -> Iterator[str]:
    """What is to be known of single arms."""
    for arm in protocol.arms:
        if arm.same_as:
            yield (
                f"{arm.name} is no run of its own: all settings of it that count are those of "
                f"{arm.same_as}, and there is nothing to compare."
            )
        if arm.prompt_prefix:
            yield (
                f"{arm.name} was trained to have {arm.prompt_prefix!r} before every prompt: its "
                "images are made of both, and scored by the prompt alone."
            )


def bound(results: Results) -> str:
    """What differences count as none, in words."""
    declared, like = results.protocol.statistics, scale(results, results.protocol.primary)
    if declared.bound is not None:
        return f"shown to lie within {number(declared.bound, like)} of 0, as declared"
    if declared.share is None:
        return "no bound is declared; only identical arms are"
    return (
        f"shown to lie within {declared.share:.0%} of the gain {declared.gain}, as declared, the "
        "uncertainty of the gain included"
    )


def _controls(results: Results) -> Iterator[str]:
    """The A/A controls: checks of sanity that set no bound."""
    like = scale(results, results.protocol.primary)
    images = results.image_noise[results.protocol.primary]
    if images is not None:
        yield (
            f"A/A by image noise (base against base, other noise, {images.interval.n_seeds} pairs "
            f"of image sets): {between(images.interval, like)}; two images of a prompt differ by "
            f"{number(images.spread, like)} (root mean square)."
        )
    runs = {arm: noise for arm, noise in results.training_noise.items() if noise is not None}
    if runs:
        told = ", ".join(f"{arm} {number(noise.typical, like)} [{number(noise.low, like)}, "
                         f"{number(noise.high, like)}]" for arm, noise in runs.items())  # fmt: skip
        yield (
            "A/A by training noise (an arm against itself, other training seed, same image noise): "
            f"two runs differ by (root mean square) {told}."
        )


def _shares(contrast: Contrast | None) -> str:
    if contrast is None:
        return "unknown"
    i = contrast.interval
    return f"seeds {i.share_seed:.0%}, prompts {i.share_prompt:.0%}, rest {i.share_residual:.0%}"


def shared(protocol: Protocol) -> Iterator[str]:
    """That prompts are captions of training pairs, where some are: a sentence, or none."""
    if count := protocol.pairs.shared_prompts:
        yield f"{count} of {len(protocol.prompts.ids)} prompts are captions of training pairs, too."


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
        f"eta {i.eta:g}, seed {i.seed}, {i.dtype}{', TF32' if i.matmul == 'tf32' else ''}."
    )
    yield (
        f"{pairs.kept} training pairs ({pairs.ties} ties dropped); training seeds "
        f"{', '.join(map(str, protocol.training_seeds()))}."
    )
    for reward in protocol.rewards:
        yield f"{reward.name}: {reward.signature}"
    yield f"dpo-bench {protocol.bench}."
