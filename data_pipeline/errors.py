# SPDX-License-Identifier: Apache-2.0
"""The one error of the data pipeline."""


class DataError(ValueError):
    """Wrong input. The message names the file, the place and the expectation."""
