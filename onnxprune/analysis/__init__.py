"""What is coupled, what it costs, and why."""
