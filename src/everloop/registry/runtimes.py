"""What can answer for a model of each format, and what its answers are held against.

The reference of a format is its training framework's own predict. A runtime is served only where
the gate saw it give the reference's answers: the same bits where it is the same library, within
`CONVERTED` of them where a model was converted or its arithmetic is allowed to be rearranged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from everloop.core.errors import InvalidInput
from everloop.registry.loaders import (
    FORMATS,
    FloatArray,
    LoadPolicy,
    ModelFiles,
    Predictor,
    load_predictor,
)

if TYPE_CHECKING:
    from everloop.registry.adapters.sklearn_skops import SkopsPredictor

EXACT: Final = 0.0
CONVERTED: Final = 1e-6
"""Largest difference of a converted model, as a share of the answer, or as such below 1."""


class Runtime(NamedTuple):
    """One way to answer for a model.

    Attributes:
        name: As in gate reports and bundles.
        reads: The format of the files that it loads.
        packages: What must be installed to serve with it; the first that is there is its version.
        tolerance: How far its answers may lie from the reference's.
        load: Makes a predictor of the files.
        needs: What a server must import for it, in words; empty for none but the library itself.
        rounding: How far an answer may move, in the same measure, with the rows beside it: products
            of matrices are summed in an order that depends on their number.
    """

    name: str
    reads: str
    packages: tuple[str, ...]
    tolerance: float
    load: Callable[[ModelFiles, LoadPolicy], Predictor]
    needs: str = ""
    rounding: float = 0.0

    @property
    def version(self) -> str:
        """The package and version that answers, such as ``lightgbm 4.7.0``."""
        from importlib import metadata  # a server never asks, and starts faster without it

        for package in self.packages:
            try:
                return f"{package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                continue
        return ""


def _by_format(name: str) -> Callable[[ModelFiles, LoadPolicy], Predictor]:
    return lambda files, policy: load_predictor(name, files, policy)


def _plain_onnx(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.onnx_runtime import OnnxPredictor

    del policy
    return OnnxPredictor(files["model.onnx"], optimised=False)


def _xgboost_by_matrix(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.xgboost_native import XgboostPredictor

    del policy
    return XgboostPredictor(next(iter(files.values())), by_matrix=True)


_ONNX_PACKAGES: Final = ("onnxruntime", "onnxruntime-gpu")
_XGBOOST_PACKAGES: Final = ("xgboost", "xgboost-cpu")
_SINGLE, _DOUBLE = 1e-6, 1e-9
_ROWS: Final = (
    Runtime("lightgbm-c", "lightgbm", ("lightgbm",), EXACT, _by_format("lightgbm")),
    Runtime("xgboost-c", "xgboost", _XGBOOST_PACKAGES, EXACT, _by_format("xgboost")),
    Runtime("xgboost-matrix", "xgboost", _XGBOOST_PACKAGES, EXACT, _xgboost_by_matrix),
    Runtime("onnxruntime", "onnx", _ONNX_PACKAGES, CONVERTED, _by_format("onnx"), rounding=_SINGLE),
    Runtime("onnxruntime-plain", "onnx", _ONNX_PACKAGES, EXACT, _plain_onnx, rounding=_SINGLE),
    Runtime("torch-graph", "torch", ("torch",), EXACT, _by_format("torch"), "PyTorch", _SINGLE),
    Runtime(
        "skops",
        "sklearn",
        ("scikit-learn",),
        EXACT,
        _by_format("sklearn"),
        "scikit-learn, SciPy",
        _DOUBLE,
    ),
    Runtime(
        "pyfunc", "pyfunc", ("numpy",), EXACT, _by_format("pyfunc"), "a process of its own", _DOUBLE
    ),
)
RUNTIMES: Final[dict[str, Runtime]] = {row.name: row for row in _ROWS}
DEFAULTS: Final[dict[str, str]] = {
    "lightgbm": "lightgbm-c",
    "xgboost": "xgboost-c",
    "onnx": "onnxruntime",
    "torch": "torch-graph",
    "sklearn": "skops",
    "pyfunc": "pyfunc",
}
"""The runtime of a format where no gate chose one."""


class Candidate(NamedTuple):
    """A runtime with the files that it would load.

    Attributes:
        conversion: The precision to which they were converted from the version's own files; empty
            where they are these.
    """

    runtime: Runtime
    files: Mapping[str, bytes]
    conversion: str = ""

    @property
    def name(self) -> str:
        """The runtime's name, with the conversion if there is one."""
        return f"{self.runtime.name} in {self.conversion}" if self.conversion else self.runtime.name


