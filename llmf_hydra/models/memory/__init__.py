"""How much memory a run will take: the tensors alive in a step (`live`), its passes (`step`), and the sum (`estimate`)."""
