from __future__ import annotations

import dataclasses
import hashlib
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.clock import derive_seed
from gas.datasets.drawing import fill, hash_words, mix, places
from gas.datasets.items import Item, item_schema, items_to_table
from gas.datasets.plan_draw import CANDIDATE_COLUMNS, draw_plan, slim
from gas.datasets.plan_file import Plan
from gas.datasets.plan_spec import FULL_SIZES, PlanMode, PlanSpec
from gas.errors import ConfigurationError
from gas.types import MediaType, Modality, Provenance


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def item(name: object, dataset: str, kind: MediaType = MediaType.REAL, **changes: object) -> Item:
    sha256 = digest(name)
    made = Item(
        sha256=sha256,
        dataset=dataset,
        modality=Modality.IMAGE,
        media_type=kind,
        mime="image/jpeg",
        size=1000,
        path=f"{name}.jpg",
        source=dataset,
        origin=sha256,
        generator="" if kind is MediaType.REAL else "diffusion",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def many(dataset: str, count: int, kind: MediaType = MediaType.REAL, **changes: object) -> list[Item]:
    return [item(f"{dataset}/{i}", dataset, kind, **changes) for i in range(count)]


def spec(mode: PlanMode = PlanMode.FULL, seed: int = 7, **changes: object) -> PlanSpec:
    return PlanSpec(Modality.IMAGE, mode, seed, **changes)  # type: ignore[arg-type]


def draw(items: list[Item], wanted: PlanSpec) -> Plan:
    return draw_plan(items_to_table(items), wanted)


def ids(plan: Plan, dataset: str | None = None) -> set[str]:
    return {s.sample_id for s in plan.samples() if dataset in (None, s.dataset)}


def by_set(plan: Plan) -> dict[str, int]:
    return dict(Counter(s.dataset for s in plan.samples()))


def slow_mix(word: int, key: int) -> int:
    mask = (1 << 64) - 1
    z = ((word ^ key) + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def slow_place(sha256: str, seed: int) -> tuple[int, str]:
    return slow_mix(int(sha256[:16], 16), derive_seed(seed, "plan", "place")), sha256


def slow_levels(sizes: list[int], weights: list[int], total: int) -> list[int]:
    """One medium at a time to the set that is furthest behind, as long as there is a strictly poorest."""
    given_ = [0] * len(sizes)
    for _ in range(min(total, sum(sizes))):
        open_ = [i for i in range(len(sizes)) if given_[i] < sizes[i]]
        best = min(open_, key=lambda i: (given_[i] + 1) / weights[i])
        given_[best] += 1
    return given_


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(0, 2**64 - 1))
def test_the_mixing_is_splitmix64_and_vectorised_as_the_plain_one(words: list[int], key: int) -> None:
    assert mix(np.array(words, np.uint64), key).tolist() == [slow_mix(word, key) for word in words]


def test_the_mixing_agrees_with_the_published_generator() -> None:
    # First outputs of splitmix64 seeded with 1234567, from the author's reference implementation.
    state, golden, out = 1234567, 0x9E3779B97F4A7C15, []
    for _ in range(3):
        out.append(int(mix(np.array([state], np.uint64), 0)[0]))
        state = (state + golden) % 2**64
    assert out == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("form", ["plain", "sliced", "chunked", "dictionary", "large"])
def test_hash_words_are_the_first_eight_bytes_in_any_form_of_column(form: str) -> None:
    texts = [digest(i) for i in range(100)]
    column = pa.array(texts)
    forms = {
        "plain": column,
        "sliced": pa.array(["x" * 64, *texts, "y" * 64]).slice(1, 100),
        "chunked": pa.chunked_array([column[:30], column[30:30], column[30:]]),
        "dictionary": column.dictionary_encode(),
        "large": column.cast(pa.large_string()),
    }
    assert hash_words(forms[form]).tolist() == [int(text[:16], 16) for text in texts]


@pytest.mark.parametrize("bad", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, None])
def test_what_is_no_hash_is_refused(bad: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        hash_words(pa.array([digest(1), bad]))
    assert caught.value.error_code == "bad_candidates"


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([1, 5])), min_size=1, max_size=8),
    st.integers(0, 200),
    st.integers(0, 5),
)
def test_filling_gives_everything_out_and_differs_from_the_plain_way_by_rounding_only(
    sets: list[tuple[int, int]], total: int, seed: int
) -> None:
    sizes, weights = [size for size, _ in sets], [weight for _, weight in sets]
    names = [str(i) for i in range(len(sets))]
    out = fill(names, sizes, weights, total, seed)
    assert sum(out) == min(total, sum(sizes))
    assert all(0 <= n <= size for n, size in zip(out, sizes, strict=True))
    slow = slow_levels(sizes, weights, total)
    assert all(abs(a - b) <= w for a, b, w in zip(out, slow, weights, strict=True))
    backwards = fill(names[::-1], sizes[::-1], weights[::-1], total, seed)
    assert backwards[::-1] == out


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_full_draw_equals_the_plain_one_in_any_order(reals: int, fakes: int, seed: int, order: random.Random) -> None:
    items = many("a", reals + 1) + many("b", 25) + many("f", fakes + 1, MediaType.SYNTHETIC)
    order.shuffle(items)
    plan = draw(items, spec(seed=seed, total=40))
    sizes = {"a": reals + 1, "b": 25}
    given_ = dict(zip(sizes, fill(list(sizes), list(sizes.values()), [1, 1], 20, seed), strict=True))
    expected: set[str] = set()
    for name, count in {**given_, "f": min(20, fakes + 1)}.items():
        mine = sorted((i.sha256 for i in items if i.dataset == name), key=lambda s: slow_place(s, seed))
        expected |= set(mine[:count])
    assert ids(plan) == expected
    assert [s.sample_id for s in plan.samples()] == sorted(expected)
    assert plan.data_hash == draw(items[::-1], spec(seed=seed, total=40)).data_hash


