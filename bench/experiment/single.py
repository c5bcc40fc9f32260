"""One stage on its own: train an arm, make images."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from bench.assets import model_folder
from bench.experiment.devices import check_devices
from bench.experiment.resolve import Runs
from bench.experiment.run import Check
from bench.images.samplers import fitting
from bench.launch.devices import check_device
from bench.spec.model import Generate, Spec
from bench.spec.prompts import load_prompts
from bench.stages.generate import pool_identity, write_images
from bench.stages.store import Store
from bench.stages.train import train
from trainers.backbones import BACKBONES
from trainers.backbones.base import ADAPTER_FILE
from trainers.config import TrainConfig
from trainers.conventions import USUAL, convention, unscaled_lr
from trainers.errors import UserError
from trainers.files import sha256_file, tree_hashes, writable_folder, write_text
from trainers.input.checked import listed, shown
from trainers.input.paths import is_regular
from trainers.machine.batches import split_batch
from trainers.machine.processes import is_main, launched
from trainers.metrics import StepMetrics
from trainers.record import CHECKPOINT, is_finished, prompt_prefix
from trainers.sealed import drop


def train_arm(
    spec: Spec,
    arm: str,
    seed: int,
    out: Path,
    store: Store,
    console: Console,
    check: Check = lambda stages, store: None,
) -> None:
    """Train one arm of a spec into ``out``; of several processes the first one speaks.

    Args:
        spec: The experiment.
        arm: Name of the arm.
        seed: Training seed, one of the spec's.
        out: Where network and log go.
        store: Where encodings are looked for, and kept.
        console: Where progress is shown.
        check: Called with what is missing before it is made.

    Raises:
        UserError: If the spec has no such arm, or ``out`` holds another run.
    """
    console.quiet = not is_main()
    with spec.named():
        runs = Runs(spec)
        arms = {known.name: known for known in runs.matrix.arms}
        if arm not in arms:
            raise UserError(
                f"spec {spec.name!r} has no arm {shown(arm)}: expected one of {listed(arms)}"
            )
        stage = runs.train(arms[arm], seed)
    run = f"run {stage.config.run_id()[:16]}"
    if is_finished(out, stage.config):
        drop(out / CHECKPOINT)
        console.print(f"{run} is in {out} already: nothing to do", soft_wrap=True)
        return
    check_devices(spec)
    for folder in (out, store.root):
        writable_folder(folder)
    encoded = stage.encode.done(store) is not None
    check([stage] if encoded else [stage.encode, stage], store)
    if is_main():
        BACKBONES.get(spec.backbone)(stage.base).check("float32", stage.encode.settings.precision)
    stage.encode.execute(store, lambda images: None)

    processes = spec.training.processes if launched() == 1 else launched()
    for line in announce(stage.config, processes):
        console.print(line, soft_wrap=True)

    def show(step: int, metrics: StepMetrics) -> None:
        if step % 10 == 0 or step == stage.config.steps:
            told = f"step {step}/{stage.config.steps} loss {metrics.loss:.4f}"
            if metrics.accuracy is not None:
                told += f" accuracy {metrics.accuracy:.2f} margin {metrics.margin:+.2e}"
            console.print(told)

    training = spec.training.model_copy(update={"keep_checkpoint": False})
    train(stage.config, stage.base, stage.encode.stored(store), training, out, show)
    console.print(f"{run} is in {out}", soft_wrap=True)


def announce(config: TrainConfig, processes: int) -> Iterator[str]:
    """What is often left implicit: how a batch is shared, the rate that is applied, and beta."""
    own, rule = split_batch(config.batch_size, config.accumulation, processes), config.optimizer
    yield (
        f"batch: {config.batch_size} pairs a step = {processes} process(es) x {own.parts} part(s) "
        f"x {own.rows // own.parts} pairs"
    )
    yield (
        f"learning rate: {rule.lr:g} is applied, {rule.schedule} after a warm-up of "
        f"{rule.warmup_steps} steps; with --scale_lr it would be "
        f"{unscaled_lr(rule.lr, config.batch_size):.6g}"
    )
    if (beta := config.objective.strength) is not None:
        known = convention(USUAL).objective == config.objective.name
        hint = f"; bench convert --beta {beta:g} says what other sources call it" if known else ""
        yield f"beta: {beta:g}{hint}"


def generate_images(
    base: str,
    network: Path | None,
    prompts: str,
    limit: int | None,
    settings: Generate,
    out: Path,
    console: Console,
    backbone: str = "stable-diffusion",
) -> None:
    """Make the images of a prompt set that are not in ``out`` yet, and leave there what is.

    Raises:
        UserError: If a folder or the prompts are missing, ``out`` holds other images, the backbone
            is unknown or has other samplers, or the device is not there.
    """
    folder = model_folder(base)
    model = BACKBONES.get(backbone)
    trained = {} if network is None else _trained(network, model.network_part)
    texts = [prompt for _, prompt in load_prompts(prompts, limit).items]
    fitting(settings.sampler, backbone)
    prefix = "" if network is None else prompt_prefix(network)
    identity = pool_identity(settings, backbone, model(folder).sha256(), trained, prefix)
    mark = out / ".identity"
    check_device(settings.device, "device")
    # A mark alone may be left of an attempt that came to nothing.
    other = is_regular(mark) and mark.read_bytes() != identity.encode()
    if other and any(out.glob("*.png")):
        raise UserError(f"{out} holds images of other settings: give an empty folder, or delete it")
    write_text(writable_folder(out) / mark.name, identity)
    total = len(texts) * settings.images_per_prompt
    write_images(
        folder, network, backbone, texts, settings, out,
        lambda done: console.print(f"{done}/{total} images"), prefix=prefix,
    )  # fmt: skip


def _trained(network: Path, part: str) -> dict[str, str]:
    """sha256 of the files of the network, or of the adapter, in the folder of a run."""
    if (network / part).is_dir():
        return {f"{part}/{name}": sha for name, sha in tree_hashes(network / part).items()}
    if (network / ADAPTER_FILE).is_file():
        return {ADAPTER_FILE: sha256_file(network / ADAPTER_FILE)}
    raise UserError(
        f"expected a folder with a trained {part!r} in it, or {ADAPTER_FILE}, got {network}"
    )
