"""What the algorithms share: stepping weight by weight, Adam's moments, projections, and the parts of a model."""