def slow_plan(items: list[Item], wanted: PlanSpec) -> set[tuple[str, str]]:
    """The whole drawing, one medium at a time: ids and data sets of what is drawn."""
    order = (Provenance.HOLDOUT, Provenance.ARENA, Provenance.PUBLIC)

    def rank(one: Item) -> int:
        return order.index(wanted.provenance_of(one.dataset))

    copies: dict[str, list[Item]] = {}
    for one in items:
        if one.modality is wanted.modality:
            copies.setdefault(one.sha256, []).append(one)
    media = [
        min(same, key=lambda i: (rank(i), i.dataset, i.media_type, i.mime, i.source, i.origin, i.generator, i.category))
        for same in copies.values()
        if len({i.media_type for i in same}) == 1
    ]
    held = {i.origin for i in media if rank(i) == 0}
    media = [i for i in media if rank(i) == 0 or i.origin not in held]
    media = [
        i
        for i in media
        if wanted.wants_set(i.dataset)
        and (not wanted.categories or i.category in wanted.categories)
        and (not wanted.families or not i.media_type.is_fake or i.generator in wanted.families)
        and (not wanted.holdout_only or rank(i) == 0)
    ]
    drawn: set[tuple[str, str]] = set()
    for fake in (False, True):
        side = [i for i in media if i.media_type.is_fake == fake]
        names = sorted({i.dataset for i in side})
        sizes = [sum(i.dataset == name for i in side) for name in names]
        factors = [wanted.arena_factor if wanted.provenance_of(name) is Provenance.ARENA else 1 for name in names]
        most = wanted.most or 0
        for name, count in zip(
            names, fill(names, sizes, factors, most // 2 if fake else most - most // 2, wanted.seed), strict=True
        ):
            kinds = [kind for kind in MediaType if kind.is_fake == fake]
            have = [sum(i.dataset == name and i.media_type is kind for i in side) for kind in kinds]
            labels = [f"{name}/{kind}" for kind in kinds]
            for kind, quota in zip(kinds, fill(labels, have, [1] * len(kinds), count, wanted.seed), strict=True):
                mine = [i.sha256 for i in side if i.dataset == name and i.media_type is kind]
                drawn |= {(sha, name) for sha in sorted(mine, key=lambda s: slow_place(s, wanted.seed))[:quota]}
    return drawn


_ROWS = st.lists(
    st.builds(
        lambda name, dataset, kind, origin, category, generator: item(
            name,
            dataset,
            kind,
            origin=digest(origin),
            category=category,
            generator="" if kind is MediaType.REAL else generator,
        ),
        st.integers(0, 30),
        st.sampled_from(["a", "b", "held", "arena"]),
        st.sampled_from(list(MediaType)),
        st.integers(0, 40),
        st.sampled_from(["food", "scene"]),
        st.sampled_from(["gan", "diffusion"]),
    ),
    max_size=60,
)


@given(
    _ROWS,
    st.integers(2, 30),
    st.integers(0, 3),
    st.sampled_from(
        [{}, {"include": ("a", "held")}, {"categories": ("food",)}, {"families": ("gan",)}, {"holdout_only": True}]
    ),
)
def test_every_rule_together_agrees_with_the_plain_drawing(
    items: list[Item], total: int, seed: int, filters: dict[str, object]
) -> None:
    flags = {"held": Provenance.HOLDOUT, "arena": Provenance.ARENA}
    wanted = spec(seed=seed, total=total, provenances=flags, **filters)
    expected = slow_plan(items, wanted)
    kinds = {i.media_type.is_fake for i in items for sha, name in expected if (i.sha256, i.dataset) == (sha, name)}
    if len(kinds) < 2:
        with pytest.raises(ConfigurationError):
            draw(items, wanted)
        return
    plan = draw(items, wanted)
    assert {(s.sample_id, s.dataset) for s in plan.samples()} == expected
    plan.to_round()


def test_seeds_draw_differently_and_name_every_samples_own_seed() -> None:
    items = many("a", 300) + many("f", 300, MediaType.SYNTHETIC)
    first, second = draw(items, spec(seed=1, total=100)), draw(items, spec(seed=2, total=100))
    assert len(ids(first) & ids(second)) < 60
    seeds = first.table["seed"].to_pylist()
    assert len(set(seeds)) == 100
    key = derive_seed(1, "plan", "sample")
    assert seeds == [slow_mix(int(s.sample_id[:16], 16), key) for s in first.samples()]


def test_other_sets_only_shorten_a_sets_draw() -> None:
    old = many("a", 200) + many("f", 200, MediaType.SYNTHETIC)
    new = old + many("b", 200) + many("g", 200, MediaType.SYNTHETIC)
    before, after = draw(old, spec(total=100)), draw(new, spec(total=100))
    for name in ("a", "f"):
        assert len(ids(after, name)) == 25
        assert ids(after, name) < ids(before, name)
    assert ids(draw(new, spec(total=200)), "a") == ids(before, "a")


def test_arena_sets_give_five_times_as_much() -> None:
    items = many("a", 1000)
    for name in ("f", "g", "arena"):
        items += many(name, 1000, MediaType.SYNTHETIC, hotkey="5Hot" if name == "arena" else None)
    plan = draw(items, spec(total=1400, provenances={"arena": Provenance.ARENA}))
    assert by_set(plan) == {"a": 700, "f": 100, "g": 100, "arena": 500}
    assert {s.generator_hotkey for s in plan.samples() if s.dataset == "arena"} == {"5Hot"}


def test_a_small_plan_takes_about_a_hundred_of_a_set_and_balances() -> None:
    items = many("a", 1000) + many("b", 40)
    for name in ("f", "g", "h"):
        items += many(name, 400, MediaType.SYNTHETIC)
    plan = draw(items, spec(PlanMode.SMALL))
    assert by_set(plan) == {"a": 260, "b": 40, "f": 100, "g": 100, "h": 100}
    many_sets = [i for k in range(70) for i in many(f"r{k}", 120) + many(f"f{k}", 120, MediaType.SYNTHETIC)]
    plan = draw(many_sets, spec(PlanMode.SMALL))
    assert len(plan) == 5000
    assert set(by_set(plan).values()) == {35, 36}


def test_a_debug_plan_has_some_of_every_class_even_of_rare_ones() -> None:
    items = many("a", 50) + many("f", 50, MediaType.SYNTHETIC) + [item("rare", "f", MediaType.SEMISYNTHETIC)]
    items += many("arena", 50, MediaType.SYNTHETIC)
    plan = draw(items, spec(PlanMode.DEBUG, provenances={"arena": Provenance.ARENA}))
    assert plan.datasets == {"a/real": 3, "f/synthetic": 3, "f/semisynthetic": 1, "arena/synthetic": 3}
    assert set(draw(items, spec(PlanMode.DEBUG, per_set=1)).datasets.values()) == {1}


def test_a_side_with_too_few_media_gives_all_and_the_other_keeps_to_its_half() -> None:
    plan = draw(many("a", 10) + many("f", 500, MediaType.SYNTHETIC), spec(total=100))
    assert by_set(plan) == {"a": 10, "f": 50}


def test_both_kinds_of_fakes_of_a_set_share_its_place() -> None:
    items = many("a", 100) + many("f", 90, MediaType.SYNTHETIC)
    items += [item(f"s{i}", "f", MediaType.SEMISYNTHETIC, mask_sha256=digest(f"m{i}")) for i in range(10)]
    plan = draw(items, spec(total=60))
    assert plan.datasets == {"a/real": 30, "f/synthetic": 20, "f/semisynthetic": 10}
    masks = [m for m in plan.table["mask_sha256"].to_pylist() if m]
    assert len(masks) == 10


def test_weights_follow_the_shares_of_the_provenance_classes() -> None:
    items = many("a", 60) + many("held", 30) + many("f", 80, MediaType.SYNTHETIC)
    plan = draw(items, spec(provenances={"held": Provenance.HOLDOUT}, total=1000))
    weights = plan.table["weight"].to_numpy()
    held = np.array([s.provenance is Provenance.HOLDOUT for s in plan.samples()])
    assert weights.mean() == pytest.approx(1)
    assert weights[held].sum() / weights.sum() == pytest.approx(0.3 / 0.8)
    assert plan.sizes == {"holdout/real": 30, "public/real": 60, "public/synthetic": 80}


def test_filters_choose_by_name_category_family_and_provenance() -> None:
    items = many("people", 20, category="portrait") + many("food", 20, category="food")
    items += many("gan", 20, MediaType.SYNTHETIC, generator="gan") + many("held-f", 20, MediaType.SYNTHETIC)
    items += many("held-r", 20) + many("arena-x", 20, MediaType.SYNTHETIC)
    flags = {"held-f": Provenance.HOLDOUT, "held-r": Provenance.HOLDOUT, "arena-x": Provenance.ARENA}

    def sets(**changes: object) -> set[str]:
        return set(by_set(draw(items, spec(provenances=flags, **changes))))

    assert sets() == {"people", "food", "gan", "held-f", "held-r", "arena-x"}
    assert sets(include=("held-*",)) == {"held-f", "held-r"}
    assert sets(exclude=("held-*", "arena-*", "food")) == {"people", "gan"}
    assert sets(families=("gan",)) == {"people", "food", "held-r", "gan"}
    assert sets(categories=("portrait", "other")) == {"people", "gan", "held-f", "held-r", "arena-x"}
    assert sets(holdout_only=True) == {"held-f", "held-r"}
    assert sets(arena_only=True) == {"people", "food", "held-r", "arena-x"}


def test_other_modalities_are_left_aside() -> None:
    items = many("a", 5) + many("f", 5, MediaType.SYNTHETIC) + many("v", 5, modality=Modality.VIDEO)
    assert set(by_set(draw(items, spec()))) == {"a", "f"}


@pytest.mark.parametrize(
    ("items", "changes", "code"),
    [
        ([], {}, "empty_round"),
        (many("a", 3), {}, "one_class"),
        (many("f", 3, MediaType.SYNTHETIC), {}, "one_class"),
        (many("a", 3) + many("f", 3, MediaType.SYNTHETIC), {"include": ("nothing",)}, "empty_round"),
        (many("a", 3) + many("f", 3, MediaType.SYNTHETIC), {"families": ("gan",)}, "one_class"),
        (many("a", 3, modality=Modality.AUDIO), {}, "empty_round"),
    ],
)
def test_nothing_or_one_class_is_a_typed_error(items: list[Item], changes: dict[str, object], code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        draw(items, spec(**changes))
    assert caught.value.error_code == code


@pytest.mark.parametrize(
    ("column", "values"),
    [("sha256", ["no hash"]), ("media_type", ["fake"]), ("origin", ["x"]), ("mime", [None]), ("dataset", [[1]])],
)
def test_candidates_that_make_no_sense_are_refused(column: str, values: list[object]) -> None:
    table = items_to_table(many("a", 5) + many("held", 5) + many("f", 5, MediaType.SYNTHETIC))
    at = table.column_names.index(column)
    broken = table.set_column(at, column, pa.array(values * 15))
    for candidates in (broken, table.drop_columns([column])):
        with pytest.raises(ConfigurationError) as caught:
            draw_plan(candidates, spec(provenances={"held": Provenance.HOLDOUT}))
        assert caught.value.error_code == "bad_candidates"


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"total": 0},
        {"per_set": 0},
        {"arena_factor": 0},
        {"holdout_only": True, "arena_only": True},
        {"shares": {Provenance.PUBLIC: 0.4}},
        {"mode": PlanMode.DEBUG, "total": 5},
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        spec(**changes)


def test_a_medium_in_two_sets_counts_once_and_the_holdout_keeps_it() -> None:
    shared = [item("s", "public"), item("s", "held"), item("s", "public", path="copy.jpg", category="x")]
    items = [*shared, *many("f", 5, MediaType.SYNTHETIC)]
    for order in (items, items[::-1]):
        plan = draw(order, spec(provenances={"held": Provenance.HOLDOUT}))
        assert by_set(plan) == {"held": 1, "f": 5}
        assert plan.dropped == {"duplicate": 2}
    # Whether the held-out set is asked for or not: the copy never comes back as a public medium.
    with pytest.raises(ConfigurationError):
        draw(items, spec(provenances={"held": Provenance.HOLDOUT}, exclude=("held",)))


def test_copies_in_one_set_are_chosen_by_their_content_and_not_by_their_order() -> None:
    items = [item("s", "a", category=word) for word in ("food", "animal", "scene")] + many("f", 3, MediaType.SYNTHETIC)
    plans = {draw(order, spec()).data_hash for order in (items, items[::-1], items[1:] + items[:1])}
    assert len(plans) == 1


def test_a_medium_with_contradictory_labels_is_left_out_wholly() -> None:
    items = [*many("a", 5), *many("f", 5, MediaType.SYNTHETIC), item("a/0", "f", MediaType.SYNTHETIC)]
    plan = draw(items, spec())
    assert digest("a/0") not in ids(plan)
    assert by_set(plan) == {"a": 4, "f": 5}
    assert plan.dropped == {"contradictory": 2}


def test_contradictory_labels_are_named_when_they_leave_only_one_class() -> None:
    rows = [item(1, "a"), item(1, "b", MediaType.SYNTHETIC), item(2, "b", MediaType.SYNTHETIC)]
    with pytest.raises(ConfigurationError) as caught:
        draw_plan(items_to_table(rows), spec())
    assert caught.value.error_code == "one_class"
    assert "2 rows were left out" in str(caught.value)


def test_media_of_one_origin_are_never_on_both_sides() -> None:
    held = many("held", 10)
    derived = [item(f"d{i}", "f", MediaType.SYNTHETIC, origin=held[i].origin) for i in range(4)]
    items = [*held, *derived, *many("a", 10), *many("f", 10, MediaType.SYNTHETIC)]
    plan = draw(items, spec(provenances={"held": Provenance.HOLDOUT}))
    assert by_set(plan) == {"held": 10, "a": 10, "f": 10}
    assert plan.dropped == {"split_leak": 4}
    assert plan.to_round().sizes == plan.sizes
    # All of one side: nothing to leave out.
    assert by_set(draw(items, spec()))["f"] == 14


def test_hashes_that_begin_alike_are_told_apart() -> None:
    start = "ab" * 8
    items = many("f", 6, MediaType.SYNTHETIC)
    items += [item(i, "a", sha256=start + digest(i)[16:], origin=start + digest(i)[16:]) for i in range(6)]
    for order in (items, items[::-1]):
        plan = draw(order, spec(total=8))
        assert ids(plan, "a") == set(sorted(i.sha256 for i in items if i.dataset == "a")[:4])
        assert plan.dropped == {}


def test_an_origin_that_only_begins_like_a_held_out_one_is_no_leak() -> None:
    held = item("h", "held")
    near = item("n", "a", origin=held.origin[:16] + "0" * 48)
    plan = draw([held, near, *many("f", 2, MediaType.SYNTHETIC)], spec(provenances={"held": Provenance.HOLDOUT}))
    assert by_set(plan) == {"held": 1, "a": 1, "f": 2}


def test_slim_tables_of_single_sets_draw_the_same_plan() -> None:
    items = many("a", 60) + many("held", 30) + many("f", 80, MediaType.SYNTHETIC) + many("held", 3)
    wanted = spec(total=50, provenances={"held": Provenance.HOLDOUT})
    parts = [slim(items_to_table([i for i in items if i.dataset == name])) for name in ("f", "held", "a")]
    assert parts[0].column_names == list(CANDIDATE_COLUMNS)
    joined = draw_plan(pa.concat_tables(parts), wanted)
    assert joined.data_hash == draw(items, wanted).data_hash
    with pytest.raises(ConfigurationError):
        slim(items_to_table(items).drop_columns(["origin"]))


def test_an_empty_table_and_sizes_by_default() -> None:
    with pytest.raises(ConfigurationError):
        draw_plan(item_schema().empty_table(), spec())
    assert [spec(PlanMode.FULL).most, spec(PlanMode.SMALL).most, spec(PlanMode.DEBUG).most] == [55_000, 5_000, None]
    assert dict(FULL_SIZES) == {Modality.IMAGE: 55_000, Modality.VIDEO: 26_000, Modality.AUDIO: 37_000}


def test_places_depend_on_the_purpose() -> None:
    words = np.arange(5, dtype=np.uint64)
    assert (places(words, 1, "place") != places(words, 1, "sample")).all()
