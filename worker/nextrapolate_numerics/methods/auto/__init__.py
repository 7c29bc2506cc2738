"""Auto, the method that chooses: what it weighs, how it tries it, and what it takes.

Candidates -> trials -> Mixture -> Choice
              products            explained
"""

from nextrapolate_numerics.methods.auto.auto import Auto

__all__ = ["Auto"]
