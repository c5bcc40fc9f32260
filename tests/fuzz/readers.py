"""Whatever reads what others wrote, with inputs to spoil: each is a way in from outside."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st
from mutations import Draw, damaged, spoiled
from PIL import Image

from bench.images.draw import load_pipeline
from bench.images.read import read_items
from bench.pairs.check import AS_IS, NO_DRAWS
from bench.report.folder import render, stale
from bench.results.files import read_manifest, read_scores, write_results
from bench.results.protocol import Protocol
from bench.spec.matrix import build_matrix
from bench.spec.model import load_spec
from bench.spec.prompts import load_prompts
from trainers.backbones import BACKBONES
from trainers.data.preprocess import geometry, preprocess
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.data.sources import BadPair, make_source
from trainers.errors import UserError
from trainers.input.image import image_size, open_rgb


@dataclass(frozen=True)
class Reader:
    """A way in."""

    name: str
    write: Callable[[Path, Draw], None]
    """Put an input into an empty folder."""
    read: Callable[[Path], object]
    """Read all of it: gives anything, or raises a UserError."""


def _picture(seed: int, kind: str = "PNG") -> bytes:
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


PICTURES = tuple(_picture(seed, kind) for seed, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF")))
PROMPTS = ("a red circle, on grey", "two \u00e9toiles", "a \u201cdog\u201d", "a\u2028b")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _lines(value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    # Characters beyond ASCII stand as they are, but for halves of pairs, which have no bytes.
    texts = (json.dumps(row, ensure_ascii=False) for row in rows)
    return "\n".join(texts).encode("utf-8", "replace")


def _csv(value: Any, separator: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    writer = csv.writer(stream, delimiter=separator)
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    return stream.getvalue().encode("utf-8", "replace")


def _plain(value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    texts = [str(row.get("prompt") if isinstance(row, dict) else row) for row in rows]
    return "\n".join(texts).encode("utf-8", "replace")


def _parquet(value: Any) -> bytes:
    """Columns of whatever types the values have; none where no table can hold them."""
    stream = io.BytesIO()
    try:
        rows = [row for row in value if isinstance(row, dict)]
        pq.write_table(pa.Table.from_pylist(rows), stream)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeError):
        return b""
    return stream.getvalue()


TABLES: dict[str, Callable[[Any], bytes]] = {
    ".jsonl": _lines, ".json": _json, ".csv": _csv, ".tsv": lambda rows: _csv(rows, "\t"),
    ".txt": _plain, ".parquet": _parquet,
}  # fmt: skip
SPEC: dict[str, Any] = {
    "extends": "mini",
    "name": "mine",
    "title": "Mine",
    "train": {
        "objective": {"name": "dpo", "beta": 300},
        "reference": {"name": "frozen"},
        "timesteps": {"law": {"name": "discounted"}, "scale": {"name": "constant"}},
        "optimizer": {"lr": 1e-4},
        "steps": 4,
        "batch_size": 4,
    },
    "objectives": {"DPO": {}, "DPO 100": {"objective.beta": 100}},
    "components": {"A": {"label": "a", "set": {"reference": {"name": "hard-copy", "tau": 2}}}},
    "controls": {"DPO lr": {"of": "DPO", "question": "why", "set": {"optimizer.lr": 1e-5}}},
    "seeds": [0, 1, 2],
    "generate": {"steps": 2, "guidance": 4.0},
    "prompt_limit": 6,
    "statistics": {"control_pairs": 2},
}


def _write_spec(folder: Path, draw: Draw) -> None:
    text = spoiled(SPEC, lambda raw: yaml.safe_dump(raw, sort_keys=False).encode(), draw)
    (folder / "spec.yaml").write_bytes(text)


def _read_spec(folder: Path) -> object:
    return build_matrix(load_spec(str(folder / "spec.yaml")), "0" * 64, "1" * 64)


def _write_prompts(folder: Path, draw: Draw) -> None:
    suffix = draw(st.sampled_from(list(TABLES)))
    rows = [{"id": f"p{n}", "prompt": prompt} for n, prompt in enumerate(PROMPTS)]
    (folder / f"prompts{suffix}").write_bytes(spoiled(rows, TABLES[suffix], draw))


def _read_prompts(folder: Path) -> object:
    return load_prompts(str(next(folder.iterdir())))


def _write_pairs(folder: Path, draw: Draw) -> None:
    kind = draw(st.sampled_from(("parquet", "parquet", "folder", "rankings", "ranked parquet")))
    for n, picture in enumerate(PICTURES):
        broken = draw(st.integers(0, 9)) == 0
        (folder / f"{n}.png").write_bytes(damaged(picture, draw) if broken else picture)
    if kind == "parquet":
        for shard in range(draw(st.integers(1, 2))):
            rows = [
                {"caption": prompt, "jpg_0": PICTURES[n], "jpg_1": PICTURES[n - 1],
                 "label_0": n % 2, "label_1": 1 - n % 2, "has_label": True}
                for n, prompt in enumerate(PROMPTS)
            ]  # fmt: skip
            (folder / f"{shard}.parquet").write_bytes(spoiled(rows, _parquet, draw))
    elif kind == "folder":
        lines = [
            {"prompt": prompt, "winner": f"{n}.png", "loser": f"{(n + 1) % 4}.png"}
            for n, prompt in enumerate(PROMPTS)
        ]
        (folder / "pairs.jsonl").write_bytes(spoiled(lines, _lines, draw))
    else:
        images: list[Any] = [f"{n}.png" for n in range(4)]
        ranked = [{"prompt": p, "image_path": images, "rank": [1, 2, 2, 4]} for p in PROMPTS]
        if kind == "rankings":
            (folder / "pairs.json").write_bytes(spoiled(ranked, _json, draw))
        else:
            rows = [{**row, "image_path": list(PICTURES)} for row in ranked]
            (folder / "ranked.parquet").write_bytes(spoiled(rows, _parquet, draw))


def _read_pairs(folder: Path) -> object:
    found = {path.suffix: path for path in folder.iterdir() if path.suffix != ".png"}
    if (folder / "ranked.parquet").exists():
        source = make_source({"name": "rankings", "path": str(folder / "ranked.parquet")})
    else:
        (path,) = found.values() if ".parquet" not in found else (folder,)
        source = make_source(str(path))
    rows = source.open()
    rows.sha256()
    for row in select(rows, DataSettings()).rows.tolist():
        try:
            for data in rows.images(row):
                preprocess(data, geometry(image_size(data), AS_IS, NO_DRAWS), AS_IS)
        except BadPair as error:
            assert "\n" not in f"{rows.place(row)}: {error}"
    return rows


def _write_images(folder: Path, draw: Draw) -> None:
    for n, picture in enumerate(PICTURES):
        broken = draw(st.integers(0, 3)) == 0
        (folder / f"{n}.png").write_bytes(damaged(picture, draw) if broken else picture)
    place = draw(st.sampled_from(("prompts", "metadata", "table")))
    if place == "table":
        rows = [{"image": PICTURES[n], "prompt": prompt} for n, prompt in enumerate(PROMPTS)]
        (folder / "images.parquet").write_bytes(spoiled(rows, _parquet, draw))
        return
    suffix = draw(st.sampled_from((".jsonl", ".csv", ".txt", ".tsv", ".json")))
    rows = [{"file": f"{n}.png", "prompt": prompt} for n, prompt in enumerate(PROMPTS)]
    name = f"{place}{suffix}"
    (folder / name).write_bytes(spoiled(rows, TABLES[suffix], draw))


def _read_images(folder: Path) -> object:
    tables = [path for path in folder.iterdir() if path.suffix == ".parquet"]
    prompts = [path for path in folder.iterdir() if path.stem == "prompts"]
    source = tables[0] if tables else folder
    for item in read_items(source, prompts[0] if prompts else None):
        try:
            item.open()
        except UserError as error:
            assert "\n" not in str(error)
    return None


def _write_image(folder: Path, draw: Draw) -> None:
    (folder / "a.png").write_bytes(damaged(draw(st.sampled_from(PICTURES)), draw))


def _read_image(folder: Path) -> object:
    return open_rgb((folder / "a.png").read_bytes())


@cache
def _results() -> dict[str, bytes]:
    """The files of a small result folder: committed evidence, cut to a few prompts."""
    evidence = Path(__file__).parents[2] / "results/first-world"
    scores, protocol = read_scores(evidence)
    raw = protocol.model_dump(mode="json")
    raw["prompts"]["ids"] = raw["prompts"]["ids"][:8]
    raw["rewards"] = raw["rewards"][:1]
    raw["primary"] = raw["rewards"][0]["name"]
    small = Protocol.model_validate(raw)
    kept = scores["prompt_id"].isin(small.prompts.ids) & (scores["reward"] == small.primary)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "small"
        table = pa.Table.from_pandas(scores[kept], preserve_index=False)
        write_results(folder, small, table, read_manifest(evidence))
        render(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write_results(folder: Path, draw: Draw) -> None:
    files = _results()
    spoilt = draw(st.sampled_from(sorted(files)))
    for name, data in files.items():
        given = data
        if name == spoilt and name.endswith(".json"):
            given = spoiled(json.loads(data), _json, draw)
        elif name == spoilt:
            given = damaged(data, draw)
        (folder / name).write_bytes(given)


def _read_results(folder: Path) -> object:
    read_manifest(folder)
    return stale(folder)


MODEL = Path(__file__).parents[2] / "bench/mini/weights/sd"


def _safetensors(value: Any, tensors: bytes) -> bytes:
    header = _json(value)
    return len(header).to_bytes(8, "little") + header + tensors


def _write_model(folder: Path, draw: Draw) -> None:
    """A model of which one file is spoiled, or more; of tensors mostly what is said of them."""
    files = sorted(path for path in MODEL.rglob("*") if path.is_file())
    spoilt = draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True))
    for path in files:
        target = folder / path.relative_to(MODEL)
        target.parent.mkdir(exist_ok=True)
        if path not in spoilt:
            target.symlink_to(path)
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            target.write_bytes(spoiled(json.loads(data), _json, draw))
        elif path.suffix == ".safetensors" and draw(st.integers(0, 3)):
            start = 8 + int.from_bytes(data[:8], "little")
            write = partial(_safetensors, tensors=data[start:])
            target.write_bytes(spoiled(json.loads(data[8:start]), write, draw))
        else:
            target.write_bytes(damaged(data, draw))


def _read_model(folder: Path) -> object:
    backbone = BACKBONES.get("stable-diffusion")(folder)
    backbone.sha256()
    backbone.check("float32")
    return load_pipeline(folder, None, "ddim", "stable-diffusion")


READERS = (
    Reader("specs", _write_spec, _read_spec),
    Reader("prompt files", _write_prompts, _read_prompts),
    Reader("pair files", _write_pairs, _read_pairs),
    Reader("score sources", _write_images, _read_images),
    Reader("images", _write_image, _read_image),
    Reader("result folders", _write_results, _read_results),
    Reader("model folders", _write_model, _read_model),
)
