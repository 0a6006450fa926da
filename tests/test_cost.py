"""The cost model follows the table it quotes, and chooses the cheaper way."""

import pytest

from ntkfast.cost import factor_entries, gram_cost, gram_paths, sweep_cost, trace_cost


@pytest.mark.parametrize("channels", [1, 2, 4, 9])
@pytest.mark.parametrize("width", [16, 64, 500])
def test_for_many_rows_structured_wins_where_c_squared_is_far_below_the_harmonic_size(width, channels):
    path = gram_paths((width, width), channels, n=10**7)[0]
    harmonic = width / 2
    if channels**2 < harmonic / 2:
        assert path == "structured"
    if channels**2 > 2 * harmonic:
        assert path == "explicit"


def test_the_paper_network_goes_structured_in_the_hidden_layers_only():
    assert gram_paths((2, 500, 500, 500, 1), channels=4, n=300) == ("explicit", "structured", "structured", "explicit")


def test_one_pass_is_taken_where_a_second_would_gain_little():
    assert set(gram_paths((2, 16, 16, 16, 1), channels=1, n=2000)) == {"structured"}
    assert set(gram_paths((2, 16, 16, 16, 1), channels=12, n=2000)) == {"explicit"}
    assert gram_paths((2, 30, 30, 1), channels=2, n=10**6) == ("explicit", "structured", "explicit"), "or enough"


def test_layers_with_fast_products_go_structured_further_out():
    sizes = {"widths": (256, 256), "n": 10**6}
    border = next(c for c in range(1, 100) if gram_paths(channels=c, **sizes) == ("explicit",))
    assert gram_paths(channels=border, depth=lambda depth: 0.6 * depth, **sizes) == ("structured",)


def test_small_grams_form_no_jacobian():
    """Buffers and tasks of explicit layers cost the same however few the entries; a triangle has half of them."""
    structured, mixed = ("structured",) * 3, ("explicit", "structured", "explicit")
    paths = [gram_paths((2, 500, 500, 1), 4, n, m) for n, m in ((18, None), (20, None), (20, 20), (60, None))]
    assert paths == [structured, structured, mixed, mixed]


def test_a_jacobian_is_formed_for_many_rows():
    assert gram_paths((100, 100), channels=7, n=300) == ("structured",)
    assert gram_paths((100, 100), channels=7, n=10**6) == ("explicit",)


def test_two_products_of_a_few_features_cost_more_than_these():
    assert gram_paths((2, 2), channels=1, n=10**7) == ("explicit",)
    assert gram_paths((3, 3), channels=1, n=10**7) == ("explicit",)
    assert gram_paths((8, 8), channels=1, n=10**7) == ("structured",)


def test_wide_inputs_of_a_classifier_do_not_go_explicit():
    assert gram_paths((784, 512, 10), channels=1, n=10_000)[0] == "structured"


def test_components_that_share_products_of_inputs_go_structured_further_out():
    sizes = {"widths": (200, 100), "n": 10**6}
    border = next(c for c in range(1, 100) if gram_paths(channels=c, **sizes) == ("explicit",))
    assert gram_paths(channels=border, shared=3, **sizes) == ("structured",)


def test_sums_over_components_go_structured_unless_all_entries_are_cheaper_explicitly():
    """Structured layers add one term for each component, explicit ones leave an entry for each pair of them."""
    sizes = {"widths": (2, 100, 100, 1), "channels": 4, "n": 10**5}
    assert gram_paths(**sizes) == ("explicit", "structured", "explicit")
    assert gram_paths(summed=3, **sizes) == ("structured",) * 3
    assert gram_paths((2, 3, 1), channels=12, n=10**5, summed=3) == ("explicit",) * 2


def test_costs_are_those_of_the_table():
    assert gram_cost("structured", 7, 5, 3, n=11, m=13) == 11 * 13 * 9 * 12
    assert gram_cost("structured", 7, 5, 3, n=11, m=13, other=2) == 11 * 13 * 6 * 12
    assert gram_cost("explicit", 7, 5, 3, n=11, m=13, other=2) == (11 * 3 + 13 * 2) * 35 + 11 * 13 * 35
    assert trace_cost(7, 5, 3, n=11) == 11 * 9 * 12
    assert sweep_cost(7, 5, 3, n=11) == 11 * 3 * 35
    assert factor_entries(7, 5, 3, n=11) == 11 * 3 * 12


def test_a_symmetric_gram_computes_one_triangle_and_forms_one_jacobian():
    assert gram_cost("structured", 8, 8, 2, n=10) * 2 == gram_cost("structured", 8, 8, 2, n=10, m=10)
    assert gram_cost("explicit", 8, 8, 2, n=10) * 2 == gram_cost("explicit", 8, 8, 2, n=10, m=10)


def test_no_rows_cost_nothing():
    assert gram_cost("structured", 8, 8, 2, n=0) == gram_cost("explicit", 8, 8, 2, n=0) == 0
    assert gram_paths((8, 8), 2, n=0) == gram_paths((8, 8), 2, n=5, m=0) == ("structured",)


def test_another_path_is_named():
    with pytest.raises(ValueError, match="'structured' or 'explicit', got 'auto'"):
        gram_cost("auto", 8, 8, 2, n=10)
