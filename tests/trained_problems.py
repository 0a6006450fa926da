"""Problems that runs are compared on: linear and not, drawn and fixed points, targets of every kind."""

import torch

import ntkfast as ntk

PROBLEM = ntk.problems.Wave1D()
D = PROBLEM.domain


def burgers(u):
    return u.d(t=1) + u * u.d(x=1) - 0.01 * u.d(x=2)


XY = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PROBLEMS = {
    "wave": PROBLEM,
    "nonlinear": ntk.Problem(
        D, {"edge": ntk.Condition(D.at(x=0) | D.at(x=1), n=8), "r": ntk.Condition(D, burgers, n=12)}
    ),
    "fixed points with targets": ntk.Problem(
        D,
        {
            "data": ntk.Condition(XY, target=XY[:, 0], n=7),
            "all": ntk.Condition(XY, lambda u: {"a": u, "b": u.d(x=1)}, {"a": lambda at: at.t, "b": 2.0}),
            "one": ntk.Condition(D.at(x=0) | D.at(x=1), n=1),
        },
    ),
}
