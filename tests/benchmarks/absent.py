# SPDX-License-Identifier: Apache-2.0
"""An environment in which Python does not find the packages of data and of tests."""

import os

from tests.helpers.runs import ROOT

PACKAGES = ("tensorflow_datasets", "tensorflow", "grain", "array_record", "beartype")


def without_packages(folder):
    """The environment; `folder` gets a module that Python imports at its start."""
    lines = [f"sys.modules[{name!r}] = None" for name in PACKAGES]
    (folder / "sitecustomize.py").write_text("\n".join(["import sys", *lines]))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
