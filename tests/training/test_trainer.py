"""The trainer: what it does in which order, what it leaves alone, and what it refuses."""

import copy
import math

import pytest
import torch

import ntkfast as ntk
from ntkfast.training import History, exponential_decay

PROBLEM = ntk.problems.Wave1D()
FIT = {"record_every": 5, "error_every": 10, "progress": False}


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return ntk.MLP([2, 8, 8, 1], standardize=PROBLEM.domain, dtype=dtype)


def trainer_of(net, **options):
    return ntk.Trainer(PROBLEM, net, **{"weights": ntk.NTKWeights(every=4), "batch": 12, **options})


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_training_lowers_the_loss():
    net = network()
    history = trainer_of(net, optimizer=torch.optim.Adam(net.parameters(), 1e-2), weights=None).fit(150, **FIT)
    total = [sum(history.loss[group][k] for group in history.loss) for k in (0, -1)]
    assert total[1] < 0.5 * total[0]


def test_weights_are_ratios_of_the_traces_per_row_of_the_same_sweep():
    history = trainer_of(network(torch.float64)).fit(1, **FIT)
    traces = {group: series[0] for group, series in history.trace.items()}
    for group, trace in traces.items():
        assert history.weights[group][0] == pytest.approx(sum(traces.values()) / trace, rel=1e-12)
    assert sum(1 / history.weights[group][0] for group in traces) == pytest.approx(1, rel=1e-12)


def test_new_weights_count_from_the_next_iteration_on_and_the_first_ones_are_one():
    adaptive, fixed = network(torch.float64), network(torch.float64)
    first, second = trainer_of(adaptive), trainer_of(fixed, weights=None)
    first.fit(1, **FIT)
    second.fit(1, **FIT)
    assert equal(adaptive, fixed)
    first.fit(1, **FIT)
    second.fit(1, **FIT)
    assert not equal(adaptive, fixed)


def test_weights_are_held_until_they_are_due():
    seen = []
    trainer_of(network()).fit(9, callbacks=[lambda trainer: seen.append(trainer.loss_weights["u"])], **FIT)
    assert len(set(seen[0:4])) == len(set(seen[4:8])) == 1
    assert len(set(seen)) == 3


def test_fixed_weights_scale_the_gradient_of_their_group():
    gradients = {}
    for lam in ({"u": 1, "ut": 0, "r": 0}, {"u": 0, "ut": 1, "r": 1}, {"u": 5, "ut": 2, "r": 2}):
        net = network(torch.float64)
        trainer_of(net, weights=lam, optimizer=torch.optim.SGD(net.parameters(), 0.0)).fit(1, **FIT)
        gradients[lam["u"]] = torch.cat([p.grad.flatten() for p in net.parameters()])
    combined = 5 * gradients[1] + 2 * gradients[0]
    assert (gradients[5] - combined).norm() < 1e-12 * combined.norm()


def test_a_target_trains_like_the_residual_that_contains_it():
    D = PROBLEM.domain
    nets = network(torch.float64), network(torch.float64)
    conditions = (
        ntk.Condition(D, lambda u: u.d(t=1), target=lambda at: at.x, n=5),
        ntk.Condition(D, lambda u, at: u.d(t=1) - at.x, n=5),
    )
    for net, condition in zip(nets, conditions, strict=True):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        ntk.Trainer(ntk.Problem(D, {"r": condition}), net, optimizer=optimizer).fit(3, **FIT)
    assert not equal(nets[0], network(torch.float64))
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-10, atol=1e-12)


def test_fit_means_so_many_more_steps():
    whole, parts = network(), network()
    trainer_of(whole).fit(13, **FIT)
    trainer = trainer_of(parts)
    trainer.fit(6, **FIT)
    trainer.fit(0, **FIT)
    trainer.fit(7, **FIT)
    assert trainer.iteration == 13 and equal(whole, parts)


@pytest.mark.parametrize("own_optimizer", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, own_optimizer):
    def options(net):
        chosen = {"optimizer": torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9), "scheduler": exponential_decay}
        return chosen if own_optimizer else {}

    def weights():
        return ntk.NTKWeights(every=4, normalize="sum", points={"ut": 9})

    whole, broken, resumed = network(), network(), network()
    uninterrupted = trainer_of(whole, seed=3, weights=weights(), **options(whole)).fit(14, **FIT)
    trainer = trainer_of(broken, seed=3, weights=weights(), **options(broken))
    trainer.fit(6, **FIT)
    trainer.save(tmp_path / "deep" / "checkpoint.pt")
    saved = trainer.weights.state_dict()
    trainer = ntk.Trainer.resume(tmp_path / "deep" / "checkpoint.pt", PROBLEM, resumed, **options(resumed))
    for field in ("lam", "traces"):
        assert saved[field] and trainer.weights.state_dict()[field] == saved[field]
    history = trainer.fit(8, **FIT)
    assert equal(whole, resumed)
    for field in ("loss", "weights", "trace"):
        for group, series in getattr(uninterrupted, field).items():
            theirs = dict(zip(getattr(history, field)[group].iterations, getattr(history, field)[group], strict=True))
            assert all(theirs[k] == value for k, value in zip(series.iterations, series, strict=True))


