"""The cost model follows the table it quotes, and chooses the cheaper way."""

import pytest

from ntkfast.cost import explicit_entries, factor_entries, gram_cost, gram_path, sweep_cost, trace_cost


@pytest.mark.parametrize("channels", [1, 2, 4, 9])
@pytest.mark.parametrize(("n_in", "n_out"), [(2, 500), (500, 500), (500, 1), (784, 10), (64, 64)])
def test_for_many_rows_structured_wins_where_c_squared_is_below_the_harmonic_size(n_in, n_out, channels):
    structured = channels**2 < n_in * n_out / (n_in + n_out)
    assert gram_path(n_in, n_out, channels, n=10**7) == ("structured" if structured else "explicit")


@pytest.mark.parametrize("m", [None, 50])
@pytest.mark.parametrize(("n_in", "n_out", "channels"), [(2, 500, 4), (500, 500, 4), (500, 1, 4), (16, 16, 2)])
def test_the_path_is_the_cheaper_one(n_in, n_out, channels, m):
    sizes = (n_in, n_out, channels, 300, m)
    cost = {path: gram_cost(path, *sizes) for path in ("structured", "explicit")}
    assert cost[gram_path(*sizes)] == min(cost.values())


def test_the_paper_network_goes_structured_in_the_hidden_layers_only():
    sizes = (2, 500, 500, 500, 1)
    paths = [gram_path(a, b, channels=4, n=300) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    assert paths == ["explicit", "structured", "structured", "explicit"]


def test_costs_are_those_of_the_table():
    assert gram_cost("structured", 7, 5, 3, n=11, m=13) == 11 * 13 * 9 * 12
    assert gram_cost("structured", 7, 5, 3, n=11, m=13, other=2) == 11 * 13 * 6 * 12
    assert gram_cost("explicit", 7, 5, 3, n=11, m=13, other=2) == (11 * 3 + 13 * 2) * 35 + 11 * 13 * 35
    assert trace_cost(7, 5, 3, n=11) == 11 * 9 * 12
    assert sweep_cost(7, 5, 3, n=11) == 11 * 3 * 35
    assert factor_entries(7, 5, 3, n=11) == 11 * 3 * 12
    assert explicit_entries(7, 5, n=11) == 11 * 5 * 8


def test_a_symmetric_gram_computes_one_triangle_and_forms_one_jacobian():
    assert gram_cost("structured", 8, 8, 2, n=10) * 2 == gram_cost("structured", 8, 8, 2, n=10, m=10)
    assert gram_cost("explicit", 8, 8, 2, n=10) * 2 == gram_cost("explicit", 8, 8, 2, n=10, m=10)


def test_no_rows_cost_nothing():
    assert gram_cost("structured", 8, 8, 2, n=0) == gram_cost("explicit", 8, 8, 2, n=0) == 0
    assert gram_path(8, 8, 2, n=0) == "structured"


def test_another_path_is_named():
    with pytest.raises(ValueError, match="'structured' or 'explicit', got 'auto'"):
        gram_cost("auto", 8, 8, 2, n=10)
