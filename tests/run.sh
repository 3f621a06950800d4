#!/usr/bin/env bash
# Every test: first what fails fastest. Without root the lab's tests are skipped, and said so; under CI nothing may be.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=.venv/bin/python
$PY -m tests.packages
make --no-print-directory check
$PY -m pytest -q -n 2 --dist loadfile tests/unit
$PY -m pytest -q -p no:randomly -rs tests/contract tests/system tests/crash
if [ "$(id -u)" = 0 ] && [ -z "${KEEP_LAB:-}" ]; then $PY -m tests.lab down; fi
