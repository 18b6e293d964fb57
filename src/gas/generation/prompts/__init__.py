"""What to ask for: prompts, and the words they are made of."""

from gas.generation.prompts.source import PromptSource
from gas.generation.prompts.words import SUBJECTS, Category, category_of, words_of

__all__ = ["SUBJECTS", "Category", "PromptSource", "category_of", "words_of"]
