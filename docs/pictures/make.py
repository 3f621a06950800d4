"""Makes demo.svg of what `make demo ONCE=1` prints: `.venv/bin/python docs/pictures/make.py`, in a scratch folder."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from heroes.credentials import DEFAULT_URL

PICTURE = Path(__file__).with_name("demo.svg")
FONT_FACE = re.compile(r"@font-face \{.*?\}", re.DOTALL)
COLUMNS = 122


def run_demo() -> str:
    """What the demo prints; CalledProcessError when a step of it fails."""
    with tempfile.TemporaryDirectory(prefix="heroes-picture-", dir="/var/tmp") as scratch:
        heroes = Path(sys.executable).with_name("heroes")
        Path(scratch).chmod(0o711)  # jobs of other users pass through it
        argv = [str(heroes), "demo", "--once", "--home", f"{scratch}/home"]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        told = done.stdout.replace(f"{scratch}/home", "/var/tmp/heroes-demo")  # noqa: S108
        return re.sub(r"http://127\.0\.0\.1:\d+", DEFAULT_URL, told)  # any free port, where that one is taken


def draw(told: str) -> str:
    """The text as a picture of a terminal, without fonts or anything else from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Text("$ make demo ONCE=1", style="bold"))
    for line in told.splitlines():
        heading = re.match(r"\d+\. ", line) or line.startswith("demo:")
        console.print(Text(line.rstrip(), style="bold green" if heading else ""))
    picture = console.export_svg(title="make demo ONCE=1", theme=DIMMED_MONOKAI, unique_id="demo")
    picture = FONT_FACE.sub("", picture).replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    picture = picture.replace('<text class="demo-r', '<text xml:space="preserve" class="demo-r')
    return re.sub(r"<!--.*?-->", "", picture, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.write_text(draw(run_demo()))
