"""SLURM's own words, versions 22.05 to 24.05, each mapped once: job states, pending reasons, refusals of sbatch.

Words: `job_states` and `job_state_reason` of slurm.h, `slurm_errtab` of slurm_errno.c, the manuals of squeue and sacct.
"""

from __future__ import annotations

import re

from heroes_spawners.site import Answer, Declined, Refusal, State, Unknown

#: What squeue and scontrol call a job, long and short; a job that holds nodes is running, also while they boot.
QUEUE_STATES = {
    "PENDING": State.PENDING,
    "REQUEUED": State.PENDING,
    "REQUEUE_FED": State.PENDING,
    "REQUEUE_HOLD": State.PENDING,
    "RESV_DEL_HOLD": State.PENDING,
    "SPECIAL_EXIT": State.PENDING,
    "CONFIGURING": State.RUNNING,
    "POWER_UP_NODE": State.RUNNING,
    "RUNNING": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "RESIZING": State.RUNNING,
    "EXPEDITING": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "UPDATE_DB": State.RUNNING,
    "COMPLETED": State.COMPLETED,
    "FAILED": State.FAILED,
    "CANCELLED": State.CANCELLED,
    "TIMEOUT": State.TIMEOUT,
    "DEADLINE": State.TIMEOUT,
    "OUT_OF_MEMORY": State.OUT_OF_MEMORY,
    "NODE_FAIL": State.NODE_FAIL,
    "BOOT_FAIL": State.NODE_FAIL,
    "LAUNCH_FAILED": State.NODE_FAIL,
    "RECONFIG_FAIL": State.NODE_FAIL,
    "PREEMPTED": State.NODE_FAIL,
    "REVOKED": State.NODE_FAIL,
}
_SHORT = {
    "PD": "PENDING",
    "RQ": "REQUEUED",
    "RF": "REQUEUE_FED",
    "RH": "REQUEUE_HOLD",
    "RD": "RESV_DEL_HOLD",
    "SE": "SPECIAL_EXIT",
    "CF": "CONFIGURING",
    "PU": "POWER_UP_NODE",
    "R": "RUNNING",
    "S": "SUSPENDED",
    "ST": "STOPPED",
    "SI": "SIGNALING",
    "RS": "RESIZING",
    "EX": "EXPEDITING",
    "CG": "COMPLETING",
    "SO": "STAGE_OUT",
    "UD": "UPDATE_DB",
    "CD": "COMPLETED",
    "F": "FAILED",
    "CA": "CANCELLED",
    "TO": "TIMEOUT",
    "DL": "DEADLINE",
    "OOM": "OUT_OF_MEMORY",
    "NF": "NODE_FAIL",
    "BF": "BOOT_FAIL",
    "LF": "LAUNCH_FAILED",
    "PR": "PREEMPTED",
    "RV": "REVOKED",
}
#: In accounting a requeued record is an earlier run of the same id that the site took back.
_TAKEN_BACK = ("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
ACCOUNTING_STATES = QUEUE_STATES | dict.fromkeys(_TAKEN_BACK, State.NODE_FAIL)


def queue_state(word: str) -> State:
    """The state that squeue or scontrol names; a word we do not know is UNKNOWN, never a failure."""
    return QUEUE_STATES.get(_SHORT.get(word, word), State.UNKNOWN)


def accounting_state(text: str) -> State:
    """The state that sacct names: "CANCELLED by 1000" too."""
    word = text.split(" ", 1)[0].rstrip("+")
    return ACCOUNTING_STATES.get(_SHORT.get(word, word), State.UNKNOWN)


#: Pending reasons that no waiting clears, and what they mean. Not here: limits on jobs at a time and usage that decays
#: (QOSJobLimit, QOSUsageThreshold, AccountingPolicy), closed partitions, locks of a federation.
NEVER_CLEARS = {
    "AccountNotAllowed": "the account may not use this queue",
    "AssocMaxCpuPerJobLimit": "more CPUs than the account may use in one job",
    "AssocMaxCpuMinutesPerJobLimit": "more CPU time than the account may use in one job",
    "AssocMaxMemPerJob": "more memory than the account may use in one job",
    "AssocMaxNodePerJobLimit": "more nodes than the account may use in one job",
    "AssocMaxWallDurationPerJobLimit": "longer than the account's jobs may last",
    "BadConstraints": "no node has what the job asks for",
    "DeadLine": "the job's deadline has passed",
    "DependencyNeverSatisfied": "the job depends on one that failed",
    "InvalidAccount": "the account is not valid at the centre",
    "InvalidQOS": "the quality of service is not valid at the centre",
    "MaxMemPerLimit": "more memory than a job of this queue may use",
    "PartitionNodeLimit": "more or fewer nodes than the queue admits",
    "PartitionTimeLimit": "longer than the queue admits",
    "QOSMaxCpuPerJobLimit": "more CPUs than the quality of service admits in one job",
    "QOSMaxCpuMinutesPerJobLimit": "more CPU time than the quality of service admits in one job",
    "QOSMaxMemoryPerJob": "more memory than the quality of service admits in one job",
    "QOSMaxNodePerJobLimit": "more nodes than the quality of service admits in one job",
    "QOSMaxWallDurationPerJobLimit": "longer than the quality of service admits",
    "QOSMinCpuNotSatisfied": "fewer CPUs than the quality of service demands",
    "QOSNotAllowed": "the queue does not admit the quality of service",
    "launch_failed_requeued_held": "the job could not be launched and is held",
}


def never_clears(reason: str) -> str:
    """What a pending reason that no waiting clears means; "" for one that may clear."""
    word = reason.split(" ", 1)[0].rstrip(",:)")
    joined = reason.strip("()").replace(" ", "_")
    return NEVER_CLEARS.get(word) or NEVER_CLEARS.get(joined) or ""


_LIMIT, _STORAGE, _PERMANENT = Refusal.LIMIT, Refusal.STORAGE, Refusal.PERMANENT
#: Texts by which sbatch says no for certain, first match wins. What is not here is Unknown.
REFUSALS: tuple[tuple[re.Pattern[str], Refusal], ...] = tuple(
    (re.compile(text, re.IGNORECASE), kind)
    for text, kind in (
        # The centre admits only so many jobs now.
        (r"(assoc|qos)\w*(maxsubmit|grpsubmit)\w*", _LIMIT),
        (r"maxjobcount|job count limit|max_submit|submit limit reached", _LIMIT),
        (r"(assoc|qos)\w*(max|min|grp)\w*", _PERMANENT),
        (r"job violates accounting/qos policy", _LIMIT),
        (r"unable to contact slurm controller \(connect failure\)", _LIMIT),
        (r"resource temporarily unavailable", _LIMIT),
        (r"unable to create job record, try again", _LIMIT),
        (r"required partition not available \(inactive or drain\)", _LIMIT),
        (r"requested partition configuration not available now", _LIMIT),
        (r"requested operation is presently disabled", _LIMIT),
        (r"system submissions disabled", _LIMIT),
        (r"controller is in standby mode", _LIMIT),
        (r"requested reservation (not usable now|is in use)", _LIMIT),
        (r"breached requested qos usage threshold", _LIMIT),
        # No space or quota.
        (r"no space left on device|disk quota exceeded", _STORAGE),
        (r"i/o error writing script/environment to file", _STORAGE),
        # Never as it is.
        (r"invalid partition|no partition specified|requested nodes not in this partition", _PERMANENT),
        (r"requested node configuration is not available", _PERMANENT),
        (r"(node|cpu|task) count specification invalid|task distribution specification invalid", _PERMANENT),
        (r"more processors requested than permitted|requested more tasks than available", _PERMANENT),
        (r"memory required by task is not available|memory specification can ?not be satisfied", _PERMANENT),
        (r"invalid account|account/partition combination", _PERMANENT),
        (r"invalid qos|invalid feature|invalid preferred feature|active features not subset", _PERMANENT),
        (r"group not permitted to use this partition|access/permission denied|access denied", _PERMANENT),
        (r"requested time limit is invalid|time limit specification|invalid time|invalid --time", _PERMANENT),
        (r"generic resource|\bgres\b|trackable resource", _PERMANENT),
        (r"requested reservation is invalid|invalid license|invalid dependency|job dependency problem", _PERMANENT),
        (r"invalid group id|user not found|invalid user|job size specification", _PERMANENT),
        (r"pathname of a file, directory or other parameter too long", _PERMANENT),
        (r"unrecognized option|invalid option|invalid numeric value|unable to open file|unable to read", _PERMANENT),
        (r"immediate execution impossible|functionality not available|requested operation not supported", _PERMANENT),
        (r"only batch jobs are accepted|cli_filter|job_submit|rejected", _PERMANENT),
    )
)


#: Words after which a request may have arrived, whatever else was said.
_OPEN_ENDED = re.compile(r"timed out|(send|receive|shutdown) failure|zero bytes were transmitted", re.IGNORECASE)


def refusal(text: str) -> Answer:
    """What sbatch's own words say: declined for certain, or unknown."""
    shown = text.strip("; ")[:500]
    if not _OPEN_ENDED.search(text):
        for pattern, kind in REFUSALS:
            if pattern.search(text):
                return Declined(kind, shown)
    return Unknown(shown or "sbatch said nothing")
