"""The file and what runs it: models, weights, shapes, and a read-only view of the graph."""
