"""A result folder of made-up scores and pictures, whose names and prompts mean harm."""

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from bench.results.files import IMAGES, write_results
from bench.results.pictures import PICTURES, SCHEMA
from bench.results.protocol import Protocol

HOSTILE = (
    "</script><script>document.title='taken'</script>",
    "<img src=https://example.org/a.png onerror=\"document.title='taken'\">",
    "'\"><svg onload=alert(1)> & &amp; {{ 7 * 7 }} {% raw %}",
    "\u202eright to left\u2028 line " + "long" * 60,
    "<!-- <script> -->",
)
"""Prompts. The first ones of the set."""
ARM = "DPO</td><script>alert(2)</script>"
PICTURED = 4
"""Prompts of which the folder has pictures."""


def colour(arm: int, seed: int, prompt: int) -> tuple[int, int, int]:
    """What the picture of an arm is filled with: every one differs."""
    return (60 * arm + 20, 80 * seed + 10, 50 * prompt + 5)


@pytest.fixture
def hostile() -> tuple[str, ...]:
    """The prompts that mean harm."""
    return HOSTILE


@pytest.fixture
def pictured(
    tmp_path: Path,
    make_protocol: Callable[..., Protocol],
    make_scores: Callable[..., pd.DataFrame],
) -> Callable[..., Path]:
    """Write such a folder: 3 arms, 20 prompts, 3 seeds, pictures of the first prompts."""

    def make(changes: Mapping[str, Any] | None = None, side: int = 8) -> Path:
        base, dpo, _ = make_protocol().arms
        family = (
            {"name": "DPO - base", "on": ("DPO",), "off": ("base",), "question": "does DPO help?"},
            {
                "name": f"{ARM} - DPO",
                "on": (ARM,),
                "off": ("DPO",),
                "question": f"does {ARM} help?",
            },
        )
        arms = (base, dpo, dpo.model_copy(update={"name": ARM}))
        protocol = make_protocol({"arms": arms, "comparisons": family, **(changes or {})})
        scores = make_scores(protocol, {"DPO": 0.25, ARM: 0.375}, noise=0.3)
        folder = tmp_path / "made-up"
        table = pa.Table.from_pandas(scores, preserve_index=False)
        images = pa.Table.from_pylist([*_images(protocol, folder, side)], schema=SCHEMA)
        write_results(folder, protocol, table, None, {IMAGES: images})
        return folder

    return make


def _images(protocol: Protocol, folder: Path, side: int) -> list[dict[str, Any]]:
    (folder / PICTURES).mkdir(parents=True)
    rows = []
    for a, arm in enumerate(protocol.arms):
        for s, seed in enumerate(arm.seeds):
            for p, name in enumerate(protocol.prompts.ids):
                row = {"arm": arm.name, "seed": seed, "prompt_id": name, "k": 0, "sha256": "0" * 64}
                row["prompt"] = HOSTILE[p] if p < len(HOSTILE) else f"prompt number {p}"
                if p < PICTURED:
                    row |= _picture(folder, colour(a, s, p), side)
                rows.append(row)
    return rows


def _picture(folder: Path, fill: tuple[int, int, int], side: int) -> dict[str, str]:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), fill).save(stream, "PNG")
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    place = f"{PICTURES}/{digest}.png"
    (folder / place).write_bytes(stream.getvalue())
    return {"picture": place, "picture_sha256": digest}
