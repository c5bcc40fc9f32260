"""``bench plan --measure``: a step of each run, a batch of images and their scores, timed.

As a worker of ``bench ablate`` runs them, on one thread.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.assets import model_folder
from bench.estimate.plan import arm_configs
from bench.estimate.rates import Part, Rate
from bench.images.draw import draw, load_pipeline
from bench.rewards.engine import make_reward
from bench.rewards.kit.shared import Shared
from bench.spec.model import Spec
from bench.spec.prompts import load_prompts
from trainers.backbones import BACKBONES, Backbone, Condition, Moments
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData
from trainers.errors import UserError
from trainers.machine.batches import split_batch
from trainers.machine.processes import Processes


class Repeated(PairData):
    """As many pairs as a batch has, all of one image and one prompt."""

    def __init__(self, count: int, image: Moments, told: Condition) -> None:
        self.count, self.image, self.told = count, image, told

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """See the base class."""
        return tuple(self.image.mean.shape[1:])

    def __len__(self) -> int:
        """Number of pairs."""
        return self.count

    def images(self, rows: Tensor) -> tuple[Moments, Moments]:
        """See the base class."""
        one = Moments(*(value.repeat(len(rows), 1, 1, 1) for value in self.image))
        return one, one

    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        """See the base class."""
        repeats = {name: (len(rows), *[1] * (v.dim() - 1)) for name, v in self.told.items()}
        return {name: value.repeat(repeats[name]) for name, value in self.told.items()}

    def preference(self, rows: Tensor) -> Tensor:
        """See the base class."""
        return torch.ones(len(rows), dtype=torch.float64)


def measure(spec: Spec) -> list[Rate]:
    """The rates of a spec on this machine, but for rewards whose weights are not here.

    Raises:
        UserError: If the base model or the prompts are not here.
    """
    folder = model_folder(spec.base)
    with _one_thread():
        encoding, image, told = _encoding(spec, folder)
        training = _training(spec, folder, image, told)
        generation, prompts, images = _generation(spec, folder)
        return [encoding, *training, generation, *_scoring(spec, prompts, images)]


def _rate(part: Part, device: str, seconds: float, passes: int | None = None, **of: Any) -> Rate:
    source = f"measured on {device}, one thread"
    return Rate(
        part=part, of=of, device="this machine", seconds=seconds, passes=passes, source=source
    )


def _encoding(spec: Spec, folder: Path) -> tuple[Rate, Moments, Condition]:
    """What an image takes, and the encodings of one and of a prompt."""
    kind, device = BACKBONES.get(spec.backbone), spec.encoding.device
    model = kind.skeleton(spec.base, folder)
    side = next(iter(arm_configs(spec).values())).data.resolution or model.side * model.factor
    backbone = kind(folder, device)
    pixels = torch.zeros(spec.encoding.batch_size, 3, side, side)
    first = backbone.encode_images(pixels[:1])  # Reads the weights, too.
    seconds = _time(partial(backbone.encode_images, pixels), device)
    told = {name: value.cpu() for name, value in backbone.encode_prompts([""]).items()}
    if kind.micro_conditioned:
        told["micro"] = torch.tensor([[side, side, 0.0, 0.0, side, side]])
    image = Moments(*(value.cpu() for value in first))
    return _rate("encoding", device, seconds / len(pixels)), image, told


def _training(spec: Spec, folder: Path, image: Moments, told: Condition) -> list[Rate]:
    """What a pair takes of each arm; equal runs are one run."""
    device, processes = spec.training.device, spec.training.processes
    backbone = BACKBONES.get(spec.backbone)(folder, device)
    arms = arm_configs(spec)
    seconds = {
        run: pair_seconds(config, backbone, image, told, processes, device)
        for run, config in {config.run_id(): config for config in arms.values()}.items()
    }
    return [
        _rate("training", device, seconds[c.run_id()], _passes(c, processes), arm=arm)
        for arm, c in arms.items()
    ]


def _passes(config: TrainConfig, processes: int) -> int:
    return config.passes(split_batch(config.batch_size, config.accumulation, processes))


def pair_seconds(
    config: TrainConfig, backbone: Backbone, image: Moments, told: Condition,
    processes: int, device: str,
) -> float:  # fmt: skip
    """What a process takes for a pair of a run: of one part of its batch, as if it were all.

    Of all parts, where each must wait for means over the others.

    What the reference adds at the steps at which it measures is timed apart, and spread over all.
    """
    own, rule = split_batch(config.batch_size, config.accumulation, processes), config.reference
    parts = own.parts if config.looks_ahead(own) else 1
    rows = own.rows // own.parts * parts
    part = config.model_copy(update={"batch_size": rows, "accumulation": parts})
    trainer = Trainer(part, backbone, Repeated(rows, image, told), Processes(device=device))
    trainer.advance()  # What is only done once: compiling, the optimiser's state.
    trainer.step = rule.acts_every
    plain = _time(trainer.advance, device)
    if not (measured := rule.measured_images(rows)):
        return plain / rows
    trainer.step = 2 * rule.acts_every - 1
    more = max(0.0, _time(trainer.advance, device) - plain) / measured
    a_step = more * rule.measured_images(config.batch_size) / rule.acts_every
    return plain / rows + a_step / config.batch_size


def _generation(spec: Spec, folder: Path) -> tuple[Rate, list[str], list[Image.Image]]:
    """What an image takes, and a batch of them with their prompts."""
    made = spec.generate
    items = load_prompts(spec.prompts, spec.prompt_limit, spec.prompt_files).items
    prompts = [prompt for _, prompt in items[: made.batch_size]]
    pipeline = load_pipeline(folder, None, made.sampler, spec.backbone, made.dtype, made.device)
    keys = [(prompt, 0) for prompt in prompts]
    draw(pipeline, prompts[:1], keys[:1], made)  # What is only done once.
    images: list[Image.Image] = []
    seconds = _time(lambda: images.extend(draw(pipeline, prompts, keys, made)), made.device)
    return _rate("generation", made.device, seconds / len(images)), prompts, images


def _scoring(spec: Spec, prompts: list[str], images: list[Image.Image]) -> Iterator[Rate]:
    for name in spec.rewards:
        reward = make_reward(name, spec.scoring, Shared())
        try:
            reward.load()
        except UserError:  # Its weights are not here: the plan says that its time is not known.
            continue
        seconds = _time(partial(reward.score, images, prompts), spec.scoring.device)
        yield _rate("scoring", spec.scoring.device, seconds / len(images), reward=name)


def _time(work: Callable[[], object], device: str) -> float:
    """Seconds until all that ``work`` queued on a device is done."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
