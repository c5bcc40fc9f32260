"""Statistics of paired arms: pure functions on numpy arrays.

The central shape is ``d`` of ``(S, P)``: the paired difference on - off for each training seed and
prompt, already averaged over images (:func:`paired_differences`).
"""

from bench.stats.anova import mean_squares, standard_error, two_sided_p
from bench.stats.cells import missing_share, paired_differences
from bench.stats.crossed import Interval, crossed_interval, effect_size_dz
from bench.stats.decide import (
    MAX_MISSING_SHARE,
    Verdict,
    VerdictWord,
    advice,
    holm,
    noise_floor,
    tost_equivalent,
    verdict,
)
from bench.stats.planning import (
    PowerPlan,
    VarianceComponents,
    power,
    power_seeds,
    variance_components,
)
from bench.stats.resample import (
    BootstrapInterval,
    Companion,
    pigeonhole_bootstrap,
    sign_flip_p,
    sign_test,
    wilcoxon_prompts,
)
from bench.stats.wins import WinRate, wilson, win_matrix, win_rate

__all__ = [
    "MAX_MISSING_SHARE",
    "BootstrapInterval",
    "Companion",
    "Interval",
    "PowerPlan",
    "VarianceComponents",
    "Verdict",
    "VerdictWord",
    "WinRate",
    "advice",
    "crossed_interval",
    "effect_size_dz",
    "holm",
    "mean_squares",
    "missing_share",
    "noise_floor",
    "paired_differences",
    "pigeonhole_bootstrap",
    "power",
    "power_seeds",
    "sign_flip_p",
    "sign_test",
    "standard_error",
    "tost_equivalent",
    "two_sided_p",
    "variance_components",
    "verdict",
    "wilcoxon_prompts",
    "wilson",
    "win_matrix",
    "win_rate",
]
