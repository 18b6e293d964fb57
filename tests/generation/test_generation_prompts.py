from hypothesis import given
from hypothesis import strategies as st

from gas.clock import derive_rng
from gas.generation.prompts import SUBJECTS, Category, PromptSource, category_of, words_of


def test_the_same_generator_draws_the_same_prompts():
    draws = [[PromptSource().draw(derive_rng(7, "prompts", i)) for i in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]


def test_prompts_are_varied():
    rng = derive_rng(1, "prompts")
    prompts = [PromptSource().draw(rng) for _ in range(300)]
    assert len(set(prompts)) > 250
    assert max(map(len, prompts)) < 120
    assert {category_of(p) for p in prompts} == set(Category)


def test_pipelines_understand_what_prompts_are_about():
    for category in Category:
        source = PromptSource(categories=(category,))
        rng = derive_rng(2, category.value)
        understood = [category_of(source.draw(rng)) is category for _ in range(200)]
        assert sum(understood) >= 180, category


def test_every_subject_is_understood_on_its_own():
    for category, subjects in SUBJECTS.items():
        for subject in subjects:
            assert category_of(subject) is category, subject


def test_a_text_without_a_known_word_has_no_category():
    assert category_of("xyzzy") is None
    assert category_of("", Category.SCENE) is Category.SCENE


def test_singular_and_plural_are_one_word():
    assert words_of("Tomatoes and COINS, a glass bus") == ("tomato", "coin", "glass", "bus")


@given(st.text(max_size=20_000))
def test_any_text_gives_few_short_words(text):
    words = words_of(text)
    assert len(words) <= 64
    assert all(1 <= len(word) <= 24 for word in words)
    category_of(text)
