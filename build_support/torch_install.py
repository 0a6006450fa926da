"""Find the torch to build against, without importing it (an import costs seconds and starts thread pools)."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

OLDEST = (2, 11)
REQUIREMENT = "torch>=2.11"


@dataclass(frozen=True)
class TorchInstall:
    """One installed torch: its package folder and its version, "2.13.0+cpu"."""

    root: Path
    version: str

    @property
    def includes(self) -> list[Path]:
        """Header folders of the stable ABI."""
        return [self.root / "include", self.root / "include" / "torch" / "csrc" / "api" / "include"]

    @property
    def libraries(self) -> Path:
        """Folder of libtorch.so."""
        return self.root / "lib"

    @property
    def key(self) -> str:
        """Name of the folder of objects: those of two torch versions never meet in one link."""
        return f"torch-{self.version}"

    @property
    def new_enough(self) -> bool:
        """Whether this torch has the stable ABI that the sources use."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        return numbers is not None and (int(numbers[1]), int(numbers[2])) >= OLDEST


def torch_in(folder: str | Path) -> TorchInstall | None:
    """Return the torch that lies in one folder of sys.path, or None."""
    root = Path(folder) / "torch"
    try:
        version = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", (root / "version.py").read_text())
    except OSError:
        return None
    return TorchInstall(root, version[1]) if version else None


def first_torch(folders: list[str]) -> TorchInstall | None:
    """Return the first torch of a search path: the one that `import torch` would take."""
    return next(filter(None, map(torch_in, folders)), None)


def target_folders() -> list[str]:
    """Return the site-packages of the environment that is installed into, which build isolation hides from sys.path."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if os.environ.get("VIRTUAL_ENV"):
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        folders.append(os.path.join(os.environ["VIRTUAL_ENV"], "lib", python, "site-packages"))
    folders += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return list(dict.fromkeys(folders))


def required_torch() -> TorchInstall:
    """Return the torch to build against: that of sys.path, else that of the target environment."""
    found = first_torch(sys.path) or first_torch(target_folders())
    if found is None:
        raise SystemExit(f"ntkfast: no torch to build against: expected {REQUIREMENT} installed, got none.")
    if not found.new_enough:
        raise SystemExit(f"ntkfast: expected {REQUIREMENT} to build against, got {found.version} in {found.root}.")
    return found
