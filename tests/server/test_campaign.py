"""Every fault that can be tried on the shared server. The other faults have a server of their own."""

from pathlib import Path

import pytest

from tests.campaigns.faults.fault import Fault, Needs
from tests.campaigns.faults.target import Target, warm_up
from tests.campaigns.faults.trial import FAULTS, tried
from tests.running_server import RunningServer

SHARED = [fault for fault in FAULTS if fault.needs is Needs.ANY]


@pytest.fixture(scope="session")
def target(server: RunningServer, adapter_root: Path) -> Target:
    made = Target(server, server.log.parent / "data", adapter_root)
    warm_up(made)
    return made


@pytest.mark.parametrize("fault", SHARED, ids=lambda fault: fault.title)
def test_everything_is_as_it_was_after(target: Target, fault: Fault) -> None:
    outcome = tried(target, fault, each=False)
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert outcome.variants == len(fault.variants)
