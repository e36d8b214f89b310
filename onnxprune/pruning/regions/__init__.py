"""Regions of a graph that may give way: which, to what, at what cost and loss, and which pay in time."""
