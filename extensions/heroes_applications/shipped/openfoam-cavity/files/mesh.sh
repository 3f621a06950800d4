#!/bin/sh
# Write the case of a lid-driven cavity (side 1 m, lid at 1 m/s, viscosity 1/Re) and mesh it.
# usage: mesh.sh CELLS REYNOLDS TURNOVERS RANKS
set -eu
cells=$1 reynolds=$2 turnovers=$3 ranks=$4
export WM_PROJECT_DIR="${WM_PROJECT_DIR:-/usr/share/openfoam}"

# Half a cell for each time step: Courant number 0.5 below the lid.
step=$(awk -v cells="$cells" 'BEGIN { printf "%.10g", 0.5 / cells }')
viscosity=$(awk -v reynolds="$reynolds" 'BEGIN { printf "%.10g", 1 / reynolds }')

# header CLASS OBJECT
header() {
    printf 'FoamFile { version 2.0; format ascii; class %s; object %s; }\n' "$1" "$2"
}

mkdir -p case/0 case/constant case/system
{
    header dictionary controlDict
    cat <<END
application icoFoam;
startFrom latestTime;
startTime 0;
stopAt endTime;
endTime $turnovers;
deltaT $step;
writeControl runTime;
writeInterval $turnovers;
writeFormat ascii;
writePrecision 8;
timeFormat general;
runTimeModifiable false;
END
} > case/system/controlDict
{
    header dictionary fvSchemes
    cat <<END
ddtSchemes { default Euler; }
gradSchemes { default Gauss linear; }
divSchemes { default none; div(phi,U) Gauss linear; }
laplacianSchemes { default Gauss linear orthogonal; }
interpolationSchemes { default linear; }
snGradSchemes { default orthogonal; }
END
} > case/system/fvSchemes
{
    header dictionary fvSolution
    cat <<END
solvers
{
    p { solver PCG; preconditioner DIC; tolerance 1e-06; relTol 0.05; }
    pFinal { \$p; relTol 0; }
    U { solver smoothSolver; smoother symGaussSeidel; tolerance 1e-05; relTol 0; }
}
PISO { nCorrectors 2; nNonOrthogonalCorrectors 0; pRefCell 0; pRefValue 0; }
END
} > case/system/fvSolution
{
    header dictionary decomposeParDict
    printf 'numberOfSubdomains %s;\nmethod simple;\ncoeffs { n (1 %s 1); }\n' "$ranks" "$ranks"
} > case/system/decomposeParDict
{
    header dictionary blockMeshDict
    cat <<END
scale 1;
vertices ((0 0 0) (1 0 0) (1 1 0) (0 1 0) (0 0 0.1) (1 0 0.1) (1 1 0.1) (0 1 0.1));
blocks (hex (0 1 2 3 4 5 6 7) ($cells $cells 1) simpleGrading (1 1 1));
edges ();
boundary
(
    lid { type wall; faces ((3 7 6 2)); }
    walls { type wall; faces ((0 4 7 3) (2 6 5 1) (1 5 4 0)); }
    frontAndBack { type empty; faces ((0 3 2 1) (4 5 6 7)); }
);
END
} > case/system/blockMeshDict
{
    header dictionary transportProperties
    printf 'nu [0 2 -1 0 0 0 0] %s;\n' "$viscosity"
} > case/constant/transportProperties
{
    header volVectorField U
    cat <<END
dimensions [0 1 -1 0 0 0 0];
internalField uniform (0 0 0);
boundaryField
{
    lid { type fixedValue; value uniform (1 0 0); }
    walls { type noSlip; }
    frontAndBack { type empty; }
}
END
} > case/0/U
{
    header volScalarField p
    cat <<END
dimensions [0 2 -2 0 0 0 0];
internalField uniform 0;
boundaryField
{
    lid { type zeroGradient; }
    walls { type zeroGradient; }
    frontAndBack { type empty; }
}
END
} > case/0/p

blockMesh -case case
checkMesh -case case
