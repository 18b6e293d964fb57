"""GAS, the Generative Adversarial Subnet: detectors against generators, judged and paid.

The package is a house with floors (see ``CONTRIBUTING.md``): a module imports only from its own floor or
from one below. Importing ``gas`` does nothing but name the version.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
