from pathlib import Path

import pytest

from tests.campaigns import bad_adapters
from tests.campaigns.peft_oracle import PeftOracle


def test_peft_loads_every_accepted_adapter_unchanged(tmp_path: Path) -> None:
    tally = bad_adapters.run(200, 1, tmp_path)
    # The long run checks time and memory, on a machine without other load.
    faults = [fault for fault in tally.faults if not fault.endswith(" MB")]
    assert not faults, "\n".join(faults)
    assert 0 < tally.accepted < 200
    assert len(tally.refused) > 10


def test_a_hole_in_admission_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeftOracle, "why_not", lambda *_: "it is not")
    tally = bad_adapters.run(20, 1, tmp_path)
    assert any("PEFT says: it is not" in fault for fault in tally.faults)
