"""What makes each framework fast, exact and quiet."""
