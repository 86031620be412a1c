"""Stages: what differs between the kinds of training, and only that.

Each file has `build_trainer(parts) -> Trainer`; which rows a stage takes is `cfg.stage.rows`.
"""
