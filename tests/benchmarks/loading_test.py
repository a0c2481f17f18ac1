# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from benchmarks.loading import Waiting


@pytest.mark.parametrize(("makes_s", "uses_s"), [(0.02, 0.002), (0.002, 0.02)])
def test_waiting_is_the_time_until_a_batch_is_there(makes_s, uses_s):
    def batches(load, first, last):
        for k in range(first, last):
            time.sleep(makes_s * (50 if k == 3 else 1))  # the warm-up is slow
            yield load(k)

    waiting = Waiting(batches, warm_up=1)
    for batch in waiting(lambda k: {"k": k}, 3, 9):
        time.sleep(uses_s)
        assert batch["k"] in range(3, 9)
    assert waiting.count == 5
    row = waiting.row()
    assert 22 <= row["ms_per_step"] < 200
    assert (row["waiting_percent"] > 50) == (makes_s > uses_s)
