"""A real SLURM on this host: munged, slurmctld and two slurmd of Debian, in a folder of the test's.

They run as whoever runs the tests, which must be root: slurmd starts jobs as their owner.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
_CONF = """
ClusterName=bench-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SlurmdTimeout=10
KillWait=5
MinJobAge=300
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000
PartitionName=all Nodes=one,two Default=YES State=UP
"""


class Cluster:
    """The daemons, and what is done to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start a daemon in the foreground."""
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        log = (self.folder / f"{name}.out").open("ab")
        self.processes[name] = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def start_controller(self) -> None:
        self.start("slurmctld", "slurmctld", "-D", "-f", str(self.conf))

    def start_node(self, name: str) -> None:
        self.start(name, "slurmd", "-D", "-N", name, "-f", str(self.conf))

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a daemon by its process id."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def says(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr

    def idle(self) -> bool:
        return self.says("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"]


def until(condition: Callable[[], object], seconds: float = 60) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return bool(condition())


def _ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    found = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes; skipped where its daemons are not installed."""
    missing = [name for name in DAEMONS if shutil.which(name, path=_path()) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install slurmctld slurmd munge)")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs as their owner, which only root can do")
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", _path())
        patch.setenv("SLURM_CONF", str(made.conf))
        try:
            _start(made)
            yield made
        finally:
            made.says("scancel", "--user=root")
            for name in reversed(list(made.processes)):
                made.stop(name)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _start(made: Cluster) -> None:
    folder = made.folder
    (folder / "state").mkdir()
    for parent in (folder, *folder.parents[:3]):  # munged looks at all above its socket.
        parent.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host, ports = socket.gethostname(), _ports(3)
    made.conf.write_text(_CONF.format(host=host, ports=ports, folder=folder))
    made.start(
        "munged", "munged", "--foreground", "--force", f"--key-file={key}",
        f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
        f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log",
    )  # fmt: skip
    assert until((folder / "munge.socket").exists), "munged did not start"
    made.start_controller()
    for node in ("one", "two"):
        made.start_node(node)
    assert until(made.idle), made.says("sinfo")
