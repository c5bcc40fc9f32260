"""A step of the log in the columns of tables and trackers: one naming for both.

The log names the model that is trained ``policy``; here its errors are ``error``, those of the
reference ``reference_error``. What objective and safeguard show of themselves is in
``figures/<name>``.
"""

from collections.abc import Mapping
from typing import Any

EVENT = "reference_event"
"""``update``, ``freeze``, ``reinit`` or ``skip``; None where the reference did nothing."""
SCALARS = {
    "loss": "loss",
    "margin": "margin",
    "accuracy": "accuracy",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "divergence": "divergence",
    "error_winner": "policy_winner",
    "error_loser": "policy_loser",
    "reference_error_winner": "reference_winner",
    "reference_error_loser": "reference_loser",
}
"""Columns of one number, and their names in the log; None where a run has none."""
DECILES = {
    "decile_count": "timestep_deciles",
    "decile_winners": "decile_winners",
    "decile_losers": "decile_losers",
    "decile_error_winner": "decile_policy_winner",
    "decile_error_loser": "decile_policy_loser",
    "decile_reference_error_winner": "decile_reference_winner",
    "decile_reference_error_loser": "decile_reference_loser",
    "decile_pairs": "decile_pairs",
    "decile_correct": "decile_correct",
}
"""Columns of ten numbers, counts and sums by tenth of the timesteps, the cleanest first."""
FIGURES = "figures/"
"""What names of further columns begin with."""


def columns_of_step(line: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a line of the log, the step's number aside."""
    action = line["reference_action"]
    return {
        EVENT: None if action == "none" else action,
        **{name: line[key] for name, key in (SCALARS | DECILES).items()},
        **{FIGURES + name: value for name, value in line["figures"].items()},
    }
