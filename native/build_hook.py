"""Hatchling build hook: compiles the C programs into package data of `heroes_ear`, for wheels and editable installs.

Without a C compiler the rest still installs, and the build says what is missing.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _load_compile(root: Path) -> ModuleType:
    path = root / "native" / "heroes_ear" / "compile.py"
    spec = importlib.util.spec_from_file_location("heroes_ear_compile", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CompilePrograms(BuildHookInterface[Any]):
    """Named in pyproject.toml: `[tool.hatch.build.hooks.custom] path = "native/build_hook.py"`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless an sdist is made; a wheel that holds programs is one of this platform."""
        if self.target_name != "wheel":
            return
        for sentence in _load_compile(Path(self.root)).compile_all():
            self.app.display_warning(sentence)
        programs = list(Path(self.root, "native", "heroes_ear", "bin").glob("[!.]*"))
        if version == "editable" or not programs:
            return
        build_data["artifacts"].append("native/heroes_ear/bin/*")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data.update(pure_python=False, tag=f"py3-none-{platform}")