class Reference(NamedTuple):
    """What the training framework answers.

    Attributes:
        name: In words, with its version.
    """

    name: str
    answer: Callable[[FloatArray], FloatArray]
    close: Callable[[], None]


def open_runtime(name: str, files: ModelFiles, policy: LoadPolicy) -> Predictor:
    """Load a predictor by the name of a runtime.

    Raises:
        InvalidInput: ``model.runtime_unknown``, or the files are unsound.
        UnsafeArtifact: the policy refuses the format or something in the files.
        MissingExtra: the library is not installed.
    """
    runtime = RUNTIMES.get(name)
    if runtime is None:
        raise InvalidInput(
            "model.runtime_unknown",
            f"There is no runtime {name[:40]!r}.",
            hint=f"There are {', '.join(RUNTIMES)}; a newer Everloop may know more.",
        )
    return runtime.load(files, policy)


def open_reference(format_name: str, files: ModelFiles, policy: LoadPolicy) -> Reference:
    """Return the training framework's own predict of a model.

    Raises:
        EverloopError: the model can't be loaded, or the framework is not installed.
    """
    from everloop.registry.adapters.references import ask_lightgbm, ask_xgboost

    if format_name == "lightgbm":
        name = f"lightgbm.Booster.predict, {RUNTIMES['lightgbm-c'].version}"
        return Reference(name, ask_lightgbm(files), _nothing)
    if format_name == "xgboost":
        name = f"xgboost.Booster.predict, {RUNTIMES['xgboost-c'].version}"
        return Reference(name, ask_xgboost(files), _nothing)
    runtime = RUNTIMES["onnxruntime-plain" if format_name == "onnx" else DEFAULTS[format_name]]
    predictor = runtime.load(files, policy)
    words = {
        "onnx": "the graph as written, not optimised",
        "sklearn": "the estimator's own predict",
        "torch": "the operators of PyTorch one by one",
        "pyfunc": "the function itself",
    }
    return Reference(f"{words[format_name]}, {runtime.version}", predictor.predict, predictor.close)


def find_candidates(
    format_name: str, files: ModelFiles, policy: LoadPolicy, refused: dict[str, str]
) -> Iterator[Candidate]:
    """Yield what may answer for a model, the fastest by expectation first.

    Args:
        format_name: The format of the version's native files.
        files: These files.
        policy: What may be loaded.
        refused: Takes, by name, why a conversion was not made.
    """
    if format_name == "sklearn":
        yield from _converted(files, policy, refused)
    if format_name in FORMATS:
        yield Candidate(RUNTIMES[DEFAULTS[format_name]], files)
    # Of the same library, slower, and as its Python package does it, rounding and all.
    slower = {"onnx": "onnxruntime-plain", "xgboost": "xgboost-matrix"}.get(format_name)
    if slower is not None:
        yield Candidate(RUNTIMES[slower], files)


def _converted(
    files: ModelFiles, policy: LoadPolicy, refused: dict[str, str]
) -> Iterator[Candidate]:
    from everloop.core.errors import EverloopError
    from everloop.registry.adapters.sklearn_onnx import convert_sklearn

    try:
        loaded = cast("SkopsPredictor", load_predictor("sklearn", files, policy))
        for precision, model in convert_sklearn(loaded.estimator, loaded.inputs):
            yield Candidate(RUNTIMES["onnxruntime"], {"model.onnx": model}, precision)
    except EverloopError as error:
        refused["onnxruntime"] = error.message


def _nothing() -> None:
    """Free nothing: the object does."""
