"""Turns a PyTorch module into a graph of core operators and its weights; used only for saving."""

from __future__ import annotations

import warnings
from typing import Any

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.registry.adapters.refusals import FloatArray, missing, unsupported
from everloop.registry.adapters.torch_graph import TorchPredictor
from everloop.registry.adapters.torch_operators import find_operator
from everloop.registry.adapters.torch_steps import Graph, Step, check_graph, import_torch

_ROWS_TO_TRY = 2
_ROWS_TO_COMPARE = 1_000
_ALIKE = 1e-5  # float32, whose sums the export may put in another order


def save_torch(model: object, example: FloatArray | None) -> dict[str, bytes]:
    """Return the files of an exported program, or of a module together with a few rows.

    The module is exported as it evaluates; it takes one matrix of rows in float32.

    Raises:
        InvalidInput: ``model.example_missing`` for a module without rows,
            ``model.outputs_unsupported`` for one that answers something else than numbers a row,
            ``model.export_failed``, or ``model.export_differs`` when the graph does not answer the
            rows as the module does.
        UnsafeArtifact: ``artifact.operators_refused`` for operators beyond the core ones.
    """
    torch = import_torch()
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise missing("safetensors", "torch") from error
    graph, weights = _export(torch, model, example)
    check_graph(graph)
    for step in graph.steps:
        find_operator(torch, step.call)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    files = {"graph.json": msgspec.json.encode(graph), "model.safetensors": save(plain)}
    if example is not None and len(example) and isinstance(model, torch.nn.Module):
        _require_alike(torch, model, TorchPredictor(*files.values()), example)
    return files


def _require_alike(torch: Any, module: Any, saved: TorchPredictor, example: FloatArray) -> None:
    """Refuse a graph with other answers than the module's: it is what the gate goes by."""
    rows = np.nan_to_num(example[:_ROWS_TO_COMPARE])
    was_training = module.training
    try:
        with torch.no_grad():
            told = module.eval()(torch.from_numpy(rows.astype(np.float32)))
    finally:
        module.train(was_training)
    found = saved.predict(rows)
    wanted = told.to(torch.float64).numpy().reshape(found.shape)
    if not np.allclose(found, wanted, rtol=_ALIKE, atol=_ALIKE, equal_nan=True):
        raise InvalidInput(
            "model.export_differs",
            f"The exported graph answers {float(np.nanmax(np.abs(found - wanted))):.3g} away from "
            "the module.",
            hint="The module may keep a state between calls; let it depend on its input alone.",
        )


