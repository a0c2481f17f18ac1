# SPDX-License-Identifier: Apache-2.0
"""The commands: what train.py, eval.py and solve.py do. Importing them defines no flag.

`main(argv)` of each module returns the exit code; `run()` calls it, then exits.
"""
