"""Jobs: what is done with a config. Each file has `run(cfg, out, resume)`."""
