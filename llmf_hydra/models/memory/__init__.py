"""How much memory a run will take: tensors alive in a step (`live`), its passes (`step`), the sum (`estimate`)."""
