# SPDX-License-Identifier: Apache-2.0
"""What the tests of prepared data sets share."""

import pytest


@pytest.fixture(scope="session")
def tfds():
    reason = "needs the extra `data`: tensorflow-datasets, array_record"
    pytest.importorskip("array_record", reason=reason)
    return pytest.importorskip("tensorflow_datasets", reason=reason)


@pytest.fixture
def serve_hub(monkeypatch):
    """Serves the local `files`, by split, as the hub's; returns what it was asked."""
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra `data`")

    def serve(files):
        asked = []

        def download(repository, name, *, repo_type):
            asked.append((repository, name, repo_type))
            return files[name.removesuffix(".csv")]

        monkeypatch.setattr(hub, "hf_hub_download", download)
        return asked

    return serve
