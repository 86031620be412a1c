"""Models that come with code of their own (`model.trust_remote_code`)."""

from transformers import dynamic_module_utils


def leave_imports_unchecked() -> None:
    """Have a model's own code import what it needs when it does: a package for a path that isn't taken may be missing.

    Transformers would refuse the file for each package that it names anywhere, also inside a function.
    """
    dynamic_module_utils.check_imports = dynamic_module_utils.get_relative_imports
