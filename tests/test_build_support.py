"""The build finds its tools, or refuses with one sentence."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def build_support(monkeypatch):
    """Import a module of build_support/, which is no package and is not installed."""
    monkeypatch.syspath_prepend(str(ROOT / "build_support"))
    for name in ("NTKFAST_CUDA", "NTKFAST_CUDA_ARCH", "CXX", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    return importlib.import_module


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """Replace PATH by a folder of scripts; returns a function that writes one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, *lines: str) -> Path:
        script = folder / name
        script.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        script.chmod(0o755)
        return script

    return write


def refusal(function, *args) -> str:
    with pytest.raises(SystemExit) as caught:
        function(*args)
    message = str(caught.value)
    assert message.startswith("ntkfast: ") and "\n" not in message and "expected" in message and "got" in message
    return message


class TestToolchain:
    def test_no_compiler(self, build_support, tools):
        assert "no C++ compiler: expected GCC 11 or newer" in refusal(build_support("toolchain").compiler)

    @pytest.mark.parametrize(
        ("macros", "found"),
        [
            ("#define __GNUC__ 10", "GCC 10"),
            ("#define __GNUC__ 4\n#define __clang_major__ 18", "clang 18"),
            ("", "an unknown compiler"),
        ],
    )
    def test_wrong_compiler(self, build_support, tools, macros, found):
        tools("g++", f"echo '{macros}'")
        assert f"expected GCC 11 or newer, got {found} (g++)" in refusal(build_support("toolchain").compiler)

    def test_cxx_is_taken_with_its_launcher(self, build_support, tools, monkeypatch):
        tools("launcher", "echo '#define __GNUC__ 13'")
        monkeypatch.setenv("CXX", "launcher g++-13")
        assert build_support("toolchain").compiler() == ["launcher", "g++-13"]

    def test_no_ninja(self, build_support, tools, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert "no ninja" in refusal(build_support("toolchain").ninja)

    def test_ninja_of_the_interpreter(self, build_support, tools, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        assert build_support("toolchain").ninja() == [sys.executable, "-m", "ninja"]

    def test_only_linux(self, build_support, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert "expected Linux" in refusal(build_support("toolchain").check_platform)

    def test_other_processors_get_the_baseline(self, build_support, monkeypatch):
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
        assert list(build_support("toolchain").cpu_levels()) == ["base"]
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        assert list(build_support("toolchain").cpu_levels()) == ["base", "avx2", "avx512", "amx"]

    def test_no_python_headers(self, build_support, monkeypatch, tmp_path):
        monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
        assert "no Python headers" in refusal(build_support("toolchain").python_include)


class TestCudaToolkit:
    @pytest.fixture
    def cuda(self, build_support, tools, monkeypatch, tmp_path):
        module = build_support("cuda_toolkit")
        monkeypatch.setattr(module, "USUAL_NVCC", tmp_path / "absent")
        monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
        return module

    @pytest.fixture
    def nvcc(self, tools, tmp_path):
        """Write an nvcc that knows three architectures, with a toolkit, and compiles by the given shell line."""
        for name in ("include/cuda_runtime.h", "lib64/libcudart_static.a"):
            (tmp_path / "toolkit" / name).parent.mkdir(parents=True)
            (tmp_path / "toolkit" / name).touch()

        def write(compile_line: str) -> Path:
            return tools(
                "nvcc",
                f"case $1 in --dryrun) echo '#$ TOP={tmp_path}/toolkit' >&2; exit;;",
                "--list-gpu-arch) echo compute_75; echo compute_80; echo compute_90; exit;; esac",
                compile_line,
            )

        return write

    def test_forced_without_nvcc(self, cuda, monkeypatch):
        monkeypatch.setenv("NTKFAST_CUDA", "1")
        message = refusal(cuda.find_toolkit, ["g++"])
        assert "no CUDA toolkit: expected nvcc" in message
        assert all(place in message for place in ("$CUDA_HOME", "$CUDA_PATH", "PATH", "/usr/local/cuda", "wheel"))

    def test_auto_without_nvcc_builds_for_the_cpu(self, cuda, capsys):
        assert cuda.find_toolkit(["g++"]) is None
        assert "Building for the CPU alone." in capsys.readouterr().out

    def test_zero_does_not_look(self, cuda, nvcc, monkeypatch, capsys):
        nvcc("exit 0")
        monkeypatch.setenv("NTKFAST_CUDA", "0")
        assert cuda.find_toolkit(["g++"]) is None
        assert capsys.readouterr().out == ""

    def test_unknown_wish(self, cuda, monkeypatch):
        monkeypatch.setenv("NTKFAST_CUDA", "yes")
        assert "expected NTKFAST_CUDA to be 0, 1 or auto, got 'yes'" in refusal(cuda.find_toolkit, ["g++"])

    def test_host_compiler_too_new(self, cuda, nvcc, monkeypatch, capsys):
        nvcc("echo '#error -- unsupported GNU version!' >&2; exit 1")
        assert cuda.find_toolkit(["g++"]) is None
        assert "unsupported GNU version! Building for the CPU alone." in capsys.readouterr().out
        monkeypatch.setenv("NTKFAST_CUDA", "1")
        assert "unsupported GNU version" in refusal(cuda.find_toolkit, ["g++"])

    def test_toolkit_with_parts_missing(self, cuda, nvcc, monkeypatch, tmp_path):
        nvcc("exit 0")
        (tmp_path / "toolkit/lib64/libcudart_static.a").unlink()
        monkeypatch.setenv("NTKFAST_CUDA", "1")
        assert "without libcudart_static.a" in refusal(cuda.find_toolkit, ["g++"])

    def test_default_architectures_are_those_nvcc_knows(self, cuda, nvcc, tmp_path):
        nvcc("exit 0")
        toolkit = cuda.find_toolkit(["g++"])
        assert toolkit.architectures == ("80", "90")
        assert toolkit.static_runtime == tmp_path / "toolkit/lib64/libcudart_static.a"
        assert toolkit.code_flags[-1] == "-gencode=arch=compute_90,code=compute_90"

    @pytest.mark.parametrize(
        ("wish", "taken"), [("90", ("90",)), ("9.0;8.0", ("80", "90")), ("75, 90a", ("75", "90a"))]
    )
    def test_chosen_architectures(self, cuda, nvcc, monkeypatch, wish, taken):
        nvcc("exit 0")
        monkeypatch.setenv("NTKFAST_CUDA_ARCH", wish)
        assert cuda.find_toolkit(["g++"]).architectures == tuple(taken)

    def test_architectures_without_nvcc_are_an_error(self, cuda, monkeypatch):
        monkeypatch.setenv("NTKFAST_CUDA_ARCH", "90")
        assert "no CUDA toolkit: expected nvcc" in refusal(cuda.find_toolkit, ["g++"])
        monkeypatch.setenv("NTKFAST_CUDA", "auto")
        assert cuda.find_toolkit(["g++"]) is None

    def test_unknown_architecture(self, cuda, nvcc, monkeypatch):
        nvcc("exit 0")
        monkeypatch.setenv("NTKFAST_CUDA_ARCH", "80;12")
        assert "(75, 80, 90), got '12'" in refusal(cuda.find_toolkit, ["g++"])


class TestTorchInstall:
    def put(self, folder: Path, version: str) -> str:
        (folder / "torch").mkdir(parents=True)
        (folder / "torch" / "version.py").write_text(f"__all__ = []\n__version__ = '{version}'\n")
        return str(folder)

    @pytest.fixture
    def torch_install(self, build_support, monkeypatch):
        module = build_support("torch_install")
        monkeypatch.setattr(module, "target_folders", list)
        return module

    def test_no_torch(self, torch_install, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        assert "no torch to build against: expected torch>=2.11" in refusal(torch_install.required_torch)

    def test_torch_too_old(self, torch_install, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "path", [self.put(tmp_path, "2.10.1+cu128")])
        assert "expected torch>=2.11 to build against, got 2.10.1+cu128" in refusal(torch_install.required_torch)

    def test_the_target_environment_is_searched_behind_build_isolation(self, torch_install, monkeypatch, tmp_path):
        target = self.put(tmp_path / "target", "2.13.0+cpu")
        monkeypatch.setattr(torch_install, "target_folders", lambda: [target])
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        assert torch_install.required_torch().root == Path(target) / "torch"

    def test_versions_share_no_objects(self, torch_install, tmp_path):
        found = [
            torch_install.torch_in(self.put(tmp_path / str(index), version))
            for index, version in enumerate(["2.13.0+cpu", "2.13.0+cu130", "2.11.0", "3.0.0a0"])
        ]
        assert all(torch.new_enough for torch in found)
        assert len({torch.key for torch in found}) == len(found)

    @pytest.mark.parametrize(
        ("version", "asked"), [("2.10.0", ["torch>=2.11"]), ("2.11.0", []), (None, ["torch>=2.11"])]
    )
    def test_backend_asks_for_a_torch_only_where_none_will_do(
        self, build_support, monkeypatch, tmp_path, version, asked
    ):
        backend = build_support("backend")
        folders = [self.put(tmp_path, version)] if version else []
        monkeypatch.setattr(backend, "target_folders", lambda: folders)
        monkeypatch.setattr(backend, "first_torch", lambda paths, first=backend.first_torch: first(folders))
        assert backend._torch_requirement() == (["torch>=2.11"] if asked else [])


class TestNinjaFile:
    @pytest.fixture
    def text(self, build_support, tmp_path):
        """build.ninja of a small tree in a folder with a space in its name."""
        root = tmp_path / "a tree"
        for name in ("cpu/thing.cpp", "ops/thing.cpp", "cuda/thing.cu", "module.cpp"):
            (root / "csrc" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "csrc" / name).touch()
        torch = build_support("torch_install").TorchInstall(tmp_path / "torch", "2.13.0")
        file = build_support("ninja_file").NinjaFile(root, ["g++"], None)
        file.add_cpu(build_support("toolchain").X86_LEVELS)
        file.add_border(torch, [], {"NTKFAST_VERSION": "0.1.0"})
        file.add_cuda()
        return file.link("_C.so", torch)

    def test_one_object_per_level_and_one_per_border_file(self, text):
        objects = re.findall(r"^build (\S+\.o):", text, flags=re.MULTILINE)
        levels = ["cpu.thing.base.o", "cpu.thing.avx2.o", "cpu.thing.avx512.o", "cpu.thing.amx.o"]
        assert sorted(objects) == sorted([*levels, "ops.thing.o", "csrc.module.o"])
        assert re.search(r"^build _C.so: link (.+)$", text, flags=re.MULTILINE)[1].split() == objects

    def test_targets_the_oldest_torch_that_is_asked_for(self, build_support, text):
        assert build_support("torch_install").REQUIREMENT == "torch>=2.11"
        assert "-DTORCH_TARGET_VERSION=0x020b000000000000" in text

    def test_no_fast_math(self, text):
        assert "fast-math" not in text

    def test_spaces_are_escaped(self, text):
        assert "a$ tree/csrc/cpu/thing.cpp" in text


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"CXX": "no-such-compiler"}, "ntkfast: no C++ compiler"),
        ({"NTKFAST_CUDA": "maybe"}, "ntkfast: expected NTKFAST_CUDA to be 0, 1 or auto, got 'maybe'."),
    ],
)
def test_the_last_line_of_a_refused_build_is_the_sentence(tmp_path, environment, sentence):
    pytest.importorskip("pybind11", reason="a build requirement, absent where build isolation brought it")
    if shutil.which("ninja") is None and importlib.util.find_spec("ninja") is None:
        pytest.skip("ninja is a build requirement, absent where build isolation brought it")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"--build-temp={tmp_path}", f"--build-lib={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(sentence)
