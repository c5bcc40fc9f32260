"""Commands on experiments: run one, show what it would take, run one stage of it."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.options import (
    LARGEST_SEED,
    JsonOption,
    NotesOption,
    OutOption,
    QuickOption,
    SeedsOption,
    SetOption,
    SpecArgument,
    WorkersOption,
    parse_changes,
    parse_generate,
    parse_seeds,
)
from bench.images.samplers import SAMPLERS
from bench.terminal import plain_console
from trainers.errors import UserError

PixelsOption = Annotated[
    int | None, typer.Option(min=16, max=8192, help="Pixels; default: the model's.")
]
Where = Literal["local", "slurm", "ray"]
STORE = Path("runs/store")
LEFT_EARLY = 75
"""Exit code of a stage that was told that its time is nearly up, and can go on."""
_ETA = " and ".join(name for name, sampler in SAMPLERS.items() if sampler.takes_eta)


def ablate(
    spec: SpecArgument = "mini",
    quick: QuickOption = False,
    seeds: SeedsOption = None,
    change: SetOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run; run nothing.")] = False,
    collect: Annotated[
        bool, typer.Option("--collect", help="Write the tables of what is done; run nothing.")
    ] = False,
    out: OutOption = Path("runs"),
    workers: WorkersOption = None,
    launch: Annotated[Where, typer.Option(help="What runs the stages; docs/cluster.md.")] = "local",
    notes: NotesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Train every arm, make paired images, score them, and test the paired differences."""
    from bench.api import collected, prepare, run, show
    from bench.experiment.run import default_workers
    from bench.experiment.show import held
    from bench.report.folder import FORMATS
    from bench.report.terminal import print_results
    from bench.spec.model import load_spec
    from trainers.machine.processes import launched

    if launched() > 1:
        raise UserError(
            "bench ablate starts its processes itself: run it without a launcher, and set "
            "training.processes in the spec"
        )
    if plan and collect:
        raise UserError("--plan and --collect exclude each other: give one of them")
    chosen = load_spec(spec, quick, parse_seeds(seeds), parse_changes(change))
    console = plain_console(stderr=True)
    if quick:
        given = {"seeds"} if seeds else set()
        replaced = ", ".join(f"{k}: {v}" for k, v in chosen.quick.items() if k not in given)
        console.print(f"--quick takes {replaced}", soft_wrap=True)
    experiment, count = prepare(chosen), workers or default_workers(chosen)
    if plan:
        show(experiment, out, count, as_json)
        return 0
    done = collected(experiment, out) if collect else run(experiment, out, count, launch)
    if as_json:
        typer.echo(FORMATS["json"](done.results), nl=False)
    else:
        print_results(done.results, done.folder, notes)
    console.print(f"written to {done.folder}", soft_wrap=True)
    console.print(held(done.folder, experiment), soft_wrap=True)
    for gap in done.gaps:
        console.print(gap, style="red", soft_wrap=True)
    return 2 if done.gaps else 0


def stage(
    identity: Annotated[str, typer.Argument(metavar="ID", help="16 hex digits of its id or more.")],
    store: Annotated[Path, typer.Option(file_okay=False, help="E.g. runs/store.")] = STORE,
) -> int:
    """Run one stage that 'bench ablate' has planned with a store, on whatever machine.

    Nothing if it is done. On SIGUSR1 it keeps what it has, and leaves with exit code 75.
    """
    import signal

    from bench.launch.alone import run_alone
    from bench.stages.store import Store
    from trainers.machine.leaving import Leave, listen

    listen(signal.SIGUSR1)
    try:
        done = run_alone(identity, store)
    except Leave:
        typer.echo("left early; the same command goes on from here", err=True)
        return LEFT_EARLY
    typer.echo(f"{done.label} is in {done.output(Store(store))}")
    return 0


