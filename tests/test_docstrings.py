"""Every example in a docstring runs and prints what it says; every public name has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import ntkfast as ntk

MODULES = sorted(m.name for m in pkgutil.walk_packages(ntk.__path__, "ntkfast.") if not m.name.endswith("__main__"))
CALLABLES = sorted(name for name in ntk.__all__ if inspect.isroutine(getattr(ntk, name)))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    module = importlib.import_module(name)
    torch.manual_seed(0)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.failed == 0


@pytest.mark.parametrize("name", CALLABLES)
def test_public_functions_say_what_they_take_give_refuse_and_cost(name: str):
    text = inspect.getdoc(getattr(ntk, name)) or ""
    for section in ("Args:", "Returns:", "Raises:", "Cost", "Example"):
        assert section in text, f"ntk.{name}: no {section}"
