"""Random valid networks, to prune random atoms of."""
