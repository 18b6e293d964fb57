"""What to ask for: prompts, where they come from, and the words they are made of.

``source`` draws simple ones from templates; ``compose`` (with ``scenes``, ``lexicon``, ``spoken``, ``terms``) makes
varied ones in the registers of real media; ``describe`` and ``labels`` say what real media show; ``blocks``,
``columns``, ``index`` and ``hub`` draw from files of any size; ``quality`` refuses, ``embedding`` and ``neighbours``
find near repeats, ``diversity`` and ``picture`` report.
"""

from gas.datasets.words import SUBJECTS, Category, category_of, words_of
from gas.generation.prompts.source import PromptSource

__all__ = ["SUBJECTS", "Category", "PromptSource", "category_of", "words_of"]
