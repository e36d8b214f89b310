"""Where a model is cut for several machines: every cut with its costs, and the parts with their proof."""
