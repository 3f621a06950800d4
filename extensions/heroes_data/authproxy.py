"""Tells `rclone serve s3` what an access key opens: reads its file in the folder that is the argument.

Run by rclone for each key that it does not remember: Python's standard library only, and little of it.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(folder: str, question: str) -> str:
    """The answer for rclone as JSON; a KeyError or FileNotFoundError means that there is no such key (any more)."""
    key = json.loads(question)["user"]
    if not key or not all(character.isalnum() or character in "._-" for character in key):
        raise KeyError("no key of ours")
    with open(os.path.join(folder, f"{key}.json"), encoding="utf-8") as stream:
        content = json.load(stream)
    if content.pop("expires", float("inf")) <= time.time():
        raise KeyError("the key has expired")
    return json.dumps(content)


if __name__ == "__main__":
    try:
        sys.stdout.write(main(sys.argv[1], sys.stdin.read()))
    except (KeyError, OSError, ValueError) as refusal:
        sys.exit(f"refused: {refusal}")
