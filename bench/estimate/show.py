"""A plan as ``bench plan`` prints it."""

from collections.abc import Iterator
from typing import Any

from bench.estimate.rates import UNITS
from bench.spec.model import Spec
from bench.terminal import Column, plain_console, print_json, print_table


def print_budget(spec: Spec, plan: dict[str, Any], as_json: bool) -> None:
    """Print what ``bench.estimate.plan.budget`` gave."""
    if as_json:
        print_json(plan)
        return
    console = plain_console()
    console.print(f"{spec.title}\n{plan['architecture']}: {plan['source']}")
    counted = ", ".join(f"{k} {v / 1e6:,.1f} M" for k, v in plan["parameters"].items())
    console.print(f"parameters: {counted}; latents of {plan['latent_side']}^2")
    _print_memory(plan["training_gib"], plan["processes"])
    for line in (*_other_memory(plan), *_batches(plan["batch"])):
        console.print(line)
    console.print(f"{plan['runs']} runs, {plan['optimiser_steps']:,} steps, "
                  f"{plan['pairs_seen']:,} pairs seen, {plan['prompts']:,} prompts, "
                  f"{plan['images']:,} images, {plan['scores']:,} scores")  # fmt: skip
    if (before := plan["trials"]) is not None:
        console.print(
            f"before that, trials: {before['runs']} runs, {before['optimiser_steps']:,} steps, "
            f"{before['images']:,} images"
        )
    for group in plan["reference_errors"]:
        console.print(f"errors of the pretrained network at {group['positions']:,} positions are "
                      f"computed once for {', '.join(group['arms'])}")  # fmt: skip
    for line in _times(plan):
        console.print(line)
    console.print(
        "activations as autograd keeps them, half of it in half precision. Libraries, workspace "
        "and fragmentation come on top: about 2 GiB where it was measured, on a CPU "
        "(docs/performance.md)"
    )
    if plan["guesses"]:
        console.print(f"guessed: {'; '.join(plan['guesses'])}")
    if plan["beta"]:
        console.print("beta: " + ", ".join(f"{v:.4g} ({k})" for k, v in plan["beta"].items()))


def _hours(value: float, devices: int) -> str:
    text = f"{value:,.0f} h" if value >= 100 else f"{value:.3g} h"
    return text if devices == 1 else f"{text}, {_hours(value / devices, 1)} by {devices} devices,"


def _times(plan: dict[str, Any]) -> Iterator[str]:
    """A line for each part and device that somebody measured, and one for what nobody did."""
    devices, total = plan["devices"], plan["total_hours"]
    for time in plan["time"]:
        each = time["hours"] * 3600 / time["units"]
        yield (
            f"{time['part']}: {_hours(time['hours'], devices)} on {time['device']}: "
            f"{time['units']:,} {UNITS[time['part']]}s of {each:.3g} s "
            f"({'; '.join(time['sources'])})"
        )
    if total is not None:
        yield f"in all: {_hours(total, devices)}"
    if (before := plan["trials"]) is not None and before["total_hours"] is not None:
        yield f"trials: {_hours(before['total_hours'], devices)} more"
    if plan["not_known"]:
        yield (
            f"time not known of {', '.join(plan['not_known'])}: no recorded measurement fits, and "
            "--measure times what is on this machine"
        )


def _print_memory(arms: dict[str, dict[str, float]], processes: int) -> None:
    each = "" if processes == 1 else f", in each of {processes} processes"
    # Arms of equal memory share a column: there may be a dozen.
    alike: dict[tuple[float, ...], list[str]] = {}
    for arm, parts in arms.items():
        alike.setdefault(tuple(parts.values()), []).append(arm)
    columns = [Column(", ".join(names), prose=True, right=True) for names in alike.values()]
    rows = [
        [part, *(f"{values[number]:.2f}" for values in alike)]
        for number, part in enumerate(next(iter(arms.values())))
    ]
    title = f"memory of training{each}, GiB"
    print_table([Column("part"), *columns], rows, title)


def _other_memory(plan: dict[str, Any]) -> list[str]:
    scoring, encodings = plan["scoring_gib"], plan["encodings"]
    kept = f"{encodings['latents_gib']:,.1f} GiB of latents are kept on disk, besides prompts"
    return [
        f"memory of encoding {plan['encoding_gib']:.1f} GiB, of generation "
        f"{plan['generation_gib']:.1f} GiB, of scoring {scoring['all']:.1f} GiB with the weights "
        f"of all rewards, {scoring['largest']:.1f} GiB where they must take turns",
        f"{encodings['pairs']:,} pairs are encoded once; {kept}"
        if encodings["kept"]
        else "pairs are encoded in every step; nothing is kept on disk",
    ]


def _batches(arms: dict[str, dict[str, float]]) -> list[str]:
    """Arms of one batch and rate on one line."""
    alike: dict[str, list[str]] = {}
    for arm, b in arms.items():
        text = (
            f"{b['pairs']:,} pairs a step = {b['processes']} process(es) x {b['parts']:,} part(s) "
            f"x {b['pairs_a_forward']:,} pairs; lr {b['lr']:.4g} applied, with --scale_lr it would "
            f"be {b['lr_before_scaling']:.4g}"
        )
        alike.setdefault(text, []).append(arm)
    several = len(alike) > 1
    return [f"batch{' of ' + ', '.join(a) if several else ''}: {t}" for t, a in alike.items()]
