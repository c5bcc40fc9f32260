"""What one GPU does: parity with the CPU, and rates at full size, for docs/performance.md.

    python tests/gpu/measure.py [--only parity stable-diffusion sdxl sampling rewards] [--pairs 8]

Needs torch, transformers, diffusers and this project. Parity is that of the shipped miniature;
rates are of Stable Diffusion 1.5, SDXL and the towers of the rewards with random weights, which
cost what trained ones do. It is meant to take under ten minutes on one GPU of 80 GB; it has not
been run on any. What does not fit says so, and what is not installed is left out. ``--device cpu
--narrow`` tries the script itself.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.assets import model_folder
from bench.estimate.measure import Repeated
from bench.images.draw import draw, load_pipeline
from bench.rewards.engine import make_reward
from bench.rewards.kit.shared import Shared
from bench.spec.model import Generate, Scoring
from trainers.backbones import BACKBONES, Moments
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.machine.processes import Processes

BASE: dict[str, Any] = {
    "base_sha256": "0", "data_sha256": "0", "objective": {"name": "dpo"},
    "reference": {"name": "frozen"}, "optimizer": {"lr": 1e-5}, "steps": 10**8, "seed": 0,
    "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
}  # fmt: skip
BF16 = {"precision": "bfloat16"}
LORA = {"weights": {"name": "lora", "rank": 8}}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, TF32": {"matmul": "tf32"},
    "bfloat16": BF16,
    "float16": {"precision": "float16"},
    "bfloat16, channels last": BF16 | {"channels_last": True},
    "bfloat16, compiled": BF16 | {"compile": True},
    "bfloat16, gradient checkpointing": BF16 | {"gradient_checkpointing": True},
    "bfloat16, AdamW of 8 bits": BF16 | {"optimizer": {"name": "adamw-8bit", "lr": 1e-5}},
    "bfloat16, LoRA of rank 8": BF16 | LORA,
    "bfloat16, LoRA, channels last, compiled": BF16 | LORA
    | {"channels_last": True, "compile": True},
}  # fmt: skip
PASSES = 3
"""Timed steps of each, after two that warm up; their median counts."""
TOLERANCES = {
    "loss, float32": 1e-4, "gradient norm, float32": 1e-3, "loss, bfloat16": 2e-2,
    "loss, float16": 5e-3, "pixels of 255": 4.0, "score, relative": 1e-3, "resume": 0.0,
}  # fmt: skip
"""Largest difference between CPU and GPU that is in order; relative, but for pixels and resume."""
TOWERS: dict[str, tuple[str, dict[str, int]]] = {
    "pickscore, hpsv2 (ViT-H/14)": ("CLIPVision", {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
        "num_attention_heads": 16, "patch_size": 14}),
    "clip, aesthetic (ViT-L/14)": ("CLIPVision", {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "patch_size": 14}),
    "imagereward (ViT-L/16 of BLIP)": ("BlipVision", {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "patch_size": 16}),
}  # fmt: skip
Row = tuple[str, str, str, str]


class Machine:
    """The device, and how its time is taken."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.cuda = device.startswith("cuda")
        self.peak = self._peak()

    def seconds(self, work: Callable[[], object]) -> float:
        """Until all is done that was queued."""
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - began

    def median(self, work: Callable[[], object]) -> float:
        """Median of some passes, after two that warm up."""
        for _ in range(2):
            work()
        return statistics.median(self.seconds(work) for _ in range(PASSES))

    def memory(self) -> str:
        """Largest that was held since the last call."""
        if not self.cuda:
            return "-"
        held = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return f"{held:.1f} GiB"

    def share(self, flops: float, seconds: float) -> str:
        """Of the largest rate of bfloat16 products that was seen here."""
        return f"{flops / seconds / self.peak:.0%}"

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def _peak(self) -> float:
        n = 8192 if self.cuda else 512
        a, b = torch.randn((2, n, n), device=self.device, dtype=torch.bfloat16)
        times = [self.seconds(lambda: a @ b) for _ in range(10)]
        return 2 * n**3 / min(times)


def fits(work: Callable[[], Row]) -> Row | str:
    """What some work gives, or why it does not go here."""
    try:
        return work()
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:  # What is not installed, or not for this device.
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def filled(network: nn.Module, device: str) -> nn.Module:
    """A network without weights, with random ones in place, about as large as trained ones."""
    network = network.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            spread = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.02
            weight.uniform_(-spread, spread, generator=generator)
    return network


