"""SLURM, asked through a transport: no daemon, no root, nothing that listens."""

from heroes_spawners.slurm.site import SlurmSettings, SlurmSite

__all__ = ["SlurmSettings", "SlurmSite"]
