"""What the two trainers share: batches, the loss curve, and the conventions of either framework."""
