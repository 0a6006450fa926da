"""Figures: what they show, in which panels, and that nothing is loaded before the first one."""

import subprocess
import sys

import numpy as np
import pytest

from ntkfast import plots
from ntkfast.training import History

K = [0, 100, 200]
CURVE = (K, [1.0, 0.1, 0.01])


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_importing_the_package_and_its_plots_loads_no_matplotlib(tmp_path):
    code = "import sys, ntkfast, ntkfast.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_losses_have_a_panel_a_group_and_a_curve_a_run():
    figure = plots.losses({"a": {"u": CURVE, "ut": CURVE}, "b": {"u": CURVE}})
    assert [len(axis.lines) for axis in figure.axes] == [4, 2]  # the records, and their running mean
    assert titles(figure) == [r"$\mathcal{L}_{u}$", r"$\mathcal{L}_{u_{t}}$"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b"]


def test_the_running_mean_is_geometric_and_as_long_as_the_curve():
    values = np.array([1.0, 100.0] * 200)
    smooth = plots.losses({"a": {"u": (np.arange(400), values)}}).axes[0].lines[1].get_ydata()
    assert len(smooth) == 400 and np.allclose(smooth[10:-10], 10, rtol=0.3)
    exact = plots.losses({"a": {"u": CURVE}}).axes[0].lines[1].get_ydata()
    assert np.allclose(exact, CURVE[1], rtol=1e-12)


def test_errors_draw_every_seed_and_name_each_run_once():
    figure = plots.errors({"a": [CURVE, CURVE], "b": [CURVE]})
    (axis,) = figure.axes
    assert len(axis.lines) == 3
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b"]
    assert axis.get_xlabel() == "iteration" and "error" in axis.get_ylabel()


@pytest.mark.parametrize("values", [[0.3, 0.5, 0.9], [0.97, 0.95, 0.96], [2e-3, 2e-3, 2e-3]])
def test_errors_within_a_decade_have_plain_labels_and_a_grid(values):
    figure = plots.errors({"a": [(K, values)]})
    figure.draw_without_rendering()
    (axis,) = figure.axes
    low, high = axis.get_ylim()
    ticks = [tick for tick in axis.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert len(ticks) >= 3 and all(tick.gridline.get_visible() for tick in ticks)
    assert all(float(tick.label1.get_text()) == pytest.approx(tick.get_loc()) for tick in ticks)


def test_errors_over_decades_are_labelled_in_powers_of_ten():
    figure = plots.errors({"a": [CURVE]})
    figure.draw_without_rendering()
    assert any("10^{-1}" in label.get_text() for label in figure.axes[0].get_yticklabels())


def test_what_a_history_has_is_a_curve():
    history = History()
    for k, loss in zip(*CURVE, strict=True):
        history.add(k, loss={"u": loss}, weights={"u": loss, "r": 1.0}, error=loss)
    axes = (
        plots.losses({"run": history.loss}).axes[0],
        plots.weights(history.weights).axes[0],
        plots.errors({"run": [history.error]}).axes[0],
        plots.drifts({"change": history.error}).axes[0],
    )
    for axis in axes:
        assert list(axis.lines[0].get_xdata()) == CURVE[0] and list(axis.lines[0].get_ydata()) == CURVE[1]


@pytest.mark.parametrize("name", ["my_group", "u 1", "100 %", "a{b}", "$x$", "a\\b", "#^~&\"'", "", "ü_x"])
def test_any_name_of_a_group_can_be_drawn(name):
    for figure in (
        plots.weights({name: CURVE}),
        plots.losses({"a": {name: CURVE}}),
        plots.spectra({name: {0: [2.0, 1.0]}}),
    ):
        figure.draw_without_rendering()


def test_spectra_leave_out_what_is_not_positive():
    (axis,) = plots.spectra({"u": {0: [-1e-18, -2e-18], 10: [2.0, 0.0, -1.0]}}).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[], [2]]


def test_weights_have_a_curve_a_group():
    (axis,) = plots.weights({"u": CURVE, "r": CURVE}).axes
    assert [line.get_label() for line in axis.lines] == [r"$\lambda_{u}$", r"$\lambda_{r}$"]


def test_spectra_are_log_log_and_leave_out_rounding():
    many = [2.0**-k for k in range(20)]
    figure = plots.spectra({"u": {0: [4.0, 1.0, 1e-20, -1e-18], 10: many}, "ut": {0: [2.0, 1.0]}})
    axis, short = figure.axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert [list(line.get_ydata()) for line in axis.lines] == [[4, 1], many]
    assert short.get_xscale() == "linear"  # a handful of eigenvalues is counted


def test_maps_show_exact_predicted_and_error_with_time_along_x():
    t, x = np.linspace(0, 1, 5), np.linspace(0, 1, 4)
    exact = np.outer(t, x)
    figure = plots.maps(t, x, exact, exact + 0.5)
    assert [title.split(" ")[0] for title in titles(figure)] == ["exact", "predicted", "absolute"]
    fields = [axis.collections[0].get_array() for axis in figure.axes[:3]]
    assert np.allclose(fields[0].reshape(4, 5), exact.T) and np.allclose(fields[2], 0.5)


@pytest.mark.parametrize(
    ("scale", "shift", "tips"), [(1, 0, "neither"), (1, 0.5, "max"), (1, -1.5, "min"), (4, -2, "both")]
)
def test_maps_mark_a_prediction_beyond_the_colours_of_the_exact_solution(scale, shift, tips):
    t, x = np.linspace(0, 1, 5), np.linspace(0, 1, 4)
    exact = np.outer(t, x)
    figure = plots.maps(t, x, exact, scale * exact + shift)
    bars = [axis.collections[0].colorbar for axis in figure.axes[:3]]
    assert [bar.extend for bar in bars] == ["neither", tips, "neither"]
    assert bars[0].mappable.get_clim() == bars[1].mappable.get_clim() == (-1, 1)


def test_slices_have_a_panel_a_time():
    x = np.linspace(0, 1, 4)
    figure = plots.slices(x, (0.0, 0.5), np.zeros((2, 4)), {"a": np.ones((2, 4))})
    assert titles(figure) == ["$t = 0.00$", "$t = 0.50$"]
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]


