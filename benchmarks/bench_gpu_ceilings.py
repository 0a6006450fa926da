"""What the GPU reaches at best: a copy within it, and dense products in float32 (without TF32) and float64."""

from dataclasses import asdict

import floors
import pytest
import results

pytestmark = pytest.mark.gpu


def test_gpu_ceilings(benchmark, gpu):
    record = asdict(benchmark.pedantic(floors.ceilings, (gpu,), rounds=1))
    results.keep("gpu", "ceilings", "all", record, gpu)
    benchmark.extra_info.update(record)