def test_the_seed_draws_the_points_and_nothing_else():
    state = torch.get_rng_state()
    nets = [copy.deepcopy(network()) for _ in range(3)]
    torch.set_rng_state(state)
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        trainer_of(net, seed=seed).fit(2, **FIT)
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(nets[0], nets[1]) and not equal(nets[0], nets[2])


def test_recording_changes_no_bit_of_the_training():
    plain, watched = network(), network()
    trainer_of(plain).fit(9, record_every=1000, error_every=1000, progress=False)
    trainer_of(watched).fit(9, record_every=1, error_every=1, spectra=range(10), progress=False)
    assert equal(plain, watched)


def test_a_frozen_parameter_stays_and_gets_no_gradient():
    net = network()
    frozen = next(net.parameters()).requires_grad_(False)
    before = frozen.clone()
    trainer_of(net).fit(3, **FIT)
    assert frozen.grad is None and torch.equal(frozen, before)


def test_eigenvalues_are_recorded_when_asked_and_add_up_to_the_trace():
    trainer = trainer_of(network(torch.float64))
    history = trainer.fit(5, spectra=(0, 5), **FIT)
    rows = {"u": 12, "ut": 4, "r": 12}
    for group, by_iteration in history.spectrum.items():
        assert list(by_iteration) == [0, 5]
        for k, eigenvalues in by_iteration.items():
            trace = history.trace[group][history.trace[group].iterations.index(k)]
            assert sum(eigenvalues) == pytest.approx(trace * rows[group], rel=1e-10)


def test_fresh_points_for_a_trace_change_the_weights_and_leave_the_sweep_its_own():
    weights = ntk.NTKWeights(every=4, points={"ut": 50})
    fresh, own = trainer_of(network(torch.float64), weights=weights), trainer_of(network(torch.float64))
    a, b = fresh.fit(1, **FIT), own.fit(1, **FIT)
    assert a.trace["u"][0] == b.trace["u"][0] and a.trace["ut"][0] != b.trace["ut"][0]
    assert sum(1 / a.weights[group][0] for group in a.weights) == pytest.approx(1, rel=1e-12)


def test_a_batch_keeps_the_proportions_of_the_conditions():
    trainer = ntk.Trainer(PROBLEM, network(), batch=30)
    trainer.fit(1, **FIT)
    assert trainer._layout.sizes == {"start": 10, "left": 10, "right": 10, "r": 30}
    assert ntk.Trainer(PROBLEM, network(), batch={"r": 7})._layout.sizes["r"] == 7


def test_a_run_that_meets_nan_stops_names_where_and_keeps_its_history(tmp_path):
    net = network()

    def spoil(trainer):
        if trainer.iteration == 7:
            with torch.no_grad():
                next(net.parameters())[0, 0] = math.nan

    trainer = trainer_of(net)
    with pytest.raises(FloatingPointError, match="stopped at iteration 7: the loss of group 'u' is nan"):
        trainer.fit(20, out=tmp_path, callbacks=[spoil], **FIT)
    assert trainer.history.loss["r"].iterations == [0, 5]
    assert History.load(tmp_path).records == trainer.history.records


def test_the_folder_of_a_run_that_is_killed_can_be_resumed(tmp_path):
    def kill(trainer):
        if trainer.iteration == 8:
            raise KeyboardInterrupt

    whole, resumed = network(), network()
    trainer_of(whole).fit(12, **FIT)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(network()).fit(12, out=tmp_path, checkpoint_seconds=0, callbacks=[kill], **FIT)
    trainer = ntk.Trainer.resume(tmp_path / "checkpoint.pt", PROBLEM, resumed)
    assert 0 < trainer.iteration <= 8
    trainer.fit(12 - trainer.iteration, out=tmp_path, **FIT)
    assert equal(whole, resumed)
    assert History.load(tmp_path).records == trainer.history.records


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"weights": {"u": 1.0}}, ValueError, r"exactly the loss groups \('u', 'ut', 'r'\), got \('u',\)"),
        ({"weights": ntk.NTKWeights(points={"v": 3})}, ValueError, r"groups out of .*got 'v'"),
        ({"weights": 3.0}, TypeError, "NTKWeights, a dict of numbers or None, got float"),
        ({"batch": 1}, ValueError, "leaves every condition a point"),
        ({"batch": {"left": 2, "top": 3}}, ValueError, "got 'top'"),
    ],
)
def test_bad_trainers_are_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        trainer_of(network(), **options)