def random_backbone(name: str, base: str, device: str, narrow: bool) -> Any:
    """A backbone of an architecture, whose weights mean nothing."""
    kind: Any = BACKBONES.get(name)
    skeleton = kind.skeleton(base, None)
    network = skeleton.network
    if narrow:
        thin = {"block_out_channels": tuple(w // 10 for w in network.config.block_out_channels)}
        network = type(network).from_config({**network.config, **thin, "norm_num_groups": 4})

    class Random(kind):  # type: ignore[misc]
        def __init__(self) -> None:
            self.device = device
            self.scheduler = DDPMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
            )
            kept = self.scheduler.alphas_cumprod.double()
            self.snr = kept / (1 - kept)

        def load_network(self) -> nn.Module:
            with torch.device("meta"):
                empty = type(network).from_config(network.config)
            return filled(empty, device)

    return Random(), skeleton


def one_pair(skeleton: Any, count: int, side: int) -> Repeated:
    """Pairs of made-up latents, encoded alike."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, skeleton.channels, side, side), generator=generator)
    inputs = skeleton.inputs(side)
    told = {"text": torch.zeros(1, *inputs["encoder_hidden_states"].shape[1:])}
    if "added_cond_kwargs" in inputs:
        told["pooled"] = torch.zeros(1, inputs["added_cond_kwargs"]["text_embeds"].shape[1])
        told["micro"] = torch.tensor([[8.0 * side, 8.0 * side, 0, 0, 8.0 * side, 8.0 * side]])
    return Repeated(count, Moments(image, torch.zeros_like(image)), told)


def public_step(backbone: Any, data: Repeated, pairs: int, device: str) -> Callable[[], None]:
    """The public scripts' step, expressed anew, but for their encoders: four forwards, float32
    weights, fp16 autocast, AdamW."""
    reference = backbone.load_network().requires_grad_(False)
    unet = backbone.load_network().requires_grad_(True).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)
    scaler = torch.amp.GradScaler(device, enabled=device.startswith("cuda"))
    rows = torch.arange(pairs)
    latents = data.images(rows)[0].mean.to(device).repeat(2, 1, 1, 1)
    told = {k: v.to(device) for k, v in data.condition(rows, rows < 0).items()}

    def errors(network: nn.Module, noisy: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        guesses = [backbone.predict(network, x, u, told) for x, u in zip(
            noisy.chunk(2), t.chunk(2), strict=True)]  # fmt: skip
        return F.mse_loss(torch.cat(guesses).float(), noise, reduction="none").mean((1, 2, 3))

    def step() -> None:
        noise = torch.randn_like(latents[:pairs]).repeat(2, 1, 1, 1)
        t = torch.randint(1000, (pairs,), device=device).repeat(2)
        noisy = backbone.scheduler.add_noise(latents, noise, t)
        with torch.autocast(torch.device(device).type, torch.float16):
            new_w, new_l = errors(unet, noisy, t, noise).chunk(2)
            with torch.no_grad():
                old_w, old_l = errors(reference, noisy, t, noise).chunk(2)
        logit = -2500.0 * ((new_w - new_l) - (old_w - old_l))
        scaler.scale((-F.logsigmoid(logit)).mean()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def training(machine: Machine, name: str, base: str, given: argparse.Namespace) -> Iterator[Row]:
    """Pairs per second of a step, by what saves time or memory."""
    backbone, skeleton = random_backbone(name, base, machine.device, given.narrow)
    side = 8 if given.narrow else skeleton.side
    pairs = given.pairs
    data = one_pair(skeleton, pairs, side)
    network = backbone.load_network()
    inputs = {k: v.to(machine.device) if isinstance(v, Tensor) else v
              for k, v in skeleton.inputs(side).items()}  # fmt: skip
    if "added_cond_kwargs" in inputs:
        told = inputs["added_cond_kwargs"]
        inputs["added_cond_kwargs"] = {k: v.to(machine.device) for k, v in told.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(**inputs)
    passes = 8 * counter.get_total_flops() * pairs  # Two forwards, and two with a backward of two.
    del network

    def row(label: str, step: Callable[[], object]) -> Row:
        machine.memory()
        seconds = machine.median(step)
        share = machine.share(passes, seconds)
        return (f"{base}: {label}", f"{pairs / seconds:.2f} pairs/s", share, machine.memory())

    def ours(changes: dict[str, Any]) -> Callable[[], object]:
        values = BASE | {"backbone": name, "batch_size": pairs} | changes
        config = TrainConfig.model_validate(values)
        return Trainer(config, backbone, data, Processes(device=machine.device)).advance

    def public() -> Row:
        return row(
            "public step, expressed anew", public_step(backbone, data, pairs, machine.device)
        )

    yield told_row(f"{base}: public step, expressed anew", fits(public))
    for label, changes in VARIANTS.items():
        yield told_row(f"{base}: {label}", fits(lambda changes=changes, label=label: row(
            label, ours(changes))))  # fmt: skip


def told_row(label: str, found: Row | str) -> Row:
    """A row, also of what does not go here."""
    return (label, found, "", "") if isinstance(found, str) else found


def sampling(machine: Machine, base: str, name: str, given: argparse.Namespace) -> Iterator[Row]:
    """Images per second: 50 steps with guidance, without the decoder."""
    backbone, skeleton = random_backbone(name, base, machine.device, given.narrow)
    side, count = (8 if given.narrow else skeleton.side), 4
    steps = 2 if given.narrow else 50
    data = one_pair(skeleton, 2 * count, side)
    rows = torch.arange(2 * count)
    told = {k: v.to(machine.device).bfloat16() for k, v in data.condition(rows, rows < 0).items()}
    network = backbone.load_network().bfloat16().eval()
    scheduler = DDIMScheduler.from_config(backbone.scheduler.config)
    scheduler.set_timesteps(steps)
    shape = (count, skeleton.channels, side, side)
    start = torch.randn(shape, device=machine.device, dtype=torch.bfloat16)

    @torch.no_grad()
    def images() -> None:
        x = start
        for t in scheduler.timesteps:
            both = torch.cat([x, x])
            guess = backbone.predict(network, both, t.to(machine.device).expand(len(both)), told)
            plain, prompted = guess.chunk(2)
            x = scheduler.step(plain + 7.5 * (prompted - plain), t, x).prev_sample

    def row() -> Row:
        with FlopCounterMode(display=False) as counter:
            images()
        seconds = machine.median(images)
        share = machine.share(counter.get_total_flops(), seconds)
        rate = f"{count / seconds:.2f} images/s"
        return (f"{base}: {steps} steps of DDIM, bfloat16", rate, share, machine.memory())

    yield told_row(f"{base}: sampling", fits(row))


def rewards(machine: Machine, given: argparse.Namespace) -> Iterator[Row]:
    """Images per second of each reward's image tower, bfloat16, batch 64."""
    import transformers

    count = 2 if given.narrow else 64

    def row(label: str, kind: str, sizes: dict[str, int]) -> Row:
        config = getattr(transformers, f"{kind}Config")(image_size=224, **sizes)
        if given.narrow:
            config.num_hidden_layers = 2
        with torch.device("meta"):
            empty = getattr(transformers, f"{kind}Model")(config)
        model = filled(empty, machine.device).bfloat16().eval()
        for buffer in model.buffers():  # Positions, which are not trained.
            buffer.copy_(torch.arange(buffer.numel(), device=machine.device).view_as(buffer))
        pixels = torch.zeros(count, 3, 224, 224, device=machine.device, dtype=torch.bfloat16)
        with torch.no_grad():
            with FlopCounterMode(display=False) as counter:
                model(pixel_values=pixels)
            seconds = machine.median(lambda: model(pixel_values=pixels))
        share = machine.share(counter.get_total_flops(), seconds)
        return (label, f"{count / seconds:.1f} images/s", share, machine.memory())

    for label, (kind, sizes) in TOWERS.items():
        found = fits(lambda label=label, kind=kind, sizes=sizes: row(label, kind, sizes))
        yield told_row(label, found)


def differences(device: str) -> dict[str, float]:
    """How far a GPU is from the CPU on the shipped miniature: what ``TOLERANCES`` bounds."""
    kind, folder = BACKBONES.get("stable-diffusion"), model_folder("mini-sd")
    pixels = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    here = kind(folder)
    image, told = here.encode_images(pixels), here.encode_prompts(["a red circle"])

    def trainer(where: str, **changes: Any) -> Trainer:
        values = BASE | {"backbone": "stable-diffusion", "batch_size": 4, "steps": 4} | changes
        config = TrainConfig.model_validate(values)
        data = Repeated(4, image, {name: value.cpu() for name, value in told.items()})
        return Trainer(config, kind(folder, where), data, Processes(device=where))

    found: dict[str, float] = {}
    for precision in ("float32", "bfloat16", "float16"):
        one, two = (trainer(where, precision=precision).advance() for where in ("cpu", device))
        found[f"loss, {precision}"] = abs(two.loss / one.loss - 1)
        if precision == "float32" and one.grad_norm and two.grad_norm:
            found["gradient norm, float32"] = abs(two.grad_norm / one.grad_norm - 1)
    found["resume"] = _resumed(trainer, device)
    prompts = ["a red circle", "a blue square"]
    keys = [(prompt, 0) for prompt in prompts]
    made = Generate(steps=12, guidance=3.0)
    pictures = []
    for where in ("cpu", device):
        pipeline = load_pipeline(folder, None, "ddim", "stable-diffusion", "float32", where)
        pictures.append(draw(pipeline, prompts, keys, made.model_copy(update={"device": where})))
    tensors = [torch.stack([_levels(p) for p in drawn]) for drawn in pictures]
    found["pixels of 255"] = float((tensors[0] - tensors[1]).abs().max())
    scores = []
    for where in ("cpu", device):
        reward = make_reward("mini-clip", Scoring(device=where), Shared())
        reward.load()
        scores.append(torch.as_tensor(reward.score(pictures[0], prompts)).double())
    found["score, relative"] = float(((scores[1] - scores[0]) / scores[0]).abs().max())
    return found


def _levels(picture: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.asarray(picture).astype("float32"))


def _resumed(trainer: Callable[..., Trainer], device: str) -> float:
    """Largest difference of a weight between a run, and one that was broken off and taken up."""
    from safetensors.torch import load_file

    networks = []
    for broken in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            if broken:
                _break_off(trainer(device), Path(folder))
            trainer(device).run(Path(folder), checkpoint_every=2)
            networks.append(load_file(next(Path(folder).rglob("*.safetensors"))))
    one, two = networks
    return max(float((one[name] - two[name]).abs().max()) for name in one)


class _Broken(Exception):
    pass


def _break_off(trainer: Trainer, folder: Path) -> None:
    def stop(step: int, metrics: object) -> None:
        if step == 3:
            raise _Broken

    try:
        trainer.run(folder, stop, checkpoint_every=2)
    except _Broken:
        return
    raise AssertionError("it was to be broken off")


def parity(machine: Machine) -> Iterator[Row]:
    """CPU against this device."""
    for name, value in differences(machine.device).items():
        bound = TOLERANCES[name]
        verdict = "in order" if value <= bound else "TOO FAR"
        yield (f"parity: {name}", f"{value:.2e}", f"at most {bound:g}", verdict)


def rows(machine: Machine, given: argparse.Namespace) -> Iterator[Row]:
    """All that was asked for."""
    models = {"stable-diffusion": "stable-diffusion-v1-5", "sdxl": "stable-diffusion-xl-base-1.0"}
    kinds = {"stable-diffusion": "stable-diffusion", "sdxl": "stable-diffusion-xl"}
    if "parity" in given.only:
        yield from parity(machine)
    for key, base in models.items():
        if key in given.only:
            yield from training(machine, kinds[key], base, given)
    if "sampling" in given.only:
        for key, base in models.items():
            yield from sampling(machine, base, kinds[key], given)
    if "rewards" in given.only:
        yield from rewards(machine, given)


def main() -> None:
    """Measure, and print a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = ["parity", "stable-diffusion", "sdxl", "sampling", "rewards"]
    parser.add_argument("--only", nargs="*", default=everything, choices=everything)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, default=8, help="of a step")
    parser.add_argument("--narrow", action="store_true", help="small networks: try the script")
    given = parser.parse_args()
    machine = Machine(given.device)
    name = torch.cuda.get_device_name() if machine.cuda else "CPU"
    print(f"{name}, torch {torch.__version__}; {machine.peak / 1e12:.0f} TFLOP/s of bfloat16\n")
    print("| what | rate | share of that peak | memory |\n|---|---|---|---|")
    for row in rows(machine, given):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
