"""How numbers are written: the one place that rounds them for readers."""

from bench.results.analysis import Results
from bench.stats import Interval, ShareOfGain, Unpaired, WinRate


def number(value: float, like: float | None = None) -> str:
    """A score with as many decimals as its size (or that of ``like``) deserves."""
    size = abs(like if like is not None else value)
    return f"{value:.{2 if size >= 10 else 3 if size >= 1 else 4}f}"


def signed(value: float, like: float) -> str:
    """A difference with its sign."""
    text = number(value, like)
    return text if text.startswith("-") else f"+{text}"


def between(interval: Interval | Unpaired, like: float) -> str:
    """``+0.0123 [+0.0011, +0.0235]``, with a dagger if it rests on one training run."""
    low, high = signed(interval.low, like), signed(interval.high, like)
    dagger = "†" if isinstance(interval, Interval) and interval.conditional else ""
    return f"{signed(interval.mean, like)} [{low}, {high}]{dagger}"


def scale(results: Results, reward: str) -> float:
    """A typical size of the differences of a reward, which decides the decimals."""
    means = (arm[reward] for arm in results.means.values())
    return max((abs(m.mean) for m in means if m is not None), default=1.0)


def of_gain(share: ShareOfGain) -> str:
    """``+5 % [-13, +21]``."""
    return f"{100 * share.share:+.0f} % [{100 * share.low:+.0f}, {100 * share.high:+.0f}]"


def wins(w: WinRate) -> str:
    """``63.1 % (284-0-166)``."""
    return f"{100 * w.rate:.1f} % ({w.wins}-{w.ties}-{w.losses})"
