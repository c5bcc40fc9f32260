"""Statistics of paired arms: pure functions on numpy arrays.

The central shape is ``d`` of ``(S, P)``: the paired difference on - off for each training seed and
prompt, already averaged over images (:func:`paired_differences`). :func:`judge` decides a family of
them; ``docs/statistics.md`` says by which rules, and why.
"""

from bench.stats.anova import MeanSquares, mean_squares, standard_error, two_sided_p
from bench.stats.cells import missing_share, paired_differences
from bench.stats.control import (
    ImageNoise,
    SeedPair,
    TrainingNoise,
    image_noise,
    training_noise,
)
from bench.stats.crossed import Interval, crossed_interval, effect_size_dz
from bench.stats.decide import (
    MAX_MISSING_SHARE,
    Judgement,
    Verdict,
    VerdictWord,
    advice,
    holm,
    judge,
)
from bench.stats.gain import MIN_SEEDS, ShareOfGain, share_of_gain, within_bound, within_share
from bench.stats.moderated import SeedNoise, moderated_interval, seed_noise
from bench.stats.power import (
    Question,
    VarianceComponents,
    power,
    prompts_needed,
    seeds_needed,
    share_question,
    variance_components,
)
from bench.stats.ranks import Range, rank_ranges
from bench.stats.resample import (
    BootstrapInterval,
    Companion,
    pigeonhole_bootstrap,
    pigeonhole_bootstraps,
    sign_flip_p,
    sign_test,
    wilcoxon_prompts,
)
from bench.stats.strengths import Strength, bradley_terry, strengths
from bench.stats.two import Unpaired, unpaired
from bench.stats.wins import WinRate, wilson, win_matrix, win_rate

__all__ = [
    "MAX_MISSING_SHARE",
    "MIN_SEEDS",
    "BootstrapInterval",
    "Companion",
    "ImageNoise",
    "Interval",
    "Judgement",
    "MeanSquares",
    "Question",
    "Range",
    "SeedNoise",
    "SeedPair",
    "ShareOfGain",
    "Strength",
    "TrainingNoise",
    "Unpaired",
    "VarianceComponents",
    "Verdict",
    "VerdictWord",
    "WinRate",
    "advice",
    "bradley_terry",
    "crossed_interval",
    "effect_size_dz",
    "holm",
    "image_noise",
    "judge",
    "mean_squares",
    "missing_share",
    "moderated_interval",
    "paired_differences",
    "pigeonhole_bootstrap",
    "pigeonhole_bootstraps",
    "power",
    "prompts_needed",
    "rank_ranges",
    "seed_noise",
    "seeds_needed",
    "share_of_gain",
    "share_question",
    "sign_flip_p",
    "sign_test",
    "standard_error",
    "strengths",
    "training_noise",
    "two_sided_p",
    "unpaired",
    "variance_components",
    "wilcoxon_prompts",
    "wilson",
    "win_matrix",
    "win_rate",
    "within_bound",
    "within_share",
]
