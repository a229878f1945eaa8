import json

from tests.campaigns.faults.table import FOUND, PAGE, put_in, table
from tests.campaigns.faults.trial import FAULTS


def test_the_table_in_the_docs_is_that_of_the_published_run() -> None:
    assert put_in(PAGE.read_text(), table(json.loads(FOUND.read_text()))) == PAGE.read_text()


def test_the_run_in_the_docs_tried_every_known_fault() -> None:
    found = {fault["title"]: fault["variants"] for fault in json.loads(FOUND.read_text())["faults"]}
    assert found == {fault.title: len(fault.variants) for fault in FAULTS}
