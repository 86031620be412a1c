"""How much memory a run will take: the tensors alive in one step (`live`), the passes that make them (`step`), and the sum."""