def plan(
    spec: SpecArgument = "mini",
    quick: QuickOption = False,
    change: SetOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a step, images and scores here; needs weights.")
    ] = False,
    devices: Annotated[
        int | None,
        typer.Option(min=1, max=10**6, help="Devices that share the work; default: processes."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Say what a spec would take: parameters, memory, steps, hours. Needs no weights."""
    from bench.estimate.measure import measure as measure_rates
    from bench.estimate.plan import budget
    from bench.estimate.show import print_budget
    from bench.spec.model import load_spec
    from bench.terminal import silence_libraries

    silence_libraries()
    loaded = load_spec(spec, quick, changes=parse_changes(change))
    with loaded.named():
        told = budget(loaded, devices, measure_rates(loaded) if measure else None)
    print_budget(loaded, told, as_json)
    return 0


def train(
    arm: Annotated[str, typer.Argument(help="Arm of the spec, e.g. DPO+A.")],
    out: Annotated[Path, typer.Option(help="Folder for the network and the log.")],
    spec: SpecArgument = "mini",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Training seed.")] = 0,
    change: SetOption = None,
    store: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Where pairs are kept encoded, e.g. runs/store; default: OUT/store.",
        ),
    ] = None,
    num_processes: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Processes that share a batch; default: the spec's."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="For encoding and training, e.g. cuda; default: the spec's.")
    ] = None,
) -> int:
    """Train one arm; run again after an interruption, it goes on where it stopped.

    Several processes: --num-processes on this machine, or 'accelerate launch -m bench train ...'.
    """
    from bench.estimate.disk import check_space
    from bench.experiment.single import train_arm
    from bench.spec.model import load_spec
    from bench.stages.store import Store
    from bench.terminal import silence_libraries

    silence_libraries()
    execution = {
        "training.processes": num_processes, "training.device": device, "encoding.device": device
    }  # fmt: skip
    given = {key: value for key, value in execution.items() if value is not None}
    loaded = load_spec(spec, seeds=(seed,), changes=parse_changes(change) | given)
    kept, fits = Store(store or out / "store"), partial(check_space, loaded)
    train_arm(loaded, arm, seed, out, kept, plain_console(stderr=True), fits)
    return 0


def generate(
    prompts: Annotated[str, typer.Option(help="Name of a prompt set, or a jsonl file.")],
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    base: Annotated[str, typer.Option(help="A shipped model, or a diffusers folder.")] = "mini-sd",
    network: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of a training run.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Kind of model.")] = "stable-diffusion",
    sampler: Annotated[str, typer.Option(help=f"One of {', '.join(SAMPLERS)}.")] = "ddim",
    steps: Annotated[int, typer.Option(min=1, max=10_000, help="Sampler steps.")] = 12,
    guidance: Annotated[float, typer.Option(min=0, max=1000, help="Guidance scale.")] = 3.0,
    eta: Annotated[
        float, typer.Option(min=0, max=1, help=f"Fresh noise in each step of {_ETA}.")
    ] = 0.0,
    height: PixelsOption = None,
    width: PixelsOption = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="A torch device, e.g. cuda.")] = "cpu",
    images_per_prompt: Annotated[int, typer.Option(min=1, max=1000)] = 1,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the noise.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Only the first prompts.")
    ] = None,
) -> int:
    """Make images, one noise per prompt and index, whatever the model or the batch size."""
    from bench.experiment.single import generate_images
    from bench.terminal import silence_libraries

    silence_libraries()
    settings = parse_generate(
        sampler=sampler, steps=steps, guidance=guidance, eta=eta, height=height, width=width,
        dtype=dtype, device=device, images_per_prompt=images_per_prompt, seed=seed,
    )  # fmt: skip
    generate_images(
        base, network, prompts, limit, settings, out, plain_console(stderr=True), backbone
    )
    return 0


def export(
    network: Annotated[
        Path, typer.Argument(file_okay=False, help="Folder that 'bench train' has filled.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to make.")],
    base: Annotated[str, typer.Option(help="The model that was trained.")] = "mini-sd",
) -> int:
    """Write a trained model as a whole diffusers folder."""
    from bench.assets import model_folder
    from bench.export.folder import export as write
    from bench.terminal import silence_libraries
    from trainers.record import prompt_prefix

    silence_libraries()
    trained = write(model_folder(base), network, out)
    typer.echo(f"{out}: {base} with its {trained} from {network}")
    if prefix := prompt_prefix(network):
        typer.echo(
            f"trained to have {prefix!r} before every prompt: a pipeline does not put it there"
        )
    return 0
