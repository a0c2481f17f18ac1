# SPDX-License-Identifier: Apache-2.0
"""ARC-AGI and ConceptARC: files, grids, augmentations, submissions."""
