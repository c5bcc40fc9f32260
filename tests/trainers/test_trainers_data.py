"""Preference pairs from Pick-a-Pic parquet, and their encoding."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.data.latents import PairLatents, encode_pairs
from trainers.data.pairs import read_pairs
from trainers.errors import UserError
from trainers.files import sha256_file

Row = dict[str, Any]
Write = Callable[[Path, list[Row]], Path]


def row(caption: str, label: float | None) -> Row:
    """A row whose images are named rather than drawn."""
    return {"caption": caption, "jpg_0": b"zero", "jpg_1": b"one", "label_0": label}


def test_labels(tmp_path: Path, write_parquet: Write) -> None:
    """1: image 0 wins; 0: image 1 wins, so the two change places; 0.5: a tie, dropped and counted.

    The other pairs stay in the order of the file.
    """
    rows = [row("a", 1.0), row("b", 0.5), row("c", 0.0), row("d", 1.0), row("e", 0.5)]
    pairs = read_pairs(write_parquet(tmp_path / "p.parquet", rows))
    assert [(p.prompt, p.winner, p.loser) for p in pairs.pairs] == [
        ("a", b"zero", b"one"), ("c", b"one", b"zero"), ("d", b"zero", b"one")
    ]  # fmt: skip
    assert pairs.ties == 2


def test_integer_labels(tmp_path: Path, write_parquet: Write) -> None:
    """A set without ties may store 0 and 1 as integers."""
    pairs = read_pairs(write_parquet(tmp_path / "p.parquet", [row("a", 1), row("b", 0)]))
    assert [p.winner for p in pairs.pairs] == [b"zero", b"one"]


def test_other_columns_do_not_matter(tmp_path: Path, write_parquet: Write) -> None:
    """Pick-a-Pic has many more; but the file's hash, which names the data, covers them."""
    plain = write_parquet(tmp_path / "p.parquet", [row("a", 1.0)])
    wide = write_parquet(tmp_path / "q.parquet", [{"uid": 3, **row("a", 1.0), "model_0": "x"}])
    one, other = read_pairs(plain), read_pairs(wide)
    assert one.pairs == other.pairs
    assert one.sha256 == sha256_file(plain) != other.sha256


@pytest.mark.parametrize("label", [0.3, -1.0, 2.0, float("nan"), None])
def test_an_illegal_label_is_refused(
    tmp_path: Path, write_parquet: Write, label: float | None
) -> None:
    """With its row and what stood there: a guess would teach the wrong preference."""
    path = write_parquet(tmp_path / "p.parquet", [row("a", 1.0), row("b", label)])
    with pytest.raises(UserError, match=rf"row 1: label_0 must be 0, 0.5 or 1, got {label}"):
        read_pairs(path)


