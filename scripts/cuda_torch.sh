#!/usr/bin/env bash
# Build and test beside a CUDA build of torch, in an environment of its own; no GPU is needed, CUDA tests then skip.
#
#   scripts/cuda_torch.sh FOLDER [TORCH] [PYTEST ARGUMENTS...]
#
# FOLDER   of the virtual environment, made if it does not exist and kept: about 6 GB. Remove it when done.
# TORCH    what pip is asked for, default "torch==2.14.*". Which builds a version has is up to the package index: the
#          script stops where a CPU build came.
# Others   go to pytest, default: all tests.
# PYTHON chooses the interpreter, the variables of the build (CONTRIBUTING.md) hold here too.
set -euo pipefail
exec </dev/null

if [ $# -lt 1 ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
folder=$(realpath -m "$1")
torch=${2:-torch==2.14.*}
shift $(($# < 2 ? $# : 2))
cd "$(dirname "$0")/.."

step() { printf '\n== %s (at %s s)\n' "$1" "$SECONDS"; }

export MPLBACKEND=Agg PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONPATH PYTHONHOME

step "$torch into $folder"
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
export PATH=$folder/bin:$PATH VIRTUAL_ENV=$folder
python -m pip install -q "$torch" numpy
python - <<'PYTHON'
import sys

import torch

if torch.version.cuda is None:
    sys.exit(f"expected a CUDA build of torch, got {torch.__version__}: ask for another version")
print(f"torch {torch.__version__} for CUDA {torch.version.cuda}, {'a' if torch.cuda.is_available() else 'no'} GPU")
PYTHON
if ! command -v nvcc >/dev/null && ! [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
  python -m pip install -q nvidia-{cuda-nvcc,cuda-crt,nvvm,cuda-runtime,cuda-cccl}==13.0.* # a CUDA toolkit
fi

step 'pip install ".[test]"'
NTKFAST_CUDA=1 python -m pip install -q ".[test]"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && python -m ntkfast)

step "pytest"
pytest -q -p no:cacheprovider "$@" # not python -m pytest: that would test the checkout

step "done"
du -sh "$folder"
