"""Where a run's parameters and metrics go. `open.open_trackers` is the way in; importing costs nothing."""
