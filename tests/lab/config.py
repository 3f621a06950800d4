"""The configuration files of a cluster, rendered from its value."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lab.cluster import LabCluster, plain_environment

MUNGE_SOCKET = "/run/munge/munge.socket.2"

#: Chosen on two cores: jobs are looked at as they come, no start waits for the backfill turn, and a job is known for
#: 300 s after its end. Failing nodes are set down by the faults themselves, so that a slow machine fails none.
SLURM = """\
ClusterName={name}
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=50000,bf_interval=2,bf_yield_interval=200000,default_queue_depth=2000,sched_max_job_start=0
PriorityType=priority/basic
EnforcePartLimits=ALL
MessageTimeout=20
SlurmctldTimeout=30
SlurmdTimeout=60
BatchStartTimeout=30
InactiveLimit=0
KillWait=3
MinJobAge=300
Waittime=0
ReturnToService=2
JobAcctGatherType=jobacct_gather/linux
JobCompType=jobcomp/filetxt
JobCompLoc={root}/log/jobcomp.txt
"""

#: On alpha CPUs are the only consumable resource, so SLURM enforces no memory there.
ALPHA = """\
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={accounting_port}
AccountingStorageEnforce=associations,limits
PartitionName=cpu Nodes=ALL Default=YES MaxTime=04:00:00 DefaultTime=01:00:00 State=UP
PartitionName=long Nodes=ALL MaxTime=2-00:00:00 DefaultTime=04:00:00 State=UP
PartitionName=dense Nodes=ALL MaxTime=01:00:00 DefaultTime=00:10:00 OverSubscribe=FORCE:16 State=UP
"""

#: On cumulus memory is consumable too.
CUMULUS = """\
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
AccountingStorageType=accounting_storage/none
PrivateData=cloud
SlurmctldParameters=cloud_dns,power_save_interval=1,power_save_min_interval=1
ResumeProgram={root}/bin/resume
SuspendProgram={root}/bin/suspend
ResumeTimeout=60
SuspendTimeout=2
SuspendTime=8
ResumeRate=0
SuspendRate=0
PartitionName=cloud Nodes=ALL Default=YES MaxTime=12:00:00 DefaultTime=01:00:00 State=UP
"""

SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={socket}
DbdHost=localhost
DbdPort={accounting_port}
SlurmUser=root
PidFile={root}/run/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
"""

#: Limits on connections and sessions stay OpenSSH's own; nothing is forwarded.
SSHD = """\
ListenAddress {host}
Port {ssh_port}
HostKey {root}/keys/host
PidFile {root}/run/sshd.pid
AllowUsers {account}
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
AllowTcpForwarding no
AllowStreamLocalForwarding no
AllowAgentForwarding no
X11Forwarding no
PermitTunnel no
PrintMotd no
PrintLastLog no
Subsystem sftp /usr/lib/openssh/sftp-server
"""

#: The cloud's own control plane: starts and stops a real slurmd for each node and writes down when, for the bill.
#: `{verb}` is resume or suspend; SLURM calls it with a host list.
POWER = """\
#!{python} -SE
import os, signal, subprocess, sys, time

os.environ["PATH"] = "{path}"
sys.stderr = open("{root}/log/power.log", "a", buffering=1)
NODES = subprocess.run(["scontrol", "show", "hostnames", sys.argv[1]], capture_output=True, text=True, check=True)


def note(node, what):
    line = f"{{time.time():.3f}} {{node}} {{what}}\\n"
    log = os.open("{root}/log/billing.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(log, line.encode())
    os.close(log)


def resume(node):
    note(node, "up")
    # SLURM kills the group of this program as soon as it ends, runs it with most signals blocked and without
    # standard streams: a slurmd that inherited that would be killed, never end, or lose its log.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(["slurmd", "-N", node, "-b"], check=True, start_new_session=True, **quiet)


def suspend(node):
    try:
        with open(f"{root}/run/slurmd.{{node}}.pid") as file:
            os.kill(int(file.read()), signal.SIGTERM)
    except (OSError, ValueError):
        pass
    note(node, "down")


for node in NODES.stdout.split():
    {verb}(node)
"""


def settings(cluster: LabCluster) -> dict[str, object]:
    """What the texts above name."""
    return {
        "name": cluster.name,
        "root": cluster.root,
        "host": cluster.host,
        "account": cluster.account,
        "socket": MUNGE_SOCKET,
        "controller": cluster.first_port,
        "database_port": cluster.first_port + 1,
        "accounting_port": cluster.first_port + 2,
        "ssh_port": cluster.first_port + 3,
        "python": sys.executable,
        "path": plain_environment()["PATH"],
    }


def slurm_conf(cluster: LabCluster) -> str:
    """The whole slurm.conf: nodes on ports of their own, then accounting or power saving, then partitions."""
    state = "UNKNOWN" if cluster.accounting else "CLOUD"
    nodes = [
        f"NodeName={node} NodeHostname=localhost NodeAddr={cluster.host} Port={cluster.first_port + 10 + number} "
        f"CPUs={cluster.cpus} RealMemory={cluster.memory_mib} State={state}"
        for number, node in enumerate(cluster.nodes)
    ]
    last = ALPHA if cluster.accounting else CUMULUS
    return SLURM.format(**settings(cluster)) + "\n".join(nodes) + "\n" + last.format(**settings(cluster))


def write_all(cluster: LabCluster, password: str) -> None:
    """Write every configuration file of the cluster; secrets are readable by root only."""
    values = settings(cluster)
    write(cluster.conf / "slurm.conf", slurm_conf(cluster))
    write(cluster.conf / "sshd_config", SSHD.format(**values))
    if cluster.accounting:
        write(cluster.conf / "slurmdbd.conf", SLURMDBD.format(password=password, **values), 0o600)
        return
    for verb in ("resume", "suspend"):
        write(cluster.root / "bin" / verb, POWER.format(verb=verb, **values), 0o755)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write with the mode from the first moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text)
