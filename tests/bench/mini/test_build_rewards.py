"""Wrong scenes, from which the miniature rewards learn and by which they are measured."""

import numpy as np

from bench.mini.build.rewards import wrong
from bench.mini.world import WORDS, all_scenes, split_of


def test_every_scene_has_a_wrong_one_and_training_scenes_a_training_one() -> None:
    """Some held-out scenes have no neighbour in their own split; the search must still end."""
    rng = np.random.default_rng(0)
    for scene in all_scenes():
        other = wrong(scene, rng)
        assert sum(getattr(other, n) != getattr(scene, n) for n in WORDS) == 1
        if split_of(scene) == "train":
            assert split_of(other) == "train"
