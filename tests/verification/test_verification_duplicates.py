import threading

from hypothesis import given
from hypothesis import strategies as st

from gas.verification.duplicates import DuplicateIndex, Match, Seen

PHASH = st.integers(0, 2**64 - 1)


def test_nothing_is_a_copy_at_first():
    index = DuplicateIndex()
    assert index.find(5) is None
    assert index.claim(Seen("a", 5)) is None
    assert len(index) == 1


@given(st.lists(PHASH, min_size=1, max_size=30), PHASH)
def test_the_nearest_is_the_nearest_by_counting_bits(hashes, wanted):
    index = DuplicateIndex([Seen(str(i), h) for i, h in enumerate(hashes)])
    match = index.find(wanted)
    assert match is not None
    assert match.distance == min((h ^ wanted).bit_count() for h in hashes)
    assert (hashes[int(match.sha256)] ^ wanted).bit_count() == match.distance


def test_few_bits_apart_is_a_near_duplicate_and_many_are_not():
    index = DuplicateIndex([Seen("a", 0)], near_bits=4)
    assert index.duplicate_of(Seen("b", 0b1111)) == Match("a", 4)
    assert index.duplicate_of(Seen("b", 0b11111)) is None


def test_the_same_bytes_or_pixels_are_an_exact_copy_whatever_their_hash():
    index = DuplicateIndex([Seen("a", 0, "pixels-of-a")])
    assert index.duplicate_of(Seen("a", 2**64 - 1)) == Match("a", 0, exact=True)
    assert index.duplicate_of(Seen("b", 2**64 - 1, "pixels-of-a")) == Match("a", 0, exact=True)


def test_unknown_pixels_are_not_equal_to_other_unknown_pixels():
    index = DuplicateIndex([Seen("a", 0, "")])
    assert index.duplicate_of(Seen("b", 2**64 - 1, "")) is None


def test_an_index_built_again_knows_what_the_first_one_knew():
    seen = [Seen(f"{i}", i * 0x0123456789ABCDEF % 2**64, f"p{i}") for i in range(20)]
    first = DuplicateIndex()
    for medium in seen:
        first.add(medium)
    again = DuplicateIndex(seen)
    for medium in [*seen, Seen("new", 77, "q")]:
        assert first.duplicate_of(medium) == again.duplicate_of(medium)


def test_of_equal_media_that_come_at_once_only_one_is_taken():
    index = DuplicateIndex()
    start = threading.Barrier(8)
    results: list[Match | None] = []

    def deliver():
        start.wait()
        results.append(index.claim(Seen("same", 42)))

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 1
    assert len(index) == 1
