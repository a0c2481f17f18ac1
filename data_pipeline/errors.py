# SPDX-License-Identifier: Apache-2.0
"""The one error of the data pipeline, and how its messages are shown."""


def visible(text: str) -> str:
    """The text with what a terminal does not show, such as no-break spaces, escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DataError(ValueError):
    """Wrong input. The message names the file, the place and the expectation."""

    def __str__(self) -> str:
        """The message, with unseen characters escaped."""
        return visible(super().__str__())
