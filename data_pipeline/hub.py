# SPDX-License-Identifier: Apache-2.0
"""Files of public data sets on the Hugging Face hub."""

from .errors import DataError


def hub_file(repository: str, name: str) -> str:
    """The local path of a data set's file, which is downloaded if it is not cached."""
    advice = (
        "set --config.data.source=csv, --config.data.train=PATH and "
        "--config.data.test=PATH to read files of your own"
    )
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise DataError(
            f"data.source = 'hub' needs the package huggingface_hub "
            f"(pip install 'trm-jax[data]'); or {advice}"
        ) from error
    try:
        cached = hub.try_to_load_from_cache(repository, name, repo_type="dataset")
        if isinstance(cached, str):
            return cached
        # Without a network this fails at once; a download would try for a minute.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, name, repo_type="dataset"))
        return hub.hf_hub_download(repository, name, repo_type="dataset")
    except Exception as error:  # noqa: BLE001  the hub client raises many kinds
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{repository}/{name} cannot be downloaded from the hub "
            f"({type(error).__name__}: {reason}); {advice}"
        ) from error
