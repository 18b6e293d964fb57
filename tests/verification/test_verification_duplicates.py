import hashlib
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from gas.verification.duplicates import DuplicateIndex, Match, Seen

PHASH = st.integers(0, 2**256 - 1)
FAR = (1 << 128) - 1


def name(text):
    return hashlib.sha256(str(text).encode()).hexdigest()


A, B = name("a"), name("b")


def test_nothing_is_a_copy_at_first():
    index = DuplicateIndex()
    assert index.find(5) is None
    assert index.claim(Seen(A, 5)) is None
    assert len(index) == 1


@settings(deadline=None)
@given(st.lists(PHASH, min_size=1, max_size=30), PHASH)
def test_the_nearest_is_the_nearest_by_counting_bits(hashes, wanted):
    index = DuplicateIndex([Seen(name(i), h) for i, h in enumerate(hashes)])
    match = index.find(wanted)
    assert match is not None
    assert match.distance == min((h ^ wanted).bit_count() for h in hashes)
    names = [name(i) for i in range(len(hashes))]
    assert (hashes[names.index(match.sha256)] ^ wanted).bit_count() == match.distance


def test_few_bits_apart_is_a_near_duplicate_and_many_are_not():
    index = DuplicateIndex([Seen(A, FAR)], near_bits=4)
    assert index.duplicate_of(Seen(B, FAR ^ 0b1111)) == Match(A, 4)
    assert index.duplicate_of(Seen(B, FAR ^ 0b11111)) is None


def test_within_one_prompt_copies_are_looked_for_further():
    index = DuplicateIndex([Seen(A, FAR, prompt="a cat")])
    near = FAR ^ 0b11111111
    match = index.duplicate_of(Seen(B, near, prompt="a cat"))
    assert match is not None
    assert (match.kind, match.distance) == ("prompt", 8)
    assert index.duplicate_of(Seen(B, near, prompt="a dog")) is None
    assert index.duplicate_of(Seen(B, near)) is None
    assert index.duplicate_of(Seen(B, near ^ 1 << 200, prompt="a cat")) is None


def test_the_same_bytes_or_pixels_are_an_exact_copy_whatever_their_hash():
    index = DuplicateIndex([Seen(A, 0, "abc123")])
    assert index.duplicate_of(Seen(A, FAR)) == Match(A, 0, exact=True, kind="bytes")
    assert index.duplicate_of(Seen(B, FAR, "abc123")) == Match(A, 0, exact=True, kind="pixels")


def test_unknown_pixels_are_not_equal_to_other_unknown_pixels():
    index = DuplicateIndex([Seen(A, 0, "")])
    assert index.duplicate_of(Seen(B, FAR, "")) is None


def test_ones_own_delivery_is_no_copy_of_itself_and_takes_one_place():
    index = DuplicateIndex()
    mine = Seen(A, FAR, "ff", owner="validator/miner/task")
    assert index.claim(mine) is None
    assert index.claim(mine) is None
    assert len(index) == 1
    assert index.claim(Seen(A, FAR, "ff", owner="validator/thief/task")) is not None


def test_an_index_built_again_knows_what_the_first_one_knew():
    seen = [Seen(name(i), i * 0x0123456789ABCDEF**4 % 2**256, f"{i + 1:x}") for i in range(20)]
    first = DuplicateIndex()
    for medium in seen:
        first.add(medium)
    again = DuplicateIndex(Seen.from_facts(medium.sha256, medium.as_facts()) for medium in seen)
    for medium in [*seen, Seen(name("new"), 77, "abc")]:
        assert first.duplicate_of(medium) == again.duplicate_of(medium)


def test_of_equal_media_that_come_at_once_only_one_is_taken():
    index = DuplicateIndex()
    start = threading.Barrier(8)
    results: list[Match | None] = []

    def deliver():
        start.wait()
        results.append(index.claim(Seen(name("same"), 42)))

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 1
    assert len(index) == 1
