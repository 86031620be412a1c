"""Workers on other machines: `remote` is one as its launcher sees it, `ray_worker` and `slurm_worker` talk to the
scheduler, `host` and `node` are what runs on the node.
"""
