"""The text of build.ninja: which source is compiled how, and how all is linked."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from cuda_toolkit import CudaToolkit
from torch_install import OLDEST, TorchInstall

COMMON = ["-g0", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
# Never -ffast-math: NaN and infinity must survive.  What is left out here is errno, traps and unfused products.
CPU = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# The stable ABI of the oldest torch that is asked for; one binary then loads beside every later one.
BORDER = ["-O2", "-std=c++20", f"-DTORCH_TARGET_VERSION=0x{OLDEST[0]:02x}{OLDEST[1]:02x}000000000000"]


@dataclass
class NinjaFile:
    """Collects the edges of build.ninja; objects lie beside it."""

    source_root: Path
    compiler: list[str]
    cuda: CudaToolkit | None
    edges: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)

    def add_cpu(self, levels: dict[str, tuple[int, list[str]]]) -> None:
        """csrc/cpu/*.cpp: torch-free, once per instruction-set level."""
        for source in self._sources("csrc/cpu/*.cpp"):
            for level, (vector_bytes, flags) in levels.items():
                defines = [f"-DNTKFAST_ISA={level}", f"-DNTKFAST_VECTOR_BYTES={vector_bytes}"]
                self._compile("cxx", source, f"cpu.{source.stem}.{level}.o", CPU + defines + flags)

    def add_border(self, torch: TorchInstall, includes: list[Path], build_info: dict[str, str]) -> None:
        """csrc/*.cpp and csrc/ops/*.cpp: the only code that sees torch and Python."""
        flags = [*BORDER, *(f"-isystem{folder}" for folder in includes + torch.includes)]
        if self.cuda is not None:
            flags += ["-DNTKFAST_CUDA", f"-isystem{self.cuda.include}"]
        for source in self._sources("csrc/*.cpp") + self._sources("csrc/ops/*.cpp"):
            defines = [f'-D{name}="{text}"' for name, text in build_info.items()] if source.stem == "module" else []
            self._compile("cxx", source, f"{source.parent.name}.{source.stem}.o", flags + defines)

    def add_cuda(self) -> None:
        """csrc/cuda/*.cu: torch-free, by nvcc."""
        if self.cuda is not None:
            for source in self._sources("csrc/cuda/*.cu"):
                self._compile("nvcc", source, f"cuda.{source.stem}.o", self.cuda.code_flags)

    def link(self, name: str, torch: TorchInstall) -> str:
        """Add the last edge and return the whole text."""
        # Linked even where nothing of them is named at link time: symbols that exist only in a CUDA libtorch are weak.
        flags = [f"-L{torch.libraries}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-Wl,--as-needed"]
        if self.cuda is not None:
            flags += [str(self.cuda.static_runtime), "-ldl", "-lpthread", "-lrt"]
        self.edges.append(f"build {_path(name)}: link {' '.join(self.objects)}\n  flags = {_words(flags)}")
        return "\n".join([*self._rules(), *self.edges]) + "\n"

    def _sources(self, pattern: str) -> list[Path]:
        return sorted(self.source_root.glob(pattern))

    def _compile(self, rule: str, source: Path, target: str, flags: list[str]) -> None:
        self.objects.append(_path(target))
        self.edges.append(f"build {_path(target)}: {rule} {_path(str(source))}\n  flags = {_words(flags)}")

    def _rules(self) -> list[str]:
        # No path of the building machine in the binary.
        common = [*COMMON, f"-ffile-prefix-map={self.source_root}/="]
        rules = _rule("cxx", [*self.compiler, "-MMD", "-MF", "$out.d", *common], "-c $in -o $out", depfile=True)
        rules += _rule("link", [*self.compiler, "-shared"], "$in -o $out", flags_last=True)
        if self.cuda is not None:
            host = ["-Xcompiler=-fPIC,-fvisibility=hidden"]
            nvcc = [str(self.cuda.nvcc), *self.cuda.host_compiler, "-MD", "-MF", "$out.d", "-O3", "-std=c++17", *host]
            rules += _rule("nvcc", nvcc, "-c $in -o $out", depfile=True)
        return rules


def _rule(name: str, command: list[str], files: str, *, depfile: bool = False, flags_last: bool = False) -> list[str]:
    words = " ".join(word if "$out" in word else _words([word]) for word in command)
    line = f"{words} {files} $flags" if flags_last else f"{words} $flags {files}"
    lines = [f"rule {name}", f"  command = {line}"]
    return [*lines, "  depfile = $out.d", "  deps = gcc"] if depfile else lines


def _words(words: list[str]) -> str:
    """Quote for the shell, then for ninja."""
    return shlex.join(words).replace("$", "$$")


def _path(path: str) -> str:
    return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
