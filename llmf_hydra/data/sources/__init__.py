"""Where rows come from: `resolve` finds a dataset, `dataset_info` describes it, `files` and `hub` read it, and `reader`
yields canonical rows."""
