"""From a flat LLaMA-Factory YAML to an experiment: `importer` reads and writes, `translate` handles one key,
`trainer_names` knows the names beside the specification's."""
