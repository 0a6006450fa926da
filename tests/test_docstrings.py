"""Every example in a docstring runs and prints what it says; every public name has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import ntkfast as ntk
from ntkfast import plots

MODULES = sorted(m.name for m in pkgutil.walk_packages(ntk.__path__, "ntkfast.") if not m.name.endswith("__main__"))
CALLABLES = sorted(name for name in ntk.__all__ if inspect.isroutine(getattr(ntk, name)))
CLASSES = sorted(name for name in ntk.__all__ if inspect.isclass(getattr(ntk, name)))
OTHERS = sorted(
    f"{module.__name__}.{name}"
    for module in (plots, ntk.problems)
    for name, found in vars(module).items()
    if inspect.isfunction(found) and not name.startswith("_") and found.__module__.startswith(module.__name__)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    module = importlib.import_module(name)
    torch.manual_seed(0)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.failed == 0
    if module is plots:  # their decorator could hide them
        assert found.attempted >= 2 * sum(name.startswith(plots.__name__) for name in OTHERS)


@pytest.mark.parametrize("name", CALLABLES)
def test_public_functions_say_what_they_take_give_refuse_and_cost(name: str):
    text = inspect.getdoc(getattr(ntk, name)) or ""
    for section in ("Args:", "Returns:", "Raises:", "Cost", "Example"):
        assert section in text, f"ntk.{name}: no {section}"


@pytest.mark.parametrize("name", [*CLASSES, *OTHERS])
def test_public_classes_and_figures_have_an_example(name: str):
    module, _, own = name.rpartition(".")
    text = inspect.getdoc(getattr(importlib.import_module(module or "ntkfast"), own)) or ""
    assert "Example:" in text and ">>>" in text, name
