"""What figures are drawn from: the committed files of a result folder, read once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import stats
from bench.results.analysis import Array, Results, analyse, signed_scores
from bench.results.files import MANIFEST, read_manifest, read_scores
from bench.results.steps import read_scales, read_steps
from trainers.files import canonical_json

Settings = dict[str, Any]
"""Dotted keys of a run and their values."""


@dataclass(frozen=True)
class Source:
    """A result folder."""

    name: str
    results: Results
    scores: Mapping[str, Mapping[str, Array]]
    """``[S, P, K]`` by reward and arm, higher being better."""
    steps: pd.DataFrame | None
    scales: pd.DataFrame | None
    settings: Mapping[str, Settings]
    """Of every trained arm that has runs of its own; empty without a manifest."""
    folder_settings: Settings
    """What else decides a score: base model, prompts, images and the primary reward."""

    @property
    def primary(self) -> str:
        """The reward that verdicts rest on."""
        return self.results.protocol.primary

    def arms(self) -> list[str]:
        """Trained arms that are no other's twins, in the order of the tables."""
        return [arm.name for arm in self.results.protocol.arms[1:] if arm.same_as is None]

    def base(self) -> str:
        """Name of the base model."""
        return self.results.protocol.arms[0].name

    def differences(self, on: str, off: str, reward: str | None = None) -> Array:
        """Paired differences ``[S, P]`` of two arms, positive where ``on`` is better."""
        scores = self.scores[reward or self.primary]
        high, low = np.broadcast_arrays(scores[on], scores[off])
        return stats.paired_differences(high, low)

    def interval(self, on: str, off: str) -> stats.Interval | None:
        """That of the mean difference on the primary reward; None of too little."""
        d = self.differences(on, off)
        kept = d[~np.isnan(d).all(axis=1)]
        if not len(kept) or int((~np.isnan(kept).any(axis=0)).sum()) < 2:
            return None
        return stats.crossed_interval(d, 1 - self.results.protocol.statistics.alpha)

    def tail(self) -> str:
        """What every caption ends with: how much there is, and what it is to be taken for."""
        protocol = self.results.protocol
        seeds = len([*protocol.training_seeds()])
        alone = "; intervals are conditional on that one run" if seeds == 1 else ""
        return (
            f"{len(protocol.prompts.ids)} prompts of {protocol.prompts.name}, "
            f"{protocol.images.per_prompt} image(s) each, {seeds} training seed(s){alone}. "
            f"{protocol.title}. Read as: {protocol.label}."
        )

    def level(self) -> str:
        """``95 %``."""
        return f"{100 * (1 - self.results.protocol.statistics.alpha):g} %"


def read_source(folder: Path) -> Source:
    """Read a result folder.

    Raises:
        UserError: If something of it is missing or damaged.
    """
    scores, protocol = read_scores(folder)
    settings: dict[str, Settings] = {}
    if (folder / MANIFEST).exists():
        for run in read_manifest(folder).runs:
            settings.setdefault(run.arm, {k: v for k, v in flat(run.config) if k != "seed"})
    return Source(
        name=folder.resolve().name,
        results=analyse(scores, protocol),
        scores=signed_scores(scores, protocol),
        steps=read_steps(folder),
        scales=read_scales(folder),
        settings={
            arm.name: settings[arm.name]
            for arm in protocol.arms[1:]
            if arm.same_as is None and arm.name in settings
        },
        folder_settings={
            "prompts": protocol.prompts.sha256,
            "images": protocol.images.model_dump_json(),
            "primary": {r.name: r.signature for r in protocol.rewards}[protocol.primary],
        },
    )


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested settings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def without(settings: Settings, *keys: str) -> Settings:
    """Settings but for some keys; one that ends in a dot stands for all below it."""
    return {
        key: value
        for key, value in settings.items()
        if not any(key == k or (k.endswith(".") and key.startswith(k)) for k in keys)
    }


def alike(settings: Mapping[str, Settings], *keys: str) -> list[list[str]]:
    """Arms in groups of equal settings but for some keys, as :func:`without` takes them."""
    groups: dict[str, list[str]] = {}
    for arm, own in settings.items():
        groups.setdefault(canonical_json(without(own, *keys)), []).append(arm)
    return [*groups.values()]


def told(settings: Settings, others: Iterable[Settings]) -> str:
    """In what settings differ from others, in words: ``beta 300, reference frozen``."""
    others = [*others]
    keys = [k for k in settings if any(k not in o or o[k] != settings[k] for o in others)]
    plugins = {k.removesuffix("name") for k in keys if k.endswith(".name")}
    words = []
    for key in keys:
        section = next((p for p in plugins if key.startswith(p)), None)
        if section is None or key == f"{section}name":
            words.append(f"{short(key)} {_value(settings[key])}")
    return ", ".join(words)


def short(key: str) -> str:
    """The last part of a dotted key; of a plug-in's name, that of its slot."""
    parts = key.split(".")
    return parts[-2] if parts[-1] == "name" and len(parts) > 1 else parts[-1]


def _value(value: object) -> str:
    return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def updating(settings: Settings) -> bool:
    """Whether the reference of a run follows the policy."""
    return settings.get("reference.name") != "frozen"


def gated(settings: Settings) -> bool:
    """Whether a bound holds it."""
    return settings.get("reference.delta") is not None


def few(items: Sequence[Any], most: int, what: str) -> tuple[list[Any], str]:
    """The first so many, and a sentence for the caption where there are more."""
    more = f" The first {most} of {len(items)} {what}." if len(items) > most else ""
    return [*items[:most]], more
