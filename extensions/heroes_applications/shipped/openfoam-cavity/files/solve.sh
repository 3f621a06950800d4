#!/bin/sh
# Run icoFoam on the meshed case, on RANKS processes of this node; keep the last time and what the solver said.
# usage: solve.sh MESHED_CASE RANKS
set -eu
meshed=$1 ranks=$2
export WM_PROJECT_DIR="${WM_PROJECT_DIR:-/usr/share/openfoam}"
# The job is alone in its namespaces: no other node is asked, and no core is pinned by two jobs at once.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm=isolated OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1

cp -r "$meshed" case
chmod -R u+w case
if [ "$ranks" -gt 1 ]; then
    decomposePar -case case
    mpirun -np "$ranks" icoFoam -case case -parallel > icoFoam.log
    reconstructPar -case case -latestTime
    rm -rf case/processor*
else
    icoFoam -case case > icoFoam.log
fi
tail -n 20 icoFoam.log
