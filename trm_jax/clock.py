# SPDX-License-Identifier: Apache-2.0
"""How durations are shown."""


def clock_time(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
