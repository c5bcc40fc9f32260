"""From parquet shards to latents: damaged images, caches, resumption, and a run from each."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from trainers.backbones import Condition, Moments
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.cache import Lost, TensorCache, as_keys, is_whole
from trainers.data.encode import EncodedPairs, encode_pairs
from trainers.data.encoder import Encoder
from trainers.data.encodings import CachedEncodings, EncodingCache, LiveEncodings
from trainers.data.index import Index
from trainers.data.pairs import Pairs
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.data.sources import Rows, make_source
from trainers.errors import UserError
from trainers.machine.precision import Precision
from trainers.record import METRICS

Configure = Callable[..., TrainConfig]
GOOD = [0, 1, 3, 5, 6, 7, 9, 10, 11]
"""Rows of the shards below that are pairs to learn from, ties left out."""
TIES = [8]


def encoded(size: tuple[int, int], seed: int, kind: str, mode: str, orientation: int = 1) -> bytes:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(256, size=(4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif.tobytes())
    return stream.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files with row groups of 3: 12 rows, of all sizes and modes, three of them damaged.

    Row 2 has a truncated JPEG, row 4 no image at all; row 8 is a tie. Rows 0 and 9 share an image,
    as do many of Pick-a-Pic.
    """
    modes = ["RGB", "L", "CMYK"]
    sizes = [(40, 48), (33, 70), (64, 32), (32, 32), (50, 50)]
    images = [
        encoded(sizes[i % 5], i, "JPEG", modes[i % 3], orientation=6 if i % 7 == 0 else 1)
        for i in range(24)
    ]
    images[5] = images[5][: len(images[5]) // 2]
    images[8] = b"<html>404</html>"
    images[18] = images[0]
    rows = [
        {
            "caption": f"word {'abc'[i % 3]}", "jpg_0": images[2 * i], "jpg_1": images[2 * i + 1],
            "label_0": 0.5 if i in TIES else float(i % 2), "label_1": 0.5 if i in TIES else
            float(1 - i % 2), "model_0": "m",
        }
        for i in range(12)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("shards")
    for number, part in enumerate((rows[:7], rows[7:])):
        path = folder / f"train-{number}.parquet"
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=3)
    return folder


SETTINGS = {"resolution": 32, "crop": "random", "flip": 0.5, "independent_flip": True}


class Job:
    """A source, its settings and the encoder, with a cache."""

    def __init__(self, shards: Path, backbone: StableDiffusion, folder: Path, **more: Any) -> None:
        self.settings = DataSettings(**(SETTINGS | more))
        self.rows: Rows = make_source(str(shards)).open()
        self.encoder = Encoder(backbone, self.settings, "weights")
        self.cache = EncodingCache(folder, self.encoder)

    def encode(self, cached: bool = True, **how: Any) -> EncodedPairs:
        cache = self.cache if cached else None
        return encode_pairs(self.rows, select(self.rows, self.settings), self.encoder, cache, **how)

    def cached(self) -> Pairs:
        index = self.encode().index
        return Pairs(index, self.settings, CachedEncodings(index, self.cache))

    def live(self) -> Pairs:
        index = self.encode(cached=False).index
        return Pairs(index, self.settings, LiveEncodings(index, self.rows, self.encoder))


class Counting(StableDiffusion):
    """Counts what is encoded."""

    images = prompts = 0

    def encode_images(self, pixels: Tensor) -> Moments:
        self.images += len(pixels)
        return super().encode_images(pixels)

    def encode_prompts(self, prompts: Any, precision: Precision = "float32") -> Condition:
        self.prompts += len(prompts)
        return super().encode_prompts(prompts, precision)


@pytest.fixture
def counting(model_folder: Path) -> Counting:
    return Counting(model_folder)


@pytest.mark.parametrize("cached", [True, False])
def test_damaged_pairs_are_dropped_and_told(
    shards: Path, counting: Counting, tmp_path: Path, cached: bool
) -> None:
    """The pair, not the image; the others keep their order. Without a cache nothing is encoded."""
    found = Job(shards, counting, tmp_path).encode(cached)
    assert found.index.rows.tolist() == GOOD
    assert [(d.row, d.place) for d in found.dropped] == [
        (2, "train-0.parquet row group 0 row 2"), (4, "train-0.parquet row group 1 row 1")
    ]  # fmt: skip
    assert "truncated" in found.dropped[0].reason
    assert "no image" in found.dropped[1].reason
    if not cached:
        assert (counting.images, counting.prompts, list(tmp_path.iterdir())) == (0, 0, [])


def test_nothing_left_is_an_error(
    tmp_path: Path, backbone: StableDiffusion, write_parquet: Callable[[Path, Any], Path]
) -> None:
    row = {"caption": "a", "jpg_0": b"no", "jpg_1": b"image", "label_0": 1.0}
    path = write_parquet(tmp_path / "p.parquet", [row, row])
    with pytest.raises(UserError, match=r"all 2 are damaged, the first at p\.parquet row group 0"):
        Job(path, backbone, tmp_path).encode()


def test_sizes_that_differ_need_a_resolution(
    shards: Path, backbone: StableDiffusion, tmp_path: Path
) -> None:
    job = Job(shards, backbone, tmp_path, resolution=None, crop="centre")
    with pytest.raises(UserError, match=r"row 0: expected an image of 40 x 48 .*set a resolution"):
        job.encode()


def test_moments_are_those_of_the_autoencoder(
    shards: Path, backbone: StableDiffusion, tmp_path: Path, model_folder: Path
) -> None:
    """One picture at a time through diffusers' own AutoencoderKL: f = 8, times scaling_factor.

    Pictures are resized and cropped by hand here; 255 is 1 and 0 is -1.
    """
    job = Job(shards, backbone, tmp_path, crop="centre", flip=0.0, independent_flip=False)
    data = job.cached()
    vae = AutoencoderKL.from_pretrained(model_folder / "vae")
    for i, row in enumerate(GOOD):
        images = job.rows.images(row)
        winner = 0 if job.rows.labels[row] == 1 else 1
        got = data.images(torch.tensor([i]))
        for moments, raw in zip(got, (images[winner], images[1 - winner]), strict=True):
            opened = Image.open(io.BytesIO(raw))
            image = opened.convert("RGB")
            if opened.getexif().get(0x0112) == 6:
                image = image.transpose(Image.Transpose.ROTATE_270)
            width, height = image.size
            scale = 32 / min(width, height)
            image = image.resize((int(width * scale), int(height * scale)), Image.BILINEAR)  # type: ignore[attr-defined]
            left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
            pixels = np.asarray(image.crop((left, top, left + 32, top + 32)), np.float32)
            scaled = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255 * 2 - 1
            with torch.no_grad():
                posterior = vae.encode(scaled).latent_dist
            assert moments.mean.shape == (1, 4, 4, 4)
            torch.testing.assert_close(moments.mean, 1.5 * posterior.mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(moments.std, 1.5 * posterior.std, rtol=1e-4, atol=1e-5)


def test_every_prompt_finds_its_text(
    shards: Path, backbone: StableDiffusion, tmp_path: Path
) -> None:
    """And, where it is dropped, that of the empty prompt."""
    data = Job(shards, backbone, tmp_path).cached()
    rows = torch.arange(len(GOOD))
    dropped = rows == 4
    condition = data.condition(rows, dropped)
    assert set(condition) == {"text"}
    prompts = ["" if i == 4 else f"word {'abc'[row % 3]}" for i, row in enumerate(GOOD)]
    torch.testing.assert_close(
        condition["text"], backbone.encode_prompts(prompts)["text"], rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(condition["text"][0], condition["text"][1], atol=1e-2)


def test_batches_threads_and_shards_do_not_matter(
    shards: Path, backbone: StableDiffusion, tmp_path: Path
) -> None:
    """Up to rounding; 5 divides neither the images nor the prompts."""
    one, other = Job(shards, backbone, tmp_path / "a"), Job(shards, backbone, tmp_path / "b")
    first = one.encode(batch=32, threads=1).index
    second = other.encode(batch=5, shard=5, threads=3).index
    assert np.array_equal(first.keys, second.keys)
    rows = torch.arange(len(GOOD))
    for a, b in zip(one.cached().images(rows), other.cached().images(rows), strict=True):
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.std, b.std, rtol=1e-4, atol=1e-5)
    assert len(list((other.cache.images.folder).glob("*.safetensors"))) == 4
    assert len(list((one.cache.images.folder).glob("*.safetensors"))) == 1


def test_an_image_is_encoded_once(shards: Path, counting: Counting, tmp_path: Path) -> None:
    """Where draws agree; what is there is not encoded again, whichever setting asks for it."""
    plain = {"crop": "centre", "flip": 0.0, "independent_flip": False}
    Job(shards, counting, tmp_path, **plain).encode()
    assert (counting.images, counting.prompts) == (2 * len(GOOD) - 1, 4)
    for more in ({}, {"swap_labels": True}, {"subset": 3}, {"micro": "hard-coded"}):
        Job(shards, counting, tmp_path, **plain, **more).encode()
    assert (counting.images, counting.prompts) == (2 * len(GOOD) - 1, 4)
    Job(shards, counting, tmp_path, **plain, ties="soft").encode()
    assert counting.images == 2 * len(GOOD) + 1
    Job(shards, counting, tmp_path, **plain, precision="float16").encode()
    assert counting.images == 4 * len(GOOD)


KILLED = """
import os, signal, sys
from pathlib import Path
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.data.cache import TensorCache
from trainers.data.encode import encode_pairs
from trainers.data.encoder import Encoder
from trainers.data.encodings import EncodingCache
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.data.sources import make_source
shards, model, folder, settings, stored = sys.argv[1:]
real, count = TensorCache.add, 0
def add(self, keys, tensors):
    global count
    if count == int(stored):
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    real(self, keys, tensors)
TensorCache.add = add
rows, settings = make_source(shards).open(), DataSettings.model_validate_json(settings)
encoder = Encoder(StableDiffusion(Path(model)), settings, "weights")
cache = EncodingCache(Path(folder), encoder)
encode_pairs(rows, select(rows, settings), encoder, cache, batch=4, shard=4)
"""


def test_killed_in_the_middle_it_goes_on_with_the_next_shard(
    shards: Path, counting: Counting, model_folder: Path, tmp_path: Path
) -> None:
    """SIGKILL after two files of four; the rest only is encoded; the outcome is the same."""
    job = Job(shards, counting, tmp_path / "killed")
    arguments = [str(shards), str(model_folder), str(tmp_path / "killed")]
    arguments += [job.settings.model_dump_json(), "2"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=600,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(list(job.cache.images.folder.glob("*.safetensors"))) == 2
    index = job.encode(batch=4, shard=4).index
    assert counting.images == 2 * len(GOOD) - 2 * 4
    assert job.cache.holds(index)
    whole = Job(shards, counting, tmp_path / "whole")
    rows = torch.arange(len(GOOD))
    for a, b in zip(job.cached().images(rows), whole.cached().images(rows), strict=True):
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_run_from_a_cache_is_the_run_without(
    configure: Configure,
    shards: Path,
    backbone: StableDiffusion,
    tmp_path: Path,
    precision: str,
) -> None:
    """Losses, gradients and weights, over two epochs with soft ties, crops and flips.

    The encodings themselves are equal but for rounding in another batch.
    """
    more: dict[str, Any] = {"ties": "soft", "precision": precision}
    config = configure(data=SETTINGS | more, steps=10, caption_dropout=0.3, optimizer={"lr": 1e-3})
    logs, weights = [], []
    for name in ("cached", "live"):
        job = Job(shards, backbone, tmp_path / "cache", **more)
        data = job.cached() if name == "cached" else job.live()
        trainer = Trainer(config, backbone, data)
        trainer.run(tmp_path / name)
        lines = (tmp_path / name / METRICS).read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
        weights.append(torch.cat([p.detach().flatten() for p in trainer.policy.parameters()]))
    tolerance = 1e-4 if precision == "float32" else 1e-2
    for a, b in zip(*logs, strict=True):
        for key in ("loss", "policy_winner", "reference_loser"):
            assert a[key] == pytest.approx(b[key], rel=tolerance), key
        assert a["timestep_deciles"] == b["timestep_deciles"]
    moved = (weights[0] - backbone_weights(backbone)).norm()
    assert (weights[0] - weights[1]).norm() < 10 * tolerance * moved


def backbone_weights(backbone: StableDiffusion) -> Tensor:
    return torch.cat([p.detach().flatten() for p in backbone.load_network().parameters()])


def test_precision_rounds(shards: Path, backbone: StableDiffusion, tmp_path: Path) -> None:
    """To what float16 can hold, stored in half the space, given back in float32."""
    rows = torch.arange(len(GOOD))
    full = Job(shards, backbone, tmp_path / "32")
    half = Job(shards, backbone, tmp_path / "16", precision="float16")
    a, b = full.cached().images(rows)[0], half.cached().images(rows)[0]
    assert b.mean.dtype == torch.float32
    assert torch.equal(b.mean, b.mean.half().float())
    torch.testing.assert_close(a.mean, b.mean, rtol=2e-3, atol=1e-5)
    assert not torch.equal(a.mean, b.mean)
    sizes = [sum(p.stat().st_size for p in j.cache.images.folder.iterdir()) for j in (full, half)]
    # 18 images of 2 x 64 numbers: 9216 bytes less in 16 bits.
    assert sizes[0] - sizes[1] == pytest.approx(18 * 128 * 2, abs=32)


def test_swapped_labels_exchange_winner_and_loser(
    shards: Path, backbone: StableDiffusion, tmp_path: Path
) -> None:
    rows = torch.arange(len(GOOD))
    plain, swapped = (
        Job(shards, backbone, tmp_path, swap_labels=swap).cached().images(rows)
        for swap in (False, True)
    )
    for a, b in zip(plain, reversed(swapped), strict=True):
        assert torch.equal(a.mean, b.mean)
    assert not torch.equal(plain[0].mean, plain[1].mean)


def test_preferences(shards: Path, backbone: StableDiffusion, tmp_path: Path) -> None:
    """1 for the winner, one half for a tie, whose first image counts as the winner."""
    data = Job(shards, backbone, tmp_path, ties="soft").cached()
    kept = sorted(GOOD + TIES)
    got = data.preference(torch.arange(len(kept)))
    assert got.dtype == torch.float64
    assert got.tolist() == [0.5 if row in TIES else 1.0 for row in kept]


class Told(StableDiffusion):
    """A backbone that is conditioned on sizes and crops."""

    micro_conditioned = True


def test_sizes_and_crops_for_backbones_that_want_them(
    shards: Path, model_folder: Path, tmp_path: Path
) -> None:
    """Those of the winner, as (height, width, top, left, height, width); or as if never cropped."""
    backbone = Told(model_folder)
    measured, fixed = (
        Pairs(index, job.settings, CachedEncodings(index, job.cache), backbone.micro_conditioned)
        for job in (
            Job(shards, backbone, tmp_path, crop="centre", micro=how)
            for how in ("measured", "hard-coded")
        )
        for index in [job.encode().index]
    )
    rows = torch.tensor([1, 0])
    micro = measured.condition(rows, torch.tensor([True, False]))["micro"]
    assert micro.dtype == torch.float32
    # Row 1: image 0 wins, 64 x 32 wide, turned in no way. Row 0: image 1 wins, 33 x 70.
    assert micro.tolist() == [[32, 64, 0, 16, 32, 32], [70, 33, 18, 0, 32, 32]]
    hard = fixed.condition(rows, torch.tensor([True, False]))["micro"]
    assert hard.tolist() == [[32, 32, 0, 0, 32, 32]] * 2


def test_an_index_round_trips(shards: Path, backbone: StableDiffusion, tmp_path: Path) -> None:
    index = Job(shards, backbone, tmp_path).encode(cached=False).index
    index.save(tmp_path / "a.parquet")
    back = Index.load(tmp_path / "a.parquet")
    back.save(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert back.prompts == index.prompts
    for name in ("rows", "labels", "keys", "micro"):
        np.testing.assert_array_equal(getattr(back, name), getattr(index, name))


def test_an_image_that_was_changed_is_refused_in_the_loop(
    shards: Path, backbone: StableDiffusion, tmp_path: Path
) -> None:
    """It would be another run than the one that the index stands for."""
    job = Job(shards, backbone, tmp_path)
    data = job.live()
    other = {**{name: getattr(data.index, name) for name in ("rows", "prompts", "labels", "micro")}}
    keys = data.index.keys.copy()
    keys[1] ^= 1
    changed = Index(keys=keys, **other)
    data = Pairs(changed, job.settings, LiveEncodings(changed, job.rows, job.encoder))
    data.images(torch.tensor([0]))
    with pytest.raises(UserError, match=r"row 1: image [01] was changed since the run began"):
        data.images(torch.tensor([1]))


def store(folder: Path, count: int, dtype: torch.dtype = torch.float32) -> list[bytes]:
    """Some tensors of a known content, in files of 4."""
    keys = [bytes([1, i]) + bytes(30) for i in range(count)]
    for first in range(0, count, 4):
        part = range(first, min(first + 4, count))
        values = torch.tensor(list(part)).to(dtype)
        TensorCache(folder).add(
            [keys[i] for i in part], {"x": values[:, None, None].expand(-1, 2, 3), "y": values}
        )
    return keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_cache_finds_rows_in_any_order(tmp_path: Path, dtype: torch.dtype) -> None:
    """Across files, repeated, with keys that end in zeros."""
    keys = store(tmp_path, 10, dtype)
    cache = TensorCache(tmp_path)
    wanted = [7, 0, 9, 7, 3, 4]
    found = cache.get(as_keys([keys[i] for i in wanted]))
    assert found["y"].tolist() == wanted
    assert found["x"].shape == (6, 2, 3)
    assert torch.equal(found["x"][:, 1, 2], found["y"])
    assert found["x"].dtype == torch.float32
    absent = as_keys([keys[0], bytes(32), b"\xff" * 32])
    assert cache.missing(absent).tolist() == [False, True, True]
    assert TensorCache(tmp_path / "empty").missing(absent).all()
    with pytest.raises(UserError, match="lacks 2 encodings"):
        cache.get(absent)


def test_damage_is_found_where_it_is(tmp_path: Path) -> None:
    """One bit of one row: the others are still good."""
    keys = store(tmp_path, 4)
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    place = data.rindex(np.float32(2.0).tobytes())
    data[place] ^= 1
    file.write_bytes(data)
    cache = TensorCache(tmp_path)
    assert cache.get(as_keys([keys[1]]))["y"].tolist() == [1.0]
    with pytest.raises(UserError, match=r"safetensors is damaged: run the same command again"):
        cache.get(as_keys([keys[2]]))
    assert list(tmp_path.iterdir()) == []


def test_no_bit_can_change_unnoticed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of header, keys, sums or rows: what is read is what was stored, or the file goes."""
    keys = as_keys(store(tmp_path, 4))
    (file,) = tmp_path.glob("*.safetensors")
    data, gone = file.read_bytes(), 0
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        whole = is_whole(file)
        try:
            found = TensorCache(tmp_path).get(keys)
        except Lost:
            assert not whole and not file.exists()
            gone += 1
            continue
        assert found["y"].tolist() == [0, 1, 2, 3]
        assert found["x"][:, 1, 2].tolist() == [0, 1, 2, 3]
    assert gone > 0.9 * len(data)
    assert capfd.readouterr().err.count("it is made again") == gone


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, Path.touch])
def test_what_is_no_file_of_a_cache_is_cleared_away(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    keys = as_keys(store(tmp_path, 4))
    make(tmp_path / "0.safetensors")
    assert not TensorCache(tmp_path).missing(keys).any()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", ["autoencoder", "text encoder"])
def test_encodings_that_are_not_finite_name_the_part(
    backbone: StableDiffusion,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    value: float,
) -> None:
    """Kept or made in the loop, rather than trained on until the loss is no number."""

    def images(pixels: Tensor) -> Moments:
        return Moments(torch.full((len(pixels), 4, 4, 4), value), torch.ones(len(pixels), 4, 4, 4))

    def prompts(texts: list[str], precision: Precision = "float32") -> Condition:
        return {"text": torch.full((len(texts), 16, 16), value)}

    name, fake = ("encode_images", images) if part == "autoencoder" else ("encode_prompts", prompts)
    monkeypatch.setattr(backbone, name, fake)
    rows = make_source(str(shards)).open()
    settings = DataSettings(resolution=32)
    encoder = Encoder(backbone, settings, "0" * 64)
    with pytest.raises(UserError, match=f"{part} of the base model gave NaN or infinities"):
        encode_pairs(
            rows, select(rows, settings), encoder, EncodingCache(tmp_path, encoder), batch=3
        )


def test_encodings_that_a_precision_cannot_hold_name_it(
    backbone: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Moments(torch.full((1, 4, 4, 4), 1e5), torch.ones(1, 4, 4, 4))
    monkeypatch.setattr(backbone, "encode_images", lambda pixels: moments)
    pixels = [np.zeros((32, 32, 3), np.uint8)]
    Encoder(backbone, DataSettings(), "").encode_images(pixels)
    with pytest.raises(UserError, match=r"data\.precision float16 cannot hold them"):
        Encoder(backbone, DataSettings(precision="float16"), "").encode_images(pixels)
