"""A build backend (PEP 517) for packages of one module, without dependencies."""

import tomllib
from pathlib import Path
from zipfile import ZipFile

HERE = Path(__file__).parent


def build_wheel(
    wheel_directory: str, config_settings: object = None, metadata_directory: object = None
) -> str:
    """Write the wheel and return its name."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    points = project["entry-points"]["dpo_bench.rewards"]
    modules = {f"{value.partition(':')[0]}.py" for value in points.values()}
    lines = [f"{name} = {value}" for name, value in points.items()]
    metadata = {
        "METADATA": (
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        ),
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "\n".join(["[dpo_bench.rewards]", *lines, ""]),
    }
    files = {name: (HERE / name).read_text() for name in sorted(modules)}
    files |= {f"{stem}.dist-info/{name}": text for name, text in metadata.items()}
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    wheel = f"{stem}-py3-none-any.whl"
    with ZipFile(Path(wheel_directory) / wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel
