#!/bin/sh
# Sample the flow: velocity on the vertical centre line, and at the centre of every cell.
# usage: sample.sh SOLVED_CASE
set -eu
export WM_PROJECT_DIR="${WM_PROJECT_DIR:-/usr/share/openfoam}"
cp -r "$1" case
chmod -R u+w case

cat > case/system/centreline <<END
FoamFile { version 2.0; format ascii; class dictionary; object centreline; }
type sets;
libs ("libsampling.so");
setFormat csv;
interpolationScheme cellPoint;
fields (U);
sets ( line { type face; axis y; start (0.5 0 0.05); end (0.5 1 0.05); } );
END
postProcess -case case -latestTime -func centreline > sample.log
postProcess -case case -latestTime -func writeCellCentres >> sample.log

cp case/postProcessing/centreline/*/line_U.csv centreline.csv
last=$(foamListTimes -case case -latestTime)
# A field file: a count, "(", one "(x y z)" for each cell, ")"; then the same for the faces of the boundary.
values() {
    awk '/^\([^)]+\)$/ { gsub(/[()]/, ""); print; next } /^\)/ { exit }' "$1"
}
values "case/$last/C" > centres.txt
values "case/$last/U" > velocities.txt
{
    echo "x,y,u,v"
    paste -d ' ' centres.txt velocities.txt | awk '{ print $1 "," $2 "," $4 "," $5 }'
} > field.csv
rm -r centres.txt velocities.txt case
