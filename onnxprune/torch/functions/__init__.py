"""What the modules compute where PyTorch has no operator of the same meaning; called at run time."""
