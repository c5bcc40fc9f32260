"""The command line: parse, call, print. Nothing heavy is imported before a command runs.

Exit codes: 0 done; 1 wrong usage, spec or input; 2 some runs failed (the table is still written,
its gaps marked); 130 interrupted, to be resumed by the same command.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli.options import parse_generate, parse_scoring, parse_seeds, parse_source, split
from trainers.errors import UserError

app = typer.Typer(
    name="bench",
    help="Which ingredients of diffusion preference optimisation really help?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
mini = typer.Typer(help="The miniature world.", no_args_is_help=True)
app.add_typer(mini, name="mini")
official = typer.Typer(help="The published packages of two rewards.", no_args_is_help=True)
app.add_typer(official, name="official")
data = typer.Typer(help="Preference pairs.", no_args_is_help=True)
app.add_typer(data, name="data")

SpecArgument = Annotated[str, typer.Argument(help="Name of a shipped spec, or a YAML file.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="A smaller version: a smoke test.")]
SeedsOption = Annotated[str | None, typer.Option(help="Training seeds, e.g. 0-4 or 0,2,5.")]
OutOption = Annotated[Path, typer.Option(help="Folder for the store and the results.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RewardsOption = Annotated[
    str, typer.Option(help="Names with commas between them; 'all', 'mini' and 'hpsv2' are groups.")
]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FOLDER or NAME=OWNER/REPOSITORY@REVISION; may be repeated."),
]


def _forbid_downloads(offline: bool) -> bool:
    if offline:  # Read by huggingface_hub when it is imported.
        os.environ["HF_HUB_OFFLINE"] = "1"
    return offline


OfflineOption = Annotated[
    bool, typer.Option("--offline", callback=_forbid_downloads, help="Forbid downloads.")
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["DPO_BENCH_DEBUG"] = "1"
    # Read by transformers when it is imported; workers inherit it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@app.command()
def ablate(
    spec: SpecArgument = "mini",
    quick: QuickOption = False,
    seeds: SeedsOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run; run nothing.")] = False,
    out: OutOption = Path("runs"),
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> int:
    """Train every arm, make paired images, score them, and test the paired differences."""
    from bench.experiment import run as job
    from bench.experiment.prepare import prepare
    from bench.experiment.show import print_plan
    from bench.report.terminal import print_results
    from bench.spec.model import load_spec
    from trainers.machine.processes import launched

    if launched() > 1:
        raise UserError(
            "bench ablate starts its processes itself: run it without a launcher, and set "
            "training.processes in the spec"
        )
    experiment = prepare(load_spec(spec, quick, parse_seeds(seeds)))
    count = workers or job.default_workers(experiment.spec)
    if plan:
        print_plan(experiment, out, count, as_json)
        return 0
    console = Console(stderr=True)
    results, outcome = job.ablate(experiment, out, count, console)
    print_results(results, as_json)
    console.print(f"written to {out / experiment.spec.name}", markup=False, soft_wrap=True)
    for error in outcome.failed.values():
        console.print(f"failed: {error}", style="red", markup=False, soft_wrap=True)
    return 2 if outcome.failed else 0


@app.command("plan")
def plan_command(
    spec: SpecArgument = "mini",
    tflops: Annotated[
        float, typer.Option(min=1e-6, help="10^12 operations a second that a device sustains.")
    ] = 100.0,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices that share the work; default: processes.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Say what a spec would take: parameters, memory, steps, GPU-hours. Needs no weights."""
    from bench.estimate.plan import Assumptions, print_budget
    from bench.spec.model import load_spec
    from bench.terminal import silence_libraries

    silence_libraries()
    print_budget(load_spec(spec), Assumptions(tflops, devices), as_json)
    return 0


@app.command()
def train(
    arm: Annotated[str, typer.Argument(help="Arm of the spec, e.g. DPO+A.")],
    out: Annotated[Path, typer.Option(help="Folder for the network and the log.")],
    spec: Annotated[str, typer.Option(help="Name of a shipped spec, or a YAML file.")] = "mini",
    seed: Annotated[int, typer.Option(help="Training seed.")] = 0,
    num_processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that share a batch; default: the spec's."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="For encoding and training, e.g. cuda; default: the spec's.")
    ] = None,
) -> int:
    """Train one arm; run again after an interruption, it goes on where it stopped.

    Several processes: --num-processes on this machine, or 'accelerate launch -m bench train ...'.
    """
    from bench.experiment.single import train_arm
    from bench.terminal import silence_libraries

    silence_libraries()
    changes = {
        "training.processes": num_processes, "training.device": device, "encoding.device": device
    }  # fmt: skip
    execution = {key: value for key, value in changes.items() if value is not None}
    train_arm(spec, arm, seed, out, Console(stderr=True), execution)
    return 0


