"""The work of the stage that encodes pairs, and pairs as a training run opens them."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.stages.store import Store, as_json
from trainers.backbones import BACKBONES, Backbone
from trainers.data.encode import EncodedPairs, encode_pairs
from trainers.data.encoder import Encoder
from trainers.data.encodings import CachedEncodings, EncodingCache, LiveEncodings
from trainers.data.index import Index
from trainers.data.pairs import Pairs
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.files import write_text

if TYPE_CHECKING:
    from bench.stages.kinds import EncodeStage, Report

INDEX = "pairs.parquet"
DROPPED = "dropped.json"
CACHE = "encodings"
"""Folder of the store that holds encodings."""


def encode(stage: "EncodeStage", folder: Path, store: Store, report: "Report") -> None:
    """Write the index of the pairs, the list of those that were dropped, and fill the cache."""
    backbone = BACKBONES.get(stage.backbone)(stage.base, stage.encoding.device)
    encoded = _encode(stage, store, backbone, report)
    encoded.index.save(folder / INDEX)
    write_text(folder / DROPPED, as_json([vars(pair) for pair in encoded.dropped]))


def open_pairs(
    stage: "EncodeStage", store: Store, backbone: Backbone, settings: DataSettings
) -> Pairs:
    """The pairs of a finished stage; encodings that the cache has lost are made again.

    Args:
        stage: The stage.
        store: Where its outputs are.
        backbone: What encodes.
        settings: Those of the run, which may differ from the stage's where that changes no
            encoding.
    """
    index = Index.load(stage.output(store) / INDEX)
    encoder = Encoder(backbone, stage.settings, stage.base_sha256)
    if not stage.encoding.cache:
        live = LiveEncodings(index, stage.source.open(), encoder)
        return Pairs(index, settings, live, backbone.micro_conditioned)
    cache = EncodingCache(store.root / CACHE, encoder)
    if not cache.holds(index):
        with store.lock(stage.kind, stage.id):
            _encode(stage, store, backbone, lambda images: None)
        cache.refresh()
        backbone.release()  # Its encoders are needed no more, and the run needs their memory.
    return Pairs(index, settings, CachedEncodings(index, cache), backbone.micro_conditioned)


def _encode(
    stage: "EncodeStage", store: Store, backbone: Backbone, report: "Report"
) -> EncodedPairs:
    rows = stage.source.open()
    encoder = Encoder(backbone, stage.settings, stage.base_sha256)
    cache = EncodingCache(store.root / CACHE, encoder) if stage.encoding.cache else None
    selected = select(rows, stage.settings)
    return encode_pairs(rows, selected, encoder, cache, stage.encoding.batch_size, report=report)
