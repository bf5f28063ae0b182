import pytest

from stageline_local.apiserver import served


@pytest.fixture
def server():
    with served() as running:
        yield running
