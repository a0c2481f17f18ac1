# SPDX-License-Identifier: Apache-2.0
"""How durations are shown."""

import math


def clock_time(seconds: float) -> str:
    """Seconds as h:mm:ss; `?` for a number that is not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
