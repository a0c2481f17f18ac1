# SPDX-License-Identifier: Apache-2.0
"""One browser for the tests of pages."""

import pytest

from tests.helpers.browser import CHROMIUM, Page


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()
