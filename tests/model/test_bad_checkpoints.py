"""A model folder that is wrong in any way is refused with a sentence, before weights are read."""

from __future__ import annotations

import pytest

from stageline_worker.model import ModelError, load, profile
from support.spoiled import BAD


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_bad_checkpoint_is_refused_by_profile_and_load_with_one_sentence(spoil, llama):
    spoil(llama)
    refusals = []
    for attempt in (profile, lambda uri: load(uri, (0, 2))):
        with pytest.raises(ModelError) as refusal:
            attempt(llama.as_uri())
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1]
    assert BAD[spoil] in refusals[0]
    assert "\n" not in refusals[0], "a refusal is one line"
    assert "Traceback" not in refusals[0]
