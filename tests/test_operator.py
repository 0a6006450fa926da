"""The operator is the gram: products, diagonal, trace, eigenpairs and scipy's view of it."""

import numpy as np
import pytest
import torch

from ntkfast import operator as operator_module
from ntkfast.networks import MLP
from ntkfast.operator import NTKOperator
from ntkfast.residual import residual, value

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@residual("t", "x")
def wave(u):
    return u.d(t=2) - 4.0 * u.d(x=2)


def make(n=9, dtype=torch.float64, joint=False):
    torch.manual_seed(0)
    net = MLP([2, 11, 11, 1], dtype=dtype)
    x = torch.rand(n, 2, dtype=dtype)
    return NTKOperator(net, {"u": (x[: n // 3], value), "r": (x, wave)}) if joint else NTKOperator(net, x, wave)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["one group", "joint"])
def K(request, dtype):
    return make(dtype=dtype, joint=request.param)


def close(a, b):
    return (a.double() - b.double()).norm() <= TOLERANCE[a.dtype] * b.double().norm()


def test_products_are_those_of_the_gram(K):
    v = torch.randn(K.shape[0], 4, dtype=K.dtype)
    assert close(K @ v[:, 0], K.to_dense() @ v[:, 0])
    assert close(K @ v, K.to_dense() @ v)
    assert (K @ v[:, 1:1]).shape == (K.shape[0], 0)


def test_strided_vectors(K):
    v = torch.randn(2 * K.shape[0], dtype=K.dtype)[::2]
    assert torch.equal(K @ v, K @ v.contiguous())


def test_diagonal_and_trace_are_those_of_the_gram(K):
    assert close(K.diag(), K.to_dense().diagonal())
    assert close(K.trace(), K.to_dense().trace())
    assert K.trace().shape == () and K.trace().dtype == K.dtype


def test_shape_type_device_and_repr(K):
    n = K.shape[0]
    assert K.to_dense().shape == K.shape == (n, n)
    assert K.to_dense().dtype == K.dtype
    assert repr(K) == f"NTKOperator(shape=({n}, {n}), dtype={K.dtype}, device=cpu)"


def test_it_is_symmetric_and_positive(K):
    v, w = torch.randn(2, K.shape[0], dtype=K.dtype).unbind()
    scale = K.trace() * v.norm() * w.norm()
    assert abs((K @ v) @ w - v @ (K @ w)) <= TOLERANCE[K.dtype] * scale
    assert v @ (K @ v) >= -TOLERANCE[K.dtype] * scale


def eigenpairs_hold(K, values, vectors):
    k, eps = len(values), 10 * TOLERANCE[K.dtype] * K.trace()
    assert (values[:-1] >= values[1:]).all()
    assert (K @ vectors - vectors * values).norm() <= eps
    assert (vectors.T @ vectors - torch.eye(k, dtype=K.dtype)).norm() <= 1e3 * TOLERANCE[K.dtype]


@pytest.mark.parametrize("which", ["LA", "SA"])
def test_eigenpairs(K, which):
    n = K.shape[0]
    everything = torch.linalg.eigvalsh(K.to_dense().double()).flip(0)
    for k in (1, 3, n):
        values, vectors = K.eigsh(k, which)
        assert values.shape == (k,) and vectors.shape == (n, k) and values.dtype == vectors.dtype == K.dtype
        wanted = everything[:k] if which == "LA" else everything[n - k :]
        assert (values.double() - wanted).norm() <= 10 * TOLERANCE[K.dtype] * everything[0]
        eigenpairs_hold(K, values, vectors)


def test_lanczos_finds_what_the_dense_way_finds(monkeypatch, dtype):
    K = make(n=40, dtype=dtype)
    dense = K.eigsh(4)
    monkeypatch.setattr(operator_module, "DENSE_ROWS", 0)
    monkeypatch.setattr(K, "to_dense", None)  # Lanczos has no use for it
    values, vectors = K.eigsh(4)
    assert (values - dense[0]).norm() <= 10 * TOLERANCE[dtype] * dense[0][0]
    eigenpairs_hold(K, values, vectors)
    assert torch.equal(K.eigsh(4)[1], vectors)  # the same start, the same numbers


def test_scipy_sees_the_same_matrix(K):
    A, rng = K.to_scipy(), np.random.default_rng(0)
    v = rng.standard_normal((K.shape[0], 2)).astype(A.dtype)
    dense = K.to_dense().numpy()
    assert A.shape == K.shape and A.dtype == dense.dtype
    for found in (A @ v, A.T @ v, (A @ v[:, 0])[:, None], A.matvec(v[:, :1])):
        wanted = dense @ v[:, : found.shape[1]]
        assert np.linalg.norm(found - wanted) <= TOLERANCE[K.dtype] * np.linalg.norm(wanted)


def test_products_carry_no_graph(K):
    assert not (K @ torch.ones(K.shape[0], dtype=K.dtype)).requires_grad
    assert not K.diag().requires_grad and not K.to_dense().requires_grad


def test_one_row():
    K = make(n=1)
    assert close(K @ torch.ones(1, dtype=K.dtype), K.to_dense()[0])
    assert K.eigsh(1)[0].item() == pytest.approx(K.trace().item())


REFUSED = [
    (lambda K: K @ torch.ones(3, dtype=K.dtype), ValueError, "v of shape (9,) or (9, k), got (3,)"),
    (lambda K: K @ torch.ones(9, 1, 1, dtype=K.dtype), ValueError, "got (9, 1, 1)"),
    (lambda K: K @ torch.ones(9), ValueError, "v in torch.float64 on cpu, got torch.float32 on cpu"),
    (lambda K: K @ torch.ones(9, dtype=K.dtype, device="meta"), ValueError, "got torch.float64 on meta"),
    (lambda K: K @ np.ones(9), TypeError, "expected a tensor after @, got ndarray"),
    (lambda K: K.eigsh(0), ValueError, "k as a whole number from 1 to 9, got 0"),
    (lambda K: K.eigsh(10), ValueError, "k as a whole number from 1 to 9, got 10"),
    (lambda K: K.eigsh(2.0), ValueError, "got 2.0"),
    (lambda K: K.eigsh(2, "LM"), ValueError, "'LA' (largest) or 'SA' (smallest), got 'LM'"),
]


@pytest.mark.parametrize(("act", "kind", "sentence"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_a_wrong_call_is_answered_by_a_sentence(act, kind, sentence):
    with pytest.raises(kind) as error:
        act(make())
    assert sentence in str(error.value)


@pytest.mark.parametrize("n", [9, 40])
def test_a_kernel_that_is_not_finite_has_no_eigenvalues(monkeypatch, n):
    monkeypatch.setattr(operator_module, "DENSE_ROWS", 20)
    net = MLP([2, 5, 1])
    with torch.no_grad():
        next(net.parameters())[0, 0] = torch.nan
    with pytest.raises(ValueError, match="eigsh: expected a finite kernel, got NaN"):
        NTKOperator(net, torch.rand(n, 2)).eigsh(2)


def test_wrt_takes_the_blocks_apart():
    torch.manual_seed(0)
    net, x = MLP([2, 11, 11, 1], dtype=torch.float64), torch.rand(9, 2, dtype=torch.float64)
    whole = NTKOperator(net, x, wave)
    parts = [NTKOperator(net, x, wave, wrt=pattern) for pattern in ("*.weight", "*.bias")]
    assert close(sum(part.to_dense() for part in parts), whole.to_dense())
    v = torch.randn(9, dtype=torch.float64)
    assert close(sum(part @ v for part in parts), whole @ v)
    with pytest.raises(ValueError, match="wrt: expected a pattern"):
        NTKOperator(net, x, wrt="nothing")


def test_scipy_may_ask_with_complex_vectors():
    net, x = MLP([2, 4, 1], dtype=torch.float64), torch.rand(5, 2).double()
    K = NTKOperator(net, x)
    v = np.arange(5) + 1j * np.ones(5)
    assert np.allclose(K.to_scipy() @ v, K.to_dense().numpy() @ v)


def test_a_kernel_that_is_zero_has_zero_eigenvalues():
    second = residual("t", "x")(lambda u: u.d(x=2))
    values, _ = NTKOperator(torch.nn.Linear(2, 1), torch.rand(513, 2), second).eigsh(3)
    assert torch.equal(values, torch.zeros(3))


def test_no_groups_make_an_operator_of_no_rows():
    K = NTKOperator(MLP([2, 4, 1]), {})
    assert (K.shape, K.trace().item(), K.diag().shape, K.to_dense().shape) == ((0, 0), 0.0, (0,), (0, 0))


@pytest.mark.parametrize(("n", "scale"), [(60, 1.2e18), (600, 5e17)], ids=["dense", "lanczos"])
def test_eigenvalues_beyond_the_largest_number_are_refused(n, scale):
    """Every entry of K is finite, and its products with vectors are not."""
    torch.manual_seed(0)
    K = NTKOperator(MLP([2, 16, 16, 1]), torch.rand(n, 2), residual("t", "x")(lambda u: scale * u))
    assert K.to_dense().isfinite().all()
    with pytest.raises(ValueError, match="eigsh: expected a finite kernel, got "):
        K.eigsh(3)


@pytest.mark.parametrize("scale", [1e-19, 1e-10, 1.0, 2e17])
def test_lanczos_works_near_the_smallest_and_the_largest_number(scale):
    torch.manual_seed(0)
    K = NTKOperator(MLP([2, 16, 16, 1]), torch.rand(600, 2), residual("t", "x")(lambda u: scale * u))
    expected = torch.linalg.eigvalsh(K.to_dense().double())[-2:].flip(0)
    assert torch.allclose(K.eigsh(2)[0].double(), expected, rtol=1e-4)
