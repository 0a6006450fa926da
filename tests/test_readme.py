"""What the README shows runs, and says the same as the library."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ntkfast as ntk

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_plain_torch_lines_equal_the_trace():
    plain = blocks("python")[0]
    torch.manual_seed(0)
    net, x = ntk.MLP([2, 8, 8, 1], dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    known = {"torch": torch, "net": net, "x": x}
    exec(plain, known)
    fast: dict = {}
    exec(blocks("python")[1].split("net, x =")[0], fast)
    assert torch.isclose(ntk.trace(net, x, fast["wave"]), known["trace"], rtol=1e-12)


def test_the_api_lines_run():
    torch.manual_seed(0)
    known: dict = {}
    exec(blocks("python")[1], known)
    assert known["K"].shape == (300, 300) and torch.equal(known["K"], known["K"].T)
    assert set(known["lam"]) == {"u", "r"}
    assert len(known["history"].loss["r"].values) > 0


def test_the_problem_of_ones_own_runs_and_its_solution_solves_it():
    torch.manual_seed(0)
    known: dict = {"torch": torch, "ntk": ntk}
    exec(blocks("python")[2], known)
    problem = known["own"]

    class Exact(torch.nn.Module):
        def forward(self, xy):
            x, y = xy.unbind(1)  # ntk.Points would detach them
            return problem.exact(SimpleNamespace(x=x, y=y))[:, None]

    for name, condition in problem.conditions.items():
        points = condition.draw(20, torch.Generator().manual_seed(0), torch.float64).points.xy
        rows = ntk.reference.rows(Exact(), points, condition.residual)
        assert rows.abs().max() < 1e-12, name


def test_the_commands_are_those_of_the_checks():
    install, test = blocks("bash")[0].splitlines()
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert test.split(" && ")[0] in script and test.split(" && ")[1].strip() == "pytest"
    assert install.split(" && ")[1].strip() in script


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str):
    assert (ROOT / target).exists()


def test_it_is_short():
    assert len(README.splitlines()) <= 150
