"""Real SLURM clusters on one machine: `alpha`, an HPC centre with accounting, and `cumulus`, a cloud cluster without.

    python -m tests.lab up | down | status

State is in /var/tmp/heroes-lab, or in the folder that HEROES_LAB names; each folder has its own accounts and ports.
"""

from tests.lab.cluster import LabCluster
from tests.lab.lifecycle import Lab, down, opened, status, up
from tests.lab.wait import LabError, wait_for

__all__ = ["Lab", "LabCluster", "LabError", "down", "opened", "status", "up", "wait_for"]
