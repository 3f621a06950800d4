"""Every word of SLURM 22.05 to 24.05 is mapped, none by a default."""

from __future__ import annotations

import pytest

from heroes_spawners.site import TERMINAL, Declined, Refusal, State, Unknown
from heroes_spawners.slurm import words

#: The words that each version knows, as its job_state_string gives them.
BASE = (
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED",
    "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "COMPLETING", "CONFIGURING", "RESIZING", "REQUEUED", "REQUEUE_FED",
    "REQUEUE_HOLD", "RESV_DEL_HOLD", "REVOKED", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "LAUNCH_FAILED",
    "UPDATE_DB", "RECONFIG_FAIL", "POWER_UP_NODE",
)  # fmt: skip
VERSIONS = {"22.05": BASE, "23.11": BASE, "24.05": (*BASE, "EXPEDITING")}
SHORT = (
    "PD", "R", "S", "CD", "CA", "F", "TO", "NF", "PR", "BF", "DL", "OOM", "CG", "CF", "RS", "RQ", "RF", "RH", "RD",
    "RV", "SI", "SE", "SO", "ST", "LF", "UD", "PU",
)  # fmt: skip


@pytest.mark.parametrize(
    ("version", "word"), [(version, word) for version, known in VERSIONS.items() for word in known]
)
def test_every_state_is_mapped(version: str, word: str) -> None:
    """squeue's, scontrol's and sacct's word each mean a state."""
    assert words.queue_state(word) is not State.UNKNOWN
    assert words.accounting_state(word) is not State.UNKNOWN


@pytest.mark.parametrize("word", SHORT)
def test_every_short_state_is_mapped(word: str) -> None:
    """The two-letter codes mean what the long words do."""
    assert words.queue_state(word) is not State.UNKNOWN


@pytest.mark.parametrize("word", ["", "NEW_WORD", "running", "None", "|"])
def test_a_strange_word_is_unknown_not_failed(word: str) -> None:
    """What we do not know is no failure."""
    assert words.queue_state(word) is State.UNKNOWN
    assert words.accounting_state(word) is State.UNKNOWN


def test_sacct_says_who_cancelled() -> None:
    """ "CANCELLED by 1000" and the truncated "CANCELLED+" are cancelled."""
    assert words.accounting_state("CANCELLED by 1000") is State.CANCELLED
    assert words.accounting_state("CANCELLED+") is State.CANCELLED


def test_what_the_site_took_back_is_infrastructure() -> None:
    """A requeued record in accounting is an earlier run, a requeued job in the queue waits."""
    assert words.accounting_state("REQUEUED") is State.NODE_FAIL
    assert words.queue_state("REQUEUED") is State.PENDING


def test_a_job_that_holds_nodes_has_not_ended() -> None:
    """Completing, suspended and booting jobs are not terminal."""
    for word in ("COMPLETING", "SUSPENDED", "CONFIGURING", "STAGE_OUT", "SIGNALING"):
        assert words.queue_state(word) not in TERMINAL


SAID = [
    (
        "sbatch: error: invalid partition specified: nope; Batch job submission failed: Invalid partition name",
        "permanent",
    ),
    ("Batch job submission failed: Requested node configuration is not available", "permanent"),
    ("Batch job submission failed: Invalid account or account/partition combination specified", "permanent"),
    ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", "permanent"),
    ("sbatch: error: QOSMaxCpuPerJobLimit; Job violates accounting/QOS policy (job submit limit, ...)", "permanent"),
    ("sbatch: error: AssocMaxWallDurationPerJobLimit; Job violates accounting/QOS policy", "permanent"),
    ("sbatch: unrecognized option '--nonsense'", "permanent"),
    ("sbatch: error: QOSMaxSubmitJobPerUserLimit; Job violates accounting/QOS policy", "limit"),
    ("sbatch: error: AssocMaxSubmitJobLimit; Job violates accounting/QOS policy", "limit"),
    ("sbatch: error: AssocGrpSubmitJobsLimit", "limit"),
    ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "limit"),
    ("Batch job submission failed: Unable to contact slurm controller (connect failure)", "limit"),
    ("Batch job submission failed: Required partition not available (inactive or drain)", "limit"),
    ("sbatch: error: Unable to write: No space left on device", "storage"),
    ("Disk quota exceeded", "storage"),
    ("Batch job submission failed: I/O error writing script/environment to file", "storage"),
]


@pytest.mark.parametrize(("text", "kind"), SAID)
def test_a_known_refusal_is_certain(text: str, kind: str) -> None:
    """Each text that sbatch refuses with tells which kind of no it is."""
    answer = words.refusal(text)
    assert isinstance(answer, Declined)
    assert answer.kind is Refusal(kind)
    assert answer.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "something entirely new",
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Unable to contact slurm controller (receive failure)",
        "invalid partition; Socket timed out on send/recv operation",
        "Zero Bytes were transmitted or received",
        "slurm_persist_conn in progress",
    ],
)
def test_anything_else_is_unknown(text: str) -> None:
    """A time-out, a lost answer or a text that is not in the table may have submitted the job."""
    assert isinstance(words.refusal(text), Unknown)


@pytest.mark.parametrize(
    "reason", ["PartitionTimeLimit", "(PartitionNodeLimit)", "launch failed requeued held", "BadConstraints"]
)
def test_reasons_that_never_clear_have_a_meaning(reason: str) -> None:
    """An attempt that waits for one of these is ended with the meaning."""
    assert words.never_clears(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "Priority",
        "Resources",
        "(None)",
        "Dependency",
        "",
        "QOSMaxJobsPerUserLimit",
        "Nodes required for job are DOWN",
        "QOSJobLimit",
        "QOSUsageThreshold",
        "AccountingPolicy",
        "PartitionDown",
        "PartitionInactive",
        "FedJobLock",
    ],
)
def test_other_reasons_may_clear(reason: str) -> None:
    """Waiting is right."""
    assert words.never_clears(reason) == ""
