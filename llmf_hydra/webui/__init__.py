"""The web page: `fields` (what a form may say) -> `commands` (the command line it stands for, run as a process of its
own) -> `composed`, `watch`, `talk` (what came of it) -> `tabs/` (what is seen) -> `page` and `server`.

The page runs what a user would type, and holds no model. Runs are found by their folders, whoever began them.
"""
