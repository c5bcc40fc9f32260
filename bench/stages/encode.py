"""The stage that encodes pairs, and pairs as a training run opens them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from bench.spec.launch import Work
from bench.spec.model import Cost, Encoding
from bench.stages.base import Report, Stage
from bench.stages.store import CACHE, Store, as_json, locked
from trainers.backbones import BACKBONES, Backbone
from trainers.data.encode import EncodedPairs, encode_pairs
from trainers.data.encoder import Encoder
from trainers.data.encodings import CachedEncodings, EncodingCache, LiveEncodings
from trainers.data.index import Index
from trainers.data.pairs import Pairs
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.data.sources import Source
from trainers.errors import UserError
from trainers.files import write_text

INDEX = "pairs.parquet"
DROPPED = "dropped.json"


@dataclass(frozen=True)
class StoredPairs:
    """The pairs of a run: what they are encoded from, and where index and encodings lie."""

    source: Source
    settings: DataSettings
    """Those of the encodings."""
    base_sha256: str
    """Of the model that encodes."""
    encoding: Encoding
    prefixes: tuple[str, ...]
    """What captions stand after."""
    folder: Path
    """Of the index."""
    cache: Path
    """Of the encodings, if they are kept."""


@dataclass(frozen=True)
class EncodeStage(Stage):
    """The pairs whose images can be read, as an index of their encodings.

    The encodings themselves go to a cache that all experiments of the store share, by content.
    They can be made again from the source, so they are no outputs: without them, or with them
    deleted, the stage is as done as before.
    """

    kind: ClassVar[str] = "encode"
    work: ClassVar[Work] = "encode"
    order: ClassVar[int] = 0
    backbone: str
    base: Path
    base_sha256: str
    source: Source
    """Execution only: what it holds is in the hash."""
    data_sha256: str
    settings: DataSettings
    pairs: int
    """How many the settings select."""
    encoding: Encoding
    prefixes: tuple[str, ...] = ("",)
    """Captions are encoded after each of them."""
    columns: tuple[str, ...] = ()
    """Further numbers of pairs, which the index has, too."""

    def key(self) -> dict[str, Any]:
        """See the base class. Settings that change no encoding do not enter."""
        further: dict[str, Any] = {"columns": list(self.columns)} if self.columns else {}
        if any(self.prefixes):
            further["prefixes"] = list(self.prefixes)
        return further | {
            "backbone": self.backbone,
            "base": self.base_sha256,
            "data": self.data_sha256,
            "settings": self.settings.encoding_key(),
        }

    @property
    def units(self) -> int:
        """Images."""
        return 2 * self.pairs

    @property
    def device(self) -> str:
        """See the base class."""
        return self.encoding.device

    def expected_seconds(self, cost: Cost) -> float:
        """As scoring: an image passes through one model once."""
        return self.units * cost.score

    def verify_inputs(self) -> None:
        """See the base class."""
        verify_model(self.backbone, self.base, self.base_sha256)
        if (found := self.source.open().sha256()) != self.data_sha256:
            raise UserError(
                f"the pairs of {self.source.resolved()} are not those that were planned with: "
                f"expected sha256 {self.data_sha256[:16]}, got {found[:16]}: let all machines read "
                "the same data"
            )

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        backbone = BACKBONES.get(self.backbone)(self.base, self.encoding.device)
        write_pairs(self.stored(store), backbone, report)

    def stored(self, store: Store) -> StoredPairs:
        """The pairs as a training run opens them."""
        folder, cache = self.output(store), store.root / CACHE
        return StoredPairs(
            self.source,
            self.settings,
            self.base_sha256,
            self.encoding,
            self.prefixes,
            folder,
            cache,
        )


@cache
def verify_model(backbone: str, folder: Path, sha256: str) -> None:
    """Refuse a model whose files are not those of an identity; a process looks once.

    Raises:
        UserError: If they are others.
    """
    if (found := BACKBONES.get(backbone)(folder).sha256()) != sha256:
        raise UserError(
            f"{folder} is not the model that was planned with: expected sha256 {sha256[:16]}, got "
            f"{found[:16]}: let all machines read the same files"
        )


def write_pairs(pairs: StoredPairs, backbone: Backbone, report: Report) -> None:
    """Write the index of the pairs, the list of those that were dropped, and fill the cache."""
    encoded = _encode(pairs, backbone, report)
    encoded.index.save(pairs.folder / INDEX)
    write_text(pairs.folder / DROPPED, as_json([vars(pair) for pair in encoded.dropped]))


def open_pairs(pairs: StoredPairs, backbone: Backbone, settings: DataSettings) -> Pairs:
    """The pairs that were written; encodings that the cache has lost are made again.

    Args:
        pairs: The pairs.
        backbone: What encodes.
        settings: Those of the run, which may differ from the encodings' where that changes no
            encoding.
    """
    index = Index.load(pairs.folder / INDEX)
    encoder = Encoder(backbone, pairs.settings, pairs.base_sha256)
    if not pairs.encoding.cache:
        live = LiveEncodings(index, pairs.source.open(), encoder)
        return Pairs(index, settings, live, backbone.micro_conditioned)
    cache = EncodingCache(pairs.cache, encoder)

    def remake() -> None:
        with locked(pairs.folder):
            _encode(pairs, backbone, lambda images: None)
        cache.refresh()
        if not cache.holds(index, pairs.prefixes):
            raise UserError(
                f"{pairs.folder / INDEX} names images that are no longer among the pairs: delete "
                f"that folder (rm -r {pairs.folder}) and run the same command again"
            )
        backbone.release()  # Its encoders are needed no more, and the run needs their memory.

    if not cache.holds(index, pairs.prefixes):
        remake()
    return Pairs(index, settings, CachedEncodings(index, cache, remake), backbone.micro_conditioned)


def _encode(pairs: StoredPairs, backbone: Backbone, report: Report) -> EncodedPairs:
    rows = pairs.source.open()
    encoder = Encoder(backbone, pairs.settings, pairs.base_sha256)
    cache = EncodingCache(pairs.cache, encoder) if pairs.encoding.cache else None
    selected = select(rows, pairs.settings)
    return encode_pairs(
        rows, selected, encoder, cache, pairs.encoding.batch_size, report=report,
        prefixes=pairs.prefixes,
    )  # fmt: skip
