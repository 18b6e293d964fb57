"""What to ask for: prompts, and the words they are made of."""

from gas.datasets.words import SUBJECTS, Category, category_of, words_of
from gas.generation.prompts.source import PromptSource

__all__ = ["SUBJECTS", "Category", "PromptSource", "category_of", "words_of"]
