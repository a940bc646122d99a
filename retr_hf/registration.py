"""Makes transformers know RETR as soon as both are imported, in either order, and neither import slower for it.

Registering needs torch and the model classes, which take seconds to import; the data and report wings do without. So
the registering modules are imported right after the parts of transformers that they register with.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder

REGISTERS = {  # part of transformers, or of ours -> our module that registers classes when imported
    "transformers.models.auto.modeling_auto": "retr_hf.model.modeling_retr",
    "transformers.models.auto.processing_auto": "retr_hf.model.processing_retr",
    "transformers.pipelines": "retr_hf.model.pipeline_retr",
    "retr_hf.model.modeling_retr": "retr_hf.baseline_models",  # the others of our models come with it
}


class _AfterImport(MetaPathFinder):
    """Finds the modules of ``REGISTERS`` as Python would, and lets ours follow them."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname not in REGISTERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                if fullname.startswith("retr_hf.") or not _importing_ours():
                    importlib.import_module(REGISTERS[fullname])

            spec.loader.exec_module = exec_module
        return spec


def _importing_ours() -> bool:
    """Whether transformers is being imported by a model file of ours: it cannot be imported again in its midst, and
    those that register do so at their end."""
    ours = (module for name, module in sys.modules.items() if name.startswith("retr_hf.model."))
    return any(getattr(module.__spec__, "_initializing", False) for module in ours)


def register() -> None:
    """Registers now what can be, and the rest when transformers gets there."""
    for theirs, ours in REGISTERS.items():
        if theirs in sys.modules:
            importlib.import_module(ours)
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
