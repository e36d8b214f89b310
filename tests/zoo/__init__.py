"""Real models: where they come from (`sources`, `networks`, `export_zoo`) and what must hold for each."""