@app.command()
def convert(
    beta: Annotated[float | None, typer.Option(help="A beta to convert.")] = None,
    source: Annotated[str, typer.Option(help="Who quotes it.")] = "diffusion-dpo code",
    latent: Annotated[str, typer.Option(help="Shape of a latent, CxHxW.")] = "4x64x64",
    lr: Annotated[float | None, typer.Option(help="A rate given with --scale_lr.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pairs per optimiser step, all processes.")
    ] = None,
) -> int:
    """Say what the beta and the learning rate of other sources are in a spec."""
    from bench.cli.convert import convert_beta, convert_lr

    if beta is None and lr is None:
        raise UserError("nothing to convert: give --beta, or --lr with --batch-size")
    if beta is not None:
        for line in convert_beta(beta, source, latent):
            typer.echo(line)
    if lr is not None:
        typer.echo(convert_lr(lr, batch_size))
    return 0


@app.command()
def generate(
    prompts: Annotated[str, typer.Option(help="Name of a prompt set, or a jsonl file.")],
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    base: Annotated[str, typer.Option(help="A shipped model, or a diffusers folder.")] = "mini-sd",
    network: Annotated[Path | None, typer.Option(help="Folder of a training run.")] = None,
    backbone: Annotated[str, typer.Option(help="Kind of model.")] = "stable-diffusion",
    sampler: Annotated[str, typer.Option(help="ddim, euler, dpm++ or flow-euler.")] = "ddim",
    steps: Annotated[int, typer.Option(min=1, help="Sampler steps.")] = 12,
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale.")] = 3.0,
    eta: Annotated[float, typer.Option(help="Fresh noise in each step of ddim, 0 to 1.")] = 0.0,
    height: Annotated[int | None, typer.Option(help="Pixels; default: the model's.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; default: the model's.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="A torch device, e.g. cuda.")] = "cpu",
    images_per_prompt: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Base seed of the noise.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first prompts.")] = None,
) -> int:
    """Make images, one noise per prompt and index, whatever the model or the batch size."""
    from bench.experiment.single import generate_images
    from bench.terminal import silence_libraries

    silence_libraries()
    settings = parse_generate(
        sampler=sampler, steps=steps, guidance=guidance, eta=eta, height=height, width=width,
        dtype=dtype, device=device, images_per_prompt=images_per_prompt, seed=seed,
    )  # fmt: skip
    generate_images(base, network, prompts, limit, settings, out, Console(stderr=True), backbone)
    return 0


@app.command()
def export(
    network: Annotated[Path, typer.Argument(help="Folder that 'bench train' has filled.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    base: Annotated[str, typer.Option(help="The model that was trained.")] = "mini-sd",
) -> int:
    """Write a trained model as a whole diffusers folder."""
    from bench.assets import model_folder
    from bench.export.folder import export as write

    trained = write(model_folder(base), network, out)
    typer.echo(f"{out}: {base} with its {' and '.join(trained)} from {network}")
    return 0


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="Folder of images, or a parquet file with them.")],
    rewards: RewardsOption = "all",
    prompts: Annotated[
        Path | None,
        typer.Option(help="jsonl or csv with file and prompt, or a .txt in order of names."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet file of the scores.")] = None,
    device: Annotated[str, typer.Option(help="A torch device, e.g. cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward pass.")] = None,
    memory: Annotated[float | None, typer.Option(help="GiB that models may take.")] = None,
    weights: WeightsOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> int:
    """Score any images; run again, it only scores what is missing."""
    # Read by transformers when it is imported, which is only if there is something to score.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from bench.cli.scoring import ScoreJob, print_scores, score_source
    from bench.rewards import expand

    settings = parse_scoring(weights, device=device, dtype=dtype, batch_size=batch_size)
    limit = None if memory is None else int(memory * 2**30)
    job = ScoreJob(source, expand(split(rewards)), prompts, out, settings, limit)
    return 0 if print_scores(score_source(job, Console(stderr=True)), as_json) else 2


@app.command()
def prefetch(
    rewards: RewardsOption = "all",
    weights: WeightsOption = None,
    offline: OfflineOption = False,
) -> int:
    """Download, verify and convert the weights of rewards; offline, check what is there."""
    from bench.cli.scoring import fetch_rewards
    from bench.rewards import expand

    settings = parse_scoring(weights)
    return 0 if fetch_rewards(expand(split(rewards)), settings, Console()) else 1


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="Folder that 'bench ablate' has written.")],
    check: Annotated[bool, typer.Option("--check", help="Only compare, byte for byte.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Render the tables of a result folder again, from its scores and plan alone."""
    from bench.report.terminal import print_results
    from bench.results.files import render, stale

    if not check:
        print_results(render(folder), as_json)
        return 0
    if wrong := stale(folder):
        raise UserError(
            f"{folder}: {', '.join(wrong)} is not what its scores give: run 'bench table {folder}'"
        )
    typer.echo(f"{folder}: every table is what its scores give")
    return 0


@app.command("list")
def list_plugins(
    kind: Annotated[str | None, typer.Argument(help="rewards, objectives, specs, ...")] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> int:
    """Show what can be named in a spec."""
    from bench.cli.catalogue import catalogue, print_catalogue

    print_catalogue(catalogue(kind), as_json, as_markdown)
    return 0


@app.command()
def doctor(as_json: JsonOption = False) -> int:
    """Check the installation: versions, shipped files, and what is known to break."""
    from bench.cli.doctor import examine, print_findings

    findings = examine()
    print_findings(findings, as_json)
    return 0 if all(f.good for f in findings) else 1


SourceArgument = Annotated[
    str,
    typer.Argument(help="Parquet, jsonl or json of pairs, or '{name: ..., path: ...}' as in spec."),
]


@data.command("check")
def data_check(source: SourceArgument, as_json: JsonOption = False) -> int:
    """Look at every pair: labels, damaged images, sizes, repetitions. Exit code 1 if refused."""
    from bench.assets import pairs_source
    from bench.pairs.check import check_source, print_check

    found = check_source(pairs_source(parse_source(source)))
    print_check(found, as_json)
    return 1 if found.problems() else 0


@data.command("label")
def data_label(
    source: SourceArgument,
    reward: Annotated[str, typer.Option(help="The reward that judges.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    tie: Annotated[float, typer.Option(min=0, help="Scores this close are a tie.")] = 0.0,
    device: Annotated[str, typer.Option(help="A torch device, e.g. cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward pass.")] = None,
    weights: WeightsOption = None,
    offline: OfflineOption = False,
) -> int:
    """Rank every pair anew by a reward, into a parquet file of its own."""
    from bench.assets import pairs_source
    from bench.pairs.label import label_pairs
    from bench.rewards.engine import make_reward
    from bench.rewards.kit.shared import Shared
    from bench.terminal import silence_libraries

    silence_libraries()
    settings = parse_scoring(weights, device=device, dtype=dtype, batch_size=batch_size)
    judge = make_reward(reward, settings, Shared())
    done = label_pairs(pairs_source(parse_source(source)), judge, out, tie)
    typer.echo(
        f"{out}: {done.written} pairs, {done.ties} ties, {done.unscored} without a score, "
        f"{done.damaged} damaged and left out; {done.agree} of {done.decided} pairs decided before "
        f"are decided alike. In a spec that uses it: labelled_by: [{reward}]"
    )
    return 0


@mini.command("build")
def mini_build(
    out: Annotated[Path, typer.Option(help="Folder for the files and the work in progress.")],
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> int:
    """Make the shipped files from nothing: about two and a half hours on 2 cores, resumable."""
    from bench.mini.build.everything import build
    from bench.terminal import silence_libraries

    silence_libraries()
    build(out, seed, say)
    return 0


def say(line: str) -> None:
    """Print a line at once, from whichever process."""
    print(line, flush=True)


@official.command("build")
def official_build(
    out: Annotated[Path | None, typer.Option(help="Folder; default: below ~/.cache.")] = None,
) -> int:
    """Make the environment in which rewards named -official run: some minutes, about 1.6 GB."""
    from bench.official.build import build, default_folder

    build(out or default_folder(), say)
    return 0


@mini.command("check")
def mini_check(
    limit: Annotated[int, typer.Option(min=2, help="Number of prompts.")] = 220,
    prompts: Annotated[str, typer.Option(help="Name of a prompt set.")] = "mini-dev",
    guidance: Annotated[float, typer.Option(min=0)] = 3.0,
    steps: Annotated[int, typer.Option(min=1)] = 12,
    grid: Annotated[Path | None, typer.Option(help="Write a picture grid here.")] = None,
) -> int:
    """Let the oracle judge images of the base model."""
    from bench.mini.check import check, print_check
    from bench.terminal import silence_libraries

    silence_libraries()

    print_check(check(prompts, limit, guidance, steps, grid))
    return 0


@mini.command("agree")
def mini_agree(
    rewards: Annotated[
        str | None, typer.Option(help="Names with commas between them; default: miniatures.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Drawn pairs of each kind.")] = 400,
    images: Annotated[
        Path | None, typer.Option(help="Folder that 'bench generate' has written, 2 a prompt.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the drawn pairs.")] = 0,
    as_json: JsonOption = False,
) -> int:
    """How often rewards prefer the picture that the oracle prefers."""
    from bench.mini.agree import agreements, miniatures, print_agreements
    from bench.terminal import silence_libraries

    silence_libraries()

    names = miniatures() if rewards is None else [name.strip() for name in rewards.split(",")]
    print_agreements(list(agreements(names, pairs, seed, images)), as_json)
    return 0


def main() -> None:
    """Entry point: errors that the user can mend are one line, whatever else is a bug."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        code: Any = app(arguments, standalone_mode=False)
    except (typer.TyperException, UserError) as error:
        if os.environ.get("DPO_BENCH_DEBUG"):
            raise
        message = str(error) if isinstance(error, UserError) else error.format_message()
        if message:  # Empty where a command without arguments has printed its help instead.
            typer.echo(f"bench: {message}", err=True)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:  # Typer turns an interruption into this code itself.
        typer.echo("bench: interrupted; the same command goes on from here", err=True)
    return code if isinstance(code, int) else 0
