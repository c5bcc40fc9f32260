"""Where files come from: the Hub's cache, a package, a folder; and that pins are kept."""

import hashlib
import json
import subprocess
import sys

import pytest

from bench.rewards.kit.weights import Weights, find
from trainers.errors import UserError

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONTENT = b"some weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A Hub cache that holds one file of ``some/model`` at one revision."""
    snapshot = tmp_path / "models--some--model" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot / "w.bin").write_bytes(CONTENT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("DPO_BENCH_ALLOW_DOWNLOAD", raising=False)
    monkeypatch.setenv("DPO_BENCH_HOME", str(tmp_path / "home"))
    return snapshot


def hub(sha256: str = SHA256, revision: str = REVISION) -> Weights:
    known = {"w.bin": sha256} if sha256 else {}
    return Weights(id="some/model", revision=revision, files=("w.bin",), sha256=known)


@pytest.mark.parametrize("known", [SHA256, ""])
def test_a_cached_file_is_used_and_hashed(cached, known):
    found = find([hub(known)], None, download=False)
    assert found.paths == {"w.bin": cached / "w.bin"}
    assert found.sha256 == {"w.bin": SHA256}
    assert found.genuine


def test_another_file_than_the_pinned_one_is_refused(cached):
    with pytest.raises(UserError, match=f"expected sha256 {'0' * 64} by some/model, got {SHA256}"):
        find([hub("0" * 64)], None, download=False)


@pytest.mark.parametrize(
    ("allow", "offline", "mend"),
    [
        (False, False, "run 'bench prefetch', or set DPO_BENCH_ALLOW_DOWNLOAD=1"),
        (False, True, "HF_HUB_OFFLINE forbids a download"),
        (True, True, "HF_HUB_OFFLINE forbids a download"),
    ],
)
def test_another_revision_is_not_fetched_unasked(cached, monkeypatch, allow, offline, mend):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(UserError, match=mend):
        find([hub(revision="f" * 40)], None, download=allow)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_download_happens_if_it_is_allowed(cached, monkeypatch, by):
    asked = []

    def download(repository, name, *, revision, local_files_only):
        asked.append((repository, name, revision, local_files_only))
        return str(cached / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    if by == "environment":
        monkeypatch.setenv("DPO_BENCH_ALLOW_DOWNLOAD", "1")
    find([hub()], None, download=by == "argument")
    assert asked == [("some/model", "w.bin", REVISION, False)]


def test_a_failed_download_says_why(cached, monkeypatch):
    def download(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(UserError, match=r"the download failed \(no route to host\)"):
        find([hub()], None, download=True)


def test_a_hash_that_nobody_stated_is_recorded_and_enforced(cached):
    assert find([hub("")], None, download=False).genuine
    (cached / "w.bin").write_bytes(b"other weights")
    with pytest.raises(UserError, match=f"expected sha256 {SHA256} by some/model"):
        find([hub("")], None, download=False)


def test_a_mirror_holds_the_same_files_under_another_name(cached, tmp_path):
    source = hub().model_copy(update={"id": "first/model"})
    found = find([source], f"some/model@{REVISION}", download=False)
    assert found.paths == {"w.bin": cached / "w.bin"}
    assert found.genuine
    (cached / "w.bin").write_bytes(b"other weights")
    assert not find([source], f"some/model@{REVISION}", download=False).genuine


def test_files_in_a_given_folder_may_differ_but_are_not_genuine(tmp_path):
    (tmp_path / "w.bin").write_bytes(CONTENT)
    assert find([hub()], tmp_path, download=False).genuine
    assert not find([hub("0" * 64)], tmp_path, download=False).genuine
    assert not find([hub("")], tmp_path, download=False).genuine


def test_a_listing_in_a_given_folder_is_kept(tmp_path):
    (tmp_path / "w.bin").write_bytes(CONTENT)
    (tmp_path / "sha256.json").write_text(json.dumps({"w.bin": "0" * 64}))
    with pytest.raises(UserError, match=r"sha256\.json"):
        find([hub()], tmp_path, download=False)


def test_shipped_listings_cover_every_shipped_file():
    from bench.rewards.kit.weights import _package_folder
    from trainers.files import tree_hashes

    for name in ("clip", "pickscore", "aesthetic"):
        source = Weights(id=f"package:bench.mini/weights/rewards/{name}", files=())
        folder = _package_folder(source)
        hashes = tree_hashes(folder)
        del hashes["sha256.json"]
        assert json.loads((folder / "sha256.json").read_text()) == hashes


def test_listing_rewards_and_their_signatures_needs_no_torch():
    code = (
        "import sys; from bench.rewards import REWARDS\n"
        "print([REWARDS.get(n).card.name for n in REWARDS.names()])\n"
        "print(REWARDS.get('mini-aesthetic')().signature)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "'mini-pickscore'" in run.stdout
    assert "mini-aesthetic|miniature|" in run.stdout
