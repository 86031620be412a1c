"""Tokenized data on disk: `digest` names it, `store` writes it whole or not at all, `dataset_cache` keeps a source,
`tokenized_path` a whole dataset in the folder that `tokenized_folder` looks into, `ranks` lets one process make it and
the others wait."""
