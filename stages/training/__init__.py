"""What the two trainers share: `fit`, the loss curve, and the conventions of either framework."""
