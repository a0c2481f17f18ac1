# SPDX-License-Identifier: Apache-2.0
"""The one error of the data pipeline."""


class DataError(ValueError):
    """Wrong input. The message names the file, the place and the expectation.

    Characters that a terminal does not show, such as no-break spaces, are escaped.
    """

    def __str__(self) -> str:
        """The message."""
        text = super().__str__()
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
