"""PEP 517 backend: setuptools, building against the torch that is already installed.

Torch among `build-system.requires` would unpack gigabytes into the isolated build environment for a build of seconds.
The extension uses the stable ABI only, so any torch that is new enough will do: the one of the target environment,
and only if there is none is one asked for.
"""

from __future__ import annotations

import sys

from setuptools import build_meta as _setuptools
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from torch_install import REQUIREMENT, first_torch, target_folders

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def _torch_requirement() -> list[str]:
    found = first_torch(sys.path) or first_torch(target_folders())
    return [] if found is not None and found.new_enough else [REQUIREMENT]


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:
    """Return what setuptools asks for, and a torch if the target environment has none."""
    return _setuptools.get_requires_for_build_wheel(config_settings) + _torch_requirement()


def get_requires_for_build_editable(config_settings: dict | None = None) -> list[str]:
    """Return what setuptools asks for, and a torch if the target environment has none."""
    return _setuptools.get_requires_for_build_editable(config_settings) + _torch_requirement()
