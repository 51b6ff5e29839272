"""2,000 changed files: each is read, or refused by an error that names it; `make fuzz N=...` runs any number."""

import pytest
from fuzz.corpus import build_corpus
from fuzz.driver import GROWTH, Kind, fuzz

MUTATIONS = 2000


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    pytest.importorskip("av")
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_changed_file_ends_otherwise(kinds, tmp_path):
    outcome = fuzz(kinds, MUTATIONS, tmp_path)
    assert not outcome.faults, str(outcome)
    assert outcome.growth_mb < GROWTH
    assert all(count > 5 for count in outcome.ran.values())
    assert sum(outcome.read.values()) < MUTATIONS  # the changes do reach the decoders


def test_the_driver_sees_what_it_counts(tmp_path):
    (seed := tmp_path / "a.bin").write_bytes(b"good")

    def decode(path):
        if path.read_bytes() != b"good":
            raise KeyError("not typed")

    outcome = fuzz({"kind": Kind((seed,), decode, 1)}, 20, tmp_path)
    assert outcome.untyped > 0 and outcome.faults
