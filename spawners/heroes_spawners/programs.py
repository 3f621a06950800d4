"""The one list of programs that a probe looks for on compute nodes."""

from __future__ import annotations

#: Applications that a template may require, and the programs by which each is known.
APPLICATIONS: dict[str, tuple[str, ...]] = {
    "openfoam": ("blockMesh", "decomposePar", "icoFoam", "postProcess", "mpirun"),
    "mpi": ("mpirun",),
}
#: Container engines, the preferred one first.
ENGINES = ("ch-run", "apptainer", "singularity")
#: What the wrapper calls at a login node.
NEEDED = (
    "env", "find", "flock", "head", "md5sum", "mkdir", "mv", "rm", "sh", "sha256sum", "sync", "tail", "tar", "timeout",
    "xargs", "sbatch", "scancel", "scontrol", "sinfo", "squeue",
)  # fmt: skip
