"""Two runs, or a run and what is here now: `circumstances` they began in, `outcome` they came to, `curves` between."""
