"""Choose channels, remove them, prove the result, and repair what is left."""
