"""Draw the sampled flow of a lid-driven cavity, and compare it with published figures where there are some.

usage: plot.py SAMPLES_FOLDER REYNOLDS
"""

import csv
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

# Horizontal velocity on the vertical centre line: U. Ghia, K. N. Ghia, C. T. Shin, "High-Re solutions for
# incompressible flow using the Navier-Stokes equations and a multigrid method", J. Comput. Phys. 48 (1982), table I.
GHIA_Y = [1, 0.9766, 0.9688, 0.9609, 0.9531, 0.8516, 0.7344, 0.6172, 0.5]
GHIA_Y += [0.4531, 0.2813, 0.1719, 0.1016, 0.0703, 0.0625, 0.0547, 0]
GHIA_U = {
    100: [1, 0.84123, 0.78871, 0.73722, 0.68717, 0.23151, 0.00332, -0.13641, -0.20581]
    + [-0.21090, -0.15662, -0.10150, -0.06434, -0.04775, -0.04192, -0.03717, 0],
    400: [1, 0.75837, 0.68439, 0.61756, 0.55892, 0.29093, 0.16256, 0.02135, -0.11477]
    + [-0.17119, -0.32726, -0.24299, -0.14612, -0.10338, -0.09266, -0.08186, 0],
    1000: [1, 0.65928, 0.57492, 0.51117, 0.46604, 0.33304, 0.18719, 0.05702, -0.06080]
    + [-0.10648, -0.27805, -0.38289, -0.29730, -0.22220, -0.20196, -0.18109, 0],
}


def columns(path, *names):
    with open(path, newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [np.array([float(row[name]) for row in rows]) for name in names]


def summary(reynolds, y, u, speed):
    told = {"reynolds": reynolds, "lowest_u_on_centre_line": float(u.min()), "mean_speed": float(speed.mean())}
    published = GHIA_U.get(reynolds)
    if published:
        difference = np.interp(GHIA_Y[1:-1], y, u) - published[1:-1]
        told["largest_difference_from_ghia_1982"] = float(abs(difference).max())
    return told


def draw(reynolds, y, u, field):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    x, height, across, up = field
    side = round(len(x) ** 0.5)
    order = np.lexsort((x, height))
    grid = [values[order].reshape(side, side) for values in (x, height, across, up)]
    speed = np.hypot(grid[2], grid[3])
    colours = left.pcolormesh(grid[0], grid[1], speed, shading="nearest", cmap="viridis")
    centres = np.linspace(grid[0].min(), grid[0].max(), side)  # evenly spaced to the last bit, as streamplot asks
    left.streamplot(centres, centres, grid[2], grid[3], color="white", density=1.1, linewidth=0.6, arrowsize=0.7)
    left.set(xlabel="x (m)", ylabel="y (m)", title=f"Speed and streamlines, Re = {reynolds:g}", aspect="equal")
    figure.colorbar(colours, ax=left, label="speed (m/s)")
    right.plot(u, y, label=f"icoFoam, {side} x {side} cells")
    if reynolds in GHIA_U:
        right.plot(GHIA_U[reynolds], GHIA_Y, "o", fillstyle="none", label="Ghia et al. 1982")
    right.set(xlabel="u on the vertical centre line (m/s)", ylabel="y (m)", title="Velocity profile")
    right.grid(alpha=0.3)
    right.legend()
    figure.savefig("cavity.png", dpi=110)


def main():
    folder, reynolds = Path(sys.argv[1]), float(sys.argv[2])
    y, u = columns(folder / "centreline.csv", "y", "U_0")
    field = columns(folder / "field.csv", "x", "y", "u", "v")
    draw(reynolds, y, u, field)
    told = summary(reynolds, y, u, np.hypot(field[2], field[3]))
    Path("summary.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))


main()
