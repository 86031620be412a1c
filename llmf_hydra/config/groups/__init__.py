"""The sixteen groups, a file each: one declaration a parameter."""