@pytest.mark.parametrize("column", ["caption", "jpg_0", "jpg_1", "label_0"])
def test_a_missing_column_is_named(tmp_path: Path, write_parquet: Write, column: str) -> None:
    """Expected, got, and what to add."""
    rows = [{k: v for k, v in row("a", 1.0).items() if k != column}]
    with pytest.raises(UserError, match=rf"expected the columns .*: add {column}$"):
        read_pairs(write_parquet(tmp_path / "p.parquet", rows))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Not a stack trace from the parquet reader."""
    with pytest.raises(UserError, match=r"no preference pairs at .*nowhere\.parquet"):
        read_pairs(tmp_path / "nowhere.parquet")


def test_ties_alone_are_refused(tmp_path: Path, write_parquet: Write) -> None:
    """There is nothing to learn from them."""
    path = write_parquet(tmp_path / "p.parquet", [row("a", 0.5), row("b", 0.5)])
    with pytest.raises(UserError, match="all 2 rows are ties"):
        read_pairs(path)


def test_the_fixture_as_a_whole(parquet: Path, rows: list[Row]) -> None:
    """28 rows, 4 of them ties; where label_0 is 0, jpg_1 is the winner."""
    pairs = read_pairs(parquet)
    assert (len(pairs.pairs), pairs.ties) == (24, 4)
    decided = [r for r in rows if r["label_0"] != 0.5]
    for pair, r in zip(pairs.pairs, decided, strict=True):
        first, second = ("jpg_0", "jpg_1") if r["label_0"] else ("jpg_1", "jpg_0")
        assert (pair.winner, pair.loser) == (r[first], r[second])


def test_moments_are_those_of_the_autoencoder(
    model_folder: Path, parquet: Path, latents: PairLatents
) -> None:
    """One picture at a time through diffusers' own AutoencoderKL: f = 8, times scaling_factor.

    JPEG, PNG and grey pictures alike, as RGB in [-1, 1]: 255 is 1 and 0 is -1.
    """
    vae = AutoencoderKL.from_pretrained(model_folder / "vae")
    pairs = read_pairs(parquet).pairs
    for i in (0, 1, 5, 23):
        for data, got in ((pairs[i].winner, latents.winner), (pairs[i].loser, latents.loser)):
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
            scaled = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255 * 2 - 1
            with torch.no_grad():
                posterior = vae.encode(scaled).latent_dist
            assert got.mean[i].shape == (4, 4, 4)
            torch.testing.assert_close(got.mean[i], 1.5 * posterior.mean[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(got.std[i], 1.5 * posterior.std[0], rtol=1e-4, atol=1e-5)


def test_every_prompt_finds_its_text(
    parquet: Path, latents: PairLatents, backbone: StableDiffusion
) -> None:
    """One row per distinct prompt (five), and one more, the last, for the empty prompt."""
    prompts = [pair.prompt for pair in read_pairs(parquet).pairs]
    assert len(latents.told["text"]) == len(set(prompts)) + 1 == 6
    assert len(latents) == len(prompts)
    for i, prompt in enumerate(prompts):
        own = latents.told["text"][latents.prompt[i]]
        torch.testing.assert_close(
            own, backbone.encode_prompts([prompt])["text"][0], rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(
        latents.told["text"][-1], backbone.encode_prompts([""])["text"][0], rtol=1e-4, atol=1e-5
    )
    assert latents.prompt.max().item() < 5
    assert (
        torch.cdist(latents.told["text"].flatten(1), latents.told["text"].flatten(1))
        .fill_diagonal_(9)
        .min()
        > 1
    )


def test_an_empty_caption_is_a_prompt_too(
    tmp_path: Path, write_parquet: Write, rows: list[Row], backbone: StableDiffusion
) -> None:
    """Pick-a-Pic has some; the last row still is the empty prompt's."""
    blank = [rows[0] | {"caption": ""}, rows[1]]
    encoded = encode_pairs(read_pairs(write_parquet(tmp_path / "p.parquet", blank)), backbone)
    assert torch.allclose(
        encoded.told["text"][encoded.prompt[0]], encoded.told["text"][-1], atol=1e-6
    )
    assert not torch.allclose(
        encoded.told["text"][encoded.prompt[1]], encoded.told["text"][-1], atol=1e-2
    )


def test_the_encoding_does_not_depend_on_its_batches(
    parquet: Path, backbone: StableDiffusion, latents: PairLatents
) -> None:
    """Up to rounding; 5 divides neither the 24 images nor the 6 prompts."""
    small = encode_pairs(read_pairs(parquet), backbone, batch=5)
    for a, b in zip((*small.winner, *small.loser), (*latents.winner, *latents.loser), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small.told["text"], latents.told["text"], rtol=1e-4, atol=1e-5)
    assert torch.equal(small.prompt, latents.prompt)


def test_latents_round_trip(tmp_path: Path, latents: PairLatents) -> None:
    """Every tensor to the bit."""
    latents.save(tmp_path / "latents.safetensors")
    back = PairLatents.load(tmp_path / "latents.safetensors")
    mine = (*latents.winner, *latents.loser, latents.told["text"], latents.prompt)
    theirs = (*back.winner, *back.loser, back.told["text"], back.prompt)
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
