"""Compile csrc/ into ntkfast/_C through one ninja file; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_support"))

from cuda_toolkit import CudaToolkit, find_toolkit  # noqa: E402
from ninja_file import NinjaFile  # noqa: E402
from toolchain import check_platform, compiler, cpu_levels, ninja, python_include  # noqa: E402
from torch_install import required_torch  # noqa: E402


class BuildNative(build_ext):
    """Writes build.ninja into a folder of its own per torch, runs ninja, and copies the result where it belongs."""

    def build_extension(self, ext: Extension) -> None:
        """Build ntkfast._C."""
        check_platform()
        command, run_ninja, torch = compiler(), ninja(), required_torch()
        includes = [python_include(), _pybind11_include()]
        cuda, levels = find_toolkit(command), cpu_levels()
        info = {
            "NTKFAST_VERSION": self.distribution.get_version(),
            "NTKFAST_TORCH": torch.version,
            "NTKFAST_CPU_LEVELS": ",".join(levels),
            "NTKFAST_CUDA_ARCHITECTURES": ",".join(cuda.architectures) if cuda else "",
        }
        print(f"ntkfast: CPU levels {', '.join(levels)}; {_cuda_line(cuda)}; torch {torch.version}", flush=True)

        file = NinjaFile(ROOT, command, cuda)
        file.add_cpu(levels)
        file.add_border(torch, includes, info)
        file.add_cuda()
        folder = Path(self.build_temp).resolve() / torch.key
        folder.mkdir(parents=True, exist_ok=True)
        target = Path(self.get_ext_fullpath(ext.name))
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "build.ninja").write_text(file.link(target.name, torch))
            if subprocess.run([*run_ninja, "-C", str(folder), *jobs]).returncode != 0:
                raise SystemExit("ntkfast: the compiler refused a source; its message is above.")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a running process may have the old one mapped: never write into it
            shutil.copy2(folder / target.name, target)


class BuildPython(build_py):
    """Starts from an empty folder, so that a module deleted from the sources does not live on in the wheel."""

    def run(self) -> None:
        """Copy the Python files."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "ntkfast", ignore_errors=True)
        super().run()


def _pybind11_include() -> Path:
    try:
        import pybind11
    except ImportError:
        raise SystemExit("ntkfast: no pybind11: expected the Python package of that name, got none.") from None
    return Path(pybind11.get_include())


def _cuda_line(cuda: CudaToolkit | None) -> str:
    return f"CUDA {', '.join(cuda.architectures)} by {cuda.nvcc}" if cuda else "no CUDA"


setup(ext_modules=[Extension("ntkfast._C", sources=[])], cmdclass={"build_ext": BuildNative, "build_py": BuildPython})
