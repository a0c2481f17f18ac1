# SPDX-License-Identifier: Apache-2.0
"""Fixtures that the tests of prepared data sets share."""

import pytest


@pytest.fixture(scope="session")
def tfds():
    reason = "needs the extra `data`: tensorflow-datasets, array_record"
    pytest.importorskip("array_record", reason=reason)
    return pytest.importorskip("tensorflow_datasets", reason=reason)


@pytest.fixture
def serve_hub(monkeypatch):
    """A function that serves files by split, like the hub, and returns its requests."""
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra `data`")

    def serve(files):
        asked = []

        def download(repository, name, *, repo_type):
            asked.append((repository, name, repo_type))
            return files[name.removesuffix(".csv")]

        monkeypatch.setattr(hub, "hf_hub_download", download)
        monkeypatch.setattr(hub, "get_hf_file_metadata", lambda _: None)
        monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
        return asked

    return serve
