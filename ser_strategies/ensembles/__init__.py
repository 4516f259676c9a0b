"""Ensembles: members weighed by constrained optimisation on validation predictions, on paper and to ship."""
