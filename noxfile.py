"""What must hold before a change is taken: `nox` runs it, `nox -l` lists it.

`nox -s tests` is the full matrix of Pythons and backends; an interpreter that is not installed is
skipped, and nox says so. Words behind `--` go to the program that the session runs.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13"]
BACKENDS = ["jax", "tensorflow"]
_THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
_MAIN = _THIS if _THIS in PYTHONS else PYTHONS[0]
# Newest Python and newest JAX come together; TensorFlow's wheels lag behind both.
_TESTS = dict.fromkeys([*(f"tests-{_MAIN}({name})" for name in BACKENDS), "tests-3.13(jax)"])
nox.options.sessions = [
    *("lint", "types", *_TESTS, "both", "trackers", "deploy", "node", "old_onnxruntime"),
    *("wheel", "notebook"),
]

# Name of a file in requirements/ -> extras of this project, and further packages that it locks.
# What a user's install does is for the sessions that install without a lock to show.
LOCKS = {
    "lint": ((), ("ruff",)),
    "types": (("train", "test"), ("mypy", "nox")),
    "jax": (("jax", "test"), ()),
    "tensorflow": (("savedmodel", "test"), ()),
    "both": (("jax", "savedmodel", "test"), ()),
    "deploy": (("deploy",), ("hypothesis", "pytest")),
}

# These need neither Keras nor a backend, and neither does what they test.
_DEPLOY_TESTS = (
    *("imports", "store", "images", "image_headers", "parallel", "progress"),
    *("deploy", "export_readme"),
)
# What reaches TensorFlow from JAX, or must not.
_BOTH_TESTS = ("backend", "export_saved_model", "export_tf2onnx", "export_formats")
# One worker per core; `-n 0` behind `--` runs the tests in one process, as a debugger wants.
_PARALLEL = ("-n", "auto", "--dist", "worksteal")
_TEMPLATES = ("layout.html.j2", "report.html.j2", "compare.html.j2", "report.css")
# Of September 2024; it takes the same NumPy as the newest one.
_OLD_ONNXRUNTIME = "onnxruntime==1.19.2"

_DRAW = """
from pathlib import Path
from PIL import Image
for name, channel in (("red", 0), ("green", 1), ("blue", 2)):
    folder = Path("drawn", name)
    folder.mkdir(parents=True)
    for number in range(10):
        colour = [20 * number] * 3
        colour[channel] = 255
        Image.new("RGB", (32, 32), tuple(colour)).save(folder / f"{number}.png")
"""


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format of the whole project."""
    ruff = _pinned("ruff")
    if ruff not in Path(".pre-commit-config.yaml").read_text("utf-8"):
        session.error(f".pre-commit-config.yaml must pin {ruff} as the extra dev does")
    _install_locked(session, "lint", project=False)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the whole project, strictly."""
    # No backend is installed: they have no types to be checked against.
    _install_locked(session, "types")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHONS)
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests on one Python and one backend; the slow ones on one Python only."""
    _install_locked(session, backend)
    options = [*_PARALLEL, *([] if session.python == _MAIN else ["-m", "not slow"])]
    session.run("pytest", *options, *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session
def both(session: nox.Session) -> None:
    """Export from Keras on JAX to what TensorFlow writes, where both are installed."""
    _install_locked(session, "both")
    files = [f"tests/test_{name}.py" for name in _BOTH_TESTS]
    session.run("pytest", *_PARALLEL, *files, *session.posargs, env={"KERAS_BACKEND": "jax"})


@nox.session(venv_backend="uv")
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def lowest(session: nox.Session, backend: str) -> None:
    """Run the tests on the oldest packages that pyproject.toml allows; needs uv."""
    session.install("-e", f".[{backend},test]", "--resolution", "lowest-direct")
    # Old packages warn of each other.
    options = (*_PARALLEL, "-W", "default", *session.posargs)
    session.run("pytest", *options, env={"KERAS_BACKEND": backend})


@nox.session
def deploy(session: nox.Session) -> None:
    """Show that what is deployed needs no training framework."""
    _install_locked(session, "deploy")
    for name in ("keras", "jax", "tensorflow", "onnx"):
        session.run("python", "-c", f"import {name}", success_codes=[1], silent=True)
    session.run("mnv2tl", "--help", silent=True)
    session.run("mnv2tl", "samples", "list")
    session.run("mnv2tl", "doctor", success_codes=[5], silent=True)  # it cannot train
    files = [f"tests/test_{name}.py" for name in _DEPLOY_TESTS]
    session.run("pytest", *files, *session.posargs)


@nox.session
def node(session: nox.Session) -> None:
    """Ask onnxruntime for Node.js, which nobody here wrote, about an exported model."""
    if shutil.which("npm") is None:
        session.skip("npm is not installed")
    _install_locked(session, "deploy")
    folder = str(Path(session.create_tmp()).resolve())
    # Its install script fetches what CUDA needs, and nothing else.
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)
    session.run("npm", "install", *options, "onnxruntime-node", external=True, silent=True)
    tests = ("tests/test_export_readme.py", *session.posargs)
    session.run("pytest", *tests, env={"MNV2TL_TEST_NODE": folder})


