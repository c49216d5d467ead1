"""What the tests of the HTTP collectors share."""

from collections.abc import Iterator

import pytest

from tests.integration import bad_server as bad


@pytest.fixture
def server() -> Iterator[bad.Listener]:
    """A web server that does what the test tells it to."""
    with bad.listening() as listener:
        yield listener