def _export(torch: Any, model: Any, example: FloatArray | None) -> tuple[Graph, dict[str, Any]]:
    """Return the graph of an exported program or a module, and its weights by name.

    Raises:
        InvalidInput: as `save_torch`.
    """
    program = model if isinstance(model, torch.export.ExportedProgram) else None
    if program is None:
        program = _export_module(torch, model, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = program.run_decompositions()
    return _Reader(torch, program).graph()


def _export_module(torch: Any, module: Any, example: FloatArray | None) -> Any:
    if example is None or not len(example):
        raise InvalidInput(
            "model.example_missing",
            f"A {type(module).__name__} does not say how many columns it takes.",
            hint="Give example rows, or an exported program (torch.export.export).",
        )
    # Two rows at least: with one, the exporter would take their number for a constant.
    rows = np.resize(example, (max(len(example), _ROWS_TO_TRY), example.shape[1]))
    given = torch.from_numpy(np.nan_to_num(rows).astype(np.float32))
    was_training = module.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(
                module.eval().cpu(), (given,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
    except Exception as error:  # the exporter raises what it likes
        raise InvalidInput(
            "model.export_failed",
            f"The module can't be exported: {str(error).partition(chr(10))[0][:200]}",
            hint="It must take one matrix of any number of rows, without a branch on their values.",
        ) from error
    finally:
        module.train(was_training)


class _Reader:
    """Reads the nodes of an exported program in order."""

    def __init__(self, torch: Any, program: Any) -> None:
        self.torch = torch
        self.program = program
        self.numbers: dict[str, int] = {}

    def graph(self) -> tuple[Graph, dict[str, Any]]:
        weights = self.weights()
        steps = []
        answer = None
        for node in self.program.graph.nodes:
            if node.op == "call_function" and not _is_assertion(node):
                steps.append(self.step(node))
                self.numbers[node.name] = len(weights) + len(steps)
            elif node.op == "output":
                answer = self.answer(node)
        if answer is None:
            raise unsupported("The program has no answer.", "Return one tensor.")
        rows, outputs = self.inputs, self.outputs
        return (
            Graph(
                inputs=rows,
                outputs=outputs,
                weights=list(weights),
                steps=steps,
                answer=answer,
            ),
            weights,
        )

    def weights(self) -> dict[str, Any]:
        """Number the weights and the matrix of rows; return the weights by name."""
        found: dict[str, Any] = {}
        rows = []
        state = {**self.program.state_dict, **self.program.constants}
        for spec in self.program.graph_signature.input_specs:
            if spec.kind.name == "USER_INPUT":
                rows.append(spec.arg.name)
                continue
            tensor = state.get(spec.target)
            if not isinstance(tensor, self.torch.Tensor):
                raise unsupported(
                    f"The program needs {str(spec.target)[:60]!r}, which is no tensor.",
                    "Keep everything it needs in parameters and buffers.",
                )
            self.numbers[spec.arg.name] = len(found)
            found[spec.target] = tensor
        if len(rows) != 1:
            raise unsupported(
                f"The program takes {len(rows)} tensors.", "Let it take one matrix of rows."
            )
        self.numbers[rows[0]] = len(found)
        return found

    def step(self, node: Any) -> Any:
        target = node.target
        if isinstance(target, self.torch._ops.OpOverload):
            call = str(target)
        else:
            call = getattr(target, "__name__", str(target))
        return Step(
            call=call,
            args=[self.argument(arg) for arg in node.args],
            kwargs={
                name: self.argument(arg)
                for name, arg in node.kwargs.items()
                if name != "device" and arg is not None and (name, arg) != ("pin_memory", False)
            },
        )

    def argument(self, arg: Any) -> Any:
        torch = self.torch
        if isinstance(arg, torch.fx.Node):
            return {"of": self.numbers[arg.name]}
        if isinstance(arg, list | tuple):
            return [self.argument(item) for item in arg]
        for kind, holder in (
            ("dtype", torch.dtype),
            ("layout", torch.layout),
            ("memory_format", torch.memory_format),
        ):
            if isinstance(arg, holder):
                return {kind: str(arg).rpartition(".")[2]}
        if isinstance(arg, float) and not np.isfinite(arg):
            return {"float": str(arg)}
        if arg is None or isinstance(arg, bool | int | float | str):
            return arg
        raise unsupported(
            f"The program passes a {type(arg).__name__} to an operator.",
            "Keep to tensors and plain numbers.",
        )

    def answer(self, node: Any) -> int:
        specs = self.program.graph_signature.output_specs
        wanted = [
            arg
            for spec, arg in zip(specs, node.args[0], strict=True)
            if spec.kind.name == "USER_OUTPUT"
        ]
        if len(wanted) != 1 or len(specs) != 1:
            raise unsupported(
                f"The program gives {len(wanted)} tensors, or changes its own weights.",
                "Let it return one tensor, in evaluation mode.",
            )
        return self.numbers[wanted[0].name]

    @property
    def inputs(self) -> int:
        """How many columns the matrix of rows has."""
        name = next(
            spec.arg.name
            for spec in self.program.graph_signature.input_specs
            if spec.kind.name == "USER_INPUT"
        )
        return self._columns(name, "take")

    @property
    def outputs(self) -> int:
        """How many numbers it answers for a row."""
        return self._columns(self.program.graph_signature.output_specs[0].arg.name, "answer")

    def _columns(self, name: str, what: str) -> int:
        node = next(node for node in self.program.graph.nodes if node.name == name)
        shape = tuple(node.meta["val"].shape)
        if what == "answer" and len(shape) == 1:
            return 1
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise unsupported(
                f"The program {what}s tensors of shape {list(map(str, shape))}.",
                f"Let it {what} one matrix: rows by a fixed number of columns.",
            )
        return shape[1]


def _is_assertion(node: Any) -> bool:
    # They only check, at the cost of a call, what the operators behind them check as well.
    return "_assert" in str(node.target) or "sym_constrain" in str(node.target)
