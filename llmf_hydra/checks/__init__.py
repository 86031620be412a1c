"""Every reason to refuse a run, torch-free: `register` holds the rules, `values` looks at each value on its own,
and one file a subject holds the rules across parameters."""