def test_drifts_have_a_panel_a_quantity():
    figure = plots.drifts({"kernel": CURVE, "parameters": CURVE})
    assert titles(figure) == ["kernel", "parameters"]
    assert list(figure.axes[0].lines[0].get_ydata()) == CURVE[1]


def test_modes_pair_a_measurement_with_its_prediction():
    figure = plots.modes([1, 10, 100], {"mode 1": [1.0, 0.1, 0.01]}, {"mode 1": [1.0, 0.2, 0.04]})
    measured, predicted = figure.axes[0].lines
    assert titles(figure) == ["mode 1"]
    assert list(measured.get_ydata()) == [1.0, 0.1, 0.01] and list(predicted.get_ydata()) == [1.0, 0.2, 0.04]


def test_profiles_have_a_panel_a_quantity():
    x = np.linspace(0, 1, 4)
    figure = plots.profiles(x, {"u": {"exact": x, "network": x}, "du": {"exact": x, "network": x}})
    assert titles(figure) == ["u", "du"] and [len(axis.lines) for axis in figure.axes] == [2, 2]


def test_the_joint_kernel_has_a_plain_name():
    figure = plots.spectra({"": {0: [2.0, 1.0]}, "u": {0: [2.0, 1.0]}})
    assert titles(figure) == ["eigenvalues of $K$", "eigenvalues of $K_{u}$"]


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_figures_are_saved_in_the_format_of_their_ending(tmp_path, ending):
    path = plots.save(plots.weights({"ut": CURVE}), tmp_path / f"figure.{ending}")
    assert path.read_bytes()[:4] in (b"\x89PNG", b"%PDF")


def test_drawing_leaves_the_style_of_the_caller_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.weights({"u": CURVE})
    assert dict(matplotlib.rcParams) == before


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a path that can be written, got '.*none"):
        plots.save(plots.weights({"u": CURVE}), tmp_path / "none" / "figure.png")


def test_there_may_be_more_curves_than_colors():
    plots.weights({f"g{i}": ([0, 1], [1.0, 2.0]) for i in range(9)})


def test_the_legend_names_the_curves_of_all_panels():
    figure = plots.losses({"a": {"u": CURVE}, "b": {"r": CURVE}})
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b"]
    figure = plots.spectra({"u": {0: [2.0, 1.0], 500: [2.0, 1.0]}, "r": {0: [3.0, 1.0], 100: [2.0, 1.0]}})
    assert [text.get_text() for text in figure.legends[0].texts] == ["0", "100", "500"]
    u, r = figure.axes[0].lines[0], figure.axes[1].lines[0]
    assert np.array_equal(u.get_color(), r.get_color()), "an iteration has one colour"


def test_what_is_no_number_leaves_the_rest_as_it_is():
    values = np.full(300, 2.0)
    values[7] = np.nan
    smooth = plots.losses({"a": {"u": (np.arange(300), values)}}).axes[0].lines[1].get_ydata()
    assert np.allclose(smooth, 2)
    figure = plots.spectra({"u": {0: [4.0, np.nan, 1.0]}})
    assert figure.axes[0].lines[0].get_ydata().tolist() == [4, 1]
    assert plots.modes([1, 10], {"1": [1.0, np.nan]}, {"1": [1.0, 0.5]}).axes[0].get_ylim() == (1e-10, 10)


@pytest.mark.parametrize("draw", [plots.losses, plots.spectra, plots.drifts])
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(ValueError, match="expected at least one curve to draw, got none"):
        draw({})


@pytest.mark.parametrize("name", ["b", "lambda-0.5", "."])
def test_a_path_without_the_ending_of_a_format_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"expected a path that ends in one of .*\.png"):
        plots.save(plots.errors({"a": [CURVE]}), tmp_path / name)
    assert not list(tmp_path.iterdir())
