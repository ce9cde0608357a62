"""A Slurm of one node on loopback, for a test: munged, slurmctld and slurmd of its own, without cgroups."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ReturnToService=2
KillWait=5
MpiDefault=none
SwitchType=switch/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here, or None."""
    if os.geteuid() != 0:
        return "Slurm's daemons are started as root"
    absent = [name for name in DAEMONS if _program(name) is None]
    return f"not installed: {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def cluster(root: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Start it below `root`; the environment that its commands need. TimeoutError where it does not come up."""
    root.chmod(0o755)
    for name in ("state", "spool"):
        (root / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    ports = [_free_port(), _free_port()]
    configuration = root / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, ports=ports, root=root, cpus=cpus))
    (root / "cgroup.conf").write_text("")
    key = root / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    munge = ["--foreground", "--force", f"--key-file={key}", f"--socket={root}/munge.socket"]
    munge += [f"--{name}-file={root}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = {"munged": munge, "slurmctld": ["-D", "-i"], "slurmd": ["-D", "-N", host]}
    with ExitStack() as stack:
        for name, words in commands.items():
            log = stack.enter_context((root / f"{name}.out").open("w"))
            program = _program(name)
            assert program is not None
            daemon = subprocess.Popen([program, *words], env=environment, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            time.sleep(1)
        deadline = time.monotonic() + 60
        while (
            "idle"
            not in subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True).stdout
        ):
            if time.monotonic() > deadline:
                raise TimeoutError("; ".join((root / f"{name}.out").read_text()[-500:] for name in commands))
            time.sleep(0.5)
        yield environment
