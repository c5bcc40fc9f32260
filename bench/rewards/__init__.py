"""Reward models: one file each, found by name."""

from collections.abc import Sequence

from bench.rewards.base import Reward
from trainers.registry import Registry

REWARDS: Registry[type[Reward]] = Registry(
    "reward",
    "dpo_bench.rewards",
    {
        "oracle": "bench.rewards.oracle:Oracle",
        "pickscore": "bench.rewards.pickscore:PickScore",
        "hpsv2.0": "bench.rewards.hpsv2:HPSv20",
        "hpsv2.1": "bench.rewards.hpsv2:HPSv2",
        "imagereward": "bench.rewards.imagereward:ImageReward",
        "clip": "bench.rewards.clip:CLIPScore",
        "clip-h14": "bench.rewards.clip:CLIPScoreH14",
        "aesthetic": "bench.rewards.aesthetic:Aesthetic",
        "hpsv2.0-official": "bench.rewards.official:HPSv20Official",
        "hpsv2.1-official": "bench.rewards.official:HPSv2Official",
        "imagereward-official": "bench.rewards.official:ImageRewardOfficial",
        "mini-pickscore": "bench.rewards.pickscore:MiniPickScore",
        "mini-hpsv2": "bench.rewards.hpsv2:MiniHPSv2",
        "mini-imagereward": "bench.rewards.imagereward:MiniImageReward",
        "mini-clip": "bench.rewards.clip:MiniCLIPScore",
        "mini-aesthetic": "bench.rewards.aesthetic:MiniAesthetic",
    },
    Reward,
)

GROUPS = {
    "all": ("pickscore", "hpsv2.1", "imagereward", "clip", "aesthetic"),
    "hpsv2": ("hpsv2.0", "hpsv2.1"),
    "hpsv2-official": ("hpsv2.0-official", "hpsv2.1-official"),
    "mini": (
        "oracle",
        "mini-pickscore",
        "mini-hpsv2",
        "mini-imagereward",
        "mini-clip",
        "mini-aesthetic",
    ),
}
"""Rewards that one word asks for: the five official ones, both versions of one, the miniatures."""


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Names with the groups among them spelt out, each once.

    Raises:
        UserError: If a reward is unknown.
    """
    every = dict.fromkeys(n for name in names for n in GROUPS.get(name, (name,)))
    for name in every:
        REWARDS.get(name)
    return tuple(every)
