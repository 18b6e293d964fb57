"""Pure functions from answers to pay: metrics, rewards, weights, consensus.

No input or output, clock, randomness or logging: the callers pass these in. Each module names the section of the
scoring specification that it implements.
"""