@nox.session(python="3.11")
def old_onnxruntime(session: nox.Session) -> None:
    """Ask an onnxruntime of two years ago about models, and about those named behind `--`."""
    script, folder = "tests/old_onnxruntime.py", str(_new_folder(session))
    session.install("-e", ".[deploy]", "onnx")
    session.run("python", script, "make", folder, *session.posargs)
    session.install(_OLD_ONNXRUNTIME)
    session.run("python", script, "compare", folder)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build source archive and wheel, install the wheel away from the checkout, and run it."""
    folder = _new_folder(session)
    session.install("build", *nox.project.load_toml("pyproject.toml")["build-system"]["requires"])
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder), silent=True)
    file = next(folder.glob("*.whl"))
    _check_content(session, file)
    session.chdir(folder)
    session.install(f"mnv2tl[train] @ {file.as_uri()}")
    session.run("python", "-c", _DRAW)
    session.run("mnv2tl", "--help", silent=True)
    session.run("mnv2tl", "audit", "drawn", env=_cache(session))


@nox.session
def notebook(session: nox.Session) -> None:
    """Execute the quick start notebook; an error in a cell fails the session."""
    session.install("-e", ".[jax,demo,notebook]")
    path = Path("docs", "quickstart.ipynb").resolve()
    session.chdir(_new_folder(session))
    copy = Path("executed.ipynb")
    copy.write_bytes(path.read_bytes())
    session.run("jupyter", "execute", "--inplace", "--timeout=600", str(copy), env=_cache(session))


@nox.session
def demo(session: nox.Session) -> None:
    """Go the whole way on sample pictures, as the first line of the README does."""
    session.install("-e", ".[demo]")
    session.chdir(_new_folder(session))
    session.run("mnv2tl", "demo", *session.posargs, env=_cache(session))


@nox.session
def browser(session: nox.Session) -> None:
    """Look at a report in Chromium: quiet, without overflow, accessible."""
    if not (os.environ.get("MNV2TL_TEST_BROWSER") or shutil.which("chromium")):
        session.skip("there is no chromium; MNV2TL_TEST_BROWSER may name one")
    session.install("-e", ".[jax,test]", "playwright>=1.50")
    env = {}
    if shutil.which("npm"):
        folder = str(Path(session.create_tmp()).resolve())
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)
        session.run("npm", "install", *options, "axe-core", external=True, silent=True)
        env["MNV2TL_TEST_AXE"] = f"{folder}/node_modules/axe-core/axe.min.js"
    session.run("pytest", "tests/test_report_browser.py", *session.posargs, env=env)


@nox.session
def trackers(session: nox.Session) -> None:
    """Tell MLflow, Weights & Biases and TensorBoard of trainings, and read back what they keep."""
    session.install("-e", ".[jax,test,mlflow,wandb]")
    session.run("pytest", "tests/test_trackers.py", "tests/test_tensorboard.py", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill every writer at every system call, kill trainings, damage files; takes an hour."""
    session.install("-e", ".[jax]")
    session.run("python", "-m", "benchmarks.faults", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run one benchmark on both backends' packages: `nox -s bench -- NAME`."""
    about = Path("benchmarks", "README.md").read_text("utf-8")
    names = sorted(set(re.findall(r"`python -m benchmarks\.(\w+)", about)))
    if not session.posargs or session.posargs[0] not in names:
        session.error(f"usage: nox -s bench -- NAME [OPTION...], NAME one of {', '.join(names)}")
    # OpenVINO, ImageHash and jax2onnx are compared with; ImageHash brings SciPy, which the classic
    # script's generator needs.
    others = ("imagehash>=4.3.2", "openvino>=2026.0", "jax2onnx>=0.17")
    session.install("-e", ".[jax,savedmodel,demo]", *others)
    name, *options = session.posargs
    session.run("python", "-m", f"benchmarks.{name}", *options)


@nox.session
def lock(session: nox.Session) -> None:
    """Write requirements/*.txt anew, each with the newest versions and their hashes: `-- NAME`."""
    session.install("uv")
    build = nox.project.load_toml("pyproject.toml")["build-system"]["requires"]
    more_in = Path(session.create_tmp()).resolve() / "more.in"
    for name in session.posargs or LOCKS:
        extras, more = LOCKS[name]
        project = ["pyproject.toml", *(f"--extra={extra}" for extra in extras)] if extras else []
        names = [
            each if each in ("nox", "pytest", "hypothesis") else _pinned(each) for each in more
        ]
        more_in.write_text("\n".join([*names, *(build if extras else ())]), "ascii")
        session.run(
            *(
                "uv",
                "pip",
                "compile",
                *project,
                str(more_in),
                f"--output-file=requirements/{name}.txt",
            ),
            *("--universal", f"--python-version={PYTHONS[0]}", "--generate-hashes", "--upgrade"),
            *("--no-annotate", "--no-emit-index-url", "--quiet"),
            env={"UV_CUSTOM_COMPILE_COMMAND": f"nox -s lock -- {name}"},
        )


@nox.session
def audit(session: nox.Session) -> None:
    """Ask which known vulnerabilities the locked packages have; needs the network."""
    session.install("pip-audit")
    for name in ("deploy", *BACKENDS):
        file = f"requirements/{name}.txt"
        words = ("--requirement", file, "--disable-pip", "--require-hashes", *session.posargs)
        # Strict: a package that the service does not know, or an index without one, is a failure.
        session.run("pip-audit", "--strict", "--progress-spinner=off", *words)


def _install_locked(session: nox.Session, name: str, *, project: bool = True) -> None:
    """Install the packages of a lock by their hashes, and this project without a look elsewhere."""
    session.install("--require-hashes", "--requirement", f"requirements/{name}.txt")
    if project:
        session.install("--no-deps", "--no-build-isolation", "-e", ".")


def _pinned(name: str) -> str:
    """Return the requirement of a tool as the extra `dev` pins it."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    dev: list[str] = project["optional-dependencies"]["dev"]
    return next(each for each in dev if each.startswith(f"{name}=="))


def _new_folder(session: nox.Session) -> Path:
    """Return an empty folder of this session."""
    folder = Path(session.create_tmp()).resolve() / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _cache(session: nox.Session) -> dict[str, str]:
    """Return the environment that keeps mnv2tl's caches inside of .nox."""
    return {"MNV2TL_CACHE": str(session.cache_dir.resolve() / "mnv2tl")}


def _check_content(session: nox.Session, file: Path) -> None:
    """End the session if the wheel lacks data files, or ships what is no package of ours."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    data = {
        *("mnv2tl/py.typed", "mnv2tl/stamps.json"),
        *("mnv2tl_export/bundle_readme.md", "mnv2tl_export/model_card.md"),
        *(f"mnv2tl/report/templates/{name}" for name in _TEMPLATES),
    }
    missing = data - set(names)
    foreign = [name for name in names if not name.startswith("mnv2tl")]
    if missing or foreign:
        session.error(f"{file.name} lacks {sorted(missing)} and must not hold {foreign}")
