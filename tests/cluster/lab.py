"""A real SLURM of three nodes on one machine, made of Debian's packages: accounting, preemption, made-up GPUs.

    apt-get install -y --no-install-recommends slurmctld slurmd slurm-client slurmdbd munge mariadb-server

Only root can start it. Everything lies in one folder but for /etc/slurm/{slurm,gres}.conf, which the commands of SLURM
read inside jobs (Snakemake's job step drops SLURM_CONF); `stop` removes them. A machine that has such files of its own
is left alone.

Jobs of the partitions `cpu` and `gpu` are preempted by those of `urgent`. Nodes claim more processors and
GPUs than there are, so jobs of the smoke study fit, and few enough that jobs have to queue.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ETC = Path("/etc/slurm")
PROGRAMS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr", "sinfo")
MARK = "# made by yarnlab's tests"
ACCOUNT = "lab"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
GPUS = 2
NODES = (
    3  # one more than the plugin may take out of use: after a node's failure it excludes that and the job's next one
)

SLURM_CONF = """{mark}
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=0
KillWait=10
InactiveLimit=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[1]}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{nodes}
PartitionName=cpu Nodes=n[1-{count}] Default=YES MaxTime=1-00:00:00 State=UP PriorityTier=1 LLN=YES
PartitionName=gpu Nodes=n[1-{count}] MaxTime=1-00:00:00 State=UP PriorityTier=1 LLN=YES
PartitionName=urgent Nodes=n[1-{count}] MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
"""
NODE = "NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=1000000 Gres=gpu:{gpus}"
GRES_CONF = "{mark}\nAutoDetect=off\nNodeName=n[1-{count}] Name=gpu File={folder}/gpu[0-{last}]\n"
DBD_CONF = """AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[1]}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[3]}
StorageUser=root
StorageLoc=slurm_acct
"""


def obstacle() -> str | None:
    """Why SLURM can't be started on this machine; None if it can."""
    if os.geteuid() != 0:
        return "only root can start SLURM's daemons"
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    for name in ("slurm.conf", "gres.conf"):
        file = ETC / name
        if file.exists() and not file.read_text().startswith(MARK):
            return f"this machine has a SLURM of its own ({file})"
    return None


class Lab:
    """The running daemons; what they write lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        host, ports = socket.gethostname().partition(".")[0], _free_ports(4 + NODES)
        nodes = [NODE.format(i=i + 1, host=host, port=ports[4 + i], gpus=GPUS) for i in range(NODES)]
        self._values = {
            "mark": MARK, "folder": folder, "host": host, "ports": ports, "nodes": "\n".join(nodes), "count": NODES,
            "last": GPUS - 1,
        }  # fmt: skip

    def start(self) -> None:
        """Start the daemons and wait until all nodes are idle. Raises RuntimeError with the end of a daemon's log."""
        (self.folder / "state").mkdir(parents=True)
        ETC.mkdir(exist_ok=True)
        for i in range(GPUS):
            os.mknod(self.folder / f"gpu{i}", 0o666 | 0o020000, os.makedev(195, i))
        (ETC / "slurm.conf").write_text(SLURM_CONF.format(**self._values))
        (ETC / "gres.conf").write_text(GRES_CONF.format(**self._values))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munge.seed",
        )  # fmt: skip
        self._start_accounting()
        self._daemon("slurmctld", "-D", "-i")
        for i in range(NODES):
            self._daemon("slurmd", "-D", "-N", f"n{i + 1}")
        self._wait(lambda: len(set(run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split())) == NODES, "slurmctld")

    def stop(self) -> None:
        """End all jobs and daemons and remove the files under /etc/slurm."""
        if (self.folder / "slurmctld.pid").exists():
            subprocess.run(["scancel", "--full", "-u", "root"], env=environment(), capture_output=True, timeout=20)
        for daemon in reversed(self._daemons):
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
            (ETC / name).unlink(missing_ok=True)

    def _start_accounting(self) -> None:
        configuration = ETC / "slurmdbd.conf"  # must be readable by its owner alone
        configuration.touch(mode=0o600)
        configuration.write_text(DBD_CONF.format(**self._values))
        data = self.folder / "mysql"
        data.mkdir()
        ports: list[int] = self._values["ports"]  # type: ignore[assignment]
        # No tables of users: whoever may connect to this port of the loopback interface may do everything.
        self._daemon(
            "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-grant-tables",
            "--bind-address=127.0.0.1", f"--port={ports[3]}", f"--socket={self.folder}/mysql.socket",
            "--innodb-fast-shutdown=2", "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        self._wait(lambda: _answers(ports[3]), "mariadbd")
        self._daemon("slurmdbd", "-D")
        self._wait(lambda: _answers(ports[1]), "slurmdbd")
        self._wait(lambda: "lab" in run("sacctmgr", "-i", "add", "cluster", "lab", check=False), "slurmdbd")
        run("sacctmgr", "-i", "add", "account", ACCOUNT)
        run("sacctmgr", "-i", "add", "user", "root", f"account={ACCOUNT}")

    def _daemon(self, program: str, *arguments: str) -> None:
        with open(self.folder / f"{program}.out", "ab") as log:
            path = shutil.which(program, path=PATH) or program
            self._daemons.append(
                subprocess.Popen(
                    [path, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
                )
            )

    def _wait(self, condition: Callable[[], bool], daemon: str) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if condition():
                return
            time.sleep(0.1)
        logs = sorted(self.folder.glob(f"{daemon}*.out")) + sorted(self.folder.glob(f"{daemon}*.log"))
        raise RuntimeError("\n".join([f"{daemon} did not start", *(log.read_text()[-1500:] for log in logs)]))


def environment() -> dict[str, str]:
    """The variables for SLURM's programs: their place, and nothing of an allocation that this process may run in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return {**kept, "PATH": PATH}


def run(*command: str, check: bool = True) -> str:
    """The output of a command of SLURM."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + (done.stderr if not check else "")


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":  # by hand: start, work in another terminal, then Enter
    if reason := obstacle():
        sys.exit(reason)
    lab = Lab(Path(sys.argv[1]))
    try:
        lab.start()
        print(run("sinfo"), end="")
        input("Enter stops it. ")
    finally:
        lab.stop()
