"""Preference pairs: images sampled from the base model, labelled by simulated annotators."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.images.draw import draw, load_pipeline
from bench.spec.model import Generate
from bench.world import oracle
from bench.world.annotators import label
from bench.world.scenes import parse, scenes
from trainers.files import write_atomically
from trainers.input.image import open_rgb
from trainers.seeds import numpy_generator

JPEG_QUALITY = 85
BATCH = 32


def make_pairs(
    folder: Path, work: Path, base: Path, seed: int, count: int, steps: int, guidance: float,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Write ``folder/pairs.parquet`` in the schema of Pick-a-Pic, from captions of the train split.

    Both images of a pair have the same caption and different noises; the annotator sees the JPEG
    that is stored. Finished batches are kept in ``work``.
    """
    pool = scenes("train")
    order = numpy_generator(seed, "pair captions").integers(len(pool), size=count)
    settings = Generate(sampler="ddim", steps=steps, guidance=guidance, seed=seed)
    pipeline = load_pipeline(base, None, settings.sampler)
    parts = []
    for start in range(0, count, BATCH):
        part = work / "pairs" / f"{start:06d}.parquet"
        if not part.exists():
            captions = [pool[i].caption for i in order[start : start + BATCH]]
            both = [(c, 2 * (start + n) + side) for n, c in enumerate(captions) for side in (0, 1)]
            keys = [(f"pairs: {caption}", index) for caption, index in both]
            images = draw(pipeline, [caption for caption, _ in both], keys, settings)
            table = _annotated(captions, [_jpeg(image) for image in images], seed, start)
            _write(table, part)
            say(f"pairs: {start + len(captions)}/{count}")
        parts.append(pq.read_table(part))
    _write(pa.concat_tables(parts), folder / "pairs.parquet")


def _write(table: pa.Table, path: Path) -> None:
    write = partial(pq.write_table, table, compression="zstd", compression_level=19)
    write_atomically(path, write)


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def _annotated(captions: list[str], images: list[bytes], seed: int, start: int) -> pa.Table:
    labels = []
    for n, caption in enumerate(captions):
        scores = [
            oracle.judge(np.asarray(open_rgb(data)), parse(caption))
            for data in images[2 * n : 2 * n + 2]
        ]
        rng = numpy_generator(seed, "annotator", start + n)
        labels.append(label(scores[0].score, scores[1].score, rng))
    return pa.table(
        {"caption": captions, "jpg_0": images[0::2], "jpg_1": images[1::2], "label_0": labels}
    )
