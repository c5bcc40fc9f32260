"""Streamed pairs: the same rows as from files on the disk, read by ranges, through faults."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from trainers.backbones import Moments
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.data.encode import EncodedPairs, encode_pairs
from trainers.data.encoder import Encoder
from trainers.data.encodings import EncodingCache
from trainers.data.index import Index
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.data.sources import Rows, Source, make_source
from trainers.data.sources.hub import WAITS
from trainers.errors import UserError
from trainers.files import tree_hashes

ROWS = 24
FILES = ("data/train-0.parquet", "data/train-1.parquet", "data-more/train-2.parquet")
FIRST, *_, SMALL = FILES
Hub = Any
"""The server of conftest.py."""


def streamed(path: str = "owner/pairs@main", **more: Any) -> Source:
    return make_source({"name": "parquet", "path": path, "streaming": True, **more})


@pytest.mark.parametrize(
    ("files", "count"),
    [("**/*.parquet", 24), ("data/*.parquet", 16), ("*/train-[12].parquet", 14), (FIRST, 10)],
)
def test_streamed_rows_are_those_of_the_files(
    hub: Hub, shards: Path, files: str, count: int
) -> None:
    """Prompts, labels, images, order, names of places and identity, by every kind of pattern."""
    here = make_source({"name": "parquet", "path": str(shards), "files": files}).open()
    there = streamed(files=files).open()
    assert len(there) == len(here) == count
    assert there.prompts.to_pylist() == here.prompts.to_pylist()
    np.testing.assert_array_equal(there.labels, here.labels)  # One is NaN: nobody judged.
    for row in (*range(count), 0, count // 2):
        assert there.images(row) == here.images(row)
        assert there.place(row) == here.place(row)
    assert there.sha256() == here.sha256()


def image_columns(group: Any) -> tuple[int, int]:
    """First byte of ``jpg_0`` and the one after the last of ``jpg_1``, which is beside it."""
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    first, last = columns["jpg_0"], columns["jpg_1"]
    start = last.dictionary_page_offset or last.data_page_offset
    return (
        first.dictionary_page_offset or first.data_page_offset,
        start + last.total_compressed_size,
    )


def test_only_what_is_needed_is_fetched(hub: Hub, shards: Path) -> None:
    """Opening fetches footers and small columns; then each row group once, as one range."""
    rows = streamed().open()
    opened, asked = len(hub.ranges), len(hub.asked)
    size = {name: (shards / name).stat().st_size for name in FILES}
    fetched = sum(end - begin for name, begin, end in hub.ranges if name == FIRST)
    # 64 kB for a footer whose size is not known yet; with the columns most of a file is left.
    assert 2**16 < fetched < 2**16 + 2**13 < size[FIRST] / 2
    for row in range(ROWS):
        rows.images(row)
    assert hub.ranges[opened:] == [
        (name, *image_columns(pq.read_metadata(shards / name).row_group(group)))
        for name, groups in zip(FILES, (3, 2, 2), strict=True)
        for group in range(groups)
    ]
    # Nothing but bytes is asked for, and each request is for a part of a file.
    assert all("/resolve/" in p or p.startswith("/bytes/") for p in hub.asked[asked:])
    assert all(end - begin < size[name] for name, begin, end in hub.ranges)


def test_the_revision_is_pinned_when_a_source_is_opened(hub: Hub) -> None:
    """The branch is looked up once; all that follows names its commit."""
    rows = streamed().open()
    rows.images(0)
    assert hub.asked[0] == "/api/datasets/owner/pairs/revision/main"
    assert not any("main" in path for path in hub.asked[1:])


def test_the_hash_of_a_large_file_is_not_computed(hub: Hub, shards: Path) -> None:
    """The Hub tells it; only the file that it keeps outside LFS is read, once."""
    rows = streamed().open()
    before = len(hub.ranges)
    rows.sha256()
    assert hub.ranges[before:] == [(SMALL, 0, (shards / SMALL).stat().st_size)]


class Counting(StableDiffusion):
    """Counts the images that are encoded."""

    images = 0

    def encode_images(self, pixels: torch.Tensor) -> Moments:
        self.images += len(pixels)
        return super().encode_images(pixels)


def encode(rows: Rows, backbone: StableDiffusion, folder: Path) -> EncodedPairs:
    settings = DataSettings(resolution=32, crop="random", flip=0.5)
    encoder = Encoder(backbone, settings, "weights")
    cache = EncodingCache(folder, encoder)
    return encode_pairs(rows, select(rows, settings), encoder, cache, batch=4, shard=8)


def assert_same_index(one: Index, other: Index) -> None:
    for field in fields(Index):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_encodings_from_the_stream_are_those_from_files(
    hub: Hub, shards: Path, model_folder: Path, tmp_path: Path, waited: list[float]
) -> None:
    """To the last bit, names of the files of the cache included; also after an outage.

    What was stored before the outage is not encoded again. A pair is not dropped for it.
    """
    backbone = Counting(model_folder)
    here = encode(make_source(str(shards)).open(), backbone, tmp_path / "here")
    assert len(here.index.rows) == 22  # Without the tie, and the one that nobody judged.
    assert here.dropped == ()
    there = encode(streamed().open(), backbone, tmp_path / "there")
    assert_same_index(there.index, here.index)
    assert tree_hashes(tmp_path / "there") == tree_hashes(tmp_path / "here")

    rows = streamed().open()
    real = rows.images

    def until_the_outage(row: int) -> tuple[bytes, bytes]:
        hub.down = row == 16
        return real(row)

    object.__setattr__(rows, "images", until_the_outage)
    with pytest.raises(UserError, match="run the same command again; what was encoded is kept"):
        encode(rows, backbone, tmp_path / "cut")
    kept = len(tree_hashes(tmp_path / "cut"))
    assert kept
    hub.down, backbone.images = False, 0
    again = encode(streamed().open(), backbone, tmp_path / "cut")
    assert_same_index(again.index, here.index)
    assert backbone.images == 44 - 8 * kept


@pytest.mark.parametrize("kind", ["/revision/", "/tree/", "/resolve/"])
def test_a_fault_that_passes_is_waited_for(hub: Hub, waited: list[float], kind: str) -> None:
    """Whatever was asked for: the third attempt is answered, each after a longer wait."""
    hub.faults = [kind, kind]
    rows = streamed().open()
    hub.faults += ["/resolve/"] * 2
    assert len(rows.images(20)) == 2
    assert hub.faults == []
    assert len(waited) == 4
    assert waited[2:] == [1.0, 2.0]


def test_a_hub_that_stays_away_is_an_error_with_the_mend(hub: Hub, waited: list[float]) -> None:
    """When a source is opened, and when an image is read; a pair is not dropped for it."""
    rows = streamed().open()
    hub.down = True
    with pytest.raises(UserError, match=r"owner/pairs@main: the Hub does not answer \(.*503.*agai"):
        streamed().open()
    assert waited == list(WAITS)
    with pytest.raises(UserError, match=rf"^owner/pairs@\w{{40}}/{FIRST}: the Hub does not answer"):
        rows.images(0)
    hub.down = False
    assert len(rows.images(0)) == 2


def test_no_connection_is_a_fault_that_may_pass(
    hub: Hub, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port at which nobody listens."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"the Hub does not answer .* run the same command again"):
        streamed().open()
    assert waited == list(WAITS)


@pytest.mark.parametrize("path", ["owner/nothing@main", "owner/pairs@v9"])
def test_what_is_not_there_is_not_waited_for(hub: Hub, waited: list[float], path: str) -> None:
    with pytest.raises(UserError, match=rf"^{path}: the Hub refuses .* check the name"):
        streamed(path).open()
    assert waited == []


def test_no_file_of_the_pattern_is_told_with_what_there_is(hub: Hub) -> None:
    with pytest.raises(UserError, match=r"at owner/pairs@main: expected files x/\*, got README.md"):
        streamed(files="x/*").open()


def test_offline_nobody_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="streaming needs the network, which HF_HUB_OFFLINE"):
        streamed().open()
    assert hub.asked == []


def test_an_endpoint_without_ranges_is_refused(hub: Hub) -> None:
    """Whole files instead of parts of them would be read as wrong bytes."""
    hub.knows_ranges = False
    with pytest.raises(UserError, match=r"train-.*expected a range of \d+ bytes, got \d+"):
        streamed().open()


def test_settings_that_contradict_are_refused(shards: Path) -> None:
    with pytest.raises(UserError, match="streaming keeps no file and download keeps all"):
        streamed(download=True)
    with pytest.raises(UserError, match="streaming is for a data set of the Hub"):
        streamed(str(shards))
