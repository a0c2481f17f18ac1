# SPDX-License-Identifier: Apache-2.0
"""CPU times of calls and processes, since other work may share the machine."""

import resource
import time


def least_seconds(act, times=3):
    """The CPU seconds that the fastest of several calls takes."""

    def once():
        began = time.process_time()
        act()
        return time.process_time() - began

    return min(once() for _ in range(times))


def seconds_of_children():
    """The CPU seconds that ended child processes have taken so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