def test_bad_fits_are_refused_before_a_step_is_made(tmp_path):
    net = network()
    trainer = trainer_of(net)
    (tmp_path / "file").write_text("")
    for options, sentence in (
        ({"iterations": -1}, "iterations >= 0, got -1"),
        ({"iterations": 3, "record_every": 0}, "record_every"),
        ({"iterations": 3, "out": tmp_path / "file" / "run"}, "folder that can be written"),
    ):
        with pytest.raises(ValueError, match=sentence):
            trainer.fit(**{"progress": False, **options})
    assert trainer.iteration == 0 and equal(net, network())


def test_resuming_something_else_is_refused(tmp_path):
    net = network()
    trainer_of(net, optimizer=torch.optim.SGD(net.parameters(), 1e-3)).save(tmp_path / "own.pt")
    trainer_of(network()).save(tmp_path / "default.pt")
    torch.save(net.state_dict(), tmp_path / "parameters.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    D = PROBLEM.domain
    wider = ntk.MLP([2, 9, 8, 1], standardize=D)
    sigmoid = ntk.MLP([2, 8, 8, 1], activation="sigmoid", standardize=D)
    frozen = network()
    next(frozen.parameters()).requires_grad_(False)
    other = ntk.Problem(D, {"u": ntk.Condition(D, n=3)})
    renamed = ntk.Problem(D, {**PROBLEM.conditions, "left": ntk.Condition(D.at(x=0), n=100, group="v")})
    for path, problem, into, sentence in (
        ("none.pt", PROBLEM, network(), "expected a checkpoint"),
        ("junk.pt", PROBLEM, network(), "expected a checkpoint at '.*junk.pt', got a file of another kind"),
        ("parameters.pt", PROBLEM, network(), "expected a checkpoint of Trainer.save, got the file '.*parameters.pt'"),
        ("own.pt", PROBLEM, network(), "expected an optimizer of the kind"),
        ("default.pt", PROBLEM, wider, r"expected 0.weight with .*\(8, 2\).*got .*\(9, 2\)"),
        ("default.pt", PROBLEM, network(torch.float64), "float32.*got .*float64"),
        ("default.pt", PROBLEM, sigmoid, r"expected layer '1' as Tanh\(\), got Sigmoid\(\)"),
        ("default.pt", PROBLEM, frozen, "'0.weight'.* to require grad and nothing else"),
        ("default.pt", other, network(), r"conditions \('start', .*got \('u',\)"),
        ("default.pt", renamed, network(), "with the groups .*'left': \\['u'\\].*got .*'left': \\['v'\\]"),
    ):
        before = copy.deepcopy(into)
        with pytest.raises(ValueError, match=sentence):
            ntk.Trainer.resume(tmp_path / path, problem, into)
        assert equal(into, before)


def test_resuming_with_another_optimizer_or_scheduler_is_refused(tmp_path):
    def sgd(net):
        return torch.optim.SGD(net.parameters(), 1e-3)

    net = network()
    trainer_of(net, optimizer=sgd(net)).save(tmp_path / "bare.pt")
    trainer_of(net, optimizer=sgd(net), scheduler=exponential_decay).save(tmp_path / "decay.pt")
    for path, kind, scheduler, sentence in (
        ("bare.pt", torch.optim.RMSprop, None, "expected an optimizer of the kind .* SGD, got RMSprop"),
        ("bare.pt", torch.optim.SGD, exponential_decay, "expected a scheduler .* None, got LambdaLR"),
        ("decay.pt", torch.optim.SGD, None, "expected a scheduler of the kind that the run had, LambdaLR, got None"),
    ):
        net = network()
        with pytest.raises(ValueError, match=sentence):
            ntk.Trainer.resume(tmp_path / path, PROBLEM, net, kind(net.parameters(), 1e-3), scheduler)


def test_a_checkpoint_is_not_saved_onto_a_folder(tmp_path):
    with pytest.raises(ValueError, match="expected the path of a file to save in, got the folder"):
        trainer_of(network()).save(tmp_path)


def test_the_history_of_another_run_is_not_overwritten(tmp_path):
    trainer_of(network()).fit(6, out=tmp_path, **FIT)
    stored = (tmp_path / "history.jsonl").read_bytes()
    trained = trainer_of(network(), seed=1)
    trained.fit(6, **FIT)
    for trainer in (trainer_of(network()), trained):
        with pytest.raises(ValueError, match=f"expected a folder without the history of another run, got '{tmp_path}'"):
            trainer.fit(1, out=tmp_path, **FIT)
        assert (tmp_path / "history.jsonl").read_bytes() == stored


def test_a_run_goes_on_in_its_own_folder(tmp_path):
    trainer = trainer_of(network())
    for n in (0, 6, 4):
        trainer.fit(n, out=tmp_path, **FIT)
    trainer.fit(5, **FIT)  # not in the folder
    trainer.save(tmp_path / "later.pt")
    resumed = ntk.Trainer.resume(tmp_path / "later.pt", PROBLEM, network())
    resumed.fit(3, out=tmp_path, **FIT)
    assert History.load(tmp_path).records == resumed.history.records
    assert max(resumed.history.records) == 18


def foreign(kind, *arguments):
    return kind(network().parameters(), *arguments)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"optimizer": torch.optim.SGD}, TypeError, "expected optimizer as an object.*got the class SGD"),
        ({"optimizer": "adam"}, TypeError, "expected optimizer as an object.*got str"),
        ({"optimizer": foreign(torch.optim.SGD, 0.1)}, ValueError, "this network's parameters, got one with 6 others"),
        ({"scheduler": 0.9}, TypeError, "expected scheduler as a torch scheduler or a function, got float"),
        ({"scheduler": lambda optimizer: 0.9}, TypeError, "got one that makes float"),
        ({"scheduler": exponential_decay(foreign(torch.optim.SGD, 0.1))}, ValueError, "got one of another optimizer"),
        (
            {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau},
            ValueError,
            "without a metric, got ReduceLROnPlateau",
        ),
        ({"seed": "0"}, TypeError, "expected seed as a whole number, got '0'"),
        ({"batch": 12.5}, TypeError, "expected batch as a whole number, or one by condition, got 12.5"),
        ({"weights": {"u": 1.0, "ut": -1.0, "r": 1.0}}, ValueError, "finite weight >= 0 for group 'ut', got -1.0"),
        ({"weights": {"u": 1.0, "ut": "1", "r": 1.0}}, TypeError, "a number as the weight of group 'ut', got str"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        trainer_of(network(), **options)


def test_an_optimizer_holds_all_that_is_trained_and_needs_no_closure():
    net = network()
    for optimizer, sentence in (
        (
            torch.optim.SGD(list(net.parameters())[:-1], 0.1),
            "all parameters that require grad, got one without '4.bias'",
        ),
        (torch.optim.LBFGS(net.parameters()), "steps without a closure, got LBFGS"),
    ):
        with pytest.raises(ValueError, match=sentence):
            trainer_of(net, optimizer=optimizer)
    list(net.parameters())[-1].requires_grad_(False)
    trainer_of(net, optimizer=torch.optim.SGD(list(net.parameters())[:-1], 1e-4)).fit(1, **FIT)


@pytest.mark.parametrize(
    ("problem", "net", "error", "sentence"),
    [
        (network(), network(), TypeError, "expected an ntk.Problem first, got MLP"),
        (ntk.Problem, network(), TypeError, "got the class Problem"),
        (PROBLEM, lambda x: x, TypeError, "expected a network .* after the problem, got function"),
        (PROBLEM, ntk.MLP([3, 4, 1]), ValueError, r"an input column for each of \('t', 'x'\), got 3 columns"),
        (
            PROBLEM,
            torch.nn.Sequential(torch.nn.LayerNorm(2), torch.nn.Linear(2, 1)),
            ValueError,
            "'0' .LayerNorm. is not",
        ),
    ],
)
def test_a_trainer_is_made_of_a_problem_and_a_network_that_fits(problem, net, error, sentence):
    with pytest.raises(error, match=sentence):
        ntk.Trainer(problem, net)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"iterations": 3.0}, "expected iterations as a whole number, got 3.0"),
        ({"iterations": "3"}, "expected iterations as a whole number, got '3'"),
        ({"error_every": 2.5}, "expected error_every as a whole number, got 2.5"),
        ({"checkpoint_seconds": "1"}, "expected checkpoint_seconds as a number, got str"),
        ({"capture": "no"}, "expected capture as True, False or None, got 'no'"),
        ({"spectra": 5}, "expected spectra as a sequence of iterations, got int"),
        ({"spectra": [0, 1.5]}, "expected whole numbers in spectra, got 1.5"),
        ({"callbacks": print}, "expected callbacks as a sequence of functions of the trainer, got builtin"),
        ({"callbacks": [1]}, "expected functions of the trainer in callbacks, got int"),
        ({"out": 5}, "expected out as the path of a folder, got int"),
    ],
)
def test_fits_with_arguments_of_the_wrong_kind_are_refused(options, sentence):
    with pytest.raises(TypeError, match=sentence):
        trainer_of(network()).fit(**{"iterations": 1, "progress": False, **options})
