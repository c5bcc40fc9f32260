"""Whatever a file holds, its reader gives a value or one line: never a traceback, never a hang.

FUZZ_EXAMPLES=10000 python -m pytest tests/fuzz         longer; by default it is a few seconds
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from readers import READERS, Reader

from trainers.errors import UserError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
HANGS = 60
"""Seconds after which an input of a few hundred bytes counts as never read."""


@contextmanager
def bounded() -> Iterator[None]:
    """Let what hangs fail instead."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not read after {HANGS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.replace(" ", "-"))
def test_any_input_is_read_or_refused_in_one_line(reader: Reader) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # what is found is small already, and shrinking takes minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as name:
            reader.write(Path(name), data.draw)
            try:
                with bounded():
                    reader.read(Path(name))
            except UserError as error:
                assert str(error).strip()
                assert "\n" not in str(error)

    fuzz()
